package mount

import (
	"syscall"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// kernel is what notifications go to.
type kernel interface {
	EntryNotify(parent uint64, name string) fuse.Status
	InodeNotify(node uint64, off, length int64) fuse.Status
}

// announce takes back what the kernel believes of what changed behind its back.
//
// The tree has changed before; the caller holds no lock and serves no request, since the kernel makes it wait for the
// directory's lock, which it holds during requests. A name is taken back also where the kernel may have seen that
// there was none. The directory itself always, with its listing: a name that the kernel has never seen fails
// with ENOENT and leaves the listing that lacks it. The content of a regular file never changes under its nodeid, so
// its pages stay: a new version has a handle, hence a nodeid, of its own.
func (f *filesystem) announce(events []fs.Event) {
	f.stale.announced.Add(1)
	f.caps.Add(1)
	dirs := make(map[uint64]fs.Ino)
	for i := range events {
		f.stale.throttle(f.stop)
		e := &events[i]
		if e.Quiet {
			continue
		}
		if e.Parent != 0 {
			if id, _, ok := f.nodes.find(e.Parent); ok {
				f.announceName(id, e)
				dirs[id] = e.Parent
			}
		}
		if e.Whole {
			f.announceSpace(e.Inode)
			continue
		}
		if e.Inode != 0 {
			if id, kind, ok := f.nodes.find(e.Inode); ok {
				f.announceInode(id, kind, e)
			}
		}
	}
	for id, handle := range dirs {
		f.kernel.InodeNotify(id, 0, 0)
		if crossed(f.stale.inodeMark(handle)) {
			f.stale.again(repeat{id: id}, repeatAfter)
		}
	}
	f.echo.offer(events)
}

// announceSpace takes back the attributes of all that the kernel knows of a space, which one of its inodes names.
func (f *filesystem) announceSpace(in fs.Ino) {
	var ids []uint64
	if fs.SameSpace(f.nodes.root, in) {
		ids = append(ids, rootID)
	}
	f.nodes.all(func(handle fs.Ino) {
		if id, _, ok := f.nodes.find(handle); ok && fs.SameSpace(handle, in) {
			ids = append(ids, id)
		}
	})
	for _, id := range ids {
		f.tell(repeat{id: id, attributes: true})
	}
}

func (f *filesystem) announceName(parent uint64, e *fs.Event) {
	f.kernel.EntryNotify(parent, e.Name)
	if crossed(f.stale.nameMark(e.Parent, e.Name)) || crossed(f.stale.inodeMark(e.Parent)) {
		f.stale.again(repeat{id: parent, name: e.Name}, repeatAfter)
	}
}

func (f *filesystem) announceInode(id uint64, kind uint32, e *fs.Event) {
	attributes := kind == syscall.S_IFREG
	if e.Renewed && attributes {
		// A backend that gives no handles to versions shows the new one under the old number.
		a, err := f.back.Lookup(e.Parent, e.Name)
		attributes = err != nil || handleOf(&a) != e.Inode
	}
	r := repeat{id: id, attributes: attributes}
	f.tell(r)
	if crossed(f.stale.inodeMark(e.Inode)) {
		f.stale.again(r, repeatAfter)
	}
}

// tell sends one notification. What the kernel does not know (ENOENT) it need not be told.
func (f *filesystem) tell(r repeat) {
	switch {
	case r.name != "":
		f.kernel.EntryNotify(r.id, r.name)
		f.kernel.InodeNotify(r.id, 0, 0)
	case r.attributes:
		f.kernel.InodeNotify(r.id, -1, 0)
	default:
		f.kernel.InodeNotify(r.id, 0, 0)
	}
}
