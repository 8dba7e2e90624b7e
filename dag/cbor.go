package dag

import (
	"encoding/binary"
	"fmt"
)

// The subset of CBOR that the format uses: unsigned integers, byte strings, text keys, arrays, maps and tag 42, each in its
// shortest form and of definite length. Structure is fixed, so nesting is bounded by the code.
const (
	majorUint  = 0
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
)

// linkHead stands before the digest of a link: tag 42, 37 bytes, the identity multibase prefix, the CID's fixed part.
const linkHead = "\xd8\x2a\x58\x25\x00" + cidPrefix

const linkBytes = len(linkHead) + 32

// digestHead stands before 32 bytes: a byte string of that length.
const digestHead = "\x58\x20"

func appendHead(b []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(b, m|byte(n))
	case n < 1<<8:
		return append(b, m|24, byte(n))
	case n < 1<<16:
		return append(b, m|25, byte(n>>8), byte(n))
	case n < 1<<32:
		return append(b, m|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint64(append(b, m|27), n)
}

func appendLink(b []byte, id ID) []byte {
	return append(append(b, linkHead...), id[:]...)
}

func appendLinks(b []byte, ids []ID) []byte {
	b = appendHead(b, majorArray, uint64(len(ids)))
	for i := range ids {
		b = appendLink(b, ids[i])
	}
	return b
}

func appendDigest(b []byte, d *[32]byte) []byte {
	return append(append(b, digestHead...), d[:]...)
}

// reader takes items off the front of a slice. The first fault stays in err, and makes all later calls return zero values.
type reader struct {
	b   []byte
	off int
	err error
}

func (r *reader) fail(kind error, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s at byte %d", kind, what, r.off)
	}
}

// done fails unless all was read, and returns the fault.
func (r *reader) done() error {
	if r.err == nil && r.off != len(r.b) {
		r.fail(ErrFormat, "bytes behind the end")
	}
	return r.err
}

// head reads an item's head of the given major type. It refuses numbers above max and forms longer than needed.
func (r *reader) head(major byte, max uint64, what string) uint64 {
	if r.err != nil {
		return 0
	}
	p := r.b[r.off:]
	if len(p) == 0 {
		r.fail(ErrFormat, what+" cut short")
		return 0
	}
	if p[0]>>5 != major {
		r.fail(ErrFormat, what+" of another type")
		return 0
	}
	n, size := uint64(p[0]&31), 1
	if n >= 24 {
		if n > 27 {
			r.fail(ErrFormat, what+" of indefinite length")
			return 0
		}
		size = 1 + 1<<(n-24)
		if len(p) < size {
			r.fail(ErrFormat, what+" cut short")
			return 0
		}
		n = 0
		for _, c := range p[1:size] {
			n = n<<8 | uint64(c)
		}
		if size == 2 && n < 24 || size > 2 && n>>(4*(size-1)) == 0 {
			r.fail(ErrFormat, what+" not in its shortest form")
			return 0
		}
	}
	if n > max {
		r.fail(ErrFormat, what+" beyond its limit")
		return 0
	}
	r.off += size
	return n
}

// take reads n raw bytes, which alias the input.
func (r *reader) take(n int, what string) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b)-r.off {
		r.fail(ErrFormat, what+" cut short")
		return nil
	}
	p := r.b[r.off : r.off+n : r.off+n]
	r.off += n
	return p
}

// has reports whether the input goes on with s, and if so skips it.
func (r *reader) has(s string) bool {
	if r.err != nil || len(r.b)-r.off < len(s) || string(r.b[r.off:r.off+len(s)]) != s {
		return false
	}
	r.off += len(s)
	return true
}

// expect skips s, or fails.
func (r *reader) expect(s, what string) {
	if r.err == nil && !r.has(s) {
		r.fail(ErrFormat, what+" missing or malformed")
	}
}

func (r *reader) bytes(max int, what string) []byte {
	return r.take(int(r.head(majorBytes, uint64(max), what)), what)
}

func (r *reader) digest(what string) (d [32]byte) {
	r.expect(digestHead, what)
	copy(d[:], r.take(32, what))
	return d
}

func (r *reader) link(what string) (id ID) {
	r.expect(linkHead, what)
	copy(id[:], r.take(32, what))
	return id
}

// links reads an array of at most max links into buf, or a new slice where buf is too small.
func (r *reader) links(max int, buf []ID, what string) []ID {
	n := int(r.head(majorArray, uint64(max), what))
	if r.err != nil || n == 0 {
		return nil
	}
	if n*linkBytes > len(r.b)-r.off {
		r.fail(ErrFormat, what+" cut short")
		return nil
	}
	if cap(buf) < n {
		buf = make([]ID, 0, n)
	}
	buf = buf[:0]
	for range n {
		buf = append(buf, r.link(what))
	}
	return buf
}

// sorted fails unless ids ascend strictly.
func (r *reader) sorted(ids []ID, what string) {
	for i := 1; i < len(ids); i++ {
		if ids[i-1].Compare(ids[i]) >= 0 {
			r.fail(ErrFormat, what+" not sorted or not distinct")
			return
		}
	}
}

// fields reads the head of a map and its first pair, which is "v" in every version, and returns the number of pairs. Another
// version may have any number of them.
func (r *reader) fields(what string) (pairs, version uint64) {
	pairs = r.head(majorMap, 1<<16, what)
	return pairs, r.version()
}

func (r *reader) version() uint64 {
	r.expect("\x61v", "version")
	v := r.head(majorUint, 1<<32, "version")
	if r.err == nil && v != Version {
		r.fail(ErrVersion, fmt.Sprintf("%d", v))
	}
	return v
}
