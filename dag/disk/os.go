package disk

import (
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path"
	"strings"
)

// OS returns the folder root of the machine's filesystem, which must exist. It holds a descriptor of it, so the folder
// may be renamed meanwhile. Symlinks inside are followed as long as they stay inside.
func OS(root string) (FS, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	return &osFS{root: r}, nil
}

type osFS struct{ root *os.Root }

func (d *osFS) Open(name string) (File, error) { return d.open("open", name, os.O_RDWR) }

func (d *osFS) Create(name string) (File, error) {
	return d.open("create", name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d *osFS) open(op, name string, flag int) (File, error) {
	if err := checkName(op, name); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

func (d *osFS) MkdirAll(name string) error {
	if err := checkName("mkdir", name); err != nil {
		return err
	}
	if name == "." {
		return nil
	}
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		dir := name[:i]
		err := d.root.Mkdir(dir, 0o700)
		if errors.Is(err, iofs.ErrExist) {
			st, serr := d.root.Stat(dir)
			if serr != nil {
				return serr
			}
			if !st.IsDir() {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if err := d.SyncDir(path.Dir(dir)); err != nil {
			return err
		}
	}
	return nil
}

func (d *osFS) Remove(name string) error {
	if err := checkName("remove", name); err != nil {
		return err
	}
	return d.root.Remove(name)
}

func (d *osFS) RemoveAll(name string) error {
	if err := checkName("removeall", name); err != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

func (d *osFS) Rename(old, new string) error {
	if err := checkName("rename", old); err != nil {
		return err
	}
	if err := checkName("rename", new); err != nil {
		return err
	}
	return d.root.Rename(old, new)
}

func (d *osFS) ReadDir(name string) ([]string, error) {
	if err := checkName("readdir", name); err != nil {
		return nil, err
	}
	entries, err := iofs.ReadDir(d.root.FS(), name)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.Clone(e.Name())
	}
	return names, err
}

func (d *osFS) SyncDir(name string) error {
	if err := checkName("syncdir", name); err != nil {
		return err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (d *osFS) ReadFile(name string) ([]byte, error) {
	if err := checkName("read", name); err != nil {
		return nil, err
	}
	return d.root.ReadFile(name)
}

func (d *osFS) WriteFileAtomic(name string, data []byte) error {
	if err := checkName("write", name); err != nil {
		return err
	}
	return writeFileAtomic(d, name, data)
}

type osFile struct{ *os.File }

func (f *osFile) Size() (int64, error) {
	st, err := f.File.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f *osFile) Allocate(off, n int64) error {
	if off < 0 || n < 0 {
		return &iofs.PathError{Op: "allocate", Path: f.Name(), Err: iofs.ErrInvalid}
	}
	return zero(f, off, n)
}

// extend writes zeros from the end of the file to the end of n bytes at off.
func (f *osFile) extend(off, n int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	return zero(f, size, off+n-size)
}

// zero writes n zeros at off; none where n is negative.
func zero(w io.WriterAt, off, n int64) error {
	if n <= 0 {
		return nil
	}
	// Page by page: Linux caches in units as large as what a write brings, and later writes into one of these units count
	// (in a process's I/O and for the thresholds of writeback) as all of it.
	var page [4096]byte
	zeros := page[:]
	for n > 0 {
		k, err := w.WriteAt(zeros[:min(n, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(k), n-int64(k)
	}
	return nil
}
