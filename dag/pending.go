package dag

import "slices"

// pending holds batches that wait for what they name, oldest first, up to a number of bytes. Where it is full the oldest
// goes: what it needs will be asked for again with it.
type pending struct {
	limit, bytes int
	byID         map[ID]*waiting
	waitFor      map[ID][]*waiting // by what is missing
	order        []*waiting        // as they came; those that have left have a nil frame
}

type waiting struct {
	f       *parsed
	missing []ID
	acl     bool // what is missing are access records
}

func (p *pending) init(limit int) {
	p.limit = limit
	p.byID = make(map[ID]*waiting)
	p.waitFor = make(map[ID][]*waiting)
}

// What a waiting batch takes of memory besides its frame, in bytes.
const (
	waitingCost = 800 // of its own: the structures, its place in the maps
	missingCost = 180 // of each batch that it waits for: its ID, and the entry under it
	linkCost    = 32  // of each batch or record that it names
	bodyCost    = 48  // of each change
)

func (w *waiting) bytes() int {
	b := w.f.batch
	return len(w.f.raw) + bodyCost*len(w.f.bodies) + missingCost*len(w.missing) + linkCost*(len(b.Deps)+len(b.ACL)) + waitingCost
}

func (p *pending) add(f *parsed, missing []ID, acl bool) {
	w := &waiting{f: f, missing: missing, acl: acl}
	p.byID[f.id] = w
	for _, id := range missing {
		p.waitFor[id] = append(p.waitFor[id], w)
	}
	p.order = append(p.order, w)
	p.bytes += w.bytes()
	for p.bytes > p.limit && len(p.byID) > 1 {
		p.remove(p.oldest())
	}
	if len(p.order) > 2*len(p.byID)+16 {
		p.order = slices.DeleteFunc(p.order, func(w *waiting) bool { return w.f == nil })
	}
}

func (p *pending) oldest() *waiting {
	for p.order[0].f == nil {
		p.order = p.order[1:]
	}
	return p.order[0]
}

func (p *pending) remove(w *waiting) {
	p.bytes -= w.bytes()
	delete(p.byID, w.f.id)
	for _, id := range w.missing {
		p.waitFor[id] = slices.DeleteFunc(p.waitFor[id], func(x *waiting) bool { return x == w })
		if len(p.waitFor[id]) == 0 {
			delete(p.waitFor, id)
		}
	}
	w.f = nil
}

// arrived takes out those that waited for id and now for nothing else.
func (p *pending) arrived(id ID) []*parsed {
	var ready []*parsed
	for _, w := range slices.Clone(p.waitFor[id]) {
		w.missing = slices.DeleteFunc(w.missing, func(m ID) bool { return m == id })
		p.bytes -= missingCost
		if len(w.missing) == 0 {
			ready = append(ready, w.f)
			p.remove(w)
		}
	}
	delete(p.waitFor, id)
	return ready
}

// waitForACL takes out those that wait for access records.
func (p *pending) waitForACL() []*parsed {
	var ready []*parsed
	for _, w := range slices.Clone(p.order) {
		if w.f != nil && w.acl {
			ready = append(ready, w.f)
			p.remove(w)
		}
	}
	return ready
}

// refused takes out all that has id in its past: it can never be accepted.
func (p *pending) refused(id ID) {
	stack := []ID{id}
	for len(stack) > 0 {
		id := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, w := range slices.Clone(p.waitFor[id]) {
			if w.f != nil && !w.acl {
				stack = append(stack, w.f.id)
				p.remove(w)
			}
		}
	}
}
