package dag_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// author returns the n-th test author: account and device from fixed seeds.
func author(n int) dag.Author {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	key := ed25519.NewKeyFromSeed(seed[:])
	a := dag.Author{Key: key, Account: dag.PublicKey(dag.Sum(seed[:]))}
	copy(a.Device[:], key.Public().(ed25519.PublicKey))
	return a
}

var space = dag.Sum([]byte("space"))

func newGraph(t testing.TB) *dag.Graph {
	t.Helper()
	g, err := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func plain(s string) func(dag.Header) ([]byte, error) {
	return func(dag.Header) ([]byte, error) { return []byte(s), nil }
}

// put makes a batch with a change of each of the objects and returns the IDs of the changes.
func put(t testing.TB, g *dag.Graph, a dag.Author, payload string, objects ...dag.ID) (*dag.Batch, []dag.ID) {
	t.Helper()
	b, err := g.Begin(a, nil, dag.ID{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []dag.ID
	for i, o := range objects {
		id, err := b.Add(o, plain(payload+string(rune('a'+i))))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	batch, err := b.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return batch, ids
}

func send(t testing.TB, from, to *dag.Graph, id dag.ID) dag.Result {
	t.Helper()
	frame, err := from.Frame(id)
	if err != nil {
		t.Fatal(err)
	}
	res, err := to.Ingest(frame)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func payloads(t testing.TB, g *dag.Graph, object dag.ID) (out []string) {
	t.Helper()
	if err := g.Changes(object, func(e dag.Entry) error {
		out = append(out, string(e.Change.Payload))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTwoReplicas(t *testing.T) {
	g, h := newGraph(t), newGraph(t)
	first, ids := put(t, g, author(0), "root ", dag.ID{}, dag.ID{})
	object := ids[0]
	second, _ := put(t, g, author(0), "second ", object)
	if first.Clock != 1 || second.Clock != 2 || second.Seq != 2 || second.Prev != first.ID() || len(second.Deps) != 0 {
		t.Fatalf("first %+v second %+v", first, second)
	}
	if res := send(t, g, h, second.ID()); res.Status != dag.Pending || len(res.Missing) != 1 || res.Missing[0] != first.ID() {
		t.Fatalf("%+v", res)
	}
	if res := send(t, g, h, first.ID()); res.Status != dag.Accepted || len(res.Released) != 1 {
		t.Fatalf("%+v", res)
	}
	if res := send(t, g, h, first.ID()); res.Status != dag.Duplicate {
		t.Fatalf("%+v", res)
	}
	// Both write at once, and then each other's.
	x, _ := put(t, g, author(0), "x ", object)
	y, _ := put(t, h, author(1), "y ", object)
	if res := send(t, g, h, x.ID()); res.Status != dag.Accepted {
		t.Fatalf("%+v", res)
	}
	if res := send(t, h, g, y.ID()); res.Status != dag.Accepted {
		t.Fatalf("%+v", res)
	}
	if a, b := g.Heads(), h.Heads(); len(a) != 2 || a[0] != b[0] || a[1] != b[1] {
		t.Fatal(a, b)
	}
	if a, b := g.ObjectHeads(object), h.ObjectHeads(object); len(a) != 2 || a[0] != b[0] || a[1] != b[1] {
		t.Fatal(a, b)
	}
	a, b := payloads(t, g, object), payloads(t, h, object)
	if len(a) != 4 || len(b) != 4 || a[2] != b[2] {
		t.Fatal(a, b)
	}
	z, _ := put(t, h, author(1), "z ", object)
	if z.Clock != 4 || len(z.Deps) != 1 || z.Deps[0] != x.ID() || z.Seq != 2 {
		t.Fatalf("%+v", z)
	}
	if len(h.Heads()) != 1 || len(h.ObjectHeads(object)) != 1 || len(h.Tips()) != 2 {
		t.Fatal(h.Heads(), h.Tips())
	}
}

func TestEncodings(t *testing.T) {
	g := newGraph(t)
	b, ids := put(t, g, author(0), "root ", dag.ID{}, dag.ID{}, dag.Sum([]byte("fixed")))
	put(t, g, author(0), "more ", ids[0])
	got, bodies, err := g.Batch(b.ID())
	if err != nil {
		t.Fatal(err)
	}
	back, err := dag.DecodeBatch(got.Encode())
	if err != nil || !bytes.Equal(back.Encode(), b.Encode()) || !back.Verify() {
		t.Fatal(err, back)
	}
	for i, p := range bodies {
		c, err := dag.DecodeChange(p)
		if err != nil || !bytes.Equal(c.Encode(), p) || c.ID() != ids[i] || got.Changes[i] != ids[i] {
			t.Fatal(i, err, c)
		}
	}
	frame, err := g.Frame(b.ID())
	if err != nil || !bytes.Equal(frame, dag.EncodeFrame(got, bodies)) {
		t.Fatal(err)
	}
	if _, _, err := g.Batch(ids[0]); !errors.Is(err, dag.ErrNotFound) {
		t.Fatal(err)
	}
	e, err := g.Change(ids[0])
	if err != nil || e.ID != ids[0] || e.Pos.Batch != b.ID() || string(e.Change.Payload) != "root a" {
		t.Fatal(err, e)
	}
}
