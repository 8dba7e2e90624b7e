package dag

import (
	"encoding/binary"
	"slices"
)

// held is a batch in quarantine: it is in the log and in the logs of its objects, where readers skip it.
type held struct {
	chain   uint32
	clock   uint64
	bytes   uint32
	ifNamed bool // its verdict is CountsIfNamed
}

func (u *Update) putHeld(at uint64, h held) {
	p := binary.AppendUvarint(make([]byte, 0, 20), uint64(h.chain))
	p = binary.AppendUvarint(p, h.clock)
	p = binary.AppendUvarint(p, uint64(h.bytes))
	flag := byte(0)
	if h.ifNamed {
		flag = 1
	}
	u.put(TableQuarantine, key64(at), append(p, flag))
}

func (g *Graph) loadQuarantine() error {
	for from := uint64(0); ; {
		k, v, err := g.store.Ceil(TableQuarantine, key64(from))
		if err != nil || k == nil {
			return err
		}
		d := decoder{b: v}
		h := held{chain: uint32(d.uvarint()), clock: d.uvarint(), bytes: uint32(d.uvarint()), ifNamed: d.take(1)[0] == 1}
		if err := d.err("quarantine"); err != nil || len(k) != 8 || int(h.chain) >= len(g.chains) {
			return errIndex("quarantine")
		}
		at := binary.BigEndian.Uint64(k)
		g.quarantine[at] = h
		from = at + 1
	}
}

// Quarantined returns the batches that are held and do not count, in the order in which they came.
func (g *Graph) Quarantined() ([]ID, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	ats := make([]uint64, 0, len(g.quarantine))
	for at := range g.quarantine {
		ats = append(ats, at)
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

// Judged says what Rejudge changed: both in no order.
type Judged struct {
	Counted     []ID // they count now
	Quarantined []ID // they count no more
	Result           // of batches that had waited for access records
}

// Rejudge asks the Authorizer again for the batches of the accounts and devices that affects names (nil: of all), and takes
// out of the state what counts no more, and in what counts again. It reads every batch of theirs, and for each batch whose
// verdict changed the logs of its objects. Batches that waited for access records are tried again.
//
// What it did is durable with the store's next checkpoint: after a crash the owner of the access list calls it again for
// what that list then takes up from its own log.
func (g *Graph) Rejudge(affects func(account, device PublicKey) bool) (Judged, error) {
	j, err := g.rejudge(affects)
	g.events.deliver()
	return j, err
}

func (g *Graph) rejudge(affects func(account, device PublicKey) bool) (j Judged, err error) {
	g.write.Lock()
	defer g.write.Unlock()
	doubt := make(map[uint64]held) // batches that do not count by themselves
	for at, h := range g.quarantine {
		if c := g.chains[h.chain]; affects != nil && !affects(c.account, c.device) {
			doubt[at] = h
		}
	}
	tops := make([]uint64, len(g.chains)) // the last batch of each chain that counts by itself
	for _, c := range g.chains {
		if affects != nil && !affects(c.account, c.device) {
			tops[c.num] = c.counted.at
			if h, ok := g.quarantine[c.counted.at]; ok && h.ifNamed {
				tops[c.num] = 0
			}
			continue
		}
		if tops[c.num], err = g.judgeChain(c, doubt); err != nil {
			return j, err
		}
	}
	if err := g.settle(doubt, tops, &j); err != nil {
		return j, err
	}
	return j, g.release(g.pending.waitForACL(), &j.Result)
}

// judgeChain asks for every batch of a chain, and returns the position of the last that counts by itself.
func (g *Graph) judgeChain(c *chain, doubt map[uint64]held) (top uint64, err error) {
	for seq := c.tip.seq; seq > 0; seq-- {
		at, err := g.feedAt(c.num, seq)
		if err != nil {
			return 0, err
		}
		if at == 0 {
			break // what comes before is another chain's
		}
		h, err := g.headAt(at)
		if err != nil {
			return 0, err
		}
		verdict := g.auth.Counts(h.batch)
		if verdict == Counts {
			top = max(top, at)
			continue
		}
		q, ok := g.quarantine[at]
		if !ok {
			rec, err := g.store.ReadHead(at)
			if err != nil {
				return 0, err
			}
			q = held{chain: c.num, clock: h.batch.Clock, bytes: uint32(rec.End - rec.At)}
		}
		q.ifNamed = verdict == CountsIfNamed
		doubt[at] = q
	}
	return top, nil
}

// settle decides which of the doubtful count by being named, and brings the graph to the result.
func (g *Graph) settle(doubt map[uint64]held, tops []uint64, j *Judged) error {
	var union vector
	for n, at := range tops {
		if at == 0 {
			continue
		}
		h, err := g.headAt(at)
		if err != nil {
			return err
		}
		v, err := g.vectorOf(known{at, uint32(n), h.batch.Clock})
		if err != nil {
			return err
		}
		union = union.join(v)
	}
	// What counts only by being named stays in the list of the doubtful that the index keeps when it does not.
	quarantine := make(map[uint64]held)
	var changed []uint64
	for at, h := range doubt {
		if h.ifNamed && union.at(h.chain) >= h.clock {
			continue
		}
		quarantine[at] = h
		if _, was := g.quarantine[at]; !was {
			changed = append(changed, at)
		}
	}
	for at := range g.quarantine {
		if _, is := quarantine[at]; !is {
			changed = append(changed, at)
		}
	}
	slices.Sort(changed)
	return g.setQuarantine(quarantine, changed, j)
}

// raise makes those count that count when named, and lie in the past of a batch that came to count.
func (g *Graph) raise(past vector) error {
	var changed []uint64
	quarantine := g.quarantine
	for at, h := range g.quarantine {
		if !h.ifNamed || past.at(h.chain) < h.clock {
			continue
		}
		if len(changed) == 0 {
			quarantine = make(map[uint64]held, len(g.quarantine))
			for at, h := range g.quarantine {
				quarantine[at] = h
			}
		}
		delete(quarantine, at)
		changed = append(changed, at)
	}
	if len(changed) == 0 && !g.hides(past) {
		return nil
	}
	slices.Sort(changed)
	return g.setQuarantine(quarantine, changed, &Judged{})
}

// hides reports whether a past holds batches in quarantine that are not shown yet.
func (g *Graph) hides(past vector) bool {
	for _, h := range g.quarantine {
		if past.at(h.chain) >= h.clock && g.chains[h.chain].shown.clock < h.clock {
			return true
		}
	}
	return false
}

// setQuarantine brings chains, frontier and heads of objects to a new set of batches in quarantine. changed are those that
// join or leave it.
func (g *Graph) setQuarantine(q map[uint64]held, changed []uint64, j *Judged) error {
	var u Update
	counters := g.counters
	for _, at := range changed {
		if h, in := q[at]; in {
			u.putHeld(at, h)
			counters.quarantineBytes += uint64(h.bytes)
			continue
		}
		u.put(TableQuarantine, key64(at), nil)
		counters.quarantineBytes -= uint64(g.quarantine[at].bytes)
	}
	for at, h := range q {
		if was, ok := g.quarantine[at]; ok && was.ifNamed != h.ifNamed {
			u.putHeld(at, h)
		}
	}
	chains, frontier, err := g.rechain(q, &u)
	if err != nil {
		return err
	}
	objects, batches, err := g.rehead(q, changed, &u)
	if err != nil {
		return err
	}
	u.putState(counters, frontier)

	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.store.Index(Record{}, &u); err != nil {
		return err
	}
	g.chains, g.frontier, g.quarantine, g.counters = chains, frontier, q, counters
	for _, o := range objects {
		g.objects.put(o.id, o, o.bytes())
	}
	for i, at := range changed {
		if _, in := q[at]; in {
			j.Quarantined = append(j.Quarantined, batches[i].id)
			continue
		}
		j.Counted = append(j.Counted, batches[i].id)
		g.events.add(batches[i])
	}
	return nil
}

// rechain computes the chains and the frontier as they are with q in quarantine.
func (g *Graph) rechain(q map[uint64]held, u *Update) (chains []*chain, frontier []uint32, err error) {
	chains = make([]*chain, len(g.chains))
	vectors := make([]vector, len(g.chains))
	var union vector
	for i, c := range g.chains {
		n := *c
		if n.counted, err = g.lastSpot(c, func(s spot) bool { _, in := q[s.at]; return !in }); err != nil {
			return nil, nil, err
		}
		if n.counted.at != 0 {
			if vectors[i], err = g.vectorOf(known{n.counted.at, n.num, n.counted.clock}); err != nil {
				return nil, nil, err
			}
			union = union.join(vectors[i])
		}
		chains[i] = &n
	}
	for i, n := range chains {
		if n.shown, err = g.lastSpot(n, func(s spot) bool { return union.at(n.num) >= s.clock }); err != nil {
			return nil, nil, err
		}
		if *n != *g.chains[i] {
			u.put(TableChains, key32(n.num), n.encode())
		}
		covered := func(v vector) bool { return v.at(n.num) >= n.counted.clock }
		alone := !slices.ContainsFunc(vectors[:i], covered) && !slices.ContainsFunc(vectors[i+1:], covered)
		if n.counted.at != 0 && alone {
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
func (g *Graph) rehead(q map[uint64]held, changed []uint64, u *Update) (objects []*object, batches []*Batch, err error) {
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
			if n.heads, err = g.computeHeads(o, q); err != nil {
				return nil, nil, err
			}
			objects = append(objects, &n)
			u.putObject(&n)
		}
	}
	return objects, batches, nil
}

// computeHeads finds an object's heads from its whole log: of the counted changes those that no counted one names.
func (g *Graph) computeHeads(o *object, q map[uint64]held) ([]ref, error) {
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
		last = page[len(page)-1]
		page = slices.DeleteFunc(page, func(r ref) bool { _, in := q[r.at]; return in })
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
	var heads []ref
	for i := range all {
		if !named[all[i].id] {
			named[all[i].id] = true // a change that two batches link counts at the first
			heads = append(heads, all[i])
		}
	}
	return heads, nil
}
