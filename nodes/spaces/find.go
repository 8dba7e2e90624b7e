package spaces

import (
	"context"
	"errors"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

const finders = 4 // that look through all spaces at once

// Find reads a block, whichever space has it. Of blocks that are asked for one after the other most are of one space, where it looks first; else it
// looks through all, at some microseconds a space. block.ErrAbsent where none has it.
func (s *Set) Find(ctx context.Context, id block.ID) ([]byte, error) {
	if last := s.found.Load(); last != nil {
		if b, err := s.Block(*last, id, nil); !errors.Is(err, block.ErrAbsent) {
			return b, err
		}
	}
	select {
	case s.finding <- struct{}{}:
		defer func() { <-s.finding }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for _, space := range s.Held() {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		b, err := s.Block(space, id, nil)
		if errors.Is(err, block.ErrAbsent) {
			continue
		}
		if err == nil {
			at := dag.ID(space)
			s.found.Store(&at)
		}
		return b, err
	}
	return nil, block.ErrAbsent
}
