package list

import (
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// Verify proves the list from its root on: everything is read anew from the store and judged as if it came from a
// stranger. It returns the first fault, with the batch it is in.
func (l *List) Verify() error {
	p := newList(l.space)
	err := l.graph.Batches(func(b *dag.Batch, bodies [][]byte) error {
		if err := p.prove(b, bodies); err != nil {
			return fmt.Errorf("acl: batch %s: %w", b.ID(), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if p.root == nil {
		return errors.New("acl: the store holds no record")
	}
	if len(p.order) < len(l.order) {
		return fmt.Errorf("acl: the store holds %d records of %d", len(p.order), len(l.order))
	}
	return nil
}

// prove checks one batch whose past was proved, and takes it in.
func (l *List) prove(b *dag.Batch, bodies [][]byte) error {
	if b.Space != l.space {
		return dag.ErrSpace
	}
	if !b.Verify() {
		return ErrSignature
	}
	clock := uint64(0)
	for _, id := range past(b) {
		n := l.nodes[id]
		if n == nil {
			return fmt.Errorf("%w: it names %s, which is not there", ErrDenied, id)
		}
		clock = max(clock, n.pos.Clock)
	}
	if b.Clock != clock+1 {
		return fmt.Errorf("%w: clock %d after %d", ErrDenied, b.Clock, clock)
	}
	if len(bodies) != len(b.Changes) {
		return fmt.Errorf("%w: it links %d records and holds %d", ErrFormat, len(b.Changes), len(bodies))
	}
	changes := make([]*dag.Change, len(bodies))
	for i := range bodies {
		c, err := dag.DecodeChange(bodies[i])
		if err != nil {
			return err
		}
		if dag.Sum(bodies[i]) != b.Changes[i] || c.Clock != b.Clock || c.Device != b.Device {
			return fmt.Errorf("%w: the record is not the one that its batch links", ErrDenied)
		}
		changes[i] = c
	}
	if err := l.Accept(b, changes); err != nil {
		return err
	}
	l.insert(b)
	return nil
}

// Export calls fn with the frame of each batch of the list, those of its past before it.
func (l *List) Export(fn func(frame []byte) error) error {
	return l.graph.Batches(func(b *dag.Batch, bodies [][]byte) error { return fn(dag.EncodeFrame(b, bodies)) })
}

// Import takes a frame in that Export gave, its past first. One that is held already is passed over.
func (l *List) Import(frame []byte) error {
	r, err := l.graph.Ingest(frame)
	if err != nil {
		return err
	}
	if r.Status == dag.Pending {
		return fmt.Errorf("acl: record %s comes before %d that it names", r.ID, len(r.Missing))
	}
	return nil
}
