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
	for i, num := range nums {
		m, known := saved[num]
		delete(saved, num)
		g := &segment{num: num, end: m.indexed, synced: m.synced, live: m.live, blocks: m.blocks, punched: m.punched, saved: m}
		// The place of each found block is compared with the index, which needs every segment's count.
		s.segments[num], s.last = g, max(s.last, num)
		if err := s.recoverSegment(g, known, rebuild); err != nil {
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
				bad = fmt.Errorf("%w: marks of segment %x: %w", ErrCorrupt, k, err)
				return false
			}
			out[binary.BigEndian.Uint32(k)] = m
			return true
		})
	})
	return out, errors.Join(err, bad)
}

// recoverSegment walks what the checkpoint does not know of g. rebuild says that there is no checkpoint at all.
func (s *Store) recoverSegment(g *segment, known, rebuild bool) error {
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
	if g.end == size && size >= segmentHeader {
		return nil
	}
	if size < g.end { // damage, and what is missing reads so; nothing may be appended in its place
		g.full, g.end, g.synced = true, max(size, segmentHeader), min(g.synced, max(size, segmentHeader))
		return nil
	}
	if !known {
		if err := s.recoverHeader(g, f, size); err != nil {
			return err
		}
		size = max(size, segmentHeader)
	}
	g.end = max(g.end, segmentHeader)
	end, err := s.scan(g, f, size, rebuild)
	if err != nil {
		return err
	}
	if end < size {
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

// recoverHeader writes the header anew when the crash came before it was durable; nothing behind it was then, either.
func (s *Store) recoverHeader(g *segment, f disk.File, size int64) error {
	var h [segmentHeader]byte
	if size >= segmentHeader {
		if err := readFull(f, h[:], 0); err != nil {
			return err
		}
		if decodeSegment(&h, g.num) == nil {
			return nil
		}
	}
	encodeSegment(&h, g.num)
	_, err := f.WriteAt(h[:], 0)
	return err
}

// scan indexes the records of g from g.end on and returns where the last valid one ends.
//
// Up to g.synced they are durable, so that a valid header is enough. Behind it a block is verified: one that does not
// is passed over if the next record's header is valid, and ends the segment otherwise.
func (s *Store) scan(g *segment, f disk.File, size int64, rebuild bool) (int64, error) {
	at := g.end
	var buf []byte
	for at < size {
		r, err := readHeader(f, g.num, at, size)
		if errors.Is(err, errRecord) {
			next := int64(-1)
			if rebuild || at < g.synced {
				if next, err = findHeader(f, g.num, at+1, size); err != nil {
					return 0, err
				}
			}
			if next < 0 {
				return at, nil
			}
			at = next
			continue
		}
		if err != nil {
			return 0, err
		}
		p := place{seg: g.num, off: uint32(at), n: r.n}
		if !r.dead && at >= g.synced {
			buf = slices.Grow(buf[:0], int(r.n))[:r.n]
			if err := readFull(f, buf, at+recordHeader); err != nil {
				return 0, err
			}
			if Sum(buf) != r.id {
				_, err := readHeader(f, g.num, p.end(), size)
				if errors.Is(err, errRecord) {
					return at, nil
				}
				if err != nil {
					return 0, err
				}
				r.dead = true
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

// found indexes a record that Open met. Of two records of one block the later one counts.
func (s *Store) found(id ID, p place) error {
	old, _, err := s.lookup(id)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if old == p {
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
	buf := make([]byte, 1<<20)
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
