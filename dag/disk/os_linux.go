package disk

import (
	"errors"
	iofs "io/fs"

	"golang.org/x/sys/unix"
)

func (d *osFS) Free() (avail, total int64, err error) {
	f, err := d.root.Open(".")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	err = retry(func() error { return unix.Fstatfs(int(f.Fd()), &st) })
	if err != nil {
		return 0, 0, &iofs.PathError{Op: "statfs", Path: d.root.Name(), Err: err}
	}
	unit := int64(st.Frsize)
	if unit == 0 {
		unit = int64(st.Bsize)
	}
	return int64(st.Bavail) * unit, int64(st.Blocks-st.Bfree+st.Bavail) * unit, nil
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// control runs a system call on the descriptor, which stays open meanwhile.
func (f *osFile) control(op string, call func(fd int) error) error {
	c, err := f.File.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if c.Control(func(fd uintptr) { serr = retry(func() error { return call(int(fd)) }) }) != nil {
		serr = iofs.ErrClosed // Control has no other error
	}
	if serr != nil {
		return &iofs.PathError{Op: op, Path: f.Name(), Err: serr}
	}
	return nil
}

func (f *osFile) Sync() error { return f.control("fdatasync", unix.Fdatasync) }

func (f *osFile) Uncache() {
	_ = f.control("uncache", func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}

func (f *osFile) Ahead(off, n int64) {
	_ = f.control("read ahead", func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED) })
}

func (f *osFile) Reserve(off, n int64) error {
	if off < 0 || n < 0 {
		return &iofs.PathError{Op: "reserve", Path: f.Name(), Err: iofs.ErrInvalid}
	}
	if n == 0 {
		return nil
	}
	err := f.control("reserve", func(fd int) error { return unix.Fallocate(fd, 0, off, n) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.extend(off, n)
	}
	return err
}

func (f *osFile) PunchHole(off, n int64) error {
	if off < 0 || n < 0 {
		return &iofs.PathError{Op: "punch", Path: f.Name(), Err: iofs.ErrInvalid}
	}
	if n == 0 {
		return nil
	}
	err := f.control("punch", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	return zero(f, off, min(n, size-off))
}
