// Package memfs is a filesystem in memory with the semantics that the mount expects of a home.
//
// It is the twin of *fs.Home in the mount's tests and the yardstick of its benchmarks: the same calls with no
// cryptography, no journal and no disk behind them. Top-level directories are plain directories here, so nothing is
// EXDEV. What a test does to it directly, without the kernel, is what another device would do; Emit then tells
// the mount, and Renew gives a file new content as a remote change does.
//
// Two locks: FS.mu guards the tree (entries, inode table, link counts), inode.mu an inode's attributes and content.
// FS.mu comes first.
package memfs

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/fs"
)

// virtual marks the handles of renewed files: numbers that no inode has.
const virtual fs.Ino = 1 << 63

// Options of a filesystem in memory. The zero value is usable.
type Options struct {
	UID, GID      uint32 // owner of the root
	CapacityBytes int64  // 0: 64 GiB
}

// FS is a filesystem in memory. All its methods are safe for concurrent use.
type FS struct {
	seed     maphash.Seed
	capacity int64
	used     atomic.Int64 // bytes of content

	mu      sync.RWMutex
	inodes  map[fs.Ino]*inode // by handle
	next    fs.Ino
	handles fs.Ino

	eventsMu sync.Mutex
	events   map[int]func([]fs.Event)
	eventID  int
}

// inode is one version of one file, directory, symlink or special file.
type inode struct {
	handle fs.Ino // what operations name; set once
	kind   uint32 // type bits; set once
	target string // of a symlink; set once

	// Guarded by FS.mu.
	nlink  uint32
	refs   int64 // of the kernel
	dir    *directory
	parent *inode // of a directory

	mu     sync.RWMutex
	attr   fs.Attr // but for Nlink and Blocks
	xattrs map[string][]byte
	data   content
}

// New makes an empty filesystem.
func New(o Options) *FS {
	if o.CapacityBytes == 0 {
		o.CapacityBytes = 64 << 30
	}
	m := &FS{
		seed:     maphash.MakeSeed(),
		capacity: o.CapacityBytes,
		inodes:   make(map[fs.Ino]*inode),
		next:     fs.RootIno + 1,
		events:   make(map[int]func([]fs.Event)),
	}
	root := m.makeInode(fs.RootIno, syscall.S_IFDIR|0o755, fs.Cred{UID: o.UID, GID: o.GID})
	root.nlink, root.parent = 2, root
	m.inodes[fs.RootIno] = root
	return m
}

// SpaceRoot returns the directory of that name in the root.
func (m *FS) SpaceRoot(name string) (fs.Ino, error) {
	a, err := m.Lookup(fs.RootIno, name)
	if err != nil {
		return 0, err
	}
	if !a.IsDir() {
		return 0, fs.ErrNotDir
	}
	return a.Ino, nil
}

// StatFS answers from two counters.
func (m *FS) StatFS() fs.StatFS {
	free := uint64(max(m.capacity-m.used.Load(), 0))
	return fs.StatFS{Total: uint64(m.capacity), Free: free, Avail: free, Files: 1 << 32, FilesFree: 1 << 31, NameLen: fs.MaxName}
}

// Inodes returns how many inodes there are, with those that only the kernel still holds.
func (m *FS) Inodes() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.inodes)
}

// Ref counts one more holder of the inode. Of one that is gone it does nothing.
func (m *FS) Ref(ino fs.Ino) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in := m.inodes[ino]; in != nil {
		in.refs++
	}
}

// Unref ends one Ref; the inode goes with the last when it has no name.
func (m *FS) Unref(ino fs.Ino) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if in := m.inodes[ino]; in != nil {
		in.refs--
		m.reapLocked(in)
	}
}

// reapLocked frees an inode that nothing names and nobody holds.
func (m *FS) reapLocked(in *inode) {
	if in.nlink > 0 || in.refs > 0 {
		return
	}
	delete(m.inodes, in.handle)
	in.mu.Lock()
	m.used.Add(-in.data.free())
	in.mu.Unlock()
}

// get returns the inode of a handle.
func (m *FS) get(ino fs.Ino) (*inode, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.getLocked(ino)
}

func (m *FS) getLocked(ino fs.Ino) (*inode, error) {
	in := m.inodes[ino]
	if in == nil {
		return nil, fs.ErrStale
	}
	return in, nil
}

func (m *FS) getDirLocked(ino fs.Ino) (*inode, error) {
	in, err := m.getLocked(ino)
	if err != nil {
		return nil, err
	}
	if in.dir == nil {
		return nil, fs.ErrNotDir
	}
	return in, nil
}

// makeInode returns a new inode that is in no table yet.
func (m *FS) makeInode(ino fs.Ino, mode uint32, c fs.Cred) *inode {
	now := time.Now().UnixNano()
	in := &inode{handle: ino, kind: mode & syscall.S_IFMT}
	in.attr = fs.Attr{Ino: ino, Mode: mode, UID: c.UID, GID: c.GID, Atime: now, Mtime: now, Ctime: now, Btime: now}
	if in.kind == syscall.S_IFDIR {
		in.dir = newDirectory()
	}
	return in
}

// attrLocked returns what stat shows. FS.mu is held.
func (in *inode) attrLocked() fs.Attr {
	in.mu.RLock()
	defer in.mu.RUnlock()
	a := in.attr
	a.Nlink = in.nlink
	a.Blocks = (in.data.allocated() + 511) / 512
	if in.handle != a.Ino {
		a.Handle = in.handle
	}
	return a
}

// touch renews the change time, and with it the modification time where the content changed; both strictly grow.
func (in *inode) touch(content bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.touchLocked(content)
}

func (in *inode) touchLocked(content bool) {
	now := time.Now().UnixNano()
	in.attr.Ctime = max(now, in.attr.Ctime+1)
	if content {
		in.attr.Mtime = max(now, in.attr.Mtime+1)
	}
}
