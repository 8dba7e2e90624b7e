package main

import (
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// wholeFile is a file that appears under its name when it is complete, and never replaces one.
type wholeFile struct {
	*os.File
	dest string
}

// createWhole begins a file that will be dest, an absolute path where nothing may be yet.
func createWhole(dest string) (*wholeFile, error) {
	if _, err := os.Lstat(dest); err == nil {
		return nil, failf(exitFailed, "%s exists already; name another place", dest)
	} else if !errors.Is(err, iofs.ErrNotExist) {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(dest), ".anyfs-*")
	if err != nil {
		return nil, err
	}
	return &wholeFile{f, dest}, nil
}

// commit makes the file durable and gives it its name.
func (f *wholeFile) commit() error {
	if err := f.Sync(); err != nil {
		return err
	}
	err := unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, f.dest, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // the filesystem does not know the flag
		err = os.Rename(f.Name(), f.dest)
	}
	if err != nil {
		return &os.PathError{Op: "create", Path: f.dest, Err: err}
	}
	return nil
}

// discard closes the file, and removes it when it was not committed.
func (f *wholeFile) discard() {
	_ = f.Close()
	_ = os.Remove(f.Name())
}
