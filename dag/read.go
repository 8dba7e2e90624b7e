package dag

import (
	"encoding/binary"
	"slices"
)

// ObjectHeads returns the heads of an object, sorted: of its counted changes those that no counted change names. None when
// the object is not known, or the store cannot be read: HeadsOf tells the two apart.
func (g *Graph) ObjectHeads(object ID) []ID {
	ids, _ := g.HeadsOf(object)
	return ids
}

// HeadsOf is ObjectHeads with the store's error.
func (g *Graph) HeadsOf(object ID) ([]ID, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	o, err := g.objectOf(object)
	if o == nil || err != nil {
		return nil, err
	}
	ids := make([]ID, len(o.heads))
	for i := range o.heads {
		ids[i] = o.heads[i].id
	}
	sortIDs(ids)
	return ids, nil
}

// Changes calls fn for the counted changes of an object in total order, until fn returns an error, which it returns.
//
// fn is called with no lock held and may use the graph; changes that arrive meanwhile are seen where they come later in
// the order than the last one given. An object that is not known has none.
func (g *Graph) Changes(object ID, fn func(Entry) error) error {
	return g.forward(object, ref{}, true, fn)
}

// ChangesFrom is Changes from the change `from` on, itself included. ErrNotFound when it is not a counted change of the
// object.
func (g *Graph) ChangesFrom(object, from ID, fn func(Entry) error) error {
	g.mu.RLock()
	r, o, err := g.locate(from)
	g.mu.RUnlock()
	if err != nil {
		return err
	}
	if o.id != object {
		return ErrNotFound
	}
	e, err := g.entry(&r)
	if err != nil {
		return err
	}
	if err := fn(e); err != nil {
		return err
	}
	return g.forward(object, r, false, fn)
}

func (g *Graph) forward(object ID, last ref, first bool, fn func(Entry) error) error {
	for ; ; first = false {
		entries, end, err := g.someAfter(object, &last, first)
		if err != nil {
			return err
		}
		for i := range entries {
			if err := fn(entries[i]); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// someAfter reads the next changes behind *last, or from the start, and moves it.
func (g *Graph) someAfter(object ID, last *ref, first bool) ([]Entry, bool, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	o, err := g.objectOf(object)
	if o == nil || err != nil {
		return nil, true, err
	}
	page, err := g.pageAfter(o, last, first)
	if err != nil || len(page) == 0 {
		return nil, true, err
	}
	page = page[:fitting(page)]
	before := *last
	*last = page[len(page)-1]
	if page, err = g.counted(o, page, before.clock); err != nil {
		return nil, true, err
	}
	entries, err := g.readEntries(page)
	return entries, false, err
}

// counted leaves out of a page what is in quarantine, and changes that an earlier batch linked already: that one has the
// same clock, and stands in the page unless its clock is `before`.
func (g *Graph) counted(o *object, page []ref, before uint64) ([]ref, error) {
	out := page[:0]
	var same map[ID]struct{} // of the clock at hand, where there are several
	for i := range page {
		r := page[i]
		if g.held.hides(r.at) {
			continue
		}
		if n := len(out); n == 0 || out[n-1].clock != r.clock {
			same = nil
		} else if same == nil {
			same = map[ID]struct{}{out[n-1].id: {}}
		}
		_, twice := same[r.id]
		if r.clock == before && !twice {
			first, _, err := g.refOf(o, r.clock, func(x *ref) bool { return x.id == r.id && !g.held.hides(x.at) })
			if err != nil {
				return nil, err
			}
			twice = first.at != r.at
		}
		if twice {
			continue
		}
		out = append(out, r)
		if same != nil {
			same[r.id] = struct{}{}
		}
	}
	return out, nil
}

// readBytes is how much of changes is read at a time: a page of long ones is read piece by piece.
const readBytes = 2 << 20

// fitting returns how many of the first refs, one at least, are read at a time.
func fitting(refs []ref) int {
	n, sum := 0, 0
	for n < len(refs) && (n == 0 || sum+int(refs[n].size) <= readBytes) {
		sum += int(refs[n].size)
		n++
	}
	return n
}

// pageAfter returns some refs that follow *last in the order of the object's log, or its first; none at the end.
func (g *Graph) pageAfter(o *object, last *ref, first bool) ([]ref, error) {
	if o.total > uint64(len(o.tail)) {
		_, page, err := g.logPage(o.num, last.clock, last.batch)
		for err == nil && page != nil {
			if first {
				return page, nil
			}
			if i := slices.IndexFunc(page, func(r ref) bool { return g.compare(&r, last) > 0 }); i >= 0 {
				return page[i:], nil
			}
			end := &page[len(page)-1]
			page, err = g.nextPage(o.num, max(last.clock, end.clock), end.batch)
		}
		if err != nil {
			return nil, err
		}
	}
	i := 0
	for !first && i < len(o.tail) && g.compare(&o.tail[i], last) <= 0 {
		i++
	}
	return slices.Clone(o.tail[i:]), nil
}

// pageBefore returns some refs that precede *last, or the newest; none at the start.
func (g *Graph) pageBefore(o *object, last *ref, first bool) ([]ref, error) {
	n := len(o.tail)
	for !first && n > 0 && g.compare(&o.tail[n-1], last) >= 0 {
		n--
	}
	if n > 0 {
		return slices.Clone(o.tail[:n]), nil
	}
	if o.total == uint64(len(o.tail)) {
		return nil, nil
	}
	clock, batch := uint64(MaxClock), ^uint64(0)
	if !first {
		clock, batch = last.clock, last.batch
	}
	for {
		key, page, err := g.logPage(o.num, clock, batch)
		if err != nil || page == nil {
			return nil, err
		}
		n := len(page)
		for !first && n > 0 && g.compare(&page[n-1], last) >= 0 {
			n--
		}
		if n > 0 {
			return page[:n], nil
		}
		d := decoder{b: key[8:]}
		clock, batch = binary.BigEndian.Uint64(d.take(8)), binary.BigEndian.Uint64(d.take(8))
		if clock == 0 && batch == 0 {
			return nil, nil
		}
		if batch--; batch == ^uint64(0) {
			clock--
		}
	}
}

// ChangesBack calls fn for the counted changes of an object in the reverse of the total order, until fn returns an error,
// which it returns: so a reader finds the newest snapshot without reading what came before it. See Joint.
func (g *Graph) ChangesBack(object ID, fn func(Entry) error) error {
	var last ref
	for first := true; ; first = false {
		page, end, err := g.someBefore(object, &last, first)
		if err != nil || end {
			return err
		}
		slices.Reverse(page)
		for len(page) > 0 {
			n := fitting(page)
			g.mu.RLock()
			entries, err := g.readEntries(page[:n])
			g.mu.RUnlock()
			if err != nil {
				return err
			}
			for i := range entries {
				if err := fn(entries[i]); err != nil {
					return err
				}
			}
			page = page[n:]
		}
	}
}

func (g *Graph) someBefore(object ID, last *ref, first bool) (page []ref, end bool, err error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	o, err := g.objectOf(object)
	if o == nil || err != nil {
		return nil, true, err
	}
	if page, err = g.pageBefore(o, last, first); err != nil || len(page) == 0 {
		return nil, true, err
	}
	// All of a clock together, so that a change which two of them link is known to be the first.
	pages, clock := [][]ref{page}, page[len(page)-1].clock
	for page[0].clock == clock {
		if page, err = g.pageBefore(o, &page[0], false); err != nil {
			return nil, true, err
		}
		if len(page) == 0 {
			break
		}
		pages = append(pages, page)
	}
	slices.Reverse(pages)
	page = slices.Concat(pages...)
	if i := slices.IndexFunc(page, func(r ref) bool { return r.clock != page[0].clock }); i > 0 {
		page = page[i:]
	}
	*last = page[0]
	page, err = g.counted(o, page, 0)
	return page, false, err
}
