package block

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// recover finds the segments and what was appended to them since the last checkpoint.
func (s *Store) recover() error {
	d := s.opt.Disk
	if err := d.MkdirAll(s.opt.Dir); err != nil {
		return err
	}
	names, err := d.ReadDir(s.opt.Dir)
	if err != nil {
		return err
	}
	saved, err := s.loadMarks()
	if err != nil {
		return err
	}
	rebuild := len(saved) == 0
	var nums []uint32
	for _, name := range names {
		if num, ok := segmentNumber(name); ok {
			nums = append(nums, num)
		}
	}
	slices.Sort(nums)
	for _, num := range nums { // all before the first walk: what it finds may have been counted in any of them
		m := saved[num]
		s.segments[num] = &segment{num: num, end: m.indexed, synced: m.synced, live: m.live, blocks: m.blocks, punched: m.punched, saved: m}
		s.last = max(s.last, num)
	}
	for i, num := range nums {
		delete(saved, num)
		g := s.segments[num]
		if err := s.recoverSegment(g, rebuild); err != nil {
			return fmt.Errorf("segment %d: %w", num, err)
		}
		if i < len(nums)-1 {
			g.full = true
		} else if !g.full && g.end < s.opt.SegmentBytes {
			s.active = g
		}
	}
	for num, m := range saved {
		s.last = max(s.last, num)
		// The file is gone. When nothing was in it, it was removed and only the checkpoint did not hear of it; else the
		// blocks in it read as corrupt until they are put again or evicted.
		s.segments[num] = &segment{num: num, end: m.indexed, synced: m.indexed, live: m.live, blocks: m.blocks,
			punched: m.indexed, gone: true, full: true, changed: m.live <= 0, saved: m}
	}
	if len(s.dirty) > 0 {
		s.appended = 1 // what was found is not durable yet: the first Sync sees to it
	}
	return nil
}

func (s *Store) loadMarks() (map[uint32]marks, error) {
	out := map[uint32]marks{}
	var bad error
	err := s.opt.DB.View(func(tx kv.Tx) error {
		return tx.Scan(bucketSegments, nil, func(k, v []byte) bool {
			b, err := s.opt.Seal.OpenLocal(nil, v, marksAD(k))
			if err == nil && len(k) != 4 {
				err = errors.New("key is not 4 bytes long")
			}
			var m marks
			if err == nil {
				m, err = decodeMarks(b)
			}
			if err != nil {
				bad = fmt.Errorf("%w: marks of segment %x: %w", ErrIndex, k, err)
				return false
			}
			out[binary.BigEndian.Uint32(k)] = m
			return true
		})
	})
	return out, errors.Join(err, bad)
}

// recoverSegment walks what the checkpoint does not know of g. rebuild says that there is no checkpoint at all.
func (s *Store) recoverSegment(g *segment, rebuild bool) error {
	f, err := s.files.acquire(s, g)
	if err != nil {
		return err
	}
	defer s.files.release(g)
	size, err := f.Size()
	if err != nil {
		return err
	}
	size = min(size, math.MaxUint32) // no place points behind it
	if g.synced < segmentHeader {    // not even the header is known to be durable
		if err := recoverHeader(g, f); err != nil {
			return err
		}
		g.end, g.synced, size = segmentHeader, 0, max(size, segmentHeader)
	}
	g.end = max(g.end, segmentHeader)
	if size < g.end { // damage, and what is missing reads so; nothing may be appended in its place
		g.full, g.end, g.synced = true, max(size, segmentHeader), min(g.synced, max(size, segmentHeader))
		return nil
	}
	end, err := s.scan(g, f, size, rebuild)
	if err != nil {
		return err
	}
	if end < size {
		s.refuse(g.num, end)
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	g.end, g.synced = end, min(g.synced, end)
	if g.end > g.synced {
		s.markDirtyLocked(g)
	}
	return nil
}

// recoverHeader writes the header anew, which may not be durable.
func recoverHeader(g *segment, f disk.File) error {
	var h [segmentHeader]byte
	encodeSegment(&h, g.num)
	_, err := f.WriteAt(h[:], 0)
	return err
}

// scan indexes the records of g from g.end on and returns where the last valid one ends.
//
// Up to g.synced they are durable, so that a valid header is enough. Behind it a block is verified: one that does not
// hold is passed over if the next record's header is valid, and ends the segment otherwise. So does what is no header,
// except where it lies in the durable part, or may: then the next one is searched for.
func (s *Store) scan(g *segment, f disk.File, size int64, rebuild bool) (int64, error) {
	at := g.end
	var buf []byte
	for at < size {
		r, err := readHeader(f, g.num, at, size)
		if errors.Is(err, errRecord) {
			next := int64(-1)
			if rebuild || at < g.synced {
				if next, err = findHeader(f, g.num, at+recordHeader, size); err != nil {
					return 0, err
				}
			}
			if next < 0 {
				return at, nil
			}
			s.refuse(g.num, at)
			if err := fill(f, g.num, at, next); err != nil {
				return 0, err
			}
			at = next
			continue
		}
		if err != nil {
			return 0, err
		}
		p := place{seg: g.num, off: uint32(at), n: r.n}
		if at >= g.synced {
			ok, err := s.scanNew(f, &r, p, size, &buf)
			if err != nil {
				return 0, err
			}
			if !ok {
				return at, nil
			}
		}
		if !r.dead {
			if err := s.found(r.id, p); err != nil {
				return 0, err
			}
		}
		at = p.end()
	}
	return at, nil
}

// scanNew verifies a record that may not be durable, and marks it dead if it does not hold; ok is false if it ends the
// segment.
//
// It is written again as it was read. The process before may have ended because a sync failed: then the pages count as
// clean though the disk does not have them, and without this a sync that succeeds would prove nothing.
func (s *Store) scanNew(f disk.File, r *record, p place, size int64, buf *[]byte) (ok bool, err error) {
	at := int64(p.off)
	if !r.dead {
		*buf = slices.Grow((*buf)[:0], int(r.n))[:r.n]
		if err := readFull(f, *buf, at+recordHeader); err != nil {
			return false, err
		}
		if Sum(*buf) == r.id {
			if _, err := f.WriteAt(*buf, at+recordHeader); err != nil {
				return false, err
			}
		} else if _, err := readHeader(f, p.seg, p.end(), size); err == nil {
			s.refuse(p.seg, at)
			r.dead = true
		} else if errors.Is(err, errRecord) {
			return false, nil
		} else {
			return false, err
		}
	}
	var h [recordHeader]byte
	encodeRecord(&h, *r, p.seg, at)
	_, err = f.WriteAt(h[:], at)
	return err == nil, err
}

// found indexes a record that Open met. Of two records of one block the later one counts.
func (s *Store) found(id ID, p place) error {
	old, _, err := s.lookup(id)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if old == p || old.seg > p.seg {
		return nil
	}
	s.mu.Lock()
	s.setLocked(id, p, old)
	s.mu.Unlock()
	return nil
}

// readHeader reads the header of the record at off. Anything that is none, or that ends behind size, gives errRecord.
func readHeader(f disk.File, seg uint32, off, size int64) (record, error) {
	var h [recordHeader]byte
	if off+recordHeader > size {
		return record{}, errRecord
	}
	if err := readFull(f, h[:], off); err != nil {
		return record{}, err
	}
	r, err := decodeRecord(&h, seg, off)
	if err == nil && off+recordHeader+int64(r.n) > size {
		err = errRecord
	}
	return r, err
}

// findHeader returns where the first valid header at or behind off lies, or -1.
func findHeader(f disk.File, seg uint32, off, size int64) (int64, error) {
	buf := make([]byte, min(1<<20, max(size-off, 0)))
	for off+recordHeader <= size {
		n := int(min(int64(len(buf)), size-off))
		if err := readFull(f, buf[:n], off); err != nil {
			return 0, err
		}
		for i := 0; i+recordHeader <= n; i++ {
			if binary.LittleEndian.Uint32(buf[i:]) != recordMagic {
				continue
			}
			if _, err := decodeRecord((*[recordHeader]byte)(buf[i:]), seg, off+int64(i)); err == nil {
				return off + int64(i), nil
			}
		}
		off += int64(n) - recordHeader + 1
	}
	return -1, nil
}

// fill mends the chain of headers: it makes dead records of what lies between two places, 48 bytes or more apart.
func fill(f disk.File, seg uint32, at, next int64) error {
	for at < next {
		n := min(next-at-recordHeader, MaxSize)
		if rest := next - at - recordHeader - n; rest > 0 && rest < recordHeader {
			n -= recordHeader // room for the header of one more
		}
		var h [recordHeader]byte
		encodeRecord(&h, record{n: uint32(n), dead: true}, seg, at)
		if _, err := f.WriteAt(h[:], at); err != nil {
			return err
		}
		at += recordHeader + n
	}
	return nil
}

// readFull fills p from f at off. A file that ends before gives io.EOF or io.ErrUnexpectedEOF.
func readFull(f disk.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// walk calls fn for the records of g between two offsets, dead ones too. It returns where it ended, with errRecord where
// the chain of headers is broken.
func (s *Store) walk(ctx context.Context, g *segment, from, to int64, fn func(record, place) error) (int64, error) {
	f, err := s.files.acquire(s, g)
	if err != nil {
		return from, err
	}
	defer s.files.release(g)
	for from < to {
		if err := ctx.Err(); err != nil {
			return from, context.Cause(ctx)
		}
		r, err := readHeader(f, g.num, from, to)
		if err != nil {
			return from, err
		}
		p := place{seg: g.num, off: uint32(from), n: r.n}
		if err := fn(r, p); err != nil {
			return from, err
		}
		from = p.end()
	}
	return from, nil
}
