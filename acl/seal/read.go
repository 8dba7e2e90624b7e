package seal

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// segmentCipher seals and opens the segments of one block.
type segmentCipher struct {
	aead     cipher.AEAD
	inner    int // length of the padded plaintext
	segments int
	buf      *cipherBuf
	pools    *pools
}

func (e *epoch) chunkCipher(nonce blockNonce, inner int) segmentCipher {
	c := segmentCipher{e.block(nonce), inner, segments(inner), e.pools.cipher.Get().(*cipherBuf), e.pools}
	binary.BigEndian.PutUint64(c.buf.ad[:], uint64(c.segments))
	return c
}

func (c *segmentCipher) free() { c.pools.cipher.Put(c.buf) }

func (c *segmentCipher) seal(dst []byte, i int, plain []byte) []byte {
	binary.BigEndian.PutUint64(c.buf.nonce[nonceBytes-8:], uint64(i))
	return c.aead.Seal(dst, c.buf.nonce[:], plain, c.buf.ad[:])
}

func (c *segmentCipher) open(dst []byte, i int, sealed []byte) ([]byte, error) {
	binary.BigEndian.PutUint64(c.buf.nonce[nonceBytes-8:], uint64(i))
	dst, err := c.aead.Open(dst, c.buf.nonce[:], sealed, c.buf.ad[:])
	if err != nil {
		return nil, ErrForged
	}
	return dst, nil
}

// innerSize is the length of the padded plaintext of a block of that size; false for a size that no block has.
func innerSize(blockSize int64) (int, bool) {
	body := blockSize - blockHead
	if body <= tagBytes || body > int64(BlockSize(MaxChunk)) {
		return 0, false
	}
	n := int((body + sealedSegment - 1) / sealedSegment)
	inner := int(body) - n*tagBytes
	if inner < lengthBytes || segments(inner) != n || padme(inner) != inner {
		return 0, false
	}
	return inner, true
}

// trueLength reads the length at the end of the padded plaintext, whose last bytes last are.
// A length that would have been padded otherwise is forged. Lengths never straddle two segments, since padded
// plaintexts of more than one segment are multiples of 1 KiB.
func trueLength(inner int, last []byte) (int, error) {
	n := binary.BigEndian.Uint32(last[len(last)-lengthBytes:])
	if n > MaxChunk || padme(int(n)+lengthBytes) != inner {
		return 0, ErrForged
	}
	return int(n), nil
}

// cipherOf finds the epoch of a block and checks its size.
func (s *Space) cipherOf(head []byte, blockSize int64) (segmentCipher, error) {
	inner, ok := innerSize(blockSize)
	if !ok {
		return segmentCipher{}, errTruncated
	}
	e := s.keys().commitments[[32]byte(head)]
	if e == nil {
		return segmentCipher{}, ErrNoKey
	}
	return e.chunkCipher(blockNonce(head[32:blockHead]), inner), nil
}

// OpenChunk appends to dst the plaintext of a block, which must not overlap the spare capacity of dst.
// It returns ErrNoKey for a block of an epoch or space whose key is not here and ErrForged for a damaged one.
func (s *Space) OpenChunk(dst, block []byte) ([]byte, error) {
	if len(block) < blockHead {
		return dst, errTruncated
	}
	c, err := s.cipherOf(block[:blockHead], int64(len(block)))
	if err != nil {
		return dst, err
	}
	defer c.free()
	out := slices.Grow(dst, c.inner)
	sealed := block[blockHead:]
	for i := range c.segments {
		n := min(len(sealed), sealedSegment)
		if out, err = c.open(out, i, sealed[:n]); err != nil {
			return dst, err
		}
		sealed = sealed[n:]
	}
	n, err := trueLength(c.inner, out)
	if err != nil {
		return dst, err
	}
	return out[:len(dst)+n], nil
}

// ChunkHead is what a block begins with, which every read of it needs: 56 bytes that stay the same as long as the block
// exists. The zero value is one that is not known yet. It is not safe for concurrent use.
type ChunkHead struct {
	bytes [blockHead]byte
	known bool
}

// Known reports whether a read has filled it, and found that it fits what it read.
func (h *ChunkHead) Known() bool { return h.known }

// Aheader is what a source of a block may be beside io.ReaderAt: Ahead has it bring in n bytes from off on, and does not
// wait for them.
type Aheader interface{ Ahead(off, n int64) }

// ReadChunk reads len(p) bytes of a block's plaintext from off on, decrypting only the segments it touches.
//
// src holds the block's blockSize bytes and is read in runs of at most 256 KiB. Like io.ReaderAt it returns io.EOF
// with fewer bytes where the plaintext ends, ErrNoKey, ErrForged, or src's error. A read close to the end decrypts
// the last segment too, which holds the true length.
//
// head, which may be nil, keeps the block's head from one read to the next: with one that is known, src is read once. Else what
// is to be read comes in together with the head if src is an Aheader. A read that fails leaves head as it was.
func (s *Space) ReadChunk(src io.ReaderAt, blockSize int64, head *ChunkHead, p []byte, off int64) (int, error) {
	known := head != nil && head.known
	if a, ok := src.(Aheader); ok && !known && off >= 0 && len(p) > 0 {
		if first, last := off/SegmentBytes, (off+int64(len(p))-1)/SegmentBytes; first > 0 && last-first < segmentRun {
			a.Ahead(blockHead+first*sealedSegment, (last-first+1)*sealedSegment)
		}
	}
	c, err := s.openHead(src, blockSize, head)
	if err != nil {
		return 0, err
	}
	defer c.free()
	n, err := c.readAt(src, p, off)
	if head != nil && n > 0 {
		head.bytes, head.known = c.buf.head, true
	}
	return n, err
}

// readAt is ReadChunk, with the block's head open.
func (c *segmentCipher) readAt(src io.ReaderAt, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("seal: negative offset")
	}
	if len(p) == 0 {
		return 0, nil
	}
	// A plaintext is at least so long; what lies before that needs no look at the true length.
	sure := int64(c.inner - 1<<padmeBits(c.inner) - lengthBytes)
	var eof error
	if end := off + int64(len(p)); end > sure || end < off {
		n, err := c.size(src)
		if err != nil {
			return 0, err
		}
		if off >= n {
			return 0, io.EOF
		}
		if end > n {
			p, eof = p[:n-off], io.EOF
		}
	}
	if err := c.read(src, p, int(off)); err != nil {
		return 0, err
	}
	return len(p), eof
}

// ChunkSize is the true length of a block's plaintext, from its last segment.
func (s *Space) ChunkSize(src io.ReaderAt, blockSize int64) (int64, error) {
	c, err := s.openHead(src, blockSize, nil)
	if err != nil {
		return 0, err
	}
	defer c.free()
	return c.size(src)
}

// openHead opens the head of a block, which it reads where it is not known.
func (s *Space) openHead(src io.ReaderAt, blockSize int64, head *ChunkHead) (segmentCipher, error) {
	if blockSize < blockHead {
		return segmentCipher{}, errTruncated
	}
	buf := s.pools.cipher.Get().(*cipherBuf)
	defer s.pools.cipher.Put(buf)
	if head != nil && head.known {
		buf.head = head.bytes
	} else if err := readFull(src, buf.head[:], 0); err != nil {
		return segmentCipher{}, err
	}
	c, err := s.cipherOf(buf.head[:], blockSize)
	if err == nil {
		c.buf.head = buf.head
	}
	return c, err
}

// size decrypts the last segment for the true length.
func (c *segmentCipher) size(src io.ReaderAt) (int64, error) {
	buf := c.pools.one.Get().(*[]byte)
	defer c.pools.one.Put(buf)
	last := c.segments - 1
	sealed := (*buf)[:c.inner-last*SegmentBytes+tagBytes]
	if err := readFull(src, sealed, blockHead+int64(last)*sealedSegment); err != nil {
		return 0, err
	}
	plain, err := c.open(sealed[:0], last, sealed)
	if err != nil {
		return 0, err
	}
	n, err := trueLength(c.inner, plain)
	return int64(n), err
}

// read fills p from the padded plaintext's offset off on, all of which lies inside it.
func (c *segmentCipher) read(src io.ReaderAt, p []byte, off int) error {
	pool := c.pools.segments(((off+len(p)-1)/SegmentBytes - off/SegmentBytes + 1) * sealedSegment)
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	for len(p) > 0 {
		first := off / SegmentBytes
		last := min((off+len(p)-1)/SegmentBytes, first+segmentRun-1) // of this run
		runEnd := min((last+1)*SegmentBytes, c.inner)
		run := (*buf)[:runEnd-first*SegmentBytes+(last-first+1)*tagBytes]
		if err := readFull(src, run, blockHead+int64(first)*sealedSegment); err != nil {
			return err
		}
		for i := first; i <= last; i++ {
			sealed := run[:min(len(run), sealedSegment)]
			run = run[len(sealed):]
			skip, size := off-i*SegmentBytes, len(sealed)-tagBytes
			if skip == 0 && len(p) >= size { // a whole segment goes straight into p
				if _, err := c.open(p[:0:size], i, sealed); err != nil {
					return err
				}
				p, off = p[size:], off+size
				continue
			}
			plain, err := c.open(sealed[:0], i, sealed)
			if err != nil {
				return err
			}
			n := copy(p, plain[skip:])
			p, off = p[n:], off+n
		}
	}
	return nil
}

// readFull reads len(p) bytes; a source that ends sooner is a block cut short.
func readFull(src io.ReaderAt, p []byte, off int64) error {
	n, err := src.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTruncated
	}
	return err
}
