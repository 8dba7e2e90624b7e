package dag

import (
	"fmt"
	"slices"
)

// step is a batch on its way into the graph: what check found and apply needs.
type step struct {
	f       *parsed
	prev    known  // zero in the first batch of a feed
	past    vector // of what the batch names
	objects []*object
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// check finds whether f is valid: by its bytes and its past alone, so that everybody finds the same. Where not all that it
// names is held, it returns what is missing.
func (g *Graph) check(f *parsed) (*step, []ID, error) {
	s := &step{f: f}
	var missing []ID
	var clock uint64
	named := f.batch.named()
	found := make([]known, 0, len(named))
	for _, id := range named {
		k, ok, err := g.find(id)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			missing = append(missing, id)
			continue
		}
		clock = max(clock, k.clock)
		found = append(found, k)
	}
	if len(missing) > 0 {
		return s, missing, nil
	}
	if f.batch.Clock != clock+1 {
		return nil, nil, invalid("clock %d behind a past that ends at %d", f.batch.Clock, clock)
	}
	if !f.batch.Prev.IsZero() {
		s.prev = found[0]
		if err := g.checkPrev(f.batch, s.prev); err != nil {
			return nil, nil, err
		}
	}
	for _, k := range found {
		v, err := g.vectorOf(k)
		if err != nil {
			return nil, nil, err
		}
		if s.past == nil {
			s.past = append(make(vector, 0, len(g.chains)+1), v...)
			continue
		}
		s.past = s.past.join(v)
	}
	return s, nil, g.checkChanges(s)
}

func (g *Graph) checkPrev(b *Batch, prev known) error {
	h, err := g.headAt(prev.at)
	switch {
	case err != nil:
		return err
	case h.batch.Device != b.Device || h.batch.Account != b.Account:
		return invalid("prev is another device's or account's")
	case h.batch.Seq+1 != b.Seq:
		return invalid("seq %d behind %d", b.Seq, h.batch.Seq)
	}
	return nil
}

// checkChanges looks up the objects, and finds whether all parents lie in the past.
func (g *Graph) checkChanges(s *step) error {
	f := s.f
	s.objects = make([]*object, len(f.bodies))
	for i := range f.bodies {
		b := &f.bodies[i]
		id := f.objectID(i)
		o, err := g.objectOf(id)
		if err != nil {
			return err
		}
		if o == nil {
			o = &object{id: id}
		}
		s.objects[i] = o
		for k := range int(b.parents) {
			in, err := g.parentIn(o, b.parent(f.raw, k), s.past)
			if err != nil {
				return err
			}
			if !in {
				return invalid("a parent of change %d is not in its past", i)
			}
		}
	}
	return nil
}

// objectID returns the object of the change at a place: of a root its own ID.
func (f *parsed) objectID(i int) ID {
	if f.bodies[i].kind == rootBody {
		return f.batch.Changes[i]
	}
	return f.bodies[i].object(f.raw)
}

// checkAlone finds what is wrong with a batch whatever its past: it may hold one change of an object.
func (f *parsed) checkAlone() error {
	if len(f.bodies) < 2 {
		return nil
	}
	ids := make([]ID, 0, len(f.bodies))
	for i := range f.bodies {
		if f.bodies[i].kind != forgottenBody {
			ids = append(ids, f.objectID(i))
		}
	}
	slices.SortFunc(ids, ID.Compare)
	for i := 1; i < len(ids); i++ {
		if ids[i-1] == ids[i] {
			return invalid("two changes of one object")
		}
	}
	return nil
}

// parentIn reports whether a change of the object is linked by a batch in the past.
func (g *Graph) parentIn(o *object, id ID, past vector) (bool, error) {
	isIn := func(r *ref) bool { return r.id == id && past.at(r.chain) >= r.clock }
	for i := range o.heads {
		if isIn(&o.heads[i]) {
			return true, nil
		}
	}
	for i := range o.tail {
		if isIn(&o.tail[i]) {
			return true, nil
		}
	}
	if o.total == uint64(len(o.tail)) {
		return false, nil
	}
	var buf [4]Value
	vs, err := g.store.Find(SetChanges, id.Prefix(), buf[:0])
	if err != nil {
		return false, err
	}
	for _, v := range vs {
		num, chain := unpackAt(v.A)
		if num != o.num || past.at(chain) < v.B {
			continue
		}
		if _, ok, err := g.refOf(o, v.B, isIn); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
