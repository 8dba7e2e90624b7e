package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/anyfs/anyfs/dag/crashpoint"
)

// round is one sync of what was dirty when it began, shared by all who wait for it.
type round struct {
	target uint64 // it makes durable what was appended up to here
	done   chan struct{}
	err    error // once done is closed
}

// Sync makes all blocks durable whose Put returned before. Callers that come while a sync runs which began before their
// Put share the next one. The end of ctx ends the wait, not the work that others wait for.
//
// When a segment's fdatasync fails, what it held is written to another one and synced there. Sync returns an error if
// that fails too; nothing is lost then that was durable, and the next Sync tries again. A block that did not read back
// any more is dropped, and named by an error matching ErrCorrupt.
func (s *Store) Sync(ctx context.Context) error {
	s.mu.Lock()
	want := s.appended
	for {
		if s.closed {
			s.mu.Unlock()
			return ErrClosed
		}
		if s.durable >= want {
			s.mu.Unlock()
			return nil
		}
		r := s.round
		if r == nil {
			r = &round{target: s.appended, done: make(chan struct{})}
			s.round = r
			s.mu.Unlock()
			r.err = s.syncSegments()
			s.mu.Lock()
			if s.round = nil; r.err == nil || errors.Is(r.err, errDropped) {
				s.durable = max(s.durable, r.target)
			}
			s.mu.Unlock()
			close(r.done)
			return r.err
		}
		s.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if r.target >= want {
			return r.err
		}
		s.mu.Lock()
	}
}

// errDropped marks an error of a sync that did all it could: what it names is lost, the rest is durable.
var errDropped = errors.New("block: dropped")

// dirtySegment is a segment and how much of it is to become durable.
type dirtySegment struct {
	*segment
	end int64
	err error
}

// syncSegments makes every dirty segment durable as far as it reaches now.
func (s *Store) syncSegments() error {
	var dropped error
	for range 3 { // a rescue makes another segment dirty; when that fails thrice the disk is not for us to mend
		s.mu.RLock()
		var todo []dirtySegment
		for _, g := range s.dirty {
			todo = append(todo, dirtySegment{segment: g, end: g.end})
		}
		s.mu.RUnlock()
		slices.SortFunc(todo, func(a, b dirtySegment) int { return int(int64(a.num) - int64(b.num)) })
		s.syncParallel(todo)
		var failed []*segment
		var err error
		s.mu.Lock()
		for _, d := range todo {
			if d.err == nil {
				d.synced = max(d.synced, d.end)
				d.changed = true
				if d.synced == d.segment.end {
					s.markCleanLocked(d.segment)
				}
				continue
			}
			d.failed, d.full = true, true
			s.Doubt() // the system may have dropped what it did not write
			failed = append(failed, d.segment)
			err = errors.Join(err, d.err)
		}
		s.mu.Unlock()
		if len(failed) == 0 {
			return dropped
		}
		for _, g := range failed {
			lost, rerr := s.rescue(g)
			if rerr != nil {
				return fmt.Errorf("block: sync: %w; then writing it elsewhere: %w", err, rerr)
			}
			if lost != nil {
				dropped = errors.Join(dropped, errDropped, lost)
			}
		}
	}
	return errors.New("block: sync: three segments in turn failed")
}

func (s *Store) syncParallel(todo []dirtySegment) {
	one := func(d *dirtySegment) {
		s.mu.RLock()
		failed := d.failed
		s.mu.RUnlock()
		if failed { // a second fdatasync of it would succeed and prove nothing
			d.err = errors.New("an earlier sync failed")
			return
		}
		f, err := s.files.acquire(s, d.segment)
		if err == nil {
			crashpoint.Here(crashpoint.BlockSync)
			err = f.Sync()
			crashpoint.Here(crashpoint.BlockSynced)
			s.files.release(d.segment)
		}
		d.err = err
	}
	if len(todo) == 1 {
		one(&todo[0])
		return
	}
	var wg sync.WaitGroup
	for i := range todo {
		wg.Go(func() { one(&todo[i]) })
	}
	wg.Wait()
}

// rescue appends what the index has behind g's durable part to another segment, and gives the rest of g up. All of those
// blocks are in the overlay: no checkpoint takes a block before it is durable. lost names those that do not read back.
func (s *Store) rescue(g *segment) (lost, err error) {
	s.app.Lock()
	defer s.app.Unlock()
	if s.active == g {
		s.active = nil
	}
	type entry struct {
		id ID
		at place
	}
	var todo []entry
	s.mu.RLock()
	for _, m := range []map[ID]place{s.overlay.frozen, s.overlay.fresh} {
		for id, p := range m {
			if p.seg == g.num && int64(p.off) >= g.synced {
				todo = append(todo, entry{id, p})
			}
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(todo, func(a, b entry) int { return cmp.Compare(a.at.off, b.at.off) })
	var buf []byte
	for _, e := range todo {
		data, err := s.readPlace(g, e.id, e.at, buf)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return lost, err
		}
		still := func() bool { now, _ := s.overlay.getLocked(e.id); return now == e.at }
		if err != nil {
			lost = errors.Join(lost, err)
			s.mu.Lock()
			if still() {
				s.setLocked(e.id, place{}, e.at)
			}
			s.mu.Unlock()
			continue
		}
		buf = data
		if err := s.appendLocked(e.id, data, func(to place) {
			if still() {
				s.setLocked(e.id, to, e.at)
			}
		}); err != nil {
			return lost, err
		}
	}
	s.mu.Lock()
	for id, p := range s.overlay.dead {
		if p.seg == g.num && int64(p.off) >= g.synced {
			delete(s.overlay.dead, id) // not to be revived
		}
	}
	g.end, g.changed = max(g.synced, segmentHeader), true
	end := g.end
	s.mu.Unlock()
	if f, err := s.files.acquire(s, g); err == nil {
		f.Truncate(end) // only to save space: Open finds the copies, and prefers them
		s.files.release(g)
	}
	s.mu.Lock()
	s.markCleanLocked(g)
	s.mu.Unlock()
	return lost, nil
}
