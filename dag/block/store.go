package block

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// Sealer encrypts what the store writes into its kv.DB.
type Sealer interface {
	// SealLocal appends the sealed plaintext to dst; ad is authenticated with it.
	SealLocal(dst, plaintext, ad []byte) []byte
	// OpenLocal appends what SealLocal sealed to dst.
	OpenLocal(dst, sealed, ad []byte) ([]byte, error)
}

// Options of a store. Disk, Dir, DB and Seal are required; of the others zero means the default.
type Options struct {
	Disk disk.FS
	Dir  string // of the segment files; made if absent; nothing else may be in it
	DB   kv.DB  // the buckets "blocks" and "blocks.segments" are the store's
	Seal Sealer

	Fetch        Fetcher // asked for blocks that are absent; nil: nobody is
	SegmentBytes int64   // 256 MiB; at most 2 GiB. A segment is not appended to beyond it
	OpenFiles    int     // 64: segments kept open beside those in use
	CacheEntries int     // 32,768: places from the index kept in memory, at some 100 bytes each
	FlushEntries int     // 16,384: places not in the index yet, above which a checkpoint writes them there
}

// DefaultSegmentBytes is the size of a segment where Options name none.
const DefaultSegmentBytes = 256 << 20

// Store keeps blocks. All methods are safe for concurrent use.
//
// A block is in the store from the return of Put and durable from the return of a later Sync. The index in the DB is a
// checkpoint of what lies in the segments; what came after it is kept in memory and found again by Open. Freeze writes
// it, together with what others have to write, and so does Checkpoint.
//
// Memory: the open segments, some 100 bytes for each segment file, the cache and the places not in the index yet.
type Store struct {
	opt   Options
	files files

	// app serialises appends. It comes before mu. The DB is not called under it, since an update waits for appends when
	// it has to rescue a segment.
	app    sync.Mutex
	active *segment // where blocks are appended; nil: begin a new one

	// mu guards what follows, and is not held across I/O.
	mu       sync.RWMutex
	closed   bool
	segments map[uint32]*segment
	last     uint32              // the highest segment number in use
	dirty    map[uint32]*segment // those with synced < end; each holds a reference to its file
	appended uint64              // bytes appended since Open
	durable  uint64              // of these, how many are durable
	round    *round              // the sync under way

	overlay overlay
	bad     map[ID]place // found corrupt: the next Put appends the block anew
	holds   map[ID]int

	lately lately

	// moves counts what makes a place that someone looked up earlier wrong: evictions, replacements, compactions.
	moves atomic.Uint64

	fetching struct {
		sync.Mutex
		by      Fetcher
		flights map[ID]*flight
	}
	compacting sync.Mutex

	refused []error // set in Open
}

// maxRefused bounds what Refused gives.
const maxRefused = 16

// Refused gives where Open met what is no block and was not known to be durable, which is gone: a crash may have torn it. To
// who knows of a block that was durable it says where that was. At most 16 places are told.
func (s *Store) Refused() []error { return s.refused }

func (s *Store) refuse(num uint32, at int64) {
	if len(s.refused) < maxRefused {
		s.refused = append(s.refused, fmt.Errorf("%s holds no block at %d", s.segmentName(num), at))
	}
}

// Open returns the store in o.Dir as the last checkpoint and the segments say. It reads what was appended since the
// checkpoint, verifies what was not durable then, and cuts off what a crash has torn. Where the DB knows nothing of the
// segments, the index is made anew from them.
func Open(o Options) (*Store, error) {
	if o.Disk == nil || o.DB == nil || o.Seal == nil || o.Dir == "" {
		panic("block: Options without Disk, Dir, DB or Seal")
	}
	o.SegmentBytes = orDefault(o.SegmentBytes, DefaultSegmentBytes)
	o.OpenFiles = orDefault(o.OpenFiles, 64)
	o.CacheEntries = orDefault(o.CacheEntries, 32<<10)
	o.FlushEntries = orDefault(o.FlushEntries, 16<<10)
	if o.SegmentBytes > 2<<30 {
		return nil, errors.New("block: segments of more than 2 GiB")
	}
	s := &Store{
		opt:      o,
		segments: map[uint32]*segment{},
		dirty:    map[uint32]*segment{},
		bad:      map[ID]place{},
		holds:    map[ID]int{},
	}
	s.files.limit = o.OpenFiles
	s.lately.min = minLately
	s.overlay.init(&s.mu, o.CacheEntries)
	s.fetching.by, s.fetching.flights = o.Fetch, map[ID]*flight{}
	if err := s.recover(); err != nil {
		s.files.closeAll()
		return nil, fmt.Errorf("block: open: %w", err)
	}
	return s, nil
}

func orDefault[T int | int64](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

// Close gives the files up. It makes nothing durable: that is Sync's. Calls under way fail or finish.
func (s *Store) Close() error {
	s.app.Lock()
	defer s.app.Unlock()
	s.mu.Lock()
	s.closed, s.active = true, nil
	s.mu.Unlock()
	return s.files.closeAll()
}

// Put appends data if it is absent, and returns its ID. It is not durable before Sync. data is not kept.
//
// Errors of the disk are wrapped; nothing is stored then, and the store goes on being usable.
func (s *Store) Put(data []byte) (ID, error) {
	id := Sum(data)
	return id, s.PutHashed(id, data)
}

// PutHashed is Put for who has the ID already. It believes it: a wrong one makes a block that reads as corrupt.
func (s *Store) PutHashed(id ID, data []byte) error {
	if len(data) > MaxSize {
		return ErrTooLarge
	}
	for {
		s.mu.Lock()
		epoch := s.overlay.epoch
		done := s.reviveLocked(id)
		s.mu.Unlock()
		if done {
			return nil
		}
		if _, ok, err := s.lookup(id); ok && err == nil && !s.isBad(id) {
			return nil
		}
		if ok, err := s.appendNew(id, data, epoch); ok || err != nil {
			return err
		}
	}
}

// Has reports whether the block is here, by the index, without reading it. One whose index entry does not read is not
// here. After a crash, Open has verified all that was not durable: what is here then was whole.
func (s *Store) Has(id ID) bool {
	_, ok, err := s.lookup(id)
	return ok && err == nil
}

// Size returns the length of a block that is here.
func (s *Store) Size(id ID) (int64, bool) {
	p, ok, err := s.lookup(id)
	return int64(p.n), ok && err == nil
}

// Bytes returns how many bytes the blocks that are here take, headers included, and how many the segment files take on
// the disk. It costs some nanoseconds a segment.
func (s *Store) Bytes() (live, disk int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.segments {
		live += g.live
		disk += g.end - g.punched
	}
	return live, disk
}

// Len returns the number of blocks that are here.
func (s *Store) Len() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := int64(0)
	for _, g := range s.segments {
		n += g.blocks
	}
	return n
}

// Synced reports whether all that is here is durable, as after a Sync.
func (s *Store) Synced() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.dirty) == 0
}

func (s *Store) isBad(id ID) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.bad[id]
	return ok
}

// A Hold keeps blocks from eviction that something not yet written down refers to. It is safe for concurrent use.
type Hold struct {
	s   *Store
	mu  sync.Mutex
	ids []ID
}

// Hold returns a hold on nothing.
func (s *Store) Hold() *Hold { return &Hold{s: s} }

// Add holds a block, whether it is here or not, and reports whether it is. Who Adds a block before Putting it finds it in
// the store until Release, whatever is evicted meanwhile.
func (h *Hold) Add(id ID) bool {
	h.s.mu.Lock()
	h.s.holds[id]++
	h.s.mu.Unlock()
	h.mu.Lock()
	h.ids = append(h.ids, id)
	h.mu.Unlock()
	return h.s.Has(id)
}

// Put is Store.Put of a block that is held from before it is looked for.
func (h *Hold) Put(data []byte) (ID, error) {
	id := Sum(data)
	h.Add(id)
	return id, h.s.PutHashed(id, data)
}

// Release ends the hold on all its blocks. It may be used again.
func (h *Hold) Release() {
	h.mu.Lock()
	ids := h.ids
	h.ids = nil
	h.mu.Unlock()
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	for _, id := range ids {
		if h.s.holds[id]--; h.s.holds[id] == 0 {
			delete(h.s.holds, id)
		}
	}
}

// Checkpoint makes everything durable and writes the index, evictions included, in a transaction of its own.
func (s *Store) Checkpoint(ctx context.Context) error {
	if err := s.Sync(ctx); err != nil {
		return err
	}
	write, done := s.freezeWhole()
	err := s.opt.DB.Update(write)
	done(err == nil)
	if err != nil {
		return fmt.Errorf("block: checkpoint: %w", err)
	}
	return nil
}
