package seal

import (
	"encoding/binary"

	"github.com/anyfs/anyfs/dag"
)

const (
	// MaxChange is the largest plaintext of a change in bytes.
	MaxChange = 1 << 20
	// minPadded hides the length of the smallest changes altogether.
	minPadded = 32
	padMark   = 0x80
)

// paddedLen is the length of a plaintext of n bytes with its mark and padding.
func paddedLen(n int) int { return max(minPadded, padme(n+1)) }

// SealChange pads and seals the payload of a change for the place that its header names.
//
// The result is nonce, ciphertext and tag: 28 bytes more than the padded plaintext. It returns ErrNoKey where the
// epoch's key is absent, ErrSpace for a header of another space and ErrTooLarge above MaxChange.
func (s *Space) SealChange(h dag.Header, plaintext []byte) ([]byte, error) {
	if h.Space != s.id {
		return nil, ErrSpace
	}
	if len(plaintext) > MaxChange {
		return nil, ErrTooLarge
	}
	e := s.keys().epochs[h.Epoch]
	if e == nil {
		return nil, ErrNoKey
	}
	n := paddedLen(len(plaintext))
	out := make([]byte, nonceBytes+n, nonceBytes+n+tagBytes)
	if err := s.nonce(out[:nonceBytes]); err != nil {
		return nil, err
	}
	copy(out[nonceBytes:], plaintext)
	out[nonceBytes+len(plaintext)] = padMark
	ad := s.pools.takeAD(&h)
	out = e.object(h.Object).Seal(out[:nonceBytes], out[:nonceBytes], out[nonceBytes:], *ad)
	s.pools.ad.Put(ad)
	return out, nil
}

// OpenChange opens the payload of a change in the place that its header names. The result is the caller's.
// It returns ErrNoKey where the epoch's key is absent, else ErrForged for whatever SealChange did not make here.
func (s *Space) OpenChange(h dag.Header, payload []byte) ([]byte, error) {
	if h.Space != s.id {
		return nil, ErrSpace
	}
	e := s.keys().epochs[h.Epoch]
	if e == nil {
		return nil, ErrNoKey
	}
	if len(payload) < nonceBytes+minPadded+tagBytes {
		return nil, errTruncated
	}
	ad := s.pools.takeAD(&h)
	padded, err := e.object(h.Object).Open(nil, payload[:nonceBytes], payload[nonceBytes:], *ad)
	s.pools.ad.Put(ad)
	if err != nil {
		return nil, ErrForged
	}
	return unpad(padded)
}

// unpad takes the padding off, which must be the one that paddedLen gives: one plaintext, one padded form.
func unpad(p []byte) ([]byte, error) {
	n := len(p) - 1
	for n > 0 && p[n] == 0 {
		n--
	}
	if n < 0 || p[n] != padMark || paddedLen(n) != len(p) {
		return nil, ErrForged
	}
	return p[:n:n], nil
}

// takeAD encodes a header as associated data: fields of fixed length, the parents last.
func (p *pools) takeAD(h *dag.Header) *[]byte {
	ad := p.ad.Get().(*[]byte)
	b := append((*ad)[:0], labelChange...)
	b = append(b, h.Space[:]...)
	b = append(b, h.Object[:]...)
	b = append(b, h.Epoch[:]...)
	b = append(b, h.Device[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Clock)
	for i := range h.Parents {
		b = append(b, h.Parents[i][:]...)
	}
	*ad = b
	return ad
}
