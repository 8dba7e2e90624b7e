package dag

import (
	"bytes"
	"sync"
)

type bodyKind uint8

const (
	rootBody bodyKind = iota
	childBody
	forgottenBody
)

// body says where the parts of a change lie in its frame.
type body struct {
	off, size uint32 // of all of it
	payload   uint32 // where the payload's bytes begin
	parents   uint8
	kind      bodyKind
}

const (
	objectAt  = 1 + 2             // of the object's bytes in a body
	parentsAt = objectAt + 32 + 1 // of the first parent, head included, while they are fewer than 24
	digestLen = 2 + 32
)

// parentsStart is where the first parent begins, its head included.
func (b *body) parentsStart() int {
	if b.parents < 24 {
		return int(b.off) + parentsAt
	}
	return int(b.off) + parentsAt + 1
}

// body reads one body.
func (r *reader) body() (b body) {
	b.off = uint32(r.off)
	if r.has(linkHead) {
		b.kind = forgottenBody
		r.take(32, "link")
		b.size = uint32(r.off) - b.off
		return b
	}
	n := r.head(majorArray, 3, "body")
	switch {
	case r.err != nil:
		return b
	case n == 3:
		b.kind = childBody
		if object := r.digest("object"); r.err == nil && object == (ID{}) {
			r.fail(ErrFormat, "object of zeroes")
		}
		b.parents = r.parents()
	case n != 1:
		r.fail(ErrFormat, "body with another number of items")
	}
	size := len(r.bytes(MaxBytes, "payload"))
	b.payload = uint32(r.off - size)
	b.size = uint32(r.off) - b.off
	return b
}

func (r *reader) parents() uint8 {
	n := int(r.head(majorArray, MaxParents, "parents"))
	if r.err == nil && n*digestLen > len(r.b)-r.off {
		r.fail(ErrFormat, "parents cut short")
	}
	var last []byte
	for i := 0; i < n && r.err == nil; i++ {
		r.expect(digestHead, "parents")
		p := r.take(32, "parents")
		if i > 0 && bytes.Compare(last, p) >= 0 {
			r.fail(ErrFormat, "parents not sorted or not distinct")
		}
		last = p
	}
	return uint8(n)
}

func (b *body) object(raw []byte) (id ID) {
	if b.kind == childBody {
		copy(id[:], raw[int(b.off)+objectAt:])
	}
	return id
}

func (b *body) parent(raw []byte, i int) (id ID) {
	copy(id[:], raw[b.parentsStart()+i*digestLen+len(digestHead):])
	return id
}

func (b *body) end() uint32 { return b.off + b.size }

// change fills in c, which aliases raw. Its parents come from the arena, which is returned.
func (b *body) change(c *Change, raw []byte, of *Batch, arena []ID) []ID {
	c.Object, c.Clock, c.Device = b.object(raw), of.Clock, of.Device
	c.Payload = raw[b.payload:b.end():b.end()]
	n := int(b.parents)
	if n == 0 {
		return arena
	}
	if cap(arena)-len(arena) < n {
		arena = make([]ID, 0, 2*MaxParents)
	}
	from := len(arena)
	for i := range n {
		arena = append(arena, b.parent(raw, i))
	}
	c.Parents = arena[from:len(arena):len(arena)]
	return arena
}

func (c *Change) appendBody(p []byte) []byte {
	if c.Object.IsZero() {
		p = appendHead(p, majorArray, 1)
	} else {
		p = appendHead(p, majorArray, 3)
		p = appendDigest(p, (*[32]byte)(&c.Object))
		p = appendHead(p, majorArray, uint64(len(c.Parents)))
		for i := range c.Parents {
			p = appendDigest(p, (*[32]byte)(&c.Parents[i]))
		}
	}
	p = appendHead(p, majorBytes, uint64(len(c.Payload)))
	return append(p, c.Payload...)
}

// parseBody reads into c the body of one change of a batch, taken out of its frame. The change aliases p. It reports false
// for a forgotten one.
func parseBody(c *Change, p []byte, of *Batch) (bool, error) {
	r := reader{b: p}
	b := r.body()
	if err := r.done(); err != nil {
		return false, err
	}
	if b.kind == forgottenBody {
		return false, nil
	}
	b.change(c, p, of, make([]ID, 0, b.parents))
	return true, nil
}

// hasher encodes the changes of one batch, for hashing.
type hasher struct {
	buf   []byte
	heads []byte // what roots begin with, then what the others begin with
	root  int    // length of the first
	bytes int    // of all encodings so far
}

func newHasher(b *Batch) *hasher {
	h := &hasher{heads: make([]byte, 0, 160), buf: make([]byte, 0, 1024)}
	h.begin(b)
	return h
}

// begin begins with the changes of a batch.
func (h *hasher) begin(b *Batch) {
	h.heads = appendChangeHead(h.heads[:0], b.Clock, b.Device, false)
	h.root = len(h.heads)
	h.heads = appendChangeHead(h.heads, b.Clock, b.Device, true)
	h.bytes = 0
}

// hashers are for who hashes a batch and is done with it.
var hashers = sync.Pool{New: func() any { return newHasher(new(Batch)) }}

// maxHasher is the longest buffer that is kept for others.
const maxHasher = 64 << 10

// borrowHasher is newHasher for who gives it back by done.
func borrowHasher(b *Batch) *hasher {
	h := hashers.Get().(*hasher)
	h.begin(b)
	return h
}

func (h *hasher) done() {
	if cap(h.buf) <= maxHasher {
		hashers.Put(h)
	}
}

// encode returns the canonical encoding of the change, valid until the next call.
func (h *hasher) encode(b *body, raw []byte) []byte {
	p := h.buf[:0]
	if b.kind == rootBody {
		p = append(p, h.heads[:h.root]...)
	} else {
		p = append(p, h.heads[h.root:]...)
		p = append(p, raw[int(b.off)+objectAt:int(b.off)+objectAt+32]...)
	}
	p = append(p, "\x67parents"...)
	p = appendHead(p, majorArray, uint64(b.parents))
	at := b.parentsStart() + len(digestHead)
	for range b.parents {
		p = append(append(p, linkHead...), raw[at:at+32]...)
		at += digestLen
	}
	p = append(p, "\x67payload"...)
	p = appendHead(p, majorBytes, uint64(b.end()-b.payload))
	p = append(p, raw[b.payload:b.end()]...)
	h.buf = p
	h.bytes += len(p)
	return p
}
