package tree

import (
	"encoding/binary"
	"math"
)

// The subset of CBOR that the formats use: integers, byte strings, arrays and null, of definite length and in their shortest
// form.
const (
	majorUint   = 0
	majorNegInt = 1
	majorBytes  = 2
	majorArray  = 4
	itemFalse   = 0xf4
	itemTrue    = 0xf5
	itemNull    = 0xf6
)

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

type encoder struct{ b []byte }

func (e *encoder) array(n int)   { e.b = appendHead(e.b, majorArray, uint64(n)) }
func (e *encoder) uint(v uint64) { e.b = appendHead(e.b, majorUint, v) }
func (e *encoder) null()         { e.b = append(e.b, itemNull) }

func (e *encoder) int(v int64) {
	if v >= 0 {
		e.uint(uint64(v))
		return
	}
	e.b = appendHead(e.b, majorNegInt, uint64(-1-v))
}

func (e *encoder) bytes(s []byte) {
	e.b = append(appendHead(e.b, majorBytes, uint64(len(s))), s...)
}

func (e *encoder) str(s string) {
	e.b = append(appendHead(e.b, majorBytes, uint64(len(s))), s...)
}

// decoder takes items off the front of a slice. The first fault stays in err and makes all later calls return zero values.
// Byte strings alias the input.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = invalid("%s", what)
	}
	d.b = nil
}

func (d *decoder) head() (major byte, n uint64) {
	if len(d.b) == 0 {
		d.fail("cut off")
		return 0, 0
	}
	major, low := d.b[0]>>5, d.b[0]&31
	size := 0
	switch {
	case low < 24:
		d.b = d.b[1:]
		return major, uint64(low)
	case low <= 27:
		size = 1 << (low - 24)
	default:
		d.fail("indefinite or reserved length")
		return 0, 0
	}
	if len(d.b) < 1+size {
		d.fail("cut off")
		return 0, 0
	}
	for _, c := range d.b[1 : 1+size] {
		n = n<<8 | uint64(c)
	}
	if size == 1 && n < 24 || size > 1 && n>>(size*4) == 0 {
		d.fail("a number longer than needed")
		return 0, 0
	}
	d.b = d.b[1+size:]
	return major, n
}

func (d *decoder) want(major byte, limit uint64, what string) uint64 {
	m, n := d.head()
	if d.err == nil && (m != major || n > limit) {
		d.fail(what)
		return 0
	}
	return n
}

func (d *decoder) uint(limit uint64, what string) uint64 { return d.want(majorUint, limit, what) }

func (d *decoder) int(what string) int64 {
	m, n := d.head()
	if d.err != nil {
		return 0
	}
	if m > majorNegInt || n > math.MaxInt64 {
		d.fail(what)
		return 0
	}
	if m == majorNegInt {
		return -1 - int64(n)
	}
	return int64(n)
}

func (d *decoder) size(what string) int64 { return int64(d.uint(math.MaxInt64, what)) }

func (d *decoder) bytes(limit int, what string) []byte {
	n := d.want(majorBytes, uint64(limit), what)
	if n > uint64(len(d.b)) {
		d.fail("cut off")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) id(what string) (id [32]byte) {
	b := d.bytes(32, what)
	if len(b) != 32 {
		d.fail(what)
		return id
	}
	copy(id[:], b)
	return id
}

// array returns a length that is at most limit and at most what the rest of the input can hold.
func (d *decoder) array(limit int, what string) int {
	n := d.want(majorArray, uint64(limit), what)
	if n > uint64(len(d.b)) {
		d.fail("cut off")
		return 0
	}
	return int(n)
}

func (d *decoder) fixed(n int, what string) {
	if d.array(n, what) != n {
		d.fail(what)
	}
}

func (d *decoder) null() bool {
	if len(d.b) > 0 && d.b[0] == itemNull {
		d.b = d.b[1:]
		return true
	}
	return false
}

// skip passes over one item of any sort that newer versions may use, nested at most depth deep.
func (d *decoder) skip(depth int) {
	if depth == 0 {
		d.fail("nested too deep")
		return
	}
	if len(d.b) > 0 && d.b[0]>>5 == 7 { // simple values and floats: shortness is not ours to judge
		n := 1
		switch d.b[0] & 31 {
		case 25:
			n = 3
		case 26:
			n = 5
		case 27:
			n = 9
		case itemFalse & 31, itemTrue & 31, itemNull & 31:
		default:
			d.fail("simple value")
			return
		}
		if len(d.b) < n {
			d.fail("cut off")
			return
		}
		d.b = d.b[n:]
		return
	}
	major, n := d.head()
	switch major {
	case 0, 1:
	case 2, 3:
		if n > uint64(len(d.b)) {
			d.fail("cut off")
			return
		}
		d.b = d.b[n:]
	case 6:
		d.skip(depth - 1)
	case 4, 5:
		if n > uint64(len(d.b)) {
			d.fail("cut off")
			return
		}
		if major == 5 {
			n *= 2
		}
		for ; n > 0 && d.err == nil; n-- {
			d.skip(depth - 1)
		}
	}
}

func (d *decoder) done() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail("bytes behind the end")
	}
	return d.err
}
