package block

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Sizes of the headers in a segment file, and of the records between which PunchHole gives space back.
const (
	segmentHeader = 64
	recordHeader  = 48
	page          = 4096
	smallRecord   = 64 << 10 // up to here header and block go out in one write
)

const (
	segmentMagic  = "anyfs segment 1\n"
	recordMagic   = 0xB10CA1F5
	stateLive     = 0x4C // 'L'
	stateDead     = 0x44 // 'D': evicted, the bytes may be zeros
	stateAt       = 4    // where the state lies in a record's header; it is not under the checksum
	maxSegments   = 1 << 32
	maxSegmentLen = 1 << 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errRecord  = errors.New("not a record's header")
	errSegment = errors.New("not a segment's header")
)

// A record is the header of one block: whose bytes follow it, how many, and whether they still count.
type record struct {
	id   ID
	n    uint32
	dead bool
}

// encodeRecord writes the header of a record at off in segment seg to b.
//
// The checksum binds it to its place: a header that lies elsewhere, as content, as a remnant or as a copy, is none.
func encodeRecord(b *[recordHeader]byte, r record, seg uint32, off int64) {
	binary.LittleEndian.PutUint32(b[0:], recordMagic)
	b[4], b[5], b[6], b[7] = stateLive, 0, 0, 0
	if r.dead {
		b[stateAt] = stateDead
	}
	binary.LittleEndian.PutUint32(b[8:], r.n)
	copy(b[16:], r.id[:])
	binary.LittleEndian.PutUint32(b[12:], recordSum(b, seg, off))
}

// decodeRecord reads what encodeRecord wrote; any other bytes, or others' place, give errRecord.
func decodeRecord(b *[recordHeader]byte, seg uint32, off int64) (r record, err error) {
	if binary.LittleEndian.Uint32(b[0:]) != recordMagic || b[4] != stateLive && b[4] != stateDead || b[5]|b[6]|b[7] != 0 {
		return r, errRecord
	}
	r.n = binary.LittleEndian.Uint32(b[8:])
	if r.n > MaxSize || binary.LittleEndian.Uint32(b[12:]) != recordSum(b, seg, off) {
		return r, errRecord
	}
	r.dead = b[4] == stateDead
	copy(r.id[:], b[16:])
	return r, nil
}

func recordSum(b *[recordHeader]byte, seg uint32, off int64) uint32 {
	var in [recordHeader]byte
	binary.LittleEndian.PutUint32(in[0:], seg)
	binary.LittleEndian.PutUint64(in[4:], uint64(off))
	binary.LittleEndian.PutUint32(in[12:], binary.LittleEndian.Uint32(b[8:]))
	copy(in[16:], b[16:])
	return crc32.Checksum(in[:], castagnoli)
}

func encodeSegment(b *[segmentHeader]byte, num uint32) {
	clear(b[:])
	copy(b[:], segmentMagic)
	binary.LittleEndian.PutUint32(b[16:], num)
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

func decodeSegment(b *[segmentHeader]byte, num uint32) error {
	var want [segmentHeader]byte
	if encodeSegment(&want, num); *b != want {
		return errSegment
	}
	return nil
}

// place says where a record lies. The zero place is nowhere: segments are numbered from 1.
type place struct {
	seg uint32
	off uint32
	n   uint32 // the block's length, without the header
}

func (p place) end() int64  { return int64(p.off) + p.size() }
func (p place) size() int64 { return recordHeader + int64(p.n) }

const placeLen = 12

func (p place) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, p.seg)
	b = binary.LittleEndian.AppendUint32(b, p.off)
	return binary.LittleEndian.AppendUint32(b, p.n)
}

func decodePlace(b []byte) (p place, err error) {
	if len(b) != placeLen {
		return p, errors.New("a place is 12 bytes long")
	}
	p = place{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])}
	if p.seg == 0 || p.off < segmentHeader || p.n > MaxSize {
		return place{}, errors.New("a place that cannot be")
	}
	return p, nil
}

// marks is what the checkpoint says of one segment.
type marks struct {
	indexed int64 // all records that begin before it are in the index, or evicted
	synced  int64 // all bytes before it are durable
	live    int64 // bytes of the records before indexed that the index points to
	punched int64 // bytes given back
	blocks  int64 // records counted in live
}

const marksLen = 40

func (m marks) append(b []byte) []byte {
	for _, v := range [...]int64{m.indexed, m.synced, m.live, m.punched, m.blocks} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func decodeMarks(b []byte) (m marks, err error) {
	if len(b) != marksLen {
		return m, errors.New("marks are 40 bytes long")
	}
	for i, v := range [...]*int64{&m.indexed, &m.synced, &m.live, &m.punched, &m.blocks} {
		*v = int64(binary.LittleEndian.Uint64(b[8*i:]))
		if *v < 0 || *v > maxSegmentLen+MaxSize {
			return marks{}, errors.New("marks that cannot be")
		}
	}
	return m, nil
}
