package fs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// make makes an inode without a name in a space, as a source was, and takes a reference to it. Content of the same space is
// referred to, that of another copied. It returns the size of the content.
func (r *restorer) make(src *source, to *space) (ino uint64, size int64, err error) {
	st := src.st
	rec := &refsRecord{
		Mode: st.Kind.Type() | stateMode(st), Rdev: st.Rdev, Owned: st.Owned, UID: st.UID, GID: st.GID,
		Mtime: stateMtime(st), Target: st.Target,
	}
	for name, value := range st.Xattrs {
		rec.Xattrs = append(rec.Xattrs, index.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(rec.Xattrs, func(a, b index.Xattr) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	var f *VersionFile
	if st.Kind == tree.KindFile {
		if f, err = src.s.fileOf(st); err != nil {
			return 0, 0, err
		}
		r.fetch(src.s, f)
		if err := src.s.readable(r.ctx, f); err != nil {
			return 0, 0, err
		}
		size = f.size
	}
	shared := f != nil && to == src.s && !f.at.Change.IsZero()
	written := f != nil && !shared
	if shared {
		rec.Base, rec.BaseAt = index.AppendContent(nil, f.base), f.at
		var n index.Inode
		f.show(&n)
		if rec.Patched = index.AppendPatches(nil, &n); len(rec.Patched) > maxPatched {
			rec.Patched, written = nil, true
		}
	}
	if ino, err = r.makeInode(to, rec, f, shared); err != nil {
		return 0, 0, err
	}
	if written {
		if err = r.fill(to, ino, f, shared); err == nil {
			_, err = r.h.Setattr(r.ctx, to.ino(ino), SetAttr{Mtime: &rec.Mtime})
		}
	}
	if err != nil {
		to.unref(ino)
		return 0, 0, err
	}
	return ino, size, nil
}

// fetch has a content come here that another device may have, as old versions are that this one never showed. What does not come is
// missed by who needs it.
func (r *restorer) fetch(s *space, f *VersionFile) {
	if f.base.Root.Defined() && s.hasOthers() && !s.isWhole(r.ctx, f.base.Root) {
		_ = s.fetchContent(r.ctx, f.base, make(chan struct{}, mirrorBlocks))
	}
}

// maxPatched is how long the patches of an inode may be in the record of its restore. Those of more are written anew.
const maxPatched = 1 << 20

// makeInode records the inode. Where it shares blocks, none of them goes between the look at them and the record.
func (r *restorer) makeInode(to *space, rec *refsRecord, f *VersionFile, shared bool) (uint64, error) {
	for {
		round := to.keeping.round()
		if shared {
			err := r.keep(to, f)
			if err != nil {
				r.fetch(to, f) // it was evicted before it was claimed
				err = r.keep(to, f)
			}
			if err != nil {
				return 0, err
			}
		}
		err := to.do(true, func() (*writer, func(*mutation) error, error) {
			if shared && to.keeping.round() != round {
				return nil, nil, errAgain
			}
			rec.Ino, rec.Time = to.nextIno, r.h.now()
			w := to.record(recRefs)
			rec.encode(w)
			return w, func(m *mutation) error {
				if err := to.applyRefs(m.seq, rec); err != nil {
					return err
				}
				to.refs[rec.Ino]++
				return nil
			}, nil
		})
		if !errors.Is(err, errAgain) {
			return rec.Ino, err
		}
	}
}

// keep claims the blocks of a content and fails where one is not here.
func (r *restorer) keep(s *space, f *VersionFile) error {
	if !f.base.Root.Defined() {
		return nil
	}
	var missing error
	err := s.eachBlock(r.ctx, f.base.Root, func(id block.ID) bool {
		s.claim(id)
		if !s.blocks.Has(id) {
			missing = s.prunedError(f.base.Root, s.blockError(id, block.ErrAbsent))
		}
		return missing == nil
	})
	if missing != nil {
		return missing
	}
	if err != nil {
		return s.prunedError(f.base.Root, s.contentError(f.base.Root, err))
	}
	return nil
}

// fill writes what an inode does not share: the patches over a shared base, or everything.
func (r *restorer) fill(to *space, ino uint64, f *VersionFile, shared bool) error {
	at := to.ino(ino)
	if shared {
		for _, c := range f.patches {
			size := c.Size
			if _, err := r.h.Setattr(r.ctx, at, SetAttr{Size: &size}); err != nil {
				return err
			}
			for i := range c.Patch {
				e := &c.Patch[i]
				if len(e.Bytes) > 0 {
					if _, err := r.h.Write(r.ctx, at, e.Bytes, e.Off, WriteFlags{}); err != nil {
						return err
					}
				}
				if rest := e.Len - int64(len(e.Bytes)); rest > 0 {
					mode := uint32(FallocZeroRange | FallocKeepSize)
					if err := r.h.Fallocate(r.ctx, at, mode, e.Off+int64(len(e.Bytes)), rest); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	buf := make([]byte, min(f.size, 1<<20))
	for off := int64(0); off < f.size; {
		n, err := f.readAt(r.ctx, buf, off)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return err
		}
		if _, err := r.h.Write(r.ctx, at, buf[:n], off, WriteFlags{}); err != nil {
			return err
		}
		off += int64(n)
	}
	return to.settleStream(ino)
}

// put gives an inode its place. Of an object that comes back, heads are those of the history that the record was made from,
// and owner the inode that stood for it: where either has changed since, it fails with errAgain.
func (r *restorer) put(s *space, rec *placeRecord, heads []dag.ID, owner uint64) error {
	return s.do(true, func() (*writer, func(*mutation) error, error) {
		if rec.Over != 0 {
			s.waitSettled(rec.Over)
		}
		if !rec.Object.IsZero() {
			now, err := s.graph.HeadsOf(rec.Object)
			if err != nil {
				return nil, nil, s.damaged(err)
			}
			ino, err := s.ix.Object(rec.Object)
			if err != nil {
				return nil, nil, s.damaged(err)
			}
			var links int
			if n, err := s.ix.Inode(ino); err == nil && n != nil {
				links = len(n.Links)
			}
			if ino != owner || !slices.Equal(now, heads) || (links > 0) != (ino == rec.Ino) {
				return nil, nil, errAgain
			}
		}
		if _, err := s.liveDir(rec.Parent); err != nil {
			return nil, nil, err
		}
		e, _, err := s.lookup(rec.Parent, rec.Name)
		if err != nil {
			return nil, nil, err
		}
		if e != nil {
			return nil, nil, ErrExist
		}
		rec.Time = r.h.now()
		w := s.record(recPlace)
		rec.encode(w)
		return w, func(m *mutation) error {
			if err := s.applyPlace(m.seq, rec); err != nil {
				return err
			}
			if rec.Over != 0 {
				s.reclaim(rec.Over)
			}
			return nil
		}, nil
	})
}

// errBusy is returned for a file that is written all the time.
var errBusy = fmt.Errorf("it is being written: %w", syscall.EBUSY)

// replace lets n take the names and the object of o, all of which is published. It returns what changed for the kernel.
func (r *restorer) replace(s *space, n, o uint64) (events []Event, err error) {
	for range 16 {
		if err := s.settleStream(o); err != nil {
			return nil, err
		}
		err = s.do(true, func() (*writer, func(*mutation) error, error) {
			s.waitSettled(o)
			x, err := s.inode(o)
			if err != nil {
				return nil, nil, err
			}
			if len(x.Links) == 0 {
				return nil, nil, ErrNotExist
			}
			if x.Dirty() || s.streams[o] != nil || x.Object.IsZero() {
				return nil, nil, errAgain
			}
			for _, l := range x.Links {
				events = append(events, Event{Parent: s.ino(l.Parent), Name: l.Name, Inode: s.ino(o), Renewed: true})
			}
			rec := &placeRecord{Ino: n, Over: o, Time: r.h.now()}
			w := s.record(recPlace)
			rec.encode(w)
			return w, func(m *mutation) error {
				if err := s.applyPlace(m.seq, rec); err != nil {
					return err
				}
				s.reclaim(o)
				return nil
			}, nil
		})
		if !errors.Is(err, errAgain) {
			return events, err
		}
		st := step{live: true, ino: o}
		if err := s.published(r.ctx, &st); err != nil {
			return nil, err
		}
	}
	return nil, errBusy
}

// reviveOne brings a deleted object back under a name, a directory without what was in it, and returns its inode.
func (r *restorer) reviveOne(src *source, at place) (ino uint64, err error) {
	for range 16 {
		if ino, err = r.tryRevive(src, at); !errors.Is(err, errAgain) {
			return ino, err
		}
		// Someone else was at it meanwhile. What he did is published before it is looked at again, and what others did is taken in.
		if err := src.s.publishAll(r.ctx); err != nil {
			return 0, err
		}
		if err := src.s.arrive(r.ctx); err != nil {
			return 0, err
		}
	}
	return 0, errBusy
}

func (r *restorer) tryRevive(src *source, at place) (uint64, error) {
	s := src.s
	heads, err := s.graph.HeadsOf(src.object)
	if err != nil {
		return 0, s.damaged(err)
	}
	now, err := s.fold(src.object, nil)
	if err != nil {
		return 0, err
	}
	if now == nil {
		return 0, ErrNotExist
	}
	rec := &placeRecord{Parent: at.dir, Name: at.name, Object: src.object}
	s.mu.Lock()
	owner, err := s.ix.Object(src.object)
	var n *index.Inode
	if err == nil && owner != 0 {
		if n, err = s.ix.Inode(owner); n != nil {
			n = n.Clone()
		}
	}
	s.mu.Unlock()
	if err != nil {
		return 0, s.damaged(err)
	}
	alive := n != nil && len(n.Links) > 0
	if alive && (src.typ == typeDir || n.Dirty()) {
		if src.typ == typeDir {
			return 0, ErrExist
		}
		return 0, errAgain
	}
	l := linkAt(now, src.link)
	if l == nil || !l.Removed {
		l = removedLink(now, src.from, src.gone.name)
		if l != nil && alive && (l.Shown().Parent != src.from || l.Shown().Name != src.gone.name) {
			l = nil // that is another name, which can come back on its own
		}
	}
	gone := src.gone
	switch {
	case l != nil:
		rec.Link, rec.Val = l.ID, l.Shown().Ref
		if gone.kind != trashRemoved {
			if gone, _, err = s.graveOf(src.object, l); err != nil {
				return 0, err
			}
		}
	case !alive && len(now.Links) > 0:
		return 0, errAgain // it is back, or its removal is not published
	} // else the name that went is another by now: this is a new one
	if gone.kind == trashRemoved {
		rec.TrashDir, rec.TrashAt = gone.dir, gone.at
		if src.typ == typeDir {
			rec.TrashBefore = gone.ino
		}
	}
	if alive {
		// It has another name: this is one more for the same inode.
		rec.Ino = owner
		first := false
		if src.then {
			if first, err = r.first(src.object, src, at.path); err != nil {
				return 0, err
			}
		}
		if err := r.put(s, rec, heads, owner); err != nil {
			return 0, err
		}
		r.appeared(at)
		r.changed(Event{Inode: s.ino(owner)})
		if first && !r.sameState(s, src.st, now) {
			return owner, r.renew(src, owner)
		}
		return owner, nil
	}
	if n != nil {
		rec.Over = owner // someone holds it open without a name, and keeps what he has
	}
	if now.Owned && !src.st.Owned {
		// Who owns a file can't be given back to nobody: it stays.
		st := src.st.Clone()
		st.Owned, st.UID, st.GID = true, now.UID, now.GID
		src.st = st
	}
	same := rec.Over == 0 && r.shows(s, now, src.st)
	from := *src
	if same {
		from.st = now // what it was published as last says the same
	}
	made, size, err := r.make(&from, s)
	if err != nil {
		return 0, err
	}
	defer s.unref(made)
	rec.Ino = made
	if rec.Over == 0 {
		rec.Same = same && shared(s, made)
		rec.Contents = now.View().Behind
		for name := range now.Xattrs {
			if _, ok := src.st.Xattrs[name]; !ok {
				rec.Xattrs = append(rec.Xattrs, name)
			}
		}
		slices.Sort(rec.Xattrs)
	}
	if err := r.put(s, rec, heads, owner); err != nil {
		return 0, err
	}
	r.appeared(at)
	r.res.Bytes += size
	return made, nil
}

// shows reports whether an object was published as what it was once, so that its place alone is to be published.
func (r *restorer) shows(s *space, now, old *tree.State) bool {
	v := now.View()
	return (now.Top == old.Top || r.sameState(s, now, old)) && !v.Merged && len(v.Losers) == 0
}

// shared reports whether an inode refers to all that it shows: patches can be too long for that.
func shared(s *space, ino uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.inode(ino)
	if err != nil {
		return false
	}
	written, _ := n.Written()
	return written == 0
}

// removedLink chooses the link of a removed object by which it comes back: of those with the name in the directory that it was
// removed from, else of those with the name, else of all, the one removed last. One change can remove several, those that were
// removed before content was written among them: then it is the one that came to its place last.
func removedLink(st *tree.State, dir dag.ID, name string) (best *tree.Link) {
	rank := func(l *tree.Link) int {
		switch p := l.Shown(); {
		case p.Name != name:
			return 0
		case p.Parent != dir:
			return 1
		}
		return 2
	}
	for i := range st.Links {
		l := &st.Links[i]
		if !l.Removed {
			continue
		}
		if best == nil || cmp.Or(rank(l)-rank(best), l.Mark.Pos.Compare(best.Mark.Pos), l.Shown().Pos.Compare(best.Shown().Pos)) > 0 {
			best = l
		}
	}
	return best
}
