package fs

import (
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
)

// arriveRecord is what a round of arrival changes in the index. It says all of it: the tree that it follows from is not there in a
// replay.
type arriveRecord struct {
	Mark uint64 // the end of the space's batch log: what it took in stays
	Time int64
	Drop []entryAt // entries that go
	Put  [][]byte  // encoded inodes as they are now, of which each takes the place of the one with its number
	Inos []uint64  // their numbers
	Add  []entryAt // entries that come
	Objs []objectAt
	Gone []goneAt // what goes into the trash

	Graves []objectAt // numbers of directories that are not shown, under which the trash lists what was in them
}

// goneAt says that an object left a directory, with the number that its inode has or had, 0 where there is none; of kind trashBefore, that
// a directory which was deleted had that number.
type goneAt struct {
	Kind trashKind
	entryAt
	Time   int64
	Object dag.ID
	Typ    uint32 // type bits of its mode
	Size   int64
}

// entryAt is a name in a directory, and the inode that it is of.
type entryAt struct {
	Dir  uint64
	Name string
	Ino  uint64
}

// objectAt says which inode stands for an object.
type objectAt struct {
	Object [32]byte
	Ino    uint64
}

func (c *arriveRecord) encode(w *writer) {
	w.uint(c.Mark)
	w.int(c.Time)
	for _, list := range [][]entryAt{c.Drop, c.Add} {
		w.uint(uint64(len(list)))
		for _, e := range list {
			w.uint(e.Dir)
			w.str(e.Name)
			w.uint(e.Ino)
		}
	}
	w.uint(uint64(len(c.Put)))
	for i, b := range c.Put {
		w.uint(c.Inos[i])
		w.bytes(b)
	}
	w.uint(uint64(len(c.Objs)))
	for _, o := range c.Objs {
		w.id(o.Object)
		w.uint(o.Ino)
	}
	w.uint(uint64(len(c.Gone)))
	for _, g := range c.Gone {
		w.uint(uint64(g.Kind))
		w.uint(g.Dir)
		w.str(g.Name)
		w.uint(g.Ino)
		w.int(g.Time)
		w.id(g.Object)
		w.uint(uint64(g.Typ))
		w.int(g.Size)
	}
	w.uint(uint64(len(c.Graves)))
	for _, o := range c.Graves {
		w.id(o.Object)
		w.uint(o.Ino)
	}
}

func (c *arriveRecord) decode(r *reader) error {
	c.Mark, c.Time = r.uint(), r.int()
	for _, list := range []*[]entryAt{&c.Drop, &c.Add} {
		n := r.uint()
		if n > uint64(len(r.b)) {
			return errRecord
		}
		for range n {
			*list = append(*list, entryAt{r.uint(), r.str(), r.uint()})
		}
	}
	n := r.uint()
	if n > uint64(len(r.b)) {
		return errRecord
	}
	for range n {
		c.Inos = append(c.Inos, r.uint())
		c.Put = append(c.Put, r.bytes())
	}
	if n = r.uint(); n > uint64(len(r.b)) {
		return errRecord
	}
	for range n {
		c.Objs = append(c.Objs, objectAt{r.id(), r.uint()})
	}
	if n = r.uint(); n > uint64(len(r.b)) {
		return errRecord
	}
	for range n {
		c.Gone = append(c.Gone, goneAt{trashKind(r.uint()), entryAt{r.uint(), r.str(), r.uint()}, r.int(), r.id(), uint32(r.uint()), r.int()})
	}
	if n = r.uint(); n > uint64(len(r.b)) {
		return errRecord
	}
	for range n {
		c.Graves = append(c.Graves, objectAt{r.id(), r.uint()})
	}
	return r.end()
}

// applyArrive brings in what a round found. made has the inodes of r.Put, which it takes over; nil in a replay, where they are decoded. Under mu.
func (s *space) applyArrive(seq journal.Seq, r *arriveRecord, made map[uint64]*index.Inode) error {
	for _, d := range r.Drop {
		e, at, err := s.lookup(d.Dir, d.Name)
		if err != nil {
			return err
		}
		if e == nil || e.Ino != d.Ino {
			return ErrNotExist
		}
		dir, err := s.change(d.Dir)
		if err != nil {
			return err
		}
		s.removeEntry(dir, e, at, r.Time)
	}
	for i, b := range r.Put {
		var old *index.Inode
		var err error
		n := made[r.Inos[i]]
		if made == nil {
			if n, err = index.DecodeInode(b); err != nil {
				return s.damaged(err)
			}
			n.Ino = r.Inos[i]
		}
		if n.Ino < s.nextIno { // else the number was never given
			if old, err = s.ix.Inode(n.Ino); err != nil {
				return s.damaged(err)
			}
		}
		if old != nil {
			s.forgetCopy(old)
		}
		if old == nil {
			s.objects++
		} else if n.IsDir() { // these are counted by the entries that come and go
			n.Entries, n.Subdirs = old.Entries, old.Subdirs
			n.Mtime, n.Ctime = max(n.Mtime, old.Mtime), max(n.Ctime, old.Ctime)
		}
		s.nextIno = max(s.nextIno, n.Ino+1)
		if rootOf(old) != rootOf(n) {
			if old != nil {
				s.outdated(old)
			}
			s.noteUpload(n)
		}
		s.ix.Add(n)
		s.noteCopy(n)
		if n.Ino != rootDir {
			s.setOrphan(n, len(n.Links) == 0)
		}
	}
	for _, a := range r.Add {
		dir, err := s.change(a.Dir)
		if err != nil {
			return err
		}
		n, err := s.change(a.Ino)
		if err != nil {
			return err
		}
		if err := s.addEntry(dir, a.Name, n, r.Time); err != nil {
			return err
		}
	}
	for _, o := range r.Objs {
		s.ix.SetObject(o.Object, o.Ino)
	}
	for _, o := range r.Graves {
		s.nextIno = max(s.nextIno, o.Ino+1)
		s.noteGrave(o.Object, o.Ino)
	}
	for i := range r.Gone {
		g := &r.Gone[i]
		var err error
		if g.Kind == trashBefore {
			err = s.noteBefore(g.Dir, g.Ino)
		} else {
			err = s.bury(g)
		}
		if err != nil {
			return s.damaged(err)
		}
	}
	for _, ino := range r.Inos {
		n, err := s.inode(ino)
		if err != nil {
			return err
		}
		s.markDirty(n)
		if n.Mode&syscall.S_IFMT == syscall.S_IFREG && n.Patched.Count > 0 {
			s.notePatched(n)
		}
	}
	return nil
}
