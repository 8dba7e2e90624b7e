package index

import (
	"testing"

	"pgregory.net/rapid"
)

// TestExtentsAgainstBytes holds the map against an array that says for each byte which source and which byte of it is shown.
func TestExtentsAgainstBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 200
		type at struct {
			src  *Source
			skip int64
		}
		var model [size]at
		e := &Extents{}
		var frozen *Extents
		var frozenModel [size]at
		check := func(e *Extents, model *[size]at) {
			pos := int64(0)
			e.Range(0, size, func(off int64, x Extent) bool {
				if x.Len <= 0 || off < pos {
					t.Fatalf("extent at %d of length %d, after %d", off, x.Len, pos)
				}
				for ; pos < off; pos++ {
					if model[pos].src != nil {
						t.Fatalf("byte %d is missing", pos)
					}
				}
				for i := range x.Len {
					if m := model[off+i]; m.src != x.Src || m.skip != x.Skip+i {
						t.Fatalf("byte %d is byte %d of another source", off+i, x.Skip+i)
					}
				}
				pos = off + x.Len
				return true
			})
			for ; pos < size; pos++ {
				if model[pos].src != nil {
					t.Fatalf("byte %d is missing", pos)
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			off := rapid.Int64Range(0, size-1).Draw(t, "off")
			n := rapid.Int64Range(1, size-off).Draw(t, "n")
			switch rapid.SampledFrom([]string{"put", "put", "cut", "replace", "clone", "drop"}).Draw(t, "op") {
			case "put":
				s := &Source{Kind: SourceJournal, Seq: 5}
				if rapid.Bool().Draw(t, "late") {
					s.Seq = 9
				}
				skip := rapid.Int64Range(0, 9).Draw(t, "skip")
				e.Put(off, Extent{Len: n, Skip: skip, Src: s})
				for i := range n {
					model[off+i] = at{s, skip + i}
				}
			case "cut":
				e.Cut(off, n)
				for i := range n {
					model[off+i] = at{}
				}
			case "replace":
				old := model[off].src
				if old == nil {
					continue
				}
				with := &Source{Kind: SourceBlock, Seq: old.Seq}
				e.Replace(off, n, old, with, 3)
				for i := range n {
					if model[off+i].src == old {
						model[off+i] = at{with, model[off+i].skip + 3}
					}
				}
			case "clone":
				frozen, frozenModel = e.Clone(), model
			case "drop":
				e.Drop(5)
				for i := range model {
					if model[i].src != nil && model[i].src.Seq <= 5 {
						model[i] = at{}
					}
				}
			}
			check(e, &model)
			if frozen != nil {
				check(frozen, &frozenModel)
			}
		}
	})
}
