package fs

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// spareRoom is how much freeHistory frees beyond what is asked for, and how far above the reserve the disk may fall before old
// content goes.
const spareRoom = 128 << 20

// freeAgain is how soon freeHistory looks again after there was nothing to free.
const freeAgain = time.Minute

// freeing is what a home knows of the room that its history takes.
type freeing struct {
	mu    sync.Mutex // one at a time
	empty time.Time  // when there was nothing to free

	bytes  atomic.Int64 // what prunes could free, as of the last look
	wanted atomic.Bool  // someone asked for bytes since
	seen   int64        // the number of bytes in blocks at the last look
}

// freeHistory makes room on the disk for n bytes above the reserve by dropping the oldest content that Options.Keep does not
// keep, and reports whether it did. It takes long: no lock is held by who calls it.
func (h *Home) freeHistory(ctx context.Context, n int64) bool {
	f := &h.freeing
	f.mu.Lock()
	defer f.mu.Unlock()
	missing := func() int64 {
		free, _, err := h.opt.Disk.Free()
		if err != nil {
			return 0
		}
		return n + reserveBytes - free
	}
	if missing() <= 0 {
		h.forgetRoom()
		return true // someone else made room meanwhile
	}
	if time.Since(f.empty) < freeAgain && !f.empty.IsZero() {
		return false
	}
	if short := missing(); short > spareRoom {
		// Nothing goes where all of it would not do.
		var most int64
		for _, s := range h.each() {
			if s.slot != 0 {
				res, err := s.prune(ctx, h.opt.Keep, math.MaxInt64, pruneDryInNeed)
				if err != nil {
					h.report("drop old versions, since the disk is full", err)
				}
				most += res.Bytes
			}
		}
		if most < short {
			return false
		}
	}
	for _, s := range h.each() {
		short := missing()
		if s.slot == 0 || short <= 0 {
			continue
		}
		res, err := s.prune(ctx, h.opt.Keep, short+spareRoom, pruneInNeed)
		if err != nil {
			h.report("drop old versions, since the disk is full", err)
		}
		if res.Bytes > 0 {
			h.opt.Log.Info("old versions dropped, since the disk is full", "bytes", res.Bytes)
		}
	}
	h.forgetRoom()
	if missing() > 0 {
		f.empty = time.Now()
		return false
	}
	return true
}

// makeRoomFor is roomFor for who holds no lock: when the disk is full, old content goes.
func (h *Home) makeRoomFor(ctx context.Context, n int64) error {
	err := h.roomFor(n)
	if err == ErrNoSpace && h.freeHistory(ctx, n) {
		err = h.roomFor(n)
	}
	return err
}

// forgetRoom makes the next look at the disk a fresh one.
func (h *Home) forgetRoom() {
	h.room.mu.Lock()
	h.room.at = time.Time{}
	h.room.mu.Unlock()
}

// freer drops old content before the disk is full, and keeps what statfs says of it current, until ctx ends.
func (h *Home) freer(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if free, _, err := h.opt.Disk.Free(); err == nil && free < reserveBytes+spareRoom {
			h.freeHistory(ctx, spareRoom)
		}
		if h.freeing.wanted.Swap(false) {
			h.lookHistory(ctx)
		}
	}
}

// historyRoom is about how many bytes a prune would free: it counts as free. It never waits: what it gives is as old as the
// last time somebody asked.
func (h *Home) historyRoom() int64 {
	h.freeing.wanted.Store(true)
	return h.freeing.bytes.Load()
}

// lookHistory counts what historyRoom says: what is stored, less what the inodes refer to, each for itself. Blocks that several
// share count more than once there, so that the answer is rather too small.
func (h *Home) lookHistory(ctx context.Context) {
	if h.opt.Keep != (KeepPolicy{}) {
		return // how much of it may go is not known without reading it
	}
	var stored int64
	for _, s := range h.each() {
		live, _ := s.blocks.Bytes()
		stored += live
	}
	if stored == h.freeing.seen {
		return
	}
	var sum int64
	for _, s := range h.each() {
		live, _ := s.blocks.Bytes()
		sum += max(0, live-s.currentBytes(ctx))
	}
	if ctx.Err() == nil {
		h.freeing.bytes.Store(sum)
		h.freeing.seen = stored
	}
}

// blockOverhead is what a block takes beside its sealed bytes, with its part of the tree above it.
const blockOverhead = 192

// currentBytes is at least what the content of all inodes takes in blocks.
func (s *space) currentBytes(ctx context.Context) int64 {
	var sum int64
	var large []*tree.Content
	for next, full := uint64(0), true; full && ctx.Err() == nil; {
		full, large = false, large[:0]
		count := 0
		s.mu.Lock()
		err := s.ix.InodesFrom(next, func(n *index.Inode) bool {
			next = n.Ino + 1
			if n.Base != nil && !n.Base.LayoutBlock.IsZero() {
				large = append(large, n.Base)
			}
			sum += contentBytes(n.Base)
			if n.Ext != nil {
				n.Ext.Range(0, math.MaxInt64, func(_ int64, x index.Extent) bool {
					if x.Src.Kind == index.SourceBlock {
						sum += int64(seal.BlockSize(int(x.Src.Size))) + blockOverhead
					}
					return true
				})
			}
			count++
			full = count == inodeStep
			return !full
		})
		s.mu.Unlock()
		if err != nil {
			return math.MaxInt64
		}
		for _, c := range large {
			if id, _, err := block.IDFromCID(c.Root); err != nil || !s.blocks.Has(id) || !s.blocks.Has(c.LayoutBlock) {
				continue // it takes nothing here
			}
			m, err := s.manifest(ctx, c)
			if err != nil {
				return math.MaxInt64
			}
			sum += int64(len(m.parts)) * 16 // at most that for each in the layout
			for i := range m.leaves {
				sum += int64(m.leaves[i].sealed) + blockOverhead
			}
		}
	}
	return sum
}

// contentBytes is what a content takes whose operation says which chunks it has.
func contentBytes(c *tree.Content) int64 {
	if c == nil || !c.Root.Defined() {
		return 0
	}
	var sum int64
	for _, l := range c.Layout {
		sum += int64(seal.BlockSize(int(l.Len))) + blockOverhead
	}
	return sum
}
