package fs

import (
	"errors"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// refsRecord makes an inode without a name that has a published content: what a restore brings back, before it has its place.
// Without a placeRecord behind it the inode goes at the next start.
type refsRecord struct {
	Ino        uint64
	Mode, Rdev uint32
	Owned      bool
	UID, GID   uint32
	Mtime      int64
	Time       int64
	Target     string
	Xattrs     []index.Xattr
	Base       []byte   // the encoded content, as in publishedChange; empty: none
	BaseAt     tree.Ref // the operation that holds it
	Patched    []byte   // the encoded patches over it; empty: none
}

// placeRecord gives such an inode its place. Over names an inode whose object it goes on with. Where that has names, it takes
// them, and the rest of the record is empty; else it gets the name Name in Parent. Object, where there is one, is a removed
// object that comes back in the inode; Link and Val are its link, which moves there.
type placeRecord struct {
	Ino, Over   uint64
	Parent      uint64
	Name        string
	Time        int64
	Object      dag.ID
	Link, Val   tree.Ref
	Contents    []tree.Ref // the object's content values
	Same        bool       // the inode is as the object last was: nothing but its place is to be published
	Xattrs      []string   // names that the object has and the inode lacks
	TrashDir    uint64     // the entry of the trash that ends, with TrashAt; 0: none
	TrashAt     uint64
	TrashBefore uint64 // of a directory: the number that it had
}

func (w *writer) ref(r tree.Ref) {
	w.id(r.Change)
	w.uint(uint64(r.Place))
}

func (r *reader) ref() tree.Ref { return tree.Ref{Change: r.id(), Place: uint32(r.uint())} }

func (c *refsRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.uint(uint64(c.Mode))
	w.uint(uint64(c.Rdev))
	w.owner(c.Owned, c.UID, c.GID)
	w.int(c.Mtime)
	w.int(c.Time)
	w.str(c.Target)
	w.uint(uint64(len(c.Xattrs)))
	for _, x := range c.Xattrs {
		w.str(x.Name)
		w.bytes(x.Value)
	}
	w.bytes(c.Base)
	if len(c.Base) > 0 {
		w.ref(c.BaseAt)
		w.bytes(c.Patched)
	}
}

func (c *refsRecord) decode(r *reader) error {
	c.Ino, c.Mode, c.Rdev = r.uint(), uint32(r.uint()), uint32(r.uint())
	c.Owned, c.UID, c.GID = r.owner()
	c.Mtime, c.Time, c.Target = r.int(), r.int(), r.str()
	n := r.uint()
	if n > uint64(len(r.b)) {
		return errRecord
	}
	for range n {
		c.Xattrs = append(c.Xattrs, index.Xattr{Name: r.str(), Value: r.bytes()})
	}
	if c.Base = r.bytes(); len(c.Base) > 0 {
		c.BaseAt = r.ref()
		c.Patched = r.bytes()
	}
	return r.end()
}

func (c *placeRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.uint(c.Over)
	w.uint(c.Parent)
	w.str(c.Name)
	w.int(c.Time)
	w.id(c.Object)
	w.ref(c.Link)
	w.ref(c.Val)
	w.uint(uint64(len(c.Contents)))
	for _, r := range c.Contents {
		w.ref(r)
	}
	w.bool(c.Same)
	w.uint(uint64(len(c.Xattrs)))
	for _, x := range c.Xattrs {
		w.str(x)
	}
	w.uint(c.TrashDir)
	w.uint(c.TrashAt)
	w.uint(c.TrashBefore)
}

func (c *placeRecord) decode(r *reader) error {
	c.Ino, c.Over, c.Parent, c.Name, c.Time = r.uint(), r.uint(), r.uint(), r.str(), r.int()
	c.Object, c.Link, c.Val = r.id(), r.ref(), r.ref()
	n := r.uint()
	if n > uint64(len(r.b)) {
		return errRecord
	}
	for range n {
		c.Contents = append(c.Contents, r.ref())
	}
	c.Same = r.bool()
	if n = r.uint(); n > uint64(len(r.b)) {
		return errRecord
	}
	for range n {
		c.Xattrs = append(c.Xattrs, r.str())
	}
	c.TrashDir, c.TrashAt, c.TrashBefore = r.uint(), r.uint(), r.uint()
	return r.end()
}

// replayHistory applies the records of restores in a replay.
func (s *space) replayHistory(k recordKind, seq journal.Seq, r *reader) error {
	switch k {
	case recRefs:
		var c refsRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyRefs(seq, &c)
	case recPlace:
		var c placeRecord
		if err := c.decode(r); err != nil {
			return err
		}
		return s.applyPlace(seq, &c)
	}
	return errRecord
}

// applyRefs makes the inode of a restore, without a name. Under mu, as all that follows.
func (s *space) applyRefs(seq journal.Seq, r *refsRecord) error {
	n := &index.Inode{
		Ino: r.Ino, Mode: r.Mode, Rdev: r.Rdev, Owned: r.Owned, UID: r.UID, GID: r.GID, Xattrs: r.Xattrs,
		Mtime: r.Mtime, Ctime: r.Time, Btime: r.Time, Target: r.Target, Size: int64(len(r.Target)), DirtyNew: seq, NextKey: 1,
	}
	if len(r.Base) > 0 {
		base, err := index.DecodeContent(r.Base)
		if err != nil {
			return s.damaged(err)
		}
		n.Base, n.BaseAt, n.Size, n.DirtyContent = base, r.BaseAt, base.Size, seq
		if len(r.Patched) > 0 {
			if err := n.DecodePatches(r.Patched); err != nil {
				return s.damaged(err)
			}
		}
	}
	for _, x := range r.Xattrs {
		n.DirtyXattrs = append(n.DirtyXattrs, index.XattrDirty{Name: x.Name, Seq: seq})
	}
	s.objects++
	if r.Ino >= s.nextIno {
		s.nextIno = r.Ino + 1
	}
	s.ix.Add(n)
	s.noteCopy(n)
	s.setOrphan(n, true)
	return nil
}

// revivedKey is the first key of a link of an object that came back: one above 2, which would say that it never had another.
const revivedKey = 3

// applyPlace gives the inode of a restore its place.
func (s *space) applyPlace(seq journal.Seq, r *placeRecord) error {
	n, err := s.change(r.Ino)
	if err != nil {
		return err
	}
	named := false
	if r.Over != 0 {
		o, err := s.change(r.Over)
		if err != nil {
			return err
		}
		named = len(o.Links) > 0
		if err := s.takeOver(seq, n, o, r.Time); err != nil {
			return err
		}
	} else if !r.Object.IsZero() && n.Object.IsZero() {
		n.Object, n.Contents, n.DirtyNew = r.Object, r.Contents, 0
		n.NextKey = max(n.NextKey, revivedKey) // the object may have had other links
		s.ix.SetObject(n.Object, n.Ino)
		if r.Same {
			n.DirtyContent, n.DirtyMtime, n.DirtyXattrs = 0, 0, nil
		} else {
			s.allDirty(seq, n)
			for _, name := range r.Xattrs {
				dirtyXattr(seq, n, name)
			}
		}
	}
	n.Ctime = changed(n.Ctime, r.Time)
	if !named {
		dir, err := s.change(r.Parent)
		if err != nil {
			return err
		}
		if err := s.addEntry(dir, r.Name, n, r.Time); err != nil {
			return err
		}
		n.Links = append(n.Links, index.Link{Key: n.NextKey, Parent: r.Parent, Name: r.Name, ID: r.Link, Val: r.Val, Dirty: seq})
		n.NextKey++
		n.Parent = r.Parent
		s.setOrphan(n, false)
	}
	if r.TrashDir != 0 {
		s.dropTrash(r.TrashDir, r.TrashAt, n.Object, r.Parent)
	}
	if r.TrashBefore != 0 {
		if err := s.noteBefore(n.Ino, r.TrashBefore); err != nil {
			return s.damaged(err)
		}
	}
	s.markDirty(n)
	return nil
}

// allDirty marks everything of an inode that differs from what its object was published as.
func (s *space) allDirty(seq journal.Seq, n *index.Inode) {
	n.DirtyMode = seq
	if n.Owned {
		n.DirtyOwner = seq
	}
	switch n.Type() {
	case syscall.S_IFREG:
		n.DirtyContent = seq
	case syscall.S_IFLNK:
		n.DirtyTarget, n.DirtyMtime = seq, seq
	default:
		n.DirtyMtime = seq
	}
}

// takeOver lets n go on with everything that o stands for, its names and its object; o is left without both. What o has to
// publish is published before, but for removals, which n takes along.
func (s *space) takeOver(seq journal.Seq, n, o *index.Inode, t int64) error {
	for i := range o.Links {
		l := &o.Links[i]
		e, at, err := s.lookup(l.Parent, l.Name)
		if err != nil {
			return err
		}
		dir, err := s.change(l.Parent)
		if err != nil {
			return err
		}
		if e == nil || e.Ino != o.Ino {
			return s.damaged(errors.New("a name of an inode stands for another"))
		}
		x := *e
		x.Ino, x.Type = n.Ino, n.Type()
		s.ix.SetEntry(l.Parent, at, x)
		touch(dir, t)
	}
	n.Object, n.Contents, n.Also = o.Object, o.Contents, o.Also
	n.Links, n.NextKey, n.Parent = append([]index.Link(nil), o.Links...), max(o.NextKey, n.NextKey), o.Parent
	n.Gone = append(append([]index.Gone(nil), n.Gone...), o.Gone...)
	if !n.Object.IsZero() {
		s.ix.SetObject(n.Object, n.Ino)
		n.DirtyNew = 0
	}
	s.allDirty(seq, n)
	if o.Owned && !n.Owned {
		// Who owns a file can't be taken back to nobody: it stays.
		n.Owned, n.UID, n.GID = true, o.UID, o.GID
	}
	attributesOver(seq, n, o)
	n.DirtyXattrs = unionDirty(seq, n.Xattrs, o.Xattrs, o.DirtyXattrs)
	o.Object, o.Contents, o.Also, o.Gone, o.Links = dag.ID{}, nil, nil, nil, nil
	o.DirtyNew, o.DirtyMode, o.DirtyContent = seq, seq, seq
	o.DirtyXattrs = unionDirty(seq, o.Xattrs, nil, nil)
	o.Ctime = changed(o.Ctime, t)
	s.setOrphan(o, true)
	if len(n.Links) > 0 {
		s.setOrphan(n, false)
	}
	s.markDirty(n)
	return nil
}
