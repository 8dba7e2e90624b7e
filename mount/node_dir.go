package mount

import (
	"errors"
	"syscall"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// errStale makes the kernel look a path up again, asking for every part of it.
const errStale = fuse.Status(syscall.ESTALE)

// Lookup finds a name. That there is none is an answer too, which the kernel remembers.
func (f *filesystem) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if in.NodeId == rootID && name == probeName {
		out.NodeId = probeID
		f.probe(&out.Attr)
		return fuse.OK
	}
	if x := f.echo.of(in, parent, name); x != nil {
		return f.echo.lookup(x, out)
	}
	seen := f.stale.begin()
	var h fs.Ino
	a, err := f.back.Lookup(parent, name)
	switch {
	case err == nil:
		h = handleOf(&a)
		f.entry(&a, out)
	case errors.Is(err, fs.ErrNotExist):
		if !isVirtual(parent) {
			out.EntryValid = forever
		}
	default:
		return f.status("lookup", err)
	}
	if !f.stale.endLookup(seen, parent, name, h) {
		out.EntryValid, out.AttrValid = 0, 0
	}
	return fuse.OK
}

// cred returns who makes an inode.
func cred(in *fuse.InHeader) fs.Cred { return fs.Cred{UID: in.Uid, GID: in.Gid} }

// made answers a request that made a name.
func (f *filesystem) made(op string, a *fs.Attr, err error, out *fuse.EntryOut) fuse.Status {
	if err != nil {
		return f.status(op, err)
	}
	f.entry(a, out)
	return fuse.OK
}

// Create makes a file. The kernel asks only when it knows of none: when there is one all the same, because it came
// from another device just now, the kernel has to look again and open it with its permissions.
func (f *filesystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	a, err := f.back.Mknod(parent, name, in.Mode&0o7777|syscall.S_IFREG, 0, cred(&in.InHeader))
	if err != nil && in.Flags&syscall.O_EXCL == 0 && errors.Is(err, fs.ErrExist) {
		return errStale
	}
	return f.created("create", &a, err, out)
}

// Tmpfile makes a file without a name; Link may give it one.
func (f *filesystem) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	a, err := f.back.Tmpfile(parent, in.Mode&0o7777|syscall.S_IFREG, cred(&in.InHeader))
	return f.created("tmpfile", &a, err, out)
}

func (f *filesystem) created(op string, a *fs.Attr, err error, out *fuse.CreateOut) fuse.Status {
	s := f.made(op, a, err, &out.EntryOut)
	if s == fuse.OK {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
		f.withoutCaps(out.NodeId)
	}
	return s
}

// Mknod makes a file or special file.
func (f *filesystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if x := f.echo.of(&in.InHeader, parent, name); x != nil {
		return f.echo.made(x, &in.InHeader, out)
	}
	a, err := f.back.Mknod(parent, name, in.Mode, in.Rdev, cred(&in.InHeader))
	return f.made("mknod", &a, err, out)
}

// Mkdir makes an empty directory.
func (f *filesystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if x := f.echo.of(&in.InHeader, parent, name); x != nil {
		return f.echo.made(x, &in.InHeader, out)
	}
	a, err := f.back.Mkdir(parent, name, in.Mode&0o7777, cred(&in.InHeader))
	return f.made("mkdir", &a, err, out)
}

// Symlink makes a symbolic link.
func (f *filesystem) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if x := f.echo.of(in, parent, name); x != nil {
		return f.echo.made(x, in, out)
	}
	a, err := f.back.Symlink(parent, name, target, cred(in))
	return f.made("symlink", &a, err, out)
}

// Link makes one more name for a file.
func (f *filesystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	h, ok2 := f.nodes.handle(in.Oldnodeid)
	if !ok || !ok2 {
		return errStale
	}
	seen := f.stale.begin()
	a, err := f.back.Link(h, parent, name)
	status := f.made("link", &a, err, out)
	if !f.stale.endAttr(seen, h) {
		out.AttrValid = 0
	}
	return status
}

// Readlink returns a link's target; the kernel remembers it.
func (f *filesystem) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return nil, errStale
	}
	target, err := f.back.Readlink(h)
	if err != nil {
		return nil, f.status("readlink", err)
	}
	return []byte(target), fuse.OK
}

// Unlink removes a name of a file.
func (f *filesystem) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if x := f.echo.of(in, parent, name); x != nil {
		return f.echo.removed(x)
	}
	return f.status("unlink", f.back.Unlink(parent, name))
}

// Rmdir removes an empty directory.
func (f *filesystem) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if x := f.echo.of(in, parent, name); x != nil {
		return f.echo.removed(x)
	}
	return f.status("rmdir", f.back.Rmdir(parent, name))
}

// Rename moves a name, with NOREPLACE or EXCHANGE where asked.
func (f *filesystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	parent, ok := f.nodes.handle(in.NodeId)
	newParent, ok2 := f.nodes.handle(in.Newdir)
	if !ok || !ok2 {
		return errStale
	}
	if in.Flags&^(fs.RenameNoReplace|fs.RenameExchange) != 0 {
		return fuse.EINVAL
	}
	return f.status("rename", f.back.Rename(parent, name, newParent, newName, in.Flags))
}
