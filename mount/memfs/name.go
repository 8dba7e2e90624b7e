package memfs

import (
	"syscall"

	"github.com/anyfs/anyfs/fs"
)

const (
	setgid    = syscall.S_ISGID
	maxTarget = 4095
)

// Mknod makes a file or special file.
func (m *FS) Mknod(parent fs.Ino, name string, mode, rdev uint32, c fs.Cred) (fs.Attr, error) {
	if mode&syscall.S_IFMT == 0 {
		mode |= syscall.S_IFREG
	}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		return fs.Attr{}, fs.ErrInvalid
	}
	return m.create(parent, name, mode, c, func(in *inode) { in.attr.Rdev = rdev })
}

// Mkdir makes an empty directory.
func (m *FS) Mkdir(parent fs.Ino, name string, mode uint32, c fs.Cred) (fs.Attr, error) {
	return m.create(parent, name, mode&^syscall.S_IFMT|syscall.S_IFDIR, c, func(*inode) {})
}

// Symlink makes a symbolic link to any text of 1 to 4095 bytes.
func (m *FS) Symlink(parent fs.Ino, name, target string, c fs.Cred) (fs.Attr, error) {
	if target == "" {
		return fs.Attr{}, fs.ErrNotExist
	}
	if len(target) > maxTarget {
		return fs.Attr{}, fs.ErrNameTooLong
	}
	return m.create(parent, name, syscall.S_IFLNK|0o777, c, func(in *inode) {
		in.target, in.attr.Size = target, int64(len(target))
	})
}

// create makes an inode and its first name.
func (m *FS) create(parent fs.Ino, name string, mode uint32, c fs.Cred, with func(*inode)) (fs.Attr, error) {
	if err := checkName(name); err != nil {
		return fs.Attr{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.liveDirLocked(parent)
	if err != nil {
		return fs.Attr{}, err
	}
	if dir.dir.names[name] != nil {
		return fs.Attr{}, fs.ErrExist
	}
	in := m.addLocked(dir, mode, c)
	with(in)
	in.nlink = 1
	if in.dir != nil {
		in.nlink = 2
	}
	m.insert(dir, name, in)
	dir.touch(true)
	return in.attrLocked(), nil
}

// addLocked makes an inode with no name, as a child of dir would be.
func (m *FS) addLocked(dir *inode, mode uint32, c fs.Cred) *inode {
	dir.mu.RLock()
	if dir.attr.Mode&setgid != 0 {
		c.GID = dir.attr.GID
		if mode&syscall.S_IFMT == syscall.S_IFDIR {
			mode |= setgid
		}
	}
	dir.mu.RUnlock()
	in := m.makeInode(m.next, mode, c)
	m.next++
	m.inodes[in.handle] = in
	return in
}

// liveDirLocked returns a directory in which names can be made: not one that was removed.
func (m *FS) liveDirLocked(ino fs.Ino) (*inode, error) {
	dir, err := m.getDirLocked(ino)
	if err == nil && dir.nlink == 0 {
		err = fs.ErrNotExist
	}
	return dir, err
}

// Tmpfile makes a file without a name. It lives while somebody holds it: the caller must Ref it.
func (m *FS) Tmpfile(parent fs.Ino, mode uint32, c fs.Cred) (fs.Attr, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.liveDirLocked(parent)
	if err != nil {
		return fs.Attr{}, err
	}
	return m.addLocked(dir, mode&^syscall.S_IFMT|syscall.S_IFREG, c).attrLocked(), nil
}

// Link gives a file one more name, or a file without a name its first.
func (m *FS) Link(ino, parent fs.Ino, name string) (fs.Attr, error) {
	if err := checkName(name); err != nil {
		return fs.Attr{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	in, err := m.getLocked(ino)
	if err != nil {
		return fs.Attr{}, err
	}
	dir, err := m.liveDirLocked(parent)
	switch {
	case err != nil:
		return fs.Attr{}, err
	case in.dir != nil:
		return fs.Attr{}, fs.ErrPerm
	case dir.dir.names[name] != nil:
		return fs.Attr{}, fs.ErrExist
	case in.nlink >= fs.MaxLinks:
		return fs.Attr{}, syscall.EMLINK
	}
	in.nlink++
	m.insert(dir, name, in)
	in.touch(false)
	dir.touch(true)
	return in.attrLocked(), nil
}

// Unlink takes a name from a file.
func (m *FS) Unlink(parent fs.Ino, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, e, err := m.entryLocked(parent, name)
	if err != nil {
		return err
	}
	if e.in.dir != nil {
		return fs.ErrIsDir
	}
	m.dropLocked(dir, e)
	dir.touch(true)
	return nil
}

// Rmdir removes an empty directory.
func (m *FS) Rmdir(parent fs.Ino, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, e, err := m.entryLocked(parent, name)
	switch {
	case err != nil:
		return err
	case e.in.dir == nil:
		return fs.ErrNotDir
	case len(e.in.dir.names) > 0:
		return fs.ErrNotEmpty
	}
	m.dropLocked(dir, e)
	dir.touch(true)
	return nil
}

func (m *FS) entryLocked(parent fs.Ino, name string) (*inode, *entry, error) {
	if len(name) > fs.MaxName {
		return nil, nil, fs.ErrNameTooLong
	}
	dir, err := m.getDirLocked(parent)
	if err != nil {
		return nil, nil, err
	}
	e := dir.dir.names[name]
	if e == nil {
		return nil, nil, fs.ErrNotExist
	}
	return dir, e, nil
}

// dropLocked removes an entry, and one link of its inode (both of a directory's).
func (m *FS) dropLocked(dir *inode, e *entry) {
	m.remove(dir, e)
	e.in.nlink--
	if e.in.dir != nil {
		e.in.nlink = 0
	}
	e.in.touch(false)
	m.reapLocked(e.in)
}

// Rename moves an entry, over another one or in exchange with it as the flags say.
func (m *FS) Rename(parent fs.Ino, name string, newParent fs.Ino, newName string, flags uint32) error {
	if flags&^(fs.RenameNoReplace|fs.RenameExchange) != 0 || flags == fs.RenameNoReplace|fs.RenameExchange {
		return fs.ErrInvalid
	}
	if err := checkName(newName); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	from, e, err := m.entryLocked(parent, name)
	if err != nil {
		return err
	}
	to, err := m.liveDirLocked(newParent)
	if err != nil {
		return err
	}
	if within(to, e.in) {
		return fs.ErrInvalid
	}
	over := to.dir.names[newName]
	switch {
	case flags&fs.RenameExchange != 0:
		return m.exchangeLocked(from, e, to, over)
	case over != nil && flags&fs.RenameNoReplace != 0:
		return fs.ErrExist
	case over != nil && over.in == e.in:
		return nil // two names of one file, or the same name
	}
	if over != nil {
		if err := m.replaceLocked(e, to, over); err != nil {
			return err
		}
	}
	m.remove(from, e)
	m.insert(to, newName, e.in)
	m.renamed(from, to, e.in)
	return nil
}

// within reports whether dir is in or below top.
func within(dir, top *inode) bool {
	if top.dir == nil {
		return false
	}
	for {
		if dir == top {
			return true
		}
		if dir.parent == dir || dir.nlink == 0 {
			return false
		}
		dir = dir.parent
	}
}

// replaceLocked removes the entry that a rename goes over.
func (m *FS) replaceLocked(e *entry, to *inode, over *entry) error {
	switch {
	case e.in.dir != nil && over.in.dir == nil:
		return fs.ErrNotDir
	case e.in.dir == nil && over.in.dir != nil:
		return fs.ErrIsDir
	case over.in.dir != nil && len(over.in.dir.names) > 0:
		return fs.ErrNotEmpty
	}
	m.dropLocked(to, over)
	return nil
}

func (m *FS) exchangeLocked(from *inode, e *entry, to *inode, other *entry) error {
	if other == nil {
		return fs.ErrNotExist
	}
	if within(from, other.in) {
		return fs.ErrInvalid
	}
	if e == other {
		return nil
	}
	a, b := e.in, other.in
	m.counted(from, a, -1)
	m.counted(to, b, -1)
	e.in, other.in = b, a
	m.counted(from, b, 1)
	m.counted(to, a, 1)
	m.renamed(from, to, a)
	b.touch(false)
	return nil
}

func (m *FS) renamed(from, to, in *inode) {
	from.touch(true)
	if to != from {
		to.touch(true)
	}
	in.touch(false)
}

// Readlink returns the target of a symbolic link.
func (m *FS) Readlink(ino fs.Ino) (string, error) {
	in, err := m.get(ino)
	if err != nil {
		return "", err
	}
	if in.kind != syscall.S_IFLNK {
		return "", fs.ErrInvalid
	}
	return in.target, nil
}
