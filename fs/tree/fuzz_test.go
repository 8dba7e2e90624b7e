package tree

import (
	"bytes"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

var (
	fuzzSelf    = dag.Sum([]byte("self"))
	fuzzParents = []dag.ID{dag.Sum([]byte("parent 0")), dag.Sum([]byte("parent 1"))}
)

// FuzzDecodePayload: what decodes encodes to the same bytes, and folds without harm.
func FuzzDecodePayload(f *testing.F) {
	n := 0
	for _, v := range payloadVectors() {
		if b, err := v.payload.Encode(v.parents); err == nil {
			f.Add(b)
			n++
		}
	}
	for _, v := range badPayloads() {
		f.Add(v.bytes)
	}
	for _, over := range []uint32{0, 1} { // a patch over itself, and over what comes later
		p := Payload{Kind: KindFile, Ops: []Op{
			{Kind: OpContent, Over: []Ref{{Place: over}}, Content: &Content{Size: 1 << 20, Patch: []Edit{}}},
			{Kind: OpContent, Content: blocks("x")},
		}}
		b, err := p.Encode(fuzzParents)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	if n < 10 {
		f.Fatalf("%d seeds", n)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePayload(b, fuzzSelf, fuzzParents)
		if err != nil || p.Future {
			return
		}
		again, err := p.encodeAs(fuzzSelf, fuzzParents)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("encodes to %x (%v)", again, err)
		}
		s := NewState(fuzzSelf)
		at := Stamp{fuzzSelf, dag.Pos{Clock: 1}, dag.PublicKey{1}}
		if err := s.Apply(at, p); err != nil {
			t.Fatal(err)
		}
		useState(t, s, p)
	})
}

// useState does what can be done with a state.
func useState(t *testing.T, s *State, p *Payload) {
	t.Helper()
	s.LiveLinks()
	s.Contents()
	v := s.View()
	for _, l := range s.Links {
		s.Unlink(l.ID)
	}
	enc := s.Encode()
	back, err := DecodeState(enc)
	if err != nil {
		t.Fatalf("a state does not decode: %v", err)
	}
	if p != nil {
		at := Stamp{dag.Sum(enc), dag.Pos{Clock: s.Top.Clock + 1}, dag.PublicKey{2}}
		if at.Pos.Clock == 0 {
			return
		}
		if err := back.Apply(at, p); err != nil {
			t.Fatal(err)
		}
		if err := back.Apply(Stamp{dag.Sum([]byte("next")), dag.Pos{Clock: at.Pos.Clock + 1}, dag.PublicKey{2}}, &Payload{Ops: []Op{
			{Kind: OpContent, Over: v.Behind, Content: text("x")},
		}}); err != nil && at.Pos.Clock+1 != 0 {
			t.Fatal(err)
		}
		back.View()
		if _, err := DecodeState(back.Encode()); err != nil {
			t.Fatalf("a state does not decode: %v", err)
		}
	}
}

// FuzzDecodeState: what decodes encodes to the same bytes, and can be used and changed.
func FuzzDecodeState(f *testing.F) {
	n := 0
	for _, v := range stateVectors(f) {
		f.Add(v.Encode())
		n++
	}
	if n < 10 {
		f.Fatalf("%d seeds", n)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Encode(), b) {
			t.Fatal("encodes to other bytes")
		}
		base := append(s.Candidates(), Ref{})[:1]
		useState(t, s, &Payload{Ops: []Op{
			{Kind: OpContent, Over: base, Content: &Content{Size: 10, Patch: []Edit{{1, 2, []byte("a")}}}},
			{Kind: OpDrop, Over: s.Candidates()},
			{Kind: OpLink, Parent: fuzzSelf, Name: "x"},
			{Kind: OpXattr, Name: "user.x"},
		}})
	})
}

// FuzzCopyName: names of conflict copies are names, and lead back to the name that was lost.
func FuzzCopyName(f *testing.F) {
	f.Add("report.txt", "laptop", int64(1_769_860_800e9), 4)
	f.Add("a (conflict b 2026-01-01 AAAA).txt", "x (conflict y", int64(-1), 30)
	f.Add(".bashrc", "", int64(0), 60)
	f.Add("a.b (c", "\x00/\xff", int64(1<<62), 52)
	f.Fuzz(func(t *testing.T, name, device string, time int64, k int) {
		if !ValidName(name) || k < copyLetters || k > 80 {
			return
		}
		l := loser{name, device, time, fuzzSelf, fuzzParents[0], 3}
		c := l.copyName(k)
		if !ValidName(c) {
			t.Fatalf("%q", c)
		}
		lost, whole, ok := lostName(c)
		if !ok || whole && lost != name {
			t.Fatalf("%q leads to %q %v %v", c, lost, whole, ok)
		}
		if (whole || k >= allLetters) && l.copyName(k+1) == c { // one that is cut has all letters at once
			t.Fatalf("%q twice", c)
		}
		if !whole && k < allLetters && len(name)+100 < MaxName {
			t.Fatalf("%q does not lead back", c)
		}
	})
}
