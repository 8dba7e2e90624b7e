package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// item is one inode on its way into a batch: a clone of what it was when the batch began.
type item struct {
	n       *index.Inode
	depth   int
	content *assembled // nil when the content is not published
}

// maxItems bounds the inodes of one batch; the batch itself is bounded by the format.
const maxItems = dag.MaxChanges

// publish turns the inodes that pick chooses into one batch, and returns how many it published. With more left than one batch
// takes, it is called again. The batch is durable when publish returns nil.
func (s *space) publish(ctx context.Context, pick func(ino uint64, d dirtyState, n *index.Inode) bool) (int, error) {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	items, upTo, err := s.capture(pick)
	if err != nil || len(items) == 0 {
		return 0, err
	}
	defer s.settle(items)
	for i := range items {
		n := items[i].n
		if n.IsRegular() && len(n.Links) > 0 && (n.DirtyNew != 0 || n.DirtyContent != 0) {
			if items[i].content, err = s.assemble(ctx, n); err != nil {
				return 0, err
			}
		}
	}
	if err := s.blocks.Sync(ctx); err != nil {
		return 0, s.h.broken(err)
	}
	rec, err := s.commitBatch(items)
	if err != nil || rec == nil {
		return 0, err
	}
	rec.Seq = uint64(upTo)
	s.mu.Lock()
	w := s.record(recPublished)
	rec.encode(w)
	m, err := s.commit(w, true)
	if err == nil {
		err = s.applyPublished(m.seq, rec)
	}
	if err == nil {
		s.noteCost(items)
	}
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if err := s.log.Sync(); err != nil {
		return 0, s.h.broken(err)
	}
	if err := s.h.jr.Sync(ctx, m.seq); err != nil {
		return 0, s.h.broken(err)
	}
	return len(rec.Changes), nil
}

// capture chooses what to publish, with the unpublished directories above it, and clones it. Directories come first, from the
// top down. upTo is the last record that the clones hold.
func (s *space) capture(pick func(uint64, dirtyState, *index.Inode) bool) (items []item, upTo journal.Seq, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, 0, nil
	}
	chosen := map[uint64]bool{}
	var add func(n *index.Inode) (int, error)
	// add takes an inode and the unpublished directories above it; it returns the depth. A path has at most maxDepth parts.
	add = func(n *index.Inode) (int, error) {
		depth := 0
		if n.Ino != rootDir && n.IsDir() && len(n.Links) > 0 {
			for at := n; at.Ino != rootDir; depth++ {
				if depth > maxDepth {
					return 0, fmt.Errorf("%w: directory %d is too deep", ErrIO, n.Ino)
				}
				p, err := s.inode(at.Parent)
				if err != nil {
					return 0, err
				}
				at = p
			}
		}
		if chosen[n.Ino] {
			return depth, nil
		}
		chosen[n.Ino] = true
		for i := range n.Links {
			if n.Links[i].Parent == rootDir {
				continue
			}
			p, err := s.inode(n.Links[i].Parent)
			if err != nil {
				return 0, err
			}
			if p.Object.IsZero() {
				if _, err := add(p); err != nil {
					return 0, err
				}
			}
		}
		items = append(items, item{n: n.Clone(), depth: depth})
		return depth, nil
	}
	for ino, d := range s.dirty {
		if len(items) >= maxItems {
			break
		}
		n, err := s.ix.Inode(ino)
		if err != nil {
			return nil, 0, s.damaged(err)
		}
		if n == nil || !n.Dirty() || n.Object.IsZero() && len(n.Links) == 0 && len(n.Gone) == 0 {
			delete(s.dirty, ino) // nothing of it is for others, or not before it has a name
			continue
		}
		if s.streams[ino] != nil || !pick(ino, d, n) {
			continue
		}
		if _, err := add(n); err != nil {
			return nil, 0, err
		}
	}
	slices.SortStableFunc(items, func(a, b item) int {
		switch {
		case a.n.IsDir() != b.n.IsDir():
			if a.n.IsDir() {
				return -1
			}
			return 1
		case a.depth != b.depth:
			return a.depth - b.depth
		}
		return 0
	})
	if len(items) > maxItems {
		items = items[:maxItems]
	}
	for i := range items {
		s.inflight[items[i].n.Ino] = struct{}{}
	}
	return items, s.last, nil
}

// maxDepth bounds how deep directories nest.
const maxDepth = 1 << 16

// settle ends the flight of what was captured, and reclaims what lost its last name meanwhile.
func (s *space) settle(items []item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range items {
		delete(s.inflight, items[i].n.Ino)
	}
	for i := range items {
		if _, ok := s.orphaned[items[i].n.Ino]; ok {
			s.reclaim(items[i].n.Ino)
		}
	}
	s.settled.Broadcast()
}

// commitBatch seals the items' changes into one batch of the graph. Nil: there was nothing to say.
func (s *space) commitBatch(items []item) (*publishedRecord, error) {
	epoch := s.acl.Epoch()
	b, err := s.graph.Begin(s.h.keys.Author(), s.acl.Heads(), epoch)
	if err != nil {
		return nil, fmt.Errorf("space %s: publish: %w", s.id, err)
	}
	done := false
	defer func() {
		if !done {
			b.Abort()
		}
	}()
	rec := &publishedRecord{}
	var snapshots []dag.ID         // changes that carry one, which is trusted: it was made here
	objects := map[uint64]dag.ID{} // of the directories that this batch makes
	touched := map[dag.ID]bool{}
	now := s.h.now()
	for i := range items {
		n := items[i].n
		c := &composer{s: s, objects: objects, item: &items[i], now: changedAt(n, now)}
		if !c.compose() {
			continue // a directory above did not fit: it comes with the next batch
		}
		// Removals of objects that the inode stood for before come as changes of their own.
		ok, err := s.addOthers(b, c, touched)
		own := len(c.payload.Ops) > 0 && (len(n.Links) > 0 || !n.Object.IsZero())
		if !ok || own && touched[n.Object] {
			continue // one of its objects has a change in this batch already
		}
		if err == nil && own {
			c.done.Change, err = b.Add(n.Object, func(h dag.Header) ([]byte, error) { return s.seal(h, &c.payload) })
		}
		if errors.Is(err, dag.ErrBatchFull) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("space %s: publish: %w", s.id, err)
		}
		c.done.Object = n.Object
		if own && n.Object.IsZero() {
			c.done.New, c.done.Object = true, c.done.Change
			if n.IsDir() {
				objects[n.Ino] = c.done.Object
			}
		}
		if own {
			touched[c.done.Object] = true
			if c.payload.Snapshot != nil {
				snapshots = append(snapshots, c.done.Change)
			}
		}
		rec.Changes = append(rec.Changes, c.done)
	}
	if k, _ := b.Len(); k == 0 {
		return nil, nil
	}
	batch, err := b.Commit()
	if err != nil {
		return nil, fmt.Errorf("space %s: publish: %w", s.id, err)
	}
	done = true
	for _, id := range snapshots {
		trust{s}.Trust(id)
	}
	rec.Batch = batch.ID()
	rec.Mark = uint64(s.log.Mark())
	return rec, nil
}

// addOthers adds the removals of the composer's inode that concern other objects than its own.
func (s *space) addOthers(b *dag.Builder, c *composer, touched map[dag.ID]bool) (bool, error) {
	for _, o := range c.others {
		if touched[o.object] {
			return false, nil
		}
	}
	for _, o := range c.others {
		if _, err := b.Add(o.object, func(h dag.Header) ([]byte, error) { return s.seal(h, &o.payload) }); err != nil {
			return true, err
		}
		touched[o.object] = true
	}
	return true, nil
}

// seal encodes and seals a payload for the header of its change.
func (s *space) seal(h dag.Header, p *tree.Payload) ([]byte, error) {
	p.Snapshot = s.snapshot(h.Object, h.Parents)
	b, err := p.Encode(h.Parents)
	if err != nil {
		return nil, err
	}
	return s.keys.SealChange(h, b)
}

// applyPublished ends what of the inodes a batch has published.
func (s *space) applyPublished(seq journal.Seq, r *publishedRecord) error {
	upTo := journal.Seq(r.Seq)
	for i := range r.Changes {
		p := &r.Changes[i]
		n, err := s.ix.Change(p.Ino)
		if err != nil {
			return s.damaged(err)
		}
		if n == nil {
			continue
		}
		if err := s.publishedOne(seq, upTo, n, p); err != nil {
			return err
		}
		if !n.Dirty() {
			s.clearDirty(n.Ino)
		} else if d, ok := s.dirty[n.Ino]; ok {
			d.first = d.last
			s.dirty[n.Ino] = d
		}
	}
	return nil
}

func (s *space) publishedOne(seq, upTo journal.Seq, n *index.Inode, p *publishedChange) error {
	if p.Gone > 0 {
		n.Gone = append([]index.Gone(nil), n.Gone[min(p.Gone, len(n.Gone)):]...)
	}
	if p.Change.IsZero() {
		return nil
	}
	if p.New {
		n.Object = p.Object
		s.ix.SetObject(p.Object, n.Ino)
	}
	ref := func(place uint32) tree.Ref { return tree.Ref{Change: p.Change, Place: place} }
	if p.Content >= 0 {
		n.Contents = []tree.Ref{ref(uint32(p.Content))}
		base, err := index.DecodeContent(p.Base)
		if err != nil {
			return s.damaged(err)
		}
		n.Base, n.BaseAt = base, n.Contents[0]
		if n.Ext != nil {
			n.Ext.Drop(upTo)
			if n.Ext.Len() == 0 {
				n.Ext = nil
			}
		}
		var cuts []index.Cut
		for _, c := range n.Cuts {
			if c.Seq > upTo {
				cuts = append(cuts, c)
			}
		}
		n.Cuts = cuts
		for i := range n.Gone {
			if n.Gone[i].Object == n.Object {
				n.Gone[i].Contents = n.Contents
			}
		}
	}
	for _, l := range p.Links {
		s.publishedLink(seq, upTo, n, l, ref(l.Place))
	}
	for _, d := range []*journal.Seq{&n.DirtyNew, &n.DirtyMode, &n.DirtyOwner, &n.DirtyMtime, &n.DirtyTarget, &n.DirtyContent} {
		if *d <= upTo {
			*d = 0
		}
	}
	if len(n.DirtyXattrs) > 0 {
		var left []index.XattrDirty
		for _, x := range n.DirtyXattrs {
			if x.Seq > upTo {
				left = append(left, x)
			}
		}
		n.DirtyXattrs = left
	}
	return nil
}

// publishedLink notes what became of a link. One that was removed since leaves its mark to publish.
func (s *space) publishedLink(seq, upTo journal.Seq, n *index.Inode, l placed, val tree.Ref) {
	var id tree.Ref
	if l.Made {
		id = val
	}
	for i := range n.Links {
		if k := &n.Links[i]; k.Key == l.Key {
			if k.Dirty <= upTo {
				k.Dirty = 0
			}
			k.Published(seq, id, val, l.Parent, l.Name)
			if k.Dirty != 0 && k.WasParent != k.Parent {
				s.noteTrash(trashMoved, n, n.Object, k.WasParent, k.WasName, n.Ctime) // it had moved on meanwhile
			}
			return
		}
	}
	if l.Made {
		n.Gone = append(n.Gone, index.Gone{Key: l.Key, Object: n.Object, Link: val, Over: []tree.Ref{val}, Contents: n.Contents, Seq: seq})
		s.noteTrash(trashRemoved, n, n.Object, l.Parent, l.Name, n.Ctime)
		return
	}
	for i := range n.Gone {
		if n.Gone[i].Key == l.Key && n.Gone[i].Object == n.Object {
			n.Gone[i].Over = []tree.Ref{val}
		}
	}
}
