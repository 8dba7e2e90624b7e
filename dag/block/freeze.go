package block

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag/kv"
)

// Freeze begins a checkpoint. What it returns must be called in turn: write within one update of the store's DB (once,
// or again when the update is repeated), then done with whether the update succeeded. Freeze does no I/O and waits for
// nothing. One checkpoint is under way at a time: while another's done has not been called (one of Checkpoint or Compact),
// write makes everything durable and leaves the index to the next one, as Open finds what it lacks.
//
// write makes durable what the checkpoint refers to before it writes anything: call Sync before, to keep the transaction
// short. done gives the space of evicted blocks back to the filesystem, some 50 µs a block: call it outside of locks.
// Places are written to the index when enough are new, or blocks were evicted; until then Open finds them by walking
// the segments.
func (s *Store) Freeze() (write func(kv.Tx) error, done func(ok bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overlay.freezing {
		return func(kv.Tx) error { return s.Sync(context.Background()) }, func(bool) {}
	}
	return s.freezeLocked(false)
}

// freezeWhole is Freeze of everything, once nothing else is under way.
func (s *Store) freezeWhole() (write func(kv.Tx) error, done func(ok bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.overlay.freezing {
		s.overlay.thawed.Wait()
	}
	return s.freezeLocked(true)
}

// checkpoint is what one freeze takes along.
type checkpoint struct {
	s      *Store
	whole  bool             // with the places
	places map[ID]place     // also s.overlay.frozen
	marks  map[uint32]marks // of the segments that changed
	gone   []uint32         // segments that were removed
}

func (s *Store) freezeLocked(whole bool) (write func(kv.Tx) error, done func(ok bool)) {
	o := &s.overlay
	o.freezing = true
	c := &checkpoint{s: s, marks: map[uint32]marks{}}
	c.whole = whole || len(o.fresh) >= s.opt.FlushEntries || len(o.dead)+len(o.stale) > 0
	if c.whole {
		c.places, o.frozen, o.fresh = o.fresh, o.fresh, map[ID]place{}
		o.doomed = slices.AppendSeq(o.stale, maps.Values(o.dead))
		o.dead, o.stale = map[ID]place{}, nil
	}
	for num, g := range s.segments {
		switch {
		case !g.changed:
			continue
		case g.gone && g.live <= 0:
			c.gone = append(c.gone, num)
		case c.whole:
			c.marks[num] = marks{indexed: g.end, synced: g.willBeSynced(), live: g.live, punched: g.punched, blocks: g.blocks}
		default: // what is behind indexed is counted when Open finds it
			m := g.saved
			m.synced, m.punched = g.willBeSynced(), g.punched
			if m != g.saved {
				c.marks[num] = m
			}
			continue
		}
		g.changed = false
	}
	return c.write, c.done
}

// willBeSynced is how much of a segment is durable after the next Sync. Of one that failed that is never more than it is now.
func (g *segment) willBeSynced() int64 {
	if g.failed {
		return g.synced
	}
	return g.end
}

func (c *checkpoint) write(tx kv.Tx) error {
	if len(c.places)+len(c.marks)+len(c.gone) == 0 {
		return nil
	}
	// No index entry before the block it points to.
	if err := c.s.Sync(context.Background()); err != nil {
		return err
	}
	moved := c.rescued()
	// In order: neighbours share a page.
	for _, id := range slices.SortedFunc(maps.Keys(c.places), ID.Compare) {
		var err error
		if p := c.places[id]; p == (place{}) || moved[id] {
			err = tx.Delete(bucketBlocks, id[:])
		} else {
			err = c.s.putIndexed(tx, id, p)
		}
		if err != nil {
			return err
		}
	}
	for num, m := range c.marks {
		key := binary.BigEndian.AppendUint32(nil, num)
		var b [marksLen]byte
		if err := tx.Put(bucketSegments, key, c.s.opt.Seal.SealLocal(nil, m.append(b[:0]), marksAD(key))); err != nil {
			return err
		}
	}
	for _, num := range c.gone {
		if err := tx.Delete(bucketSegments, binary.BigEndian.AppendUint32(nil, num)); err != nil {
			return err
		}
	}
	return nil
}

// rescued takes out of the marks what a failed sync has moved from segments since the freeze, and returns which blocks that
// were: the next checkpoint knows where they are, and until then Open finds them.
func (c *checkpoint) rescued() map[ID]bool {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	moved := map[ID]bool{}
	for num, m := range c.marks {
		g := c.s.segments[num]
		if g == nil || !g.failed {
			continue
		}
		for id, p := range c.places {
			if p.seg == num && int64(p.off) >= g.end {
				moved[id] = true
				m.live -= recordHeader + int64(p.n)
				m.blocks--
			}
		}
		m.indexed, m.synced = min(m.indexed, g.end), g.synced
		c.marks[num] = m
	}
	return moved
}

func (c *checkpoint) done(ok bool) {
	s, o := c.s, &c.s.overlay
	s.mu.Lock()
	doomed := o.doomed
	o.doomed = nil
	o.epoch++
	if ok {
		for num, m := range c.marks {
			if g := s.segments[num]; g != nil {
				g.saved = m
			}
		}
		for _, num := range c.gone {
			delete(s.segments, num)
		}
	} else {
		for id, p := range c.places {
			if _, newer := o.fresh[id]; !newer {
				o.fresh[id] = p
			}
		}
		o.stale = append(o.stale, doomed...)
		for num := range c.marks {
			if g := s.segments[num]; g != nil {
				g.changed = true
			}
		}
		for _, num := range c.gone {
			s.segments[num].changed = true
		}
	}
	o.frozen, o.freezing = nil, false
	o.thawed.Signal()
	s.mu.Unlock()
	if ok {
		s.punch(doomed)
	}
}
