package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"
)

// MaxTags is how many epochs of a space are proved and looked for. Whoever may write, or might once, can begin as many epochs as it likes, and what a peer takes is
// bounded.
const MaxTags = 64

// DiscoveryTags proves to a peer that this device has keys of the space: for each epoch whose key is here an HMAC-SHA256 of the
// connection's transcript under a key that is derived from the epoch's. Who has one of these keys gets the same tag; to all others it
// is random, and says nothing about another connection. Of more than MaxTags epochs it takes that many, the same on each device that has the same ones: the space's first
// comes first, to which all that follow it lead, so that members have it; then the one that is sealed in; then those with the lowest IDs.
func (s *Space) DiscoveryTags(transcript []byte) [][32]byte {
	r := s.keys()
	var epochs []*epoch
	for _, e := range []*epoch{r.first, r.current} {
		if e != nil && !slices.Contains(epochs, e) {
			epochs = append(epochs, e)
		}
	}
	for _, e := range r.low {
		if len(epochs) < MaxTags && e != r.first && e != r.current {
			epochs = append(epochs, e)
		}
	}
	tags := make([][32]byte, len(epochs))
	for i, e := range epochs {
		key := expand(e.prk, labelDiscovery)
		h := hmac.New(sha256.New, key[:])
		h.Write(transcript)
		h.Sum(tags[i][:0])
	}
	return tags
}
