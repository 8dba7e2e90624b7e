// Package block keeps the sealed blocks of file content, and the UnixFS trees over them.
//
// A block is up to MaxSize bytes that are named by their BLAKE3-256 digest. A Store appends blocks to segment files,
// finds them by an index whose checkpoint lies in a kv.DB, gives the space of evicted ones back, and asks a Fetcher for
// those it does not hold. BuildTree puts a file's blocks, its leaves, under a tree of UnixFS nodes, which are blocks in
// the same store; WriteCAR writes such a tree as a CAR. FORMAT.md gives the bytes of all of them.
//
// The package opens no block and starts nothing that outlives a call.
package block

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/zeebo/blake3"
)

// MaxSize is the length in bytes of the longest block.
const MaxSize = 16 << 20

var (
	// ErrAbsent is returned for a block that is not here and that no Fetcher gave.
	ErrAbsent = errors.New("block: absent")
	// ErrCorrupt is returned when what lies on the disk is not what its ID, its header or the index says. The ID is in
	// the error's text. A Put of the block repairs it.
	ErrCorrupt = errors.New("block: corrupt")
	// ErrIndex is the ErrCorrupt of what the DB holds.
	ErrIndex = fmt.Errorf("%w: index", ErrCorrupt)
	// ErrTooLarge is returned for a block longer than MaxSize.
	ErrTooLarge = fmt.Errorf("block: longer than %d bytes", MaxSize)
	// ErrHeld is returned by Evict for blocks that a Hold keeps.
	ErrHeld = errors.New("block: held")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("block: store is closed")
)

// ID names a block: the BLAKE3-256 digest of its bytes.
type ID [32]byte

// Binary CIDs of blocks are one of these and the digest: CIDv1, codec, blake3, 32 bytes.
const (
	rawPrefix  = "\x01\x55\x1e\x20"
	nodePrefix = "\x01\x70\x1e\x20"
	cidLen     = 36
)

// Sum returns the ID of data.
func Sum(data []byte) ID { return blake3.Sum256(data) }

// CID returns the CIDv1 (raw, blake3-256) of a block of content.
func (id ID) CID() cid.Cid { return makeCID(rawPrefix, id) }

// NodeCID returns the CIDv1 (dag-pb, blake3-256) of a block that is a node of a UnixFS tree.
func (id ID) NodeCID() cid.Cid { return makeCID(nodePrefix, id) }

// String returns the raw CID in base32.
func (id ID) String() string { return id.CID().String() }

// IsZero reports whether the ID names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their bytes.
func (id ID) Compare(o ID) int { return bytes.Compare(id[:], o[:]) }

// IDFromCID returns the block that a CIDv1 names, and whether it is a node of a tree (dag-pb) or content (raw). It refuses
// CIDs of any other form.
func IDFromCID(c cid.Cid) (id ID, node bool, err error) {
	p := c.Prefix()
	if p.Version != 1 || p.MhType != mh.BLAKE3 || p.MhLength != len(id) || p.Codec != cid.Raw && p.Codec != cid.DagProtobuf {
		return ID{}, false, fmt.Errorf("block: %s is not CIDv1, raw or dag-pb, blake3-256", c)
	}
	h := c.Hash()
	copy(id[:], h[len(h)-len(id):])
	return id, p.Codec == cid.DagProtobuf, nil
}

func makeCID(prefix string, id ID) cid.Cid {
	var b [cidLen]byte
	copy(b[:], prefix)
	copy(b[len(prefix):], id[:])
	_, c, err := cid.CidFromBytes(b[:])
	if err != nil {
		panic("block: a CID of fixed form does not parse: " + err.Error())
	}
	return c
}
