//go:build !linux

package disk

import (
	iofs "io/fs"
	"syscall"
)

// Free asks through the path, as there is no portable call on a descriptor.
func (d *osFS) Free() (avail, total int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.root.Name(), &st); err != nil {
		return 0, 0, &iofs.PathError{Op: "statfs", Path: d.root.Name(), Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), (int64(st.Blocks) - int64(st.Bfree) + int64(st.Bavail)) * int64(st.Bsize), nil
}

func (f *osFile) Sync() error { return f.File.Sync() }

func (f *osFile) Uncache() {}

func (f *osFile) Ahead(off, n int64) {}

func (f *osFile) Reserve(off, n int64) error {
	if off < 0 || n < 0 {
		return &iofs.PathError{Op: "reserve", Path: f.Name(), Err: iofs.ErrInvalid}
	}
	return f.extend(off, n)
}

func (f *osFile) PunchHole(off, n int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	if off < 0 || n < 0 {
		return &iofs.PathError{Op: "punch", Path: f.Name(), Err: iofs.ErrInvalid}
	}
	return zero(f, off, min(n, size-off))
}
