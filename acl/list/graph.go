package list

import (
	"fmt"
	"maps"
	"slices"
	"sync"

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
}

// List is the access list of one space: the graph of its records, and the state they come to.
//
// It is safe for concurrent use. Lock order: a writer's place in a dag.Graph, then List.mu, then the graph's lock of readers
// or List.cacheMu.
type List struct {
	space dag.ID
	graph *dag.Graph

	mu       sync.RWMutex
	own      ofDevice // this device; see KeepOwn
	root     *Root    // nil until the first batch came
	nodes    map[dag.ID]*node
	order    []*node          // in total order
	front    []*node          // that no other names, the highest first
	heads    []dag.ID         // of these as many as a batch can name, sorted; replaced as a whole
	state    *State           // of all nodes, but for those that came since where stale is set
	stale    bool             // forks come in a flood at times: the state is made when it is asked for
	accepted map[dag.ID]*node // that the graph has, or is about to have, and applied was not told of yet
	watchers map[int]func()
	watches  int

	cacheMu sync.Mutex
	views   map[string]*State // states at sets of heads that are not the newest
	judged  map[verdictKey]error

	counted   map[countKey]*countable // by the state countedBy
	countedBy *State
}

var _ dag.Authorizer = (*List)(nil)

// Bounds of what is cached; a cache that is full begins anew.
const (
	maxAccepted = 1024
	maxViews    = 64
	maxJudged   = 4096
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
	if l.root != nil {
		l.state = l.fold(l.order)
	}
	g.Subscribe(l.applied)
	return l, nil
}

func newList(space dag.ID) *List {
	return &List{
		space:    space,
		nodes:    make(map[dag.ID]*node),
		accepted: make(map[dag.ID]*node),
		watchers: make(map[int]func()),
		views:    make(map[string]*State),
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
			l.state = l.state.clone()
			l.state.apply(n)
		} else {
			l.stale = true
		}
	}
	return true
}

// fresh brings the state up to date. mu is held for writing.
func (l *List) fresh() {
	if l.stale {
		l.state, l.stale = l.fold(l.order), false
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
	at, _ := slices.BinarySearchFunc(l.order, n, func(a, b *node) int { return a.pos.Compare(b.pos) })
	l.order = slices.Insert(l.order, at, n)
	l.advance(n)
	return nil
}

// advance makes n a head, in the place of those that it names.
func (l *List) advance(n *node) {
	l.front = slices.DeleteFunc(l.front, func(o *node) bool { return slices.Contains(n.past, o.batch) })
	at, _ := slices.BinarySearchFunc(l.front, n, func(a, b *node) int { return b.pos.Compare(a.pos) })
	l.front = slices.Insert(l.front, at, n)
	l.heads = make([]dag.ID, min(len(l.front), dag.MaxACLHeads))
	for i := range l.heads {
		l.heads[i] = l.front[i].batch
	}
	slices.SortFunc(l.heads, dag.ID.Compare)
}

func (l *List) fold(order []*node) *State { return evaluate(l.root, l.space, order) }

// rootOf decodes the root that a first record carries. Its ID, which is the space's, vouches for it.
func (l *List) rootOf(rec *Record) (*Root, error) {
	if rec == nil || rec.Root == nil || dag.Sum(rec.Root) != l.space {
		return nil, fmt.Errorf("%w: a first record without the root of its space", ErrDenied)
	}
	return DecodeRoot(rec.Root)
}

// stateAt is the state of the records that heads and their past hold. Whoever calls holds mu for reading, and only reads
// the state. A head that is not held gives a *dag.MissingError.
func (l *List) stateAt(heads []dag.ID) (*State, error) {
	var missing []dag.ID
	for _, h := range heads {
		if !l.holds(h) {
			missing = append(missing, h)
		}
	}
	if len(missing) > 0 {
		return nil, &dag.MissingError{ACL: missing}
	}
	if l.state != nil && !l.stale && l.whole(heads) {
		return l.state, nil
	}
	key := headsKey(heads)
	l.cacheMu.Lock()
	s := l.views[key]
	l.cacheMu.Unlock()
	if s != nil {
		return s, nil
	}
	order := l.closure(heads)
	if len(order) == 0 {
		return nil, fmt.Errorf("%w: no record is in the past", ErrDenied)
	}
	root, err := l.rootOf(order[0].record)
	if err != nil {
		return nil, err
	}
	s = evaluate(root, l.space, order)
	l.cacheMu.Lock()
	if len(l.views) >= maxViews {
		clear(l.views)
	}
	l.views[key] = s
	l.cacheMu.Unlock()
	return s, nil
}

// whole says whether nothing of the list is outside the past of heads.
func (l *List) whole(heads []dag.ID) bool {
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

// closure is the heads with their past, in total order.
func (l *List) closure(heads []dag.ID) []*node {
	seen := make(map[dag.ID]bool)
	todo := slices.Clone(heads)
	var out []*node
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if n := l.node(id); n != nil && !seen[id] {
			seen[id] = true
			out = append(out, n)
			todo = append(todo, n.past...)
		}
	}
	slices.SortFunc(out, func(a, b *node) int { return a.pos.Compare(b.pos) })
	return out
}
