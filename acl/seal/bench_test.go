package seal

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

func BenchmarkSealChange500(b *testing.B) {
	s, id, second := space1(b)
	h := header(id, second, dag.ID{}, dag.ID{1})
	plain := make([]byte, 500)
	b.ReportAllocs()
	var n uint64
	for b.Loop() {
		n++
		h.Object = dag.ID{byte(n), byte(n >> 8), byte(n >> 16), 1} // always another object
		if _, err := s.SealChange(h, plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealRoot500(b *testing.B) {
	s, id, second := space1(b)
	h := header(id, second, dag.ID{})
	plain := make([]byte, 500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.SealChange(h, plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenChange500SameObject(b *testing.B) {
	s, id, second := space1(b)
	h := header(id, second, dag.ID{7})
	sealed, _ := s.SealChange(h, make([]byte, 500))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.OpenChange(h, sealed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealChunk1M(b *testing.B) {
	s, _, _ := space1(b)
	plain := make([]byte, 1<<20)
	rand.Read(plain)
	var out []byte
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		out, _ = s.SealChunk(out[:0], plain)
	}
}

func BenchmarkOpenChunk1M(b *testing.B) {
	s, _, _ := space1(b)
	block, _ := s.SealChunk(nil, make([]byte, 1<<20))
	var out []byte
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		out, _ = s.OpenChunk(out[:0], block)
	}
}

func BenchmarkReadChunk4K(b *testing.B) {
	s, _, _ := space1(b)
	block, _ := s.SealChunk(nil, make([]byte, 1<<20))
	p := make([]byte, 4096)
	r := bytes.NewReader(block)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ReadChunk(r, int64(len(block)), nil, p, 512<<10); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSealLocal200(b *testing.B) {
	l := NewLocal([32]byte{1})
	plain, ad := make([]byte, 200), make([]byte, 16)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = l.SealLocal(out[:0], plain, ad)
	}
}

func BenchmarkOpenLocal200(b *testing.B) {
	l := NewLocal([32]byte{1})
	ad := make([]byte, 16)
	sealed := l.SealLocal(nil, make([]byte, 200), ad)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out, _ = l.OpenLocal(out[:0], sealed, ad)
	}
}

func BenchmarkNameHash(b *testing.B) {
	s, _, _ := space1(b)
	parent := make([]byte, 32)
	name := "a file name of usual size.txt"
	b.ReportAllocs()
	for b.Loop() {
		s.NameHash(parent, name)
	}
}
