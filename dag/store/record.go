package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A segment begins with a head: magic, version, its number, the checksum of the last record before it.
const (
	segmentMagic = "anyfslog"
	segmentHead  = 8 + 4 + 4 + 4 + 4 // magic, version, number, previous checksum, CRC-32C of these
)

// Before each frame stands a record head. Numbers are little-endian.
//
//	0  4  CRC-32C of all that follows, the frame included
//	4  4  that of the record before: a record of an older life of the file does not fit
//	8  4  length of the frame, and in the highest byte the kind of the record (1)
//	12 4  length of the frame's head
//	16 4  CRC-32C of the ID and the frame's head
//	20 32 ID of the batch
const (
	recordHead = 52
	kindFrame  = 1
	maxFrame   = uint32(dag.MaxFrame)
)

type recordHeader struct {
	crc, prev uint32
	size      uint32 // of the frame
	head      uint32
	headCRC   uint32
	id        dag.ID
}

func parseRecordHeader(p []byte) (h recordHeader, ok bool) {
	le := binary.LittleEndian
	h = recordHeader{crc: le.Uint32(p), prev: le.Uint32(p[4:]), size: le.Uint32(p[8:]) & 0xffffff,
		head: le.Uint32(p[12:]), headCRC: le.Uint32(p[16:])}
	copy(h.id[:], p[20:])
	return h, p[11] == kindFrame && h.size <= maxFrame && h.head <= h.size
}

// appendRecord writes a whole record to buf and returns its checksum.
func appendRecord(buf []byte, rec *dag.Record, prev uint32) ([]byte, uint32) {
	le := binary.LittleEndian
	from := len(buf)
	buf = append(buf, 0, 0, 0, 0)
	buf = le.AppendUint32(buf, prev)
	buf = le.AppendUint32(buf, uint32(len(rec.Frame))|kindFrame<<24)
	buf = le.AppendUint32(buf, uint32(rec.Head))
	headCRC := crc32.Update(crc32.Checksum(rec.ID[:], castagnoli), castagnoli, rec.Frame[:rec.Head])
	buf = le.AppendUint32(buf, headCRC)
	buf = append(buf, rec.ID[:]...)
	buf = append(buf, rec.Frame...)
	crc := crc32.Checksum(buf[from+4:], castagnoli)
	le.PutUint32(buf[from:], crc)
	return buf, crc
}

// whole checks a whole record: p begins with its head.
func (h *recordHeader) whole(p []byte) bool {
	return crc32.Checksum(p[4:recordHead+int(h.size)], castagnoli) == h.crc
}

// headOK checks the ID and the frame's head, which p begins with.
func (h *recordHeader) headOK(p []byte) bool {
	return crc32.Update(crc32.Checksum(h.id[:], castagnoli), castagnoli, p[:h.head]) == h.headCRC
}

func encodeSegmentHead(n, prev uint32) []byte {
	le := binary.LittleEndian
	p := append(make([]byte, 0, segmentHead), segmentMagic...)
	p = le.AppendUint32(p, 1)
	p = le.AppendUint32(p, n)
	p = le.AppendUint32(p, prev)
	return le.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

// readSegmentHead returns the checksum that a segment's head names, if the head is valid. An error is the disk's.
func readSegmentHead(f disk.File, n uint32) (prev uint32, ok bool, err error) {
	var p [segmentHead]byte
	if err := readFull(f, p[:], 0); errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, false, nil
	} else if err != nil {
		return 0, false, err
	}
	prev = binary.LittleEndian.Uint32(p[16:])
	return prev, string(p[:]) == string(encodeSegmentHead(n, prev)), nil
}
