// Package preview has the formats of a preview: the index of a space at a frontier, which a device signs so that one that is new to the
// space can show its directories before it holds the history. ../PREVIEW.md gives the bytes and says who makes one, and who believes it.
//
// The package does no I/O and opens no ciphertext. Decoders refuse every byte string that the encoders do not make.
package preview

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/canon"
)

// ErrFormat is matched by what decoders answer to bytes that are no record or page.
var ErrFormat = errors.New("preview: not in the format")

// ErrSignature says that a record is not signed by the device that it names.
var ErrSignature = errors.New("preview: wrong signature")

const (
	// MaxRecord is the length of a record in bytes at most.
	MaxRecord = 8 << 10
	// MaxHeads is how many heads of each graph a record names at most. Where a graph has more, no preview is made.
	MaxHeads = 16
	// MaxPages is how many pages a directory has at most. One that would have more is in no preview.
	MaxPages = 128

	version = 1
	domain  = "anyfs/preview/1\x00"
)

// Record names a preview: the frontier that it is of, and the pages of the space's root directory.
type Record struct {
	Space   dag.ID
	Device  dag.PublicKey // who made and signed it
	Time    int64         // when, in Unix nanoseconds, for display alone
	Batches uint64        // in the past of the frontier, for display alone
	ACL     []dag.ID      // the heads of the access list that its maker knew, ascending
	Heads   []dag.ID      // the frontier of the files, ascending
	Root    []block.ID    // the pages of the root directory, in order; none: it is empty

	Signature [ed25519.SignatureSize]byte
}

// signed is what the signature is of, behind the domain.
type signed struct {
	_       struct{} `cbor:",toarray"`
	Version uint
	Space   []byte
	Device  []byte
	Time    int64
	Batches uint64
	ACL     []byte
	Heads   []byte
	Root    []byte
}

type frame struct {
	_         struct{} `cbor:",toarray"`
	Signed    signed
	Signature []byte
}

var encMode, decMode = canon.Modes(cbor.DecOptions{MaxNestedLevels: 4, MaxArrayElements: MaxEntries, MaxMapPairs: 16})

func (r *Record) signed() signed {
	return signed{
		Version: version, Space: r.Space[:], Device: r.Device[:], Time: r.Time, Batches: r.Batches,
		ACL: joinIDs(r.ACL), Heads: joinIDs(r.Heads), Root: joinIDs(r.Root),
	}
}

func (r *Record) check() error {
	switch {
	case len(r.Heads) == 0 || len(r.Heads) > MaxHeads || len(r.ACL) == 0 || len(r.ACL) > MaxHeads:
		return fmt.Errorf("%w: %d heads and %d of the access list", ErrFormat, len(r.Heads), len(r.ACL))
	case len(r.Root) > MaxPages:
		return fmt.Errorf("%w: %d pages", ErrFormat, len(r.Root))
	case !ascending(r.Heads) || !ascending(r.ACL):
		return fmt.Errorf("%w: heads out of order", ErrFormat)
	}
	return nil
}

// Sign signs a record by the device that it names, whose key is key. It fails where the record is out of bounds.
func (r *Record) Sign(key ed25519.PrivateKey) error {
	if err := r.check(); err != nil {
		return err
	}
	text, err := r.text()
	if err != nil {
		return err
	}
	r.Signature = [ed25519.SignatureSize]byte(ed25519.Sign(key, text))
	return nil
}

func (r *Record) text() ([]byte, error) {
	b, err := encMode.Marshal(r.signed())
	return append([]byte(domain), b...), err
}

// Verify says whether the device that a record names signed it: nil or ErrSignature.
func (r *Record) Verify() error {
	text, err := r.text()
	if err != nil || !ed25519.Verify(r.Device[:], text, r.Signature[:]) {
		return ErrSignature
	}
	return nil
}

// Encode gives the bytes of a record that Sign accepted.
func (r *Record) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return encMode.Marshal(frame{Signed: r.signed(), Signature: r.Signature[:]})
}

// DecodeRecord parses a record, and does not verify it. Errors match ErrFormat.
func DecodeRecord(b []byte) (*Record, error) {
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("%w: a record of %d bytes", ErrFormat, len(b))
	}
	var f frame
	if err := decMode.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	s := &f.Signed
	r := &Record{Time: s.Time, Batches: s.Batches}
	if s.Version != version || len(s.Space) != len(r.Space) || len(s.Device) != len(r.Device) || len(f.Signature) != len(r.Signature) {
		return nil, fmt.Errorf("%w: version %d", ErrFormat, s.Version)
	}
	r.Space, r.Device, r.Signature = dag.ID(s.Space), dag.PublicKey(s.Device), [ed25519.SignatureSize]byte(f.Signature)
	var err error
	if r.ACL, err = splitIDs[dag.ID](s.ACL); err != nil {
		return nil, err
	}
	if r.Heads, err = splitIDs[dag.ID](s.Heads); err != nil {
		return nil, err
	}
	if r.Root, err = splitIDs[block.ID](s.Root); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if again, err := r.Encode(); err != nil || string(again) != string(b) {
		return nil, fmt.Errorf("%w: not canonical", ErrFormat)
	}
	return r, nil
}

func joinIDs[T ~[32]byte](ids []T) []byte {
	b := make([]byte, 0, 32*len(ids))
	for i := range ids {
		id := [32]byte(ids[i])
		b = append(b, id[:]...)
	}
	return b
}

func splitIDs[T ~[32]byte](b []byte) ([]T, error) {
	if len(b)%32 != 0 {
		return nil, fmt.Errorf("%w: a list of %d bytes", ErrFormat, len(b))
	}
	var ids []T
	for ; len(b) > 0; b = b[32:] {
		ids = append(ids, T(b[:32]))
	}
	return ids, nil
}

func ascending(ids []dag.ID) bool {
	for i := 1; i < len(ids); i++ {
		if ids[i-1].Compare(ids[i]) >= 0 {
			return false
		}
	}
	return true
}
