package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// In a space that is mirrored the content of what is current comes to this device by itself, after the names, sizes and attributes. In one on
// demand only what is pinned does (wants). What somebody reads comes first.

// mirror is what of a space's content is not known to be here. Its lock is taken with that of the space held, never the other way round.
type mirror struct {
	mu      sync.Mutex
	scanned bool                  // what the index had at the start is in want
	want    map[cid.Cid]*fetching // by root
	fresh   []*fetching           // of these, those that were not tried yet
	upTo    journal.Seq           // the last record when pins were looked at
}

// fetching is a content to fetch. mirror.mu guards it.
type fetching struct {
	c     *tree.Content
	ino   uint64        // that shows it
	more  []uint64      // others that did
	busy  bool          // it is being fetched
	round uint64        // Home.mirrorRound when that began
	wait  time.Duration // after it came to nothing, until it is tried again
	after time.Time
}

// mirrorContents is how many contents are fetched at a time, and mirrorBlocks how many blocks of all of them. What nobody had is asked
// for again after mirrorAgain, and then in growing steps up to mirrorRarely; at once when somebody comes who may have it, or has come since it was
// asked for.
const (
	mirrorContents = 32
	mirrorBlocks   = 32
	mirrorAgain    = 5 * time.Second
	mirrorRarely   = 4 * time.Minute
)

// wantContent notes a content that came from another device.
func (s *space) wantContent(ino uint64, c *tree.Content) {
	if c == nil || !c.Root.Defined() {
		return
	}
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.want == nil {
		m.want = map[cid.Cid]*fetching{}
	}
	if w := m.want[c.Root]; w != nil {
		if w.ino != ino {
			w.more = append(w.more, w.ino)
		}
		w.c, w.ino = c, ino
		return
	}
	w := &fetching{c: c, ino: ino}
	m.want[c.Root] = w
	m.fresh = append(m.fresh, w)
}

// Mirror has content asked for that is not here: somebody who may have it came.
func (h *Home) Mirror() {
	for _, s := range h.each() {
		s.lack.forget()
	}
	h.mirrorRound.Add(1)
	h.mirrorAll.Store(true)
	h.mirrorFresh()
}

// mirrorFresh has content asked for that came to be wanted.
func (h *Home) mirrorFresh() {
	select {
	case h.mirrors <- struct{}{}:
	default:
	}
}

// mirrorer fetches content until ctx ends: many contents at a time, so that one that is large, or that nobody has, keeps no other waiting.
func (h *Home) mirrorer(ctx context.Context) {
	tick := time.NewTicker(mirrorAgain)
	defer tick.Stop()
	if h.opt.Prefetch != nil {
		ctx = h.opt.Prefetch(ctx)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	contents, blocks := make(chan struct{}, mirrorContents), make(chan struct{}, mirrorBlocks)
	for {
		due := false
		select {
		case <-ctx.Done():
			return
		case <-h.mirrors:
		case <-tick.C:
			due = true
		}
		all := h.mirrorAll.Swap(false)
		for _, s := range h.each() {
			for _, w := range s.toFetch(ctx, due, all) {
				if !h.roomAhead() {
					break
				}
				select {
				case contents <- struct{}{}:
				case <-ctx.Done():
					return
				}
				c := s.beginFetch(w)
				if c == nil {
					<-contents
					continue
				}
				wg.Go(func() {
					err := s.fetchContent(ctx, c, blocks)
					s.endFetch(w, err == nil) // else nobody has it now, or the disk is full: it is tried again
					<-contents
				})
			}
			if err := s.dropEarly(ctx, time.Now().Add(-earlyFor)); err != nil && ctx.Err() == nil && !s.deleted() {
				h.report(fmt.Sprintf("space %s: blocks that came ahead of nothing", s.id), err)
			}
			if err := s.sendReleases(ctx); err != nil && ctx.Err() == nil && !s.deleted() {
				h.report(fmt.Sprintf("space %s: receipts that are given back", s.id), err)
			}
		}
	}
}

// toFetch lists what was not tried yet; with due also what is to be tried again by now, with all everything. What is pinned comes first.
func (s *space) toFetch(ctx context.Context, due, all bool) []*fetching {
	if s.lookForWanted(ctx) != nil {
		return nil
	}
	return s.wishes(s.untried(due, all))
}

func (s *space) untried(due, all bool) []*fetching {
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.fresh
	m.fresh = nil
	if !due && !all {
		return list
	}
	list = list[:0]
	now := time.Now()
	for _, w := range m.want {
		if all {
			w.wait, w.after = 0, time.Time{}
		}
		if !w.busy && !now.Before(w.after) {
			list = append(list, w)
		}
	}
	return list
}

// beginFetch makes the caller the one who fetches a content, and returns it, if it is wanted still and nobody does; nil otherwise.
func (s *space) beginFetch(w *fetching) *tree.Content {
	if s.deleted() { // asked for before mir.mu is taken: an arrival notes what it wants with s.mu held
		return nil
	}
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.want[w.c.Root] != w || w.busy {
		return nil
	}
	w.busy, w.round = true, s.h.mirrorRound.Load()
	return w.c
}

// endFetch ends that.
func (s *space) endFetch(w *fetching, here bool) {
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	w.busy = false
	if here {
		delete(m.want, w.c.Root)
		return
	}
	if s.h.mirrorRound.Load() != w.round { // the one who came was not asked, or the connection was lost that is there again
		m.fresh = append(m.fresh, w)
		s.h.mirrorFresh()
		return
	}
	w.wait = min(max(2*w.wait, mirrorAgain), mirrorRarely)
	w.after = time.Now().Add(w.wait - mirrorAgain/2) // ticks are mirrorAgain apart
}

// hasOthers reports whether another device writes to the space.
func (s *space) hasOthers() bool {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.others
}

// scanWanted notes what the index has of content in blocks.
func (s *space) scanWanted() error {
	for next := uint64(0); ; {
		const step = 1024
		n := 0
		var list []wish
		s.mu.Lock()
		err := s.ix.InodesFrom(next, func(x *index.Inode) bool {
			next = x.Ino + 1
			if x.Base != nil && x.Base.Root.Defined() {
				list = append(list, wish{x.Base, x.Ino})
			}
			n++
			return n < step
		})
		s.mu.Unlock()
		if err != nil {
			return err
		}
		for _, w := range list {
			s.wantAbsent(w.ino, w.content)
		}
		if n < step {
			break
		}
	}
	s.mir.mu.Lock()
	s.mir.scanned = true
	s.mir.mu.Unlock()
	return nil
}

// wantAbsent notes a content that is not whole here.
func (s *space) wantAbsent(ino uint64, c *tree.Content) {
	if id, _, err := block.IDFromCID(c.Root); err != nil || !s.blocks.Has(id) || !s.isWhole(context.Background(), c.Root) {
		s.wantContent(ino, c)
	}
}

// wish is a content of the index, and the inode that shows it.
type wish struct {
	content *tree.Content
	ino     uint64
}

// fetchContent brings all blocks of a content here, each in one of the places that all contents share.
func (s *space) fetchContent(ctx context.Context, c *tree.Content, places chan struct{}) error {
	get := func(id block.ID) error {
		_, err := s.blocks.Get(ctx, id)
		<-places
		return err
	}
	place := func() error {
		select {
		case places <- struct{}{}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if c.LayoutBlock != (block.ID{}) && !s.blocks.Has(c.LayoutBlock) {
		if err := place(); err != nil {
			return err
		}
		if err := get(c.LayoutBlock); err != nil {
			return err
		}
	}
	// What is to be had is fetched, also where some is absent; an error of another kind ends it all.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var g errgroup.Group
	err := eachLeaf(ctx, s.getNode, c.Root, func(l block.Leaf) error {
		s.claim(l.ID) // it may have come ahead and be about to go
		s.early.claimed(l.ID)
		if s.blocks.Has(l.ID) {
			return ctx.Err()
		}
		if err := place(); err != nil {
			return err
		}
		g.Go(func() error {
			err := get(l.ID)
			if err != nil && !errors.Is(err, block.ErrAbsent) {
				cancel(err)
			}
			return err
		})
		return nil
	})
	if errors.Is(err, errLeaves) {
		err = nil // that nobody can read
	}
	return errors.Join(err, g.Wait())
}

// wanted counts the blocks that are not known to be here.
func (s *space) wanted() (n int) {
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.want {
		n += 1 + len(w.c.Layout)
	}
	return n
}
