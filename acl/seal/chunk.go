package seal

import (
	"crypto/cipher"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/zeebo/blake3"
)

const (
	// MaxChunk is the largest plaintext of a block in bytes.
	MaxChunk = 4 << 20
	// SegmentBytes is the plaintext of one segment: what a small read has to decrypt.
	SegmentBytes = 16 << 10

	sealedSegment = SegmentBytes + tagBytes
	blockHead     = 32 + blockNonceBytes // commitment and nonce
	lengthBytes   = 4                    // the true length, big-endian, at the end of the padded plaintext

	blockNonceBytes = 24
)

type blockNonce [blockNonceBytes]byte

// BlockSize is the size in bytes of the block that SealChunk makes of n bytes.
func BlockSize(n int) int {
	inner := padme(n + lengthBytes)
	return blockHead + inner + segments(inner)*tagBytes
}

// segments is how many segments hold n bytes; n is never zero.
func segments(n int) int { return (n + SegmentBytes - 1) / SegmentBytes }

// SealChunk appends to dst the block that holds plaintext, sealed in the current epoch.
//
// Equal chunks of one space and epoch give equal blocks. plaintext must not overlap the spare capacity of dst. It
// returns ErrNoKey where there is no key and ErrTooLarge above MaxChunk, with dst unchanged.
func (s *Space) SealChunk(dst, plaintext []byte) ([]byte, error) {
	return s.sealBlock(dst, plaintext, (*epoch).chunkNonce)
}

// SealPreview is SealChunk for a page of a preview. Its nonce has a key of its own: no block of a file's content is ever that of a page, so
// that pages can go without a look at what files refer to. OpenChunk opens both.
func (s *Space) SealPreview(dst, plaintext []byte) ([]byte, error) {
	return s.sealBlock(dst, plaintext, (*epoch).previewNonce)
}

func (s *Space) sealBlock(dst, plaintext []byte, nonceOf func(*epoch, []byte) blockNonce) ([]byte, error) {
	if len(plaintext) > MaxChunk {
		return dst, ErrTooLarge
	}
	e := s.keys().current
	if e == nil {
		return dst, ErrNoKey
	}
	start := len(dst)
	dst = slices.Grow(dst, BlockSize(len(plaintext)))
	dst = append(dst, e.commitment[:]...)
	nonce := nonceOf(e, plaintext)
	dst = append(dst, nonce[:]...)
	c := e.chunkCipher(nonce, padme(len(plaintext)+lengthBytes))
	defer c.free()
	for i := range c.segments {
		from, to := i*SegmentBytes, min((i+1)*SegmentBytes, c.inner)
		if to <= len(plaintext) {
			dst = c.seal(dst, i, plaintext[from:to])
			continue
		}
		// The segments with padding are put together in their place and sealed over themselves.
		at := len(dst)
		pad := dst[at : at+to-from]
		n := 0
		if from < len(plaintext) {
			n = copy(pad, plaintext[from:])
		}
		clear(pad[n:])
		if to == c.inner {
			binary.BigEndian.PutUint32(pad[len(pad)-lengthBytes:], uint32(len(plaintext)))
		}
		dst = c.seal(dst, i, pad)
	}
	return dst[:len(dst):max(len(dst), start)], nil
}

// chunkNonce is BLAKE3 of the plaintext, keyed, cut to 24 bytes.
func (e *epoch) chunkNonce(plaintext []byte) blockNonce { return keyedNonce(&e.blockNonce, plaintext) }

// previewNonce is chunkNonce under another key.
func (e *epoch) previewNonce(plaintext []byte) blockNonce { return keyedNonce(&e.pageNonce, plaintext) }

func keyedNonce(hashers *sync.Pool, plaintext []byte) (n blockNonce) {
	h := hashers.Get().(*blake3.Hasher)
	h.Reset()
	h.Write(plaintext)
	var sum [32]byte
	h.Sum(sum[:0])
	hashers.Put(h)
	copy(n[:], sum[:])
	return n
}

// block returns the AEAD of one block.
func (e *epoch) block(nonce blockNonce) cipher.AEAD {
	slot := &e.blocks[nonce[0]%cacheSlots]
	if c := slot.Load(); c != nil && c.of == nonce {
		return c.aead
	}
	h := e.blockSub.Get().(*blake3.Hasher)
	h.Reset()
	h.Write(nonce[:])
	var key [keyBytes]byte
	h.Sum(key[:0])
	e.blockSub.Put(h)
	a := newAEAD(key)
	slot.Store(&cachedAEAD[blockNonce]{nonce, a})
	return a
}
