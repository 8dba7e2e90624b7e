package block

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// TestGetToGive damages blocks behind the store's back. What was put or given a short while ago is given as it lies there; once that is long ago or somebody
// doubts, and to everyone else at any time, the damage is told.
func TestGetToGive(t *testing.T) {
	d := disk.NewSim(nil)
	s, err := Open(Options{Disk: d, Dir: "blocks", DB: kv.NewMem(), Seal: xorSealer{}})
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(0)
	put := func(n int) ID {
		b := make([]byte, n)
		seed++
		_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
		id, err := s.Put(b)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	hurt := func(id ID) {
		t.Helper()
		p, _, _ := s.lookup(id)
		flip(t, d, s.segmentName(p.seg), int64(p.off)+recordHeader+int64(p.n)/2)
	}
	blind := func(id ID) bool {
		t.Helper()
		b, err := s.GetToGive(id, nil)
		if err != nil && !errors.Is(err, ErrCorrupt) || err == nil && Sum(b) == id {
			t.Fatal("the damage is gone:", err)
		}
		return err == nil
	}
	for name, c := range map[string]struct {
		size int
		do   func(id ID)
		want bool
	}{
		"just put":   {minLately, func(ID) {}, true},
		"short":      {minLately - 1, func(ID) {}, false},
		"aged once":  {minLately, func(ID) { s.Age() }, true},
		"aged twice": {minLately, func(ID) { s.Age(); s.Age() }, false},
		"doubted":    {minLately, func(ID) { s.Doubt() }, false},
		"many since": {minLately, func(ID) { put(minLately * 2); s.Age() }, true},
		"too many since": {minLately, func(ID) {
			for range 2 * maxLately {
				put(minLately)
			}
		}, false},
		"read by another": {minLately, func(id ID) { _, _ = s.GetLocal(id) }, false}, // which tells the damage
	} {
		id := put(c.size)
		hurt(id)
		c.do(id)
		if got := blind(id); got != c.want {
			t.Errorf("%s: given unhashed: %v", name, got)
		}
		if _, err := s.GetLocal(id); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: who keeps it gets %v", name, err)
		}
		if blind(id) {
			t.Errorf("%s: it is given although it is known to be damaged", name)
		}
		if bad := damage(t, s); !errors.Is(bad[id], ErrCorrupt) {
			t.Errorf("%s: Verify tells %v", name, bad[id])
		}
	}
	// What was hashed to be given is not hashed for the next who asks.
	id := put(minLately)
	s.Doubt()
	if b, err := s.GetToGive(id, nil); err != nil || Sum(b) != id {
		t.Fatal(err)
	}
	hurt(id)
	if !blind(id) {
		t.Error("it was hashed again")
	}
	if n := len(s.lately.young) + len(s.lately.old); n > 2*maxLately {
		t.Error(n, "places are kept")
	}
}

// TestGetToGiveMoved evicts and puts blocks again, and compacts: what is given is what is there.
func TestGetToGiveMoved(t *testing.T) {
	_, _, s := filled(t, 40)
	s.lately.min = 1
	give := func() {
		t.Helper()
		for n := range 40 {
			b, err := s.GetToGive(dataID(n), nil)
			if gone := n%4 != 0; gone && !errors.Is(err, ErrAbsent) || !gone && (err != nil || !bytes.Equal(b, data(n))) {
				t.Fatalf("block %d: %v", n, err)
			}
		}
	}
	for n := range 40 {
		if _, err := s.GetToGive(dataID(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for n := range 40 {
			if n%4 != 0 {
				p, _, _ := s.lookup(dataID(n))
				if err := s.Evict(dataID(n)); err != nil {
					t.Fatal(err)
				}
				if s.lately.has(p) {
					t.Fatalf("the place of block %d is known after it is gone", n)
				}
			}
		}
		give()
		if err := s.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		give()
		for n := range 40 {
			if _, err := s.Put(data(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
