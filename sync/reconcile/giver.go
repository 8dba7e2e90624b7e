package reconcile

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// Giver is the side that is asked. What it takes in memory is bounded by its own tips. It is not safe for concurrent use.
type Giver struct {
	set    set
	queue  []span // that the Asker is to probe, in this order
	began  bool
	named  []int // places in the set of what was named
	lacked []bool
}

// NewGiver returns a Giver for tips, under the key of the first probe.
func NewGiver(key wire.Key, tips []dag.Tip) *Giver {
	return &Giver{set: newSet(key, tips), lacked: make([]bool, len(tips))}
}

// Key is what the run is under.
func (g *Giver) Key() wire.Key { return g.set.key }

// Probe answers a probe. An error is the Asker's fault.
func (g *Giver) Probe(m *wire.Probe) (*wire.Answer, error) {
	n := len(m.Sums)
	if !g.began {
		if n&(n-1) != 0 || n < wire.MinSums {
			return nil, fmt.Errorf("%w: a first probe of %d ranges", ErrPeer, n)
		}
		g.began = true
		for b := 0; ; b++ {
			if 1<<b == n {
				g.queue = firstSpans(b)
				break
			}
		}
	}
	if m.Key != g.set.key || n > len(g.queue) {
		return nil, fmt.Errorf("%w: %d ranges where %d are to be probed", ErrPeer, n, len(g.queue))
	}
	a := &wire.Answer{Graph: m.Graph, Key: m.Key, Ranges: make([]byte, n)}
	for i, p := range g.queue[:n] {
		from, to := g.set.within(p)
		size := to - from
		switch {
		case g.set.sum(g.set.all[from:to]) == m.Sums[i]:
			a.Ranges[i] = wire.RangeEqual
		case size > leaf && divides(p):
			a.Ranges[i] = wire.RangeDivide
			g.queue = divide(g.queue, p)
		case size > wire.MaxNamed || len(a.IDs)+size > wire.MaxShorts:
			a.Ranges[i] = wire.RangeOpen
			for i := from; i < to; i++ {
				g.lacked[i] = true
			}
		default:
			a.Ranges[i] = wire.RangeNamed + byte(size)
			for i := from; i < to; i++ {
				a.IDs = append(a.IDs, g.set.all[i].short())
				g.named = append(g.named, i)
				g.lacked[i] = true
			}
		}
	}
	g.queue = g.queue[n:]
	return a, nil
}

// Known takes which of the tips that were named the Asker holds. An error is the Asker's fault.
func (g *Giver) Known(bits []byte) error {
	if !g.began || len(g.queue) > 0 || len(bits) != (len(g.named)+7)/8 {
		return fmt.Errorf("%w: %d bytes about %d tips", ErrPeer, len(bits), len(g.named))
	}
	for i, at := range g.named {
		if bits[i/8]&(1<<(i%8)) != 0 {
			g.lacked[at] = false
		}
	}
	return nil
}

// Shared is the batches of the tips that the Asker has too.
func (g *Giver) Shared() (ids []dag.ID) {
	for i := range g.set.all {
		if !g.lacked[i] {
			ids = append(ids, g.set.all[i].tip.Batch)
		}
	}
	return ids
}

// Rest is the tips that the Asker does not have as its own. With them it knows as much of the Giver as the Giver of it.
func (g *Giver) Rest() (tips []dag.Tip) {
	for i := range g.set.all {
		if g.lacked[i] {
			tips = append(tips, g.set.all[i].tip)
		}
	}
	return tips
}
