package mount

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// echo has the kernel tell inotify of what changed behind its back.
//
// The kernel tells of what is done through it, and of nothing that it hears by a notification. So what others did is done once
// more, through the mount, by a thread of ours: a name that came is made, one that went is removed, a file that changed gets a time. The
// requests that come of it are recognized by the thread and by what was announced, and answered with what is so already: nothing
// reaches the backend. It is done only in directories that somebody watches, from a goroutine of its own.
type echo struct {
	f     *filesystem
	queue chan []fs.Event
	held  atomic.Int64 // events in queue
	now   atomic.Pointer[echoed]
	fakes atomic.Uint64

	// The goroutine's.
	dir     string
	space   string // shown as dir itself; "" for all
	fuse    int    // our end of the connection
	dev     uint64
	still   *sync.Mutex     // of Options
	off     bool            // nothing can be done through the mount
	watches map[uint64]bool // inodes that are watched
	scanned time.Time
	scan    time.Duration // what the last look for watches took of a processor
}

// echoed is a change that is being done once more.
type echoed struct {
	tid    uint32
	kind   fs.EventKind
	parent fs.Ino
	name   string
	dir    bool
	time   int64 // that the file is given, for show
}

const (
	maxEchoes  = 16384                  // events that wait; what more comes is not told
	scanEvery  = 250 * time.Millisecond // between two looks for watches, at least
	scanShare  = 25                     // looks may take this part of a processor
	echoBit    = 1 << 62                // with the highest bit: handles of what is not there any more, made up for its removal
	echoFiller = 1<<63 | echoBit
)

// pather is a backend that knows the paths of directories.
type pather interface {
	// PathOf gives the path of a directory from the root of the home.
	PathOf(dir fs.Ino) (string, error)
}

func newEcho(f *filesystem) *echo {
	return &echo{f: f, queue: make(chan []fs.Event, 256), still: new(sync.Mutex)}
}

// offer takes what was announced. It never waits.
func (e *echo) offer(events []fs.Event) {
	n := int64(len(events))
	if e.held.Add(n) <= maxEchoes {
		select {
		case e.queue <- events:
			return
		default:
		}
	}
	e.held.Add(-n)
}

// run does what was announced once more, until stop closes.
func (e *echo) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case events := <-e.queue:
			e.batch(events, stop)
			e.held.Add(-int64(len(events)))
		}
	}
}

func (e *echo) batch(events []fs.Event, stop <-chan struct{}) {
	paths, ok := e.f.back.(pather)
	if !ok || e.dev == 0 || e.off {
		return
	}
	if since := time.Since(e.scanned); since > max(scanEvery, scanShare*e.scan) {
		e.scan = processorTime(func() { e.watches = watchesOn(e.dev) }) // not the time: where others work, who begins to watch would be found late
		e.scanned = time.Now()
	}
	if len(e.watches) == 0 {
		return
	}
	type todo struct {
		echoed
		path string
	}
	var list []todo
	dirs := map[fs.Ino]string{}
	for i := range events {
		ev := &events[i]
		if ev.Kind == fs.EventNone || ev.Parent == 0 || !e.watched(ev.Parent) {
			continue
		}
		dir, known := dirs[ev.Parent]
		if !known {
			p, err := paths.PathOf(ev.Parent)
			if err == nil {
				dir, err = e.below(p)
			}
			if err != nil {
				continue // it is gone, or not shown here
			}
			dirs[ev.Parent] = dir
		}
		list = append(list, todo{echoed{kind: ev.Kind, parent: ev.Parent, name: ev.Name, dir: ev.Dir}, dir + "/" + ev.Name})
	}
	if len(list) == 0 {
		return
	}
	// On a thread without our end of the connection: see apart.
	apart(e.fuse, func() {
		defer e.now.Store(nil)
		for i := range list {
			if isClosed(stop) {
				return
			}
			x := &list[i].echoed
			x.tid = uint32(unix.Gettid())
			began := time.Now()
			e.still.Lock()
			e.do(x, list[i].path)
			e.still.Unlock()
			time.Sleep(time.Since(began)) // who unmounts finds the mount unused now and then
		}
	})
}

func (e *echo) watched(dir fs.Ino) bool {
	return e.watches[uint64(dir)] || dir == e.f.nodes.root && e.watches[rootID]
}

// below gives a path from the root of the home as it is seen in the mount.
func (e *echo) below(path string) (string, error) {
	if e.space == "" {
		return filepath.Join(e.dir, path), nil
	}
	if rest, ok := strings.CutPrefix(path, e.space); ok && (rest == "" || rest[0] == '/') {
		return filepath.Join(e.dir, rest), nil
	}
	return "", fs.ErrNotExist
}

// do does one change once more.
func (e *echo) do(x *echoed, path string) {
	id, _, ok := e.f.nodes.find(x.parent)
	if !ok {
		return
	}
	// What the kernel knows of the name by now may be what is to be told.
	forget := func() { e.f.kernel.EntryNotify(id, x.name) }
	switch x.kind {
	case fs.EventMade:
		a, err := e.f.back.Lookup(x.parent, x.name)
		if err != nil {
			return
		}
		for range 2 {
			forget()
			e.now.Store(x)
			if err = e.make(x, &a, path); !errors.Is(err, syscall.EEXIST) {
				return
			}
		}
		e.touch(x, path) // somebody is faster each time
	case fs.EventGone:
		forget()
		e.now.Store(x)
		if x.dir {
			_ = unix.Rmdir(path)
		} else {
			_ = unix.Unlink(path)
		}
		e.now.Store(nil)
		forget()
	case fs.EventWritten:
		e.touch(x, path)
	}
}

// make makes a name, of what is there already.
func (e *echo) make(x *echoed, a *fs.Attr, path string) error {
	switch a.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return unix.Mkdir(path, a.Mode&0o7777)
	case syscall.S_IFLNK:
		target, err := e.f.back.Readlink(handleOf(a))
		if err != nil {
			return err
		}
		return unix.Symlink(target, path)
	}
	return unix.Mknod(path, a.Mode, int(a.Rdev))
}

// touch gives a file a time that is recognized and not kept: the kernel takes that for a modification. Then it is opened to be written
// and closed, which costs no request, and is what many programs wait for.
func (e *echo) touch(x *echoed, path string) {
	y := *x
	y.kind, y.time = fs.EventWritten, 1+rand.Int64N(1<<60)
	e.now.Store(&y)
	err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(y.time)}, unix.AT_SYMLINK_NOFOLLOW)
	e.now.Store(nil)
	if err != nil || x.dir {
		return
	}
	if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		unix.Close(fd)
	}
}

// of returns the change that a request about a name is part of; nil, mostly.
func (e *echo) of(in *fuse.InHeader, parent fs.Ino, name string) *echoed {
	x := e.now.Load()
	if x == nil || x.tid != in.Pid || x.parent != parent || x.name != name || x.kind == fs.EventWritten {
		return nil
	}
	return x
}

// lookup answers for the name of a change: of what is to be made there is nothing yet, what is to be removed is there still.
func (e *echo) lookup(x *echoed, out *fuse.EntryOut) fuse.Status {
	if x.kind == fs.EventMade {
		return fuse.ENOENT
	}
	kind := uint32(syscall.S_IFREG)
	if x.dir {
		kind = syscall.S_IFDIR
	}
	h := fs.Ino(echoFiller | e.fakes.Add(1)&(echoBit-1))
	out.NodeId, _ = e.f.nodes.lookup(h, kind)
	out.AttrValid = forever
	out.Attr = fuse.Attr{Ino: uint64(h), Mode: kind | 0o700, Nlink: 1 + kind>>14&1, Owner: fuse.Owner{Uid: e.f.uid, Gid: e.f.gid}, Blksize: blockBytes}
	return fuse.OK
}

// made answers the request that makes a name with what is there.
func (e *echo) made(x *echoed, in *fuse.InHeader, out *fuse.EntryOut) fuse.Status {
	e.now.CompareAndSwap(x, nil)
	s := e.f.Lookup(nil, in, x.name, out)
	if s == fuse.OK && out.NodeId == 0 {
		s = fuse.ENOENT // it has gone again
	}
	return s
}

// removed answers the request that removes a name. The kernel holds the directory's lock: who makes the name anew waits, or is
// announced later.
func (e *echo) removed(x *echoed) fuse.Status {
	if _, err := e.f.back.Lookup(x.parent, x.name); !errors.Is(err, fs.ErrNotExist) {
		return fuse.EBUSY // it is there again
	}
	return fuse.OK
}

// touched reports whether a request for new attributes is an echo, which changes nothing.
func (e *echo) touched(in *fuse.SetAttrIn) bool {
	x := e.now.Load()
	return x != nil && x.kind == fs.EventWritten && x.tid == in.Pid && in.Valid&attrFields == fuse.FATTR_MTIME &&
		in.Valid&fuse.FATTR_MTIME_NOW == 0 && join(in.Mtime, in.Mtimensec) == x.time
}

// isFiller reports whether a handle was made up for a removal.
func isFiller(h fs.Ino) bool { return h&echoFiller == echoFiller }
