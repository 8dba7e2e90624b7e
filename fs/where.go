package fs

import (
	"context"
	"fmt"
	"strings"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// where is what a path leads to, be it deleted.
type where struct {
	s     *space
	path  string
	steps []step // from the space's root down to the object; the root itself is not among them
	step         // the last of them, or the root
}

// step is one name on a path: of an inode that is there, or of one that was deleted.
type step struct {
	name   string
	live   bool
	ino    uint64
	typ    uint32
	object dag.ID  // zero: not published yet
	gone   trashed // of a deleted one: its entry in the trash of the directory above
}

// maxTries bounds how many deleted directories of the same names a path is looked for in.
const maxTries = 4096

// where resolves a path. At each name what is there comes first, and then what was removed, the newest first; the last part
// may so be found in the trash of a directory that is there, or in one that was deleted. Symbolic links are not followed.
func (h *Home) where(path string) (*where, error) {
	path = cleanPath(path)
	if path == "" {
		return nil, fmt.Errorf("%w: the root holds spaces, and has no history", ErrInvalid)
	}
	parts := strings.Split(path, "/")
	s, err := h.namedSpace(parts[0])
	if err != nil {
		return nil, err
	}
	w := &where{s: s, path: path}
	root := step{live: true, ino: rootDir, typ: typeDir, object: tree.RootObject(s.id)}
	f := finder{s: s, tries: maxTries}
	found, err := f.find(root, parts[1:])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !found {
		return nil, fmt.Errorf("%s: %w: neither there nor among what was deleted", path, ErrNotExist)
	}
	w.steps = f.steps
	w.step = root
	if n := len(f.steps); n > 0 {
		w.step = f.steps[n-1]
	}
	return w, nil
}

// Known reports whether a path leads to something that is there, or was deleted.
func (h *Home) Known(path string) bool {
	if cleanPath(path) == "" {
		return true
	}
	_, err := h.where(path)
	return err == nil
}

// parent is the directory above the object; of the space's root it is the root.
func (w *where) parent() step {
	if n := len(w.steps); n > 1 {
		return w.steps[n-2]
	}
	return step{live: true, ino: rootDir, typ: typeDir, object: tree.RootObject(w.s.id)}
}

type finder struct {
	s     *space
	tries int
	steps []step
}

// find extends steps by a way from a directory along the names.
func (f *finder) find(dir step, names []string) (bool, error) {
	if len(names) == 0 {
		return true, nil
	}
	if dir.typ != typeDir {
		return false, nil
	}
	if f.tries--; f.tries < 0 {
		return false, nil
	}
	name := names[0]
	if dir.live {
		st, ok, err := f.s.liveStep(dir.ino, name)
		if err != nil {
			return false, err
		}
		if ok {
			if found, err := f.try(st, names[1:]); found || err != nil {
				return found, err
			}
		}
	}
	var found bool
	var failed error
	err := f.s.scanTrash(dir.ino, func(t trashed) bool {
		if t.kind != trashRemoved || t.name != name || len(names) > 1 && t.typ != typeDir {
			return true
		}
		back, err := f.s.cameBack(dir.ino, &t)
		if failed = err; back || err != nil {
			return err == nil // it is found where it is now
		}
		found, failed = f.try(step{name: name, ino: t.ino, typ: t.typ, object: t.object, gone: t}, names[1:])
		return !found && failed == nil && f.tries > 0
	})
	if failed != nil {
		err = failed
	}
	return found, err
}

func (f *finder) try(st step, rest []string) (bool, error) {
	f.steps = append(f.steps, st)
	found, err := f.find(st, rest)
	if !found {
		f.steps = f.steps[:len(f.steps)-1]
	}
	return found, err
}

// liveStep finds a name that is there.
func (s *space) liveStep(dir uint64, name string) (step, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, _, err := s.lookup(dir, name)
	if err != nil || e == nil {
		return step{}, false, err
	}
	n, err := s.inode(e.Ino)
	if err != nil {
		return step{}, false, err
	}
	return step{name: name, live: true, ino: n.Ino, typ: n.Type(), object: n.Object}, true, nil
}

// published publishes what is pending of an object that a path leads to, and completes its step.
func (s *space) published(ctx context.Context, st *step) error {
	ino := st.ino
	if !st.live {
		s.mu.Lock()
		other, err := s.ix.Object(st.object)
		s.mu.Unlock()
		if err != nil {
			return s.damaged(err)
		}
		if other == 0 {
			return nil // nothing of it is here: its removal is published
		}
		ino = other
	}
	for range 4 {
		if err := s.settleStream(ino); err != nil {
			return err
		}
		s.mu.Lock()
		n, err := s.ix.Inode(ino)
		dirty := n != nil && n.Dirty()
		if n != nil && st.live {
			st.object = n.Object
		}
		s.mu.Unlock()
		if err != nil {
			return s.damaged(err)
		}
		if !dirty {
			return nil
		}
		if _, _, err := s.publish(ctx, func(i uint64, _ dirtyState, _ *index.Inode) bool { return i == ino }); err != nil {
			return err
		}
	}
	return nil // it is being written all the time: what was there when we came is published
}

// objectPath gives the path of a directory as it is now, or as it last was.
func (s *space) objectPath(name string, object dag.ID) string {
	var parts []string
	for range 256 {
		if object == tree.RootObject(s.id) {
			break
		}
		at, up, ok := s.nowAt(object)
		if !ok {
			parts = append(parts, "…")
			break
		}
		parts, object = append(parts, at), up
	}
	out := name
	for i := len(parts) - 1; i >= 0; i-- {
		out += "/" + parts[i]
	}
	return out
}

// nowAt gives the name and the directory of a directory: those that it has, or the last it had.
func (s *space) nowAt(object dag.ID) (name string, parent dag.ID, ok bool) {
	s.mu.Lock()
	ino, err := s.ix.Object(object)
	var n, up *index.Inode
	if err == nil && ino != 0 {
		n, err = s.ix.Inode(ino)
	}
	if err == nil && n != nil && len(n.Links) > 0 {
		name = n.Links[0].Name
		if up, err = s.ix.Inode(n.Links[0].Parent); err == nil && up != nil && !up.Object.IsZero() {
			s.mu.Unlock()
			return name, up.Object, true
		}
	}
	s.mu.Unlock()
	st, err := s.fold(object, nil)
	if err != nil || st == nil || len(st.Links) == 0 {
		return "", dag.ID{}, false
	}
	p := st.Links[len(st.Links)-1].Shown()
	return p.Name, p.Parent, true
}

// spaceName gives the name under which a space stands in the root of the home.
func (h *Home) spaceName(s *space) string {
	name := s.id.String()
	_ = h.ReadDir(RootIno, 0, func(e Dirent) bool {
		if e.Ino == s.ino(rootDir) {
			name = e.Name
			return false
		}
		return true
	})
	return name
}
