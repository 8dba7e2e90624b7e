package store

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
)

const (
	mergeRuns    = 8       // so many runs of a level become one of the next
	mergeEntries = 1 << 20 // but for what would be larger: it would take a checkpoint too long
)

// runPlan is what a checkpoint does with the runs of a set.
type runPlan struct {
	lists [dag.Sets][]*run // as they will be
	next  uint32
	drop  []runKey // may be deleted in the next checkpoint
	old   []runKey // may be deleted in this one
}

// Find implements dag.Store.
func (s *Store) Find(set dag.Set, prefix uint64, dst []dag.Value) ([]dag.Value, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	dst = s.cur.sets[set].find(prefix, dst)
	if s.frozen != nil {
		dst = s.frozen.sets[set].find(prefix, dst)
	}
	may := func(r *run) bool { return r.filter.has(prefix) }
	first := slices.IndexFunc(s.runs[set], may)
	if first < 0 {
		return dst, nil
	}
	return s.findInRuns(s.runs[set][first:], prefix, dst)
}

// scratch is what Find opens blocks in.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

func (s *Store) findInRuns(runs []*run, prefix uint64, dst []dag.Value) ([]dag.Value, error) {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	err := s.db.View(func(tx kv.Tx) (err error) {
		for _, r := range runs {
			if !r.filter.has(prefix) {
				continue
			}
			if dst, err = s.findInRun(tx, r, prefix, dst, buf); err != nil {
				return err
			}
		}
		return nil
	})
	return dst, err
}

// planRuns starts a plan on the runs as they are.
func (s *Store) planRuns() *runPlan {
	p := &runPlan{next: s.next, old: s.drop}
	for set := range s.runs {
		p.lists[set] = slices.Clone(s.runs[set])
	}
	return p
}

// adopt makes a plan that was carried out the state.
func (s *Store) adopt(p *runPlan) {
	s.runs, s.next, s.drop = p.lists, p.next, p.drop
}

// writeRuns writes what is new as runs, and merges. Runs that were merged stay in the DB until the next checkpoint, for
// readers that know of no other.
func (s *Store) writeRuns(tx kv.Tx, o *overlay, p *runPlan) error {
	for _, k := range p.old {
		if err := s.deleteRun(tx, k); err != nil {
			return err
		}
	}
	for set := range o.sets {
		if len(o.sets[set].one) == 0 {
			continue
		}
		r, err := s.writeRun(tx, dag.Set(set), p, 0, uint64(o.sets[set].len()), o.sets[set].sorted().each)
		if err != nil {
			return err
		}
		p.lists[set] = append(p.lists[set], r)
		for level := uint8(0); ; level++ {
			merged, err := s.mergeLevel(tx, dag.Set(set), p, level)
			if err != nil {
				return err
			}
			if !merged {
				break
			}
		}
	}
	return s.writeList(tx, p)
}

func (s *Store) writeRun(tx kv.Tx, set dag.Set, p *runPlan, level uint8, n uint64, each func(func(entry) error) error) (*run, error) {
	r := &run{runKey: runKey{set, p.next}, level: level, filter: newFilter(n)}
	p.next++
	w := runWriter{s: s, tx: tx, r: r}
	if err := each(w.add); err != nil {
		return nil, err
	}
	if r.entries != n {
		return nil, fmt.Errorf("%w: run %d has %d entries, not %d", dag.ErrIndex, r.num, r.entries, n)
	}
	return r, w.finish()
}

// mergeLevel merges the runs of a level when there are enough of them.
func (s *Store) mergeLevel(tx kv.Tx, set dag.Set, p *runPlan, level uint8) (bool, error) {
	var from, keep []*run
	var n uint64
	for _, r := range p.lists[set] {
		if r.level == level {
			from = append(from, r)
			n += r.entries
		} else {
			keep = append(keep, r)
		}
	}
	if len(from) < mergeRuns || n > mergeEntries {
		return false, nil
	}
	r, err := s.writeRun(tx, set, p, level+1, n, func(fn func(entry) error) error { return s.merge(tx, from, fn) })
	if err != nil {
		return false, err
	}
	for _, f := range from {
		p.drop = append(p.drop, f.runKey)
	}
	p.lists[set] = append(keep, r)
	return true, nil
}

// merge calls fn for the entries of all runs in order.
func (s *Store) merge(tx kv.Tx, from []*run, fn func(entry) error) error {
	var all readers
	for _, r := range from {
		rd := &reader{s: s, tx: tx, r: r}
		more, err := rd.next()
		if err != nil {
			return err
		}
		if more {
			all = append(all, rd)
		}
	}
	heap.Init(&all)
	for len(all) > 0 {
		rd := all[0]
		if err := fn(rd.entry); err != nil {
			return err
		}
		more, err := rd.next()
		if err != nil {
			return err
		}
		if more {
			heap.Fix(&all, 0)
		} else {
			heap.Pop(&all)
		}
	}
	return nil
}

// reader goes through a run.
type reader struct {
	s     *Store
	tx    kv.Tx
	r     *run
	block uint32
	rest  []byte
	entry entry
}

func (rd *reader) next() (bool, error) {
	if len(rd.rest) == 0 {
		if int(rd.block) == len(rd.r.firsts) {
			return false, nil
		}
		var err error
		if rd.rest, err = rd.s.block(rd.tx, rd.r.runKey, rd.block); err != nil {
			return false, err
		}
		rd.block++
		if len(rd.rest) == 0 {
			return false, fmt.Errorf("%w: empty block in run %d", dag.ErrIndex, rd.r.num)
		}
	}
	rd.entry, rd.rest = decodeEntry(rd.rest), rd.rest[entryBytes:]
	return true, nil
}

type readers []*reader

func (r readers) Len() int           { return len(r) }
func (r readers) Less(i, j int) bool { return r[i].entry.compare(r[j].entry) < 0 }
func (r readers) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *readers) Push(x any)        { *r = append(*r, x.(*reader)) }
func (r *readers) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

// writeList writes which runs count.
func (s *Store) writeList(tx kv.Tx, p *runPlan) error {
	v := binary.BigEndian.AppendUint32(nil, p.next)
	for set := range p.lists {
		for _, r := range p.lists[set] {
			v = binary.BigEndian.AppendUint32(append(v, byte(set)), r.num)
		}
	}
	for _, k := range p.drop {
		v = binary.BigEndian.AppendUint32(append(v, 0x80|byte(k.set)), k.num)
	}
	bucket, key := s.name+bucketStore, []byte("runs")
	return tx.Put(bucket, key, s.seal.SealLocal(nil, v, ad(bucket, key)))
}

// loadRuns reads the list of runs, their records and filters.
func (s *Store) loadRuns() error {
	v, err := s.load(s.name+bucketStore, []byte("runs"))
	if err != nil || v == nil {
		return err
	}
	if len(v)%5 != 4 {
		return fmt.Errorf("%w: list of runs", dag.ErrIndex)
	}
	s.next = binary.BigEndian.Uint32(v)
	return s.db.View(func(tx kv.Tx) error {
		for v = v[4:]; len(v) > 0; v = v[5:] {
			k := runKey{dag.Set(v[0] & 0x7f), binary.BigEndian.Uint32(v[1:])}
			if k.set >= dag.Sets || k.num >= s.next {
				return fmt.Errorf("%w: list of runs", dag.ErrIndex)
			}
			if v[0]&0x80 != 0 {
				s.drop = append(s.drop, k)
				continue
			}
			r, err := s.loadRun(tx, k)
			if err != nil {
				return err
			}
			s.runs[k.set] = append(s.runs[k.set], r)
		}
		return nil
	})
}

func (s *Store) deleteRun(tx kv.Tx, k runKey) error {
	bucket, end := s.name+bucketRuns, string(k.key(recordBlock))
	var keys [][]byte
	err := tx.Scan(bucket, k.key(0), func(key, _ []byte) bool {
		if string(key) > end {
			return false
		}
		keys = append(keys, slices.Clone(key))
		return true
	})
	for _, key := range keys {
		if err == nil {
			err = tx.Delete(bucket, key)
		}
	}
	return err
}

// entries in order.
type entries []entry

func (es entries) each(fn func(entry) error) error {
	for _, e := range es {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}
