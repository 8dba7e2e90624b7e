// Package disk is the disk as the rest of anyfs sees it: files and directories under one root.
//
// OS is the real one. Sim is its twin in memory, which knows what a power loss may take: it can be cloned as after a
// crash, and its n-th operation can be made to fail. Both pass the suite in disktest.
//
// The crash contract is stricter than any one filesystem's, so that what is built on it holds on all of them:
//   - what was written to a file is durable after its Sync. Until then each 512-byte sector of it holds, after a power
//     loss, any of the states that it went through since; the file's size likewise;
//   - a name that was created, removed or renamed is durable after SyncDir of its directory (for a rename between two
//     directories: of either). Until then any subset of these operations may be undone. Each is atomic;
//   - Sync of a new file does not make its name durable, nor SyncDir the file's content;
//   - what MkdirAll made and WriteFileAtomic wrote is durable when they return;
//   - after a failed Sync nothing that was unsynced may be counted on, not even by a later Sync that succeeds.
//
// Without a power loss (a killed process) everything that a call returned for is there.
package disk

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path"
)

// Sector is the unit in bytes that a power loss never tears.
const Sector = 512

// File is an open file. Its methods may be called from several goroutines at a time; overlapping writes must not be.
// ReadAt and WriteAt do as io says: fewer bytes than asked come with an error.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Size is in bytes.
	Size() (int64, error)
	// Truncate cuts the file or extends it with zeros.
	Truncate(size int64) error
	// Sync makes content and size durable (fdatasync). One failure is final for what was not durable before it.
	Sync() error
	// Allocate writes zeros over n bytes at off, extending the file where needed. After it and a Sync, writing there
	// takes no new space, and a Sync after such a write needs no metadata.
	Allocate(off, n int64) error
	// Reserve takes the space of n bytes at off, extending the file with zeros where needed, and leaves what is there. Unlike
	// after Allocate a Sync after writing there may need metadata, but nothing is written twice.
	Reserve(off, n int64) error
	// PunchHole makes n bytes at off zeros without changing the size, and gives their space back where the filesystem
	// can. It costs writing zeros where it cannot.
	PunchHole(off, n int64) error
	// Uncache has the system forget what it caches of the file and is durable. It is a hint.
	Uncache()
	// Ahead has the system read n bytes at off into its cache, and does not wait for them. It is a hint.
	Ahead(off, n int64)
	// Close gives the file up. It makes nothing durable.
	Close() error
}

// FS is a folder. Names are slash-separated and relative to it, in the form of io/fs.ValidPath ("." is the folder
// itself); others give iofs.ErrInvalid. It is safe for concurrent use. Errors match iofs.ErrNotExist, iofs.ErrExist or
// the errno of the system, whichever applies.
type FS interface {
	Open(name string) (File, error)   // for reading and writing; the file must exist
	Create(name string) (File, error) // for reading and writing, mode 0600; the name must not exist
	MkdirAll(name string) error       // mode 0700; no error where the directory exists
	Remove(name string) error         // a file or an empty directory
	RemoveAll(name string) error      // no error where nothing exists
	Rename(old, new string) error     // replaces a file that has the new name, never a directory
	ReadDir(name string) ([]string, error)
	SyncDir(name string) error
	// Free gives the bytes that may still be written, and these with what is used: what a disk keeps for root is in neither.
	Free() (avail, total int64, err error)
	ReadFile(name string) ([]byte, error)
	// WriteFileAtomic replaces the content of a small file: after a crash at any point it has the old or the new one.
	// It writes name+".tmp" on the way; a stale one is replaced. Only one caller at a time for one name.
	WriteFileAtomic(name string, data []byte) error
}

func checkName(op, name string) error {
	if !iofs.ValidPath(name) {
		return &iofs.PathError{Op: op, Path: name, Err: iofs.ErrInvalid}
	}
	return nil
}

func writeFileAtomic(d FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := d.Remove(tmp); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	f, err := d.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = d.Rename(tmp, name)
	}
	if err != nil {
		d.Remove(tmp) // what is left behind is replaced by the next write
		return fmt.Errorf("disk: replace %s: %w", name, err)
	}
	return d.SyncDir(path.Dir(name))
}
