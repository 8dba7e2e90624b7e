package tree

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestSnapshotsAreNotBelieved: a change that comes first in the order of an object, as any writer can make one, carries the
// state of another file as a snapshot. No order of arrival makes a replica take it up.
func TestSnapshotsAreNotBelieved(t *testing.T) {
	object := dag.Sum([]byte("object"))
	stamp := func(id dag.ID, clock uint64) Stamp {
		return Stamp{ID: id, Pos: dag.Pos{Clock: clock, Batch: id}, Device: dag.PublicKey{1}}
	}
	root := Change{object, stamp(object, 5), &Payload{Kind: KindFile, Ops: []Op{
		{Kind: OpLink, Parent: RootObject(simSpace), Name: "true"}, {Kind: OpContent, Content: text("true")},
	}}}
	next := Change{object, stamp(dag.Sum([]byte("next")), 6), &Payload{Ops: []Op{{Kind: OpMode, Mode: 0o600}}}}

	fake := NewState(object)
	if err := fake.Apply(stamp(object, 1), &Payload{Kind: KindFile, Ops: []Op{
		{Kind: OpLink, Parent: RootObject(simSpace), Name: "fake"}, {Kind: OpContent, Content: text("fake")},
	}}); err != nil {
		t.Fatal(err)
	}
	lie := Change{object, stamp(dag.Sum([]byte("lie")), 2), &Payload{Snapshot: fake.Encode()}}

	want := ""
	for i, order := range [][]Change{{root, next}, {lie, root, next}, {root, lie, next}, {root, next, lie}, {next, root, lie}} {
		st := NewMemStore(nil)
		tr, err := NewTree(simSpace, st)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range order {
			st.AddChange(c.Object, c.At, c.Payload)
			if _, err := tr.Apply(c); err != nil {
				t.Fatal(err)
			}
		}
		got := dump(walkTree(t, tr))
		if i == 0 {
			want = got
		}
		if got != want {
			t.Errorf("order %d shows\n%swant\n%s", i, got, want)
		}
	}
}
