// Package seal is the only code of anyfs that opens ciphertext.
//
// A space's read keys come in epochs. A ReadKey seals the payloads of changes and the blocks of file content of its
// epoch; Space holds the keys of one space and picks the right one. Local seals what a device writes to its own disk
// under its store key. FORMAT.md gives the bytes.
//
// Sealed bytes that were damaged, cut short, or moved to another place do not open: they give ErrForged, never a
// part of the plaintext and never a panic. Everything here is safe for concurrent use.
package seal

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/anyfs/anyfs/dag"
	"github.com/zeebo/blake3"
)

var (
	// ErrNoKey says that the key of the epoch is not here (yet): the bytes may be good.
	ErrNoKey = errors.New("seal: the key of this epoch is not on this device")
	// ErrForged says that the bytes were not sealed under this key for this place: damaged, cut short, moved or made up.
	ErrForged = errors.New("seal: sealed bytes are damaged, cut short or not from here")
	// ErrTooLarge says that a plaintext exceeds MaxChange or MaxChunk.
	ErrTooLarge = errors.New("seal: plaintext too large")
	// ErrSpace says that a header names another space than the keys it was given to.
	ErrSpace = errors.New("seal: header names another space")
)

var errTruncated = fmt.Errorf("%w (too short)", ErrForged)

const (
	keyBytes   = 32
	nonceBytes = 12 // of AES-GCM
	tagBytes   = 16
)

// Labels of key derivation. They never change; another way of sealing takes other labels.
const (
	labelCommitment = "anyfs/seal/1 epoch commitment"
	labelRoot       = "anyfs/seal/1 root"
	labelObject     = "anyfs/seal/1 object "
	labelChange     = "anyfs/seal/1 change"
	labelBlockNonce = "anyfs/seal/1 block nonce"
	labelPageNonce  = "anyfs/seal/1 preview nonce"
	labelBlockKey   = "anyfs/seal/1 block key"
	labelGear       = "anyfs/seal/1 gear"
	labelDiscovery  = "anyfs/seal/1 discovery"
	labelNames      = "anyfs/seal/1 names"
	labelField      = "anyfs/seal/1 field "
)

// ReadKey is the secret of one epoch of a space: who has it reads what was sealed in that epoch.
type ReadKey [keyBytes]byte

// NewReadKey makes a random key. rnd nil means crypto/rand.
func NewReadKey(rnd io.Reader) (k ReadKey, err error) {
	err = fill(rnd, k[:])
	return k, err
}

// Commitment is the public name of the key in its space: BLAKE3 of a label, the space and the key.
// The first epoch's key is committed to by the space's root, whose ID is the space: there space is zero.
func (k ReadKey) Commitment(space dag.ID) [32]byte {
	b := make([]byte, 0, len(labelCommitment)+len(space)+len(k))
	b = append(b, labelCommitment...)
	b = append(b, space[:]...)
	b = append(b, k[:]...)
	return blake3.Sum256(b)
}

// extract is the pseudo-random key from which all of an epoch's keys in a space expand.
func (k ReadKey) extract(space dag.ID) []byte {
	prk, err := hkdf.Extract(sha256.New, k[:], space[:])
	if err != nil {
		panic("seal: " + err.Error()) // fails only for keys that FIPS mode forbids
	}
	return prk
}

func expand(prk []byte, label string) (k [keyBytes]byte) {
	b, err := hkdf.Expand(sha256.New, prk, label, keyBytes)
	if err != nil {
		panic("seal: " + err.Error())
	}
	copy(k[:], b)
	return k
}

// fill reads random bytes from rnd, or from crypto/rand where it is nil.
func fill(rnd io.Reader, p []byte) error {
	if rnd == nil {
		_, err := rand.Read(p)
		return err
	}
	if _, err := io.ReadFull(rnd, p); err != nil {
		return fmt.Errorf("seal: randomness: %w", err)
	}
	return nil
}
