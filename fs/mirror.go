package fs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// A space is mirrored: the content of what is current comes to this device by itself, after the names, sizes and attributes. What
// somebody reads comes first.

// mirror is what of a space's content is not known to be here.
type mirror struct {
	mu      sync.Mutex
	scanned bool                      // what the index had at the start is in want
	want    map[cid.Cid]*tree.Content // by root
	busy    map[cid.Cid]bool          // of these, those that are being fetched
}

// mirrorContents is how many contents are fetched at a time, and mirrorBlocks how many blocks of all of them; mirrorAgain is when what
// nobody had is asked for again.
const (
	mirrorContents = 32
	mirrorBlocks   = 32
	mirrorAgain    = 30 * time.Second
)

// wantContent notes a content that came from another device.
func (s *space) wantContent(c *tree.Content) {
	if c == nil || !c.Root.Defined() {
		return
	}
	m := &s.mir
	m.mu.Lock()
	if m.want == nil {
		m.want = map[cid.Cid]*tree.Content{}
	}
	m.want[c.Root] = c
	m.mu.Unlock()
}

// Mirror has content asked for that is not here: somebody who may have it came.
func (h *Home) Mirror() {
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
			for _, c := range s.toFetch() {
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
		}
	}
}

// toFetch lists the content that is wanted and not being fetched.
func (s *space) toFetch() []*tree.Content {
	m := &s.mir
	m.mu.Lock()
	scanned := m.scanned
	m.mu.Unlock()
	if !scanned && s.hasOthers() {
		if s.scanWanted() != nil {
			return nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*tree.Content, 0, len(m.want))
	for root, c := range m.want {
		if !m.busy[root] {
			list = append(list, c)
		}
	}
	return list
}

// beginFetch makes the caller the one who fetches a content, if it is wanted still and nobody does.
func (s *space) beginFetch(c *tree.Content) bool {
	m := &s.mir
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.want[c.Root] == nil || m.busy[c.Root] {
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
		var list []*tree.Content
		s.mu.Lock()
		err := s.ix.InodesFrom(next, func(x *index.Inode) bool {
			next = x.Ino + 1
			if x.Base != nil && x.Base.Root.Defined() {
				list = append(list, x.Base)
			}
			n++
			return n < step
		})
		s.mu.Unlock()
		if err != nil {
			return err
		}
		for _, c := range list {
			if id, _, err := block.IDFromCID(c.Root); err != nil || !s.blocks.Has(id) || !s.isWhole(context.Background(), c.Root) {
				s.wantContent(c)
			}
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
	for _, c := range m.want {
		n += 1 + len(c.Layout)
	}
	return n
}
