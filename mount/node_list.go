package mount

import (
	"sync"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Offsets of the two entries that the backend does not list. All others come from it.
const (
	offDot    = 1
	offDotDot = 2
)

// Bytes of an entry on the wire beside its name, which is padded to 8.
const (
	direntBytes     = 24
	direntPlusBytes = direntBytes + 40 + 88
)

// listing collects the entries of one reply, outside of the backend's call.
type listing struct {
	entries []fs.Dirent
	outs    []*fuse.EntryOut // in the reply, of those that the kernel now holds
	inos    []fs.Ino
	left    int // bytes
	each    int
}

var listings = sync.Pool{New: func() any { return new(listing) }}

// add is the backend's callback: it takes entries as long as they fit.
func (l *listing) add(d fs.Dirent) bool {
	size := l.each + (len(d.Name)+7)&^7
	if size > l.left {
		return false
	}
	l.left -= size
	l.entries = append(l.entries, d)
	return true
}

// list reads what fits into bytes of the directory after off.
func (f *filesystem) list(dir fs.Ino, isRoot bool, off uint64, bytes, each int) (*listing, error) {
	l := listings.Get().(*listing)
	l.left, l.each = bytes, each
	if off < offDot {
		l.add(fs.Dirent{Name: ".", Ino: dir, Mode: syscall.S_IFDIR, Off: offDot})
	}
	if off < offDotDot {
		up := dir
		if !isRoot {
			if p, err := f.back.Parent(dir); err == nil {
				up = p
			}
		}
		l.add(fs.Dirent{Name: "..", Ino: up, Mode: syscall.S_IFDIR, Off: offDotDot})
		off = 0
	}
	if off == offDotDot {
		off = 0
	}
	err := f.back.ReadDir(dir, off, l.add)
	if err != nil {
		l.done()
		return nil, err
	}
	return l, nil
}

func (l *listing) done() {
	clear(l.entries)
	clear(l.outs)
	l.entries, l.outs = l.entries[:0], l.outs[:0]
	listings.Put(l)
}

// ReadDir lists names.
func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	seen := f.stale.begin()
	l, err := f.list(dir, in.NodeId == rootID, in.Offset, int(in.Size), direntBytes)
	if err != nil {
		return f.status("readdir", err)
	}
	defer l.done()
	for _, d := range l.entries {
		if !out.AddDirEntry(fuse.DirEntry{Name: d.Name, Ino: uint64(d.Ino), Mode: d.Mode, Off: d.Off}) {
			break
		}
	}
	f.stale.endList(seen, dir, in.NodeId)
	return fuse.OK
}

// ReadDirPlus lists names with attributes: what follows a listing then costs no message.
func (f *filesystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	seen := f.stale.begin()
	l, err := f.list(dir, in.NodeId == rootID, in.Offset, int(in.Size), direntPlusBytes)
	if err != nil {
		return f.status("readdirplus", err)
	}
	defer l.done()
	f.prefetch(l)
	now := time.Now().UnixNano()
	for i := range l.entries {
		d := &l.entries[i]
		e := out.AddDirLookupEntry(fuse.DirEntry{Name: d.Name, Ino: uint64(d.Ino), Mode: d.Mode, Off: d.Off})
		if e == nil {
			break
		}
		if d.Off <= offDotDot {
			continue // the kernel takes no attributes for these two
		}
		h := entryHandle(d)
		// An entry without a nodeid is one that the kernel looks up when it needs it: this one changed just now.
		if a, err := f.back.Getattr(h); err == nil {
			f.entry(&a, e)
			out.FixMode(a.Mode)
			f.stale.inodeMark(h).Store(now)
			l.outs = append(l.outs, e)
		}
	}
	if !f.stale.endList(seen, dir, in.NodeId) {
		for _, e := range l.outs {
			e.EntryValid, e.AttrValid = 0, 0
		}
	}
	return fuse.OK
}

func entryHandle(d *fs.Dirent) fs.Ino {
	if d.Handle != 0 {
		return d.Handle
	}
	return d.Ino
}

// prefetch announces what a listing with attributes will ask for.
func (f *filesystem) prefetch(l *listing) {
	l.inos = l.inos[:0]
	for i := range l.entries {
		if d := &l.entries[i]; d.Off > offDotDot {
			l.inos = append(l.inos, entryHandle(d))
		}
	}
	f.back.Prefetch(l.inos)
}

// OpenDir is answered so once; from then on the kernel opens directories by itself, and keeps their listings.
func (f *filesystem) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// FsyncDir makes the directory's changes durable.
func (f *filesystem) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.Fsync(cancel, in)
}
