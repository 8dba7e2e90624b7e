package memfs

import (
	"context"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/fs"
)

// Getattr returns what stat shows.
func (m *FS) Getattr(ino fs.Ino) (fs.Attr, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	in, err := m.getLocked(ino)
	if err != nil {
		return fs.Attr{}, err
	}
	return in.attrLocked(), nil
}

// Setattr changes the attributes that are given.
func (m *FS) Setattr(_ context.Context, ino fs.Ino, s fs.SetAttr) (fs.Attr, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	in, err := m.getLocked(ino)
	if err != nil {
		return fs.Attr{}, err
	}
	if err := m.set(in, s); err != nil {
		return fs.Attr{}, err
	}
	return in.attrLocked(), nil
}

func (m *FS) set(in *inode, s fs.SetAttr) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if s.Size != nil {
		if err := m.truncateLocked(in, *s.Size); err != nil {
			return err
		}
	}
	if s.KillPriv {
		in.killPrivLocked()
	}
	if s.Mode != nil {
		in.attr.Mode = in.kind | *s.Mode&0o7777
	}
	if s.UID != nil {
		in.attr.UID = *s.UID
	}
	if s.GID != nil {
		in.attr.GID = *s.GID
	}
	in.touchLocked(s.Size != nil && s.Mtime == nil)
	if s.Atime != nil {
		in.attr.Atime = *s.Atime
	}
	if s.Mtime != nil {
		in.attr.Mtime = *s.Mtime
	}
	return nil
}

func (m *FS) truncateLocked(in *inode, size int64) error {
	switch {
	case in.dir != nil:
		return fs.ErrIsDir
	case in.kind != syscall.S_IFREG || size < 0:
		return fs.ErrInvalid
	}
	if size < in.attr.Size {
		before := in.data.allocated()
		in.data.zero(size, in.attr.Size)
		m.used.Add(in.data.allocated() - before)
	}
	in.attr.Size = size
	return nil
}

// Getxattr returns one extended attribute; the caller must not change it.
func (m *FS) Getxattr(ino fs.Ino, name string) ([]byte, error) {
	in, err := m.get(ino)
	if err != nil {
		return nil, err
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	v, ok := in.xattrs[name]
	if !ok {
		return nil, fs.ErrNoAttr
	}
	return v, nil
}

// Setxattr stores one; it keeps nothing of value.
func (m *FS) Setxattr(ino fs.Ino, name string, value []byte, flags uint32) error {
	in, err := m.get(ino)
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	_, had := in.xattrs[name]
	switch {
	case len(name) > fs.MaxName:
		return syscall.ERANGE
	case len(value) > fs.MaxXattr:
		return syscall.E2BIG
	case had && flags == fs.XattrCreate:
		return fs.ErrExist
	case !had && flags == fs.XattrReplace:
		return fs.ErrNoAttr
	}
	if in.xattrs == nil {
		in.xattrs = make(map[string][]byte)
	}
	in.xattrs[name] = slices.Clone(value)
	in.touchLocked(false)
	return nil
}

// Listxattr returns the names, sorted.
func (m *FS) Listxattr(ino fs.Ino) ([]string, error) {
	in, err := m.get(ino)
	if err != nil {
		return nil, err
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	names := make([]string, 0, len(in.xattrs))
	for name := range in.xattrs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// Removexattr removes one.
func (m *FS) Removexattr(ino fs.Ino, name string) error {
	in, err := m.get(ino)
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, ok := in.xattrs[name]; !ok {
		return fs.ErrNoAttr
	}
	delete(in.xattrs, name)
	in.touchLocked(false)
	return nil
}
