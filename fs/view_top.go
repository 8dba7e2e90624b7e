package fs

import (
	"context"
	"syscall"

	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// The names in .anyfs.
const (
	viewVersions = "versions"
	viewAt       = "at"
	viewTrash    = "trash"
)

// The first bytes of the keys of virtual inodes.
const (
	keyTop      = 'v'
	keyVersions = 'V'
	keyNames    = 'N'
	keyVersion  = 'f'
	keyAt       = 'a'
	keyHomeAt   = 'h'
	keyPast     = 'p'
	keyState    = 's'
	keyTrash    = 't'
	keyDead     = 'x'
)

// topView is .anyfs of one directory.
type topView struct {
	v   *views
	s   *space
	ino uint64
	at  int64 // its mtime
}

// top gives .anyfs of a directory that is there.
func (v *views) top(parent Ino) (*viewNode, error) {
	s, local, err := v.h.space(parent)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	n, err := s.inode(local)
	var mtime int64
	if err == nil {
		if mtime = n.Mtime; !n.IsDir() {
			err = ErrNotDir
		}
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	t := &topView{v, s, local, mtime}
	return t.node(&viewKey{what: keyTop}, t, parent), nil
}

// node makes a virtual directory.
func (t *topView) node(k *viewKey, dir viewDir, up Ino) *viewNode {
	k.slot, k.ino = t.s.slot, t.ino
	return &viewNode{ino: t.v.number(k), up: up, s: t.s, dir: dir, attr: t.v.h.dirAttr(t.at)}
}

func (t *topView) find(_ context.Context, name string) (*viewNode, error) {
	switch name {
	case viewVersions:
		d := &versionsView{t: t}
		return t.node(t.key(name), d, 0), nil
	case viewAt:
		if t.s.slot == 0 {
			return t.node(t.key(name), &homeAtView{t: t}, 0), nil
		}
		d := &atView{t: t}
		return t.node(t.key(name), d, 0), nil
	case viewTrash:
		d := &trashView{t: t}
		n := t.node(t.key(name), d, 0)
		d.n = n
		return n, nil
	}
	return nil, nil
}

func (t *topView) key(name string) *viewKey {
	what := map[string]byte{viewVersions: keyVersions, viewAt: keyAt, viewTrash: keyTrash}[name]
	return &viewKey{what: what, slot: t.s.slot, ino: t.ino}
}

func (t *topView) list(context.Context) ([]viewEntry, error) {
	var out []viewEntry
	for _, name := range []string{viewVersions, viewAt, viewTrash} {
		out = append(out, viewEntry{name: name, typ: syscall.S_IFDIR, ino: t.v.number(t.key(name))})
	}
	return out, nil
}

func (t *topView) stamp() uint64 { return 0 }

// scanLive calls fn for the entries of a directory that is there, with their inodes, until fn returns false. fn runs under mu.
func (s *space) scanLive(dir uint64, fn func(e *index.Entry, n *index.Inode) bool) error {
	for after, full := uint64(0), true; full; {
		full = false
		count := 0
		stop := false
		s.mu.Lock()
		err := s.ix.Scan(dir, after, func(at uint64, e *index.Entry) bool {
			after = at
			if n, err := s.ix.Inode(e.Ino); err == nil && n != nil && !fn(e, n) {
				stop = true
				return false
			}
			count++
			full = count == trashStep
			return !full
		})
		s.mu.Unlock()
		if err != nil {
			return s.damaged(err)
		}
		if stop {
			return nil
		}
	}
	return nil
}

// stateNode makes the virtual inode of an object that is no directory, as it was.
func (v *views) stateNode(s *space, k *viewKey, st *tree.State) *viewNode {
	n := &viewNode{
		ino: v.number(k), s: s, attr: s.stateAttr(st), target: st.Target, xattrs: shownXattrs(st), object: st.Object,
	}
	if st.Kind == tree.KindFile {
		if view := st.View(); view.Merged {
			n.file = s.inlineFile(view.Text)
		} else {
			n.at, n.version = view.Main.Ref, view.Main.Ref.Change
		}
	}
	return n
}

func shownXattrs(st *tree.State) map[string][]byte {
	for name := range st.Xattrs {
		if name[0] == internalPrefix[0] {
			return nil
		}
	}
	return st.Xattrs
}
