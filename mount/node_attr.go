package mount

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const blockBytes = 4096 // st_blksize and the unit of statfs

// attr fills in what stat shows.
func (f *filesystem) attr(a *fs.Attr, out *fuse.Attr) {
	out.Ino = uint64(a.Ino)
	out.Size = uint64(a.Size)
	out.Blocks = uint64(a.Blocks)
	out.Atime, out.Atimensec = split(a.Atime)
	out.Mtime, out.Mtimensec = split(a.Mtime)
	out.Ctime, out.Ctimensec = split(a.Ctime)
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid = a.UID
	out.Gid = a.GID
	out.Rdev = a.Rdev
	out.Blksize = blockBytes
	out.Flags = 0
}

// split turns nanoseconds since 1970, also before it, into seconds and the nanoseconds after them.
func split(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/1e9, ns%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

// join is the reverse of split; what an int64 of nanoseconds does not hold (before 1678, after 2262) is clamped.
func join(sec uint64, nsec uint32) int64 {
	const second = int64(time.Second)
	s := int64(sec)
	switch {
	case s >= math.MaxInt64/second:
		return math.MaxInt64
	case s <= math.MinInt64/second:
		return math.MinInt64
	}
	return s*second + int64(nsec)
}

// GetAttr answers stat when the kernel has no valid attributes: after a change, mostly.
func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == probeID {
		f.probe(&out.Attr)
		return fuse.OK
	}
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	a, err := f.back.Getattr(h)
	if err != nil {
		return f.status("getattr", err)
	}
	out.AttrValid = f.validity(a.Ino)
	f.attr(&a, &out.Attr)
	return fuse.OK
}

// Statx is asked by who wants the time of birth, once for each inode.
func (f *filesystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	a, err := f.back.Getattr(h)
	if err != nil {
		return f.status("statx", err)
	}
	out.AttrValid = f.validity(a.Ino)
	s := &out.Statx
	s.Mask = unix.STATX_BASIC_STATS | unix.STATX_BTIME
	s.Blksize = blockBytes
	s.Nlink = a.Nlink
	s.Uid, s.Gid = a.UID, a.GID
	s.Mode = uint16(a.Mode)
	s.Ino = uint64(a.Ino)
	s.Size = uint64(a.Size)
	s.Blocks = uint64(a.Blocks)
	s.Atime.Sec, s.Atime.Nsec = split(a.Atime)
	s.Mtime.Sec, s.Mtime.Nsec = split(a.Mtime)
	s.Ctime.Sec, s.Ctime.Nsec = split(a.Ctime)
	s.Btime.Sec, s.Btime.Nsec = split(a.Btime)
	s.RdevMajor, s.RdevMinor = a.Rdev>>8&0xfff, a.Rdev&0xff|a.Rdev>>12&0xfff00
	return fuse.OK
}

// attrChange holds a SetAttr and the values that it points to, in one allocation.
type attrChange struct {
	fs.SetAttr
	mode, uid, gid     uint32
	size, atime, mtime int64
}

// SetAttr changes mode, owner, size and times. With CAP_HANDLE_KILLPRIV_V2 it is ours to clear suid, sgid and
// security.capability: where the kernel says so, and at each change of the owner, one that changes nothing included.
func (f *filesystem) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return fuse.Status(unix.ESTALE)
	}
	seen := f.stale.begin()
	if f.echo.touched(in) {
		a, err := f.back.Getattr(h)
		return f.attrSet(seen, h, &a, err, out)
	}
	c := new(attrChange)
	c.from(in)
	if in.InHeader.Uid != 0 && (in.Valid&attrFields == 0 || in.Valid&fuse.FATTR_KILL_SUIDGID != 0) {
		if err := f.planKill(h, in, c); err != nil {
			return f.status("setattr", err)
		}
	}
	ctx := f.newWait(cancel, &in.InHeader)
	defer ctx.finish()
	a, err := f.back.Setattr(ctx, h, c.SetAttr)
	return f.attrSet(seen, h, &a, err, out)
}

// attrSet answers a request that changed attributes.
func (f *filesystem) attrSet(seen uint64, h fs.Ino, a *fs.Attr, err error, out *fuse.AttrOut) fuse.Status {
	if err != nil {
		return f.status("setattr", err)
	}
	f.attr(a, &out.Attr)
	if out.AttrValid = f.validity(a.Ino); !f.stale.endAttr(seen, h) {
		out.AttrValid = 0
	}
	return fuse.OK
}

// planKill says what a change by one who is not root clears.
//
// One that names no attribute is a chown(2) that changes nothing, or what the kernel sends before a write to a file with suid
// or sgid. It lets anybody do either. The write itself clears what it must, so that the rest is left for the owner. But sgid where
// the group may not execute goes when one from outside the group writes, and of that no later request speaks.
func (f *filesystem) planKill(h fs.Ino, in *fuse.SetAttrIn, c *attrChange) error {
	a, err := f.back.Getattr(h)
	if err != nil {
		return err
	}
	if in.Valid&attrFields == 0 {
		c.KillPriv = in.InHeader.Uid == a.UID
	}
	if a.Mode&(unix.S_ISGID|unix.S_IXGRP) != unix.S_ISGID || a.IsDir() || c.Mode != nil || inGroup(&in.InHeader, a.GID) {
		return nil
	}
	c.mode = a.Mode & 0o7777 &^ unix.S_ISGID
	if c.KillPriv {
		c.mode &^= unix.S_ISUID
	}
	c.Mode = &c.mode
	return nil
}

// inGroup says whether a caller is in a group; where that cannot be found out, it is.
func inGroup(in *fuse.InHeader, gid uint32) bool {
	if in.Gid == gid {
		return true
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", in.Pid))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(b), "\nGroups:")
	line, _, _ := strings.Cut(rest, "\n")
	return !ok || slices.Contains(strings.Fields(line), fmt.Sprint(gid))
}

// attrFields are what a SetAttr can change.
const attrFields = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME

func (c *attrChange) from(in *fuse.SetAttrIn) {
	const owner = fuse.FATTR_UID | fuse.FATTR_GID
	v := in.Valid
	c.KillPriv = v&fuse.FATTR_KILL_SUIDGID != 0 || v&owner != 0 || v&attrFields == 0
	if v&fuse.FATTR_MODE != 0 {
		c.mode = in.Mode & 0o7777
		c.Mode = &c.mode
	}
	if v&fuse.FATTR_UID != 0 {
		c.uid = in.Uid
		c.UID = &c.uid
	}
	if v&fuse.FATTR_GID != 0 {
		c.gid = in.Gid
		c.GID = &c.gid
	}
	if v&fuse.FATTR_SIZE != 0 {
		c.size = int64(in.Size)
		c.Size = &c.size
	}
	if v&fuse.FATTR_ATIME != 0 {
		c.atime = join(in.Atime, in.Atimensec)
		if v&fuse.FATTR_ATIME_NOW != 0 {
			c.atime = time.Now().UnixNano()
		}
		c.Atime = &c.atime
	}
	if v&fuse.FATTR_MTIME != 0 {
		c.mtime = join(in.Mtime, in.Mtimensec)
		if v&fuse.FATTR_MTIME_NOW != 0 {
			c.mtime = time.Now().UnixNano()
		}
		c.Mtime = &c.mtime
	}
}

// StatFs never waits.
func (f *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s := f.back.StatFS()
	out.Bsize, out.Frsize = blockBytes, blockBytes
	out.Blocks = s.Total / blockBytes
	out.Bfree = s.Free / blockBytes
	out.Bavail = s.Avail / blockBytes
	out.Files, out.Ffree = s.Files, s.FilesFree
	out.NameLen = s.NameLen
	return fuse.OK
}

// Access is not asked under default_permissions, but by access(2) and chdir(2) of a mount without them.
func (f *filesystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// Ioctl: there are none.
func (f *filesystem) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return fuse.Status(unix.ENOTTY)
}
