package dag

import "hash/crc32"

// Change returns a counted change by its ID; ErrNotFound when there is none.
func (g *Graph) Change(id ID) (Entry, error) {
	g.mu.RLock()
	r, _, err := g.locate(id)
	g.mu.RUnlock()
	if err != nil {
		return Entry{}, err
	}
	return g.entry(&r)
}

// locate finds where a change counts.
func (g *Graph) locate(id ID) (best ref, in *object, err error) {
	var buf [4]Value
	vs, err := g.store.Find(SetChanges, id.Prefix(), buf[:0])
	if err != nil {
		return ref{}, nil, err
	}
	for _, v := range vs {
		num, chain := unpackAt(v.A)
		o, err := g.objectByNumber(num)
		if err != nil {
			return ref{}, nil, err
		}
		r, ok, err := g.refOf(o, v.B, func(r *ref) bool { return r.id == id && r.chain == chain })
		if err != nil {
			return ref{}, nil, err
		}
		if !ok || g.held.hides(r.at) {
			continue
		}
		if in == nil || g.compare(&r, &best) < 0 {
			best, in = r, o
		}
	}
	if in == nil {
		return ref{}, nil, ErrNotFound
	}
	return best, in, nil
}

func (g *Graph) entry(r *ref) (Entry, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	es, err := g.readEntries([]ref{*r})
	if err != nil {
		return Entry{}, err
	}
	if len(es) == 0 {
		return Entry{}, ErrForgotten
	}
	return es[0], nil
}

// headGuess is read of a batch whose head is not in the cache: most heads are shorter.
const headGuess = 448

// readEntries reads the bodies of refs with as few reads as the store can. Forgotten ones are left out.
func (g *Graph) readEntries(refs []ref) ([]Entry, error) {
	spans := make([]Span, len(refs), 2*len(refs))
	heads := make([]*head, len(refs))
	for i := range refs {
		r := &refs[i]
		spans[i] = Span{At: r.at, Off: r.off, Len: r.size}
		if h, ok := g.headsAt.get(r.at); ok {
			heads[i] = h
			continue
		}
		spans = append(spans, Span{At: r.at, Len: min(r.off, headGuess), Head: true})
	}
	if err := g.store.ReadSpans(spans); err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(refs))
	changes := make([]Change, len(refs))
	next := len(refs)
	for i := range refs {
		r := &refs[i]
		if heads[i] == nil {
			h, err := g.headOfSpan(&spans[next])
			if err != nil {
				return nil, err
			}
			heads[i] = h
			next++
		}
		b := heads[i].batch
		if crc32.Checksum(spans[i].Data, castagnoli) != r.crc {
			return nil, errCorrupt(r.at, errBody)
		}
		ok, err := parseBody(&changes[i], spans[i].Data, b)
		if err != nil {
			return nil, errCorrupt(r.at, err)
		}
		if ok {
			pos := Pos{Clock: r.clock, Batch: heads[i].id, Place: uint32(r.place)}
			entries = append(entries, Entry{ID: r.id, Pos: pos, At: r.at, Change: &changes[i], Batch: b})
		}
	}
	return entries, nil
}

func (g *Graph) headOfSpan(s *Span) (*head, error) {
	if s.Data == nil {
		return g.headAt(s.At)
	}
	return g.keepHead(s.At, s.ID, s.Data)
}
