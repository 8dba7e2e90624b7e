package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// MaxLinks is how many children a node of a tree has at most: boxo's default for files.
const MaxLinks = 174

// maxNode is the length of the longest node: MaxLinks links and sizes of the longest form, and the fields around them.
const maxNode = 16 << 10

// node is a UnixFS file node without data of its own: its children in order.
type node struct {
	links []link
}

// link is a child: content or another node.
type link struct {
	id    ID
	node  bool   // another node, else content
	size  uint64 // bytes of content in and under it
	total uint64 // bytes of blocks in and under it (Tsize)
}

// size returns the bytes of content under n.
func (n *node) size() (sum uint64) {
	for i := range n.links {
		sum += n.links[i].size
	}
	return sum
}

// Tags of the protobuf messages PBNode, PBLink (dag-pb) and Data (UnixFS).
const (
	tagLinks     = 0x12 // PBNode 2, bytes; in dag-pb the links come before the data
	tagData      = 0x0a // PBNode 1, bytes
	tagHash      = 0x0a // PBLink 1, bytes
	tagName      = 0x12 // PBLink 2, bytes
	tagTotal     = 0x18 // PBLink 3, varint
	tagType      = 0x08 // Data 1, varint
	tagFilesize  = 0x18 // Data 3, varint
	tagBlocksize = 0x20 // Data 4, varint, not packed
	typeFile     = 2
)

// encode returns the node's dag-pb block, as boxo's unixfs.FSNode and merkledag.ProtoNode make it.
func (n *node) encode() []byte {
	b := make([]byte, 0, 64+64*len(n.links))
	for i := range n.links {
		l := &n.links[i]
		b = append(b, tagLinks, byte(2+cidLen+2+1+uvarintLen(l.total)))
		b = append(b, tagHash, cidLen)
		if l.node {
			b = append(b, nodePrefix...)
		} else {
			b = append(b, rawPrefix...)
		}
		b = append(b, l.id[:]...)
		b = append(b, tagName, 0, tagTotal)
		b = binary.AppendUvarint(b, l.total)
	}
	size := n.size()
	data := 2 + 1 + uvarintLen(size)
	for i := range n.links {
		data += 1 + uvarintLen(n.links[i].size)
	}
	b = append(b, tagData)
	b = binary.AppendUvarint(b, uint64(data))
	b = append(b, tagType, typeFile, tagFilesize)
	b = binary.AppendUvarint(b, size)
	for i := range n.links {
		b = append(b, tagBlocksize)
		b = binary.AppendUvarint(b, n.links[i].size)
	}
	return b
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

var errNode = errors.New("block: not a node of a file's tree")

// decodeNode reads what encode wrote, and nothing else: other fields, another order, sizes that do not add up, links to
// what is no block, more than MaxLinks of them, or children without content are refused. It allocates below twice the
// input's length.
func decodeNode(b []byte) (*node, error) {
	if len(b) > maxNode {
		return nil, fmt.Errorf("%w: %d bytes", errNode, len(b))
	}
	r := reading{b: b}
	n := &node{}
	if count := countLinks(b); count > 0 {
		n.links = make([]link, 0, count)
	}
	for r.peek() == tagLinks {
		if len(n.links) == cap(n.links) {
			return nil, fmt.Errorf("%w: more than %d links", errNode, MaxLinks)
		}
		n.links = append(n.links, r.link())
	}
	data := r.bytes(tagData)
	r.end()
	r = reading{b: data, bad: r.bad}
	r.byte(tagType)
	r.byte(typeFile)
	r.byte(tagFilesize)
	size, sum := r.uvarint(), uint64(0)
	for i := range n.links {
		l := &n.links[i]
		r.byte(tagBlocksize)
		l.size = r.uvarint()
		if l.size == 0 || l.size > math.MaxInt64-sum || l.total < l.size || !l.node && l.total != l.size {
			return nil, fmt.Errorf("%w: sizes of link %d", errNode, i)
		}
		sum += l.size
	}
	r.end()
	if r.bad || sum != size {
		return nil, errNode
	}
	return n, nil
}

// countLinks returns how many links a node begins with, MaxLinks at most.
func countLinks(b []byte) (n int) {
	for n < MaxLinks && len(b) >= 2 && b[0] == tagLinks && len(b) >= 2+int(b[1]) {
		b = b[2+int(b[1]):]
		n++
	}
	return n
}

// reading is a cursor over an encoding. After the first thing that is not as it must be, bad is set and all reads give
// zeros.
type reading struct {
	b   []byte
	bad bool
}

func (r *reading) peek() byte {
	if r.bad || len(r.b) == 0 {
		return 0
	}
	return r.b[0]
}

func (r *reading) take(n uint64) []byte {
	if r.bad || uint64(len(r.b)) < n {
		r.bad = true
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reading) byte(want byte) {
	if p := r.take(1); p != nil && p[0] != want {
		r.bad = true
	}
}

func (r *reading) literal(want string) {
	if p := r.take(uint64(len(want))); string(p) != want {
		r.bad = true
	}
}

// uvarint reads a varint in its shortest form.
func (r *reading) uvarint() uint64 {
	if r.bad {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n != uvarintLen(v) {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reading) bytes(tag byte) []byte {
	r.byte(tag)
	return r.take(r.uvarint())
}

func (r *reading) end() {
	if len(r.b) > 0 {
		r.bad = true
	}
}

func (r *reading) link() (l link) {
	in := reading{b: r.bytes(tagLinks), bad: r.bad}
	c := in.bytes(tagHash)
	if len(c) != cidLen {
		r.bad = true
		return l
	}
	switch string(c[:len(rawPrefix)]) {
	case rawPrefix:
	case nodePrefix:
		l.node = true
	default:
		r.bad = true
	}
	copy(l.id[:], c[len(rawPrefix):])
	in.byte(tagName)
	in.byte(0)
	in.byte(tagTotal)
	l.total = in.uvarint()
	in.end()
	r.bad = r.bad || in.bad
	return l
}
