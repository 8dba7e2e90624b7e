package list

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/anyfs/anyfs/dag"
)

// The subset of canonical dag-cbor that roots and records use: unsigned integers, byte strings, text, arrays, maps with
// text keys in order of length and then bytes, booleans, and (in bodies of unknown kinds) links and null. Decoders read
// fields in order and compare with what Encode gives, so each value has one encoding.
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
	majorOther = 7

	maxDepth = 8 // of the body of a record of unknown kind
)

const (
	cborFalse = 0xf4
	cborTrue  = 0xf5
	cborNull  = 0xf6
)

type writer struct{ b []byte }

func (w *writer) head(major byte, n uint64) {
	m := major << 5
	switch {
	case n < 24:
		w.b = append(w.b, m|byte(n))
	case n < 1<<8:
		w.b = append(w.b, m|24, byte(n))
	case n < 1<<16:
		w.b = binary.BigEndian.AppendUint16(append(w.b, m|25), uint16(n))
	case n < 1<<32:
		w.b = binary.BigEndian.AppendUint32(append(w.b, m|26), uint32(n))
	default:
		w.b = binary.BigEndian.AppendUint64(append(w.b, m|27), n)
	}
}

func (w *writer) bytes(b []byte) {
	w.head(majorBytes, uint64(len(b)))
	w.b = append(w.b, b...)
}

func (w *writer) text(s string) {
	w.head(majorText, uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) fields(n int)              { w.head(majorMap, uint64(n)) }
func (w *writer) array(n int)               { w.head(majorArray, uint64(n)) }
func (w *writer) uint(key string, n uint64) { w.text(key); w.head(majorUint, n) }
func (w *writer) blob(key string, b []byte) { w.text(key); w.bytes(b) }
func (w *writer) raw(b []byte)              { w.b = append(w.b, b...) }

func (w *writer) bool(key string, v bool) {
	w.text(key)
	if v {
		w.b = append(w.b, cborTrue)
	} else {
		w.b = append(w.b, cborFalse)
	}
}

// reader takes items off the front of b. The first fault stays in err, and all later calls return zero values.
// What it returns aliases the input.
type reader struct {
	b   []byte
	off int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", ErrFormat, fmt.Sprintf(format, args...), r.off)
	}
}

// head reads an item's head, which has to be the shortest.
func (r *reader) head() (major byte, n uint64) {
	if r.err != nil {
		return 0, 0
	}
	p := r.b[r.off:]
	if len(p) == 0 {
		r.fail("cut short")
		return 0, 0
	}
	major, n = p[0]>>5, uint64(p[0]&31)
	if n < 24 {
		r.off++
		return major, n
	}
	if n > 27 || major == majorOther {
		r.fail("an item that the format does not have")
		return 0, 0
	}
	size := 1 << (n - 24)
	if len(p) < 1+size {
		r.fail("cut short")
		return 0, 0
	}
	n = 0
	for _, c := range p[1 : 1+size] {
		n = n<<8 | uint64(c)
	}
	if size == 1 && n < 24 || size > 1 && n>>(4*size) == 0 {
		r.fail("a number that is not in its shortest form")
		return 0, 0
	}
	r.off += 1 + size
	return major, n
}

func (r *reader) want(major byte, limit uint64, what string) uint64 {
	m, n := r.head()
	if r.err == nil && (m != major || n > limit) {
		r.fail("%s of another type or beyond its limit", what)
	}
	if r.err != nil {
		return 0
	}
	return n
}

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.b)-r.off) {
		r.fail("cut short")
	}
	if r.err != nil {
		return nil
	}
	p := r.b[r.off : r.off+int(n) : r.off+int(n)]
	r.off += int(n)
	return p
}

// has skips the key where it is next, and says whether it was.
func (r *reader) has(key string) bool {
	n := len(key) + 1 // keys are shorter than 24 bytes
	if r.err != nil || len(r.b)-r.off < n || r.b[r.off] != majorText<<5|byte(len(key)) || string(r.b[r.off+1:r.off+n]) != key {
		return false
	}
	r.off += n
	return true
}

func (r *reader) key(key string) {
	if r.err == nil && !r.has(key) {
		r.fail("%q is missing", key)
	}
}

func (r *reader) fields(limit int, what string) int {
	return int(r.want(majorMap, uint64(limit), what))
}

func (r *reader) uint(key string) uint64 {
	r.key(key)
	return r.want(majorUint, 1<<63-1, key)
}

func (r *reader) blob(key string, limit int) []byte {
	r.key(key)
	return r.take(r.want(majorBytes, uint64(limit), key))
}

func (r *reader) fixed(key string, into []byte) {
	b := r.blob(key, len(into))
	if r.err == nil && len(b) != len(into) {
		r.fail("%q of %d bytes, not %d", key, len(b), len(into))
	}
	copy(into, b)
}

func (r *reader) bool(key string) bool {
	r.key(key)
	b := r.take(1)
	if r.err == nil && b[0] != cborTrue && b[0] != cborFalse {
		r.fail("%q is no boolean", key)
	}
	return r.err == nil && b[0] == cborTrue
}

func (r *reader) done() error {
	if r.err == nil && r.off != len(r.b) {
		r.fail("bytes behind the end")
	}
	return r.err
}

// item skips one canonical item of any kind and returns its bytes.
func (r *reader) item(depth int) []byte {
	start := r.off
	major, n := r.head()
	if r.err == nil && depth > maxDepth {
		r.fail("nested too deep")
	}
	if r.err != nil {
		return nil
	}
	switch major {
	case majorUint, 1:
	case majorBytes:
		r.take(n)
	case majorText:
		if !utf8.Valid(r.take(n)) {
			r.fail("text that is not UTF-8")
		}
	case majorArray:
		for ; n > 0 && r.err == nil; n-- {
			r.item(depth + 1)
		}
	case majorMap:
		r.entries(n, depth)
	case majorTag:
		if n != 42 {
			r.fail("a tag other than 42")
		}
		if b := r.take(r.want(majorBytes, 256, "link")); r.err == nil && (len(b) < 2 || b[0] != 0) {
			r.fail("a link that is no CID")
		}
	default:
		if n != cborTrue&31 && n != cborFalse&31 && n != cborNull&31 {
			r.fail("an item that the format does not have")
		}
	}
	if r.err != nil {
		return nil
	}
	return r.b[start:r.off]
}

// entries skips n entries of a map, whose keys are text in order of length and then bytes.
func (r *reader) entries(n uint64, depth int) {
	var last []byte
	for i := uint64(0); i < n && r.err == nil; i++ {
		key := r.take(r.want(majorText, 256, "key"))
		if !utf8.Valid(key) {
			r.fail("a key that is not UTF-8")
		}
		if i > 0 && (len(key) < len(last) || len(key) == len(last) && bytes.Compare(key, last) <= 0) {
			r.fail("keys that are not in order")
		}
		last = key
		r.item(depth + 1)
	}
}

// linkHead stands before the digest of a link: tag 42, 37 bytes, the identity multibase, CIDv1, dag-cbor, blake3, 32 bytes.
const linkHead = "\xd8\x2a\x58\x25\x00\x01\x71\x1e\x20"

func (w *writer) link(id dag.ID) {
	w.b = append(w.b, linkHead...)
	w.b = append(w.b, id[:]...)
}

func (r *reader) link(what string) (id dag.ID) {
	b := r.take(uint64(len(linkHead) + len(id)))
	if r.err == nil && string(b[:len(linkHead)]) != linkHead {
		r.fail("%s is no link to dag-cbor", what)
	}
	if r.err == nil {
		copy(id[:], b[len(linkHead):])
	}
	return id
}
