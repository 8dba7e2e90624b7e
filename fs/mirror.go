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

// mirror is what of a space's content is not known to be here.
type mirror struct {
	mu      sync.Mutex
	scanned bool             // what the index had at the start is in want
	want    map[cid.Cid]wish // by root
	busy    map[cid.Cid]bool // of these, those that are being fetched
	upTo    journal.Seq      // the last record when pins were looked at
}

// wish is a content that is not known to be here, and the inode that shows it.
type wish struct {
	content *tree.Content
	ino     uint64
}

// mirrorContents is how many contents are fetched at a time, and mirrorBlocks how many blocks of all of them; mirrorAgain is when what
// nobody had is asked for again.
const (
	mirrorContents = 32
	mirrorBlocks   = 32
	mirrorAgain    = 30 * time.Second
)

// wantContent notes a content that came from another device.
func (s *space) wantContent(ino uint64, c *tree.Content) {
	if c == nil || !c.Root.Defined() {
		return
	}
	m := &s.mir
	m.mu.Lock()
	if m.want == nil {
		m.want = map[cid.Cid]wish{}
	}
	m.want[c.Root] = wish{c, ino}
	m.mu.Unlock()
}

// Mirror has content asked for that is not here: somebody who may have it came.
func (h *Home) Mirror() {
	for _, s := range h.each() {
		s.lack.forget()
	}
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
		select {
		case <-ctx.Done():
			return
		case <-h.mirrors:
		case <-tick.C:
		}
		for _, s := range h.each() {
			for _, c := range s.toFetch(ctx) {
				if !h.roomAhead() {
					break
				}
				select {
				case contents <- struct{}{}:
				case <-ctx.Done():
					return
				}
				if s.deleted() || !s.beginFetch(c) {
					<-contents
					continue
				}
				wg.Go(func() {
					err := s.fetchContent(ctx, c, blocks)
					s.endFetch(c, err == nil) // else nobody has it now, or the disk is full: it is tried again
					<-contents
				})
			}
			if err := s.sendReleases(ctx); err != nil && ctx.Err() == nil && !s.deleted() {
				h.report(fmt.Sprintf("space %s: receipts that are given back", s.id), err)
			}
		}
	}
}

// toFetch lists the content that is wanted and not being fetched, what is pinned first.
func (s *space) toFetch(ctx context.Context) []*tree.Content {
	if err := s.lookForWanted(ctx); err != nil {
		return nil
	}
	wishes := s.wishes()
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*tree.Content, 0, len(wishes))
	for _, w := range wishes {
		if !m.busy[w.content.Root] {
			list = append(list, w.content)
		}
	}
	return list
}

// beginFetch makes the caller the one who fetches a content, if it is wanted still and nobody does.
func (s *space) beginFetch(c *tree.Content) bool {
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, wanted := m.want[c.Root]; !wanted || m.busy[c.Root] {
		return false
	}
	if m.busy == nil {
		m.busy = map[cid.Cid]bool{}
	}
	m.busy[c.Root] = true
	return true
}

// endFetch ends that.
func (s *space) endFetch(c *tree.Content, here bool) {
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.busy, c.Root)
	if here {
		delete(m.want, c.Root)
	}
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
			s.wantAbsent(w)
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
func (s *space) wantAbsent(w wish) {
	if id, _, err := block.IDFromCID(w.content.Root); err != nil || !s.blocks.Has(id) || !s.isWhole(context.Background(), w.content.Root) {
		s.wantContent(w.ino, w.content)
	}
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
		n += 1 + len(w.content.Layout)
	}
	return n
}
