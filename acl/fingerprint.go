package acl

import (
	"crypto/sha512"
	"slices"
	"strings"

	"github.com/tyler-smith/go-bip39/wordlists"

	"github.com/anyfs/anyfs/dag"
)

// A fingerprint is few enough words to compare by voice. Each of its 66 bits costs who looks for another account with the same one
// fingerprintRounds hashes, 2^74 in all beside the making of as many accounts.
const (
	labelFingerprint  = "anyfs/fingerprint/1\x00"
	fingerprintWords  = 6
	fingerprintRounds = 256
	wordBits          = 11
)

// Fingerprint is an account in six English words with hyphens between them, for people to compare. It is public, and takes about 0.1 ms. The words
// are those of recovery phrases, of which six are none.
func Fingerprint(account dag.PublicKey) string {
	h := sha512.Sum512(slices.Concat([]byte(labelFingerprint), account[:]))
	for range fingerprintRounds {
		h = sha512.Sum512(slices.Concat(h[:], account[:]))
	}
	words := make([]string, fingerprintWords)
	for i := range words {
		n := 0
		for b := i * wordBits; b < (i+1)*wordBits; b++ {
			n = n<<1 | int(h[b/8]>>(7-b%8))&1
		}
		words[i] = wordlists.English[n]
	}
	return strings.Join(words, "-")
}

// likeFingerprint says whether a text may be a fingerprint.
func likeFingerprint(s string) bool { return strings.Count(s, "-") == fingerprintWords-1 }

// identityPrefix is what every identity begins with.
const identityPrefix = "z6Mk"
