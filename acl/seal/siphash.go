package seal

import (
	"encoding/binary"
	"math/bits"
)

// sipKey is a key of SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
type sipKey struct{ k0, k1 uint64 }

func newSipKey(k [keyBytes]byte) sipKey {
	return sipKey{binary.LittleEndian.Uint64(k[:]), binary.LittleEndian.Uint64(k[8:])}
}

func (k sipKey) begin() sipHash {
	return sipHash{
		v0: k.k0 ^ 0x736f6d6570736575,
		v1: k.k1 ^ 0x646f72616e646f6d,
		v2: k.k0 ^ 0x6c7967656e657261,
		v3: k.k1 ^ 0x7465646279746573,
	}
}

// sipHash is a hash under way: whole words are in v, up to 7 bytes wait in tail, n counts all bytes.
type sipHash struct {
	v0, v1, v2, v3 uint64
	tail           uint64
	n              uint
}

func (s *sipHash) round() {
	s.v0 += s.v1
	s.v2 += s.v3
	s.v1 = bits.RotateLeft64(s.v1, 13) ^ s.v0
	s.v3 = bits.RotateLeft64(s.v3, 16) ^ s.v2
	s.v0 = bits.RotateLeft64(s.v0, 32)
	s.v2 += s.v1
	s.v0 += s.v3
	s.v1 = bits.RotateLeft64(s.v1, 17) ^ s.v2
	s.v3 = bits.RotateLeft64(s.v3, 21) ^ s.v0
	s.v2 = bits.RotateLeft64(s.v2, 32)
}

func (s *sipHash) mix(m uint64) {
	s.v3 ^= m
	s.round()
	s.round()
	s.v0 ^= m
}

// word writes m as 8 bytes, little-endian; only at a multiple of 8 bytes.
func (s *sipHash) word(m uint64) {
	s.mix(m)
	s.n += 8
}

func (s *sipHash) write(b []byte) {
	for len(b) > 0 && s.n%8 != 0 {
		s.byte(b[0])
		b = b[1:]
	}
	for len(b) >= 8 {
		s.word(binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	for _, c := range b {
		s.byte(c)
	}
}

func (s *sipHash) byte(c byte) {
	s.tail |= uint64(c) << (s.n % 8 * 8)
	if s.n++; s.n%8 == 0 {
		s.mix(s.tail)
		s.tail = 0
	}
}

func (s *sipHash) sum() uint64 {
	s.mix(s.tail | uint64(s.n)<<56)
	s.v2 ^= 0xff
	for range 4 {
		s.round()
	}
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3
}
