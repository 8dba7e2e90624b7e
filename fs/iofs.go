package fs

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// FS shows a home, or what is below one of its directories, as an io/fs.FS. It is read-only, and follows no symbolic links.
// It is safe for concurrent use; a File it opens is not.
func (h *Home) FS(dir Ino) iofs.FS { return &fileSystem{h: h, root: dir} }

type fileSystem struct {
	h    *Home
	root Ino
}

var (
	_ iofs.ReadDirFS  = (*fileSystem)(nil)
	_ iofs.ReadFileFS = (*fileSystem)(nil)
	_ iofs.StatFS     = (*fileSystem)(nil)
	_ iofs.ReadLinkFS = (*fileSystem)(nil)
)

// find walks to a path; what is the operation, for errors.
func (f *fileSystem) find(what, name string) (Attr, error) {
	fail := func(err error) (Attr, error) {
		var errno syscall.Errno
		if errors.As(err, &errno) && errno.Is(iofs.ErrNotExist) || errors.Is(err, ErrNotDir) {
			err = iofs.ErrNotExist
		}
		return Attr{}, &iofs.PathError{Op: what, Path: name, Err: err}
	}
	if !iofs.ValidPath(name) {
		return fail(iofs.ErrInvalid)
	}
	a, err := f.h.Getattr(f.root)
	if name != "." {
		for _, part := range strings.Split(name, "/") {
			if err != nil {
				break
			}
			if !a.IsDir() {
				err = ErrNotDir
				break
			}
			a, err = f.h.Lookup(a.Node(), part)
		}
	}
	if err != nil {
		return fail(err)
	}
	return a, nil
}

// Node is the number that operations take for the inode: its handle, where that is not its number.
func (a *Attr) Node() Ino {
	if a.Handle != 0 {
		return a.Handle
	}
	return a.Ino
}

// Open opens a file or a directory.
func (f *fileSystem) Open(name string) (iofs.File, error) {
	a, err := f.find("open", name)
	if err != nil {
		return nil, err
	}
	i := fileInfo{path.Base(name), a}
	f.h.Ref(a.Node())
	if a.IsDir() {
		return &openDir{fs: f, path: name, info: i}, nil
	}
	return &openFile{fs: f, path: name, info: i}, nil
}

// Stat describes what is at a path.
func (f *fileSystem) Stat(name string) (iofs.FileInfo, error) {
	a, err := f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return fileInfo{path.Base(name), a}, nil
}

// Lstat is Stat: links are not followed.
func (f *fileSystem) Lstat(name string) (iofs.FileInfo, error) { return f.Stat(name) }

// ReadLink gives the target of a symbolic link.
func (f *fileSystem) ReadLink(name string) (string, error) {
	a, err := f.find("readlink", name)
	if err != nil {
		return "", err
	}
	target, err := f.h.Readlink(a.Node())
	if err != nil {
		return "", &iofs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return target, nil
}

// ReadFile reads a whole file.
func (f *fileSystem) ReadFile(name string) ([]byte, error) {
	o, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(o)
	return b, errors.Join(err, o.Close())
}

// ReadDir lists a directory, sorted by name.
func (f *fileSystem) ReadDir(name string) ([]iofs.DirEntry, error) {
	a, err := f.find("readdir", name)
	if err != nil {
		return nil, err
	}
	var out []iofs.DirEntry
	err = f.h.ReadDir(a.Node(), 0, func(e Dirent) bool {
		out = append(out, dirEntry{f, path.Join(name, e.Name), e})
		return true
	})
	if err != nil {
		return nil, &iofs.PathError{Op: "readdir", Path: name, Err: err}
	}
	slices.SortFunc(out, func(a, b iofs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// fileMode turns an st_mode into Go's.
func fileMode(m uint32) iofs.FileMode {
	out := iofs.FileMode(m & 0777)
	for _, b := range []struct {
		bit  uint32
		mode iofs.FileMode
	}{{syscall.S_ISUID, iofs.ModeSetuid}, {syscall.S_ISGID, iofs.ModeSetgid}, {syscall.S_ISVTX, iofs.ModeSticky}} {
		if m&b.bit != 0 {
			out |= b.mode
		}
	}
	switch m & syscall.S_IFMT {
	case syscall.S_IFDIR:
		out |= iofs.ModeDir
	case syscall.S_IFLNK:
		out |= iofs.ModeSymlink
	case syscall.S_IFIFO:
		out |= iofs.ModeNamedPipe
	case syscall.S_IFSOCK:
		out |= iofs.ModeSocket
	case syscall.S_IFBLK:
		out |= iofs.ModeDevice
	case syscall.S_IFCHR:
		out |= iofs.ModeDevice | iofs.ModeCharDevice
	}
	return out
}

type fileInfo struct {
	name string
	a    Attr
}

func (i fileInfo) Name() string        { return i.name }
func (i fileInfo) Size() int64         { return i.a.Size }
func (i fileInfo) Mode() iofs.FileMode { return fileMode(i.a.Mode) }
func (i fileInfo) ModTime() time.Time  { return time.Unix(0, i.a.Mtime) }
func (i fileInfo) IsDir() bool         { return i.a.IsDir() }
func (i fileInfo) Sys() any            { return i.a }

type dirEntry struct {
	fs   *fileSystem
	path string
	e    Dirent
}

func (d dirEntry) Name() string                 { return d.e.Name }
func (d dirEntry) IsDir() bool                  { return d.e.Mode&syscall.S_IFMT == syscall.S_IFDIR }
func (d dirEntry) Type() iofs.FileMode          { return fileMode(d.e.Mode).Type() }
func (d dirEntry) Info() (iofs.FileInfo, error) { return d.fs.Stat(d.path) }

// openFile reads one file.
type openFile struct {
	fs     *fileSystem
	path   string
	info   fileInfo
	off    int64
	closed bool
}

var (
	_ io.ReaderAt = (*openFile)(nil)
	_ io.Seeker   = (*openFile)(nil)
)

func (o *openFile) fail(what string, err error) error {
	return &iofs.PathError{Op: what, Path: o.path, Err: err}
}

func (o *openFile) Stat() (iofs.FileInfo, error) {
	a, err := o.fs.h.Getattr(o.info.a.Node())
	if err != nil {
		return nil, o.fail("stat", err)
	}
	return fileInfo{o.info.name, a}, nil
}

func (o *openFile) Read(p []byte) (int, error) {
	n, err := o.ReadAt(p, o.off)
	o.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (o *openFile) ReadAt(p []byte, off int64) (int, error) {
	if o.closed {
		return 0, o.fail("read", iofs.ErrClosed)
	}
	if off < 0 {
		return 0, o.fail("read", iofs.ErrInvalid)
	}
	n, err := o.fs.h.Read(context.Background(), o.info.a.Node(), p, off)
	if err != nil {
		return n, o.fail("read", err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *openFile) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += o.off
	case io.SeekEnd:
		i, err := o.Stat()
		if err != nil {
			return 0, err
		}
		off += i.Size()
	}
	if off < 0 {
		return 0, o.fail("seek", iofs.ErrInvalid)
	}
	o.off = off
	return off, nil
}

func (o *openFile) Close() error {
	if o.closed {
		return o.fail("close", iofs.ErrClosed)
	}
	o.closed = true
	o.fs.h.Unref(o.info.a.Node())
	return nil
}

// openDir lists one directory.
type openDir struct {
	fs     *fileSystem
	path   string
	info   fileInfo
	list   []iofs.DirEntry
	read   bool
	closed bool
}

func (o *openDir) Stat() (iofs.FileInfo, error) { return o.info, nil }

func (o *openDir) Read([]byte) (int, error) {
	return 0, &iofs.PathError{Op: "read", Path: o.path, Err: ErrIsDir}
}

func (o *openDir) ReadDir(n int) ([]iofs.DirEntry, error) {
	if !o.read {
		list, err := o.fs.ReadDir(o.path)
		if err != nil {
			return nil, err
		}
		o.list, o.read = list, true
	}
	if n <= 0 || n > len(o.list) {
		if n > 0 && len(o.list) == 0 {
			return nil, io.EOF
		}
		n = len(o.list)
	}
	out := o.list[:n]
	o.list = o.list[n:]
	return out, nil
}

func (o *openDir) Close() error {
	if o.closed {
		return &iofs.PathError{Op: "close", Path: o.path, Err: iofs.ErrClosed}
	}
	o.closed = true
	o.fs.h.Unref(o.info.a.Node())
	return nil
}
