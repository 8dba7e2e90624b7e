package tree

import (
	"bytes"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestAnyChangesInAnyOrder folds changes that no honest replica makes, that refer to anything there is or is not, in orders that
// do not keep to the past before the future, and retracts some. The tree is what the definition says.
func TestAnyChangesInAnyOrder(t *testing.T) {
	runs := *schedules
	skipped := 0
	for seed := *firstSeed; seed < *firstSeed+uint64(runs); seed++ {
		skipped += garbage(failing{TB: t, seed: seed}, seeded(seed))
	}
	t.Logf("%d runs, %d skipped moves", runs, skipped)
	if runs > 1000 && skipped == 0 {
		t.Error("no move made a cycle")
	}
}

func garbage(t testing.TB, choose chooser) int {
	names := simDevices(2)
	root := RootObject(simSpace)
	id := func(i int) dag.ID { return dag.Sum([]byte{byte(i)}) }
	objects := 2 + choose(6)
	// Every object is named by the id of its root; ids of changes are drawn from a few.
	pos := func() dag.Pos {
		return dag.Pos{Clock: uint64(1 + choose(12)), Batch: id(200 + choose(2)), Place: uint32(choose(1000))}
	}
	object := func() dag.ID {
		switch n := choose(objects + 2); n {
		case objects:
			return root
		case objects + 1:
			return id(199) // nothing
		default:
			return id(n)
		}
	}
	dense := choose(3) // 0: anything, 1: moves of directories, 2: one file's content
	if dense == 2 {
		objects = 1
	}
	kinds := make([]Kind, objects)
	for i := range kinds {
		if kinds[i] = KindDir; dense == 2 {
			kinds[i] = KindFile
		} else if dense == 0 && choose(4) == 0 {
			kinds[i] = Kind(1 + choose(4))
		}
	}
	var made []Ref
	ref := func() Ref {
		if len(made) == 0 || choose(8) == 0 {
			return Ref{id(choose(objects)), uint32(choose(2))}
		}
		return made[choose(len(made))]
	}
	refs := func() (rs []Ref) {
		for range choose(3) {
			rs = append(rs, ref())
		}
		return rs
	}
	values := 0
	op := func() Op {
		kind := choose(7)
		switch dense {
		case 1:
			return Op{Kind: OpMove, Link: Ref{id(choose(objects)), 0}, Parent: object(), Name: simNames[choose(3)]}
		case 2:
			kind = 3 + choose(3)
		}
		switch kind {
		case 0:
			return Op{Kind: OpLink, Parent: object(), Name: simNames[choose(3)]}
		case 1, 2:
			return Op{Kind: OpMove, Link: ref(), Over: refs(), Parent: object(), Name: simNames[choose(3)]}
		case 3:
			return Op{Kind: OpUnlink, Link: ref(), Over: append(refs(), refs()...), Contents: append(refs(), refs()...)}
		case 4:
			values++
			switch choose(8) {
			case 0, 1:
				patch := []Edit{{int64(choose(4)), 1, []byte{byte('0' + choose(4))}}}
				return Op{Kind: OpContent, Over: []Ref{ref()}, Mtime: int64(values), Content: &Content{Size: 5, Patch: patch}}
			case 2:
				return Op{Kind: OpContent, Over: refs(), Mtime: int64(values), Content: blocks(string(rune('a' + choose(2))))}
			}
			return Op{Kind: OpContent, Over: refs(), Mtime: int64(values), Content: &Content{Size: 2, Inline: []byte{'x', byte('0' + choose(4))}}}
		case 5:
			return Op{Kind: OpDrop, Over: append(refs(), ref())}
		default:
			return Op{Kind: OpMode, Mode: uint32(choose(8))}
		}
	}
	var changes []Change
	for i := range objects {
		p := &Payload{Kind: kinds[i], Time: int64(i)}
		if choose(8) != 0 {
			p.Ops = append(p.Ops, Op{Kind: OpLink, Parent: object(), Name: simNames[choose(3)]})
			made = append(made, Ref{id(i), 0})
		}
		for range choose(2) {
			p.Ops = append(p.Ops, op())
			made = append(made, Ref{id(i), uint32(len(p.Ops) - 1)})
		}
		if choose(16) == 0 {
			p = nil
		}
		if choose(16) != 0 {
			at := pos()
			at.Clock = uint64(1 + choose(1+int(at.Clock))) // mostly before the rest
			changes = append(changes, Change{id(i), Stamp{id(i), at, dag.PublicKey{1}}, p})
		}
	}
	for i := range choose(12) + 6*min(dense, 1) {
		p := &Payload{Time: int64(i)}
		c := Change{object(), Stamp{id(100 + i), pos(), dag.PublicKey{2}}, p}
		for range 1 + choose(3) {
			p.Ops = append(p.Ops, op())
			made = append(made, Ref{c.At.ID, uint32(len(p.Ops) - 1)})
		}
		if choose(4) == 0 { // a lie
			fake := NewState(c.Object)
			if err := fake.Apply(Stamp{c.Object, dag.Pos{Clock: 1}, dag.PublicKey{2}}, &Payload{Kind: KindFile, Ops: []Op{op(), op()}}); err != nil {
				t.Fatal(err)
			}
			p.Snapshot = fake.Encode()
		}
		changes = append(changes, c)
	}
	at := map[dag.Pos]bool{}
	for i := range changes {
		for at[changes[i].At.Pos] {
			changes[i].At.Pos.Place++
		}
		at[changes[i].At.Pos] = true
	}
	r := newReplica(t, 0, names)
	apply := func(cs []Change) {
		for len(cs) > 0 {
			var piece []Change
			for range 1 + choose(3) {
				if len(cs) > 0 {
					piece = append(piece, cs[0])
					cs = cs[1:]
				}
			}
			for _, c := range piece {
				r.store.AddChange(c.Object, c.At, c.Payload)
			}
			if _, err := r.tree.Apply(piece...); err != nil {
				t.Fatal(err)
			}
		}
	}
	shuffle := func(cs []Change) {
		for i := len(cs) - 1; i > 0; i-- {
			j := choose(i + 1)
			cs[i], cs[j] = cs[j], cs[i]
		}
	}
	look := func(cs []Change) string {
		naive := resolveNaive(simSpace, cs, func(k dag.PublicKey) string { return names[k] })
		got, want := dump(walkTree(t, r.tree)), dump(naive.walk())
		if got != want {
			t.Fatalf("the tree is\n%swant\n%s", got, want)
		}
		// States are stored, and no cycle is among the places that lead anywhere.
		for _, o := range r.store.objects {
			enc := o.State.Encode()
			if back, err := DecodeState(enc); err != nil || !bytes.Equal(back.Encode(), enc) {
				t.Fatalf("a state does not come back: %v", err)
			}
			steps := 0
			for p := o.Place; p != nil; {
				ok, err := r.tree.valid(p.Parent, p.Pos)
				if err != nil || !ok || p.Parent == root {
					break
				}
				if steps++; steps > objects {
					t.Fatalf("a cycle")
				}
				p = r.store.objects[p.Parent].Place
			}
		}
		return got + stateHashes(t, r.store)
	}
	shuffle(changes)
	apply(changes)
	whole := look(changes)
	skipped := 0
	for _, m := range r.store.moves {
		if m.Skipped {
			skipped++
		}
	}
	// Any part of them goes and comes back.
	shuffle(changes)
	n := choose(len(changes) + 1)
	gone, kept := changes[:n], changes[n:]
	for _, c := range gone {
		r.store.RemoveChange(c.Object, c.At)
	}
	if _, err := r.tree.Retract(gone...); err != nil {
		t.Fatal(err)
	}
	look(kept)
	apply(gone)
	if got := look(changes); got != whole {
		t.Fatalf("what was retracted and came back gives\n%sinstead of\n%s", got, whole)
	}
	return skipped
}
