package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag/kv"
)

// verifyPage is how many index entries Verify and All read in one transaction.
const verifyPage = 1024

// Verify reads every block and checks it against its ID, its header and the index. It calls fn for each: with nil when
// all is well, else with an error matching ErrCorrupt that says what is wrong. Damage to what belongs to no block, as a
// header of a segment or of an evicted block, is told with the zero ID.
//
// It returns ctx's cause, or a disk error that is no damage. It takes the memory of one block and of the page
// of the index that it is at, and may run beside everything else; blocks put meanwhile may be left out.
func (s *Store) Verify(ctx context.Context, fn func(ID, error)) error {
	var buf []byte
	if err := s.all(ctx, func(id ID, p place, err error) error {
		if err == nil {
			err = s.verifyBlock(id, &buf)
		}
		switch {
		case errors.Is(err, ErrAbsent): // evicted meanwhile
		case err == nil || errors.Is(err, ErrCorrupt):
			fn(id, err)
		default:
			return err
		}
		return nil
	}); err != nil {
		return err
	}
	if _, err := s.loadMarks(); errors.Is(err, ErrCorrupt) {
		fn(ID{}, err)
	} else if err != nil {
		return err
	}
	s.mu.RLock()
	segments := slices.SortedFunc(maps.Values(s.segments), func(a, b *segment) int { return cmp.Compare(a.num, b.num) })
	s.mu.RUnlock()
	for _, g := range segments {
		if err := s.verifySegment(ctx, g); errors.Is(err, ErrCorrupt) {
			fn(ID{}, err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// verifySegment walks the headers of a segment.
func (s *Store) verifySegment(ctx context.Context, g *segment) error {
	s.mu.RLock()
	end, gone := g.end, g.gone
	s.mu.RUnlock()
	if gone {
		return nil
	}
	var h [segmentHeader]byte
	err := s.readAt(g, h[:], 0)
	if err == nil {
		err = decodeSegment(&h, g.num)
	}
	at := int64(0)
	if err == nil {
		at, err = s.walk(ctx, g, segmentHeader, end, func(record, place) error { return nil })
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g.gone || g.end < end { // compacted or rescued meanwhile
		return nil
	}
	if missing(err) || errors.Is(err, errRecord) || errors.Is(err, errSegment) {
		return fmt.Errorf("%w: %s at %d: %w", ErrCorrupt, s.segmentName(g.num), at, err)
	}
	return err
}

// verifyBlock checks bytes and header of a block.
func (s *Store) verifyBlock(id ID, buf *[]byte) error {
	data, err := s.GetBuffer(id, *buf)
	if err != nil {
		return err
	}
	*buf = data
	for {
		at, err := s.locate(id)
		if err != nil {
			return err
		}
		f, err := s.files.acquire(s, at.g)
		if err == nil {
			var r record
			r, err = readHeader(f, at.p.seg, int64(at.p.off), at.p.end())
			s.files.release(at.g)
			if err == nil && (r.id != id || r.n != at.p.n || r.dead) {
				err = errRecord
			}
		}
		if err == nil {
			return nil
		}
		if s.holdsAt(id, at) {
			if missing(err) || errors.Is(err, errRecord) {
				return fmt.Errorf("%w: %s: header in %s at %d: %w", ErrCorrupt, id, s.segmentName(at.p.seg), at.p.off, err)
			}
			return fmt.Errorf("block: verify %s: %w", id, err)
		}
	}
}

// All calls fn for every block that is here and its length, in no order, until fn returns an error, which it returns.
// Blocks that come or go meanwhile may or may not be among them; no block comes twice unless it went in between.
func (s *Store) All(ctx context.Context, fn func(id ID, size int64) error) error {
	return s.all(ctx, func(id ID, p place, err error) error {
		if err != nil {
			return err
		}
		return fn(id, int64(p.n))
	})
}

// all calls fn for every entry of the index; those that do not read come with an error.
func (s *Store) all(ctx context.Context, fn func(ID, place, error) error) error {
	type entry struct {
		id  ID
		at  place
		err error
	}
	// What is only in memory comes first: a checkpoint may take it to the DB, and not back.
	var page []entry
	s.mu.RLock()
	for _, m := range []map[ID]place{s.overlay.frozen, s.overlay.fresh} {
		for id := range m {
			if p, _ := s.overlay.getLocked(id); p != (place{}) {
				page = append(page, entry{id: id, at: p})
			}
		}
	}
	s.mu.RUnlock()
	seen := make(map[ID]struct{}, len(page))
	for _, e := range page {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if _, twice := seen[e.id]; twice {
			continue
		}
		seen[e.id] = struct{}{}
		if err := fn(e.id, e.at, nil); err != nil {
			return err
		}
	}
	var from, next []byte
	for {
		page, from = page[:0], append(from[:0], next...)
		err := s.opt.DB.View(func(tx kv.Tx) error {
			return tx.Scan(bucketBlocks, from, func(k, v []byte) bool {
				var e entry
				if len(k) != len(e.id) {
					e.err = fmt.Errorf("%w: a key of %d bytes", ErrIndex, len(k))
				}
				copy(e.id[:], k)
				if e.err == nil {
					e.at, e.err = s.openPlace(e.id, v)
				}
				page = append(page, e)
				next = append(append(next[:0], k...), 0)
				return len(page) < verifyPage
			})
		})
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if _, told := seen[e.id]; told {
				continue
			}
			s.mu.RLock()
			p, known := s.overlay.getLocked(e.id)
			s.mu.RUnlock()
			if known {
				if e.at, e.err = p, nil; p == (place{}) {
					continue
				}
			}
			if err := fn(e.id, e.at, e.err); err != nil {
				return err
			}
		}
		if len(page) < verifyPage {
			return nil
		}
	}
}
