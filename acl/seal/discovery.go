package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"slices"
)

// DiscoveryTags proves to a peer that this device has keys of the space: for each epoch whose key is here an HMAC-SHA256 of the
// connection's transcript under a key that is derived from the epoch's. Who has one of these keys gets the same tag; to all others it
// is random, and says nothing about another connection. They are sorted.
func (s *Space) DiscoveryTags(transcript []byte) [][32]byte {
	r := s.keys()
	tags := make([][32]byte, 0, len(r.epochs))
	for _, e := range r.epochs {
		key := expand(e.prk, labelDiscovery)
		h := hmac.New(sha256.New, key[:])
		h.Write(transcript)
		tags = append(tags, [32]byte(h.Sum(nil)))
	}
	slices.SortFunc(tags, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	return tags
}
