package fs

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// What a round of arrival looks at: from the names that changed to those that they lead to, and what each is to show.

// look finds what the names of the work list, and what they lead to, are to show. It ends early when there is too much.
func (a *arrival) look() error {
	for len(a.work) > 0 && a.size < maxArrival {
		at := a.work[len(a.work)-1]
		a.work = a.work[:len(a.work)-1]
		if a.seen[at] {
			continue
		}
		a.seen[at] = true
		if first, err := a.placeFirst(at.Dir); err != nil {
			return err
		} else if first != nil {
			delete(a.seen, at)
			a.work = append(a.work, at, *first)
			continue
		}
		dir, err := a.shown(at.Dir)
		if err != nil {
			return err
		}
		if dir == 0 {
			continue // when it comes, all that is in it does
		}
		if at.Name != "" && a.whole(at.Dir) {
			continue
		}
		if at.Name == "" {
			err = a.lookDir(at.Dir, dir)
		} else {
			err = a.lookName(at, dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// whole reports whether the round has looked at all that is in a directory, of which the index has nothing yet.
func (a *arrival) whole(object dag.ID) bool {
	return a.fresh[a.inos[object]] && a.seen[tree.DirName{Dir: object}]
}

// shown gives the inode of a directory that is shown, or is to be; 0 for none.
func (a *arrival) shown(object dag.ID) (uint64, error) {
	if object == a.t.Root() {
		return rootDir, nil
	}
	if ino, ok := a.inos[object]; ok {
		return ino, nil
	}
	n, err := a.owner(object)
	if err != nil || n == nil || len(n.Links) == 0 || !n.IsDir() {
		return 0, err
	}
	if n.Object != object {
		return 0, nil // it was one with another, and its place is seen: it is shown no more
	}
	return n.Ino, nil
}

// placeFirst gives the name to be looked at before what is in a directory: its own, where it is shown elsewhere or as one with others,
// since that may have changed.
func (a *arrival) placeFirst(object dag.ID) (*tree.DirName, error) {
	if _, ok := a.inos[object]; ok || object == a.t.Root() {
		return nil, nil
	}
	n, err := a.owner(object)
	if err != nil || n == nil || !n.IsDir() {
		return nil, err
	}
	o, err := a.st.Object(object)
	if err != nil || o == nil || o.Claimed == nil {
		return nil, err
	}
	at := tree.DirName{Dir: o.Claimed.Parent, Name: o.Claimed.Name}
	if a.seen[at] {
		return nil, nil
	}
	if n.Object == object && len(n.Links) == 1 && n.Links[0].Name == at.Name {
		p, err := a.s.ix.Inode(n.Links[0].Parent)
		if err != nil || p != nil && (p.Object == at.Dir || p.Ino == rootDir && at.Dir == a.t.Root()) {
			return nil, err
		}
	}
	return &at, nil
}

// owner gives the inode that stands for an object in the index, nil for none.
func (a *arrival) owner(object dag.ID) (*index.Inode, error) {
	ino, err := a.s.ix.Object(object)
	if err != nil || ino == 0 {
		return nil, err
	}
	return a.s.ix.Inode(ino)
}

func (a *arrival) lookName(at tree.DirName, dir uint64) error {
	nodes, err := a.t.Group(at.Dir, at.Name)
	if err != nil {
		return err
	}
	a.wish(spot{dir, at.Name}, nil)
	for i := range nodes {
		if nodes[i].Loser == tree.ContentLoser {
			continue // it shows when it is a file of its own
		}
		if err := a.node(dir, &nodes[i]); err != nil {
			return err
		}
	}
	return a.lookAtOld(spot{dir, at.Name})
}

// lookDir looks at all that a directory shows, or is to.
func (a *arrival) lookDir(object dag.ID, dir uint64) error {
	if !a.fresh[dir] {
		if err := a.s.ix.Scan(dir, 0, func(_ uint64, e *index.Entry) bool {
			a.wish(spot{dir, e.Name}, nil)
			return true
		}); err != nil {
			return err
		}
	}
	nodes, err := a.t.List(object)
	if err != nil {
		return err
	}
	for i := range nodes {
		if nodes[i].Loser == tree.ContentLoser {
			continue
		}
		if err := a.node(dir, &nodes[i]); err != nil {
			return err
		}
	}
	if a.fresh[dir] {
		return nil // nothing was shown in it
	}
	for _, e := range slices.Clone(a.order) {
		if e.dir == dir {
			if err := a.lookAtOld(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// wish notes what a name is to show; a node counts more than none.
func (a *arrival) wish(e spot, n *tree.Node) {
	old, ok := a.want[e]
	if !ok {
		a.order = append(a.order, e)
		a.size += len(e.name) + 32
	}
	if !ok || n != nil || old == nil {
		a.want[e] = n
	}
}

// node notes an entry that is to be shown, and has what is in it looked at where it is a directory that was not shown so.
func (a *arrival) node(dir uint64, n *tree.Node) error {
	a.wish(spot{dir, n.Name}, n)
	a.size += 200
	for i := range n.Twins { // one that was shown beside it until they were equal is shown no more
		o, err := a.owner(n.Twins[i].Object)
		if err == nil && o != nil && n.Twins[i].Object != n.Object {
			err = a.lookAtLinks(o)
		}
		if err != nil {
			return err
		}
	}
	if n.Kind != tree.KindDir {
		o, err := a.owner(n.Object)
		if err == nil && o != nil {
			err = a.lookAtLinks(o)
		}
		return err
	}
	ino, known, err := a.dirInode(dir, n)
	if err != nil {
		return err
	}
	if !a.fresh[ino] {
		o, err := a.s.inode(ino)
		if err == nil {
			err = a.lookAtLinks(o)
		}
		if err != nil {
			return err
		}
	}
	for _, d := range n.Dirs {
		if o, err := a.owner(d); err != nil {
			return err
		} else if o == nil || o.Ino != ino {
			known = false
			switch {
			case o == nil || a.fresh[o.Ino] || len(o.Links) == 0:
			case !slices.Contains(n.Dirs, o.Object):
				// It was shown as one with another, which keeps the inode, and what is its own.
				if !a.listed[o.Object] {
					a.listed[o.Object] = true
					a.work = append(a.work, tree.DirName{Dir: o.Object})
					delete(a.seen, tree.DirName{Dir: o.Object})
				}
			default:
				// Another inode stood for it: nothing is left there.
				a.empty[o.Ino] = true
				if err := a.s.ix.Scan(o.Ino, 0, func(_ uint64, e *index.Entry) bool {
					a.wish(spot{o.Ino, e.Name}, nil)
					return true
				}); err != nil {
					return err
				}
			}
		}
		a.inos[d] = ino
	}
	if !known && !a.listed[n.Object] {
		a.listed[n.Object] = true
		a.work = append(a.work, tree.DirName{Dir: n.Object})
		delete(a.seen, tree.DirName{Dir: n.Object})
	}
	return nil
}

// dirInode chooses the inode of a directory: the one that stands for any of its objects, and for no other entry; one that is shown
// before one that is not.
func (a *arrival) dirInode(dir uint64, n *tree.Node) (ino uint64, known bool, err error) {
	if ino, ok := a.inos[n.Object]; ok {
		return ino, true, nil
	}
	for _, d := range n.Dirs {
		o, err := a.owner(d)
		if err != nil {
			return 0, false, err
		}
		if o != nil && slices.Contains(n.Dirs, o.Object) && (ino == 0 || !known && len(o.Links) > 0) {
			ino, known = o.Ino, len(o.Links) > 0
		}
	}
	if ino != 0 {
		return ino, known, nil
	}
	ino = a.next
	a.next++
	a.fresh[ino] = true
	return ino, false, nil
}

// lookAtOld has the places looked at where what an entry shows now is to be: a name that goes and comes elsewhere is moved.
func (a *arrival) lookAtOld(at spot) error {
	if a.fresh[at.dir] {
		return nil
	}
	e, err := a.entry(at)
	if err != nil || e == nil {
		return err
	}
	n, err := a.s.inode(e.Ino)
	if err != nil {
		return err
	}
	if n.Object.IsZero() {
		return nil
	}
	if want := a.want[at]; want != nil && want.Object == n.Object {
		return nil
	}
	if n.IsDir() {
		o, err := a.st.Object(n.Object)
		if err == nil && o != nil && o.Claimed != nil {
			a.work = append(a.work, tree.DirName{Dir: o.Claimed.Parent, Name: o.Claimed.Name})
		}
		return err
	}
	st, err := a.t.State(n.Object)
	if err != nil || st == nil {
		return err
	}
	for _, l := range st.LiveLinks() {
		p := l.Shown()
		a.work = append(a.work, tree.DirName{Dir: p.Parent, Name: p.Name})
	}
	return nil
}

// lookAtLinks has the places looked at where an inode is shown now: it may be shown there no more.
func (a *arrival) lookAtLinks(n *index.Inode) error {
	for i := range n.Links {
		l := &n.Links[i]
		dir := a.t.Root()
		if l.Parent != rootDir {
			p, err := a.s.inode(l.Parent)
			if err != nil {
				return err
			}
			if dir = p.Object; dir.IsZero() {
				continue // it waits anyway
			}
		}
		a.work = append(a.work, tree.DirName{Dir: dir, Name: l.Name})
	}
	return nil
}
