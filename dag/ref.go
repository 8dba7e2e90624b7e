package dag

import (
	"encoding/binary"
	"hash/crc32"
)

// ref says where a change stands in the total order and where its body lies.
type ref struct {
	id        ID
	clock     uint64
	batch     uint64 // prefix of the batch's ID
	at        uint64 // position of the batch
	chain     uint32
	off, size uint32 // of the body in the frame
	crc       uint32 // CRC-32C of the body
	place     uint16
}

const refBytes = 32 + 6 + 8 + 5 + 3 + 4 + 3 + 4 + 2

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *ref) append(p []byte) []byte {
	var b [refBytes]byte
	copy(b[:], r.id[:])
	put := func(i, n int, v uint64) {
		for n--; n >= 0; n-- {
			b[i+n] = byte(v)
			v >>= 8
		}
	}
	put(32, 6, r.clock)
	binary.BigEndian.PutUint64(b[38:], r.batch)
	put(46, 5, r.at)
	put(51, 3, uint64(r.chain))
	binary.BigEndian.PutUint32(b[54:], r.off)
	put(58, 3, uint64(r.size))
	binary.BigEndian.PutUint32(b[61:], r.crc)
	binary.BigEndian.PutUint16(b[65:], r.place)
	return append(p, b[:]...)
}

func (d *decoder) ref() (r ref) {
	b := d.take(refBytes)
	get := func(i, n int) (v uint64) {
		for _, c := range b[i : i+n] {
			v = v<<8 | uint64(c)
		}
		return v
	}
	copy(r.id[:], b)
	r.clock = get(32, 6)
	r.batch = binary.BigEndian.Uint64(b[38:])
	r.at = get(46, 5)
	r.chain = uint32(get(51, 3))
	r.off = binary.BigEndian.Uint32(b[54:])
	r.size = uint32(get(58, 3))
	r.crc = binary.BigEndian.Uint32(b[61:])
	r.place = binary.BigEndian.Uint16(b[65:])
	return r
}

func encodeRefs(refs []ref) []byte { return appendRefs(make([]byte, 0, len(refs)*refBytes), refs) }

func appendRefs(p []byte, refs []ref) []byte {
	for i := range refs {
		p = refs[i].append(p)
	}
	return p
}

func decodeRefs(p []byte) ([]ref, error) {
	if len(p)%refBytes != 0 {
		return nil, errIndex("object log")
	}
	d := decoder{b: p}
	refs := make([]ref, len(p)/refBytes)
	for i := range refs {
		refs[i] = d.ref()
	}
	return refs, nil
}

// compare orders refs of one object. Two batches whose IDs share 8 bytes are told apart by looking them up.
func (g *Graph) compare(a, b *ref) int {
	switch {
	case a.clock != b.clock:
		if a.clock < b.clock {
			return -1
		}
		return 1
	case a.batch != b.batch:
		if a.batch < b.batch {
			return -1
		}
		return 1
	case a.at == b.at:
		return 0
	}
	x, errx := g.headAt(a.at)
	y, erry := g.headAt(b.at)
	if errx != nil || erry != nil {
		return 0 // a damaged record: both are found damaged when they are read
	}
	return x.id.Compare(y.id)
}

// insert puts r into its place in refs. Readers may hold refs: what it has is not changed, but there may be more behind it.
// So of two slices made from one by insert only the later one is good; a graph makes one at a time.
func (g *Graph) insert(refs []ref, r *ref) []ref {
	i := len(refs)
	for i > 0 && g.compare(&refs[i-1], r) > 0 {
		i--
	}
	if i == len(refs) {
		return append(refs, *r)
	}
	out := make([]ref, 0, len(refs)+1)
	out = append(out, refs[:i]...)
	out = append(out, *r)
	return append(out, refs[i:]...)
}
