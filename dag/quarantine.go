package dag

import (
	"encoding/binary"
	"slices"
)

// held is a batch that does not count by itself: it is in the log and in the logs of its objects, where readers skip it
// while it is in quarantine.
type held struct {
	chain uint32
	clock uint64
	bytes uint32
	state heldState
}

type heldState byte

const (
	heldBack heldState = iota // its verdict is Quarantine
	unnamed                   // its verdict is CountsIfNamed, and no batch that counts names it: in quarantine
	raised                    // one does: it counts
)

func (u *Update) putHeld(at uint64, h held) {
	p := binary.AppendUvarint(make([]byte, 0, 20), uint64(h.chain))
	p = binary.AppendUvarint(p, h.clock)
	p = binary.AppendUvarint(p, uint64(h.bytes))
	u.put(TableQuarantine, key64(at), append(p, byte(h.state)))
}

// heldSet is the batches that do not count by themselves, by position. A set is replaced, not changed, but by the arrival
// of a batch.
type heldSet map[uint64]held

// hides reports whether a batch is in quarantine.
func (q heldSet) hides(at uint64) bool {
	h, in := q[at]
	return in && h.state != raised
}

func (g *Graph) loadQuarantine() error {
	for from := uint64(0); ; {
		k, v, err := g.store.Ceil(TableQuarantine, key64(from))
		if err != nil || k == nil {
			return err
		}
		d := decoder{b: v}
		h := held{chain: uint32(d.uvarint()), clock: d.uvarint(), bytes: uint32(d.uvarint()), state: heldState(d.take(1)[0])}
		if err := d.err("quarantine"); err != nil || len(k) != 8 || int(h.chain) >= len(g.chains) || h.state > raised {
			return errIndex("quarantine")
		}
		at := binary.BigEndian.Uint64(k)
		g.held[at] = h
		from = at + 1
	}
}

// Quarantined returns the batches that are held and do not count, in the order in which they came.
func (g *Graph) Quarantined() ([]ID, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	ats := make([]uint64, 0, len(g.held))
	for at := range g.held {
		if g.held.hides(at) {
			ats = append(ats, at)
		}
	}
	slices.Sort(ats)
	ids := make([]ID, len(ats))
	for i, at := range ats {
		h, err := g.headAt(at)
		if err != nil {
			return nil, err
		}
		ids[i] = h.id
	}
	return ids, nil
}

// QuarantineLen is how many batches are held and do not count.
func (g *Graph) QuarantineLen() (n int) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for at := range g.held {
		if g.held.hides(at) {
			n++
		}
	}
	return n
}

// setHeld brings chains, frontier and heads of objects to a new set of batches that do not count by themselves.
func (g *Graph) setHeld(now heldSet, j *Judged) error {
	var u Update
	var changed []uint64 // join or leave the quarantine
	counters := g.counters
	for at, h := range now {
		was, in := g.held[at]
		if !in || was != h {
			u.putHeld(at, h)
		}
		if now.hides(at) && !g.held.hides(at) {
			changed = append(changed, at)
			counters.quarantineBytes += uint64(h.bytes)
		}
	}
	for at, h := range g.held {
		if _, in := now[at]; !in {
			u.put(TableQuarantine, key64(at), nil)
		}
		if g.held.hides(at) && !now.hides(at) {
			changed = append(changed, at)
			counters.quarantineBytes -= uint64(h.bytes)
		}
	}
	slices.Sort(changed)
	chains, frontier, err := g.rechain(now, &u)
	if err != nil {
		return err
	}
	objects, batches, err := g.rehead(now, changed, &u)
	if err != nil {
		return err
	}
	u.putState(counters, frontier)

	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.store.Index(Record{}, &u); err != nil {
		return err
	}
	g.chains, g.frontier, g.held, g.counters = chains, frontier, now, counters
	for _, o := range objects {
		g.objects.put(o.id, o, o.bytes())
	}
	for i, at := range changed {
		if now.hides(at) {
			j.Quarantined = append(j.Quarantined, batches[i].id)
			continue
		}
		j.Counted = append(j.Counted, batches[i].id)
		g.events.add(batches[i])
	}
	return nil
}

// rechain computes the chains and the frontier as they are with what q holds. It has one vector in memory at a time.
func (g *Graph) rechain(q heldSet, u *Update) (chains []*chain, frontier []uint32, err error) {
	chains = make([]*chain, len(g.chains))
	var union vector
	others := make(vector, len(g.chains)) // of each chain the last batch that lies in the past of another chain's last
	for i, c := range g.chains {
		n := *c
		chains[i] = &n
		if n.counted, err = g.lastSpot(c, func(s spot) bool { return !q.hides(s.at) }); err != nil {
			return nil, nil, err
		}
		if n.counted.at == 0 {
			continue
		}
		v, err := g.vectorOf(known{n.counted.at, n.num, n.counted.clock})
		if err != nil {
			return nil, nil, err
		}
		union = union.join(v)
		own := others.at(n.num)
		others = others.join(v)
		others[n.num] = own
	}
	for i, n := range chains {
		if n.shown, err = g.lastSpot(n, func(s spot) bool { return union.at(n.num) >= s.clock }); err != nil {
			return nil, nil, err
		}
		if *n != *g.chains[i] {
			u.put(TableChains, key32(n.num), n.encode())
		}
		if n.counted.at != 0 && others.at(n.num) < n.counted.clock {
			frontier = append(frontier, n.num)
		}
	}
	return chains, frontier, nil
}

// lastSpot returns the last batch of a chain for which ok holds, the zero spot when there is none.
func (g *Graph) lastSpot(c *chain, ok func(spot) bool) (spot, error) {
	s := c.tip
	for !ok(s) {
		if s.seq == 1 {
			return spot{}, nil
		}
		at, err := g.feedAt(c.num, s.seq-1)
		if err != nil || at == 0 {
			return spot{}, err
		}
		h, err := g.headAt(at)
		if err != nil {
			return spot{}, err
		}
		s = spot{id: h.id, seq: h.batch.Seq, clock: h.batch.Clock, at: at}
	}
	return s, nil
}

// rehead computes the heads of the objects that the changed batches touch.
func (g *Graph) rehead(q heldSet, changed []uint64, u *Update) (objects []*object, batches []*Batch, err error) {
	seen := make(map[ID]bool)
	for _, at := range changed {
		rec, err := g.store.Read(at)
		if err != nil {
			return nil, nil, err
		}
		f, err := parseFrame(rec.Frame)
		if err != nil {
			return nil, nil, errCorrupt(at, err)
		}
		batches = append(batches, f.batch)
		for i := range f.bodies {
			id := f.objectID(i)
			if seen[id] {
				continue
			}
			seen[id] = true
			o, err := g.objectOf(id)
			if err != nil || o == nil {
				return nil, nil, errIndex("object of a batch in quarantine")
			}
			n := *o
			if n.heads, err = g.computeHeads(o, q, nil, nil); err != nil {
				return nil, nil, err
			}
			objects = append(objects, &n)
			u.putObject(&n)
		}
	}
	return objects, batches, nil
}

// computeHeads finds an object's heads from its whole log, and one more change where extra is given: of the counted changes
// those that no counted one names. q says what counts.
func (g *Graph) computeHeads(o *object, q heldSet, extra *ref, parents []ID) ([]ref, error) {
	named := make(map[ID]bool)
	var all []ref
	var last ref
	for first := true; ; first = false {
		page, err := g.pageAfter(o, &last, first)
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		page = page[:fitting(page)]
		last = page[len(page)-1]
		page = slices.DeleteFunc(page, func(r ref) bool { return q.hides(r.at) })
		entries, err := g.readEntries(page)
		if err != nil {
			return nil, err
		}
		for i := range entries {
			for _, p := range entries[i].Change.Parents {
				named[p] = true
			}
		}
		all = append(all, page...)
	}
	if extra != nil {
		all = g.insert(all, extra)
		for _, p := range parents {
			named[p] = true
		}
	}
	var heads []ref
	for i := range all {
		if !named[all[i].id] {
			named[all[i].id] = true // a change that two batches link counts at the first
			heads = append(heads, all[i])
		}
	}
	return heads, nil
}
