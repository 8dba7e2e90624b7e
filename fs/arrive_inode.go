package fs

import (
	"bytes"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// The inodes of a round of arrival, as they are to be.

// root brings the attributes of the root up to date, where they are due. It returns whether they are still.
func (a *arrival) root(due bool) (bool, error) {
	if !due {
		return false, nil
	}
	st, err := a.t.State(a.t.Root())
	if err != nil || st == nil {
		return false, err
	}
	n, err := a.inode(rootDir)
	if err != nil || n.Dirty() {
		return true, err
	}
	return false, a.attributes(n, &tree.Node{Kind: tree.KindDir, Object: n.Object}, st)
}

// inode gives the inode as it is to be, for changing.
func (a *arrival) inode(ino uint64) (*index.Inode, error) {
	if n, ok := a.inodes[ino]; ok {
		return n, nil
	}
	n, err := a.s.inode(ino)
	if err != nil {
		return nil, err
	}
	n = n.Clone()
	a.inodes[ino] = n
	return n, nil
}

// inodeFor gives the inode of a node, as it is to be.
func (a *arrival) inodeFor(want *tree.Node) (*index.Inode, error) {
	st, err := a.t.State(want.Object)
	if err != nil {
		return nil, err
	}
	if ino, ok := a.inos[want.Object]; ok {
		if a.fresh[ino] && a.inodes[ino] == nil {
			return a.make(ino, want, st)
		}
		n, err := a.inode(ino)
		if err == nil {
			err = a.attributes(n, want, st)
		}
		return n, err
	}
	if n, err := a.owner(want.Object); err != nil {
		return nil, err
	} else if n != nil && n.Object == want.Object {
		n, err := a.version(n.Ino, want, st)
		if err == nil {
			a.inos[want.Object] = n.Ino
		}
		return n, err
	}
	n, err := a.make(a.number(), want, st)
	if err == nil {
		a.inos[want.Object] = n.Ino
	}
	return n, err
}

func (a *arrival) number() uint64 {
	ino := a.next
	a.next++
	a.fresh[ino] = true
	return ino
}

// make makes the inode of a node.
func (a *arrival) make(ino uint64, want *tree.Node, st *tree.State) (*index.Inode, error) {
	n := &index.Inode{Ino: ino, Mode: st.Kind.Type(), Rdev: st.Rdev, Target: st.Target, Btime: st.Born, Object: want.Object}
	if len(st.Links) > 1 {
		n.NextKey = revivedKey // it had other links
	}
	setAttributes(n, st)
	switch n.Type() {
	case syscall.S_IFREG:
		if err := a.content(n, want, st); err != nil {
			return nil, err
		}
	case syscall.S_IFLNK:
		n.Size = int64(len(n.Target))
	case syscall.S_IFDIR:
		before, err := a.s.grave(want.Object)
		if err != nil {
			return nil, err
		}
		if before != 0 {
			a.rec.Gone = append(a.rec.Gone, goneAt{Kind: trashBefore, entryAt: entryAt{Dir: ino, Ino: before}})
		}
	}
	n.Ctime = max(n.Ctime, n.Mtime)
	a.inodes[ino], a.fresh[ino] = n, true
	return n, nil
}

// renew brings an inode that keeps its place up to date.
func (a *arrival) renew(at spot, ino uint64, want *tree.Node) error {
	st, err := a.t.State(want.Object)
	if err != nil {
		return err
	}
	old, err := a.s.inode(ino)
	if err != nil {
		return err
	}
	if a.inodes[ino] == nil && a.busy(old) {
		return errWaits
	}
	n, err := a.version(ino, want, st)
	if err != nil {
		return err
	}
	if n.Ino != ino {
		a.inos[want.Object] = n.Ino
		a.tell(at, ino, EventWritten, false)
		return nil
	}
	return a.placements(n, want)
}

// placements notes the placements of an inode's links, and of the directories behind it.
func (a *arrival) placements(n *index.Inode, want *tree.Node) error {
	st, err := a.t.State(want.Object)
	if err != nil {
		return err
	}
	n.Also = nil
	for i := range n.Links {
		l := &n.Links[i]
		k := slices.IndexFunc(st.Links, func(k tree.Link) bool { return k.ID == l.ID })
		if k < 0 {
			continue
		}
		values := st.Links[k].Values
		l.Val = values[len(values)-1].Ref
		if len(values) > 1 {
			n.Also = append(n.Also, also(n.Object, &st.Links[k], len(values)-1))
		}
	}
	for _, d := range want.Dirs {
		if d == n.Object {
			continue
		}
		st, err := a.t.State(d)
		if err != nil {
			return err
		}
		if st != nil && len(st.Links) > 0 {
			n.Also = append(n.Also, also(d, &st.Links[0], len(st.Links[0].Values)))
		}
	}
	return nil
}

// also names the first placements of a link.
func also(object dag.ID, l *tree.Link, count int) index.Also {
	out := index.Also{Object: object, Link: l.ID}
	for i := range count {
		out.Over = append(out.Over, l.Values[i].Ref)
	}
	return out
}

// version gives the inode of an object as the tree has it now: the one that there is, or where its content became another and the
// kernel knows it, one that takes its place. The content of an inode that is open never changes behind the kernel's back.
func (a *arrival) version(ino uint64, want *tree.Node, st *tree.State) (*index.Inode, error) {
	if now, ok := a.inos[want.Object]; ok && a.inodes[now] != nil {
		return a.inodes[now], nil // by another of its names
	}
	n, err := a.s.inode(ino)
	if err != nil {
		return nil, err
	}
	if a.busy(n) {
		return nil, errWaits
	}
	v := st.View()
	// One that had no name here any more may hold what was written to it then, which is nobody's.
	if !n.IsRegular() || len(n.Links) > 0 && shows(n, &v) {
		n, err = a.inode(ino)
		if err == nil {
			err = a.attributes(n, want, st)
		}
		return n, err
	}
	if a.s.refs[ino] == 0 {
		if n, err = a.inode(ino); err != nil {
			return nil, err
		}
		setAttributes(n, st)
		n.Base, n.BaseAt, n.Cuts, n.Ext, n.Patched, n.Size, n.Contents = nil, tree.Ref{}, nil, nil, index.Patched{}, 0, nil
		n.Ctime = changed(n.Ctime, a.now)
		a.written(n)
		return n, a.content(n, want, st)
	}
	old, err := a.inode(ino)
	if err != nil {
		return nil, err
	}
	m, err := a.make(a.number(), want, st)
	if err != nil {
		return nil, err
	}
	m.Links, m.NextKey, m.Btime, m.Ctime = old.Links, old.NextKey, old.Btime, a.now
	for _, l := range old.Links {
		a.rec.Drop = append(a.rec.Drop, entryAt{l.Parent, l.Name, old.Ino})
		a.rec.Add = append(a.rec.Add, entryAt{l.Parent, l.Name, m.Ino})
		a.tell(spot{l.Parent, l.Name}, old.Ino, EventWritten, false)
	}
	old.Links = nil
	a.inos[want.Object] = m.Ino
	return m, nil
}

// shows reports whether the content of an inode stands for the values that a view of its object has.
func shows(n *index.Inode, v *tree.View) bool {
	refs := slices.Clone(v.Behind)
	for _, l := range v.Losers {
		refs = append(refs, l.Ref)
		refs = append(refs, v.Equals[l.Ref]...)
	}
	have := slices.Clone(n.Contents)
	slices.SortFunc(refs, tree.Ref.Compare)
	slices.SortFunc(have, tree.Ref.Compare)
	return slices.Equal(slices.Compact(refs), slices.Compact(have))
}

// attributes brings those of an inode up to date, which has nothing to publish.
func (a *arrival) attributes(n *index.Inode, want *tree.Node, st *tree.State) error {
	if n.IsDir() {
		n.Object = want.Object
	}
	c := n.Clone()
	setAttributes(c, st)
	if n.IsRegular() {
		c.Mtime = st.View().Mtime
	}
	if n.IsDir() && !st.MtimeSet {
		c.Mtime = n.Mtime // of its entries, which is local
	}
	same := c.Mode == n.Mode && c.Owned == n.Owned && c.UID == n.UID && c.GID == n.GID && c.Mtime == n.Mtime && st.Target == n.Target &&
		slices.EqualFunc(c.Xattrs, n.Xattrs, func(x, y index.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
	if same {
		return nil
	}
	n.Mode, n.Owned, n.UID, n.GID, n.Xattrs = c.Mode, c.Owned, c.UID, c.GID, c.Xattrs
	n.Mtime, n.Ctime = c.Mtime, changed(n.Ctime, a.now)
	if n.Target != st.Target {
		n.Target, n.Size = st.Target, int64(len(st.Target))
	}
	a.out = append(a.out, Event{Inode: a.s.ino(n.Ino)})
	a.written(n)
	return nil
}

// written tells who watches that what has the names of an inode changed.
func (a *arrival) written(n *index.Inode) {
	for i := range n.Links[:min(len(n.Links), maxWatchedNames)] {
		l := &n.Links[i]
		a.out = append(a.out, Event{Parent: a.s.ino(l.Parent), Name: l.Name, Kind: EventWritten, Dir: n.IsDir(), Quiet: true})
	}
}

// content gives a file what its node shows.
func (a *arrival) content(n *index.Inode, want *tree.Node, st *tree.State) error {
	b := rebuilder{s: a.s, seq: a.s.toPublish(a.seq)}
	if err := b.content(n, want, st); err != nil {
		return err
	}
	a.s.wantContent(n.Ino, n.Base)
	return nil
}
