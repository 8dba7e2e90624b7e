package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag/crashpoint"
)

// Compact gives back what eviction alone does not: it checkpoints, copies the blocks that are left in segments which are
// mostly holes, or a quarter of which is taken by nothing, to the active one, checkpoints again, and removes those
// segments. A crash at any point leaves each block where the index or the next Open finds it.
//
// It returns when it is done, with ctx's cause when that ends first, or with what kept it from a segment: one with
// damage in it is left as it is. One call works at a time; reads, puts and evictions go on meanwhile.
func (s *Store) Compact(ctx context.Context) error {
	s.compacting.Lock()
	defer s.compacting.Unlock()
	if err := s.Checkpoint(ctx); err != nil {
		return err
	}
	leaving := s.wasteful()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, g := range leaving {
			g.leaving = g.gone // what could not be emptied stays
		}
	}()
	var errs error
	var empty []*segment
	moved := int64(0)
	for i, g := range leaving {
		n, err := s.moveAll(ctx, g)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("block: compact segment %d: %w", g.num, err))
		} else {
			empty = append(empty, g)
		}
		if ctx.Err() != nil {
			return errs
		}
		// The copies take space until the originals go: as much as a segment.
		if moved += n; len(empty) > 0 && (moved >= s.opt.SegmentBytes || i == len(leaving)-1) {
			if err := s.removeAll(ctx, empty); err != nil {
				return errors.Join(errs, err)
			}
			empty, moved = nil, 0
		}
	}
	return errs
}

// removeAll checkpoints, so that the index points to the copies, and removes the originals.
func (s *Store) removeAll(ctx context.Context, empty []*segment) error {
	if err := s.Checkpoint(ctx); err != nil {
		return err
	}
	var errs error
	for _, g := range empty {
		errs = errors.Join(errs, s.remove(g))
	}
	return errors.Join(errs, s.Checkpoint(ctx))
}

// wasteful returns the segments to compact, the emptiest first.
func (s *Store) wasteful() []*segment {
	s.app.Lock()
	active := s.active
	s.app.Unlock()
	type candidate struct {
		g    *segment
		live int64
	}
	var out []candidate
	s.mu.RLock()
	for _, g := range s.segments {
		used := g.end - segmentHeader
		lost := used - g.live - g.punched
		if g == active || g.gone || s.dirty[g.num] != nil {
			continue
		}
		if g.live*4 < used || lost*4 > used || used <= 0 {
			out = append(out, candidate{g, g.live})
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(out, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.live, b.live), cmp.Compare(a.g.num, b.g.num))
	})
	segments := make([]*segment, len(out))
	for i, c := range out {
		segments[i] = c.g
	}
	return segments
}

// moveAll copies what the index has in g to the active segment and points the index there. It returns how many bytes.
func (s *Store) moveAll(ctx context.Context, g *segment) (moved int64, err error) {
	s.mu.Lock()
	g.full, g.leaving = true, true
	end, live := g.end, g.live
	s.mu.Unlock()
	if live > 0 {
		var buf []byte
		_, err := s.walk(ctx, g, segmentHeader, end, func(r record, p place) error {
			if now, ok, err := s.lookup(r.id); err != nil || !ok || now != p {
				return err
			}
			moved += p.size()
			return s.move(g, r.id, p, &buf)
		})
		if errors.Is(err, errRecord) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if err != nil {
			return moved, err
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g.live > 0 {
		return moved, errNotEmpty
	}
	return moved, nil
}

// errNotEmpty says that the index has blocks in a segment after all in it were moved: a header among them is damaged,
// or a checkpoint ended just then.
var errNotEmpty = errors.New("not all of its blocks could be moved")

// move copies one block. It stays where it is if it is evicted or replaced meanwhile.
func (s *Store) move(g *segment, id ID, p place, buf *[]byte) error {
	data, err := s.readPlace(g, id, p, *buf)
	if err == nil {
		*buf = data
	}
	for {
		s.mu.RLock()
		epoch := s.overlay.epoch
		s.mu.RUnlock()
		if now, ok, lerr := s.lookup(id); lerr != nil || !ok || now != p {
			return lerr
		}
		if err != nil {
			return err
		}
		if done, err := s.moveTo(id, data, p, epoch); done || err != nil {
			return err
		}
	}
}

// moveTo appends the copy. done is false when the block was looked up in an earlier epoch and may lie elsewhere by now.
func (s *Store) moveTo(id ID, data []byte, p place, epoch uint64) (done bool, err error) {
	s.app.Lock()
	defer s.app.Unlock()
	s.mu.RLock()
	at, sure := s.isAtLocked(id, p, epoch)
	s.mu.RUnlock()
	if !at || !sure {
		return false, nil
	}
	defer crashpoint.Here(crashpoint.BlockMoved)
	return true, s.appendLocked(id, data, func(to place) {
		// If it was evicted while the copy was written, nothing points to the copy. If a checkpoint ended meanwhile, it
		// may have been: then it stays where it is, and moveAll says that the segment is not empty.
		if at, sure := s.isAtLocked(id, p, epoch); at && sure {
			s.setLocked(id, to, p)
		}
	})
}

// remove deletes an empty segment's file.
func (s *Store) remove(g *segment) error {
	s.mu.Lock()
	if g.live > 0 || s.dirty[g.num] != nil {
		s.mu.Unlock()
		return nil
	}
	g.gone, g.changed = true, true
	s.moves.Add(1)
	s.mu.Unlock()
	crashpoint.Here(crashpoint.BlockRemove)
	if err := s.opt.Disk.Remove(s.segmentName(g.num)); err != nil {
		s.mu.Lock()
		g.gone = false
		s.mu.Unlock()
		return fmt.Errorf("block: remove segment %d: %w", g.num, err)
	}
	crashpoint.Here(crashpoint.BlockRemoved)
	s.files.forget(g)
	s.mu.Lock()
	g.punched, g.end = 0, 0
	s.mu.Unlock()
	return s.opt.Disk.SyncDir(s.opt.Dir)
}
