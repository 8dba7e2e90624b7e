package store

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// errRecord says of the record at a position that it does not verify, or that the disk does not give it.
func (l *log) errRecord(at uint64, err error) error {
	name, off := l.path(int(at>>segmentBits)), at%segmentBytes
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("store: %s: record at %d: %w", name, off, err)
	}
	return fmt.Errorf("%w: %s: record at %d", dag.ErrCorrupt, name, off)
}

// guess is how much is read when only a head is wanted.
const guess = recordHead + 460

// readHead reads a record's head, and of its frame the head.
func (l *log) readHead(at uint64) (dag.Record, error) {
	f, err := l.file(at)
	if err != nil {
		return dag.Record{}, err
	}
	p := make([]byte, guess)
	n, err := f.ReadAt(p, int64(at%segmentBytes))
	if n < recordHead {
		return dag.Record{}, l.errRecord(at, noEOF(err))
	}
	h, ok := parseRecordHeader(p)
	if !ok {
		return dag.Record{}, l.errRecord(at, nil)
	}
	if need := recordHead + int(h.head); n < need {
		p = append(p[:n], make([]byte, need-n)...)
		if err := readFull(f, p[n:], int64(at%segmentBytes)+int64(n)); err != nil {
			return dag.Record{}, l.errRecord(at, err)
		}
	}
	frame := p[recordHead : recordHead+h.head : recordHead+h.head]
	if !h.headOK(frame) {
		return dag.Record{}, l.errRecord(at, nil)
	}
	return h.record(at, frame), nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func (h *recordHeader) record(at uint64, frame []byte) dag.Record {
	return dag.Record{At: at, End: at + recordHead + uint64(h.size), ID: h.id, Head: int(h.head), Frame: frame}
}

// firstReads are buffers for what is read before a record's size is known: most are no longer.
var firstReads = sync.Pool{New: func() any { return new([4096]byte) }}

// read reads and checks a whole record.
func (l *log) read(at uint64) (dag.Record, error) {
	f, err := l.file(at)
	if err != nil {
		return dag.Record{}, err
	}
	first := firstReads.Get().(*[4096]byte)
	defer firstReads.Put(first)
	n, err := f.ReadAt(first[:], int64(at%segmentBytes))
	if n < recordHead {
		return dag.Record{}, l.errRecord(at, noEOF(err))
	}
	h, ok := parseRecordHeader(first[:])
	if !ok {
		return dag.Record{}, l.errRecord(at, nil)
	}
	need := recordHead + int(h.size)
	p := make([]byte, need)
	if copy(p, first[:n]) < need {
		if err := readFull(f, p[n:], int64(at%segmentBytes)+int64(n)); err != nil {
			return dag.Record{}, l.errRecord(at, err)
		}
	}
	if !h.whole(p) {
		return dag.Record{}, l.errRecord(at, nil)
	}
	return h.record(at, p[recordHead:need:need]), nil
}

// walk implements Store.Walk: up to the end, where every record must be valid.
func (l *log) walk(from uint64, fn func(dag.Record) error) error {
	end := l.position()
	if from <= segmentHead {
		from = segmentHead
		f, err := l.file(0)
		if err != nil {
			return err
		}
		if _, ok, err := readSegmentHead(f, 0); err != nil {
			return fmt.Errorf("store: %s: %w", l.path(0), err)
		} else if !ok {
			return fmt.Errorf("%w: %s: its head, at 0", dag.ErrCorrupt, l.path(0))
		}
	}
	if from >= end {
		return nil
	}
	return l.walkFrom(from, nil, end, func(rec dag.Record, _ uint32) error { return fn(rec) })
}

// walkFrom calls fn for records and their checksums from a position on, each of which must follow the one before; last is
// the checksum of the first one's predecessor, nil where it is not known. It ends at stop, and an error says that it did
// not come so far; with a stop of 0 it ends at the first that is not valid. io.EOF from fn ends it without an error.
func (l *log) walkFrom(at uint64, last *uint32, stop uint64, fn func(dag.Record, uint32) error) error {
	w := window{}
	for stop == 0 || at < stop {
		f, err := l.file(at)
		if err != nil {
			return err
		}
		w.use(f)
		rec, h, ok, err := w.record(at)
		if err != nil {
			return l.errRecord(at, err)
		}
		if !ok || last != nil && h.prev != *last {
			prev, next, err := l.nextSegment(at)
			if err != nil {
				return err
			}
			if next && (last == nil || prev == *last) {
				at = (at>>segmentBits+1)<<segmentBits + segmentHead
				last = &prev
				continue
			}
			break
		}
		if err := fn(rec, h.crc); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		at, last = rec.End, &h.crc
	}
	if at < stop {
		return l.errRecord(at, nil)
	}
	return nil
}

// nextSegment returns the checksum with which the segment behind a position begins, if there is one.
func (l *log) nextSegment(at uint64) (prev uint32, ok bool, err error) {
	n := at>>segmentBits + 1
	f, err := l.file(n << segmentBits)
	if err != nil {
		return 0, false, nil
	}
	return readSegmentHead(f, uint32(n))
}

const walkBuffer = 1 << 20

// window reads a file forward in large pieces.
type window struct {
	f   disk.File
	off int64
	buf []byte
}

func (w *window) use(f disk.File) {
	if w.f != f {
		*w = window{f: f}
	}
}

// bytes returns n bytes at off, fewer at the end of the file.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		size, err := w.f.Size()
		if err != nil {
			return nil, err
		}
		buf := make([]byte, max(int64(n), min(walkBuffer, size-off))) // records that were given out keep the old one
		m, err := w.f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			return nil, err
		}
		w.off, w.buf = off, buf[:m]
	}
	p := w.buf[off-w.off:]
	return p[:min(n, len(p))], nil
}

func (w *window) record(at uint64) (rec dag.Record, h recordHeader, ok bool, err error) {
	off := int64(at % segmentBytes)
	p, err := w.bytes(off, recordHead)
	if err != nil || len(p) < recordHead {
		return rec, h, false, err
	}
	if h, ok = parseRecordHeader(p); !ok {
		return rec, h, false, nil
	}
	need := recordHead + int(h.size)
	p, err = w.bytes(off, need)
	if err != nil || len(p) < need || !h.whole(p) {
		return rec, h, false, err
	}
	return h.record(at, p[recordHead:need:need]), h, true, nil
}

// Spans that lie within groupGap of each other are read together, up to groupBytes.
const (
	groupGap   = 8 << 10
	groupBytes = 128 << 10
)

// readSpans implements Store.ReadSpans.
func (l *log) readSpans(spans []dag.Span) error {
	order := make([]int, len(spans))
	for i := range order {
		order[i] = i
	}
	start := func(i int) uint64 {
		if spans[i].Head {
			return spans[i].At
		}
		return spans[i].At + recordHead + uint64(spans[i].Off)
	}
	stop := func(i int) uint64 {
		return spans[i].At + recordHead + uint64(spans[i].Off) + uint64(spans[i].Len)
	}
	slices.SortFunc(order, func(i, j int) int {
		if a, b := start(i), start(j); a != b {
			if a < b {
				return -1
			}
			return 1
		}
		return 0
	})
	for len(order) > 0 {
		from, to, n := start(order[0]), stop(order[0]), 1
		for n < len(order) {
			i := order[n]
			if start(i)>>segmentBits != from>>segmentBits || start(i) > to+groupGap || stop(i) > from+groupBytes {
				break
			}
			to = max(to, stop(i))
			n++
		}
		if err := l.readGroup(spans, order[:n], from, to, start, stop); err != nil {
			return err
		}
		order = order[n:]
	}
	return nil
}

func (l *log) readGroup(spans []dag.Span, group []int, from, to uint64, start, stop func(int) uint64) error {
	f, err := l.file(from)
	if err != nil {
		return err
	}
	buf := make([]byte, to-from)
	if err := readFull(f, buf, int64(from%segmentBytes)); err != nil {
		return l.errRecord(from, err)
	}
	for _, i := range group {
		s := &spans[i]
		p := buf[start(i)-from : stop(i)-from : stop(i)-from]
		if !s.Head {
			s.Data = p
			continue
		}
		s.Data = nil
		h, ok := parseRecordHeader(p)
		if !ok {
			return l.errRecord(s.At, nil)
		}
		if h.head > s.Len {
			continue
		}
		s.ID, s.Data = h.id, p[recordHead:recordHead+h.head:recordHead+h.head]
		if !h.headOK(s.Data) {
			return l.errRecord(s.At, nil)
		}
	}
	return nil
}
