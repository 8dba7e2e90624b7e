package fs

import (
	"errors"
	"strings"
	"syscall"

	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// viewName is the name under which every directory shows its history. It is not listed, and nothing else can have it.
const viewName = tree.ViewName

// checkName says whether a name can be made.
func checkName(name string) error {
	switch {
	case name == "":
		return ErrNotExist
	case len(name) > MaxName:
		return ErrNameTooLong
	case name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return ErrInvalid
	case name == viewName:
		return ErrExist
	}
	return nil
}

// CheckSpaceName returns ErrInvalid or ErrNameTooLong for what can be the name of no space.
func CheckSpaceName(name string) error {
	err := checkName(name)
	if errors.Is(err, ErrNotExist) || errors.Is(err, ErrExist) {
		return ErrInvalid // none, or that of the views
	}
	return err
}

// Lookup finds a name in a directory.
func (h *Home) Lookup(parent Ino, name string) (Attr, error) {
	if len(name) > MaxName {
		return Attr{}, ErrNameTooLong
	}
	if isView(parent) || name == viewName {
		return h.views.lookup(parent, name)
	}
	s, dir, err := h.space(parent)
	if err != nil {
		return Attr{}, err
	}
	if dir == rootDir {
		if a, shown, err := h.views.inPreview(s, name); shown {
			return a, err
		}
	}
	s.mu.Lock()
	e, _, err := s.lookup(dir, name)
	if err != nil || e == nil {
		if err == nil {
			err = ErrNotExist
			if d, e := s.ix.Inode(dir); e == nil && d != nil && !d.IsDir() {
				err = ErrNotDir
			}
		}
		s.mu.Unlock()
		return Attr{}, err
	}
	n, err := s.inode(e.Ino)
	if err != nil {
		s.mu.Unlock()
		return Attr{}, err
	}
	if s.slot == 0 && dir == rootDir {
		s.mu.Unlock()
		return h.spaceAttr(n)
	}
	a := s.attr(n)
	s.mu.Unlock()
	return s.counted(uint64(a.Ino)&localMask, a), nil
}

// Parent gives the directory that a directory is in; the root's is itself.
func (h *Home) Parent(dir Ino) (Ino, error) {
	if isView(dir) {
		return h.views.parent(dir)
	}
	s, d, err := h.space(dir)
	if err != nil {
		return 0, err
	}
	if d == rootDir {
		return RootIno, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.inode(d)
	if err != nil {
		return 0, err
	}
	return s.ino(n.Parent), nil
}

// readDirStep is how many entries are read under the lock at a time.
const readDirStep = 256

// ReadDir calls fn for the entries after offset off.
func (h *Home) ReadDir(dir Ino, off uint64, fn func(Dirent) bool) error {
	if isView(dir) {
		return h.views.readDir(dir, off, fn)
	}
	s, d, err := h.space(dir)
	if err != nil {
		return err
	}
	if d == rootDir {
		if p := h.views.previewRoot(s); p != nil {
			return h.views.readDir(p.ino, off, fn)
		}
	}
	var step []Dirent
	for {
		step = step[:0]
		s.mu.Lock()
		n, err := s.inode(d)
		if err == nil && !n.IsDir() {
			err = ErrNotDir
		}
		if err == nil {
			err = s.ix.Scan(d, off, func(at uint64, e *index.Entry) bool {
				ino := s.ino(e.Ino)
				step = append(step, Dirent{Name: e.Name, Ino: ino, Mode: e.Type, Off: at})
				return len(step) < readDirStep
			})
			if err != nil {
				err = s.damaged(err)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		for _, e := range step {
			if s.slot == 0 && d == rootDir {
				switch a, err := h.Lookup(RootIno, e.Name); {
				case err == nil:
					e.Ino = a.Ino
				case errors.Is(err, ErrNotExist):
					continue
				default:
					if e.Ino = h.sickRoot(uint64(e.Ino) & localMask); e.Ino>>slotShift == noSlot && h.unknownSick() == nil {
						continue // its folder is gone
					}
				}
			}
			if !fn(e) {
				return nil
			}
			off = e.Off
		}
		if len(step) < readDirStep {
			return nil
		}
	}
}

// newInode prepares the record of an inode that c makes in dir.
func (s *space) newInode(dir *index.Inode, name string, mode, rdev uint32, c Cred, now int64) *createRecord {
	r := &createRecord{Ino: s.nextIno, Name: name, Mode: mode, Rdev: rdev, UID: c.UID, GID: c.GID, Time: now}
	if dir != nil {
		r.Parent = dir.Ino
		if dir.Mode&syscall.S_ISGID != 0 {
			r.GID = s.h.opt.GID
			if dir.Owned {
				r.GID = dir.GID
			}
			if mode&syscall.S_IFMT == syscall.S_IFDIR {
				r.Mode |= syscall.S_ISGID
			}
		}
	}
	r.Owned = r.UID != s.h.opt.UID || r.GID != s.h.opt.GID
	return r
}

// liveDir gives a directory in which something can be made.
func (s *space) liveDir(dir uint64) (*index.Inode, error) {
	if s.gone {
		return nil, ErrStale
	}
	n, err := s.inode(dir)
	if err != nil {
		return nil, err
	}
	if !n.IsDir() {
		return nil, ErrNotDir
	}
	if n.Nlink() == 0 {
		return nil, ErrNotExist
	}
	return n, nil
}

// Mknod makes a file or special file.
func (h *Home) Mknod(parent Ino, name string, mode, rdev uint32, c Cred) (Attr, error) {
	if mode&syscall.S_IFMT == 0 {
		mode |= syscall.S_IFREG
	}
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
	default:
		return Attr{}, ErrInvalid
	}
	return h.make(parent, name, mode, rdev, "", c)
}

// Mkdir makes a directory; in the root of the home, a space.
func (h *Home) Mkdir(parent Ino, name string, mode uint32, c Cred) (Attr, error) {
	if parent == RootIno {
		if err := checkName(name); err != nil {
			return Attr{}, err
		}
		if _, err := h.CreateSpace(name); err != nil {
			return Attr{}, err
		}
		return h.Lookup(parent, name)
	}
	return h.make(parent, name, syscall.S_IFDIR|mode&07777, 0, "", c)
}

// Symlink makes a symbolic link.
func (h *Home) Symlink(parent Ino, name, target string, c Cred) (Attr, error) {
	if target == "" {
		return Attr{}, ErrNotExist
	}
	if len(target) > 4095 {
		return Attr{}, ErrNameTooLong
	}
	return h.make(parent, name, syscall.S_IFLNK|0777, 0, target, c)
}

func (h *Home) make(parent Ino, name string, mode, rdev uint32, target string, c Cred) (Attr, error) {
	if isView(parent) {
		return Attr{}, ErrReadOnly
	}
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	s, dir, err := h.change(parent)
	if err != nil {
		return Attr{}, err
	}
	if s.slot == 0 {
		return Attr{}, ErrPerm // the root holds spaces alone
	}
	var a Attr
	err = s.do(false, func() (*writer, func(*mutation) error, error) {
		if mode&syscall.S_IFMT == syscall.S_IFREG {
			s.awaitAside(dir, name) // releases mu: nothing was looked at yet
		}
		d, err := s.liveDir(dir)
		if err != nil {
			return nil, nil, err
		}
		e, _, err := s.lookup(dir, name)
		if err != nil {
			return nil, nil, err
		}
		if e != nil {
			return nil, nil, ErrExist
		}
		r := s.newInode(d, name, mode, rdev, c, h.now())
		r.Target = target
		if mode&syscall.S_IFMT == syscall.S_IFREG {
			r.Takes = s.takesAside(dir, name, r.Time)
		}
		w := s.record(recCreate)
		r.encode(w)
		return w, func(m *mutation) error {
			if err := s.applyCreate(m.seq, r); err != nil {
				return err
			}
			n, err := s.inode(r.Ino)
			if err != nil {
				return err
			}
			a = s.attr(n)
			s.happened(EventCreated, named{r.Ino, dir, name}, named{}, n.IsDir())
			return nil
		}, nil
	})
	return a, err
}

// takesAside finds the file that was renamed away from a name moments ago, and that a new file of that name goes on with.
func (s *space) takesAside(dir uint64, name string, now int64) uint64 {
	if len(s.asides) == 0 {
		return 0
	}
	k := asideKey{dir, name}
	x, ok := s.asides[k]
	if !ok {
		return 0
	}
	delete(s.asides, k)
	if now-x.time > int64(asideFor) {
		return 0
	}
	n, err := s.ix.Inode(x.ino)
	if err != nil || n == nil || !n.IsRegular() || len(n.Links) != 1 || n.Links[0].Parent != dir || n.Object.IsZero() {
		return 0
	}
	return x.ino
}

// awaitAside waits until the file that was renamed away from a name is in no publication. Under mu, which is released meanwhile.
func (s *space) awaitAside(dir uint64, name string) {
	if x, ok := s.asides[asideKey{dir, name}]; ok {
		s.waitSettled(x.ino)
	}
}

// waitSettled waits until an inode is in no publication that is under way. Under mu, which is released meanwhile.
func (s *space) waitSettled(inos ...uint64) {
	for {
		busy := false
		for _, ino := range inos {
			if _, ok := s.inflight[ino]; ok {
				busy = true
			}
		}
		if !busy {
			return
		}
		s.settled.Wait()
	}
}

// Tmpfile makes a file without a name. The caller takes a reference: the inode goes with the last one, unless it is linked.
func (h *Home) Tmpfile(parent Ino, mode uint32, c Cred) (Attr, error) {
	if isView(parent) {
		return Attr{}, ErrReadOnly
	}
	s, dir, err := h.change(parent)
	if err != nil {
		return Attr{}, err
	}
	if s.slot == 0 {
		return Attr{}, ErrPerm
	}
	var a Attr
	err = s.do(false, func() (*writer, func(*mutation) error, error) {
		d, err := s.liveDir(dir)
		if err != nil {
			return nil, nil, err
		}
		r := s.newInode(d, "", syscall.S_IFREG|mode&07777, 0, c, h.now())
		r.Parent = 0
		w := s.record(recCreate)
		r.encode(w)
		return w, func(m *mutation) error {
			if err := s.applyCreate(m.seq, r); err != nil {
				return err
			}
			n, err := s.inode(r.Ino)
			if err != nil {
				return err
			}
			a = s.attr(n)
			return nil
		}, nil
	})
	return a, err
}

// Link gives an inode one more name.
func (h *Home) Link(ino, parent Ino, name string) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	if isView(parent) {
		return Attr{}, ErrReadOnly
	}
	if isView(ino) {
		return Attr{}, ErrCrossSpace
	}
	s, dir, err := h.change(parent)
	if err != nil {
		return Attr{}, err
	}
	s2, local, err := h.space(ino)
	if err != nil {
		return Attr{}, err
	}
	if s != s2 {
		return Attr{}, ErrCrossSpace
	}
	if s.slot == 0 {
		return Attr{}, ErrPerm
	}
	if err := s.settleStream(local); err != nil {
		return Attr{}, err
	}
	var a Attr
	err = s.do(false, func() (*writer, func(*mutation) error, error) {
		if _, err := s.liveDir(dir); err != nil {
			return nil, nil, err
		}
		n, err := s.inode(local)
		if err != nil {
			return nil, nil, err
		}
		if n.IsDir() {
			return nil, nil, ErrPerm
		}
		if len(n.Links) == 0 && n.Parent != 0 {
			return nil, nil, ErrNotExist // its last name went; a Tmpfile never had one
		}
		if len(n.Links) >= MaxLinks {
			return nil, nil, syscall.EMLINK
		}
		e, _, err := s.lookup(dir, name)
		if err != nil {
			return nil, nil, err
		}
		if e == nil && s.linksAcross(n, dir, name) {
			return nil, nil, ErrCrossSpace
		}
		if e != nil {
			return nil, nil, ErrExist
		}
		r := &linkRecord{Ino: local, Parent: dir, Name: name, Time: h.now()}
		w := s.record(recLink)
		r.encode(w)
		return w, func(m *mutation) error {
			if err := s.applyLink(m.seq, r); err != nil {
				return err
			}
			n, err := s.inode(local)
			if err != nil {
				return err
			}
			a = s.attr(n)
			s.happened(EventCreated, named{local, dir, name}, named{}, false)
			return nil
		}, nil
	})
	return s.counted(local, a), err
}

// Unlink takes a name from a file.
func (h *Home) Unlink(parent Ino, name string) error { return h.remove(parent, name, false) }

// Rmdir removes an empty directory; in the root of the home, an empty space.
func (h *Home) Rmdir(parent Ino, name string) error {
	if parent == RootIno {
		return h.removeSpace(name, true)
	}
	return h.remove(parent, name, true)
}

func (h *Home) remove(parent Ino, name string, dir bool) error {
	if isView(parent) {
		return ErrReadOnly
	}
	switch {
	case len(name) > MaxName:
		return ErrNameTooLong
	case name == ".":
		return ErrInvalid
	case name == "..":
		return ErrNotEmpty
	}
	s, d, err := h.change(parent)
	if err != nil {
		return err
	}
	if name == viewName {
		return ErrPerm
	}
	return s.do(true, func() (*writer, func(*mutation) error, error) {
		if _, err := s.liveDir(d); err != nil {
			return nil, nil, err
		}
		e, _, err := s.lookup(d, name)
		if err != nil {
			return nil, nil, err
		}
		if e == nil {
			return nil, nil, ErrNotExist
		}
		n, err := s.inode(e.Ino)
		if err != nil {
			return nil, nil, err
		}
		switch {
		case dir && !n.IsDir():
			return nil, nil, ErrNotDir
		case !dir && n.IsDir():
			return nil, nil, ErrIsDir
		case dir && n.Entries > 0:
			return nil, nil, ErrNotEmpty
		}
		r := &unlinkRecord{Parent: d, Name: name, Time: h.now()}
		w := s.record(recUnlink)
		r.encode(w)
		ino := e.Ino
		return w, func(m *mutation) error {
			if err := s.applyUnlink(m.seq, r); err != nil {
				return err
			}
			s.happened(EventRemoved, named{ino, d, name}, named{}, dir)
			s.reclaim(ino)
			return nil
		}, nil
	})
}

func (s *space) isInflight(ino uint64) bool { _, ok := s.inflight[ino]; return ok }
