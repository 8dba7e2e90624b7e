// Package mount shows a home as a directory of the operating system, through FUSE, and keeps the daemon that does it.
//
// It is alone in knowing FUSE. Everything the kernel may remember it remembers without time limit, since the daemon is
// the only way in: names that exist, names that do not, attributes, listings, links and pages. What then
// changes behind the kernel's back is taken back by notifications (notify.go). A *nodeid* is the kernel's number for an
// inode, never reused within a mount; a *handle* is the backend's. MOUNT.md says what is promised and how it is done.
//
// The package's other half is the life of a daemon: the lock of a home, detaching, readiness, the log, the order in
// which things stop. Its control socket is package control.
package mount

import (
	"context"

	"github.com/anyfs/anyfs/fs"
)

// Backend is what a mount shows: *fs.Home, or memfs.FS in tests and benchmarks.
//
// Inodes are named by handle (fs.Attr.Handle, or Ino where that is 0). All calls complete from local state, but
// for those that need content which is absent; these wait as long as ctx lets them. All are safe for
// concurrent use, and none keeps a slice that it was given. Errors hold a syscall.Errno.
type Backend interface {
	SpaceRoot(name string) (fs.Ino, error)

	Lookup(parent fs.Ino, name string) (fs.Attr, error)
	Getattr(ino fs.Ino) (fs.Attr, error)
	Setattr(ctx context.Context, ino fs.Ino, s fs.SetAttr) (fs.Attr, error)
	// ReadDir calls fn for the entries after off, without "." and "..". Offsets are above 2.
	ReadDir(dir fs.Ino, off uint64, fn func(fs.Dirent) bool) error
	Parent(dir fs.Ino) (fs.Ino, error)
	// Prefetch says that attributes of these are about to be asked for, one after the other.
	Prefetch(inos []fs.Ino)

	Mknod(parent fs.Ino, name string, mode, rdev uint32, c fs.Cred) (fs.Attr, error)
	Mkdir(parent fs.Ino, name string, mode uint32, c fs.Cred) (fs.Attr, error)
	Symlink(parent fs.Ino, name, target string, c fs.Cred) (fs.Attr, error)
	Link(ino, parent fs.Ino, name string) (fs.Attr, error)
	Tmpfile(parent fs.Ino, mode uint32, c fs.Cred) (fs.Attr, error)
	Unlink(parent fs.Ino, name string) error
	Rmdir(parent fs.Ino, name string) error
	Rename(parent fs.Ino, name string, newParent fs.Ino, newName string, flags uint32) error
	Readlink(ino fs.Ino) (string, error)

	Read(ctx context.Context, ino fs.Ino, p []byte, off int64) (int, error)
	Write(ctx context.Context, ino fs.Ino, p []byte, off int64, f fs.WriteFlags) (int, error)
	Fallocate(ctx context.Context, ino fs.Ino, mode uint32, off, n int64) error
	Seek(ino fs.Ino, off int64, whence int) (int64, error)
	CopyRange(ctx context.Context, src fs.Ino, srcOff int64, dst fs.Ino, dstOff, n int64) (int64, error)
	Fsync(ctx context.Context, ino fs.Ino) error

	Getxattr(ino fs.Ino, name string) ([]byte, error)
	Setxattr(ino fs.Ino, name string, value []byte, flags uint32) error
	Listxattr(ino fs.Ino) ([]string, error)
	Removexattr(ino fs.Ino, name string) error

	StatFS() fs.StatFS

	// Ref and Unref of an inode that is gone do nothing.
	Ref(ino fs.Ino)
	Unref(ino fs.Ino)

	Events(fn func([]fs.Event)) (cancel func())
}
