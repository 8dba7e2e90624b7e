package tree

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// countingStore counts what a Tree asks of its store.
type countingStore struct {
	*MemStore
	reads, writes, history, children, moves int
}

func (c *countingStore) Object(id dag.ID) (*Object, error) {
	c.reads++
	return c.MemStore.Object(id)
}

func (c *countingStore) SetObject(id dag.ID, o *Object) error {
	c.writes++
	return c.MemStore.SetObject(id, o)
}

func (c *countingStore) History(id dag.ID, fn func(Stamp, *Payload) error) error {
	c.history++
	return c.MemStore.History(id, fn)
}

func (c *countingStore) Claims(dir dag.ID, name string) ([]Claim, error) {
	c.reads++
	return c.MemStore.Claims(dir, name)
}

func (c *countingStore) Children(dir dag.ID, fn func(string, Claim) bool) error {
	c.children++
	return c.MemStore.Children(dir, fn)
}

func (c *countingStore) SetClaim(dir dag.ID, name string, cl Claim) error {
	c.writes++
	return c.MemStore.SetClaim(dir, name, cl)
}

func (c *countingStore) DeleteClaim(dir dag.ID, name string, object dag.ID, link Ref) error {
	c.writes++
	return c.MemStore.DeleteClaim(dir, name, object, link)
}

func (c *countingStore) Moves(from Order, fn func(*Move) bool) error {
	return c.MemStore.Moves(from, func(m *Move) bool { c.moves++; return fn(m) })
}

func (c *countingStore) SetMove(m *Move) error {
	c.writes++
	return c.MemStore.SetMove(m)
}

// TestOperationsTouchWhatTheyMust: in a space with many files, directories and moves, each operation asks little of the store.
func TestOperationsTouchWhatTheyMust(t *testing.T) {
	st := &countingStore{MemStore: NewMemStore(nil)}
	tr, err := NewTree(simSpace, st)
	if err != nil {
		t.Fatal(err)
	}
	clock := uint64(0)
	apply := func(object dag.ID, p *Payload) dag.ID {
		t.Helper()
		clock++
		id := dag.Sum(binary.BigEndian.AppendUint64(nil, clock))
		if object.IsZero() {
			object = id
		}
		at := Stamp{id, dag.Pos{Clock: clock, Batch: id}, dag.PublicKey{1}}
		st.AddChange(object, at, p)
		if _, err := tr.Apply(Change{object, at, p}); err != nil {
			t.Fatal(err)
		}
		return id
	}
	dir := func(parent dag.ID, name string) dag.ID {
		return apply(dag.ID{}, &Payload{Kind: KindDir, Ops: []Op{{Kind: OpLink, Parent: parent, Name: name}}})
	}
	big, other := dir(tr.Root(), "big"), dir(tr.Root(), "other")
	var files []dag.ID
	for i := range 2000 {
		files = append(files, apply(dag.ID{}, smallFile(big, fmt.Sprint(i))))
		d := dir(other, fmt.Sprint("d", i))
		apply(d, &Payload{Ops: []Op{{Kind: OpMove, Link: Ref{d, 0}, Over: []Ref{{d, 0}}, Parent: big, Name: fmt.Sprint("moved", i)}}})
	}
	for _, v := range []struct {
		what                                    string
		do                                      func()
		reads, writes, history, children, moves int
	}{
		{"create", func() { apply(dag.ID{}, smallFile(big, "new")) }, 8, 2, 0, 0, 0},
		{"write", func() {
			apply(files[1], &Payload{Ops: []Op{{Kind: OpContent, Over: []Ref{{files[1], 2}}, Content: text("x")}}})
		}, 6, 1, 0, 0, 0},
		{"rename", func() {
			apply(files[2], &Payload{Ops: []Op{{Kind: OpMove, Link: Ref{files[2], 0}, Over: []Ref{{files[2], 0}}, Parent: other, Name: "x"}}})
		}, 10, 3, 0, 0, 0},
		{"unlink", func() {
			apply(files[3], &Payload{Ops: []Op{{Kind: OpUnlink, Link: Ref{files[3], 0}, Over: []Ref{{files[3], 0}}, Contents: []Ref{{files[3], 2}}}}})
		}, 8, 2, 0, 0, 0},
		{"mkdir", func() { dir(big, "dir") }, 12, 3, 0, 0, 0},
		{"rename of a directory", func() {
			apply(big, &Payload{Ops: []Op{{Kind: OpMove, Link: Ref{big, 0}, Over: []Ref{{big, 0}}, Parent: other, Name: "x2"}}})
		}, 24, 6, 0, 0, 0},
		{"lookup", func() {
			if _, ok, err := tr.Lookup(big, "7"); err != nil || !ok {
				t.Fatal(err)
			}
		}, 2, 0, 0, 0, 0},
		{"lookup of nothing", func() {
			if _, ok, err := tr.Lookup(big, "nothing"); err != nil || ok {
				t.Fatal(err)
			}
		}, 2, 0, 0, 0, 0},
	} {
		*st = countingStore{MemStore: st.MemStore}
		v.do()
		if st.reads > v.reads || st.writes > v.writes || st.history > v.history || st.children > v.children || st.moves > v.moves {
			t.Errorf("%s: %d reads, %d writes, %d histories, %d listings, %d moves", v.what, st.reads, st.writes, st.history, st.children, st.moves)
		}
	}
}
