package fs

import (
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// children calls fn for what was in a directory, with the path that it gets.
func (r *restorer) children(src *source, path string, fn func(child *source, path string) error) error {
	var nodes []pastNode
	if err := src.dir.each(r.ctx, func(n *pastNode) bool {
		x := *n
		x.st = nil // many would be held otherwise
		nodes = append(nodes, x)
		return true
	}); err != nil {
		return err
	}
	for i := range nodes {
		n := &nodes[i]
		at := path + "/" + n.name
		st, err := src.dir.state(n)
		if err == nil {
			c := &source{
				s: src.s, name: n.name, object: n.object, typ: n.typ, from: src.dir.object, link: n.link, st: st, then: src.dir.m != nil,
			}
			if !c.then {
				c.gone = n.gone
			}
			if n.typ == typeDir {
				c.dir = src.dir.dir(n)
			}
			n.st = nil
			err = fn(c, at)
		}
		if err != nil {
			if err := r.skip(at, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// revive brings a deleted object back at a place, with what is below.
func (r *restorer) revive(src *source, at place) error {
	ino, err := r.reviveOne(src, at)
	if err != nil {
		return fmt.Errorf("%s: %w", at.path, err)
	}
	if src.dir == nil {
		r.res.Files++
		return nil
	}
	r.res.Dirs++
	return r.children(src, at.path, func(c *source, path string) error {
		return r.back(c, place{s: at.s, dir: ino, name: c.name, path: path})
	})
}

// back brings an entry of a restored directory to a free name: the object itself where it is deleted, or this name of it is,
// a copy where it is elsewhere now.
func (r *restorer) back(src *source, at place) error {
	src.s.mu.Lock()
	ino, err := src.s.ix.Object(src.object)
	alive := false
	if err == nil && ino != 0 {
		n, e := src.s.ix.Inode(ino)
		alive, err = n != nil && len(n.Links) > 0, e
	}
	src.s.mu.Unlock()
	if err != nil {
		return src.s.damaged(err)
	}
	if !alive {
		return r.revive(src, at)
	}
	if src.typ == typeDir {
		return r.copy(src, at)
	}
	if src.then {
		now, err := src.s.fold(src.object, nil)
		if err != nil {
			return err
		}
		if l := linkAt(now, src.link); l == nil || !l.Removed {
			return r.copy(src, at)
		}
	}
	if _, err := r.reviveOne(src, at); err != nil { // one of several names
		return err
	}
	r.res.Files++
	return nil
}

// linkAt gives a link of an object, or nil.
func linkAt(st *tree.State, id tree.Ref) *tree.Link {
	if st == nil || id.Change.IsZero() {
		return nil
	}
	for i := range st.Links {
		if st.Links[i].ID == id {
			return &st.Links[i]
		}
	}
	return nil
}

// into makes what is below a directory that is there as it was.
func (r *restorer) into(src *source, at place) error {
	return r.children(src, at.path, func(c *source, path string) error {
		st, ok, err := at.s.liveStep(at.dir, c.name)
		if err != nil {
			return err
		}
		switch {
		case !ok:
			return r.back(c, place{s: at.s, dir: at.dir, name: c.name, path: path})
		case c.dir != nil && st.typ == typeDir:
			return r.into(c, place{s: at.s, dir: st.ino, path: path})
		case c.typ == st.typ:
			if same, err := r.same(c, st, path); same || err != nil {
				return err
			}
			return r.over(c, st.ino, path)
		}
		return fmt.Errorf("%w: it is a %s now", ErrExist, kindName(tree.KindOf(st.typ)))
	})
}

// first notes that a file which may have several names is to show a source. It is false where another of its names was met that
// is to show the same; where that is to show something else, it fails: one file can't be both.
func (r *restorer) first(live dag.ID, src *source, path string) (bool, error) {
	if old, ok := r.overs[live]; ok {
		if old.object != src.object {
			return false, fmt.Errorf("%w: it is another name of %s now", ErrExist, old.path)
		}
		return old.path == path, nil // that is another attempt
	}
	if r.overs == nil {
		r.overs = map[dag.ID]restored{}
	}
	r.overs[live] = restored{src.object, path}
	return true, nil
}

// same reports whether an inode shows what a source would make it show.
func (r *restorer) same(src *source, st step, path string) (bool, error) {
	s := src.s
	s.mu.Lock()
	n, err := s.inode(st.ino)
	several := err == nil && (len(n.Links) > 1 || n.NextKey > 2) // it has, or may have had, other names
	s.mu.Unlock()
	if err != nil {
		return false, err
	}
	if several && !st.object.IsZero() {
		if first, err := r.first(st.object, src, path); !first {
			return true, err
		}
	}
	if st.object != src.object {
		return false, nil
	}
	if err := s.published(r.ctx, &st); err != nil { // it may have got another of its names back just now, and this content with it
		return false, err
	}
	now, err := s.fold(src.object, nil)
	return err == nil && now != nil && r.sameState(s, src.st, now), err
}

// copy makes a new object of what a source was: one for all names of a file that are copied.
func (r *restorer) copy(src *source, at place) error {
	if src.dir == nil {
		several := len(src.st.Links) > 1 // now or before: of what was deleted none is left
		if ino, ok := r.copies[src.object]; ok && several {
			if _, err := r.h.Link(at.s.ino(ino), at.s.ino(at.dir), at.name); err == nil {
				r.appeared(at)
				r.changed(Event{Inode: at.s.ino(ino)})
				r.res.Files++
				return nil
			} // it went meanwhile, or has all the names that it may have
		}
		n, size, err := r.make(src, at.s)
		if err != nil {
			return fmt.Errorf("%s: %w", at.path, err)
		}
		defer at.s.unref(n)
		if err := r.put(at.s, &placeRecord{Ino: n, Parent: at.dir, Name: at.name}, nil, 0); err != nil {
			return fmt.Errorf("%s: %w", at.path, err)
		}
		if several {
			if r.copies == nil {
				r.copies = map[dag.ID]uint64{}
			}
			r.copies[src.object] = n
		}
		r.appeared(at)
		r.res.Files++
		r.res.Bytes += size
		return nil
	}
	a, err := r.h.Mkdir(at.s.ino(at.dir), at.name, stateMode(src.st)|0700, r.cred(src.st))
	if err != nil {
		return fmt.Errorf("%s: %w", at.path, err)
	}
	r.appeared(at)
	r.res.Dirs++
	_, dir, err := r.h.space(a.Ino)
	if err != nil {
		return err
	}
	if err := r.children(src, at.path, func(c *source, path string) error {
		return r.copy(c, place{s: at.s, dir: dir, name: c.name, path: path})
	}); err != nil {
		return err
	}
	for name, value := range src.st.Xattrs {
		if err := r.h.Setxattr(a.Ino, name, value, 0); err != nil && !errors.Is(err, ErrNotSup) {
			return err
		}
	}
	mode, mtime := stateMode(src.st), stateMtime(src.st)
	_, err = r.h.Setattr(r.ctx, a.Ino, SetAttr{Mode: &mode, Mtime: &mtime})
	return err
}
