package fs

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	iofs "io/fs"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/fs/chunk"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// The files of a home.
const (
	journalDir = "journal"
	spacesDir  = "spaces"
	nextFile   = "spaces/next" // the next free slot: slots are never used twice
	spaceFile  = "space"       // in a space's folder: its id, and what it was made as. Written last: a folder without it was never finished
	dbFile     = "space.db"
)

// The stores of batches that share a space's database.
const (
	logACL   = "acl"
	logFiles = "files"
)

// Named values of a space's index.
const (
	valueNext     = "next"     // the next inode number
	valueLoaded   = "loaded"   // the last record of the journal that the checkpoint holds
	valueNeed     = "need"     // the oldest record whose data are still needed
	valueMark     = "mark"     // the end of the batch log
	valueDirty    = "dirty"    // the numbers of the inodes that were dirty
	valueReleased = "released" // no space needs a record up to this one
	valueObjects  = "objects"  // how many inodes there are
	valueHeld     = "held"     // up to where another device is known to hold the log of batches
)

// recover opens the spaces and replays the journal.
func (h *Home) recover(ctx context.Context) error {
	d := h.opt.Disk
	if err := d.MkdirAll(spacesDir); err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	if next, err := h.readNext(); errors.Is(err, errDamaged) {
		// The folders that are there say as much, but for those that came last and were deleted: what a new space finds of such a
		// one is in the journal, where its own first record comes later. The next space that is made writes the file anew.
		h.report(nextFile, err)
	} else if err != nil {
		return fmt.Errorf("open home: %w", err)
	} else {
		h.next = next
	}
	if err := h.dropInherited(); err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	names, err := d.ReadDir(spacesDir)
	if err == nil {
		err = d.SyncDir(spacesDir) // a process that was killed may have made a name, and not made it durable
	}
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	from, released := ^journal.Seq(0), journal.Seq(0)
	var sick []*space
	var unfinished []uint16
	unread := false // a space's database, and so perhaps what is known of the journal's released records
	for _, name := range names {
		var slot uint16
		if _, err := fmt.Sscanf(name, "%04x", &slot); err != nil || len(name) != 4 {
			continue
		}
		s, err := h.openFolder(ctx, slot)
		if err != nil {
			return fmt.Errorf("open home: %w", err)
		}
		if s == nil {
			unfinished = append(unfinished, slot)
			continue
		}
		h.addSpace(s)
		if slot >= h.next {
			h.next = slot + 1
		}
		if s.sick != nil {
			unread = true
			if !errors.Is(s.sick, errAbandoned) {
				sick = append(sick, s)
			}
			continue
		}
		need := s.loaded
		if s.need != 0 && s.need <= need {
			need = s.need - 1
		}
		from, released = min(from, need), max(released, s.released)
	}
	if from == ^journal.Seq(0) {
		from = 0
	}
	lost := h.lostFolder()
	for _, slot := range unfinished {
		if !lost {
			if err := h.removeFolder(spaceDir(slot)); err != nil {
				return fmt.Errorf("open home: remove the unfinished space in %s: %w", spaceDir(slot), err)
			}
			continue
		}
		// Perhaps it is the one that is missing, and no more than its spaceFile is lost. The root of the home will tell.
		s := h.emptySpace(slot, dag.ID{})
		s.sick = fmt.Errorf("space in %s: %w", s.dir, errUnfinished)
		h.addSpace(s)
		h.next = max(h.next, slot+1)
		sick = append(sick, s)
	}
	unread = unread || lost
	from = max(from, released) // a quiet space's own checkpoint may be older than that
	// The journal makes durable what it finds, so the blocks that its records name come first.
	for _, s := range h.each() {
		if err := s.blocks.Sync(ctx); err != nil {
			return fmt.Errorf("open home: %w", err)
		}
	}
	h.jr, err = journal.Open(journal.Options{
		Disk: d, Dir: journalDir, Key: h.local.Derive("journal"), Rand: h.opt.Rand, LiveBytes: journalLimit,
		FileBytes: cmp.Or(h.opt.sim.journalBytes, journal.DefaultFileBytes>>crashpoint.Shrink), Inline: h.opt.sim.inline,
		MayBeginLater: unread,
	}, from, h.replay)
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	first, _ := h.jr.Oldest()
	if unread && first > from+1 {
		h.report("journal", fmt.Errorf("it begins with record %d; while a space is damaged it can't be told whether %d to %d are missing", first, from+1, first-1))
	}
	if len(sick) > 0 {
		from = min(from, max(first, 1)-1) // what they need is not known: everything that is there stays
	}
	for _, s := range sick {
		s.holdJournal(from)
	}
	h.giveBack(from)
	for _, s := range h.each() {
		err := s.recovered(ctx)
		if err == nil {
			err = s.rebase(ctx, h.jr.Next()-1)
		}
		if err != nil && (s.slot == 0 || ctx.Err() != nil || passes(err)) {
			return fmt.Errorf("open home: %w", err)
		}
		if err != nil {
			s.fallSick(err)
		}
	}
	if err := h.tidySpaces(ctx); err != nil {
		return err
	}
	for _, s := range h.all() {
		if s.sick != nil {
			h.report("damaged", s.sick)
		}
	}
	if h.home == nil {
		if err := h.makeHomeSpace(ctx); err != nil {
			return err
		}
		return h.nameInherited()
	}
	return nil
}

func (h *Home) addSpace(s *space) {
	h.mu.Lock()
	if s.slot == 0 {
		h.home = s
	}
	h.spaces[s.slot] = s
	if !s.id.IsZero() {
		h.byID[s.id] = s
	}
	h.mu.Unlock()
}

// lostFolder reports whether a folder of a space is gone, as far as the checkpoint of the home space shows: what was known of the
// journal's released records may be gone with it.
func (h *Home) lostFolder() bool {
	if h.home == nil {
		return false
	}
	var inos []uint64
	if err := h.home.ix.Scan(rootDir, 0, func(_ uint64, e *index.Entry) bool {
		inos = append(inos, e.Ino)
		return true
	}); err != nil {
		return true
	}
	for _, ino := range inos {
		n, err := h.home.ix.Inode(ino)
		if err != nil || n == nil {
			return true
		}
		if ref, ok := entryRef(n); ok && h.spaceOf(ref.id) == nil {
			return true
		}
	}
	return false
}

// errUnfinished is why a folder without a spaceFile is sick: it may have had one.
var errUnfinished = errors.New("its file " + spaceFile + " is missing")

// openFolder opens the space in a folder. Nil: there is no spaceFile, as where it was never finished. A space that can't be opened
// is sick, and the others go on without it; the home space alone has to be there.
func (h *Home) openFolder(ctx context.Context, slot uint16) (*space, error) {
	d, dir := h.opt.Disk, spaceDir(slot)
	id, as, err := h.readSpaceFile(dir)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		err = fmt.Errorf("%s/%s: %w", dir, spaceFile, err)
	} else if _, e := d.ReadFile(dir + "/" + abandonedFile); e == nil {
		err = fmt.Errorf("space in %s: %w", dir, errAbandoned)
	}
	var s *space
	if err == nil {
		s, err = h.openSpace(ctx, slot, id, func(st dag.Store) (*acl.Space, error) { return acl.OpenSpace(h.keys, id, st) })
	}
	if err != nil && (slot == 0 || ctx.Err() != nil || passes(err)) {
		return nil, err
	}
	if err != nil {
		s = h.emptySpace(slot, id)
		s.fallSick(err)
	}
	s.as = as
	return s, nil
}

// errDamaged says that a file which is sealed as a whole does not open: any of its bytes may be the wrong one.
var errDamaged = errors.New("damaged, from byte 0 on")

// readNext gives the next free slot, 0 where none was ever taken.
func (h *Home) readNext() (uint16, error) {
	b, err := h.opt.Disk.ReadFile(nextFile)
	if errors.Is(err, iofs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if b, err = h.local.OpenLocal(nil, b, []byte(nextFile)); err != nil || len(b) != 2 {
		return 0, errDamaged
	}
	return binary.BigEndian.Uint16(b), nil
}

// readSpaceFile says which space is in a folder.
func (h *Home) readSpaceFile(dir string) (id dag.ID, as spaceIdentity, err error) {
	sealed, err := h.opt.Disk.ReadFile(dir + "/" + spaceFile)
	if err != nil {
		return id, as, err
	}
	b, err := h.local.OpenLocal(nil, sealed, []byte(dir))
	if err != nil {
		return id, as, fmt.Errorf("%w: %w", errDamaged, err)
	}
	id, as, ok := decodeSpaceFile(b)
	if !ok {
		return id, as, errors.New("it says nothing")
	}
	return id, as, nil
}

// dbError names the database that an error is about.
type dbError struct {
	name string
	err  error
}

func (e *dbError) Error() string { return e.name + ": " + e.err.Error() }
func (e *dbError) Unwrap() error { return e.err }

// inDB adds the name of a space's database to an error about what is in it.
func inDB(dir string, err error) error {
	var told *dbError
	if errors.As(err, &told) {
		return err
	}
	for _, is := range []error{dag.ErrIndex, block.ErrIndex, kv.ErrCorrupt, index.ErrCorrupt} {
		if errors.Is(err, is) {
			return &dbError{dir + "/" + dbFile, err}
		}
	}
	return err
}

func spaceDir(slot uint16) string { return fmt.Sprintf("%s/%04x", spacesDir, slot) }

// emptySpace is a space of which nothing is open.
func (h *Home) emptySpace(slot uint16, id dag.ID) *space {
	s := &space{
		h: h, slot: slot, id: id, dir: spaceDir(slot),
		orphaned: map[uint64]struct{}{}, refs: map[uint64]int64{}, dirty: map[uint64]dirtyState{},
		asides: map[asideKey]aside{}, inflight: map[uint64]struct{}{}, streams: map[uint64]*stream{}, paced: map[uint64]pace{},
		held: map[uint64]heldBack{}, patched: map[uint64]int64{},
		mates: map[uint64]database{}, lost: map[database]int{}, near: map[database]struct{}{}, due: map[uint64]database{}, moments: map[database]journal.Seq{},
	}
	s.settled = sync.NewCond(&s.mu)
	return s
}

// openSpace opens what a space keeps on the disk. openACL makes or opens its access list on the given store.
func (h *Home) openSpace(ctx context.Context, slot uint16, id dag.ID, openACL func(dag.Store) (*acl.Space, error)) (*space, error) {
	s := h.emptySpace(slot, id)
	dir := s.dir
	local := h.local.Derive("space " + dir)
	fail := func(err error) (*space, error) {
		return nil, errors.Join(fmt.Errorf("open space in %s: %w", dir, inDB(dir, err)), s.close())
	}
	d := h.opt.Disk
	if err := d.MkdirAll(dir); err != nil {
		return fail(err)
	}
	db, err := h.opt.OpenDB(dir + "/" + dbFile)
	if err != nil {
		return fail(err) // db may be a nil of some type
	}
	s.db = db
	if err := d.SyncDir(dir); err != nil { // as of the folder of all spaces
		return fail(err)
	}
	if s.aclLog, err = store.Open(store.Options{Disk: d, Dir: dir + "/acl", DB: s.db, Name: logACL, Seal: local.Derive("acl")}); err != nil {
		return fail(err)
	}
	if s.acl, err = openACL(s.aclLog); err != nil {
		return fail(err)
	}
	if !s.acl.HasKey() {
		return fail(fmt.Errorf("%w: no key of this space is on this device", ErrNoKey))
	}
	s.acl.SetClock(h.opt.Clock)
	s.id = s.acl.ID()
	s.keys = s.acl.Keys()
	s.chunker = chunk.New(s.keys.GearTable())
	if s.log, err = store.Open(store.Options{Disk: d, Dir: dir + "/batches", DB: s.db, Name: logFiles, Seal: local.Derive("files")}); err != nil {
		return fail(err)
	}
	if s.blocks, err = block.Open(block.Options{
		Disk: d, Dir: dir + "/blocks", DB: s.db, Seal: local.Derive("blocks"),
		SegmentBytes: cmp.Or(h.opt.sim.segmentBytes, block.DefaultSegmentBytes>>crashpoint.Shrink),
	}); err != nil {
		return fail(err)
	}
	s.ix = index.Open(s.db, local.Derive("index"))
	s.rows, s.rowHash = index.OpenRows(s.db, local.Derive("tree")), local.Derive("tree keys")
	if err := s.loadValues(id.IsZero()); err != nil {
		return fail(err)
	}
	if err := s.loadIgnored(id.IsZero()); err != nil {
		return fail(err)
	}
	if err := s.loadDevice(); err != nil {
		return fail(err)
	}
	return s, nil
}

func (s *space) openGraph() (err error) {
	if s.graph, err = dag.Open(s.id, s.log, s.acl.Files(), dag.Options{Room: s.room}); err != nil {
		return fmt.Errorf("open space in %s: %w", s.dir, inDB(s.dir, err))
	}
	s.watchArrivals()
	s.watchACL()
	return nil
}

// loadValues reads what the last checkpoint left: a space that is not fresh has one.
func (s *space) loadValues(fresh bool) error {
	get := func(name string) (uint64, error) {
		b, err := s.ix.Value(name)
		if err != nil || b == nil && (name != valueLoaded || fresh) {
			return 0, err
		}
		if len(b) != 8 {
			return 0, fmt.Errorf("%w: value %q", index.ErrCorrupt, name)
		}
		return binary.BigEndian.Uint64(b), nil
	}
	next, err1 := get(valueNext)
	loaded, err2 := get(valueLoaded)
	need, err3 := get(valueNeed)
	objects, err4 := get(valueObjects)
	mark, err5 := get(valueMark)
	released, err6 := get(valueReleased)
	s.mark, s.released = mark, journal.Seq(released)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return err
	}
	s.nextIno, s.objects = max(next, firstIno), int64(objects)
	s.loaded, s.last, s.need = journal.Seq(loaded), journal.Seq(loaded), journal.Seq(need)
	return nil
}

// makeRoot gives a new space its root directory.
func (s *space) makeRoot(now int64) {
	s.ix.Add(&index.Inode{
		Ino: rootDir, Mode: syscall.S_IFDIR | 0755, Mtime: now, Ctime: now, Btime: now,
		Object: tree.RootObject(s.id), NextKey: 1,
	})
	s.ix.SetObject(tree.RootObject(s.id), rootDir)
	s.objects = 1
}

// replay applies one record of the journal. An error ends the valid prefix: nothing behind it was ever synced.
func (h *Home) replay(seq journal.Seq, rec []byte, loc journal.Loc) error {
	if len(rec) == 0 {
		return errRecord
	}
	r := &reader{b: rec[1:]}
	slot := r.uint()
	if r.bad || slot > 1<<16-1 {
		return errRecord
	}
	s := h.spaces[uint16(slot)]
	if s == nil || seq <= s.loaded {
		return nil // of a space that was deleted, or in the checkpoint
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sick != nil {
		return nil
	}
	err := s.replay(recordKind(rec[0]), seq, loc, len(rec), r)
	if err == nil || errors.Is(err, errRecord) || errors.Is(err, journal.ErrEnd) {
		s.last = max(s.last, seq)
		return err
	}
	// What a record does is done to what the checkpoint left.
	if !errors.As(err, new(*dbError)) {
		err = &dbError{s.dir + "/" + dbFile, err}
	}
	s.fallSick(fmt.Errorf("space in %s: record %d of the journal can't be applied: %w", s.dir, seq, err))
	s.holdJournal(s.loaded)
	return nil
}

func (s *space) replay(k recordKind, seq journal.Seq, loc journal.Loc, size int, r *reader) error {
	switch k {
	case recCreate:
		var c createRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyCreate(seq, &c)
	case recLink:
		var c linkRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyLink(seq, &c)
	case recUnlink:
		var c unlinkRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyUnlink(seq, &c)
	case recRename:
		var c renameRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyRename(seq, &c)
	case recSetattr:
		var c setattrRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applySetattr(seq, &c)
	case recWrite:
		var c writeRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyWrite(seq, loc, size-len(c.Data), &c)
	case recSeal:
		var c sealRecord
		if err := c.decode(r); err != nil {
			return err
		}
		if !s.hasBlock(c.Block) {
			return fmt.Errorf("%w: %w", journal.ErrEnd, s.lacks(c.Block))
		}
		return s.applySeal(seq, &c)
	case recFallocate:
		var c fallocateRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyFallocate(seq, &c)
	case recXattr:
		var c xattrRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyXattr(seq, &c)
	case recPublished:
		var c publishedRecord
		if err := c.decode(r); err != nil {
			return err
		}
		if c.Mark > uint64(s.log.Mark()) {
			return nil // it was never durable, hence never sent: what it published is dirty still
		}
		s.mark = max(s.mark, c.Mark)
		return s.applyPublished(seq, &c)
	case recArrive:
		var c arriveRecord
		if err := c.decode(r); err != nil {
			return err
		}
		if c.Mark > uint64(s.log.Mark()) {
			return fmt.Errorf("%w: batches that were taken in are not in the log", journal.ErrEnd)
		}
		s.mark = max(s.mark, c.Mark)
		return s.applyArrive(seq, &c, nil)
	}
	return s.replayHistory(k, seq, r)
}

// recovered ends the recovery of a space: batches that no record speaks of are cut off, and inodes without a name go.
func (s *space) recovered(ctx context.Context) error {
	if mark := store.Mark(s.mark); mark < s.log.Mark() {
		// Written by this device, but never noted: it was not sent, and is made again.
		if err := s.log.Rollback(mark); err != nil {
			return fmt.Errorf("open space in %s: %w", s.dir, err)
		}
	}
	if err := s.openGraph(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var nameless []uint64
	if err := s.ix.Scan(orphans, 0, func(_ uint64, e *index.Entry) bool {
		nameless = append(nameless, e.Ino)
		return true
	}); err != nil {
		return s.damaged(err)
	}
	for _, ino := range nameless {
		s.orphaned[ino] = struct{}{}
		n, err := s.ix.Inode(ino)
		if err != nil {
			return s.damaged(err)
		}
		if n != nil && (len(n.Gone) > 0 || s.replaced(n)) {
			s.setDirty(ino, dirtyState{first: s.h.now(), last: s.h.now()})
			continue
		}
		s.reclaim(ino)
	}
	// What was dirty at the checkpoint is dirty still; what the replay touched was marked by it.
	if err := s.ixDirty(); err != nil {
		return err
	}
	for ino := range s.dirty {
		n, err := s.ix.Inode(ino)
		if err != nil {
			return s.damaged(err)
		}
		if n != nil {
			s.recount(n)
		}
	}
	return nil
}

// rebase is for a journal that lost records which a checkpoint holds, as by rot: what comes next has numbers that the
// checkpoint takes for old. So everything it knows is made older than that.
func (s *space) rebase(ctx context.Context, last journal.Seq) error {
	if s.loaded <= last {
		return nil
	}
	s.mu.Lock()
	for _, set := range []map[uint64]struct{}{s.orphaned, keys(s.dirty), s.ign.inos} {
		for ino := range set {
			n, err := s.ix.Change(ino)
			if err != nil {
				s.mu.Unlock()
				return s.damaged(err)
			}
			if n != nil {
				n.Clamp(max(last, 1))
			}
		}
	}
	s.last = last
	s.mu.Unlock()
	return s.checkpoint(ctx, true)
}

func keys[K comparable, V any](m map[K]V) map[K]struct{} {
	out := make(map[K]struct{}, len(m))
	for k := range m {
		out[k] = struct{}{}
	}
	return out
}

// ixDirty finds the inodes that a checkpoint left dirty, or with many patches. Their numbers are listed in it.
func (s *space) ixDirty() error {
	b, err := s.ix.Value(valueDirty)
	if err != nil {
		return s.damaged(err)
	}
	now := s.h.now()
	for len(b) > 0 {
		ino, k := binary.Uvarint(b)
		if k <= 0 {
			return s.damaged(index.ErrCorrupt)
		}
		b = b[k:]
		if _, ok := s.dirty[ino]; ok {
			continue
		}
		n, err := s.ix.Inode(ino)
		if err != nil {
			return s.damaged(err)
		}
		if n != nil && n.Dirty() {
			s.setDirty(ino, dirtyState{first: now, last: now})
		} else if n != nil {
			s.notePatched(n)
		}
	}
	return nil
}

// close closes what openSpace opened.
func (s *space) close() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	var err error
	if s.blocks != nil {
		err = errors.Join(err, s.blocks.Close())
	}
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
	}
	if s.aclLog != nil {
		err = errors.Join(err, s.aclLog.Close())
	}
	if s.db != nil {
		err = errors.Join(err, s.db.Close())
	}
	return err
}
