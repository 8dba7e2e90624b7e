package fs

import (
	"context"
	"fmt"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// rebuild makes the index of a space, which has none yet, from the changes of its graph. It holds the tree in memory.
//
// What concurrent changes left in conflict becomes files of their own, as it is shown: they are dirty, and published so. Who may not write waits for
// a device that does it.
func (s *space) rebuild(ctx context.Context) error {
	t, st, err := s.foldAll(ctx)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &rebuilder{s: s, t: t, st: st, seq: s.toPublish(max(s.last, 1)), inodes: map[dag.ID]*index.Inode{}}
	if o, err := st.Object(t.Root()); err != nil {
		return err
	} else if o != nil {
		root, err := s.ix.Change(rootDir)
		if err != nil {
			return err
		}
		setAttributes(root, o.State)
	}
	err = b.dir(ctx, t.Root(), rootDir)
	if err == nil {
		err = s.rebuildTrash(ctx, b.inodes)
	}
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	return nil
}

// foldAll folds the whole graph of a space in memory.
func (s *space) foldAll(ctx context.Context) (*tree.Tree, *tree.MemStore, error) {
	f, err := s.newFolder()
	if err == nil {
		err = f.all(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return f.t, f.st, nil
}

// folder folds the graph of a space into a tree in memory.
type folder struct {
	s     *space
	names map[dag.PublicKey]string
	st    *tree.MemStore
	t     *tree.Tree
}

func (s *space) newFolder() (*folder, error) {
	names := map[dag.PublicKey]string{}
	st := tree.NewMemStore(names)
	t, err := tree.NewTree(s.id, st)
	return &folder{s, names, st, t}, err
}

// all adds every batch that counts now.
func (f *folder) all(ctx context.Context) error {
	return f.s.graph.Batches(func(b *dag.Batch, bodies [][]byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := f.add(b, bodies)
		return err
	})
}

// add adds a batch, of which nothing or everything was added before, and says what of the tree that may have changed.
func (f *folder) add(b *dag.Batch, bodies [][]byte) (*tree.Delta, error) {
	id := b.ID()
	if _, known := f.names[b.Device]; !known {
		f.names[b.Device], _ = f.s.acl.DeviceName(b.Device)
	}
	changes := make([]tree.Change, 0, len(bodies))
	for i, body := range bodies {
		c, err := dag.DecodeChange(body)
		if err != nil {
			return nil, fmt.Errorf("change %s: %w", b.Changes[i], err)
		}
		e := dag.Entry{ID: b.Changes[i], Pos: dag.Pos{Clock: b.Clock, Batch: id, Place: uint32(i)}, Change: c, Batch: b}
		change, err := f.s.openChange(&e)
		if err != nil {
			return nil, err
		}
		if f.st.AddChange(change.Object, change.At, change.Payload) {
			changes = append(changes, change)
		}
	}
	return f.t.Apply(changes...)
}

type rebuilder struct {
	s      *space
	t      *tree.Tree
	st     *tree.MemStore
	seq    journal.Seq // what becomes dirty carries it; 0: nothing does
	inodes map[dag.ID]*index.Inode
}

// toPublish is what the ends of conflicts are dirty with that this device sees to: seq, or 0 where it may not write. There they come from others, and
// what was dirty and could not be published would keep what comes out.
func (s *space) toPublish(seq journal.Seq) journal.Seq {
	if s.acl.MayWrite() {
		return seq
	}
	return 0
}

// dir adds what a directory shows, and what is below. Its depth is bounded by that of the tree.
func (b *rebuilder) dir(ctx context.Context, object dag.ID, ino uint64) error {
	type level struct {
		object dag.ID
		ino    uint64
	}
	todo := []level{{object, ino}}
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := ctx.Err(); err != nil {
			return err
		}
		nodes, err := b.t.List(at.object)
		if err != nil {
			return err
		}
		for i := range nodes {
			if nodes[i].Loser == tree.ContentLoser && b.seq == 0 {
				continue
			}
			n, err := b.node(&nodes[i], at.ino)
			if err != nil {
				return err
			}
			if n.IsDir() {
				todo = append(todo, level{nodes[i].Object, n.Ino})
			}
		}
	}
	return nil
}

// node adds one entry.
func (b *rebuilder) node(d *tree.Node, parent uint64) (*index.Inode, error) {
	o, err := b.st.Object(d.Object)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("object %s is shown and not known", d.Object)
	}
	n := b.inodes[d.Object]
	if n == nil || d.Loser == tree.ContentLoser {
		if n, err = b.inode(d, o.State); err != nil {
			return nil, err
		}
	}
	link := index.Link{Key: max(n.NextKey, 1), Parent: parent, Name: d.Name}
	n.NextKey = link.Key + 1
	if d.Loser == tree.ContentLoser {
		link.Dirty = b.seq
	} else {
		for i := range o.State.Links {
			if l := &o.State.Links[i]; l.ID == d.Link {
				link.ID, link.Val = l.ID, l.Shown().Ref
				if was := l.Shown().Name; was != d.Name {
					link.Dirty, link.WasParent, link.WasName = b.seq, parent, was
				}
			}
		}
	}
	n.Links = append(n.Links, link)
	n.Parent = parent
	dir, err := b.s.ix.Change(parent)
	if err != nil {
		return nil, err
	}
	mtime, ctime := dir.Mtime, dir.Ctime
	if err := b.s.addEntry(dir, d.Name, n, 0); err != nil {
		return nil, err
	}
	dir.Mtime, dir.Ctime = mtime, ctime
	b.s.markDirty(n)
	return n, nil
}

func (b *rebuilder) inode(d *tree.Node, st *tree.State) (*index.Inode, error) {
	s := b.s
	n := &index.Inode{Ino: s.nextIno, Mode: st.Kind.Type(), Rdev: st.Rdev, Target: st.Target, Btime: st.Born, Object: d.Object}
	s.nextIno++
	s.objects++
	if len(st.Links) > 1 {
		n.NextKey = revivedKey // it had other links
	}
	setAttributes(n, st)
	if n.Type() == syscall.S_IFLNK {
		n.Size = int64(len(n.Target))
	}
	if n.IsRegular() {
		if err := b.content(n, d, st); err != nil {
			return nil, err
		}
	}
	s.ix.Add(n)
	s.noteCopy(n)
	if d.Loser == tree.ContentLoser {
		n.Object, n.DirtyNew = dag.ID{}, b.seq
		return n, nil
	}
	b.inodes[d.Object] = n
	s.ix.SetObject(d.Object, n.Ino)
	for _, dir := range d.Dirs {
		b.inodes[dir] = n
		s.ix.SetObject(dir, n.Ino)
	}
	return n, nil
}

// setAttributes gives an inode those of an object.
func setAttributes(n *index.Inode, st *tree.State) {
	mode := uint32(0644)
	switch {
	case st.ModeSet:
		mode = st.Mode
	case n.IsDir():
		mode = 0755
	}
	n.Mode = n.Type() | mode&07777
	n.Owned, n.UID, n.GID = st.Owned, st.UID, st.GID
	n.Mtime, n.Ctime = st.Time, st.Time
	if st.MtimeSet {
		n.Mtime = st.Mtime
	}
	n.Xattrs = nil
	for name, value := range st.Xattrs {
		setXattr(0, n, name, value)
	}
	n.DirtyXattrs = nil
}

// content gives a file what it shows: the shown candidate, the merge of all, or for a conflict copy the losing one.
func (b *rebuilder) content(n *index.Inode, d *tree.Node, st *tree.State) error {
	v := st.View()
	n.Mtime = v.Mtime
	shown := v.Main
	if d.Loser == tree.ContentLoser {
		for _, l := range v.Losers {
			if l.Ref == d.Content {
				shown = l
			}
		}
		n.Mtime, n.DirtyContent = shown.Mtime, b.seq
	} else {
		n.Contents = v.Behind
		if len(v.Losers) > 0 {
			for _, l := range v.Losers {
				n.Contents = append(n.Contents, l.Ref)
			}
			n.DirtyContent = b.seq
		}
	}
	if shown.Ref.Change.IsZero() {
		return nil // never written
	}
	if v.Merged && d.Loser != tree.ContentLoser {
		n.Size, n.DirtyContent = int64(len(v.Text)), b.seq
		n.Base = &tree.Content{Size: n.Size, Inline: v.Text}
		return nil
	}
	return b.s.baseOf(n, &shown)
}

// baseOf makes a content value the base of an inode, with the patches over it.
func (s *space) baseOf(n *index.Inode, v *tree.ContentValue) error {
	if v.Op != nil {
		f := VersionFile{s: s, base: v.Op, at: v.Ref}
		f.show(n)
		return nil
	}
	f, err := s.contentOf(v.Ref)
	if err != nil {
		return err
	}
	f.show(n)
	return nil
}

// show makes the content the base of an inode that has none.
func (f *VersionFile) show(n *index.Inode) {
	base := *f.base
	n.Base, n.BaseAt, n.Size = &base, f.at, base.Size
	if len(base.Inline) > 0 {
		// Read from the change; where it ends is said as in the index.
		base.Inline, base.Layout = nil, []tree.Chunk{{Off: 0, Len: int64(len(base.Inline))}}
	}
	for i, c := range f.patches {
		n.AddPatch(f.refs[i], c)
	}
}
