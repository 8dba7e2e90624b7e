package seal

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"io"
)

const (
	// WrapBytes is the length of a read key wrapped by Wrap: the KEM's ciphertext, the key, a tag.
	WrapBytes = 1120 + keyBytes + tagBytes
	// FieldOverhead is how much longer than its plaintext a sealed field is.
	FieldOverhead = nonceBytes + tagBytes
)

// KEM is the mechanism of all HPKE keys: X25519 and ML-KEM-768 together, so that both would have to be broken.
func KEM() hpke.KEM { return hpke.MLKEM768X25519() }

// Wrap seals a read key to an HPKE public key. info names the place the wrap is for; it opens for no other.
func Wrap(to hpke.PublicKey, info []byte, k ReadKey) ([]byte, error) {
	return hpke.Seal(to, hpke.HKDFSHA256(), hpke.AES256GCM(), info, k[:])
}

// Unwrap opens what Wrap made with the same info for this key, else it returns ErrForged.
func Unwrap(with hpke.PrivateKey, info, wrap []byte) (k ReadKey, err error) {
	if len(wrap) != WrapBytes {
		return k, fmt.Errorf("%w: a wrapped key of %d bytes", ErrForged, len(wrap))
	}
	b, err := hpke.Open(with, hpke.HKDFSHA256(), hpke.AES256GCM(), info, wrap)
	if err != nil || len(b) != keyBytes {
		return k, fmt.Errorf("%w: a wrapped key does not open", ErrForged)
	}
	return ReadKey(b), nil
}

// SealField seals a small field of a record under the epoch's key, bound to label and ad: FieldOverhead bytes more.
// Unlike what Space seals it does not depend on the space's id, so a root, which decides the id, can hold one.
func (k ReadKey) SealField(label string, ad, plaintext []byte, rnd io.Reader) ([]byte, error) {
	out := make([]byte, nonceBytes, len(plaintext)+FieldOverhead)
	if err := fill(rnd, out); err != nil {
		return nil, err
	}
	return newAEAD(k.field(label)).Seal(out, out, plaintext, ad), nil
}

// OpenField opens what SealField made with the same label and ad, else it returns ErrForged.
func (k ReadKey) OpenField(label string, ad, sealed []byte) ([]byte, error) {
	if len(sealed) < FieldOverhead {
		return nil, errTruncated
	}
	out, err := newAEAD(k.field(label)).Open(nil, sealed[:nonceBytes], sealed[nonceBytes:], ad)
	if err != nil {
		return nil, ErrForged
	}
	return out, nil
}

func (k ReadKey) field(label string) [keyBytes]byte {
	b, err := hkdf.Key(sha256.New, k[:], nil, labelField+label, keyBytes)
	if err != nil {
		panic("seal: " + err.Error())
	}
	return [keyBytes]byte(b)
}
