package seal

import (
	"bytes"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestSealPreview: a page of a preview opens as a block does, is the same each time, and is never the block of a file with the same bytes.
func TestSealPreview(t *testing.T) {
	s := NewSpace(dag.ID{1})
	s.Add(dag.ID{1}, ReadKey{2})
	for _, n := range []int{0, 1, 20_000} {
		plain := bytes.Repeat([]byte{3}, n)
		page, err := s.SealPreview(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		again, _ := s.SealPreview(nil, plain)
		chunk, _ := s.SealChunk(nil, plain)
		if !bytes.Equal(page, again) || bytes.Equal(page, chunk) {
			t.Errorf("%d bytes: a page that changes, or is a file's", n)
		}
		if open, err := s.OpenChunk(nil, page); err != nil || !bytes.Equal(open, plain) {
			t.Errorf("%d bytes open as %d, %v", n, len(open), err)
		}
	}
}
