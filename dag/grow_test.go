package dag

import (
	"bytes"
	"testing"
)

// TestBuilderGrows fills a batch byte by byte in pieces of a small file: its buffer is made anew twice, keeps what it holds, and leaves the first one to the
// next batch, which makes one.
func TestBuilderGrows(t *testing.T) {
	g := &Graph{}
	for round, most := range []int{2, 1} {
		b := &Builder{g: g, raw: g.scratch[:0]}
		piece, made := bytes.Repeat([]byte{byte(round + 1)}, 4200), 0
		for len(b.raw)+len(piece) <= MaxBytes+roomBeyond {
			held, before := len(b.raw), cap(b.raw)
			if b.grow(held + len(piece)); len(b.raw) != held || held > 0 && b.raw[held-1] != piece[0] {
				t.Fatalf("of %d bytes %d are left", held, len(b.raw))
			}
			if held > startScratch && cap(b.raw) != before {
				made++
			}
			b.raw = append(b.raw, piece...)
		}
		if made > most {
			t.Errorf("batch %d made its buffer anew %d times, not %d", round, made, most)
		}
		if len(g.scratch) > keepScratch || cap(g.scratch) != keepScratch {
			t.Errorf("the graph keeps %d bytes, not %d", cap(g.scratch), keepScratch)
		}
		if cap(b.raw) != MaxBytes+roomBeyond {
			t.Errorf("the buffer of a full batch has %d bytes", cap(b.raw))
		}
		// One too long for that is left to append.
		before := cap(b.raw)
		if b.grow(before + 1); cap(b.raw) != before {
			t.Error("a buffer that append will make anew was made anew before")
		}
	}
}
