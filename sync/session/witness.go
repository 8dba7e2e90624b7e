package session

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// The words of nodes. A node acknowledges what it was given by its statements, and members of a space hand them on to each other. What one
// node states only grows, so of any two of its statements the later one has all that the earlier one names. Where that is not so it was put
// back to an earlier state, or shows its users different things: then what some of them write stays hidden from the others. It can delay
// without being found out, but cannot join two views again that it kept apart.

// maxWords bounds the statements of a node that wait for what they name.
const maxWords = 4

// word is what a node said of itself. Space.mu guards it.
type word struct {
	newest *wire.Statement   // the highest counter
	base   *wire.Statement   // the newest of those that were looked at
	open   []*wire.Statement // those that were not, by counter
	watch  map[dag.ID]bool   // batches that it states to hold and that were not here, nor told to it, when that was heard
	split  bool              // two of its statements exclude each other
	lost   bool              // it showed less than it had stated
	doubts [2]int            // ticks in a row in which it looked so: what counts may be judged anew in between
}

// A Doubt is about a node that did not keep its word.
type Doubt struct {
	Node dag.PublicKey
	// Split: it signed two statements that exclude each other. Else it did not show, or asked for, what it had signed that it holds.
	Split bool
}

// doubtAfter is how many ticks in a row show what is then said of a node.
const doubtAfter = 2

// newWords takes what nodes said before this start. What is not right is passed over.
func (sp *Space) newWords() {
	sp.words = make(map[dag.PublicKey]*word)
	for _, m := range sp.cfg.Words {
		if ed25519.Verify(m.Device[:], statementText(sp.cfg.ID, m), m.Signature[:]) {
			sp.takeWord(m)
		}
	}
}

// node reports whether a device is a node whose word is kept.
func (sp *Space) node(device dag.PublicKey) bool { return sp.cfg.Node != nil && sp.cfg.Node(device) }

// takeWord takes a statement of a node. mu is held, but for the start.
func (sp *Space) takeWord(m *wire.Statement) {
	w := sp.words[m.Device]
	if w == nil {
		if len(sp.words) >= maxStated {
			return
		}
		w = &word{watch: make(map[dag.ID]bool)}
		sp.words[m.Device] = w
	}
	if w.newest == nil || m.Counter > w.newest.Counter {
		w.newest = m
	}
	same := func(o *wire.Statement) bool { return o != nil && o.Signature == m.Signature }
	if same(w.base) || slices.ContainsFunc(w.open, same) {
		return
	}
	w.open = append(w.open, m)
	slices.SortStableFunc(w.open, func(a, b *wire.Statement) int { return cmp.Compare(a.Counter, b.Counter) })
	if len(w.open) > maxWords { // the lowest and the highest say the most
		w.open = slices.Delete(w.open, 1, 2)
	}
}

// heardWord takes a statement of a node that came by s.
func (sp *Space) heardWord(s *Session, m *wire.Statement) {
	lacking := sp.lackingOf(m)
	sp.mu.Lock()
	sp.takeWord(m)
	w := sp.words[m.Device]
	var its *Session
	for _, o := range sp.sessions {
		if o.cfg.Device == m.Device {
			its = o
		}
	}
	sp.mu.Unlock()
	if w == nil || its == nil || its == s || len(lacking) == 0 {
		return
	}
	its.mu.Lock()
	lacking = slices.DeleteFunc(lacking, func(id dag.ID) bool {
		return its.sides[wire.ACL].recent.has(id) || its.sides[wire.Files].recent.has(id)
	})
	its.mu.Unlock()
	sp.mu.Lock()
	for _, id := range lacking {
		if len(w.watch) < 4*wire.MaxHeads {
			w.watch[id] = true
		}
	}
	sp.mu.Unlock()
}

// lackingOf is what a statement names that is not held.
func (sp *Space) lackingOf(m *wire.Statement) (ids []dag.ID) {
	for kind, heads := range [wire.Graphs]wire.List[dag.ID]{m.ACL, m.Files} {
		for _, id := range heads {
			if held, err := sp.graphs[kind].Has(id); err == nil && !held {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// asks notes that a node asks for a batch. Who holds it, as it signed, has no reason to.
func (sp *Space) asks(node dag.PublicKey, ids []dag.ID) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if w := sp.words[node]; w != nil && len(w.watch) > 0 && !w.lost && slices.ContainsFunc(ids, func(id dag.ID) bool { return w.watch[id] }) {
		w.lost = true
		sp.warnLost(node)
	}
}

func (sp *Space) warnLost(node dag.PublicKey) {
	sp.cfg.Log.Warn("a node signed that it holds changes which it does not show: it was put back to an earlier state, or keeps changes from some of its users",
		"space", sp.cfg.ID, "node", node)
}

// counts reports whether a batch is held and counts for a node too.
func counts(g *dag.Graph, id dag.ID) bool {
	yes, err := g.CountsElsewhere(id)
	return err == nil && yes
}

// covered reports whether each of what that counts here lies in the past of one of heads. known: all of heads are held.
func covered(g *dag.Graph, what, heads []dag.ID) (yes, known bool) {
	for _, id := range heads {
		if held, err := g.Has(id); err != nil || !held {
			return false, false
		}
	}
	for _, id := range what {
		if counts(g, id) && !slices.ContainsFunc(heads, func(h dag.ID) bool { in, err := g.InPast(id, h); return err == nil && in }) {
			return false, true
		}
	}
	return true, true
}

// follows reports whether statement b has all that a has, as far as both name all of their heads.
func (sp *Space) follows(a, b *wire.Statement) bool {
	for kind, heads := range [wire.Graphs][2]wire.List[dag.ID]{{a.ACL, b.ACL}, {a.Files, b.Files}} {
		if len(heads[1]) >= wire.MaxHeads {
			continue
		}
		if yes, known := covered(sp.graphs[kind], heads[0], heads[1]); known && !yes {
			return false
		}
	}
	return true
}

// weigh compares what nodes said, once for all sessions' ticks.
func (sp *Space) weigh() {
	type pair struct {
		base *wire.Statement
		open []*wire.Statement
	}
	sp.mu.Lock()
	all := make(map[dag.PublicKey]pair)
	for node, w := range sp.words {
		if len(w.open) > 0 {
			all[node] = pair{w.base, slices.Clone(w.open)}
		}
	}
	sp.mu.Unlock()
	for node, p := range all {
		split := false
		base, seen := p.base, p.base
		var done []*wire.Statement
		for _, m := range p.open {
			if held, err := sp.covers(m); err != nil || !held {
				continue // it comes, or is reported missing
			}
			if base != nil {
				lo, hi := base, m
				if lo.Counter > hi.Counter {
					lo, hi = hi, lo
				}
				if !sp.follows(lo, hi) || lo.Counter == hi.Counter && !sp.follows(hi, lo) {
					split = true
					continue // looked at again
				}
			}
			done = append(done, m)
			if base == nil || m.Counter > base.Counter {
				base = m
			}
		}
		sp.mu.Lock()
		w := sp.words[node]
		if w.base == seen {
			w.base = base
			w.open = slices.DeleteFunc(w.open, func(m *wire.Statement) bool { return slices.Contains(done, m) })
		}
		if !split {
			w.doubts[0] = 0
		} else if w.doubts[0]++; w.doubts[0] >= doubtAfter && !w.split {
			w.split = true
			sp.cfg.Log.Warn("a node signed two statements that exclude each other: it was put back to an earlier state, or shows its users different things",
				"space", sp.cfg.ID, "node", node)
		}
		sp.mu.Unlock()
	}
}

// shows compares what a node told first in this session with what it had signed before. Session.mu is held.
func (s *Session) shows() {
	m := s.word
	if m == nil || !s.sides[wire.ACL].first.known || !s.sides[wire.Files].first.known || !s.sides[wire.ACL].equal() {
		return // what counts is judged by the same access list, or not at all
	}
	for kind, heads := range [wire.Graphs]wire.List[dag.ID]{m.ACL, m.Files} {
		yes, known := covered(s.sp.graphs[kind], heads, s.sides[kind].first.heads)
		if !known {
			return
		}
		if !yes {
			s.sp.mu.Lock()
			w := s.sp.words[s.cfg.Device]
			if w.doubts[1]++; w.doubts[1] >= doubtAfter && !w.lost {
				w.lost = true
				s.sp.warnLost(s.cfg.Device)
			}
			s.sp.mu.Unlock()
			return
		}
	}
	s.word = nil // it kept it
	s.sp.mu.Lock()
	s.sp.words[s.cfg.Device].doubts[1] = 0
	s.sp.mu.Unlock()
}

// Doubts returns the nodes that did not keep their word since the start, by key.
func (sp *Space) Doubts() (doubts []Doubt) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for node, w := range sp.words {
		if w.split || w.lost {
			doubts = append(doubts, Doubt{node, w.split})
		}
	}
	slices.SortFunc(doubts, func(a, b Doubt) int { return bytes.Compare(a.Node[:], b.Node[:]) })
	return doubts
}

// Words returns the newest statement of each node, to be given to the next start as Config.Words.
func (sp *Space) Words() (words []*wire.Statement) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for _, w := range sp.words {
		words = append(words, w.newest)
	}
	slices.SortFunc(words, func(a, b *wire.Statement) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	return words
}
