package seal

import (
	"encoding/binary"

	"github.com/zeebo/blake3"
)

// GearTable is the table by which chunks of this space are cut. It is keyed, so that cut points tell nothing about
// content and equal files in two spaces do not cut alike, and it is the same in all epochs.
// It panics where no key has been added.
func (s *Space) GearTable() (t [256]uint64) {
	first := s.keys().first
	if first == nil {
		panic("seal: space without a key")
	}
	key := expand(first.prk, labelGear)
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic("seal: " + err.Error())
	}
	var b [len(t) * 8]byte
	if _, err := h.Digest().Read(b[:]); err != nil {
		panic("seal: " + err.Error())
	}
	for i := range t {
		t[i] = binary.LittleEndian.Uint64(b[i*8:])
	}
	return t
}

// NameHash is a keyed hash of a name in a directory, the same in all epochs of the space: SipHash-2-4 cut to 63 bits.
// It panics where no key has been added.
func (s *Space) NameHash(parent []byte, name string) uint64 {
	first := s.keys().first
	if first == nil {
		panic("seal: space without a key")
	}
	h := first.names.begin()
	h.word(uint64(len(parent)))
	h.write(parent)
	h.write([]byte(name))
	return h.sum() >> 1
}
