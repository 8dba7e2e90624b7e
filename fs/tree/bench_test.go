package tree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

func smallFile(dir dag.ID, name string) *Payload {
	const now = 1790000000123456789
	return &Payload{Kind: KindFile, Time: now, Ops: []Op{
		{Kind: OpLink, Parent: dir, Name: name}, {Kind: OpMode, Mode: 0o644},
		{Kind: OpContent, Mtime: now, Content: &Content{Size: 4096, Inline: bytes.Repeat([]byte("x"), 4096)}},
	}}
}

func BenchmarkEncodePayload(b *testing.B) {
	p := smallFile(dag.Sum(nil), "report-final.txt")
	for b.Loop() {
		if _, err := p.Encode(nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodePayload(b *testing.B) {
	enc, err := smallFile(dag.Sum(nil), "report-final.txt").Encode(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := DecodePayload(enc, fuzzSelf, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApplyCreates is one new file in a directory that has many.
func BenchmarkApplyCreates(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprintf("batches of %d", batch), func(b *testing.B) {
			st := NewMemStore(nil)
			tr, err := NewTree(simSpace, st)
			if err != nil {
				b.Fatal(err)
			}
			n := uint64(0)
			for b.Loop() {
				var cs []Change
				for range batch {
					n++
					id := dag.Sum(binary.BigEndian.AppendUint64(nil, n))
					p := smallFile(tr.Root(), fmt.Sprint("file ", n))
					c := Change{id, Stamp{id, dag.Pos{Clock: n, Batch: id}, dag.PublicKey{1}}, p}
					st.AddChange(id, c.At, p)
					cs = append(cs, c)
				}
				if _, err := tr.Apply(cs...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/change")
		})
	}
}

// BenchmarkApplyMoves merges a thousand directory moves with a thousand made elsewhere at the same time.
func BenchmarkApplyMoves(b *testing.B) {
	for b.Loop() {
		st := NewMemStore(nil)
		tr, err := NewTree(simSpace, st)
		if err != nil {
			b.Fatal(err)
		}
		var dirs []dag.ID
		clock := uint64(0)
		apply := func(object dag.ID, clock uint64, p *Payload) {
			id := dag.Sum(append(binary.BigEndian.AppendUint64(nil, clock), object[:]...))
			if object.IsZero() {
				object = id
				dirs = append(dirs, id)
			}
			at := Stamp{id, dag.Pos{Clock: clock, Batch: id}, dag.PublicKey{1}}
			st.AddChange(object, at, p)
			if _, err := tr.Apply(Change{object, at, p}); err != nil {
				b.Fatal(err)
			}
		}
		for i := range 100 {
			parent := tr.Root()
			if i > 0 {
				parent = dirs[i/2]
			}
			clock++
			apply(dag.ID{}, clock, &Payload{Kind: KindDir, Ops: []Op{{Kind: OpLink, Parent: parent, Name: fmt.Sprint(i)}}})
		}
		move := func(clock uint64, i int) {
			apply(dirs[i%100], clock, &Payload{Ops: []Op{{Kind: OpMove, Link: Ref{dirs[i%100], 0}, Parent: dirs[i*7%100], Name: fmt.Sprint(i % 100)}}})
		}
		for i := range uint64(1000) {
			move(clock+2*i+2, int(i))
		}
		for i := range uint64(1000) {
			move(clock+2*i+1, int(3*i+1))
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	st := NewMemStore(nil)
	tr, err := NewTree(simSpace, st)
	if err != nil {
		b.Fatal(err)
	}
	for n := range uint64(1000) {
		id := dag.Sum(binary.BigEndian.AppendUint64(nil, n))
		if _, err := tr.Apply(Change{id, Stamp{id, dag.Pos{Clock: n + 1, Batch: id}, dag.PublicKey{1}}, smallFile(tr.Root(), fmt.Sprint(n))}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, ok, err := tr.Lookup(tr.Root(), "500"); err != nil || !ok {
			b.Fatal(err)
		}
	}
}

// BenchmarkStateSaves is one save of a source file that was saved often.
func BenchmarkStateSaves(b *testing.B) {
	w := newWriter(b, KindFile)
	text := bytes.Repeat([]byte("a line of a source file\n"), 170)
	at := w.write(string(text))
	i := 0
	for b.Loop() {
		i++
		text[i%len(text)] ^= 1
		at = w.write(string(text), at)
	}
	b.ReportMetric(float64(len(w.s.Encode())), "bytes/state")
}

func BenchmarkStateEncode(b *testing.B) {
	s := NewState(fuzzSelf)
	if err := s.Apply(Stamp{fuzzSelf, dag.Pos{Clock: 1}, dag.PublicKey{1}}, smallFile(dag.Sum(nil), "a")); err != nil {
		b.Fatal(err)
	}
	enc := s.Encode()
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			s.Encode()
		}
		b.ReportMetric(float64(len(enc)), "bytes/state")
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := DecodeState(enc); err != nil {
				b.Fatal(err)
			}
		}
	})
}
