package dag

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/zeebo/blake3"
)

// ID names a change, a batch or an object: the BLAKE3-256 digest of its canonical encoding. The zero ID names nothing.
type ID [32]byte

// PublicKey is an Ed25519 public key: of a device or of an account.
type PublicKey [32]byte

// cidPrefix is what stands before the digest in the binary CID: CIDv1, dag-cbor, blake3, 32 bytes.
const cidPrefix = "\x01\x71\x1e\x20"

// Sum returns the ID of an encoding.
func Sum(encoded []byte) ID { return blake3.Sum256(encoded) }

// CID returns the ID as a CIDv1 (dag-cbor, blake3-256).
func (id ID) CID() cid.Cid {
	var b [36]byte
	copy(b[:], cidPrefix)
	copy(b[4:], id[:])
	_, c, err := cid.CidFromBytes(b[:])
	if err != nil {
		panic("dag: a CID of fixed form does not parse: " + err.Error())
	}
	return c
}

// String returns the CID in base32.
func (id ID) String() string { return id.CID().String() }

// LogValue has logs show the CID.
func (id ID) LogValue() slog.Value { return slog.StringValue(id.String()) }

// LogValue has logs show the key in hex.
func (k PublicKey) LogValue() slog.Value { return slog.StringValue(hex.EncodeToString(k[:])) }

// IsZero reports whether the ID names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their bytes.
func (id ID) Compare(o ID) int { return bytes.Compare(id[:], o[:]) }

// ParseID reads what String wrote, in any multibase.
func ParseID(s string) (ID, error) {
	c, err := cid.Decode(s)
	if err != nil {
		return ID{}, fmt.Errorf("dag: parse id: %w", err)
	}
	return IDFromCID(c)
}

// IDFromCID returns the ID of a CIDv1 that is dag-cbor and blake3-256, and refuses others.
func IDFromCID(c cid.Cid) (ID, error) {
	p := c.Prefix()
	if p.Version != 1 || p.Codec != cid.DagCBOR || p.MhType != mh.BLAKE3 || p.MhLength != 32 {
		return ID{}, errors.New("dag: the CID is not CIDv1, dag-cbor, blake3-256")
	}
	var id ID
	copy(id[:], c.Hash()[2:])
	return id, nil
}

// Pos is a place in the total order of the changes of a space.
type Pos struct {
	Clock uint64
	Batch ID
	Place uint32
}

// Compare orders positions by clock, then batch, then place.
func (p Pos) Compare(q Pos) int {
	switch {
	case p.Clock < q.Clock:
		return -1
	case p.Clock > q.Clock:
		return 1
	}
	if c := p.Batch.Compare(q.Batch); c != 0 {
		return c
	}
	switch {
	case p.Place < q.Place:
		return -1
	case p.Place > q.Place:
		return 1
	}
	return 0
}
