// Package dag holds the signed change graph of one space.
//
// A change is immutable: object, parents, clock, device, sealed payload; a batch signs many. FORMAT.md gives the bytes.
// A graph is a set of batches closed under what they name. Heads of an object are the changes no other change names.
// Graphs that hold the same set have the same heads and order, whatever order they arrived in.
// The package does no I/O of its own, starts no goroutine and reads no clock.
package dag

import (
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"sync"
)

// Options tune a graph; the zero value is good.
type Options struct {
	PendingBytes    int // of batches that wait for what they name; default 16 MiB
	QuarantineBytes int // of batches in quarantine taken from others; default 64 MiB
	CacheBytes      int // of objects, heads and vectors kept in memory; default 4 MiB

	// Room is called before batches from elsewhere are taken in, by who does that and with no lock held: it may wait until there
	// is memory for them. nil: there always is.
	Room func()

	// Fits says whether there is room for a batch of so many bytes that waited for what it names and need wait no longer: one for which there is none is let go of
	// with ErrQuota, and comes when it is asked for again. It is called with the graph locked for writing. nil: there always is.
	Fits func(bytes int) bool
}

// Graph holds the batches of one space. It is safe for concurrent use.
//
// Writers (Begin to Commit or Abort, Ingest, Rejudge) come one after the other; readers go on beside them.
type Graph struct {
	space ID
	store Store
	auth  Authorizer
	opt   Options

	objects *cache[ID, *object]
	headsAt *cache[uint64, *head]
	vectors *cache[uint64, vector]

	write   sync.Mutex // held by the writer; before mu
	pending pending    // guarded by write
	scratch []byte     // of the builder, guarded by write

	mu       sync.RWMutex // guards what follows; the writer alone changes it, and may read it without
	chains   []*chain     // by number; a chain is replaced, not changed
	byDevice map[PublicKey][]uint32
	frontier []uint32 // chains whose counted batch lies in the past of no other's
	held     heldSet
	counters counters

	events events
}

// counters are the totals of a graph.
type counters struct {
	objects, batches, changes uint64
	quarantineBytes           uint64
}

// Open returns the graph that st holds. What the last crash took from its index is indexed again.
func Open(space ID, st Store, auth Authorizer, opt Options) (*Graph, error) {
	opt.PendingBytes = orDefault(opt.PendingBytes, 16<<20)
	opt.QuarantineBytes = orDefault(opt.QuarantineBytes, 64<<20)
	opt.CacheBytes = orDefault(opt.CacheBytes, 4<<20)
	g := &Graph{
		space: space, store: st, auth: auth, opt: opt,
		objects:  newCache[ID, *object](opt.CacheBytes / 2),
		headsAt:  newCache[uint64, *head](opt.CacheBytes / 4),
		vectors:  newCache[uint64, vector](opt.CacheBytes / 4),
		byDevice: make(map[PublicKey][]uint32),
		held:     make(heldSet),
	}
	g.pending.init(opt.PendingBytes)
	if err := g.load(); err != nil {
		return nil, fmt.Errorf("dag: open graph: %w", err)
	}
	if err := st.Walk(st.Indexed(), g.replay); err != nil {
		return nil, fmt.Errorf("dag: index the end of the log: %w", err)
	}
	if err := g.raiseAgain(); err != nil {
		return nil, fmt.Errorf("dag: open graph: %w", err)
	}
	return g, nil
}

func orDefault(n, d int) int {
	if n == 0 {
		return d
	}
	return n
}

// Age lets go of what the graph has in memory only because it was asked for once, where that is before the last Age but one. Who calls it now and then has memory follow
// what is used, and not all that ever was.
func (g *Graph) Age() {
	g.objects.age()
	g.headsAt.age()
	g.vectors.age()
}

// Space returns the space that the graph is of.
func (g *Graph) Space() ID { return g.space }

func (g *Graph) load() error {
	if err := g.loadChains(); err != nil {
		return err
	}
	if err := g.loadQuarantine(); err != nil {
		return err
	}
	p, err := g.store.Get(TableMeta, []byte("state"))
	if err != nil || p == nil {
		return err
	}
	d := decoder{b: p}
	g.counters = counters{d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()}
	for range d.count(1) {
		n := d.uvarint()
		if n >= uint64(len(g.chains)) {
			return errIndex("frontier")
		}
		g.frontier = append(g.frontier, uint32(n))
	}
	return d.err("state")
}

func (u *Update) putState(c counters, frontier []uint32) {
	p := binary.AppendUvarint(make([]byte, 0, 64), c.objects)
	p = binary.AppendUvarint(p, c.batches)
	p = binary.AppendUvarint(p, c.changes)
	p = binary.AppendUvarint(p, c.quarantineBytes)
	p = binary.AppendUvarint(p, uint64(len(frontier)))
	for _, f := range frontier {
		p = binary.AppendUvarint(p, uint64(f))
	}
	u.put(TableMeta, []byte("state"), p)
}

// replay indexes a record that is in the log: it was verified and accepted before it was put there.
func (g *Graph) replay(rec Record) error {
	f, err := parseFrame(rec.Frame)
	if err == nil && f.id != rec.ID {
		err = errors.New("its frame is another batch")
	}
	if err != nil {
		return errCorrupt(rec.At, err)
	}
	s, missing, err := g.check(f)
	if err == nil && len(missing) > 0 {
		err = errors.New("its past is not held")
	}
	if err != nil {
		return errCorrupt(rec.At, err)
	}
	return g.apply(s, g.auth.Counts(f.batch), rec)
}

// errCorrupt says of a record that it is not what was written, unless it is the disk that did not give it.
func errCorrupt(at uint64, err error) error {
	var disk *iofs.PathError
	if errors.As(err, &disk) {
		return fmt.Errorf("dag: record at %d: %w", at, err)
	}
	return fmt.Errorf("%w: record at %d: %w", ErrCorrupt, at, err)
}

// Heads returns the frontier: the batches that count and lie in the past of no other that counts. It is sorted.
func (g *Graph) Heads() []ID {
	g.mu.RLock()
	defer g.mu.RUnlock()
	ids := make([]ID, len(g.frontier))
	for i, n := range g.frontier {
		ids[i] = g.chains[n].counted.id
	}
	sortIDs(ids)
	return ids
}

// Tips returns the last batch of each feed and of each branch of one that counts or lies in the past of a batch that does,
// in no order. A feed with several tips has branches: its device was restored from a backup, or lies.
func (g *Graph) Tips() []Tip {
	g.mu.RLock()
	defer g.mu.RUnlock()
	tips := make([]Tip, 0, len(g.chains))
	for _, c := range g.chains {
		if s := c.shown; s.at != 0 {
			tips = append(tips, Tip{Feed: c.feed, Device: c.device, Seq: s.seq, Batch: s.id, Clock: s.clock})
		}
	}
	return tips
}

// Counters returns how many batches and changes are held, those in quarantine included, and of how many objects.
func (g *Graph) Counters() (batches, changes, objects uint64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.counters.batches, g.counters.changes, g.counters.objects
}

// Has reports whether a batch is held, be it in quarantine.
func (g *Graph) Has(id ID) (bool, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	_, ok, err := g.find(id)
	return ok, err
}

// InPast reports whether batch lies in the past of the batch `of`, or is the same. ErrNotFound when one is not held.
func (g *Graph) InPast(batch, of ID) (bool, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	p, ok, err := g.find(batch)
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return false, err
	}
	b, ok, err := g.find(of)
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return false, err
	}
	v, err := g.vectorOf(b)
	return err == nil && v.at(p.chain) >= p.clock, err
}

// Feed returns the first batch of the feed that a batch is in. ErrNotFound when the batch is not held.
func (g *Graph) Feed(batch ID) (ID, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	k, ok, err := g.find(batch)
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return ID{}, err
	}
	return g.chains[k.chain].feed, nil
}
