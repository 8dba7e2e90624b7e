package mount

import (
	"slices"
	"strings"
	"syscall"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const capability = "security.capability"

// withoutCaps notes that an inode has no security.capability.
func (f *filesystem) withoutCaps(id uint64) {
	if s := f.nodes.slot(id); s != nil {
		s.caps.Store(f.caps.Load())
	}
}

// hasNoCaps reports whether that was noted, and nothing since could have changed it.
func (f *filesystem) hasNoCaps(id uint64) bool {
	s := f.nodes.slot(id)
	return s != nil && s.caps.Load() == f.caps.Load()
}

// trusted is the namespace that the kernel shows to administrators alone.
const trusted = "trusted."

// checkName answers for names that Linux does not know. "system." is that of filesystems which have access lists: we have
// none, and storing one that nobody heeds would be a lie.
func checkName(attr string) fuse.Status {
	for _, namespace := range [...]string{"user.", "security.", trusted} {
		if name, ok := strings.CutPrefix(attr, namespace); ok {
			if name == "" {
				return fuse.EINVAL
			}
			return fuse.OK
		}
	}
	return fuse.Status(syscall.EOPNOTSUPP)
}

// GetXAttr returns a value, or its size when dest is empty.
func (f *filesystem) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return 0, errStale
	}
	if status := checkName(attr); status != fuse.OK {
		return 0, status
	}
	caps := f.caps.Load()
	if attr == capability && f.hasNoCaps(in.NodeId) {
		return 0, fuse.ENODATA
	}
	v, err := f.back.Getxattr(h, attr)
	if err != nil {
		if s := f.nodes.slot(in.NodeId); s != nil && attr == capability && err == fs.ErrNoAttr {
			s.caps.Store(caps)
		}
		return 0, f.status("getxattr", err)
	}
	return give(dest, len(v), func() { copy(dest, v) })
}

// give copies a value of n bytes when dest holds it.
func give(dest []byte, n int, fill func()) (uint32, fuse.Status) {
	switch {
	case n > fs.MaxXattr:
		return 0, fuse.Status(syscall.E2BIG)
	case len(dest) == 0 && n > 0, len(dest) < n:
		return uint32(n), fuse.ERANGE
	}
	fill()
	return uint32(n), fuse.OK
}

// ListXAttr returns the names, each ended by a zero.
func (f *filesystem) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return 0, errStale
	}
	names, err := f.back.Listxattr(h)
	if err != nil {
		return 0, f.status("listxattr", err)
	}
	if in.Uid != 0 {
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, trusted) })
	}
	n := 0
	for _, name := range names {
		n += len(name) + 1
	}
	return give(dest, n, func() {
		p := dest[:0]
		for _, name := range names {
			p = append(append(p, name...), 0)
		}
	})
}

// SetXAttr stores a value.
func (f *filesystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if status := checkName(attr); status != fuse.OK {
		return status
	}
	err := f.back.Setxattr(h, attr, data[:min(int(in.Size), len(data))], in.Flags)
	if attr == capability {
		f.caps.Add(1)
	}
	return f.status("setxattr", err)
}

// RemoveXAttr removes a value.
func (f *filesystem) RemoveXAttr(_ <-chan struct{}, in *fuse.InHeader, attr string) fuse.Status {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if status := checkName(attr); status != fuse.OK {
		return status
	}
	return f.status("removexattr", f.back.Removexattr(h, attr))
}
