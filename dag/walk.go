package dag

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"slices"
)

// Batch returns a batch and the encodings of its changes (nil where forgotten), be it in quarantine. ErrNotFound when it is
// not held, ErrCorrupt when it is not what was written.
func (g *Graph) Batch(id ID) (*Batch, [][]byte, error) {
	f, err := g.frameOf(id)
	if err != nil {
		return nil, nil, err
	}
	return f.batch, f.encodings(), nil
}

// Head returns a batch without its changes, which is shared: it is not to be written to. It mostly comes from memory, and costs no more than a read of some hundred bytes;
// these are held against their own checksum. Otherwise it is Batch.
func (g *Graph) Head(id ID) (*Batch, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	k, ok, err := g.find(id)
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	h, err := g.headAt(k.at)
	if err != nil {
		return nil, err
	}
	return h.batch, nil
}

// Frame is Batch with the frame as it goes over the wire. It is held against the checksum that it was written with: whoever gets it verifies it.
func (g *Graph) Frame(id ID) ([]byte, error) {
	rec, err := g.recordOf(id)
	return rec.Frame, err
}

func (g *Graph) frameOf(id ID) (*parsed, error) {
	rec, err := g.recordOf(id)
	if err != nil {
		return nil, err
	}
	return parseRecord(rec)
}

func (g *Graph) recordOf(id ID) (Record, error) {
	g.mu.RLock()
	k, ok, err := g.find(id)
	g.mu.RUnlock()
	if err == nil && !ok {
		err = ErrNotFound
	}
	if err != nil {
		return Record{}, err
	}
	rec, err := g.store.Read(k.at)
	if err == nil && rec.ID != id {
		err = errIndex("it has another batch where this one is to be")
	}
	return rec, err
}

func (g *Graph) frameAt(at uint64) (*parsed, error) {
	rec, err := g.store.Read(at)
	if err != nil {
		return nil, err
	}
	return parseRecord(rec)
}

func parseRecord(rec Record) (*parsed, error) {
	f, err := parseFrame(rec.Frame)
	if err == nil && f.id != rec.ID {
		err = errBody
	}
	if err != nil {
		return nil, errCorrupt(rec.At, err)
	}
	return f, nil
}

// Objects calls fn for each object that has a counted change, in the order in which they came here, until fn returns an
// error, which it returns.
func (g *Graph) Objects(fn func(ID) error) error {
	const atOnce = 256
	ids := make([]ID, 0, atOnce)
	for from := uint64(0); ; {
		var err error
		if ids, from, err = g.someObjects(ids[:0], atOnce, from); err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if err := fn(id); err != nil {
				return err
			}
		}
	}
}

func (g *Graph) someObjects(ids []ID, n int, from uint64) ([]ID, uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for len(ids) < n {
		k, v, err := g.store.Ceil(TableObjects, key64(from))
		if err != nil || k == nil {
			return ids, from, err
		}
		if len(k) != 8 {
			return nil, 0, errIndex("object number")
		}
		num := binary.BigEndian.Uint64(k)
		o, err := decodeObject(num, v)
		if err != nil {
			return nil, 0, err
		}
		if len(o.heads) > 0 {
			ids = append(ids, o.id)
		}
		from = num + 1
	}
	return ids, from, nil
}

// Batches calls fn for all batches that count, in total order (by clock, then ID), with the encodings of their changes,
// until fn returns an error, which it returns. Batches that come in meanwhile are not among them.
func (g *Graph) Batches(fn func(b *Batch, bodies [][]byte) error) error {
	return g.merge(nil, false, func(at uint64) error {
		f, err := g.frameAt(at)
		if err != nil {
			return err
		}
		return fn(f.batch, f.encodings())
	})
}

// Since calls fn for the batches whose positions in the log of the store (Entry.At) are from or higher, in the order in which they
// came, with the encodings of their changes, until fn returns an error, which it returns. end is where the next one may begin. bodies
// is nil for a batch in quarantine. Batches that come in meanwhile are not among them. The position 0 is before all.
func (g *Graph) Since(from uint64, fn func(at, end uint64, b *Batch, bodies [][]byte) error) error {
	g.mu.RLock()
	stop := g.store.Indexed()
	g.mu.RUnlock()
	err := g.store.Walk(from, func(rec Record) error {
		if rec.At >= stop {
			return errStop
		}
		f, err := parseFrame(rec.Frame)
		if err == nil && f.id != rec.ID {
			err = errBody
		}
		if err != nil {
			return errCorrupt(rec.At, err)
		}
		if g.isHeld(rec.At) {
			return fn(rec.At, rec.End, f.batch, nil)
		}
		return fn(rec.At, rec.End, f.batch, f.encodings())
	})
	if err == errStop {
		err = nil
	}
	return err
}

// Position returns where a batch stands in the log of the store (Entry.At); ErrNotFound when it is not held.
func (g *Graph) Position(id ID) (uint64, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	k, ok, err := g.find(id)
	if err == nil && !ok {
		err = ErrNotFound
	}
	return k.at, err
}

// Counts reports whether the batch at a position of the log is no longer, or was never, in quarantine.
func (g *Graph) Counts(at uint64) bool { return !g.isHeld(at) }

// FramesSince calls fn in total order for the frames that a replica with the given tips lacks: of each of our tips' feeds
// and branches what follows the newest of the given ones in it. Tips that are not known here are passed over. They include
// batches in quarantine that lie in the past of one that counts. It ends as Batches does.
func (g *Graph) FramesSince(have []ID, fn func(id ID, frame []byte) error) error {
	past, err := g.pastOf(have)
	if err != nil {
		return err
	}
	return g.merge(past, true, func(at uint64) error {
		rec, err := g.store.Read(at)
		if err != nil {
			return err
		}
		return fn(rec.ID, rec.Frame)
	})
}

// pastOf returns the past of batches, themselves included; those that are not held are passed over. The highest come first: what lies
// in the past of one costs no vector of its own.
func (g *Graph) pastOf(ids []ID) (past vector, err error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	all := make([]known, 0, len(ids))
	for _, id := range ids {
		k, ok, err := g.find(id)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b known) int { return cmp.Compare(b.clock, a.clock) })
	for _, k := range all {
		if past.at(k.chain) >= k.clock {
			continue
		}
		v, err := g.vectorOf(k)
		if err != nil {
			return nil, err
		}
		past = past.join(v)
	}
	return past, nil
}

// cursor walks one chain towards its end.
type cursor struct {
	chain uint32
	seq   uint64
	last  uint64 // seq of the last to give
	at    uint64
	head  *head
}

type cursors []*cursor

func (c cursors) Len() int { return len(c) }
func (c cursors) Less(i, j int) bool {
	a, b := c[i].head, c[j].head
	if a.batch.Clock != b.batch.Clock {
		return a.batch.Clock < b.batch.Clock
	}
	return a.id.Compare(b.id) < 0
}
func (c cursors) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)   { *c = append(*c, x.(*cursor)) }
func (c *cursors) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// merge gives the positions of the batches of all chains that are not in the past, in total order. With shown it includes
// those in quarantine that are passed on. Each chain is in order already, so it costs memory for one batch of each.
func (g *Graph) merge(past vector, shown bool, fn func(at uint64) error) error {
	all, err := g.cursors(past, shown)
	if err != nil {
		return err
	}
	heap.Init(&all)
	for len(all) > 0 {
		c := all[0]
		if shown || !g.isHeld(c.at) {
			if err := fn(c.at); err != nil {
				return err
			}
		}
		more, err := g.advance(c)
		if err != nil {
			return err
		}
		if more {
			heap.Fix(&all, 0)
		} else {
			heap.Pop(&all)
		}
	}
	return nil
}

func (g *Graph) isHeld(at uint64) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.held.hides(at)
}

// cursors puts one cursor on the first batch of each chain that is not in the past.
func (g *Graph) cursors(past vector, shown bool) (cursors, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var all cursors
	for _, c := range g.chains {
		end := c.counted
		if shown {
			end = c.shown
		}
		if end.at == 0 || past.at(c.num) >= end.clock {
			continue
		}
		seq, err := g.firstAbove(c, end.seq, past.at(c.num))
		if err != nil {
			return nil, err
		}
		cur := &cursor{chain: c.num, seq: seq, last: end.seq}
		if err := g.place(cur); err != nil {
			return nil, err
		}
		all = append(all, cur)
	}
	return all, nil
}

// firstAbove finds the first seq of a chain, up to end, whose batch has a clock above the given one.
func (g *Graph) firstAbove(c *chain, end, clock uint64) (uint64, error) {
	lo, hi := uint64(1), end // the answer lies in [lo, hi]
	for lo < hi {
		mid := (lo + hi) / 2
		at, err := g.feedAt(c.num, mid)
		if err != nil {
			return 0, err
		}
		above := false
		if at != 0 { // a branch has nothing before its fork
			h, err := g.headAt(at)
			if err != nil {
				return 0, err
			}
			above = h.batch.Clock > clock
		}
		if above {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, nil
}

func (g *Graph) place(c *cursor) (err error) {
	if c.at, err = g.feedAt(c.chain, c.seq); err != nil {
		return err
	}
	if c.at == 0 {
		return errIndex("hole in a feed")
	}
	c.head, err = g.headAt(c.at)
	return err
}

func (g *Graph) advance(c *cursor) (bool, error) {
	if c.seq == c.last {
		return false, nil
	}
	c.seq++
	g.mu.RLock()
	defer g.mu.RUnlock()
	return true, g.place(c)
}

// CountSince returns how many frames FramesSince would give, without reading them.
func (g *Graph) CountSince(have []ID) (n uint64, err error) {
	past, err := g.pastOf(have)
	if err != nil {
		return 0, err
	}
	return g.countAbove(past)
}

func (g *Graph) countAbove(past vector) (n uint64, err error) {
	all, err := g.cursors(past, true)
	for _, c := range all {
		n += c.last - c.seq + 1
	}
	return n, err
}

// FeedsAt returns what a replica holds that is known to hold a batch with the given seq of each of the given feeds: the batch
// with this seq or, where fewer are here, the last; one of each branch.
func (g *Graph) FeedsAt(seqs map[ID]uint64) (ids []ID, err error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, c := range g.chains {
		seq, ok := seqs[c.feed]
		if !ok || c.shown.at == 0 {
			continue
		}
		if seq >= c.shown.seq {
			ids = append(ids, c.shown.id)
			continue
		}
		at, err := g.feedAt(c.num, seq)
		if err != nil {
			return nil, err
		}
		if at == 0 {
			continue // a branch that begins later
		}
		h, err := g.headAt(at)
		if err != nil {
			return nil, err
		}
		ids = append(ids, h.id)
	}
	return ids, nil
}
