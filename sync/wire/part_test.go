package wire

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// A Part is encoded and refused as the general encoder does it.
func TestPartLikeGeneral(t *testing.T) {
	sizes := []uint64{0, 1, 23, 24, 255, 256, 65535, 65536, 1 << 20, 1<<32 - 1, 1 << 32, 1<<64 - 1}
	for _, request := range sizes {
		for _, left := range sizes[:9] {
			for _, n := range []int{0, 1, 23, 24, 255, 256, 65536, MaxPart} {
				p := &Part{Request: request, Left: left, Data: bytes.Repeat([]byte{7}, n), Absent: n == 0 && left == 0}
				if p.check() != nil {
					continue
				}
				want, err := encMode.Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				if got := Append(nil, p)[4:]; !bytes.Equal(got, want) {
					t.Fatalf("%d %d %d bytes: % x, and in general % x", request, left, n, got[:min(40, len(got))], want[:min(40, len(want))])
				}
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	refused := 0
	for range 100_000 {
		n := rnd.IntN(40)
		p := &Part{Request: rnd.Uint64() >> rnd.IntN(64), Data: make([]byte, n), Absent: n == 0}
		if n > 0 {
			p.Left = uint64(rnd.IntN(1 << 21))
		}
		b := Append(nil, p)[4:]
		switch rnd.IntN(4) {
		case 0:
			b = b[:rnd.IntN(len(b)+1)]
		case 1:
			b = append(b, byte(rnd.Uint32()))
		default:
			b[rnd.IntN(min(len(b), 24))] ^= 1 << rnd.IntN(8)
		}
		if len(b) < 2 || b[1] != byte(KindPart) {
			continue
		}
		var want Part
		general := decMode.Unmarshal(b, &want) == nil && want.check() == nil
		if general {
			again, err := encMode.Marshal(&want)
			general = err == nil && bytes.Equal(again, b)
		}
		m, err := Decode(b)
		if (err == nil) != general {
			t.Fatalf("% x: %v, and in general taken: %v", b, err, general)
		}
		if err != nil {
			refused++
			continue
		}
		if got := m.(*Part); got.Request != want.Request || got.Absent != want.Absent || got.Left != want.Left || !bytes.Equal(got.Data, want.Data) {
			t.Fatalf("% x: %v, and in general %v", b, got, want)
		}
	}
	if refused < 1000 {
		t.Fatalf("%d refused: nothing was tried", refused)
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
