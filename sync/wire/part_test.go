package wire

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/anyfs/anyfs/dag/block"
)

// general is whether the general encoder takes a body for that of m, to which it is decoded.
func general(b []byte, m Message) bool {
	if decMode.Unmarshal(b, m) != nil || m.check() != nil {
		return false
	}
	again, err := encMode.Marshal(m)
	return err == nil && bytes.Equal(again, b)
}

// What carries bytes of a block is encoded and refused as the general encoder does it.
func TestBulkLikeGeneral(t *testing.T) {
	sizes := []uint64{0, 1, 23, 24, 255, 256, 65535, 65536, 1 << 20, 1<<32 - 1, 1 << 32, 1<<64 - 1}
	id := block.Sum([]byte("a block"))
	for _, request := range sizes {
		for _, left := range sizes[:9] {
			for _, n := range []int{0, 1, 23, 24, 255, 256, 65536, MaxPart} {
				data := bytes.Repeat([]byte{7}, n)
				for _, m := range []bulk{
					&Part{Request: request, Left: left, Data: data, Absent: n == 0 && left == 0}, &PutBlock{Request: request, ID: id, Left: left, Data: data},
				} {
					if m.check() != nil {
						continue
					}
					want, err := encMode.Marshal(m)
					if err != nil {
						t.Fatal(err)
					}
					if got := Append(nil, m)[4:]; !bytes.Equal(got, want) {
						t.Fatalf("%T %d %d %d bytes: % x, and in general % x", m, request, left, n, got[:min(40, len(got))], want[:min(40, len(want))])
					}
				}
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	refused, taken := map[Kind]int{}, map[Kind]int{}
	for range 200_000 {
		n := rnd.IntN(40)
		p := &Part{Request: rnd.Uint64() >> rnd.IntN(64), Data: make([]byte, n), Absent: n == 0}
		if n > 0 {
			p.Left = uint64(rnd.IntN(1 << 21))
		}
		var m bulk = p
		head := 24
		if rnd.IntN(2) == 0 {
			m, head = &PutBlock{Request: p.Request, ID: id, Left: p.Left, Data: p.Data}, 60
		}
		kind := m.kind()
		b := Append(nil, m)[4:]
		switch rnd.IntN(4) {
		case 0:
			b = b[:rnd.IntN(len(b)+1)]
		case 1:
			b = append(b, byte(rnd.Uint32()))
		default:
			b[rnd.IntN(min(len(b), head))] ^= 1 << rnd.IntN(8)
		}
		var want Message = new(Part)
		at := 1
		if kind == KindPutBlock {
			want, at = new(PutBlock), 2
		}
		if len(b) <= at || b[at] != byte(kind) || at == 2 && b[1] != 0x18 {
			continue
		}
		ok := general(b, want)
		got, err := Decode(b)
		if (err == nil) != ok {
			t.Fatalf("%T % x: %v, and in general taken: %v", m, b, err, ok)
		}
		if err != nil {
			refused[kind]++
			continue
		}
		taken[kind]++
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("% x: %v, and in general %v", b, got, want)
		}
	}
	if min(refused[KindPart], refused[KindPutBlock], taken[KindPart], taken[KindPutBlock]) < 1000 {
		t.Fatalf("%d refused, %d taken: nothing was tried", refused, taken)
	}
}

func BenchmarkPart(b *testing.B) {
	p := Append(nil, &Part{Request: 3, Left: 1 << 20, Data: make([]byte, 128<<10)})
	r := bytes.NewReader(p)
	in := NewReader(r)
	in.Limit = MaxBody
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		r.Reset(p)
		if _, err := in.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
