package fs

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// The functions of this file are the state transitions of a space: the same ones serve an operation and its replay from the
// journal. What an operation decides (numbers, times, whose object goes on under a name) is in its record, so that a replay
// gives the same state. All need s.mu. They validate nothing that the operation validated, but fail on a damaged index.

// inode gives an inode that must be there, for reading.
func (s *space) inode(ino uint64) (*index.Inode, error) {
	n, err := s.ix.Inode(ino)
	if err != nil {
		return nil, s.damaged(err)
	}
	if n == nil {
		return nil, ErrStale
	}
	return n, nil
}

// change gives an inode that must be there, for changing.
func (s *space) change(ino uint64) (*index.Inode, error) {
	n, err := s.ix.Change(ino)
	if err != nil {
		return nil, s.damaged(err)
	}
	if n == nil {
		return nil, ErrStale
	}
	return n, nil
}

// damaged notes an error of the store and turns it into EIO.
func (s *space) damaged(err error) error {
	err = inDB(s.dir, err)
	s.h.report(fmt.Sprintf("space %s", s.id), err)
	return fmt.Errorf("%w: %w", ErrIO, err)
}

// lookup finds a name in a directory.
func (s *space) lookup(dir uint64, name string) (e *index.Entry, at uint64, err error) {
	e, at, err = s.ix.Lookup(dir, s.nameHash(dir, name), name)
	if err != nil {
		return nil, 0, s.damaged(err)
	}
	return e, at, nil
}

// touch sets a directory's times after a change of its entries. They are never what they were before: by them the kernel
// finds a listing that raced with a reply.
func touch(d *index.Inode, t int64) {
	d.Mtime = changed(d.Mtime, t)
	d.Ctime = changed(d.Ctime, t)
}

// changed gives the time that an inode shows after a change at t, which is another than the one it had. It may be an earlier
// one, when that was set by hand or by a clock that has been set back since.
func changed(old, t int64) int64 {
	if t == old {
		return old + 1
	}
	return t
}

// orphans is the directory that lists inodes without a name: no inode has its number.
const orphans = 0

func (s *space) setOrphan(n *index.Inode, yes bool) {
	if yes {
		s.ix.SetEntry(orphans, n.Ino, index.Entry{Name: "-", Ino: n.Ino, Type: n.Type()})
		s.orphaned[n.Ino] = struct{}{}
		return
	}
	if _, ok := s.orphaned[n.Ino]; ok {
		delete(s.orphaned, n.Ino)
		s.ix.RemoveEntry(orphans, n.Ino, &index.Entry{})
	}
}

func (s *space) applyCreate(seq journal.Seq, r *createRecord) error {
	n := &index.Inode{
		Ino: r.Ino, Mode: r.Mode, Rdev: r.Rdev, Owned: r.Owned, UID: r.UID, GID: r.GID,
		Mtime: r.Time, Ctime: r.Time, Btime: r.Time, Target: r.Target, Size: int64(len(r.Target)),
		DirtyNew: seq, NextKey: 1, Parent: r.Parent,
	}
	if r.Xattr != "" {
		n.Xattrs = []index.Xattr{{Name: r.Xattr, Value: r.Value}}
		n.DirtyXattrs = []index.XattrDirty{{Name: r.Xattr, Seq: seq}}
	}
	s.objects++
	if r.Ino >= s.nextIno {
		s.nextIno = r.Ino + 1
	}
	if r.Parent == 0 {
		s.ix.Add(n)
		s.setOrphan(n, true)
		s.markDirty(n)
		return nil
	}
	dir, err := s.change(r.Parent)
	if err != nil {
		return err
	}
	n.Links = []index.Link{{Key: 1, Parent: r.Parent, Name: r.Name, Dirty: seq}}
	n.NextKey = 2
	if err := s.addEntry(dir, r.Name, n, r.Time); err != nil {
		return err
	}
	s.ix.Add(n)
	if r.Takes != 0 {
		aside, err := s.change(r.Takes)
		if err != nil {
			return err
		}
		s.repoint(seq, n, 0, aside)
	}
	s.markDirty(n)
	return nil
}

func (s *space) addEntry(dir *index.Inode, name string, n *index.Inode, t int64) error {
	if err := s.ix.AddEntry(dir.Ino, s.nameHash(dir.Ino, name), index.Entry{Name: name, Ino: n.Ino, Type: n.Type()}); err != nil {
		return s.damaged(err)
	}
	s.noteIgnore(dir.Ino, name, true)
	dir.Entries++
	if n.IsDir() {
		dir.Subdirs++
	}
	touch(dir, t)
	return nil
}

func (s *space) removeEntry(dir *index.Inode, e *index.Entry, at uint64, t int64) {
	s.ix.RemoveEntry(dir.Ino, at, e)
	s.noteIgnore(dir.Ino, e.Name, false)
	dir.Entries--
	if e.Type == syscall.S_IFDIR {
		dir.Subdirs--
	}
	touch(dir, t)
}

func (s *space) applyLink(seq journal.Seq, r *linkRecord) error {
	n, err := s.change(r.Ino)
	if err != nil {
		return err
	}
	dir, err := s.change(r.Parent)
	if err != nil {
		return err
	}
	if err := s.addEntry(dir, r.Name, n, r.Time); err != nil {
		return err
	}
	if n.NextKey == 0 {
		n.NextKey = 1
	}
	n.Links = append(n.Links, index.Link{Key: n.NextKey, Parent: r.Parent, Name: r.Name, Dirty: seq})
	n.NextKey++
	n.Ctime = changed(n.Ctime, r.Time)
	n.Parent = r.Parent
	s.setOrphan(n, false)
	s.markDirty(n)
	return nil
}

// dropLink takes one name from an inode. A link that was published leaves a mark to publish.
func (s *space) dropLink(seq journal.Seq, n *index.Inode, dir uint64, name string, t int64) {
	for i := range n.Links {
		l := &n.Links[i]
		if l.Parent != dir || l.Name != name {
			continue
		}
		if !l.ID.Change.IsZero() {
			n.Gone = append(n.Gone, index.Gone{
				Key: l.Key, Object: n.Object, Link: l.ID, Over: n.Over(l), Contents: n.Contents, Seq: seq,
			})
			for _, a := range n.Also {
				if a.Object != n.Object {
					n.Gone = append(n.Gone, index.Gone{Object: a.Object, Link: a.Link, Over: a.Over, Seq: seq})
				}
			}
			n.Also = slices.DeleteFunc(slices.Clone(n.Also), func(a index.Also) bool { return a.Object != n.Object || a.Link == l.ID })
			s.noteTrash(trashRemoved, n, n.Object, dir, name, t)
		}
		n.Links = append(n.Links[:i], n.Links[i+1:]...)
		break
	}
	n.Ctime = changed(n.Ctime, t)
	if len(n.Links) == 0 {
		s.setOrphan(n, true)
		s.noteMate(n, dir, name)
	}
	s.markDirty(n)
}

func (s *space) applyUnlink(seq journal.Seq, r *unlinkRecord) error {
	e, at, err := s.lookup(r.Parent, r.Name)
	if err != nil {
		return err
	}
	if e == nil {
		return ErrNotExist
	}
	n, err := s.change(e.Ino)
	if err != nil {
		return err
	}
	dir, err := s.change(r.Parent)
	if err != nil {
		return err
	}
	s.removeEntry(dir, e, at, r.Time)
	s.dropLink(seq, n, r.Parent, r.Name, r.Time)
	return nil
}

func (s *space) applyRename(seq journal.Seq, r *renameRecord) error {
	e, at, err := s.lookup(r.Parent, r.Name)
	if err != nil {
		return err
	}
	if e == nil {
		return ErrNotExist
	}
	n, err := s.change(e.Ino)
	if err != nil {
		return err
	}
	from, err := s.change(r.Parent)
	if err != nil {
		return err
	}
	to, err := s.change(r.NewParent)
	if err != nil {
		return err
	}
	old, oldAt, err := s.lookup(r.NewParent, r.NewName)
	if err != nil {
		return err
	}
	var o *index.Inode
	if old != nil {
		if o, err = s.change(old.Ino); err != nil {
			return err
		}
	}
	if r.Exchange {
		if o == nil {
			return ErrNotExist
		}
		s.swapEntries(from, to, e, at, old, oldAt, r.Time)
		s.noteMove(n, linkIndex(n, r.Parent, r.Name), r.NewParent, r.Time)
		s.noteMove(o, linkIndex(o, r.NewParent, r.NewName), r.Parent, r.Time)
		moveLink(seq, n, r.Parent, r.Name, r.NewParent, r.NewName, r.Time)
		moveLink(seq, o, r.NewParent, r.NewName, r.Parent, r.Name, r.Time)
		s.markDirty(n)
		s.markDirty(o)
		return nil
	}
	if o != nil {
		s.removeEntry(to, old, oldAt, r.Time)
	}
	// The entry may have been changed by the removal when the two stand in one chain of equal hashes.
	if e, at, err = s.lookup(r.Parent, r.Name); err != nil {
		return err
	}
	s.removeEntry(from, e, at, r.Time)
	if err := s.addEntry(to, r.NewName, n, r.Time); err != nil {
		return err
	}
	s.noteMove(n, linkIndex(n, r.Parent, r.Name), r.NewParent, r.Time)
	moveLink(seq, n, r.Parent, r.Name, r.NewParent, r.NewName, r.Time)
	if o != nil {
		if r.Takes {
			s.repoint(seq, n, linkIndex(n, r.NewParent, r.NewName), o)
		}
		s.dropLink(seq, o, r.NewParent, r.NewName, r.Time)
	}
	s.markDirty(n)
	if d, ok := s.dirty[n.Ino]; ok && r.Takes {
		d.saved = seq
		s.dirty[n.Ino] = d
	}
	return nil
}

// swapEntries lets two names change the inodes that they stand for.
func (s *space) swapEntries(from, to *index.Inode, a *index.Entry, aAt uint64, b *index.Entry, bAt uint64, t int64) {
	x, y := *a, *b
	x.Ino, y.Ino = b.Ino, a.Ino
	x.Type, y.Type = b.Type, a.Type
	s.ix.SetEntry(from.Ino, aAt, x)
	s.ix.SetEntry(to.Ino, bAt, y)
	if a.Type != b.Type {
		if a.Type == syscall.S_IFDIR {
			from.Subdirs--
			to.Subdirs++
		}
		if b.Type == syscall.S_IFDIR {
			to.Subdirs--
			from.Subdirs++
		}
	}
	touch(from, t)
	if to != from {
		touch(to, t)
	}
}

func linkIndex(n *index.Inode, parent uint64, name string) int {
	for i := range n.Links {
		if n.Links[i].Parent == parent && n.Links[i].Name == name {
			return i
		}
	}
	return 0
}

func moveLink(seq journal.Seq, n *index.Inode, parent uint64, name string, newParent uint64, newName string, t int64) {
	n.Links[linkIndex(n, parent, name)].Move(seq, newParent, newName)
	n.Parent = newParent
	n.Ctime = changed(n.Ctime, t)
}

// repoint lets dst, by its link at index i, go on with the object that src stands for: a save by rename. The two have no
// other links. What dst was published as before gets its removal published; src becomes a new object, should it live on.
func (s *space) repoint(seq journal.Seq, dst *index.Inode, i int, src *index.Inode) {
	if src.Object.IsZero() {
		return
	}
	l, old := &dst.Links[i], &src.Links[0]
	if !dst.Object.IsZero() {
		s.ix.SetObject(dst.Object, 0)
		if !l.ID.Change.IsZero() {
			was, as := l.Place()
			s.noteTrash(trashMoved, dst, dst.Object, was, as, dst.Ctime)
			dst.Gone = append(dst.Gone, index.Gone{Key: l.Key, Object: dst.Object, Link: l.ID, Over: dst.Over(l), Contents: dst.Contents, Seq: seq})
		}
	}
	parent, name := old.Place()
	l.ID, l.Val = tree.Ref{}, tree.Ref{}
	l.Published(seq, old.ID, old.Val, parent, name)
	dst.Object, dst.Contents, dst.Also = src.Object, src.Contents, src.Also
	dst.NextKey = max(dst.NextKey, src.NextKey) // it tells whether the object ever had another link
	s.ix.SetObject(dst.Object, dst.Ino)
	dst.DirtyNew = 0
	dst.DirtyContent = seq
	attributesOver(seq, dst, src)
	dst.DirtyXattrs = unionDirty(seq, dst.Xattrs, src.Xattrs, src.DirtyXattrs)
	dst.Gone = append(dst.Gone, src.Gone...)

	src.Object, src.Contents, src.Also, src.Gone = dag.ID{}, nil, nil, nil
	old.ID, old.Val, old.Dirty = tree.Ref{}, tree.Ref{}, seq
	src.DirtyNew, src.DirtyContent, src.DirtyMode = seq, seq, seq
	src.DirtyXattrs = unionDirty(seq, src.Xattrs, nil, nil)
	s.markDirty(src)
}

// attributesOver marks of the mode and the owner of n what differs from that of o, whose object it goes on with: a save that leaves
// them as they are says nothing of them.
func attributesOver(seq journal.Seq, n, o *index.Inode) {
	n.DirtyMode, n.DirtyOwner = seq, seq
	if o.DirtyMode == 0 && o.Mode == n.Mode {
		n.DirtyMode = 0
	}
	if o.DirtyOwner == 0 && o.Owned == n.Owned && (!n.Owned || o.UID == n.UID && o.GID == n.GID) {
		n.DirtyOwner = 0
	}
}

// unionDirty marks every attribute that either inode has, or had and lost unpublished, but for those that say of an object what people did
// to it as a conflict copy: they stay with it.
func unionDirty(seq journal.Seq, a, b []index.Xattr, c []index.XattrDirty) []index.XattrDirty {
	var out []index.XattrDirty
	add := func(name string) {
		if strings.HasPrefix(name, tree.DealtPrefix) {
			return
		}
		for i := range out {
			if out[i].Name == name {
				return
			}
		}
		out = append(out, index.XattrDirty{Name: name, Seq: seq})
	}
	for i := range a {
		add(a[i].Name)
	}
	for i := range b {
		add(b[i].Name)
	}
	for i := range c {
		add(c[i].Name)
	}
	return out
}

func (s *space) applySetattr(seq journal.Seq, r *setattrRecord) error {
	n, err := s.change(r.Ino)
	if err != nil {
		return err
	}
	if r.Set&setMode != 0 {
		n.Mode = n.Mode&syscall.S_IFMT | r.Mode&07777
		n.DirtyMode = seq
	}
	if r.Set&setOwner != 0 {
		n.UID, n.GID, n.Owned = r.UID, r.GID, true
		n.DirtyOwner = seq
	}
	if r.Set&setSize != 0 {
		s.resize(seq, n, r.Size)
		n.Mtime = r.Time
	}
	if r.Set&setMtime != 0 {
		n.Mtime = r.Mtime
		n.DirtyMtime = seq
	}
	n.Ctime = changed(n.Ctime, r.Time)
	s.markDirty(n)
	return nil
}

// resize cuts or grows a file. What it grows by reads as zeros.
func (s *space) resize(seq journal.Seq, n *index.Inode, size int64) {
	if size < n.Size {
		if n.Ext != nil {
			n.Ext.Cut(size, n.Size-size)
		}
		n.AddCut(seq, size)
	}
	n.Size = size
	n.DirtyContent = seq
}

func (s *space) applyWrite(seq journal.Seq, loc journal.Loc, head int, r *writeRecord) error {
	n, err := s.change(r.Ino)
	if err != nil {
		return err
	}
	s.write(seq, n, r.Off, int64(len(r.Data)), int64(head), &index.Source{Kind: index.SourceJournal, Seq: seq, Loc: loc}, r.Time)
	if r.KillPriv {
		s.killPriv(seq, n)
	}
	return nil
}

// write lays n bytes of a source over a file.
func (s *space) write(seq journal.Seq, n *index.Inode, off, size, skip int64, src *index.Source, t int64) {
	if n.Ext == nil {
		n.Ext = &index.Extents{}
	}
	n.Ext.Put(off, index.Extent{Len: size, Skip: skip, Src: src})
	n.Size = max(n.Size, off+size)
	n.Mtime = t
	n.Ctime = changed(n.Ctime, t)
	n.DirtyContent = seq
	s.markDirty(n)
	s.noteWritten(n, size, src.Kind)
}

// killPriv does what a write by someone without privilege does: suid goes, sgid goes where the group may execute.
func (s *space) killPriv(seq journal.Seq, n *index.Inode) {
	mode := n.Mode &^ syscall.S_ISUID
	if mode&(syscall.S_ISGID|010) == syscall.S_ISGID|010 {
		mode &^= syscall.S_ISGID
	}
	if mode != n.Mode {
		n.Mode = mode
		n.DirtyMode = seq
	}
	if _, ok := n.Xattr("security.capability"); ok {
		removeXattr(seq, n, "security.capability")
	}
}

func (s *space) applySeal(seq journal.Seq, r *sealRecord) error {
	n, err := s.change(r.Ino)
	if err != nil {
		return err
	}
	src := &index.Source{Kind: index.SourceBlock, Seq: seq, Block: r.Block, Size: r.Size}
	t := r.Time
	if t == 0 {
		t = n.Mtime
	}
	s.write(seq, n, r.Off, r.Len, r.Skip, src, t)
	return nil
}

// hasBlock reports whether a block that a record names is here; a replay ends where it is not.
func (s *space) hasBlock(id block.ID) bool { return s.blocks.Has(id) }

// lacks says of a block that it is not here, and where it may have been.
func (s *space) lacks(id block.ID) error {
	err := fmt.Errorf("block %s is not here", id)
	for _, r := range s.blocks.Refused() {
		err = fmt.Errorf("%w; %w", err, r)
	}
	return err
}

func (s *space) applyFallocate(seq journal.Seq, r *fallocateRecord) error {
	n, err := s.change(r.Ino)
	if err != nil {
		return err
	}
	end := r.Off + r.N
	if r.Mode&(FallocPunchHole|FallocZeroRange) != 0 {
		if n.Ext != nil {
			n.Ext.Cut(r.Off, r.N)
		}
		// Whatever a base shows there is hidden: the present one, or a content that is just being published.
		if limit := min(n.Size, end); limit > r.Off {
			if n.Ext == nil {
				n.Ext = &index.Extents{}
			}
			n.Ext.Put(r.Off, index.Extent{Len: limit - r.Off, Src: &index.Source{Kind: index.SourceZero, Seq: seq}})
			n.DirtyContent = seq
		}
	}
	if r.Mode&FallocKeepSize == 0 && end > n.Size {
		n.Size = end
		n.DirtyContent = seq
	}
	n.Mtime = r.Time
	n.Ctime = changed(n.Ctime, r.Time)
	s.markDirty(n)
	return nil
}

func (s *space) applyXattr(seq journal.Seq, r *xattrRecord) error {
	n, err := s.change(r.Ino)
	if err != nil {
		return err
	}
	if r.Remove {
		if r.Name == tree.ConflictXattr {
			s.forgetCopy(n)
		}
		removeXattr(seq, n, r.Name)
	} else {
		setXattr(seq, n, r.Name, r.Value)
	}
	n.Ctime = changed(n.Ctime, r.Time)
	s.markDirty(n)
	return nil
}

func setXattr(seq journal.Seq, n *index.Inode, name string, value []byte) {
	out := make([]index.Xattr, 0, len(n.Xattrs)+1)
	placed := false
	for _, x := range n.Xattrs {
		if !placed && x.Name >= name {
			out = append(out, index.Xattr{Name: name, Value: value})
			placed = true
		}
		if x.Name != name {
			out = append(out, x)
		}
	}
	if !placed {
		out = append(out, index.Xattr{Name: name, Value: value})
	}
	n.Xattrs = out
	dirtyXattr(seq, n, name)
}

func removeXattr(seq journal.Seq, n *index.Inode, name string) {
	out := make([]index.Xattr, 0, len(n.Xattrs))
	for _, x := range n.Xattrs {
		if x.Name != name {
			out = append(out, x)
		}
	}
	n.Xattrs = out
	dirtyXattr(seq, n, name)
}

func dirtyXattr(seq journal.Seq, n *index.Inode, name string) {
	out := make([]index.XattrDirty, 0, len(n.DirtyXattrs)+1)
	for _, x := range n.DirtyXattrs {
		if x.Name != name {
			out = append(out, x)
		}
	}
	n.DirtyXattrs = append(out, index.XattrDirty{Name: name, Seq: seq})
}

// applyReclaim forgets an inode that has no name, no reference and nothing left to publish. A replay meets it later than it
// went at first: another inode may stand for its object by then.
func (s *space) applyReclaim(n *index.Inode) {
	if s.isIgnoredInode(n.Ino) {
		s.ign.remove(n.Ino)
	}
	s.setOrphan(n, false)
	if !n.Object.IsZero() {
		switch owner, err := s.ix.Object(n.Object); {
		case err != nil:
			_ = s.damaged(err)
		case owner == n.Ino:
			s.ix.SetObject(n.Object, 0)
		}
	}
	s.objects--
	s.forgetCopy(n)
	s.forgetSend(n.Ino)
	s.outdated(n)
	s.forgetUpload(n.Ino)
	s.ix.Remove(n.Ino)
	s.undirty(n.Ino)
	delete(s.patched, n.Ino)
	delete(s.paced, n.Ino)
}
