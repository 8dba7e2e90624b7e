package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

// Reading what is not here: the block is fetched by who reads it, who waits; those behind it in the file are fetched ahead.

// aheadRoom bounds the blocks that are to be fetched ahead, of all spaces; what does not fit is left to who reads it. aheadAtOnce of them are
// on their way at a time. Of a file that is read from its start on, aheadFirst is fetched ahead; of one that goes on being read in order,
// aheadFurther. A block holds 1 MiB on average.
const (
	aheadRoom    = 256
	aheadAtOnce  = 8
	aheadFirst   = 1
	aheadFurther = 8
)

// aheadBlock is a block that somebody will read, or wants to have here.
type aheadBlock struct {
	s  *space
	id block.ID
}

// coming are the blocks that are asked for ahead, or on their way.
type coming struct {
	mu  sync.Mutex
	ids map[aheadBlock]struct{}
}

func (c *coming) add(b aheadBlock) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, twice := c.ids[b]; twice {
		return false
	}
	if c.ids == nil {
		c.ids = map[aheadBlock]struct{}{}
	}
	c.ids[b] = struct{}{}
	return true
}

func (c *coming) done(b aheadBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ids, b)
}

// fetchSoon has blocks fetched that are absent, without waiting for them.
func (s *space) fetchSoon(ids []block.ID) {
	for _, id := range ids {
		b := aheadBlock{s, id}
		if !s.h.coming.add(b) {
			continue
		}
		select {
		case s.h.ahead <- b:
		default:
			s.h.coming.done(b)
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
		case b := <-h.ahead:
			g.Go(func() error {
				defer h.coming.done(b)
				if !b.s.deleted() && !b.s.blocks.Has(b.id) && h.roomAhead() {
					b.s.touch(b.id)
					_, _ = b.s.blocks.Get(ctx, b.id) // of what cannot be had now, who reads it is told
				}
				return nil
			})
		case b := <-h.early:
			g.Go(func() error {
				h.fetchEarly(ctx, b)
				return nil
			})
		}
	}
}

// localOnly marks work that holds others up, in its context: what is absent is an error for it at once, and is fetched for the next time. Its
// value says whether that is so in a mirror too, where content comes anyway.
type localOnly struct{}

// local fails for an absent block where nobody may wait for it.
func (s *space) local(ctx context.Context, id block.ID) error {
	if always, yes := ctx.Value(localOnly{}).(bool); !yes || !always && s.policy().mirrors() || s.blocks.Has(id) {
		return nil
	}
	s.fetchSoon([]block.ID{id})
	return fmt.Errorf("%w: it is fetched", block.ErrAbsent)
}

// fetchBase has fetched what of a file's base is absent, as far as it is known, since a publication needs some of it.
func (s *space) fetchBase(ctx context.Context, n *index.Inode) {
	if n.Base == nil || !n.Base.Root.Defined() {
		return
	}
	if _, absent, err := s.present(ctx, n.Base.Root); err == nil {
		s.fetchSoon(absent)
	}
}

// readAhead has fetched what follows the parts [first, last) of a content that are read, where it is read from its start or in order.
func (s *space) readAhead(m *manifest, first, last int) {
	if s.policy().mirrors() || last == len(m.parts) {
		return
	}
	n := aheadFirst
	if first > 0 {
		if !s.blocks.Has(m.leaves[m.parts[first-1].leaf].id) {
			return
		}
		n = aheadFurther
	}
	var ids []block.ID
	for i := last; i < min(last+n, len(m.parts)); i++ {
		if id := m.leaves[m.parts[i].leaf].id; !s.blocks.Has(id) {
			ids = append(ids, id)
		}
	}
	s.fetchSoon(ids)
}

// lackFor is for how long it counts that nobody had a block. The kernel reads a page again that its readahead could not read: who waited in
// vain does not wait twice.
const lackFor = 2 * time.Second

// lacking are blocks that nobody had a moment ago.
type lacking struct {
	some atomic.Bool
	mu   sync.Mutex
	at   map[block.ID]time.Time

	told   time.Time // when a read in vain was last put into the log
	untold int       // those since
}

// tellEach is how often reads of absent content are told: who searches a folder of which nothing is here, with nobody connected, has
// one line for it and not one for each file, and what else went wrong stays to be seen.
const tellEach = time.Minute

// tell reports whether a read in vain is to be told, and how many were not since the last that was.
func (l *lacking) tell(now time.Time) (untold int, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.told.IsZero() && now.Sub(l.told) < tellEach {
		l.untold++
		return 0, false
	}
	untold, l.untold, l.told = l.untold, 0, now
	return untold, true
}

// maxLacking bounds them; of more, one waits again.
const maxLacking = 1024

var errLacking = fmt.Errorf("%w: nobody had it a moment ago", block.ErrAbsent)

// check fails for a block that nobody had within lackFor.
func (l *lacking) check(id block.ID) error {
	if !l.some.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.at[id]
	if ok && time.Since(t) < lackFor {
		return errLacking
	}
	delete(l.at, id)
	l.some.Store(len(l.at) > 0)
	return nil
}

// note notes what became of a block that was asked for.
func (l *lacking) note(id block.ID, err error) {
	if !errors.Is(err, block.ErrAbsent) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil || len(l.at) >= maxLacking {
		l.at = map[block.ID]time.Time{}
	}
	l.at[id] = time.Now()
	l.some.Store(true)
}

// forget is called when somebody came who may have what was lacking.
func (l *lacking) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.at)
	l.some.Store(false)
}
