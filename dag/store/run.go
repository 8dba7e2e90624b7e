package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
)

// A set holds values under the first 8 bytes of hashes, which arrive in no order: as keys of a B-tree they would touch a
// page each. So each checkpoint writes those that are new as a *run*: sorted, in blocks under ascending keys. Eight runs
// of a level are merged into one of the next. A run's filter says of most prefixes that it lacks them.
//
// Keys in the bucket of the runs: set (1), run (4), block (4). Blocks from filterBlock on are the filter's; the last is the
// run's own record. The bucket's key "runs" lists the runs that count; others are leftovers.
type run struct {
	runKey
	level   uint8
	entries uint64
	firsts  []uint64 // of each block the first prefix
	filter  filter
}

type runKey struct {
	set dag.Set
	num uint32
}

type entry struct {
	prefix uint64
	value  dag.Value
}

func (e entry) compare(o entry) int {
	for _, p := range [...][2]uint64{{e.prefix, o.prefix}, {e.value.A, o.value.A}, {e.value.B, o.value.B}} {
		if p[0] != p[1] {
			if p[0] < p[1] {
				return -1
			}
			return 1
		}
	}
	return 0
}

const (
	entryBytes   = 24
	blockEntries = 150 // with key and seal just below a page
	filterBlock  = 0xf0000000
	recordBlock  = 0xffffffff
	filterPiece  = 32 << 10
)

func (k runKey) key(block uint32) []byte {
	p := append(make([]byte, 0, 9), byte(k.set))
	p = binary.BigEndian.AppendUint32(p, k.num)
	return binary.BigEndian.AppendUint32(p, block)
}

// findInRun appends the values under prefix to dst. It opens blocks in buf.
func (s *Store) findInRun(tx kv.Tx, r *run, prefix uint64, dst []dag.Value, buf *[]byte) ([]dag.Value, error) {
	n, _ := slices.BinarySearch(r.firsts, prefix) // the first block that begins at or above it
	for b := max(n-1, 0); b < len(r.firsts) && r.firsts[b] <= prefix; b++ {
		p, err := s.blockIn((*buf)[:0], tx, r.runKey, uint32(b))
		if err != nil {
			return nil, err
		}
		*buf = p
		i, j := 0, len(p)/entryBytes
		for i < j {
			if m := (i + j) / 2; binary.BigEndian.Uint64(p[m*entryBytes:]) < prefix {
				i = m + 1
			} else {
				j = m
			}
		}
		for ; i < len(p)/entryBytes; i++ {
			e := decodeEntry(p[i*entryBytes:])
			if e.prefix != prefix {
				return dst, nil
			}
			dst = append(dst, e.value)
		}
	}
	return dst, nil
}

func decodeEntry(p []byte) entry {
	be := binary.BigEndian
	return entry{be.Uint64(p), dag.Value{A: be.Uint64(p[8:]), B: be.Uint64(p[16:])}}
}

// block reads and opens one block.
func (s *Store) block(tx kv.Tx, k runKey, n uint32) ([]byte, error) { return s.blockIn(nil, tx, k, n) }

// blockIn is block, whose bytes it appends to dst.
func (s *Store) blockIn(dst []byte, tx kv.Tx, k runKey, n uint32) ([]byte, error) {
	bucket, key := s.name+bucketRuns, k.key(n)
	sealed := tx.Get(bucket, key)
	if sealed == nil {
		return nil, fmt.Errorf("%w: block %d of run %d is missing", dag.ErrIndex, n, k.num)
	}
	p, err := s.openIn(dst, bucket, key, sealed)
	if err == nil && n < filterBlock && len(p)%entryBytes != 0 {
		err = fmt.Errorf("%w: block %d of run %d", dag.ErrIndex, n, k.num)
	}
	return p, err
}

func (s *Store) putBlock(tx kv.Tx, k runKey, n uint32, p []byte) error {
	bucket, key := s.name+bucketRuns, k.key(n)
	return tx.Put(bucket, key, s.seal.SealLocal(nil, p, ad(bucket, key)))
}

// runWriter writes entries, which come in order, as a run.
type runWriter struct {
	s     *Store
	tx    kv.Tx
	r     *run
	block []byte
}

func (w *runWriter) add(e entry) error {
	if len(w.block) == blockEntries*entryBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if len(w.block) == 0 {
		w.r.firsts = append(w.r.firsts, e.prefix)
	}
	w.block = binary.BigEndian.AppendUint64(w.block, e.prefix)
	w.block = binary.BigEndian.AppendUint64(w.block, e.value.A)
	w.block = binary.BigEndian.AppendUint64(w.block, e.value.B)
	w.r.filter.add(e.prefix)
	w.r.entries++
	return nil
}

func (w *runWriter) flush() error {
	err := w.s.putBlock(w.tx, w.r.runKey, uint32(len(w.r.firsts)-1), w.block)
	w.block = w.block[:0]
	return err
}

// finish writes the last block, the filter and the record.
func (w *runWriter) finish() error {
	if len(w.block) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	f := w.r.filter
	for n := uint32(0); len(f) > 0; n++ {
		piece := f[:min(filterPiece, len(f))]
		if err := w.s.putBlock(w.tx, w.r.runKey, filterBlock+n, piece); err != nil {
			return err
		}
		f = f[len(piece):]
	}
	return w.s.putBlock(w.tx, w.r.runKey, recordBlock, w.r.encode())
}

func (r *run) encode() []byte {
	p := append(make([]byte, 0, 10+8*len(r.firsts)), r.level)
	p = binary.BigEndian.AppendUint64(p, r.entries)
	for _, f := range r.firsts {
		p = binary.BigEndian.AppendUint64(p, f)
	}
	return p
}

// loadRun reads a run's record and filter.
func (s *Store) loadRun(tx kv.Tx, k runKey) (*run, error) {
	p, err := s.block(tx, k, recordBlock)
	if err != nil {
		return nil, err
	}
	if len(p) < 9 || (len(p)-9)%8 != 0 {
		return nil, fmt.Errorf("%w: record of run %d", dag.ErrIndex, k.num)
	}
	r := &run{runKey: k, level: p[0], entries: binary.BigEndian.Uint64(p[1:])}
	for p = p[9:]; len(p) > 0; p = p[8:] {
		r.firsts = append(r.firsts, binary.BigEndian.Uint64(p))
	}
	if r.entries > uint64(len(r.firsts))*blockEntries {
		return nil, fmt.Errorf("%w: record of run %d", dag.ErrIndex, k.num)
	}
	r.filter = newFilter(r.entries)
	for n, rest := uint32(0), r.filter; len(rest) > 0; n++ {
		piece, err := s.block(tx, k, filterBlock+n)
		if err != nil {
			return nil, err
		}
		if len(piece) != min(filterPiece, len(rest)) {
			return nil, fmt.Errorf("%w: filter of run %d", dag.ErrIndex, k.num)
		}
		copy(rest, piece)
		rest = rest[len(piece):]
	}
	return r, nil
}

// filter is a Bloom filter in which all bits of a prefix lie in one line of 64 bytes. Its size follows from the number of
// entries: about 10 bits each, so that it lets 2 of 100 prefixes through that it lacks.
type filter []byte

const filterLine = 64

func newFilter(entries uint64) filter {
	return make(filter, (entries*10/8/filterLine+1)*filterLine)
}

// line returns the line of a prefix, and the bits to look at: 6 of 9 bits each.
func (f filter) line(prefix uint64) ([]byte, uint64) {
	h := prefix * 0x9e3779b97f4a7c15
	n := uint64(len(f) / filterLine)
	i := (h >> 32) * n >> 32 * filterLine
	return f[i : i+filterLine], prefix ^ h<<17
}

func (f filter) add(prefix uint64) {
	line, bits := f.line(prefix)
	for range 6 {
		line[bits>>3&63] |= 1 << (bits & 7)
		bits >>= 9
	}
}

func (f filter) has(prefix uint64) bool {
	line, bits := f.line(prefix)
	for range 6 {
		if line[bits>>3&63]&(1<<(bits&7)) == 0 {
			return false
		}
		bits >>= 9
	}
	return true
}
