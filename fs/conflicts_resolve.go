package fs

import (
	"errors"
	"strings"

	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// Keep says which of two that are in conflict stays.
type Keep int

// What of the file at a path, and what is in conflict with it, is kept.
const (
	KeepThis Keep = iota // what is at the path, under the name that both want; the other goes
	KeepThat             // the other
	KeepBoth             // both: the copy gets an ordinary name
)

// Resolved is what a conflict has become.
type Resolved struct {
	Path    string   `json:"path"` // of what keeps the name
	Renamed []string `json:"renamed,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

// Errors of ResolveConflict that callers tell apart.
var (
	// ErrNoConflict: the path is no conflict copy, and has none.
	ErrNoConflict = errors.New("fs: there is no conflict")
	// ErrSeveral: a file has several copies, of which one has to be chosen.
	ErrSeveral = errors.New("fs: there are several conflict copies")
	// ErrFolder: a copy can't take the place of a folder.
	ErrFolder = errors.New("fs: the name is a folder's")
)

// ResolveConflict ends the conflict of the file at a path, which is a conflict copy or the file that has copies. What goes stays in the
// history. A copy that is kept under the name of the file becomes the next version of that file, where both are regular files of one name.
//
// It is ErrNoConflict where there is none; ErrSeveral where KeepThat is asked of a file with several copies.
func (h *Home) ResolveConflict(path string, keep Keep) (Resolved, error) {
	path = cleanPath(path)
	all, err := h.Conflicts(path)
	if err != nil {
		return Resolved{}, err
	}
	ino, err := h.PathIno(path)
	if err != nil {
		return Resolved{}, err
	}
	_, local, err := h.change(ino)
	if err != nil {
		return Resolved{}, err
	}
	var mine *Conflict // the conflict that the path is the copy of
	var copies []Conflict
	for i := range all {
		switch c := &all[i]; {
		case c.copy.ino == local && mine == nil:
			mine = c
		case c.over.ino == local:
			copies = append(copies, *c)
		}
	}
	r := resolver{h: h}
	defer r.announce()
	switch {
	case mine != nil && keep == KeepBoth:
		r.res.Path = mine.Original
		err = r.rename(mine)
	case mine != nil && keep == KeepThat:
		r.res.Path = mine.Original
		err = r.remove(mine)
	case mine != nil:
		err = r.take(mine)
	case len(copies) == 0:
		err = ErrNoConflict
	case keep == KeepThat && len(copies) > 1:
		err = ErrSeveral
	case keep == KeepThat:
		err = r.take(&copies[0])
	default:
		r.res.Path = path
		for i := range copies {
			if keep == KeepBoth {
				err = r.rename(&copies[i])
			} else {
				err = r.remove(&copies[i])
			}
			if err != nil {
				break
			}
		}
	}
	return r.res, err
}

// resolver ends one conflict.
type resolver struct {
	h      *Home
	res    Resolved
	events []Event
}

func (r *resolver) announce() {
	if len(r.events) > 0 {
		r.h.emit(r.events...)
	}
}

// changed notes what the kernel is to be told of a name.
func (r *resolver) changed(s *space, at named, kind EventKind) {
	r.events = append(r.events, Event{Parent: s.ino(at.dir), Name: at.name, Inode: s.ino(at.ino), Kind: kind})
}

func (r *resolver) remove(c *Conflict) error {
	err := r.h.Unlink(c.in.ino(c.copy.dir), c.copy.name)
	if err == nil {
		r.changed(c.in, c.copy, EventGone)
		r.res.Removed = append(r.res.Removed, c.Path)
	}
	return err
}

// maxNames is how many ordinary names are tried.
const maxNames = 10000

// rename gives a copy a name that is no copy's.
func (r *resolver) rename(c *Conflict) error {
	dir := c.in.ino(c.copy.dir)
	_, lost, _ := cutLast(c.Original)
	for n := 2; n < maxNames; n++ {
		name := tree.OrdinaryName(lost, n)
		err := r.h.Rename(dir, c.copy.name, dir, name, RenameNoReplace)
		if errors.Is(err, ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		to := c.copy
		to.name = name
		r.changed(c.in, c.copy, EventGone)
		r.changed(c.in, to, EventMade)
		up, _, _ := cutLast(c.Path)
		r.res.Renamed = append(r.res.Renamed, up+"/"+name)
		return r.unmark(c)
	}
	return ErrExist
}

// take puts a copy in the place of the original, and takes the other copies of that away.
func (r *resolver) take(c *Conflict) error {
	s := c.in
	all, err := s.namedConflicts(spaceOfPath(c.Path))
	if err != nil {
		return err
	}
	to := c.over
	if to.ino == 0 {
		_, lost, _ := cutLast(c.Original)
		to = named{dir: c.copy.dir, name: lost}
	}
	err = r.h.rename(s.ino(c.copy.dir), c.copy.name, s.ino(to.dir), to.name, 0, true)
	if errors.Is(err, ErrIsDir) || errors.Is(err, ErrNotDir) || errors.Is(err, ErrNotEmpty) {
		return ErrFolder
	}
	if err != nil {
		return err
	}
	r.changed(s, c.copy, EventGone)
	r.changed(s, to, EventWritten)
	r.res.Path = c.Original
	r.res.Renamed = append(r.res.Renamed, c.Path)
	if err := r.unmark(c); err != nil || c.over.ino == 0 {
		return err
	}
	for i := range all {
		if o := &all[i]; o.over.ino == c.over.ino && o.copy != c.copy {
			if err := r.remove(o); err != nil && !errors.Is(err, ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// unmark takes the mark from what is no copy any more.
func (r *resolver) unmark(c *Conflict) error {
	err := r.h.xattr(c.in.ino(c.copy.ino), tree.ConflictXattr, func(n *index.Inode) (*xattrRecord, error) {
		if _, has := n.Xattr(tree.ConflictXattr); !has {
			return nil, nil
		}
		return &xattrRecord{Name: tree.ConflictXattr, Remove: true}, nil
	})
	if errors.Is(err, ErrNotExist) || errors.Is(err, ErrStale) {
		return nil // it is gone already
	}
	return err
}

func spaceOfPath(path string) string {
	first, _, _ := strings.Cut(path, "/")
	return first
}

func cutLast(path string) (dir, name string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}
