package list

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/dag"
)

// node is an applied record.
type node struct {
	batch   dag.ID
	id      dag.ID // of the record: its change's
	pos     dag.Pos
	account dag.PublicKey
	device  dag.PublicKey
	record  *Record  // nil in a batch that only joins others
	past    []dag.ID // the batches it names: its feed's previous one and its deps
	head    bool     // no other of its list names it; guarded by the list
	line             // likewise
}

// List is the access list of one space: the graph of its records, and the state they come to.
//
// It is safe for concurrent use. Lock order: a writer's place in a dag.Graph, then List.mu, then viewMu, then the graph's lock of readers
// or List.cacheMu.
type List struct {
	space dag.ID
	graph *dag.Graph

	mu       sync.RWMutex
	own      ofDevice // this device; see KeepOwn
	root     *Root    // nil until the first batch came
	nodes    map[dag.ID]*node
	order    []*node          // in total order
	front    []*node          // that no other names, in total order
	heads    []dag.ID         // of the highest of these as many as a batch can name, sorted; replaced as a whole
	state    *State           // of all nodes, but for those that came since where stale is set
	stale    bool             // forks come in a flood at times: the state is made when it is asked for
	lent     atomic.Bool      // state was given away, so that it may not be changed any more
	version  uint64           // of state
	reaches  *reaches         // of order, where stale is not set
	weighed  uint64           // records that states were made from, each as often as that was
	accepted map[dag.ID]*node // that the graph has, or is about to have, and applied was not told of yet
	watchers map[int]func()
	watches  int

	viewMu    sync.Mutex // held while a view is looked at: it may be made from another one
	views     map[string]*view
	viewItems int
	viewed    uint64 // records that views were made from, each as often as that was

	cacheMu sync.Mutex
	judged  map[verdictKey]error

	counted   map[countKey]*countable // by the state of version countedBy
	countedBy uint64
}

var _ dag.Authorizer = (*List)(nil)

// Bounds of what is cached; a cache that is full begins anew.
const (
	maxAccepted  = 1024
	maxViews     = 64
	maxViewItems = 1 << 18 // accounts, devices, requests and such of all views
	maxJudged    = 4096
)

// Open returns the list that st holds, which may be empty. It trusts what was verified before it was stored; Verify
// proves it anew.
func Open(space dag.ID, st dag.Store) (*List, error) {
	l := newList(space)
	g, err := dag.Open(space, st, l, dag.Options{})
	if err != nil {
		return nil, fmt.Errorf("acl: open space %s: %w", space, err)
	}
	l.graph = g
	err = g.Batches(func(b *dag.Batch, bodies [][]byte) error {
		n, err := nodeOf(b, bodies)
		if err == nil {
			err = l.add(n)
		}
		if err != nil {
			return fmt.Errorf("record %s: %w", b.ID(), err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("acl: open space %s: %w", space, err)
	}
	l.stale = l.root != nil
	l.fresh()
	g.Subscribe(l.applied)
	return l, nil
}

func newList(space dag.ID) *List {
	return &List{
		space:    space,
		nodes:    make(map[dag.ID]*node),
		accepted: make(map[dag.ID]*node),
		watchers: make(map[int]func()),
		views:    make(map[string]*view),
		judged:   make(map[verdictKey]error),
	}
}

// nodeOf decodes the record of a batch.
func nodeOf(b *dag.Batch, bodies [][]byte) (*node, error) {
	n := newNode(b)
	if len(bodies) == 0 {
		return n, nil
	}
	c, err := dag.DecodeChange(bodies[0])
	if err != nil {
		return nil, err
	}
	n.record, err = DecodeRecord(c.Payload)
	return n, err
}

func newNode(b *dag.Batch) *node {
	n := &node{batch: b.ID(), account: b.Account, device: b.Device, past: past(b)}
	n.pos = dag.Pos{Clock: b.Clock, Batch: n.batch}
	if len(b.Changes) > 0 {
		n.id = b.Changes[0]
	}
	return n
}

// past is what a batch names, sorted.
func past(b *dag.Batch) []dag.ID {
	if b.Prev.IsZero() {
		return b.Deps
	}
	p := append(slices.Clone(b.Deps), b.Prev)
	slices.SortFunc(p, dag.ID.Compare)
	return p
}

// applied hears from the graph of each new batch, and of some twice.
func (l *List) applied(b *dag.Batch) {
	if !l.insert(b) {
		return
	}
	l.mu.RLock()
	fns := make([]func(), 0, len(l.watchers))
	for _, id := range slices.Sorted(maps.Keys(l.watchers)) {
		fns = append(fns, l.watchers[id])
	}
	l.mu.RUnlock()
	for _, fn := range fns {
		fn()
	}
}

// insert adds a batch of the graph to the list and folds it. It returns false for one that is there already.
//
// A writer tells of its own batch itself, so what that names may be on its way still: it goes in first.
func (l *List) insert(b *dag.Batch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	todo := []dag.ID{b.ID()}
	if l.nodes[todo[0]] != nil {
		return false
	}
	for len(todo) > 0 {
		n := l.take(todo[len(todo)-1])
		if n == nil {
			return false
		}
		before := len(todo)
		for _, id := range n.past {
			if l.nodes[id] == nil {
				todo = append(todo, id)
			}
		}
		if len(todo) > before {
			continue
		}
		todo = todo[:len(todo)-1]
		delete(l.accepted, n.batch)
		if l.nodes[n.batch] != nil {
			continue
		}
		if l.add(n) != nil {
			return false
		}
		if l.state != nil && !l.stale && n == l.order[len(l.order)-1] && len(l.front) == 1 {
			if l.lent.Swap(false) {
				l.state = l.state.clone()
			}
			l.state.apply(n)
			l.reaches.add(n)
			l.weighed++
			l.version++
		} else {
			l.stale, l.reaches = true, nil
		}
	}
	return true
}

// fresh brings the state up to date. mu is held for writing.
func (l *List) fresh() {
	if l.stale {
		l.state, l.reaches = evaluate(l.root, l.space, l.order)
		l.stale = false
		l.weighed += uint64(len(l.order))
		l.version++
		l.lent.Store(false)
	}
}

// rlock takes mu for reading, with the state up to date.
func (l *List) rlock() {
	for l.mu.RLock(); l.stale; l.mu.RLock() {
		l.mu.RUnlock()
		l.mu.Lock()
		l.fresh()
		l.mu.Unlock()
	}
}

// take finds a batch that the graph has; nil where it cannot be read.
func (l *List) take(id dag.ID) *node {
	if n := l.node(id); n != nil {
		return n
	}
	if l.graph == nil {
		return nil
	}
	b, bodies, err := l.graph.Batch(id) // pushed out by a thousand that were accepted and not stored
	if err != nil {
		return nil
	}
	n, err := nodeOf(b, bodies)
	if err != nil {
		return nil
	}
	l.accepted[id] = n
	return n
}

// add takes a record in without folding it.
func (l *List) add(n *node) error {
	if l.root == nil {
		root, err := l.rootOf(n.record)
		if err != nil {
			return err
		}
		l.root = root
	}
	l.nodes[n.batch] = n
	l.join(n)
	at, _ := slices.BinarySearchFunc(l.order, n, func(a, b *node) int { return a.pos.Compare(b.pos) })
	l.order = slices.Insert(l.order, at, n)
	l.advance(n)
	return nil
}

// advance makes n a head, in the place of those that it names.
func (l *List) advance(n *node) {
	place := func(n *node) int {
		at, _ := slices.BinarySearchFunc(l.front, n, func(a, b *node) int { return a.pos.Compare(b.pos) })
		return at
	}
	for _, id := range n.past {
		if o := l.nodes[id]; o != nil && o.head {
			o.head = false
			at := place(o)
			l.front = slices.Delete(l.front, at, at+1)
		}
	}
	n.head = true
	l.front = slices.Insert(l.front, place(n), n)
	l.heads = make([]dag.ID, 0, min(len(l.front), dag.MaxACLHeads))
	for _, o := range l.front[len(l.front)-cap(l.heads):] {
		l.heads = append(l.heads, o.batch)
	}
	slices.SortFunc(l.heads, dag.ID.Compare)
}

// rootOf decodes the root that a first record carries. Its ID, which is the space's, vouches for it.
func (l *List) rootOf(rec *Record) (*Root, error) {
	if rec == nil || rec.Root == nil || dag.Sum(rec.Root) != l.space {
		return nil, fmt.Errorf("%w: a first record without the root of its space", ErrDenied)
	}
	return DecodeRoot(rec.Root)
}

// whole says whether nothing of the list is outside the past of heads.
func (l *List) whole(heads []dag.ID) bool {
	if len(l.front) > len(heads) {
		return false
	}
	for _, h := range heads {
		if l.nodes[h] == nil {
			return false
		}
	}
	for _, n := range l.front {
		if _, ok := slices.BinarySearchFunc(heads, n.batch, dag.ID.Compare); !ok {
			return false
		}
	}
	return true
}

// holds says whether the graph has a record. One that was accepted may be on its way into it, and may never arrive. What the
// store cannot tell counts as missing, so that it is asked again: any other answer would refuse for ever.
func (l *List) holds(id dag.ID) bool {
	if l.nodes[id] != nil {
		return true
	}
	if l.accepted[id] == nil || l.graph == nil {
		return l.accepted[id] != nil
	}
	held, err := l.graph.Has(id)
	return held && err == nil
}

// node finds a record that the graph holds, or is about to.
func (l *List) node(id dag.ID) *node {
	if n := l.nodes[id]; n != nil {
		return n
	}
	return l.accepted[id]
}

func idBytes(ids []dag.ID) [][]byte {
	b := make([][]byte, len(ids))
	for i := range ids {
		b[i] = ids[i][:]
	}
	return b
}

// closure is the heads with their past, in total order, and what of it is not at hand: of a thousand records that were accepted and did not arrive
// the first are forgotten.
func (l *List) closure(heads []dag.ID) (out []*node, missing []dag.ID) {
	seen := make(map[dag.ID]bool)
	todo := slices.Clone(heads)
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		n := l.node(id)
		if n == nil {
			missing = append(missing, id)
			continue
		}
		out = append(out, n)
		todo = append(todo, n.past...)
	}
	slices.SortFunc(out, func(a, b *node) int { return a.pos.Compare(b.pos) })
	return out, missing
}
