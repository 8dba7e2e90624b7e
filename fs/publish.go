package fs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// item is one inode on its way into a batch: a clone of what it was when the batch began.
type item struct {
	n       *index.Inode
	depth   int
	content *assembled // nil when the content is not published
	db      database   // that it is published with; none: zero
	failed  bool       // it can't be published now

	replaced bool // it shows an older version, and has content of its own
}

// maxItems bounds the inodes of one batch; the batch itself is bounded by the format.
const maxItems = dag.MaxChanges

// publish turns the inodes that pick chooses into one batch, and returns how many it published. left says that more are
// ready than one batch takes, or are being written: it is to be called again. The batch is durable when publish returns nil.
// An inode that can't be published is held back for a while, and the others go on.
func (s *space) publish(ctx context.Context, pick func(ino uint64, d dirtyState, n *index.Inode) bool) (n int, left bool, err error) {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if err := s.note(ctx); err != nil {
		return 0, false, err
	}
	s.refreshIgnores(ctx)
	items, upTo, left, err := s.capture(pick)
	if err != nil || len(items) == 0 {
		return 0, left, err
	}
	defer s.settle(items)
	for i := range items {
		n := items[i].n
		if n.IsRegular() && (len(n.Links) > 0 || items[i].replaced) && (n.DirtyNew != 0 || n.DirtyContent != 0) {
			// What of the file is not here may have to come first; nothing else waits for that.
			if items[i].content, err = s.nextContent(context.WithValue(ctx, localOnly{}, false), n); err != nil {
				if ctx.Err() != nil {
					return 0, left, err
				}
				s.holdBack(n.Ino, err)
				items[i].failed = true
				if errors.Is(err, block.ErrAbsent) {
					s.fetchBase(ctx, n)
				}
			}
		}
	}
	failTogether(items)
	if err := s.syncBlocks(ctx); err != nil {
		return 0, left, s.h.broken(err)
	}
	crashpoint.Here(crashpoint.PublishBegin)
	rec, more, err := s.commitBatch(items)
	left = left || more
	if err != nil || rec == nil {
		return 0, left, err
	}
	crashpoint.Here(crashpoint.PublishNote)
	rec.Seq = uint64(upTo)
	s.mu.Lock()
	s.unnoted = rec
	s.mu.Unlock()
	if err := s.note(ctx); err != nil {
		return 0, left, err
	}
	s.mu.Lock()
	s.noteCost(items)
	s.mu.Unlock()
	s.again()
	return len(rec.Changes), left, nil
}

// failTogether holds back what belongs to a database of which a part failed.
func failTogether(items []item) {
	for i := range items {
		if !items[i].failed || items[i].db == (database{}) {
			continue
		}
		for j := range items {
			items[j].failed = items[j].failed || items[j].db == items[i].db
		}
	}
}

// note records the publication that is in the batch log and not in the journal yet, and makes both durable. Where the journal
// takes no record it stays to be noted: its changes must not be made a second time. Under pubMu.
func (s *space) note(ctx context.Context) error {
	rec := s.unnoted
	if rec == nil {
		return nil
	}
	s.mu.Lock()
	w := s.record(recPublished)
	rec.encode(w)
	m, err := s.commit(w, true)
	if err == nil {
		s.kept, s.keptBy = rec.Mark, m.seq
		if !s.applied {
			err = s.applyUnnoted(m.seq)
		}
		s.unnoted, s.applied = nil, false
	}
	if err == nil {
		s.publishedChanges(rec)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	crashpoint.Here(crashpoint.PublishNoted)
	if err := s.log.Sync(); err != nil && !s.deleted() {
		return s.h.broken(err)
	}
	crashpoint.Here(crashpoint.PublishSynced)
	return s.h.sync(ctx, m.seq)
}

// applyUnnoted ends what the publication that is not noted yet has published, and reclaims what lost its last name meanwhile. Under
// pubMu and mu.
func (s *space) applyUnnoted(seq journal.Seq) error {
	if err := s.applyPublished(seq, s.unnoted); err != nil {
		return err
	}
	s.applied = true
	for i := range s.unnoted.Changes {
		if _, ok := s.orphaned[s.unnoted.Changes[i].Ino]; ok {
			s.reclaim(s.unnoted.Changes[i].Ino)
		}
	}
	return nil
}

// isUnnoted reports whether an inode is in a publication that the index does not know of yet. Under mu.
func (s *space) isUnnoted(ino uint64) bool {
	return s.unnoted != nil && !s.applied &&
		slices.ContainsFunc(s.unnoted.Changes, func(p publishedChange) bool { return p.Ino == ino })
}

// heldBack is an inode that could not be published, and until when it is not tried again.
type heldBack struct {
	until int64
	err   error
}

// holds reports whether it is still held back. A clock that was set back ends that.
func (b heldBack) holds(now int64) bool { return now < b.until && b.until-now <= int64(holdFor) }

// holdFor is for how long it is held back.
const holdFor = 10 * time.Second

// holdBack keeps an inode out of the next publications, and says why once.
func (s *space) holdBack(ino uint64, err error) {
	s.mu.Lock()
	old, again := s.held[ino]
	s.held[ino] = heldBack{s.h.opt.Clock().UnixNano() + int64(holdFor), err}
	s.mu.Unlock()
	if !again || old.err.Error() != err.Error() {
		s.h.report(fmt.Sprintf("space %s: inode %d can't be published", s.id, ino), err)
	}
}

// nameless reports whether an inode has nothing that concerns others: it has no name, and none of it was published. What was written
// to a version that another device's took the place of does. Under mu.
func (s *space) nameless(n *index.Inode) bool {
	return n.Ino != rootDir && len(n.Links) == 0 && len(n.Gone) == 0 && !s.replaced(n)
}

// replaced reports whether an inode shows an older version of a file, by which a program has it open, and has content of its own: that
// is published as a value beside the one that took its place, and merged or kept as any other. Under mu.
func (s *space) replaced(n *index.Inode) bool {
	if len(n.Links) > 0 || n.Object.IsZero() || n.DirtyContent == 0 || !n.IsRegular() {
		return false
	}
	ino, err := s.ix.Object(n.Object)
	if err != nil || ino == 0 || ino == n.Ino {
		return false
	}
	now, err := s.ix.Inode(ino)
	return err == nil && now != nil && len(now.Links) > 0
}

// capture chooses what to publish, with the unpublished directories above it, and clones it. Directories come first, from the
// top down. upTo is the last record that the clones hold.
//
// Of a database all that is dirty is captured, or nothing.
func (s *space) capture(pick func(uint64, dirtyState, *index.Inode) bool) (items []item, upTo journal.Seq, left bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.sick != nil {
		return nil, 0, false, nil
	}
	now := s.h.opt.Clock().UnixNano()
	chosen := map[uint64]bool{}
	look := s.ignoreLook()
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
		items = append(items, item{n: n.Clone(), depth: depth, replaced: s.replaced(n)})
		return depth, nil
	}
	// take takes an inode, or where it belongs to a database all of that.
	take := func(n *index.Inode) error {
		db, ok := s.databaseOf(n)
		if !ok {
			_, err := add(n)
			return err
		}
		members := s.members(db)
		for _, ino := range members {
			if h, ok := s.held[ino]; ok && h.holds(now) {
				return nil
			}
			if s.streams[ino] != nil {
				left = true
				return nil
			}
		}
		if !slices.Contains(members, n.Ino) {
			members = append(members, n.Ino)
		}
		for _, ino := range members {
			m, err := s.ix.Inode(ino)
			if err != nil {
				return s.damaged(err)
			}
			if m == nil || !m.Dirty() || s.nameless(m) || look.of(m) != notIgnored {
				continue
			}
			if _, err := add(m); err != nil {
				return err
			}
		}
		for i := range items {
			if it := &items[i]; !it.n.IsDir() && slices.Contains(members, it.n.Ino) {
				it.db = db
			}
		}
		return nil
	}
	from := uint64(0)
	for ino, d := range s.eachDirty() {
		if len(items) >= maxItems {
			left, from = true, ino
			break
		}
		if h, ok := s.held[ino]; ok && h.holds(now) {
			continue
		}
		n, err := s.ix.Inode(ino)
		if err != nil {
			return nil, 0, false, s.damaged(err)
		}
		if n == nil || !n.Dirty() || s.nameless(n) {
			s.undirty(ino) // nothing of it is for others, or not before it has a name
			continue
		}
		switch look.of(n) {
		case isIgnored:
			if s.streams[ino] == nil {
				s.setIgnored(n)
			}
			continue
		case mayBeIgnored:
			continue
		}
		if s.streams[ino] != nil {
			left = true
			continue
		}
		if chosen[ino] || !pick(ino, d, n) {
			continue
		}
		if err := take(n); err != nil {
			return nil, 0, false, err
		}
	}
	s.nextUp = from
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
		items, left = items[:firstOf(items, maxItems)], true // no database is cut in two
	}
	for i := range items {
		s.inflight[items[i].n.Ino] = struct{}{}
	}
	return items, s.last, left, nil
}

// eachDirty gives what is dirty in the order of the numbers, from where the last publication was full, and then from the first: what was
// made together is published together, so that who takes it in has few pages of its index to change; and nothing waits without end for what
// is written again and again. What is no longer dirty meanwhile is left out. Under mu.
func (s *space) eachDirty() iter.Seq2[uint64, dirtyState] {
	return func(yield func(uint64, dirtyState) bool) {
		first := s.nextUp
		if s.eachDirtyFrom(first, math.MaxUint64, yield) && first > 0 {
			s.eachDirtyFrom(0, first-1, yield)
		}
	}
}

// dirtyStep is how many numbers eachDirty looks up at a time. Ours to tune.
const dirtyStep = 256

func (s *space) eachDirtyFrom(from, to uint64, yield func(uint64, dirtyState) bool) (more bool) {
	inos := make([]uint64, 0, min(dirtyStep, s.inOrder.Len()))
	for {
		inos = inos[:0]
		s.inOrder.Ascend(from, func(ino uint64) bool {
			if ino > to {
				return false
			}
			inos = append(inos, ino)
			return len(inos) < dirtyStep
		})
		for _, ino := range inos {
			if d, ok := s.dirty[ino]; ok && !yield(ino, d) {
				return false
			}
		}
		if len(inos) < dirtyStep {
			return true
		}
		from = inos[len(inos)-1] + 1
	}
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

// commitBatch seals the items' changes into one batch of the graph. Nil: there was nothing to say. left: not all fitted.
func (s *space) commitBatch(items []item) (rec *publishedRecord, left bool, err error) {
	if err := s.ready(); err != nil {
		return nil, false, fmt.Errorf("space %s: publish: %w", s.id, err)
	}
	epoch := s.acl.Epoch()
	b, err := s.graph.Begin(s.h.keys.Author(), s.acl.Heads(), epoch)
	if err != nil {
		return nil, false, fmt.Errorf("space %s: publish: %w", s.id, err)
	}
	done := false
	defer func() {
		if !done {
			b.Abort()
		}
	}()
	rec = &publishedRecord{}
	var snapshots []dag.ID         // changes that carry one, which is trusted: it was made here
	objects := map[uint64]dag.ID{} // of the directories that this batch makes
	touched := map[dag.ID]bool{}
	now := s.h.now()
	for i := range items {
		n := items[i].n
		if items[i].failed {
			continue
		}
		c := &composer{s: s, objects: objects, item: &items[i], now: changeTime(items, i, now)}
		if !c.compose() {
			left = true
			continue // a directory above did not fit: it comes with the next batch
		}
		left = left || c.more
		// Removals of objects that the inode stood for before come as changes of their own.
		ok, err := s.addOthers(b, c, touched)
		own := len(c.payload.Ops) > 0 && (len(n.Links) > 0 || !n.Object.IsZero())
		if !ok || own && touched[n.Object] {
			left = true
			continue // one of its objects has a change in this batch already
		}
		if err == nil && own {
			c.done.Change, err = b.Add(n.Object, func(h dag.Header) ([]byte, error) { return s.seal(h, &c.payload) })
		}
		if k, _ := b.Len(); errors.Is(err, dag.ErrBatchFull) && k > 0 {
			if first := firstOf(items, i); first < i {
				b.Abort() // no database is cut in two
				done = true
				rec, _, err := s.commitBatch(items[:first])
				return rec, true, err
			}
			left = true
			break
		}
		if err != nil {
			s.holdBack(n.Ino, err)
			continue
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
		return nil, false, nil
	}
	batch, err := b.Commit()
	if err != nil {
		return nil, left, fmt.Errorf("space %s: publish: %w", s.id, err)
	}
	done = true
	for _, id := range snapshots {
		trust{s}.Trust(id)
	}
	rec.Batch = batch.ID()
	rec.Mark = uint64(s.log.Mark())
	return rec, left, nil
}

// changeTime is the time that the change of the i-th item carries. Those of a database have one time: no moment of the past shows some of
// them and not the others.
func changeTime(items []item, i int, now int64) int64 {
	t := changedAt(items[i].n, now)
	if items[i].db != (database{}) {
		for j := range items {
			if items[j].db == items[i].db {
				t = max(t, changedAt(items[j].n, now))
			}
		}
	}
	return t
}

// firstOf gives the first item of the database that the i-th belongs to: i where it belongs to none, or where it is all there is.
func firstOf(items []item, i int) int {
	if items[i].db == (database{}) {
		return i
	}
	first := slices.IndexFunc(items, func(it item) bool { return it.db == items[i].db })
	if first == 0 {
		return i
	}
	return first
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
		delete(s.held, n.Ino)
		if !n.Dirty() {
			s.undirty(n.Ino)
		} else if d, ok := s.dirty[n.Ino]; ok {
			d.first = d.last
			s.setDirty(n.Ino, d)
			if p.Content >= 0 {
				s.recount(n)
			}
		}
		if p.Content >= 0 {
			s.notePatched(n)
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
		at := ref(uint32(p.Content))
		if p.patches() {
			if n.Base == nil {
				return s.damaged(fmt.Errorf("inode %d: a patch over nothing", n.Ino))
			}
			n.Patch(upTo, at, p.Size, p.Edits)
		} else {
			base, err := index.DecodeContent(p.Base)
			if err != nil {
				return s.damaged(err)
			}
			if rootOf(n) != base.Root {
				s.outdated(n)
			}
			n.Rebase(upTo, base, at)
			s.noteSend(n)
			s.noteUpload(n)
		}
		n.Contents = []tree.Ref{at}
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
			n.Also = slices.DeleteFunc(slices.Clone(n.Also), func(a index.Also) bool { return a.Link == k.ID })
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
