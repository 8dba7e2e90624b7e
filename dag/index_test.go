package dag

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzIndex: what the index may hold for an object, a chain or a past is refused as damage, or comes back as it was read.
func FuzzIndex(f *testing.F) {
	r := ref{id: Sum([]byte("change")), clock: 7, batch: 1, at: 30, chain: 2, off: 400, size: 80, crc: 9, place: 3}
	late := r
	late.clock, late.at, late.id = 9, 40, Sum([]byte("late"))
	root := r
	root.id = Sum([]byte("object"))
	for _, o := range []*object{
		{id: Sum([]byte("object")), total: 1, heads: []ref{root}, tail: []ref{root}},
		{id: Sum([]byte("object")), total: 99, heads: []ref{late, r}, tail: []ref{late}},
		{id: Sum([]byte("object"))},
	} {
		f.Add(o.encode())
	}
	here := spot{id: Sum([]byte("batch")), seq: 3, clock: 7, at: 30}
	before := spot{id: Sum([]byte("before")), seq: 2, clock: 5, at: 20}
	f.Add((&chain{tip: here, shown: here, counted: here}).encode())
	f.Add((&chain{tip: here, shown: before}).encode())
	f.Add(vector{1, 0, 1 << 40}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if o, err := decodeObject(5, p); err == nil {
			again, err := decodeObject(5, o.encode())
			if err != nil || !bytes.Equal(again.encode(), o.encode()) {
				t.Errorf("an object does not come back: %v", err)
			}
		} else if !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		if c, err := decodeChain(5, p); err == nil {
			again, err := decodeChain(5, c.encode())
			if err != nil || *again != *c {
				t.Errorf("a chain does not come back: %v", err)
			}
		} else if !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		if v, err := decodeVector(p); err == nil {
			again, err := decodeVector(v.encode())
			if err != nil || !bytes.Equal(again.encode(), v.encode()) {
				t.Errorf("a past does not come back: %v", err)
			}
		} else if !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}
