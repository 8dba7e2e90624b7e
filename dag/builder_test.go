package dag_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestBatchFull: 1,000 changes or 1 MiB, whichever comes first; and what a builder makes is accepted elsewhere.
func TestBatchFull(t *testing.T) {
	for _, payload := range []int{1, 3000} {
		g, to := newGraph(t), newGraph(t)
		b, err := g.Begin(author(1), nil, dag.ID{})
		must(t, err)
		n, total := 0, 0
		for {
			_, err := b.Add(dag.ID{}, func(dag.Header) ([]byte, error) {
				return append(fmt.Appendf(nil, "%06d", n), make([]byte, payload)...), nil
			})
			if errors.Is(err, dag.ErrBatchFull) {
				break
			}
			must(t, err)
			n++
		}
		var changes int
		if changes, total = b.Len(); changes != n || total > dag.MaxBytes || n < 1000 && total < dag.MaxBytes-2*payload-200 {
			t.Fatal(changes, n, total)
		}
		batch, err := b.Commit()
		must(t, err)
		if batch.ID() != dag.Sum(batch.Encode()) {
			t.Fatal("the ID is not the hash of the encoding")
		}
		if res := send(t, g, to, batch.ID()); res.Status != dag.Accepted || res.ID != batch.ID() {
			t.Fatal(res)
		}
		must(t, to.Verify(nil))
	}
}

func TestBuilderMisuse(t *testing.T) {
	g := newGraph(t)
	b, err := g.Begin(author(1), nil, dag.ID{})
	must(t, err)
	id, err := b.Add(dag.ID{}, plain("x"))
	must(t, err)
	if _, err := b.Add(id, plain("y")); err == nil {
		t.Error("a second change of an object")
	}
	if _, err := b.Add(dag.ID{}, plain("x")); err == nil {
		t.Error("the same root twice")
	}
	failed := errors.New("no key")
	if _, err := b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	if n, _ := b.Len(); n != 1 {
		t.Error(n)
	}
	_, err = b.Commit()
	must(t, err)
	b.Abort()
	if _, err := b.Commit(); !errors.Is(err, dag.ErrClosed) {
		t.Error(err)
	}
	if _, err := b.Add(id, plain("z")); !errors.Is(err, dag.ErrClosed) {
		t.Error(err)
	}

	b, err = g.Begin(author(1), nil, dag.ID{})
	must(t, err)
	if _, err := b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return make([]byte, dag.MaxBytes+1), nil }); !errors.Is(err, dag.ErrFormat) {
		t.Error(err)
	}
	if _, err := b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return make([]byte, dag.MaxBytes-10), nil }); !errors.Is(err, dag.ErrFormat) {
		t.Error(err)
	}
	if b.Clock() != 2 {
		t.Error(b.Clock())
	}
	if _, err := b.Commit(); err == nil {
		t.Error("a batch without changes")
	}
	if _, err := g.Begin(author(1), []dag.ID{{2}, {1}}, dag.ID{}); err == nil {
		t.Error("access heads not sorted")
	}
	b, err = g.Begin(author(1), nil, dag.ID{}) // nothing of the above keeps the graph locked
	must(t, err)
	b.Abort()
}

func TestHeader(t *testing.T) {
	g := newGraph(t)
	_, ids := put(t, g, author(1), "root ", dag.ID{})
	epoch := dag.Sum([]byte("epoch"))
	acl := []dag.ID{dag.Sum([]byte("acl"))}
	b, err := g.Begin(author(2), acl, epoch)
	must(t, err)
	var h dag.Header
	_, err = b.Add(ids[0], func(got dag.Header) ([]byte, error) { h = got; return nil, nil })
	must(t, err)
	batch, err := b.Commit()
	must(t, err)
	if h.Space != space || h.Object != ids[0] || len(h.Parents) != 1 || h.Parents[0] != ids[0] || h.Epoch != epoch ||
		h.Clock != 2 || h.Device != author(2).Device {
		t.Fatalf("%+v", h)
	}
	if batch.Epoch != epoch || len(batch.ACL) != 1 || batch.ACL[0] != acl[0] || !bytes.Equal(batch.Deps[0][:], g.Tips()[0].Batch[:]) {
		t.Fatalf("%+v", batch)
	}
}

// TestJoin: a frontier and heads of more than 64 are joined 64 at a time.
func TestJoin(t *testing.T) {
	const n = 150
	root := newGraph(t)
	first, ids := put(t, root, author(0), "root ", dag.ID{})
	g := newGraph(t)
	send(t, root, g, first.ID())
	for i := range n {
		h := newGraph(t)
		send(t, root, h, first.ID())
		b, _ := put(t, h, author(i+1), fmt.Sprint(i), ids[0])
		send(t, h, g, b.ID())
	}
	if len(g.Heads()) != n || len(g.ObjectHeads(ids[0])) != n {
		t.Fatal(len(g.Heads()))
	}
	b, _ := put(t, g, author(0), "join", ids[0])
	if len(g.Heads()) != 1 || g.Heads()[0] != b.ID() {
		t.Fatal(len(g.Heads()))
	}
	if got := len(g.ObjectHeads(ids[0])); got != n-64+1 {
		t.Fatal(got)
	}
	e, err := g.Change(b.Changes[0])
	must(t, err)
	// Its parents are the highest in total order.
	lowest := dag.Pos{Clock: 1 << 40}
	for _, p := range e.Change.Parents {
		pe, err := g.Change(p)
		must(t, err)
		if pe.Pos.Compare(lowest) < 0 {
			lowest = pe.Pos
		}
	}
	for _, h := range g.ObjectHeads(ids[0]) {
		he, err := g.Change(h)
		must(t, err)
		if h != e.ID && he.Pos.Compare(lowest) > 0 {
			t.Fatal("a higher head is no parent")
		}
	}
	// Elsewhere the same comes in.
	to := newGraph(t)
	must(t, g.FramesSince(nil, func(_ dag.ID, f []byte) error {
		res, err := to.Ingest(f)
		if err == nil && res.Status != dag.Accepted {
			err = fmt.Errorf("%+v", res)
		}
		return err
	}))
	if to.Heads()[0] != b.ID() {
		t.Fatal(to.Heads())
	}
	for range 3 {
		put(t, g, author(0), "join", ids[0])
	}
	if len(g.ObjectHeads(ids[0])) != 1 {
		t.Fatal(len(g.ObjectHeads(ids[0])))
	}
	must(t, g.Verify(nil))
}
