package tree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// writer folds changes of one file, each above the last.
type writer struct {
	t     testing.TB
	s     *State
	clock uint64
}

func newWriter(t testing.TB, kind Kind) *writer {
	w := &writer{t: t, s: NewState(dag.Sum([]byte("object")))}
	w.apply(w.s.Object, &Payload{Kind: kind, Ops: []Op{{Kind: OpLink, Parent: dag.Sum([]byte("dir")), Name: "name"}}})
	return w
}

func (w *writer) apply(id dag.ID, p *Payload) {
	w.t.Helper()
	w.clock++
	if err := w.s.Apply(Stamp{id, dag.Pos{Clock: w.clock, Batch: dag.Sum(id[:])}, dag.PublicKey{1}}, p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *writer) do(ops ...Op) dag.ID {
	w.t.Helper()
	id := dag.Sum(binary.BigEndian.AppendUint64(nil, w.clock))
	w.apply(id, &Payload{Ops: ops})
	return id
}

func (w *writer) write(text string, over ...Ref) Ref {
	w.t.Helper()
	return Ref{w.do(Op{Kind: OpContent, Over: over, Content: &Content{Size: int64(len(text)), Inline: []byte(text)}}), 0}
}

func source(lines int) []string {
	var ls []string
	for i := range lines {
		ls = append(ls, fmt.Sprintf("\tline %d of a source file, of middling length\n", i))
	}
	return ls
}

// TestMergeAfterManySaves: a device that was away while another saved two hundred times merges with it, and the state that
// makes it possible stays small.
func TestMergeAfterManySaves(t *testing.T) {
	w := newWriter(t, KindFile)
	ls := source(90)
	first := w.write(strings.Join(ls, ""))
	at := first
	for i := range 200 {
		ls[2+i%40] = fmt.Sprintf("\tchanged %d\n", i)
		at = w.write(strings.Join(ls, ""), at)
	}
	if n := len(w.s.Encode()); n > 48<<10 {
		t.Errorf("the state takes %d bytes", n)
	}
	away := source(90)
	away[80] = "\tfrom afar\n"
	w.write(strings.Join(away, ""), first)
	v := w.s.View()
	ls[80] = away[80]
	if want := strings.Join(ls, ""); !v.Merged || string(v.Text) != want {
		t.Fatalf("merged %v:\n%s", v.Merged, v.Text)
	}
	if len(v.Behind) != 2 || len(v.Losers) != 0 {
		t.Errorf("behind %v, losers %v", v.Behind, v.Losers)
	}
}

// TestPastIsBounded: what a state remembers of replaced values has a limit, and what it has forgotten conflicts, and loses
// nothing.
func TestPastIsBounded(t *testing.T) {
	w := newWriter(t, KindFile)
	ls := source(90)
	first := w.write(strings.Join(ls, ""))
	at := first
	for i := range 3000 {
		ls[i%90] = fmt.Sprintf("\tchanged %d\n", i)
		at = w.write(strings.Join(ls, ""), at)
	}
	if n := len(w.s.values); n > maxPast+1 {
		t.Errorf("%d values", n)
	}
	if n := len(w.s.Encode()); n > 100<<10 {
		t.Errorf("the state takes %d bytes", n)
	}
	away := source(90)
	away[80] = "\tfrom afar\n"
	w.write(strings.Join(away, ""), first)
	v := w.s.View()
	if v.Merged || len(v.Losers) != 1 || v.Losers[0].Ref != at || v.Base != nil {
		t.Errorf("merged %v, losers %d, base %v", v.Merged, len(v.Losers), v.Base)
	}
}

// TestPatchesOverWhatIsForgotten: the base of a candidate's patches is never let go, unless it was before the patch came.
func TestPatchesOverWhatIsForgotten(t *testing.T) {
	w := newWriter(t, KindFile)
	big := &Content{Size: 1 << 30, Root: block.Sum([]byte("root")).CID()}
	for i := range int64(1024) {
		big.Layout = append(big.Layout, Chunk{i << 20, 1 << 20})
	}
	base := Ref{w.do(Op{Kind: OpContent, Content: big}), 0}
	patch := func(over Ref, off int64) Ref {
		return Ref{w.do(Op{Kind: OpContent, Over: []Ref{over}, Content: &Content{
			Size: big.Size, Patch: []Edit{{Off: off, Len: 4096, Bytes: bytes.Repeat([]byte{1}, 1024)}},
		}}), 0}
	}
	at := base
	for i := range int64(400) {
		at = patch(at, i<<12)
	}
	v := w.s.Contents()
	if len(v) != 1 || v[0].Missing || len(v[0].Patches) != 400 || !v[0].Base.Root.Equals(big.Root) || v[0].BaseRef != base {
		t.Fatalf("%d values, missing %v, %d patches", len(v), v[0].Missing, len(v[0].Patches))
	}
	// Another, cut anew, lets all of them go: a patch that comes over the first then is known, and what it lies over is not.
	w.do(Op{Kind: OpContent, Over: []Ref{at}, Content: &Content{Size: 1, Inline: []byte("x")}})
	for range 400 {
		w.write("small", w.s.Candidates()...)
	}
	late := patch(base, 7)
	v = w.s.Contents()
	if len(v) != 2 || v[1].Ref != late || !v[1].Missing || v[1].BaseRef != base {
		t.Fatalf("a late patch: %+v", v)
	}
	st := NewMemStore(nil)
	tr, err := NewTree(simSpace, st)
	if err != nil {
		t.Fatal(err)
	}
	st.AddChange(w.s.Object, Stamp{ID: base.Change}, &Payload{Ops: []Op{{Kind: OpContent, Content: big}}})
	full, err := tr.Complete(w.s.Object, v[1])
	if err != nil || full.Missing || len(full.Patches) != 1 || full.Size != big.Size || !full.Base.Root.Equals(big.Root) {
		t.Fatalf("completed: %+v %v", full, err)
	}
	// Through patches that are in the history alone, the oldest first.
	under := base
	for i := range 2 {
		id := dag.Sum([]byte{byte(i)})
		st.AddChange(w.s.Object, Stamp{ID: id, Pos: dag.Pos{Clock: uint64(i + 1)}}, &Payload{Ops: []Op{
			{Kind: OpContent, Over: []Ref{under}, Content: &Content{Size: int64(i), Patch: []Edit{}}}, {Kind: OpContent, Content: text("else")},
		}})
		under = Ref{id, 0}
	}
	v[1].BaseRef = under
	if full, err = tr.Complete(w.s.Object, v[1]); err != nil || !slices.Equal(full.Sizes, []int64{0, 1, big.Size}) || full.BaseRef != base {
		t.Fatalf("completed: %+v %v", full, err)
	}
	for _, over := range []Ref{{dag.Sum([]byte("nowhere")), 0}, {dag.Sum([]byte("itself")), 0}} {
		st.AddChange(w.s.Object, Stamp{ID: dag.Sum([]byte("itself")), Pos: dag.Pos{Clock: 9}}, &Payload{Ops: []Op{
			{Kind: OpContent, Over: []Ref{{dag.Sum([]byte("itself")), 0}}, Content: &Content{Patch: []Edit{}}},
		}})
		v[1].BaseRef = over
		if _, err = tr.Complete(w.s.Object, v[1]); err != ErrNotExist {
			t.Fatalf("over %v: %v", over, err)
		}
	}
}

// TestTooManyPatches: a chain of patches has a limit, beyond which an operation is void.
func TestTooManyPatches(t *testing.T) {
	w := newWriter(t, KindFile)
	at := Ref{w.do(Op{Kind: OpContent, Content: &Content{Size: 1 << 20}}), 0}
	for i := range maxChain + 10 {
		next := Ref{w.do(Op{Kind: OpContent, Over: []Ref{at}, Content: &Content{Size: 1<<20 + int64(i), Patch: []Edit{}}}), 0}
		if i < maxChain {
			at = next
		}
	}
	v := w.s.Contents()
	if len(v) != 1 || v[0].Ref != at || len(v[0].Patches) != maxChain {
		t.Fatalf("%d values, %d patches", len(v), len(v[0].Patches))
	}
}

func TestRemovedLinksAreBounded(t *testing.T) {
	w := newWriter(t, KindFile)
	for i := range 500 {
		l := Ref{w.do(Op{Kind: OpLink, Parent: dag.Sum(nil), Name: fmt.Sprint(i)}), 0}
		w.do(w.s.Unlink(l)...)
	}
	if n := len(w.s.Links); n != maxRemoved+1 {
		t.Errorf("%d links", n)
	}
	if live := w.s.LiveLinks(); len(live) != 1 || live[0].Shown().Name != "name" {
		t.Errorf("live: %v", live)
	}
}

func TestXattrLimits(t *testing.T) {
	w := newWriter(t, KindFile)
	for i := range 10 {
		w.do(Op{Kind: OpXattr, Name: fmt.Sprint("user.", i), Value: make([]byte, MaxXattr)})
	}
	if n := len(w.s.Xattrs); n != 3 {
		t.Errorf("%d large attributes", n)
	}
	w.do(Op{Kind: OpXattr, Name: "user.0", Value: []byte("small")}, Op{Kind: OpXattr, Name: "user.1", Remove: true})
	for i := range 2000 {
		w.do(Op{Kind: OpXattr, Name: fmt.Sprint("user.small.", i)})
	}
	if n := len(w.s.Xattrs); n != maxXattrs {
		t.Errorf("%d attributes", n)
	}
}

// TestUnknownOperations: those with the must-understand bit close the object for this version, the others do not count.
func TestUnknownOperations(t *testing.T) {
	w := newWriter(t, KindFile)
	w.do(Op{Kind: 100 << 1, Raw: []byte{0x82, 0x18, 200, 0x01}})
	if w.s.Unknown {
		t.Error("an operation without the bit closes the object")
	}
	w.do(Op{Kind: 100<<1 | 1, Raw: []byte{0x82, 0x18, 201, 0x01}}, Op{Kind: OpMode, Mode: 0o600})
	if !w.s.Unknown || w.s.Mode != 0o600 {
		t.Error("an operation with the bit does not")
	}
	// A tree shows such an object, and plans nothing for it.
	st := NewMemStore(nil)
	tr, err := NewTree(simSpace, st)
	if err != nil {
		t.Fatal(err)
	}
	id := dag.Sum([]byte("file"))
	if _, err := tr.Apply(
		Change{id, Stamp{id, dag.Pos{Clock: 1}, dag.PublicKey{1}}, smallFile(tr.Root(), "f")},
		Change{id, Stamp{dag.Sum([]byte("later")), dag.Pos{Clock: 2}, dag.PublicKey{1}}, &Payload{Future: true}},
	); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := tr.Lookup(tr.Root(), "f"); err != nil || !ok {
		t.Errorf("not shown (%v)", err)
	}
	if _, err := tr.PlanRemove(tr.Root(), "f"); err != ErrUnknown {
		t.Errorf("removal is planned: %v", err)
	}
	if _, err := tr.PlanSet(tr.Root(), "f", Op{Kind: OpMode}); err != ErrUnknown {
		t.Errorf("chmod is planned: %v", err)
	}
	v := newWriter(t, KindFile)
	v.apply(dag.Sum([]byte("later")), &Payload{Future: true})
	if !v.s.Unknown {
		t.Error("a payload of a later version does not close the object")
	}
}

// TestStateGoesOnFromItsEncoding folds random content operations; a state that is encoded and decoded anywhere on the way ends
// with the same bytes, and the text of a candidate is what was written.
func TestStateGoesOnFromItsEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &writer{t: rapidTB{nil, t}, s: NewState(dag.Sum([]byte("object")))}
		w.apply(w.s.Object, &Payload{Kind: KindFile, Ops: []Op{{Kind: OpLink, Parent: dag.Sum(nil), Name: "n"}}})
		other := w.s.Clone()
		texts := map[Ref]string{}
		var made []Ref
		for i := range rapid.IntRange(1, 40).Draw(t, "ops") {
			var over []Ref
			for range rapid.IntRange(0, 2).Draw(t, "over") {
				if len(made) > 0 {
					over = append(over, made[len(made)-1-rapid.IntRange(0, min(len(made), 6)-1).Draw(t, "which")])
				}
			}
			o := Op{Kind: OpContent, Over: over, Mtime: int64(i)}
			text, known := "", true
			switch rapid.IntRange(0, 5).Draw(t, "form") {
			case 0:
				o.Content, known = &Content{Size: 100_000, Root: block.Sum([]byte{byte(i)}).CID(), Layout: []Chunk{{0, 100_000}}}, false
			case 1:
				if len(over) > 0 {
					over = over[:1]
					old, ok := texts[over[0]]
					n := rapid.SampledFrom([]int{3, MaxInline + 1}).Draw(t, "size")
					o.Over = over
					o.Content = &Content{Size: int64(n), Patch: []Edit{{0, 2, []byte(fmt.Sprintf("%d", i%10))}}}
					b := make([]byte, n)
					copy(b, old)
					copy(b, []byte{byte('0' + i%10), 0})
					text, known = string(b), ok && n <= MaxInline
					break
				}
				fallthrough
			default:
				text = strings.Repeat(rapid.SampledFrom([]string{"a", "b", "ab", "line\n"}).Draw(t, "text"), rapid.IntRange(0, 2000).Draw(t, "times"))
				o.Content = &Content{Size: int64(len(text)), Inline: []byte(text)}
			}
			p := &Payload{Ops: []Op{o}}
			if i%7 == 6 {
				p.Ops = []Op{{Kind: OpDrop, Over: made[:1+len(made)/2]}}
			}
			id := dag.Sum(binary.BigEndian.AppendUint64(nil, uint64(i)))
			w.apply(id, p)
			if err := other.Apply(Stamp{id, w.s.Top, dag.PublicKey{1}}, p); err != nil {
				t.Fatal(err)
			}
			enc := w.s.Encode()
			if !bytes.Equal(enc, other.Encode()) {
				t.Fatal("the states part")
			}
			back, err := DecodeState(enc)
			if err != nil {
				t.Fatal(err)
			}
			other = back
			r := Ref{id, 0}
			made = append(made, r)
			if known && p.Ops[0].Kind == OpContent {
				texts[r] = text
			}
			for _, v := range w.s.Contents() {
				if want, ok := texts[v.Ref]; ok && (v.Missing || v.Size != int64(len(want)) || string(trimZeros(v.Base.Inline)) != strings.TrimRight(want, "\x00")) {
					t.Fatalf("value %d: %d bytes %.20q, want %d %.20q", i, v.Size, v.Base.Inline, len(want), want)
				}
			}
			w.s.View()
		}
	})
}
