package seal

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

// noting is a source that tells in what order it was asked for what.
type noting struct {
	block []byte
	asked []asked
}

type asked struct {
	ahead  bool
	off, n int64
}

func (s *noting) ReadAt(p []byte, off int64) (int, error) {
	s.asked = append(s.asked, asked{false, off, int64(len(p))})
	return bytes.NewReader(s.block).ReadAt(p, off)
}

func (s *noting) Ahead(off, n int64) { s.asked = append(s.asked, asked{true, off, n}) }

var (
	_ io.ReaderAt = (*noting)(nil)
	_ Aheader     = (*noting)(nil)
)

// TestChunkHead reads parts of a block: the first read brings in what it wants while it reads the head, and no later one reads
// the head again.
func TestChunkHead(t *testing.T) {
	s, _, _ := space1(t)
	plain := pattern(1 << 20)
	block, err := s.SealChunk(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	src := &noting{block: block}
	var head ChunkHead
	read := func(off int64, n int, want ...asked) {
		t.Helper()
		p := make([]byte, n)
		src.asked = nil
		if got, err := s.ReadChunk(src, int64(len(block)), &head, p, off); err != nil || got != n || !bytes.Equal(p, plain[off:off+int64(n)]) {
			t.Fatalf("%d bytes at %d: %d, %v", n, off, got, err)
		}
		if !slices.Equal(src.asked, want) {
			t.Errorf("%d bytes at %d asked for %v, not %v", n, off, src.asked, want)
		}
		if !head.Known() {
			t.Error("the head is not known")
		}
	}
	seg := func(i int64) int64 { return blockHead + i*sealedSegment }
	read(5*SegmentBytes+7, 4096, asked{true, seg(5), sealedSegment}, asked{false, 0, blockHead}, asked{false, seg(5), sealedSegment})
	read(9*SegmentBytes, 4096, asked{false, seg(9), sealedSegment})
	read(3*SegmentBytes-1, 2, asked{false, seg(2), 2 * sealedSegment})

	head = ChunkHead{}
	read(7, 1, asked{false, 0, blockHead}, asked{false, seg(0), sealedSegment}) // they lie together: nothing to bring in
	head = ChunkHead{}
	read(SegmentBytes, 2*segmentRun*SegmentBytes, asked{false, 0, blockHead},
		asked{false, seg(1), segmentRun * sealedSegment}, asked{false, seg(1 + segmentRun), segmentRun * sealedSegment}) // the head is the least of it
}

// TestChunkHeadOfDamage shows that a head is kept only when something opened under it, and that one of another block opens nothing.
func TestChunkHeadOfDamage(t *testing.T) {
	s, _, _ := space1(t)
	plain := pattern(40 << 10)
	block, _ := s.SealChunk(nil, plain)
	other, _ := s.SealChunk(nil, pattern(41 << 10)[1<<10:])
	p := make([]byte, 100)
	for _, at := range []int{33, blockHead + 100} { // the nonce, the first segment
		bad := bytes.Clone(block)
		bad[at] ^= 1
		var head ChunkHead
		if _, err := s.ReadChunk(bytes.NewReader(bad), int64(len(bad)), &head, p, 0); !errors.Is(err, ErrForged) {
			t.Errorf("with byte %d changed: %v", at, err)
		}
		if head.Known() {
			t.Errorf("with byte %d changed the head is known", at)
		}
	}
	var head ChunkHead
	if _, err := s.ReadChunk(bytes.NewReader(other), int64(len(other)), &head, p, 0); err != nil {
		t.Fatal(err)
	}
	kept := head
	if n, err := s.ReadChunk(bytes.NewReader(block), int64(len(block)), &head, p, 0); !errors.Is(err, ErrForged) || n != 0 {
		t.Errorf("under the head of another block: %d, %v", n, err)
	}
	if head != kept {
		t.Error("a read that failed changed the head")
	}
}
