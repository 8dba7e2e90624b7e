package memfs

import (
	"context"
	"syscall"

	"github.com/anyfs/anyfs/fs"
)

// file returns the inode of a handle when it is a regular file.
func (m *FS) file(ino fs.Ino) (*inode, error) {
	in, err := m.get(ino)
	switch {
	case err != nil:
		return nil, err
	case in.dir != nil:
		return nil, fs.ErrIsDir
	case in.kind != syscall.S_IFREG:
		return nil, fs.ErrInvalid
	}
	return in, nil
}

// Read fills p from off; it is short only at the end of the file.
func (m *FS) Read(_ context.Context, ino fs.Ino, p []byte, off int64) (int, error) {
	in, err := m.file(ino)
	if err != nil {
		return 0, err
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	if left := in.attr.Size - off; left < int64(len(p)) {
		p = p[:max(left, 0)]
	}
	in.data.read(p, off)
	return len(p), nil
}

// Write stores p at off, or at the end. It keeps nothing of p.
func (m *FS) Write(_ context.Context, ino fs.Ino, p []byte, off int64, f fs.WriteFlags) (int, error) {
	in, err := m.file(ino)
	if err != nil {
		return 0, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if f.Append {
		off = in.attr.Size
	}
	if off < 0 || off > fs.MaxFileSize-int64(len(p)) {
		return 0, syscall.EFBIG
	}
	if err := m.grow(in, func() { in.data.write(p, off) }, int64(len(p))); err != nil {
		return 0, err
	}
	in.attr.Size = max(in.attr.Size, off+int64(len(p)))
	if f.KillPriv {
		in.killPrivLocked()
	}
	in.touchLocked(true)
	return len(p), nil
}

// grow does what adds at most n bytes to an inode, when there is space.
func (m *FS) grow(in *inode, do func(), n int64) error {
	if m.used.Load()+n > m.capacity {
		return fs.ErrNoSpace
	}
	before := in.data.allocated()
	do()
	m.used.Add(in.data.allocated() - before)
	return nil
}

// killPrivLocked clears what a change by another than the owner must not leave: suid, sgid where it means execution,
// and security.capability.
func (in *inode) killPrivLocked() {
	if in.dir != nil {
		return
	}
	if in.attr.Mode&syscall.S_IXGRP != 0 {
		in.attr.Mode &^= syscall.S_ISGID
	}
	in.attr.Mode &^= syscall.S_ISUID
	delete(in.xattrs, "security.capability")
}

// Fallocate reserves, zeroes or punches a range.
func (m *FS) Fallocate(_ context.Context, ino fs.Ino, mode uint32, off, n int64) error {
	in, err := m.file(ino)
	if err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return fs.ErrInvalid
	}
	if off > fs.MaxFileSize-n {
		return syscall.EFBIG
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	switch mode {
	case 0, fs.FallocKeepSize:
		if m.used.Load()+n > m.capacity {
			return fs.ErrNoSpace
		}
	case fs.FallocPunchHole | fs.FallocKeepSize, fs.FallocZeroRange, fs.FallocZeroRange | fs.FallocKeepSize:
		before := in.data.allocated()
		in.data.zero(off, off+n)
		m.used.Add(in.data.allocated() - before)
	default:
		return fs.ErrNotSup
	}
	if mode&fs.FallocKeepSize == 0 {
		in.attr.Size = max(in.attr.Size, off+n)
	}
	in.touchLocked(true)
	return nil
}

// Seek finds data (3, SEEK_DATA) or a hole (4, SEEK_HOLE) from off on.
func (m *FS) Seek(ino fs.Ino, off int64, whence int) (int64, error) {
	in, err := m.file(ino)
	if err != nil {
		return 0, err
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	if off < 0 || off >= in.attr.Size {
		return 0, syscall.ENXIO
	}
	switch whence {
	case 3:
		at, ok := in.data.data(off, in.attr.Size)
		if !ok {
			return 0, syscall.ENXIO
		}
		return at, nil
	case 4:
		return in.data.hole(off, in.attr.Size), nil
	}
	return 0, fs.ErrInvalid
}

// CopyRange copies up to n bytes between two files or within one; it is short at the end of the source.
func (m *FS) CopyRange(ctx context.Context, src fs.Ino, srcOff int64, dst fs.Ino, dstOff, n int64) (int64, error) {
	if n < 0 {
		return 0, fs.ErrInvalid
	}
	buf := make([]byte, min(n, 1<<20))
	done := int64(0)
	for done < n {
		got, err := m.Read(ctx, src, buf[:min(int64(len(buf)), n-done)], srcOff+done)
		if err == nil && got > 0 {
			_, err = m.Write(ctx, dst, buf[:got], dstOff+done, fs.WriteFlags{})
		}
		if err != nil && done == 0 {
			return 0, err
		}
		if err != nil || got == 0 {
			break
		}
		done += int64(got)
	}
	return done, nil
}

// Fsync has nothing to do.
func (m *FS) Fsync(_ context.Context, ino fs.Ino) error {
	_, err := m.get(ino)
	return err
}
