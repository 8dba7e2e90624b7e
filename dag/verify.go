package dag

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Verify reads the whole log and holds the index against it: every frame, ID and signature, what each batch names and its
// clock, the parents and heads of every object. report is called for each thing that is wrong, with an error that matches
// ErrCorrupt; nil returns the first one instead. It goes beside other work; ctx ends it.
func (g *Graph) Verify(report func(error)) error {
	return g.VerifyContext(context.Background(), report, nil)
}

// VerifyContext is Verify that ends with ctx, and tells how many batches it has looked at.
func (g *Graph) VerifyContext(ctx context.Context, report func(error), progress func(done, total uint64)) error {
	if report == nil {
		var first error
		err := g.VerifyContext(ctx, func(err error) {
			if first == nil {
				first = err
			}
		}, progress)
		if first != nil {
			return first
		}
		return err
	}
	total, _, _ := g.Counters()
	done := uint64(0)
	verify := func(rec Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := g.verifyRecord(rec); err != nil {
			report(errCorrupt(rec.At, err))
		}
		if done++; progress != nil {
			progress(done, max(total, done))
		}
		return nil
	}
	end := uint64(0) // of what was walked
	err := g.store.Walk(0, func(rec Record) error {
		end = rec.End
		return verify(rec)
	})
	if errors.Is(err, ErrCorrupt) {
		// A walk ends at damage. What lies behind it is where the index says.
		err = g.verifyBehind(end, err, verify, report)
	}
	if err != nil {
		return err
	}
	return g.Objects(func(id ID) error {
		if err := g.verifyObject(id); err != nil {
			report(fmt.Errorf("%w: object %s: %w", ErrCorrupt, id, err))
		}
		return ctx.Err()
	})
}

// verifyBehind verifies the records from a position on that the index knows. damage is reported where none of them has any.
func (g *Graph) verifyBehind(from uint64, damage error, verify func(Record) error, report func(error)) error {
	ats, err := g.positions(from)
	if err != nil {
		return err
	}
	found := false
	for _, at := range ats {
		rec, err := g.store.Read(at)
		switch {
		case err == nil:
			err = verify(rec)
		case errors.Is(err, ErrCorrupt):
			found = true
			report(err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if !found {
		report(damage)
	}
	return nil
}

// positions lists where the batches lie that the index knows, from a position on, in order.
func (g *Graph) positions(from uint64) (ats []uint64, err error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, c := range g.chains {
		for seq := c.tip.seq; seq > 0; seq-- {
			at, err := g.feedAt(c.num, seq)
			if err != nil {
				return nil, err
			}
			if at == 0 {
				break // what comes before is another chain's
			}
			if at >= from {
				ats = append(ats, at)
			}
		}
	}
	slices.Sort(ats)
	return ats, nil
}

func (g *Graph) verifyRecord(rec Record) error {
	f, err := parseFrame(rec.Frame)
	if err != nil {
		return err
	}
	switch {
	case f.id != rec.ID:
		return errors.New("its frame is another batch")
	case f.batch.Space != g.space:
		return ErrSpace
	case !f.batch.Verify():
		return ErrSignature
	}
	if err := f.checkAlone(); err != nil {
		return err
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	k, ok, err := g.find(f.id)
	if err != nil {
		return err
	}
	if !ok || k.at != rec.At || k.clock != f.batch.Clock {
		return errIndex("it has the batch elsewhere")
	}
	_, missing, err := g.check(f)
	if err == nil && len(missing) > 0 {
		err = errIndex("the past of the batch is not held")
	}
	if err != nil {
		return err
	}
	return g.verifyRefs(f, k)
}

// verifyRefs finds each change in the log of its object.
func (g *Graph) verifyRefs(f *parsed, k known) error {
	for i := range f.bodies {
		o, err := g.objectOf(f.objectID(i))
		if err != nil {
			return err
		}
		if o == nil {
			return errIndex(fmt.Sprintf("it lacks the object of change %d", i))
		}
		b := &f.bodies[i]
		r, ok, err := g.refOf(o, f.batch.Clock, func(r *ref) bool { return r.at == k.at })
		if err != nil {
			return err
		}
		if !ok || r.id != f.batch.Changes[i] || r.off != b.off || r.size != b.size || int(r.place) != i || r.chain != k.chain {
			return errIndex(fmt.Sprintf("it has change %d elsewhere", i))
		}
	}
	return nil
}

// verifyObject computes an object's heads from its log.
func (g *Graph) verifyObject(id ID) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	o, err := g.objectOf(id)
	if err != nil || o == nil {
		return errors.Join(err, errIndex("it lacks the object"))
	}
	heads, err := g.computeHeads(o, g.held, nil, nil)
	if err != nil {
		return err
	}
	if len(heads) != len(o.heads) {
		return errIndex(fmt.Sprintf("%d heads, not %d", len(o.heads), len(heads)))
	}
	for i := range heads {
		if heads[i] != o.heads[i] {
			return errIndex(fmt.Sprintf("head %s, not %s", o.heads[i].id, heads[i].id))
		}
	}
	return nil
}
