package list

import (
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// view is the state at a set of heads that are not the newest.
type view struct {
	*State
	mine bool // it is changed into that of the record that follows where that is asked for
}

// line is a node's place among those that each know all that came before. parent is the one whose past, with it, is the node's whole past; nil where
// there is no such one. Nodes lie on chains, of which each but the first of a chain is the child of the one before it.
type line struct {
	parent *node
	chain  *chain
	depth  int // in the chain
}

type chain struct {
	base *node // the parent of the chain's first node
	tip  *node
}

// maxHops bounds the chains that are looked through: what is not found so is not known to be there.
const maxHops = 64

// leads says whether o is n, or known to be in its past.
func (n *node) leads(o *node) bool {
	for range maxHops {
		if n == nil || n.chain == nil || o.chain == nil {
			return false
		}
		if n.chain == o.chain {
			return o.depth <= n.depth
		}
		n = n.chain.base
	}
	return false
}

// join gives a node its place, whose past is held.
func (l *List) join(n *node) {
	var top *node
	for _, id := range n.past {
		if o := l.nodes[id]; o != nil && (top == nil || o.pos.Compare(top.pos) > 0) {
			top = o
		}
	}
	if top != nil && !slices.ContainsFunc(n.past, func(id dag.ID) bool { return l.nodes[id] == nil || !top.leads(l.nodes[id]) }) {
		n.parent = top
	}
	if n.parent != nil && n.parent.chain.tip == n.parent {
		n.chain, n.depth = n.parent.chain, n.parent.depth+1
	} else {
		n.chain = &chain{base: n.parent}
	}
	n.chain.tip = n
}

// stateAt is the state of the records that heads and their past hold. Whoever calls holds mu for reading and viewMu, until it has read in the
// state what it wants to know. A head that is not held gives a *dag.MissingError.
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
	if v := l.views[key]; v != nil {
		return v.State, nil
	}
	if v := l.follow(heads); v != nil {
		return l.keep(key, v), nil
	}
	// One before it serves those beside it too.
	from := heads
	if n := l.nodes[heads[0]]; len(heads) == 1 && n != nil && n.parent != nil {
		from = []dag.ID{n.parent.batch}
	}
	order, missing := l.closure(from)
	if len(missing) > 0 {
		return nil, &dag.MissingError{ACL: missing}
	}
	if len(order) == 0 {
		return nil, fmt.Errorf("%w: no record is in the past", ErrDenied)
	}
	root, err := l.rootOf(order[0].record)
	if err != nil {
		return nil, err
	}
	s, _ := evaluate(root, l.space, order)
	l.viewed += uint64(len(order))
	s = l.keep(headsKey(from), &view{State: s})
	if v := l.follow(heads); v != nil {
		s = l.keep(key, v)
	}
	return s, nil
}

// keep keeps a view for who asks next.
func (l *List) keep(key string, v *view) *State {
	size := v.size()
	if len(l.views) >= maxViews || l.viewItems+size > maxViewItems {
		clear(l.views)
		l.viewItems = 0
	}
	l.views[key] = v
	l.viewItems += size
	return v.State
}

// follow makes the view of one head from one of a record before it, where between them each knows all that came before; else nil. Batches of files
// go by one head after the other, and so each costs as much as the records that are new in it.
func (l *List) follow(heads []dag.ID) *view {
	if len(heads) != 1 {
		return nil
	}
	var path []*node
	for n := l.nodes[heads[0]]; n != nil && n.parent != nil; n = n.parent {
		path = append(path, n)
		key := headsKey([]dag.ID{n.parent.batch})
		v := l.views[key]
		if v == nil {
			continue
		}
		if v.mine {
			delete(l.views, key)
			l.viewItems -= v.size()
		} else {
			v = &view{v.clone(), true}
		}
		for _, n := range slices.Backward(path) {
			v.apply(n)
		}
		l.viewed += uint64(len(path))
		return v
	}
	return nil
}

// size is about how many items a state holds.
func (s *State) size() int {
	return len(s.members) + len(s.all) + len(s.acts) + len(s.requests) + len(s.invites) + len(s.order) + len(s.adopted) + 64
}
