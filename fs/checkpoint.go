package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
)

// checkpoint writes what changed in every space into its database and lets the journal reuse its files. A space where that
// fails keeps no other from it.
func (h *Home) checkpoint(ctx context.Context) error {
	h.ckptMu.Lock()
	defer h.ckptMu.Unlock()
	var err error
	for _, s := range h.each() {
		err = errors.Join(err, s.checkpoint(ctx, false))
	}
	return err
}

// releasable finds up to which record no space needs the journal, once s has a checkpoint up to seq with the given need.
// A space without records behind its checkpoint needs none: the next one it gets has a number above seq. What was released
// stays so, although such a space, once it has that record, seems to need all that came behind its checkpoint.
func (h *Home) releasable(s *space, seq, need journal.Seq) journal.Seq {
	low := seq
	if need != 0 {
		low = min(low, need-1)
	}
	for _, o := range h.all() {
		if o == s {
			continue
		}
		o.mu.Lock()
		if o.last != o.loaded {
			low = min(low, o.loaded)
		}
		if o.need != 0 {
			low = min(low, o.need-1)
		}
		o.mu.Unlock()
	}
	return max(low, journal.Seq(h.released.Load()))
}

// giveBack releases what no space needs of the journal, once a database says so.
func (h *Home) giveBack(seq journal.Seq) {
	for {
		old := h.released.Load()
		if uint64(seq) <= old || h.released.CompareAndSwap(old, uint64(seq)) {
			break
		}
	}
	h.jr.Release(seq)
}

// ingestBytes is how much memory the index of batches may take that came in and are in no checkpoint.
const ingestBytes = 16 << 20

// room has a checkpoint written where what came from others takes much memory: it comes faster than it arrives in the tree. No lock is
// held.
func (s *space) room() {
	if s.log.Dirty() < ingestBytes {
		return
	}
	s.h.ckptMu.Lock()
	defer s.h.ckptMu.Unlock()
	s.mu.Lock()
	unmade := s.passing // it is being made, and gets its first checkpoint when it is
	s.mu.Unlock()
	if unmade || s.log.Dirty() < ingestBytes {
		return // another has seen to it
	}
	_ = s.checkpoint(context.Background(), true) // where that fails it takes more memory; the checkpointer tries too, and says why
}

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// checkpoint writes what changed since the last one in one transaction, after what it refers to is durable. While it is written, others
// publish and changes arrive: what they change is in the next one.
func (s *space) checkpoint(ctx context.Context, always bool) error {
	s.pubMu.Lock()
	publishing := sync.OnceFunc(s.pubMu.Unlock)
	defer publishing()
	s.saving.Lock()
	defer s.saving.Unlock()
	s.in.save()
	s.mu.Lock()
	if s.gone && always {
		s.mu.Unlock()
		return ErrStale // who needs one has none, should the space stay
	}
	if s.gone || s.sick != nil || s.last == s.loaded && s.rows.Weight() == 0 && !s.unsaved && !always {
		s.mu.Unlock()
		return nil
	}
	for ino := range s.streams {
		if err := s.journalMem(ino); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	if s.unnoted != nil && !s.applied {
		// The checkpoint holds its batch, and so what that published: else it would be published a second time.
		if err := s.applyUnnoted(s.last); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	noted := s.unnoted == nil
	seq, passing := s.last, s.passing
	need, dirty, err := s.needed()
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.ix.SetValue(valueNext, u64(s.nextIno))
	s.ix.SetValue(valueLoaded, u64(uint64(seq)))
	s.ix.SetValue(valueNeed, u64(uint64(need)))
	s.ix.SetValue(valueMark, u64(uint64(s.log.Mark())))
	s.ix.SetValue(valueDirty, dirty)
	s.saveIgnored()
	s.saveUploadsPast()
	s.ix.SetValue(valueObjects, u64(uint64(s.objects)))
	s.unsaved = false
	writeIndex, doneIndex := s.ix.Freeze()
	writeRows, doneRows := s.rows.Freeze()
	writeLog, doneLog := s.log.Freeze()
	writeACL, doneACL := s.aclLog.Freeze()
	writeBlocks, doneBlocks := s.blocks.Freeze()
	s.mu.Unlock()
	if noted {
		publishing()
	} // else a note in the journal would have a replay do again what the checkpoint holds

	crashpoint.Here(crashpoint.CheckpointBegin)
	released := journal.Seq(s.h.released.Load())
	if !passing {
		released = s.h.releasable(s, seq, need)
	}
	err = s.durable(ctx, seq)
	crashpoint.Here(crashpoint.CheckpointDurable)
	if err == nil {
		err = s.db.Update(func(tx kv.Tx) error {
			defer crashpoint.Here(crashpoint.CheckpointCommit)
			for _, write := range []func(kv.Tx) error{writeIndex, writeRows, writeLog, writeACL, writeBlocks} {
				if err := write(tx); err != nil {
					return err
				}
			}
			return s.ix.WriteValue(tx, valueReleased, u64(uint64(released)))
		})
	}
	crashpoint.Here(crashpoint.CheckpointDone)
	s.mu.Lock()
	doneIndex(err == nil)
	if err == nil {
		s.loaded, s.need = seq, need
		if !noted {
			s.unnoted, s.applied = nil, false
		}
	} else {
		s.unsaved = true
	}
	s.mu.Unlock()
	doneRows(err == nil)
	doneLog(err == nil)
	doneACL(err == nil)
	doneBlocks(err == nil)
	if err != nil {
		return fmt.Errorf("checkpoint of space %s: %w", s.id, err)
	}
	s.h.giveBack(released)
	crashpoint.Here(crashpoint.CheckpointRelease)
	return nil
}

// durable makes everything durable that a checkpoint up to seq refers to.
func (s *space) durable(ctx context.Context, seq journal.Seq) error {
	if err := s.log.Sync(); err != nil {
		return err
	}
	if err := s.aclLog.Sync(); err != nil {
		return err
	}
	return s.h.sync(ctx, seq)
}

// needed finds the oldest record whose data an inode refers to, and lists the inodes that are dirty or have many patches.
// Under mu.
func (s *space) needed() (need journal.Seq, dirty []byte, err error) {
	look := func(ino uint64) error {
		n, err := s.ix.Inode(ino)
		if err != nil {
			return s.damaged(err)
		}
		if n == nil || n.Ext == nil {
			return nil
		}
		if old := n.Ext.Oldest(); old != 0 && (need == 0 || old < need) {
			need = old
		}
		return nil
	}
	inos := make([]uint64, 0, len(s.dirty))
	for ino := range s.dirty {
		inos = append(inos, ino)
	}
	for ino := range s.patched {
		if _, ok := s.dirty[ino]; !ok {
			inos = append(inos, ino)
		}
	}
	slices.Sort(inos)
	for _, ino := range inos {
		if err := look(ino); err != nil {
			return 0, nil, err
		}
		dirty = binary.AppendUvarint(dirty, ino)
	}
	for ino := range s.orphaned {
		if err := look(ino); err != nil {
			return 0, nil, err
		}
	}
	for ino := range s.ign.logged {
		if err := look(ino); err != nil {
			return 0, nil, err
		}
	}
	return need, dirty, nil
}

// makeRoom is called when the journal is full: it checkpoints, and publishes what holds the oldest records.
func (h *Home) makeRoom() error {
	ctx := context.Background()
	if err := h.checkpoint(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if h.journalLive() < journalFull {
		return nil
	}
	var failed error
	for _, s := range h.each() {
		_, err := s.sealIgnored(ctx, true)
		failed = errors.Join(failed, s.publishAll(ctx), s.sealOrphans(ctx), err) // what can't be published may hold nothing, and keeps no other from it
	}
	if err := h.checkpoint(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNoSpace, errors.Join(err, failed))
	}
	const most = journalLimit - journalLimit/4 - 16<<20
	if h.journalLive() >= most && failed == nil {
		if _, err := h.giveUp(ctx); err != nil {
			return fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
	}
	if h.journalLive() >= most {
		return errors.Join(fmt.Errorf("%w: the journal is full: %s", ErrNoSpace, h.journalHolders()), failed)
	}
	return nil
}

// The journal keeps at most journalLimit bytes live. Beyond half of it checkpoints come at once; at journalFull, what pins its
// oldest file is published.
const (
	journalLimit = 256 << 20
	journalHalf  = journalLimit / 2
	journalFull  = journalLimit - 96<<20 // the last quarter is the journal's reserve
)

func (h *Home) journalLive() int64 {
	_, live := h.jr.Oldest()
	return live
}

// sealOrphans moves the data of open files without a name from the journal into blocks, so that they pin no old record.
func (s *space) sealOrphans(ctx context.Context) error {
	s.mu.Lock()
	var inos []uint64
	for ino := range s.orphaned {
		if n, err := s.ix.Inode(ino); err == nil && n != nil && n.Ext != nil && n.Ext.Oldest() != 0 {
			inos = append(inos, ino)
		}
	}
	s.mu.Unlock()
	for _, ino := range inos {
		if err := s.sealExtents(ctx, ino); err != nil {
			return err
		}
	}
	return nil
}

// sealExtents moves what an inode has in the journal into blocks.
func (s *space) sealExtents(ctx context.Context, ino uint64) error {
	type found struct {
		off int64
		x   index.Extent
	}
	s.mu.Lock()
	n, err := s.ix.Inode(ino)
	if err != nil || n == nil || n.Ext == nil {
		s.mu.Unlock()
		return err
	}
	n = n.Clone()
	s.mu.Unlock()
	var list []found
	n.Ext.Range(0, n.Size, func(off int64, x index.Extent) bool {
		if x.Src.Kind == index.SourceJournal {
			list = append(list, found{off, x})
		}
		return true
	})
	for _, f := range list {
		p := make([]byte, f.x.Len)
		if err := s.h.jr.ReadAt(f.x.Src.Loc, p, int(f.x.Skip)); err != nil {
			return err
		}
		s.keeping.refs.RLock()
		id, err := s.putChunk(p)
		if err == nil {
			s.mu.Lock()
			err = s.refer(ino, f.x.Src, f.off, f.x.Len, f.x.Skip, id, false)
			s.mu.Unlock()
		}
		s.keeping.refs.RUnlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// room remembers how much is free on the disk, for a moment.
type room struct {
	mu          sync.Mutex
	at          time.Time
	free, total int64
}

// reserveBytes are kept free on the disk: unlink, rename and publishing work on a disk that is full for everyone else.
const reserveBytes = 64 << 20

// roomFresh is for how long a look at the disk counts.
const roomFresh = 200 * time.Millisecond

func (h *Home) diskFree() (free, total int64) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.lookRoom()
	return max(0, h.room.free-reserveBytes), h.room.total
}

func (h *Home) lookRoom() {
	if now := time.Now(); h.room.at.IsZero() || now.Sub(h.room.at) > roomFresh {
		h.room.at = now
		if free, total, err := h.opt.Disk.Free(); err == nil {
			h.room.free, h.room.total = free, total
		}
	}
}

// failed says why the home is read-only; nil while it is not.
func (h *Home) failed() error {
	if err := h.fail.Load(); err != nil {
		return fmt.Errorf("%w: the home is read-only: %w", ErrReadOnly, *err)
	}
	return nil
}

// roomFor reserves n bytes of the disk, or says ENOSPC before anything is half done. A home that failed is read-only.
func (h *Home) roomFor(n int64) error {
	if err := h.failed(); err != nil {
		return err
	}
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.lookRoom()
	if h.room.free-n < reserveBytes {
		return ErrNoSpace
	}
	h.room.free -= n
	return nil
}

// journalHolders says what keeps the journal from being reused.
func (h *Home) journalHolders() string {
	var b strings.Builder
	first, live := h.jr.Oldest()
	fmt.Fprintf(&b, "%d bytes from record %d on", live, first)
	for _, s := range h.all() {
		s.mu.Lock()
		fmt.Fprintf(&b, "; space %d: last %d, checkpoint %d, needs %d, %d dirty", s.slot, s.last, s.loaded, s.need, len(s.dirty))
		s.mu.Unlock()
	}
	return b.String()
}
