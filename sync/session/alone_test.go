package session_test

import (
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// lapsed judges files: from when it is ended, those of device 1 with a seq above upTo do not count, but where they are kept.
type lapsed struct {
	files
	ended *bool
	upTo  *uint64
	keeps bool
}

func (l lapsed) Counts(b *dag.Batch) dag.Verdict {
	if !l.keeps && !l.Heard(b) {
		return dag.CountsIfNamed
	}
	return dag.Counts
}

func (l lapsed) Keeps() (dag.PublicKey, bool) { return author(1).Account, l.keeps }

func (l lapsed) Heard(b *dag.Batch) bool {
	return !*l.ended || b.Device != author(1).Device || b.Seq <= *l.upTo
}

// TestAlone: what counts on one device alone keeps nobody waiting, and who says no more that it holds it did not break its word; once it counts again it is to be sent.
func TestAlone(t *testing.T) {
	for _, many := range []bool{false, true} { // heads, so that they are told by a digest
		ended, upTo := false, uint64(1)
		node, a := newReplica(t, 0), newReplica(t, 1)
		for _, r := range []*replica{node, a} {
			r.judge = func(f files) dag.Authorizer { return lapsed{f, &ended, &upTo, r == a} }
			if r == a {
				r.node = func(d dag.PublicKey) bool { return d == author(0).Device }
			}
			r.space.Close()
			r.open()
		}
		all := []*replica{node, a}
		l := connect(t, node, a)
		is := func(what string, equal, whole bool, send uint64) {
			t.Helper()
			st, ok := l.s[1].Status(wire.Files)
			if !ok || st.Equal != equal || st.Whole != whole || st.ToSend != send || st.ToFetch != 0 {
				t.Fatalf("%s, many heads %v: %+v", what, many, st)
			}
		}
		a.write(1)
		settle(t, all, []*link{l})
		is("heard", true, true, 0)
		a.write(1)
		a.write(1)
		settle(t, all, []*link{l})
		is("not ended yet", true, true, 0)

		ended = true
		must(t, errOf(node.graphs[1].Rejudge(nil)))
		node.write(0) // what ended it
		node.write(1)
		if many {
			for n := 10; n < 10+wire.MaxHeads+1; n++ {
				r := newReplica(t, n)
				r.write(1)
				must(t, errOf(node.graphs[1].Ingest(must2(r.graphs[1].Frame(r.graphs[1].Heads()[0])))))
			}
		}
		ticks(t, 4, all, l)
		is("ended", true, false, 0)
		if heads, all, err := a.graphs[1].HeadsElsewhere(); err != nil || all || !slices.Equal(heads, node.graphs[1].Heads()) || many != (len(heads) > wire.MaxHeads) {
			t.Fatalf("%d heads elsewhere, %v", len(heads), err)
		}
		if n := node.graphs[1].QuarantineLen(); n != 2 {
			t.Fatalf("%d in quarantine", n)
		}
		if d := a.space.Doubts(); len(d) > 0 {
			t.Errorf("of a node that judged anew: %+v", d)
		}
		l.close()
		l = connect(t, node, a)
		ticks(t, 4, all, l)
		is("connected anew", true, false, 0)

		upTo = 3   // named by who ended it: heard again
		if !many { // by a digest it is not told how many
			is("named, and not held by who says so", false, false, 2)
		} else if st, _ := l.s[1].Status(wire.Files); st.Equal || st.ToSend < 2 {
			t.Fatalf("named, and not held by who says so: %+v", st)
		}
		must(t, errOf(node.graphs[1].Rejudge(nil)))
		node.write(1)
		ticks(t, 4, all, l)
		is("named", true, true, 0)
	}
}

func must2[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

func errOf[T any](_ T, err error) error { return err }
