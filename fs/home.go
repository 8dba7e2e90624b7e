// Package fs shows spaces as trees of files: it keeps them on this device, journals every operation, and turns what was done
// into changes of their graphs. It knows neither FUSE nor a network.
//
// A Home is all spaces of one account on one device. Operations (Lookup, Write, Rename, …) are those of a filesystem, by inode
// number; each completes from local state, and is in the journal when it returns. A publisher turns what is dirty into signed
// batches, and a checkpointer writes what changed into the spaces' databases: both run in Run. TREE.md describes the objects,
// CONTENT.md how the contents of files are written, JOURNAL.md the records.
package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// Options say where a home is and what it works with. Disk, Keys and Rand are required.
type Options struct {
	Disk     disk.FS
	Dir      string // the same folder as a path of the operating system, for the databases
	Keys     *acl.Keys
	Clock    func() time.Time // default time.Now
	Rand     io.Reader
	UID, GID uint32                                // who owns what nobody else was given
	Log      *slog.Logger                          // default none; gets no names and no content
	OpenDB   func(name string) (kv.DB, error)      // default: bbolt below Dir
	Keep     KeepPolicy                            // what stays of old content when the disk is full
	Prefetch func(context.Context) context.Context // marks what is fetched as needed later; nil: nothing does
	Idle     func()                                // called, if not nil, each time that nothing has been done for some seconds

	// Stepped has nothing done beside what is called, and keeps the journal small: a simulation calls Flush and Arrive in the place of
	// Run, and then is the same each time.
	Stepped bool

	sim simulation
}

// steppedJournal is how long a file of the journal is where Stepped is set.
const steppedJournal = 1 << 20

// simulation is what tests set: sizes that are reached soon, and nothing beside what is called.
type simulation struct {
	inline       bool  // the journal tidies where it is called
	journalBytes int64 // of a file of the journal; 0 is the default
	segmentBytes int64 // of a segment of blocks; 0 is the default
}

// Home is the spaces of one account on one device. It is safe for concurrent use.
type Home struct {
	opt   Options
	keys  *acl.Keys
	local *seal.Local
	jr    *journal.Journal
	views *views

	mu     sync.RWMutex // guards the table of spaces; held for moments, never while another lock is taken
	spaces map[uint16]*space
	home   *space // in slot 0; set once, in Open
	byID   map[dag.ID]*space
	next   uint16

	spaceMu sync.Mutex // one creation, renaming or deletion of a space at a time
	ckptMu  sync.Mutex // one checkpoint at a time

	sealing   *semaphore.Weighted // chunks that are being sealed
	arenas    sync.Pool
	sealed    sync.Pool
	joined    sync.Pool
	manifests *cache[string, *manifest]
	inlines   *cache[tree.Ref, []byte]
	layouts   *cache[string, []tree.Chunk]
	heads     *cache[block.ID, seal.ChunkHead]

	fail        atomic.Pointer[error] // set: the home is read-only for good
	released    atomic.Uint64         // the records of the journal up to here are given back
	room        room
	freeing     freeing
	fsyncs      fsyncs
	kick        chan struct{} // wakes the publisher where nothing was dirty
	urgent      chan struct{} // wakes it at once
	arrived     chan struct{} // wakes the arriver
	previews    chan struct{} // wakes the previewer
	mirrors     chan struct{} // wakes the mirrorer
	mirrorAll   atomic.Bool   // for all that is wanted
	mirrorRound atomic.Uint64 // how often Mirror was called
	ahead       chan aheadBlock
	early       chan aheadBlock
	coming      coming
	evicts      chan struct{} // wakes the evictor
	short       atomic.Bool   // content is not fetched ahead, since the disk is nearly full
	keepers     keepers
	logged      atomic.Int64 // written bytes that are in the journal alone
	events      events
	watch       watchers
	onSpaces    atomic.Pointer[func()]
	onSealed    atomic.Pointer[func(dag.ID, block.ID)]
	errs        errorLog
	absent      absentDevices
	two         oneToOnes
	last        atomic.Int64 // of now
}

const (
	slotShift = 48
	localMask = 1<<slotShift - 1
	viewBit   = 1 << 63
)

func isView(ino Ino) bool { return ino&viewBit != 0 }

// Open opens a home and recovers it: the last checkpoint, and the valid prefix of the journal. A home without spaces gets its
// home space. Open starts nothing that outlives it; Run does.
func Open(ctx context.Context, opt Options) (*Home, error) {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.OpenDB == nil {
		opt.OpenDB = func(name string) (kv.DB, error) { return kv.OpenBolt(filepath.Join(opt.Dir, name)) }
	}
	h := &Home{
		opt: opt, keys: opt.Keys, local: opt.Keys.Local,
		spaces: map[uint16]*space{}, byID: map[dag.ID]*space{},
		sealing:   semaphore.NewWeighted(4),
		manifests: newCache[string, *manifest](manifestBytes), inlines: newCache[tree.Ref, []byte](inlineBytes),
		layouts: newCache[string, []tree.Chunk](layoutBytes), heads: newCache[block.ID, seal.ChunkHead](headBytes),
		kick: make(chan struct{}, 1), urgent: make(chan struct{}, 1), arrived: make(chan struct{}, 1), previews: make(chan struct{}, 1), mirrors: make(chan struct{}, 1),
		ahead: make(chan aheadBlock, aheadRoom), early: make(chan aheadBlock, earlyAtOnce), evicts: make(chan struct{}, 1),
	}
	if opt.Stepped {
		h.opt.sim = simulation{inline: true, journalBytes: steppedJournal}
	}
	h.views = newViews(h)
	if err := h.recover(ctx); err != nil {
		h.closeSpaces()
		return nil, err
	}
	if err := h.loadOffers(); err != nil {
		h.report(offersFile, err) // it is tried again before anything is written over it
	}
	return h, nil
}

// now is the time of an operation, in Unix nanoseconds. It never repeats or goes back within one run: an operation that
// comes later is later.
func (h *Home) now() int64 {
	t := h.opt.Clock().UnixNano()
	for {
		last := h.last.Load()
		if t <= last {
			if last-t > int64(time.Second) {
				// The clock was set back: go with it, its owner knows.
				if h.last.CompareAndSwap(last, t) {
					return t
				}
				continue
			}
			t = last + 1
		}
		if h.last.CompareAndSwap(last, t) {
			return t
		}
	}
}

// space finds the space of an inode, and the inode's number in it.
func (h *Home) space(ino Ino) (*space, uint64, error) {
	h.mu.RLock()
	s := h.spaces[uint16(ino>>slotShift)]
	h.mu.RUnlock()
	if s == nil {
		return nil, 0, ErrStale
	}
	if err := s.usable(); err != nil {
		return nil, 0, err
	}
	return s, uint64(ino) & localMask, nil
}

// each gives the spaces that are open, the home space first.
func (h *Home) each() []*space {
	return slices.DeleteFunc(h.all(), func(s *space) bool { return s.sick != nil })
}

// all gives every space that is on this device, damaged ones too.
func (h *Home) all() []*space {
	h.mu.RLock()
	defer h.mu.RUnlock()
	out := make([]*space, 0, len(h.spaces))
	for slot := uint16(0); slot < h.next; slot++ {
		if s := h.spaces[slot]; s != nil {
			out = append(out, s)
		}
	}
	return out
}

// report logs an error and keeps it for Status. what says what it is about, and holds no name of a file: a log may leave out of
// err all but its cause.
func (h *Home) report(what string, err error) {
	h.errs.add(h.opt.Clock(), fmt.Errorf("%s: %w", what, err))
	h.opt.Log.Error("fs", "what", what, "err", err)
}

// broken makes the home read-only after the journal or a disk failed for good.
func (h *Home) broken(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", errInterrupted, err)
	}
	if h.fail.CompareAndSwap(nil, &err) {
		h.report("the home is read-only from now on", err)
	}
	return fmt.Errorf("%w: %w", ErrIO, err)
}

// Close makes everything durable and closes the home. Run must have returned.
func (h *Home) Close() error {
	var err error
	if h.fail.Load() == nil {
		// What can't be published is kept all the same.
		err = errors.Join(h.Flush(context.Background()), h.SyncAll(context.Background()), h.checkpoint(context.Background()))
	}
	return errors.Join(err, h.jr.Close(), h.closeSpaces())
}

func (h *Home) closeSpaces() error {
	var err error
	for _, s := range h.all() {
		err = errors.Join(err, s.close())
	}
	return err
}

// errorLog keeps the last errors.
type errorLog struct {
	mu   sync.Mutex
	list []LoggedError
}

// LoggedError is an error that Status shows.
type LoggedError struct {
	Time time.Time `json:"time"`
	Text string    `json:"error"`
}

func (l *errorLog) add(t time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 16 {
		l.list = append(l.list[:0], l.list[1:]...)
	}
	l.list = append(l.list, LoggedError{t, err.Error()})
}

func (l *errorLog) get() []LoggedError {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]LoggedError(nil), l.list...)
}

// events hands what changed behind the kernel's back to who asked for it.
type events struct {
	mu  sync.Mutex
	fns map[int]func([]Event)
	n   int
}

// Events calls fn for what changed in a way that the kernel did not ask for, until cancel is called. fn is called by the
// goroutine that made the change, which holds no lock.
func (h *Home) Events(fn func([]Event)) (cancel func()) {
	h.events.mu.Lock()
	defer h.events.mu.Unlock()
	if h.events.fns == nil {
		h.events.fns = map[int]func([]Event){}
	}
	h.events.n++
	id := h.events.n
	h.events.fns[id] = fn
	return func() {
		h.events.mu.Lock()
		defer h.events.mu.Unlock()
		delete(h.events.fns, id)
	}
}

func (h *Home) emit(ev ...Event) {
	h.events.mu.Lock()
	fns := make([]func([]Event), 0, len(h.events.fns))
	for _, fn := range h.events.fns {
		fns = append(fns, fn)
	}
	h.events.mu.Unlock()
	for _, fn := range fns {
		fn(ev)
	}
}
