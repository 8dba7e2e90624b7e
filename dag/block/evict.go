package block

import (
	"errors"
	"fmt"
	"slices"
)

// Evict removes blocks. They are absent at once; their space is given back by the next checkpoint, page by page, so that
// a crash before it finds them in their place. A Put before that takes a block back as it was.
//
// Ids that are absent are passed over. Those that a Hold keeps stay, and an error matching ErrHeld says how many.
func (s *Store) Evict(ids ...ID) error {
	held, errs := 0, error(nil)
	for _, id := range ids {
		err := s.evict(id)
		if errors.Is(err, ErrHeld) {
			held++
		} else if err != nil {
			errs = errors.Join(errs, err)
		}
	}
	if held > 0 {
		errs = errors.Join(errs, fmt.Errorf("%w: %d of %d blocks", ErrHeld, held, len(ids)))
	}
	return errs
}

func (s *Store) evict(id ID) error {
	for {
		s.mu.RLock()
		epoch := s.overlay.epoch
		s.mu.RUnlock()
		p, ok, err := s.lookup(id)
		if err != nil || !ok {
			return err
		}
		s.mu.Lock()
		at, sure := s.isAtLocked(id, p, epoch)
		switch {
		case s.holds[id] > 0:
			s.mu.Unlock()
			return ErrHeld
		case !at || !sure:
			s.mu.Unlock() // it moved meanwhile
			continue
		}
		if _, bad := s.bad[id]; bad {
			delete(s.bad, id)
			s.overlay.stale = append(s.overlay.stale, p)
		} else {
			s.overlay.dead[id] = p
		}
		s.setLocked(id, place{}, p)
		s.mu.Unlock()
		return nil
	}
}

// reviveLocked takes back what was evicted since the last freeze: its bytes are still there.
func (s *Store) reviveLocked(id ID) bool {
	p, ok := s.overlay.dead[id]
	if g := s.segments[p.seg]; !ok || g == nil || g.leaving {
		return false
	}
	s.setLocked(id, p, place{})
	return true
}

// punch gives the pages of records back that nothing refers to any more. What fails is left to Compact: nothing is wrong
// but that the space stays taken.
func (s *Store) punch(places []place) {
	slices.SortFunc(places, func(a, b place) int {
		if a.seg != b.seg {
			return int(int64(a.seg) - int64(b.seg))
		}
		return int(int64(a.off) - int64(b.off))
	})
	for _, p := range places {
		s.mu.RLock()
		g := s.segments[p.seg]
		skip := g == nil || g.gone || p.end() > g.end
		s.mu.RUnlock()
		if skip {
			continue
		}
		n, err := s.punchRecord(g, p)
		if err == nil && n > 0 {
			s.mu.Lock()
			g.punched += n
			g.changed = true
			s.mu.Unlock()
		}
	}
}

// punchRecord marks a record dead, for who makes the index anew, and makes a hole of the whole pages of its block.
func (s *Store) punchRecord(g *segment, p place) (int64, error) {
	f, err := s.files.acquire(s, g)
	if err != nil {
		return 0, err
	}
	defer s.files.release(g)
	if _, err := f.WriteAt([]byte{stateDead}, int64(p.off)+stateAt); err != nil {
		return 0, err
	}
	from := (int64(p.off) + recordHeader + page - 1) &^ (page - 1)
	to := p.end() &^ (page - 1)
	if to <= from {
		return 0, nil
	}
	if err := f.PunchHole(from, to-from); err != nil {
		return 0, err
	}
	return to - from, nil
}
