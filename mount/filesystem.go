package mount

import (
	"log/slog"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const (
	// forever is how long the kernel may believe an answer, in seconds: until it is told otherwise.
	forever = 1 << 32
	// virtualSeconds is how long it may believe what it saw of a view of history, whose changes are not announced.
	virtualSeconds = 1

	probeName = ".anyfs-mount-probe"
	probeID   = math.MaxUint64 - 1
)

// filesystem answers the kernel's requests from a backend. Its methods are in the node_*.go files, by family of calls.
//
// It holds no lock during a call to the backend and starts no goroutine for a request, but one that watches for the
// death of a caller who waits for absent content (wait.go).
type filesystem struct {
	fuse.RawFileSystem // ENOSYS for what is not here

	back     Backend
	kernel   kernel // set before the first request
	nodes    *nodes
	log      *slog.Logger
	uid, gid uint32
	failures failures
	stale    *staleness
	echo     *echo
	once     sync.Once
	stop     chan struct{} // closed when the mount ends: ends all waits

	// caps counts the times that security.capability may have appeared on some inode. A node that was seen without
	// it at the present count has none; so its absence, asked before the first write to each file, costs nothing.
	caps atomic.Uint32
}

var _ fuse.RawFileSystem = (*filesystem)(nil)

func newFilesystem(b Backend, root fs.Ino, uid, gid uint32, log *slog.Logger) *filesystem {
	f := &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		back:          b,
		nodes:         newNodes(root),
		log:           log,
		uid:           uid,
		gid:           gid,
		stop:          make(chan struct{}),
	}
	f.stale = newStaleness(f)
	f.echo = newEcho(f)
	f.caps.Store(1)
	return f
}

func (f *filesystem) String() string { return "anyfs" }

// panicked is what a request answers that met a bug of ours.
func (f *filesystem) panicked(v any) fuse.Status {
	f.log.Error("panic in an operation", "value", v, "stack", string(debug.Stack()))
	return fuse.EIO
}

// entry answers a request that found or made an inode: it gives it a nodeid and counts the kernel's lookup.
func (f *filesystem) entry(a *fs.Attr, out *fuse.EntryOut) {
	h := handleOf(a)
	id, fresh := f.nodes.lookup(h, a.Mode&syscall.S_IFMT)
	if fresh {
		f.back.Ref(h)
	}
	out.NodeId = id
	valid := f.validity(a.Ino)
	out.EntryValid, out.AttrValid = valid, valid
	f.attr(a, &out.Attr)
}

// probe answers for the file that the mount opens once itself, so that the kernel learns that opens need no message
// before the first program makes a file.
func (f *filesystem) probe(out *fuse.Attr) {
	out.Ino = probeID
	out.Mode = syscall.S_IFREG | 0o400
	out.Nlink = 1
	out.Uid, out.Gid = f.uid, f.gid
}

// handleOf returns the number that operations on an inode take.
func handleOf(a *fs.Attr) fs.Ino {
	if a.Handle != 0 {
		return a.Handle
	}
	return a.Ino
}

// validity returns for how many seconds the kernel may believe what it is told of an inode.
func (f *filesystem) validity(ino fs.Ino) uint64 {
	if isVirtual(ino) {
		return virtualSeconds
	}
	return forever
}

// isVirtual reports whether an inode belongs to a view of history.
func isVirtual(ino fs.Ino) bool { return ino>>63 != 0 }

// Forget takes back lookups; it does no I/O.
func (f *filesystem) Forget(id, lookups uint64) {
	if h, gone := f.nodes.forget(id, lookups); gone && !isFiller(h) {
		f.back.Unref(h)
	}
}

// release gives back everything the kernel held when the mount ended: it sends no forgets then.
func (f *filesystem) release() {
	f.nodes.all(func(h fs.Ino) {
		if !isFiller(h) {
			f.back.Unref(h)
		}
	})
}
