package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/tree"
)

// manifest says where the bytes of a published content are. Between its parts are holes.
type manifest struct {
	root   cid.Cid
	leaves []leaf
	parts  []part // in the order of the file
}

// leaf is a block of content under the tree.
type leaf struct {
	id     block.ID
	sealed uint32 // length of the block
	size   uint32 // of its plaintext
}

// part says that the n bytes of the file from off on are those from skip on in a leaf's plaintext.
type part struct {
	off           int64
	n, leaf, skip uint32
}

func (p *part) end() int64 { return p.off + int64(p.n) }

// find gives the index of the first part that ends behind off.
func (m *manifest) find(off int64) int {
	return sort.Search(len(m.parts), func(i int) bool { return m.parts[i].end() > off })
}

// weight is about what a manifest takes in memory.
func (m *manifest) weight() int { return 40*len(m.leaves) + 24*len(m.parts) + 256 }

// plain reports whether the leaves lie in the file in their order, whole and once: then a list of their places says all.
func (m *manifest) plain() bool {
	if len(m.parts) != len(m.leaves) {
		return false
	}
	for i := range m.parts {
		if p := &m.parts[i]; int(p.leaf) != i || p.skip != 0 || p.n != m.leaves[i].size {
			return false
		}
	}
	return true
}

// inlineLayout is how many chunks a content operation lists itself; beyond, and where parts of blocks are used, the layout is a
// sealed block of its own, the last leaf of the UnixFS tree.
const inlineLayout = 64

const (
	layoutVersion = 1
	maxLeaves     = seal.MaxChunk / 3 // the layout is a block, and has at least a byte for each one's size and two for its place
)

var errLeaves = fmt.Errorf("fs: a content with more than %d chunks", maxLeaves)

// eachLeaf is block.Leaves that ends with errLeaves behind as many as a content has at most, and its layout. A tree may name a node
// more than once, so that few blocks name leaves without end.
func eachLeaf(ctx context.Context, get block.GetFunc, root cid.Cid, fn func(block.Leaf) error) error {
	n := 0
	return block.Leaves(ctx, get, root, func(l block.Leaf) error {
		if n++; n > maxLeaves+1 {
			return errLeaves
		}
		return fn(l)
	})
}

var errLayout = errors.New("fs: the layout of the content is damaged")

// encodeLayout gives the layout block's plaintext. TREE.md has the format.
func encodeLayout(leaves []leaf, parts []part) []byte {
	b := make([]byte, 0, 16+3*len(leaves)+8*len(parts))
	b = binary.AppendUvarint(b, layoutVersion)
	b = binary.AppendUvarint(b, uint64(len(leaves)))
	for i := range leaves {
		b = binary.AppendUvarint(b, uint64(leaves[i].size))
	}
	end, next := int64(0), uint32(0)
	for i := range parts {
		p := &parts[i]
		b = binary.AppendUvarint(b, uint64(p.off-end))
		if p.leaf == next && p.skip == 0 && p.n == leaves[p.leaf].size {
			b = append(b, 0)
		} else {
			b = binary.AppendUvarint(b, uint64(p.leaf)+1)
			b = binary.AppendUvarint(b, uint64(p.skip))
			b = binary.AppendUvarint(b, uint64(p.n))
		}
		end, next = p.end(), p.leaf+1
	}
	return b
}

// decodeLayout parses a layout block of a file of that size with so many leaves, and fills in the sizes of the leaves.
func decodeLayout(b []byte, size int64, leaves []leaf) ([]part, error) {
	all, bad := b, false
	uvarint := func(most uint64) uint64 {
		v, k := binary.Uvarint(b)
		if k <= 0 || v > most {
			b, bad = nil, true
			return 0
		}
		b = b[k:]
		return v
	}
	if uvarint(layoutVersion) != layoutVersion || uvarint(maxLeaves) != uint64(len(leaves)) || len(leaves) > len(b) {
		return nil, errLayout
	}
	for i := range leaves {
		leaves[i].size = uint32(uvarint(seal.MaxChunk))
	}
	parts := make([]part, 0, len(b)/4)
	used := make([]bool, len(leaves))
	end, next := int64(0), uint32(0)
	for len(b) > 0 {
		p := part{off: end + int64(uvarint(uint64(size-end)))}
		if where := uint32(uvarint(uint64(len(leaves)))); where > 0 {
			p.leaf, p.skip, p.n = where-1, uint32(uvarint(seal.MaxChunk)), uint32(uvarint(seal.MaxChunk))
		} else if p.leaf = next; int(next) < len(leaves) {
			p.n = leaves[next].size
		}
		if bad || p.n == 0 || int(p.leaf) >= len(leaves) || p.skip+p.n > leaves[p.leaf].size || p.end() > size {
			return nil, errLayout
		}
		used[p.leaf] = true
		parts = append(parts, p)
		end, next = p.end(), p.leaf+1
	}
	for _, yes := range used {
		bad = bad || !yes
	}
	if bad || !bytes.Equal(encodeLayout(leaves, parts), all) {
		return nil, errLayout
	}
	return parts, nil
}

// chunks gives the places of the parts of a plain manifest.
func (m *manifest) chunks() []tree.Chunk {
	out := make([]tree.Chunk, len(m.parts))
	for i := range m.parts {
		out[i] = tree.Chunk{Off: m.parts[i].off, Len: int64(m.parts[i].n)}
	}
	return out
}
