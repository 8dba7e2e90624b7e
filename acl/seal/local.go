package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"slices"

	"github.com/zeebo/blake3"
)

// Labels of keys derived from a store key.
const (
	labelLocalSeal   = "anyfs/local/1 seal"
	labelLocalHash   = "anyfs/local/1 hash"
	labelLocalKey    = "anyfs/local/1 key "
	labelLocalDerive = "anyfs/local/1 derive "
)

// LocalOverhead is how much longer than its plaintext a sealed value is.
const LocalOverhead = nonceBytes + tagBytes

// Local is a store key: it seals what a device writes to its own disk and keys its indexes.
//
// Nonces are random, so a Local is good for 2^32 values with a chance of repetition below 2^-32, and for 2^40 with
// one of 2^-17; who writes more derives a Local for each part.
type Local struct {
	key  [keyBytes]byte
	aead cipher.AEAD
	hash sipKey
}

// NewLocal makes a Local of a 32-byte secret.
func NewLocal(storeKey [32]byte) *Local {
	l := &Local{key: storeKey}
	l.aead = newAEAD(l.sub(labelLocalSeal))
	l.hash = newSipKey(l.sub(labelLocalHash))
	return l
}

// sub is BLAKE3 of a label, keyed by the store key.
func (l *Local) sub(label string) (k [keyBytes]byte) {
	h, err := blake3.NewKeyed(l.key[:])
	if err != nil {
		panic("seal: " + err.Error())
	}
	h.WriteString(label)
	h.Sum(k[:0])
	return k
}

// Derive is a Local of its own for the part of the device's storage that label names.
func (l *Local) Derive(label string) *Local { return NewLocal(l.sub(labelLocalDerive + label)) }

// Key is a 32-byte key of its own for the use that label names.
func (l *Local) Key(label string) [32]byte { return l.sub(labelLocalKey + label) }

// Hash64 is a keyed hash (SipHash-2-4), the same on this device for ever: for indexes whose keys must tell nothing.
func (l *Local) Hash64(b []byte) uint64 {
	h := l.hash.begin()
	h.write(b)
	return h.sum()
}

// SealLocal appends to dst the sealed plaintext, bound to ad: LocalOverhead bytes more than the plaintext.
// plaintext must not overlap the spare capacity of dst.
func (l *Local) SealLocal(dst, plaintext, ad []byte) []byte {
	dst = slices.Grow(dst, len(plaintext)+LocalOverhead)
	at := len(dst)
	dst = dst[:at+nonceBytes]
	rand.Read(dst[at:]) // never fails: it ends the process instead
	return l.aead.Seal(dst, dst[at:], plaintext, ad)
}

// OpenLocal appends to dst the plaintext of what SealLocal made with the same ad, else it returns ErrForged.
// To open in place, dst is sealed[12:12].
func (l *Local) OpenLocal(dst, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < LocalOverhead {
		return dst, errTruncated
	}
	out, err := l.aead.Open(dst, sealed[:nonceBytes], sealed[nonceBytes:], ad)
	if err != nil {
		return dst, ErrForged
	}
	return out, nil
}
