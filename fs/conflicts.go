package fs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// A conflict copy that became a file of its own carries a mark (tree.ConflictXattr), which says what it is a copy of. It is one as long
// as it has the name that it got then. The inodes with a mark are listed, so that nobody has to look for them: a list of conflicts
// costs what the conflicts cost.

// Conflict is a conflict copy.
type Conflict struct {
	Path     string `json:"path"`     // of the copy, from the root of the home
	Original string `json:"original"` // of the file it is in conflict with
	Gone     bool   `json:"gone,omitempty"`
	Device   string `json:"device"` // that made what is in the copy
	Date     string `json:"date"`   // when, in UTC
	Object   string `json:"object"`

	in   *space
	copy named
	over named // zero: nothing has the original's name
}

// named is an inode, and one of its names.
type named struct {
	ino, dir uint64
	name     string
}

// copies is the directory that lists the inodes with the mark of a conflict copy: no inode has its number.
const copies = 2

// noteCopy lists an inode that has the mark. Under mu, as all that follows.
func (s *space) noteCopy(n *index.Inode) {
	if _, ok := n.Xattr(tree.ConflictXattr); ok {
		s.ix.SetEntry(copies, n.Ino, index.Entry{Name: "-", Ino: n.Ino, Type: n.Type()})
	}
}

// forgetCopy takes an inode from the list that had the mark, by what it was.
func (s *space) forgetCopy(was *index.Inode) {
	if _, ok := was.Xattr(tree.ConflictXattr); ok {
		s.ix.RemoveEntry(copies, was.Ino, &index.Entry{})
	}
}

// copyOf gives the name by which an inode is a conflict copy, and what its mark says.
func (s *space) copyOf(ino uint64) (n *index.Inode, at named, c tree.Conflict, ok bool) {
	n, err := s.ix.Inode(ino)
	if err != nil || n == nil {
		return nil, named{}, c, false
	}
	v, _ := n.Xattr(tree.ConflictXattr)
	if c, ok = tree.ParseConflict(v); !ok {
		return nil, named{}, c, false
	}
	for i := range n.Links {
		if l := &n.Links[i]; l.Name == c.Name {
			return n, named{ino, l.Parent, l.Name}, c, true
		}
	}
	return nil, named{}, c, false
}

// original finds what a copy is in conflict with: the object that kept the name, wherever it is now, or what has the name beside the
// copy.
func (s *space) original(at named, c *tree.Conflict) (named, error) {
	ino, err := s.ix.Object(c.Of)
	if err != nil {
		return named{}, s.damaged(err)
	}
	if ino != 0 && ino != at.ino {
		n, err := s.ix.Inode(ino)
		if err != nil {
			return named{}, s.damaged(err)
		}
		if n != nil && len(n.Links) > 0 {
			l := &n.Links[0]
			if i := slices.IndexFunc(n.Links, func(l index.Link) bool { return l.Name == c.Lost }); i > 0 {
				l = &n.Links[i]
			}
			return named{ino, l.Parent, l.Name}, nil
		}
	}
	e, _, err := s.lookup(at.dir, c.Lost)
	if err != nil || e == nil {
		return named{}, err
	}
	return named{e.Ino, at.dir, c.Lost}, nil
}

// maxPath bounds the directories of a path that are looked at.
const maxPath = 4096

// above calls fn for a directory and those above it, with the names by which they are in one another, until fn returns false.
func (s *space) above(dir uint64, fn func(dir uint64, name string) bool) error {
	for range maxPath {
		if dir == rootDir {
			fn(dir, "")
			return nil
		}
		n, err := s.inode(dir)
		if err != nil {
			return err
		}
		if len(n.Links) == 0 {
			return ErrNotExist
		}
		if !fn(dir, n.Links[0].Name) {
			return nil
		}
		dir = n.Links[0].Parent
	}
	return ErrNotExist
}

// pathOf gives the path of a name from the root of the space.
func (s *space) pathOf(at named) (string, error) {
	parts := []string{at.name}
	err := s.above(at.dir, func(_ uint64, name string) bool {
		if name != "" {
			parts = append(parts, name)
		}
		return true
	})
	slices.Reverse(parts)
	return strings.Join(parts, "/"), err
}

// copiesStep is how many inodes are looked at under the lock.
const copiesStep = 256

// eachCopy calls fn, under mu, for the conflict copies of the space, until it returns an error.
func (s *space) eachCopy(fn func(n *index.Inode, at named, mark *tree.Conflict) error) error {
	for after, more := uint64(0), true; more; {
		var inos []uint64
		s.mu.Lock()
		more = false
		err := s.ix.Scan(copies, after, func(at uint64, e *index.Entry) bool {
			if more = len(inos) == copiesStep; !more {
				inos, after = append(inos, e.Ino), at
			}
			return !more
		})
		if err != nil {
			err = s.damaged(err)
		}
		s.ix.Prefetch(inos)
		for _, ino := range inos {
			if n, at, mark, ok := s.copyOf(ino); ok && err == nil {
				err = fn(n, at, &mark)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// copyCount is how many conflict copies there are.
func (s *space) copyCount() (count int) {
	_ = s.eachCopy(func(*index.Inode, named, *tree.Conflict) error { count++; return nil })
	return count
}

// conflicts lists the conflict copies of a space, with paths from its root.
func (s *space) conflicts() ([]Conflict, error) {
	var out []Conflict
	err := s.eachCopy(func(n *index.Inode, at named, mark *tree.Conflict) error {
		c := Conflict{in: s, copy: at, Object: objectText(n.Object)}
		c.Device, c.Date = mark.Made()
		var err error
		if c.Path, err = s.pathOf(at); err != nil {
			return nil // it is in what is being removed
		}
		if c.over, err = s.original(at, mark); err != nil {
			return err
		}
		shown := c.over
		if c.Gone = shown.ino == 0; c.Gone {
			shown = named{dir: at.dir, name: mark.Lost}
		}
		if c.Original, err = s.pathOf(shown); err == nil {
			out = append(out, c)
		}
		return err
	})
	slices.SortFunc(out, func(a, b Conflict) int {
		return cmp.Or(strings.Compare(a.Original, b.Original), strings.Compare(a.Path, b.Path))
	})
	return out, err
}

func objectText(id dag.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

// Conflicts lists the conflict copies at a path and below it, and for a file also the copies of it; of all spaces for the empty path.
// It costs what there is of conflicts in the space, not what there is of files.
func (h *Home) Conflicts(path string) ([]Conflict, error) {
	if path = cleanPath(path); path == "" {
		infos, err := h.Spaces()
		if err != nil {
			return nil, err
		}
		out := []Conflict{}
		for _, i := range infos {
			s, err := h.namedSpace(i.Name)
			if err != nil {
				continue // damaged, which status tells
			}
			list, err := s.namedConflicts(i.Name)
			if err != nil {
				return nil, err
			}
			out = append(out, list...)
		}
		return out, nil
	}
	ino, err := h.PathIno(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if isView(ino) {
		return []Conflict{}, nil
	}
	s, local, err := h.space(ino)
	if err != nil {
		return nil, err
	}
	name, _, _ := strings.Cut(path, "/")
	list, err := s.namedConflicts(name)
	if err != nil {
		return nil, err
	}
	return s.conflictsAt(local, list)
}

func (s *space) namedConflicts(name string) ([]Conflict, error) {
	list, err := s.conflicts()
	for i := range list {
		list[i].Path = name + "/" + list[i].Path
		list[i].Original = name + "/" + list[i].Original
	}
	return list, err
}

// conflictsAt keeps of a list what an inode is part of: as a copy, as the original, or as a directory above the copy.
func (s *space) conflictsAt(ino uint64, list []Conflict) ([]Conflict, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Conflict{}
	for _, c := range list {
		in := c.copy.ino == ino || c.over.ino == ino
		if !in {
			if err := s.above(c.copy.dir, func(dir uint64, _ string) bool { in = in || dir == ino; return !in }); err != nil {
				continue // it is going
			}
		}
		if in {
			out = append(out, c)
		}
	}
	return out, nil
}

// conflictCount is the virtual attribute: how many conflict copies there are of a file, at or below a path. A copy counts itself.
func (s *space) conflictCount(local uint64) (int, error) {
	list, err := s.conflicts()
	if err == nil && len(list) > 0 {
		list, err = s.conflictsAt(local, list)
	}
	return len(list), err
}
