package fs

import (
	"context"
	"syscall"
)

// Ino names an inode of the home: the space's slot in the high 16 bits, the space's own object number in the low 48.
//
// It is stable across remounts. The root of the home (whose entries are the spaces) is RootIno.
// Inode numbers with the highest bit set are virtual (views of history under .anyfs), and live until they are unreferenced.
type Ino uint64

// RootIno is the directory of the spaces: the root directory of the home space, which has slot 0.
const RootIno Ino = 1

// Attr is what stat(2) shows. Times are Unix nanoseconds.
type Attr struct {
	Ino Ino
	// Handle is the number that operations take for this version of the inode, where it differs from Ino (0: it does
	// not). A file that changed behind the kernel's back while the kernel held it keeps its Ino and gets a new handle;
	// what the kernel opened before goes on under the old number, with the old content, until it is unreferenced.
	Handle                     Ino
	Mode                       uint32 // type and permission bits, as st_mode
	Nlink                      uint32
	UID, GID                   uint32
	Rdev                       uint32
	Size                       int64
	Blocks                     int64 // of 512 bytes
	Atime, Mtime, Ctime, Btime int64
}

// IsDir reports whether the inode is a directory.
func (a *Attr) IsDir() bool { return a.Mode&syscall.S_IFMT == syscall.S_IFDIR }

// SetAttr says which attributes to change; nil fields stay.
type SetAttr struct {
	Mode         *uint32
	UID, GID     *uint32
	Size         *int64
	Atime, Mtime *int64 // atime is accepted and forgotten
	KillPriv     bool   // clear suid, sgid and security.capability (FATTR_KILL_SUIDGID)
}

// Cred is who makes an inode: the new inode belongs to UID and GID (the parent's group where it is setgid).
type Cred struct{ UID, GID uint32 }

// Dirent is one entry of a listing. Off is the offset that continues after it.
type Dirent struct {
	Name   string
	Ino    Ino
	Handle Ino    // as in Attr
	Mode   uint32 // type bits only
	Off    uint64
}

// WriteFlags qualify one write.
type WriteFlags struct {
	Append   bool // at the end of the newest version, whatever off says
	KillPriv bool // clear suid, sgid and security.capability
}

// Rename flags, with the kernel's values.
const (
	RenameNoReplace = 1
	RenameExchange  = 2
)

// Fallocate modes, with the kernel's values.
const (
	FallocKeepSize  = 0x01
	FallocPunchHole = 0x02
	FallocZeroRange = 0x10
)

// Setxattr flags, with the kernel's values.
const (
	XattrCreate  = 1
	XattrReplace = 2
)

// StatFS is what statfs(2) shows. Units are bytes and inodes.
type StatFS struct {
	Total, Free, Avail uint64
	Files, FilesFree   uint64
	NameLen            uint32
}

// Event tells the mount that something changed in a way that the kernel did not ask for.
type Event struct {
	// Parent and Name say which entry changed; Parent 0 when none did.
	Parent Ino
	Name   string
	// Inode says whose attributes and pages are stale; 0 when none are. Renewed is true when the name shows a new
	// version of a file: the kernel needs a new nodeid for it.
	Inode   Ino
	Renewed bool
	// Kind says what happened to the name, and Dir whether it is a directory's, for who watches the directory. Quiet: that is all there is
	// to tell; the kernel believes nothing that is not so.
	Kind  EventKind
	Dir   bool
	Quiet bool
	// Whole: attributes of all that is in Inode's space are stale.
	Whole bool
}

// EventKind is what happened to the name of an Event.
type EventKind uint8

// The kinds of events.
const (
	EventNone    EventKind = iota // nothing to tell who watches
	EventMade                     // the name came
	EventGone                     // it went
	EventWritten                  // content or attributes of what has it changed
)

// Errors are the errno that POSIX names for the case, so that errors.Is works with io/fs's sentinels and the mount
// answers without a table. Operations wrap them with what was tried on what where a person will read it.
const (
	ErrNotExist    = syscall.ENOENT
	ErrExist       = syscall.EEXIST
	ErrNotDir      = syscall.ENOTDIR
	ErrIsDir       = syscall.EISDIR
	ErrNotEmpty    = syscall.ENOTEMPTY
	ErrNoAttr      = syscall.ENODATA
	ErrReadOnly    = syscall.EROFS
	ErrNoSpace     = syscall.ENOSPC
	ErrQuota       = syscall.EDQUOT // of a network: see SetFull
	ErrCrossSpace  = syscall.EXDEV
	ErrNameTooLong = syscall.ENAMETOOLONG
	ErrInvalid     = syscall.EINVAL
	ErrNotSup      = syscall.EOPNOTSUPP
	ErrPerm        = syscall.EPERM
	ErrIO          = syscall.EIO
	ErrStale       = syscall.ESTALE
	ErrNoKey       = syscall.ENOKEY
)

// MaxName is the longest name in bytes; MaxFileSize the largest file.
const (
	MaxName     = 255
	MaxFileSize = 1<<63 - 1
	MaxXattr    = 64 << 10
	MaxLinks    = 65000
)

// VFS is documentation of the operations that *Home gives to the mount, in one place. Each completes from local state;
// only Read of absent content waits, for as long as ctx lets it. All are safe for concurrent use.
type VFS interface {
	Lookup(parent Ino, name string) (Attr, error)
	Getattr(ino Ino) (Attr, error)
	Setattr(ctx context.Context, ino Ino, s SetAttr) (Attr, error)
	// ReadDir calls fn for the entries after the offset off (0: from the start) in the order of their keyed hash, until fn
	// returns false. "." and ".." are not among them; Parent gives the latter. attrs asks for whole attributes (readdirplus).
	ReadDir(dir Ino, off uint64, fn func(Dirent) bool) error
	Parent(dir Ino) (Ino, error)

	// Mknod makes a file or special file: mode holds type and permissions.
	Mknod(parent Ino, name string, mode, rdev uint32, c Cred) (Attr, error)
	Mkdir(parent Ino, name string, mode uint32, c Cred) (Attr, error)
	Symlink(parent Ino, name, target string, c Cred) (Attr, error)
	Link(ino, parent Ino, name string) (Attr, error)
	Tmpfile(parent Ino, mode uint32, c Cred) (Attr, error) // an inode without a name; Link gives it one
	Unlink(parent Ino, name string) error
	Rmdir(parent Ino, name string) error
	Rename(parent Ino, name string, newParent Ino, newName string, flags uint32) error
	Readlink(ino Ino) (string, error)

	Read(ctx context.Context, ino Ino, p []byte, off int64) (int, error) // short only at the end of the file; io.EOF never
	Write(ctx context.Context, ino Ino, p []byte, off int64, f WriteFlags) (int, error)
	Fallocate(ctx context.Context, ino Ino, mode uint32, off, n int64) error
	Seek(ino Ino, off int64, whence int) (int64, error) // SEEK_DATA (3) and SEEK_HOLE (4)
	CopyRange(ctx context.Context, src Ino, srcOff int64, dst Ino, dstOff, n int64) (int64, error)
	Fsync(ctx context.Context, ino Ino) error

	Getxattr(ino Ino, name string) ([]byte, error)
	Setxattr(ino Ino, name string, value []byte, flags uint32) error
	Listxattr(ino Ino) ([]string, error)
	Removexattr(ino Ino, name string) error

	StatFS() StatFS // never waits for anything

	// Ref keeps an inode alive (as the kernel's lookup count does) though it has no name; Unref ends that, and the inode
	// goes when it has no name. Both are O(1).
	Ref(ino Ino)
	Unref(ino Ino)

	// Events calls fn, from one goroutine that holds no lock, for what changed behind the kernel's back.
	Events(fn func([]Event)) (cancel func())
}
