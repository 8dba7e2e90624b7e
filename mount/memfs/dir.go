package memfs

import (
	"hash/maphash"
	"strings"

	"github.com/anyfs/anyfs/fs"
	"github.com/tidwall/btree"
)

// directory holds the entries of one directory twice: by name, and by offset in the order of the names' keyed hash.
type directory struct {
	names map[string]*entry
	order btree.Map[uint64, *entry]
}

// entry is a name in a directory. Its offset stays while it lives.
type entry struct {
	name string
	off  uint64
	in   *inode
}

func newDirectory() *directory { return &directory{names: make(map[string]*entry)} }

// offset returns a free offset above 2 for a name: its hash, stepped past the offsets that are taken.
func (d *directory) offset(seed maphash.Seed, name string) uint64 {
	off := maphash.String(seed, name) >> 1
	for {
		if off > 2 {
			if _, taken := d.order.Get(off); !taken {
				return off
			}
		}
		off = (off + 1) & (1<<63 - 1)
	}
}

func (m *FS) insert(dir *inode, name string, in *inode) {
	e := &entry{name: name, off: dir.dir.offset(m.seed, name), in: in}
	dir.dir.names[name] = e
	dir.dir.order.Set(e.off, e)
	m.counted(dir, in, 1)
}

func (m *FS) remove(dir *inode, e *entry) {
	delete(dir.dir.names, e.name)
	dir.dir.order.Delete(e.off)
	m.counted(dir, e.in, -1)
}

// counted keeps the directory's link count, which counts its subdirectories.
func (m *FS) counted(dir, in *inode, n int) {
	if in.dir == nil {
		return
	}
	dir.nlink = uint32(int(dir.nlink) + n)
	if n > 0 {
		in.parent = dir
	}
}

// checkName refuses what cannot be the name of an entry.
func checkName(name string) error {
	switch {
	case len(name) > fs.MaxName:
		return fs.ErrNameTooLong
	case name == "" || strings.ContainsAny(name, "/\x00"):
		return fs.ErrInvalid
	case name == "." || name == "..":
		return fs.ErrExist
	}
	return nil
}

// Lookup finds a name in a directory.
func (m *FS) Lookup(parent fs.Ino, name string) (fs.Attr, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	dir, err := m.getDirLocked(parent)
	if err != nil {
		return fs.Attr{}, err
	}
	if len(name) > fs.MaxName {
		return fs.Attr{}, fs.ErrNameTooLong
	}
	e := dir.dir.names[name]
	if e == nil {
		return fs.Attr{}, fs.ErrNotExist
	}
	return e.in.attrLocked(), nil
}

// Prefetch does nothing: all is in memory.
func (m *FS) Prefetch([]fs.Ino) {}

// ReadDir calls fn for the entries after off, in their order, until fn returns false. fn must not call back.
func (m *FS) ReadDir(ino fs.Ino, off uint64, fn func(fs.Dirent) bool) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	dir, err := m.getDirLocked(ino)
	if err != nil {
		return err
	}
	dir.dir.order.Ascend(off+1, func(_ uint64, e *entry) bool {
		return fn(fs.Dirent{Name: e.name, Ino: e.in.attr.Ino, Handle: e.in.handle, Mode: e.in.kind, Off: e.off})
	})
	return nil
}

// Parent returns the directory that holds a directory; the root holds itself.
func (m *FS) Parent(ino fs.Ino) (fs.Ino, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	dir, err := m.getDirLocked(ino)
	if err != nil {
		return 0, err
	}
	return dir.parent.handle, nil
}
