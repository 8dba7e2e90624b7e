package dag_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// digest is a machine whose state shows every operation and their order: the hash of all so far. A payload is a byte and,
// where it is a snapshot, a state.
var digest = dag.Machine[dag.ID, byte]{
	New: func() dag.ID { return dag.ID{} },
	Open: func(e dag.Entry) (byte, []byte, error) {
		p := e.Change.Payload
		if p[0] == 'x' {
			return 0, nil, dag.ErrEmpty
		}
		if len(p) > 1 {
			return p[0], p[1:], nil
		}
		return p[0], nil, nil
	},
	Apply:  func(s dag.ID, e dag.Entry, op byte) dag.ID { return dag.Sum(append(s[:], op)) },
	Encode: func(s dag.ID) []byte { return s[:] },
	Decode: func(p []byte) (dag.ID, error) {
		if len(p) != 32 {
			return dag.ID{}, dag.ErrFormat
		}
		return dag.ID(p), nil
	},
}

func naiveFold(t rapid.TB, g *dag.Graph, object dag.ID) (s dag.ID, n int) {
	must(t, g.Changes(object, func(e dag.Entry) error {
		n++
		if op, _, err := digest.Open(e); err == nil {
			s = digest.Apply(s, e, op)
		}
		return nil
	}))
	return s, n
}

// folding is a graph whose user keeps trust in snapshots, and now and then meets lies.
type folding struct {
	g     *dag.Graph
	a     dag.Author
	trust dag.TrustMap
}

func (f *folding) write(t rapid.TB, object dag.ID, op byte, snapshot bool, lie []byte) dag.ID {
	payload := []byte{op}
	switch {
	case lie != nil:
		payload = append(payload, lie...)
	case snapshot:
		s, _, err := digest.Fold(f.g, object, f.trust)
		must(t, err)
		payload = append(payload, s[:]...)
	}
	b, err := f.g.Begin(f.a, nil, dag.ID{})
	must(t, err)
	id, err := b.Add(object, func(dag.Header) ([]byte, error) { return payload, nil })
	must(t, err)
	_, err = b.Commit()
	must(t, err)
	if snapshot && lie == nil {
		f.trust.Trust(id)
	}
	return id
}

func TestFold(t *testing.T) {
	used := 0
	rapid.Check(t, func(rt *rapid.T) {
		var fs []*folding
		for i := range 3 {
			g, err := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
			must(rt, err)
			fs = append(fs, &folding{g, author(i), dag.TrustMap{}})
		}
		object := dag.Sum([]byte("fixed")) // which everybody may begin
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				f := fs[rapid.IntRange(0, 2).Draw(rt, "who")]
				for range rapid.SampledFrom([]int{1, 2, 40}).Draw(rt, "n") {
					var lie []byte
					if rapid.IntRange(0, 9).Draw(rt, "lie") == 0 {
						lie = bytes.Repeat([]byte{7}, rapid.SampledFrom([]int{5, 32}).Draw(rt, "long"))
					}
					f.write(rt, object, rapid.SampledFrom([]byte("abcx")).Draw(rt, "op"), rapid.IntRange(0, 3).Draw(rt, "snap") == 0, lie)
				}
			},
			"exchange": func(rt *rapid.T) {
				from, to := fs[rapid.IntRange(0, 2).Draw(rt, "from")], fs[rapid.IntRange(0, 2).Draw(rt, "to")]
				must(rt, from.g.FramesSince(nil, func(_ dag.ID, frame []byte) error {
					_, err := to.g.Ingest(frame)
					return err
				}))
			},
			"": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "check") != 0 {
					return
				}
				f := fs[rapid.IntRange(0, 2).Draw(rt, "checked")]
				want, n := naiveFold(rt, f.g, object)
				usable(rt, f.g, object)
				got, cost, err := digest.Fold(f.g, object, f.trust)
				must(rt, err)
				if got != want {
					rt.Fatalf("%v after %+v, want %v after %d", got, cost, want, n)
				}
				again, cost, err := digest.Fold(f.g, object, f.trust)
				must(rt, err)
				if again != want {
					rt.Fatal("the second time another")
				}
				if cost.Changes < n {
					used++
				}
				if rapid.IntRange(0, 3).Draw(rt, "before") == 0 {
					asItWas(rt, f, object)
				}
			},
		})
	})
	if used == 0 {
		t.Error("no fold began at a snapshot")
	}
}

// asItWas folds an object as it was when the log ended earlier: what came in by then, and nothing else.
func asItWas(t *rapid.T, f *folding, object dag.ID) {
	var log []uint64
	have := map[dag.ID]bool{}
	must(t, f.g.Since(0, func(at, end uint64, b *dag.Batch, bodies [][]byte) error {
		if end <= at || len(log) > 0 && at <= log[len(log)-1] || len(bodies) != len(b.Changes) {
			t.Fatalf("batch %s at %d, its end %d, %d bodies", b.ID(), at, end, len(bodies))
		}
		if p, err := f.g.Position(b.ID()); err != nil || p != at || !f.g.Counts(at) {
			t.Fatalf("batch %s at %d, not %d: %v", b.ID(), p, at, err)
		}
		for _, d := range append(b.Deps, b.Prev) {
			if !d.IsZero() && !have[d] {
				t.Fatalf("batch %s before its past", b.ID())
			}
		}
		have[b.ID()] = true
		log = append(log, at)
		return nil
	}))
	if len(log) == 0 {
		return
	}
	end := rapid.SampledFrom(log).Draw(t, "end")
	var want dag.ID
	must(t, f.g.Changes(object, func(e dag.Entry) error {
		if op, _, err := digest.Open(e); err == nil && e.At <= end {
			want = digest.Apply(want, e, op)
		}
		return nil
	}))
	got, _, err := digest.FoldTo(f.g, object, end, f.trust)
	must(t, err)
	if got != want {
		t.Fatalf("as it was at %d of %d: %v, want %v", end, log[len(log)-1], got, want)
	}
	n := 0
	must(t, f.g.Since(end, func(uint64, uint64, *dag.Batch, [][]byte) error { n++; return nil }))
	if want := len(log) - slices.Index(log, end); n != want {
		t.Fatalf("%d batches from %d on, want %d", n, end, want)
	}
}

// usable holds Joint against its meaning: all changes that come before are ancestors.
func usable(t rapid.TB, g *dag.Graph, object dag.ID) {
	past := map[dag.ID]map[dag.ID]bool{}
	want := map[dag.ID]bool{}
	must(t, g.Changes(object, func(e dag.Entry) error {
		past[e.ID] = map[dag.ID]bool{}
		for _, p := range e.Change.Parents {
			past[e.ID][p] = true
			for a := range past[p] {
				past[e.ID][a] = true
			}
		}
		want[e.ID] = len(past[e.ID]) == len(past)-1
		return nil
	}))
	heads, err := g.HeadsOf(object)
	must(t, err)
	j := dag.NewJoint(heads)
	must(t, g.ChangesBack(object, func(e dag.Entry) error {
		if j.Step(e) && !want[e.ID] {
			t.Fatalf("no joint at %v", e.Pos)
		}
		return nil
	}))
}

// TestDue: snapshots come about each 64 changes, for large states so rarely that they cost as much as the changes.
func TestDue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1000, 100_000} {
		n, snapshots, longest := 200_000, 0, 0
		c := dag.Cost{}
		for range n {
			c.Changes++
			c.Bytes += 500
			longest = max(longest, c.Changes)
			if c.Due(size, rnd.Uint64()) {
				snapshots++
				c = dag.Cost{}
			}
		}
		every := max(64, size/500)
		if got := n / max(1, snapshots); got < every/2 || got > every*2 || longest > 12*every {
			t.Errorf("%d bytes: one in %d, want %d; at most %d", size, got, every, longest)
		}
	}
}

// TestFoldLong goes through more changes than a fold keeps in memory.
func TestFoldLong(t *testing.T) {
	f := &folding{newGraph(t), author(0), dag.TrustMap{}}
	object := f.write(t, dag.ID{}, 'r', false, nil)
	for i := range 5000 {
		f.write(t, object, byte(i), i == 1000, nil)
	}
	want, _ := naiveFold(t, f.g, object)
	for range 2 {
		got, cost, err := digest.Fold(f.g, object, f.trust)
		must(t, err)
		if got != want || cost.Changes != 4000 {
			t.Fatal(got, want, cost)
		}
	}
}

// TestFoldMemory: a fold keeps some MiB of what it walked back over, whatever payloads open to.
func TestFoldMemory(t *testing.T) {
	f := &folding{newGraph(t), author(0), dag.TrustMap{}}
	object := f.write(t, dag.ID{}, 'r', false, nil)
	for i := range 100 {
		f.write(t, object, byte('a'+i%20), false, nil)
	}
	before, most := heapInUse(), int64(0)
	m := dag.Machine[dag.ID, []byte]{
		New: digest.New, Encode: digest.Encode, Decode: digest.Decode,
		Open: func(e dag.Entry) ([]byte, []byte, error) {
			most = max(most, heapInUse()-before)
			p := make([]byte, 1<<20)
			p[0] = e.Change.Payload[0]
			return p, nil, nil
		},
		Apply: func(s dag.ID, e dag.Entry, p []byte) dag.ID { return digest.Apply(s, e, p[0]) },
		Size:  func(p []byte) int { return len(p) },
	}
	want, n := naiveFold(t, f.g, object)
	got, cost, err := m.Fold(f.g, object, f.trust)
	must(t, err)
	if got != want || cost.Changes != n || most > 16<<20 {
		t.Errorf("%v after %+v, want %v after %d; %d bytes", got, cost, want, n, most)
	}
}
