package reconcile

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// Asker is the side that wants to get what it lacks. It is not safe for concurrent use.
type Asker struct {
	set    set
	queue  []span // to probe, in this order
	asked  []span // of the last probe, not answered yet
	ranges int    // probed and to probe
	known  []byte // bit i: the i-th tip that the Giver named is held
	named  int
	sent   []bool // by place in the set: the Giver did not name it
}

// NewAsker returns an Asker for tips, under a key that was drawn for it.
func NewAsker(key wire.Key, tips []dag.Tip) *Asker {
	a := &Asker{set: newSet(key, tips), sent: make([]bool, len(tips))}
	a.queue = firstSpans(firstBits(len(tips)))
	a.ranges = len(a.queue)
	return a
}

// Key is what the run is under.
func (a *Asker) Key() wire.Key { return a.set.key }

// Started reports whether the Giver has answered.
func (a *Asker) Started() bool { return len(a.queue)+len(a.asked) < a.ranges }

// Probe returns what to ask next; nil while an answer is due, and at the end.
func (a *Asker) Probe(g wire.Graph) *wire.Probe {
	if len(a.asked) > 0 || len(a.queue) == 0 {
		return nil
	}
	n := min(len(a.queue), wire.MaxSums)
	a.asked, a.queue = a.queue[:n:n], a.queue[n:]
	m := &wire.Probe{Graph: g, Key: a.set.key, Sums: make(wire.List[wire.Sum], n)}
	for i, p := range a.asked {
		from, to := a.set.within(p)
		m.Sums[i] = a.set.sum(a.set.all[from:to])
	}
	return m
}

// Answer takes the answer to the last probe. An error is the Giver's fault.
func (a *Asker) Answer(m *wire.Answer) error {
	if m.Key != a.set.key || len(a.asked) == 0 || len(m.Ranges) != len(a.asked) {
		return fmt.Errorf("%w: an answer to another question", ErrPeer)
	}
	ids := m.IDs
	for i, p := range a.asked {
		switch how := m.Ranges[i]; how {
		case wire.RangeEqual:
		case wire.RangeDivide:
			if a.ranges += 1 << fanBits; !divides(p) || a.ranges > maxRanges {
				return fmt.Errorf("%w: a range divided too far", ErrPeer)
			}
			a.queue = divide(a.queue, p)
		case wire.RangeOpen:
			from, to := a.set.within(p)
			for i := from; i < to; i++ {
				a.sent[i] = true
			}
		default:
			n := int(how - wire.RangeNamed)
			if n > len(ids) {
				return fmt.Errorf("%w: fewer tips than it told of", ErrPeer)
			}
			a.compare(p, ids[:n])
			ids = ids[n:]
		}
	}
	if len(ids) > 0 {
		return fmt.Errorf("%w: more tips than it told of", ErrPeer)
	}
	a.asked = nil
	return nil
}

// compare holds what the Giver named in a span against what is there.
func (a *Asker) compare(p span, named []wire.Short) {
	from, to := a.set.within(p)
	mine := make(map[wire.Short]int, to-from)
	for i := from; i < to; i++ {
		mine[a.set.all[i].short()] = i
		a.sent[i] = true
	}
	for _, s := range named {
		if a.named%8 == 0 {
			a.known = append(a.known, 0)
		}
		if i, ok := mine[s]; ok {
			a.known[a.named/8] |= 1 << (a.named % 8)
			a.sent[i] = false
		}
		a.named++
	}
}

// Done reports whether all is known that the Asker has to find out.
func (a *Asker) Done() bool { return len(a.queue)+len(a.asked) == 0 }

// Known says which of the tips that the Giver named are held: bit i, of byte i/8 from the lowest on, stands for the i-th.
func (a *Asker) Known() []byte { return a.known }

// Rest is the tips that the Giver is to be sent: all that it may not have.
func (a *Asker) Rest() (tips []dag.Tip) {
	for i := range a.set.all {
		if a.sent[i] {
			tips = append(tips, a.set.all[i].tip)
		}
	}
	return tips
}

// Shared is the batches of the tips that the Giver has too.
func (a *Asker) Shared() (ids []dag.ID) {
	for i := range a.set.all {
		if !a.sent[i] {
			ids = append(ids, a.set.all[i].tip.Batch)
		}
	}
	return ids
}
