package fs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/preview"
	"github.com/anyfs/anyfs/fs/tree"
)

// A preview is the index of a space at a frontier, signed, for devices that are new to the space: PREVIEW.md. This file makes them.

const (
	previewObjects = 1000             // a space with fewer comes as fast by its history
	previewLook    = 5 * time.Second  // between two looks; a space in which nothing happened between two is idle
	previewAgain   = time.Hour        // between two previews of a space, and after one that failed
	previewPart    = 50               // after a try, no other for this many times what it took
	previewDirs    = 16 << 10         // directories in one; the rest, counted from the root down, is named and not listed
	previewNames   = 1 << 20          // names in one
	previewSilence = 10 * time.Minute // without a batch, after which the batches behind a preview are not waited for any more
)

// errPreviewMoved says that the space changed while its preview was made.
var errPreviewMoved = errors.New("the space changed meanwhile")

// errPreviewLarge says that the root directory has more names than a preview lists.
var errPreviewLarge = errors.New("the root directory has too many names for a preview")

// previewer makes, shows and ends previews, until ctx ends.
func (h *Home) previewer(ctx context.Context) {
	tick := time.NewTicker(previewLook)
	defer tick.Stop()
	idle, later := map[*space]journal.Seq{}, map[*space]time.Time{}
	for {
		for _, s := range h.each() {
			if s.slot == 0 {
				continue
			}
			s.tendPreview(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-h.previews:
			continue
		case <-tick.C:
		}
		now := map[*space]journal.Seq{}
		for _, s := range h.each() {
			if s.slot == 0 {
				continue
			}
			s.mu.Lock()
			now[s] = s.last
			s.mu.Unlock()
			if last, seen := idle[s]; !seen || last != now[s] || !s.previewDue() || time.Now().Before(later[s]) {
				continue
			}
			began := time.Now()
			err := s.makePreview(ctx)
			later[s] = time.Now().Add(previewPart * time.Since(began))
			switch {
			case err == nil || errors.Is(err, errPreviewMoved) || ctx.Err() != nil:
			case errors.Is(err, errPreviewLarge): // no fault: a new device gets the history without one
				later[s] = time.Now().Add(previewAgain)
			default:
				h.report(fmt.Sprintf("space %s: make a preview", s.id), err)
				later[s] = time.Now().Add(previewAgain)
			}
		}
		idle = now
		maps.DeleteFunc(later, func(s *space, _ time.Time) bool { _, here := now[s]; return !here })
	}
}

func (h *Home) wakePreviewer() {
	select {
	case h.previews <- struct{}{}:
	default:
	}
}

// previewDue reports whether the space is worth a preview, and has none of this device that is new enough.
func (s *space) previewDue() bool {
	s.mu.Lock()
	small := s.objects < previewObjects
	s.mu.Unlock()
	if small {
		return false
	}
	made := s.pre.own()
	return made == nil || s.h.opt.Clock().Sub(time.Unix(0, made.Time)).Abs() >= previewAgain && !slices.Equal(made.Heads, s.graph.Heads())
}

// atRest gives the record that a preview would have now, without its pages, and the last record of the journal that it is of. ok is false
// where the index is not what the history says: something is not published, or did not arrive.
func (s *space) atRest() (r *preview.Record, last journal.Seq, ok bool) {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if s.sick != nil || s.unnoted != nil || len(s.in.later) > 0 || !s.acl.MayWrite() || s.acl.Writable() != nil || s.pre.pending() {
		return nil, 0, false
	}
	s.in.mu.Lock()
	due := s.in.due
	s.in.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if due || s.gone || len(s.dirty) > 0 {
		return nil, 0, false
	}
	batches, _, _ := s.graph.Counters()
	r = &preview.Record{Space: s.id, Device: s.h.keys.Author().Device, Batches: batches, ACL: s.acl.Heads(), Heads: s.graph.Heads()}
	if len(r.Heads) == 0 || len(r.Heads) > preview.MaxHeads || len(r.ACL) > preview.MaxHeads {
		return nil, 0, false
	}
	return r, s.last, true
}

// makePreview makes a preview of the space as it is now, and lets the one before go. errPreviewMoved says that it is to be tried again.
func (s *space) makePreview(ctx context.Context) error {
	r, last, ok := s.atRest()
	if !ok {
		return errPreviewMoved
	}
	began := time.Now()
	b := previewBuilder{s: s, most: previewNames, pages: map[uint64][]block.ID{}}
	old := s.pre.own()
	err := b.build(ctx)
	if err == nil {
		now, at, ok := s.atRest()
		if !ok || at != last || !slices.Equal(now.Heads, r.Heads) {
			err = errPreviewMoved
		}
	}
	var frame []byte
	if err == nil {
		r.Root, r.Time = b.pages[rootDir], s.h.opt.Clock().UnixNano()
		if err = r.Sign(s.h.keys.Device.PrivateKey()); err == nil {
			frame, err = r.Encode()
		}
	}
	if err == nil {
		err = s.syncBlocks(ctx)
	}
	if err == nil {
		err = s.tellDevice(keyPreviewMade, frame)
	}
	if err != nil {
		b.drop(ctx, old) // what is in the older one stays
		return err
	}
	s.pre.setOwn(r, frame)
	s.h.opt.Log.Info("a preview is made for devices that are new", "space", s.id.String(), "directories", len(b.dirs), "pages", len(b.put), "took", time.Since(began).Round(time.Millisecond))
	if old != nil {
		s.dropPages(ctx, old.Root, func(id block.ID) bool { return !b.put[id] })
	}
	return nil
}

// previewBuilder writes the pages of a preview.
type previewBuilder struct {
	s     *space
	most  int      // names in all directories that are listed
	dirs  []uint64 // from the root down
	pages map[uint64][]block.ID
	put   map[block.ID]bool
}

func (b *previewBuilder) build(ctx context.Context) error {
	b.put = map[block.ID]bool{}
	listed := map[uint64]bool{rootDir: true}
	b.dirs = []uint64{rootDir}
	names := 0
	for i := 0; i < len(b.dirs); i++ {
		var below []preview.Entry
		inos := map[string]uint64{}
		count := 0
		err := b.s.scanLive(b.dirs[i], func(e *index.Entry, n *index.Inode) bool {
			if count++; n.IsDir() {
				below = append(below, preview.Entry{Name: e.Name})
				inos[e.Name] = n.Ino
			}
			return ctx.Err() == nil
		})
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if names+count > b.most || count > preview.MaxPages*preview.MaxEntries/2 {
			// What is in it would be too much: it is named alone.
			if i == 0 {
				return errPreviewLarge
			}
			delete(listed, b.dirs[i])
			continue
		}
		names += count
		slices.SortFunc(below, func(x, y preview.Entry) int { return strings.Compare(x.Name, y.Name) })
		for j := range below {
			if ino := inos[below[j].Name]; len(b.dirs) < previewDirs && !listed[ino] {
				listed[ino] = true
				b.dirs = append(b.dirs, ino)
			}
		}
	}
	for i := len(b.dirs) - 1; i >= 0; i-- { // those below first
		if dir := b.dirs[i]; listed[dir] {
			if err := b.writeDir(ctx, dir, listed); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *previewBuilder) writeDir(ctx context.Context, dir uint64, listed map[uint64]bool) error {
	var entries []preview.Entry
	err := b.s.scanLive(dir, func(e *index.Entry, n *index.Inode) bool {
		if n.Object.IsZero() {
			return true // it stays on this device
		}
		x := previewEntry(e.Name, n)
		if n.IsDir() {
			x.Pages = b.pages[n.Ino]
			x.Unlisted = !listed[n.Ino]
		}
		entries = append(entries, x)
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(x, y preview.Entry) int { return strings.Compare(x.Name, y.Name) })
	var w preview.Writer
	var pages []block.ID
	flush := func() error {
		plain, err := w.Page()
		if err != nil || plain == nil {
			return err
		}
		sealed, err := b.s.keys.SealPreview(nil, plain)
		if err != nil {
			return err
		}
		id, err := b.s.blocks.Put(sealed)
		if err == nil {
			b.put[id] = true
			pages = append(pages, id)
		}
		return err
	}
	for i := range entries {
		full, err := w.Add(&entries[i])
		if err == nil && full {
			if err = flush(); err == nil {
				_, err = w.Add(&entries[i])
			}
		}
		if err != nil {
			return err
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if len(pages) > preview.MaxPages {
		if dir == rootDir {
			return errPreviewLarge
		}
		delete(listed, dir)
		pages = nil
	}
	b.pages[dir] = pages
	return nil
}

// previewEntry is what a preview says of an inode.
func previewEntry(name string, n *index.Inode) preview.Entry {
	e := preview.Entry{Name: name, Mode: n.Mode}
	if n.IsDir() {
		return e // its time is each device's own
	}
	e.Mtime = n.Mtime
	switch n.Type() {
	case syscall.S_IFLNK:
		e.Target = n.Target
	case syscall.S_IFREG:
		e.Size = n.Size
		switch {
		case n.Ext == nil && len(n.Cuts) == 0 && n.Base != nil && n.Base.Size == n.Size && preview.Fits(n.Base):
			e.Content = &tree.Content{Size: n.Size, Root: n.Base.Root, Layout: n.Base.Layout, LayoutBlock: n.Base.LayoutBlock}
		case len(n.Contents) == 1 && n.Size > 0:
			e.At = n.Contents[0]
		}
	}
	return e
}

// drop takes the pages back that were put and are in no other preview of this device.
func (b *previewBuilder) drop(ctx context.Context, keep *preview.Record) {
	if keep != nil {
		b.s.eachPage(ctx, keep.Root, func(id block.ID) { delete(b.put, id) })
	}
	ids := make([]block.ID, 0, len(b.put))
	for id := range b.put {
		ids = append(ids, id)
	}
	if err := b.s.blocks.Evict(ids...); err != nil {
		b.s.h.report(fmt.Sprintf("space %s: pages of a preview", b.s.id), err)
	}
}

// eachPage calls fn for the pages under a directory that are here.
func (s *space) eachPage(ctx context.Context, root []block.ID, fn func(block.ID)) {
	seen := map[block.ID]bool{}
	todo := slices.Clone(root)
	for len(todo) > 0 && ctx.Err() == nil && len(seen) < maxPages {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[id] {
			continue
		}
		seen[id] = true
		entries, err := s.localPage(id)
		if errors.Is(err, block.ErrAbsent) {
			continue
		}
		fn(id)
		for i := range entries {
			todo = append(todo, entries[i].Pages...)
		}
	}
}

// dropPages lets the pages under a directory go that are here and that ok accepts.
func (s *space) dropPages(ctx context.Context, root []block.ID, ok func(block.ID) bool) {
	var ids []block.ID
	s.eachPage(ctx, root, func(id block.ID) {
		if ok(id) {
			ids = append(ids, id)
		}
	})
	if err := s.blocks.Evict(ids...); err != nil {
		s.h.report(fmt.Sprintf("space %s: pages of a preview", s.id), err)
	}
}

// mayPreview reports whether a preview by a device of an account is believed: who may write it may as well show what is not so by writing it.
func (s *space) mayPreview(account, device dag.PublicKey) bool {
	st := s.acl.List().State()
	return st.Role(account) >= acl.RoleWriter && st.HasDevice(account, device) && !st.Revoked(account, device)
}
