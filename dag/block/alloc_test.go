package block

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"
	"slices"
	"testing"
)

// TestAllocation: n bytes of a node or a CAR cost at most 64 KiB + 2n of memory, whatever lengths they name.
func TestAllocation(t *testing.T) {
	var head bytes.Buffer
	w, err := NewCARWriter(&head, Sum(nil).CID())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	car := func(announced, given int) []byte {
		data := make([]byte, given)
		b := binary.AppendUvarint(bytes.Clone(head.Bytes()), uint64(cidLen+announced))
		return slices.Concat(b, Sum(data).CID().Bytes(), data)
	}
	full := node{}
	for i := range MaxLinks {
		full.links = append(full.links, link{id: ID{byte(i)}, node: true, size: math.MaxInt64 / 200, total: math.MaxInt64})
	}
	cars := map[string][]byte{
		"a whole block": car(3<<20, 3<<20), "a small block": car(100, 100), "the longest block": car(MaxSize, MaxSize),
		"a block cut short": car(MaxSize, 1<<20+1), "a block that is not there": car(MaxSize, 0), "a header that is not there": {0xf0, 0x05},
	}
	nodes := map[string][]byte{
		"empty links": bytes.Repeat([]byte{tagLinks, 0}, 5000), "many links": full.encode(),
		"a long link": append([]byte{tagLinks}, binary.AppendUvarint(nil, math.MaxUint64)...),
	}
	check := func(name string, b []byte, fn func()) {
		t.Helper()
		least := uint64(math.MaxUint64) // other goroutines may allocate too
		for range 5 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			fn()
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		if limit := 64<<10 + 2*uint64(len(b)); least > limit {
			t.Errorf("%s: %d bytes for an input of %d", name, least, len(b))
		}
	}
	for name, b := range cars {
		check(name, b, func() { readAll(b) })
	}
	for name, b := range nodes {
		check(name, b, func() { decodeNode(b) })
	}
}
