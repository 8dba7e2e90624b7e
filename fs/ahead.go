package fs

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/anyfs/anyfs/dag/block"
)

// aheadRoom bounds the blocks that are to be fetched ahead, of all spaces; what does not fit is left to who reads it. aheadAtOnce of them are
// on their way at a time.
const (
	aheadRoom   = 256
	aheadAtOnce = 8
)

// aheadBlock is a block that somebody will read, or wants to have here.
type aheadBlock struct {
	s  *space
	id block.ID
}

// fetchSoon has blocks fetched that are absent, without waiting for them.
func (s *space) fetchSoon(ids []block.ID) {
	for _, id := range ids {
		select {
		case s.h.ahead <- aheadBlock{s, id}:
		default:
			return
		}
	}
}

// fetcher fetches what is asked for ahead, until ctx ends. Its goroutines have ended when it returns.
func (h *Home) fetcher(ctx context.Context) {
	if h.opt.Prefetch != nil {
		ctx = h.opt.Prefetch(ctx)
	}
	var g errgroup.Group
	defer g.Wait()
	g.SetLimit(aheadAtOnce)
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-h.ahead:
			if a.s.deleted() || a.s.blocks.Has(a.id) {
				continue
			}
			g.Go(func() error {
				_, err := a.s.blocks.Get(ctx, a.id) // of what cannot be had now, who reads it is told
				return err
			})
		}
	}
}
