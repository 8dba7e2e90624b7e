package dag

import (
	"hash/crc32"
	"slices"
)

// change is what apply makes of the graph, before it is written.
type change struct {
	u        Update
	chain    *chain
	objects  []*object
	counters counters
	frontier []uint32
	vector   vector
	held     held // of a batch that does not count
}

// apply takes a checked batch in: rec is zero for a new one, or its record for one that is in the log already.
// It either happens as a whole or leaves the graph as it was.
func (g *Graph) apply(s *step, verdict Verdict, rec Record) error {
	f := s.f
	counts := verdict == Counts
	isNew := rec.At == 0
	if isNew {
		rec = Record{At: g.store.Next(len(f.raw)), ID: f.id, Head: f.head, Frame: f.raw}
	}
	c := &change{counters: g.counters, frontier: g.frontier}
	c.counters.batches++
	c.counters.changes += uint64(len(f.bodies))
	if !counts {
		c.counters.quarantineBytes += uint64(len(f.raw))
	}
	if rec.At >= maxAt || len(g.chains) >= maxChains {
		return errIndex("the log is too long")
	}
	if err := g.extend(c, s, rec.At, counts); err != nil {
		return err
	}
	if err := g.addChanges(c, s, rec.At, counts); err != nil {
		return err
	}
	if counts {
		c.frontier = g.uncovered(c.vector, c.chain.num)
	} else {
		c.held = held{chain: c.chain.num, clock: f.batch.Clock, bytes: uint32(len(f.raw))}
		if verdict == CountsIfNamed {
			c.held.state = unnamed
		}
		c.u.putHeld(rec.At, c.held)
	}
	c.u.putState(c.counters, c.frontier)
	return g.publish(c, s, rec, isNew, verdict)
}

// publish writes, and shows to readers what was written.
func (g *Graph) publish(c *change, s *step, rec Record, isNew bool, verdict Verdict) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	if isNew {
		err = g.store.Append(rec, &c.u)
	} else {
		err = g.store.Index(rec, &c.u)
	}
	if err != nil {
		return err
	}
	g.setChain(c.chain)
	g.counters, g.frontier = c.counters, c.frontier
	for _, o := range c.objects {
		g.objects.put(o.id, o, o.bytes())
	}
	g.vectors.put(rec.At, c.vector, 8*len(c.vector))
	h := s.f.headOf()
	g.headsAt.put(rec.At, h, h.bytes())
	if verdict != Counts {
		g.held[rec.At] = c.held
		return nil
	}
	g.events.add(s.f.batch)
	return nil
}

// headOf returns the head to keep in the cache: without the changes, and with no part of the frame.
func (f *parsed) headOf() *head {
	b := *f.batch
	b.Changes = nil
	return &head{f.id, &b}
}

// extend puts the batch at the end of its chain, or of a new one.
func (g *Graph) extend(c *change, s *step, at uint64, counts bool) error {
	b := s.f.batch
	here := spot{id: s.f.id, seq: b.Seq, clock: b.Clock, at: at}
	var n chain
	switch {
	case s.prev.at != 0 && g.chains[s.prev.chain].tip.at == s.prev.at:
		n = *g.chains[s.prev.chain]
	case s.prev.at != 0:
		n = chain{num: uint32(len(g.chains)), feed: g.chains[s.prev.chain].feed, device: b.Device, account: b.Account}
	default:
		n = chain{num: uint32(len(g.chains)), feed: s.f.id, device: b.Device, account: b.Account}
	}
	n.tip = here
	if counts {
		n.counted, n.shown = here, here
	}
	c.chain = &n
	c.vector = append(make(vector, 0, max(len(s.past), int(n.num)+1)), s.past...).with(n.num, b.Clock)
	c.u.put(TableChains, key32(n.num), n.encode())
	c.u.add(SetBatches, s.f.id, Value{packAt(at, n.num), b.Clock})
	if b.Seq%pastEvery == 0 {
		c.u.put(TablePasts, key64(at), c.vector.encode())
	}
	return g.putFeed(&c.u, n.num, b.Seq, at)
}

// addChanges puts the changes into the logs of their objects.
func (g *Graph) addChanges(c *change, s *step, at uint64, counts bool) error {
	f := s.f
	c.objects = make([]*object, len(s.objects))
	c.u.Puts = slices.Grow(c.u.Puts, len(f.bodies)+4)
	c.u.Adds = slices.Grow(c.u.Adds, len(f.bodies))
	var parents [MaxParents]ID
	for i := range f.bodies {
		b := &f.bodies[i]
		o := s.objects[i]
		if o.num == 0 {
			c.counters.objects++
			o.num = c.counters.objects
			c.u.add(SetObjects, o.id, Value{A: o.num})
		}
		r := ref{
			id: f.batch.Changes[i], clock: f.batch.Clock, batch: f.id.Prefix(), at: at, chain: c.chain.num,
			off: b.off, size: b.size, crc: crc32.Checksum(f.raw[b.off:b.end()], castagnoli), place: uint16(i),
		}
		for k := range int(b.parents) {
			parents[k] = b.parent(f.raw, k)
		}
		n, err := g.with(o, &r, parents[:b.parents], counts, &c.u)
		if err != nil {
			return err
		}
		c.objects[i] = n
		c.u.putObject(n)
		c.u.add(SetChanges, r.id, Value{packAt(n.num, r.chain), r.clock})
	}
	return nil
}

// uncovered returns the frontier after a batch with vector v was added at the end of a chain.
func (g *Graph) uncovered(v vector, added uint32) []uint32 {
	out := make([]uint32, 0, len(g.frontier)+1)
	for _, n := range g.frontier {
		if v.at(n) < g.chains[n].counted.clock {
			out = append(out, n)
		}
	}
	return append(out, added)
}

// setChain replaces or adds a chain.
func (g *Graph) setChain(c *chain) {
	if int(c.num) == len(g.chains) {
		g.addChain(c)
		return
	}
	g.chains[c.num] = c
}
