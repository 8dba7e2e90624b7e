package seal

import (
	"bytes"
	"math"
	"runtime"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestAllocation: sealed bytes that do not open cost at most 64 KiB + 2n of memory.
func TestAllocation(t *testing.T) {
	s, id, epoch := space1(t)
	h := header(id, epoch, dag.ID{7}, dag.ID{8})
	block, err := s.SealChunk(nil, pattern(MaxChunk))
	if err != nil {
		t.Fatal(err)
	}
	block[len(block)-1] ^= 1
	private, err := KEM().NewPrivateKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	local := NewLocal([32]byte{1})
	for name, c := range map[string]struct {
		n    int
		open func() error
	}{
		"change": {MaxChange, func() error { return second(s.OpenChange(h, make([]byte, MaxChange))) }},
		"block":  {len(block), func() error { return second(s.OpenChunk(nil, block)) }},
		"part of a block": {len(block), func() error {
			_, err := s.ReadChunk(bytes.NewReader(block), int64(len(block)), nil, make([]byte, 1), MaxChunk-1)
			return err
		}},
		"wrap":  {WrapBytes, func() error { _, err := Unwrap(private, nil, make([]byte, WrapBytes)); return err }},
		"field": {1 << 20, func() error { return second(ReadKey{}.OpenField("l", nil, make([]byte, 1<<20))) }},
		"local": {1 << 20, func() error { return second(local.OpenLocal(nil, make([]byte, 1<<20), nil)) }},
	} {
		least := uint64(math.MaxUint64)
		for range 5 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := c.open()
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Fatalf("%s opens", name)
			}
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		if limit := 64<<10 + 2*uint64(c.n); least > limit { // what is handed over is counted too
			t.Errorf("%s: %d bytes for an input of %d", name, least, c.n)
		}
	}
}
