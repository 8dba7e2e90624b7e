package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockName  = "lock"
	lockRetry = 20 * time.Millisecond
)

// ErrHomeInUse says that another process has a home open: its daemon, or a command for a moment.
var ErrHomeInUse = errors.New("the home is in use by another process")

// HomeLock is the right to open a home, which one process has at a time. It ends with the process in any case.
//
// It is a lock of the open file (F_OFD_SETLK): unlike flock's it can be asked about without being taken. The file
// tells who holds it, and where that shows the home; what it still tells when nobody holds it was left by a killed
// process.
type HomeLock struct {
	file *os.File
	left LeftMount
}

// LeftMount is a mount whose daemon is known to be dead.
type LeftMount struct {
	Dir string `json:"dir,omitempty"`
	Dev uint64 `json:"dev,omitempty"`
}

// lockNote is what is in the file. Inode is the file's own number: in the copy of a home the note is about another home, which
// may well be mounted.
type lockNote struct {
	PID   int    `json:"pid"`
	Inode uint64 `json:"inode"`
	LeftMount
}

const maxNoteBytes = 64 << 10

// LockHome takes the lock of a home, or fails with ErrHomeInUse. The folder must exist.
func LockHome(home string) (*HomeLock, error) {
	f, err := os.OpenFile(filepath.Join(home, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		if err == syscall.EAGAIN || err == syscall.EACCES {
			err = holder(home)
		}
		return nil, err
	}
	l := &HomeLock{file: f, left: readNote(f).LeftMount}
	if err := l.note(l.left); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// Left returns the mount that a killed holder left. It is told until TakeAway or Mounted.
func (l *HomeLock) Left() LeftMount { return l.left }

// Mounted notes where the holder shows the home.
func (l *HomeLock) Mounted(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	return l.note(LeftMount{Dir: dir, Dev: st.Dev})
}

// TakeAway takes away the mount that a killed holder left, if it did. Such a mount may not even answer stat: a daemon
// that dies in the middle of a notification goes on existing until its connection is ended.
func (l *HomeLock) TakeAway() error {
	if l.left.Dir == "" {
		return nil
	}
	m, ok, err := mountAt(l.left.Dir)
	if err != nil {
		return err
	}
	if ok && m.fsType == fsType && unix.Mkdev(m.major, m.minor) == l.left.Dev {
		if err := seize(l.left.Dir, l.left.Dev); err != nil {
			return fmt.Errorf("a killed daemon left %s behind, and it cannot be unmounted: %w", l.left.Dir, err)
		}
	}
	l.left = LeftMount{}
	return l.note(l.left)
}

// Unlock gives the home free.
func (l *HomeLock) Unlock() error {
	if l.left.Dir == "" {
		_ = l.file.Truncate(0)
	}
	return l.file.Close()
}

func (l *HomeLock) note(m LeftMount) error {
	inode, err := inodeOf(l.file)
	if err != nil {
		return err
	}
	b, err := json.Marshal(lockNote{PID: os.Getpid(), Inode: inode, LeftMount: m})
	if err != nil {
		return err
	}
	if _, err := l.file.WriteAt(append(b, '\n'), 0); err != nil {
		return err
	}
	return l.file.Truncate(int64(len(b)) + 1)
}

func readNote(f *os.File) (n lockNote) {
	b := make([]byte, maxNoteBytes)
	size, _ := f.ReadAt(b, 0)
	_ = json.Unmarshal(b[:size], &n)
	if inode, err := inodeOf(f); err != nil || inode != n.Inode {
		return lockNote{}
	}
	return n
}

func inodeOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Ino, err
}

// AwaitHome is LockHome that waits for who has the home, until ctx ends.
func AwaitHome(ctx context.Context, home string) (*HomeLock, error) {
	for {
		l, err := LockHome(home)
		if !errors.Is(err, ErrHomeInUse) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(lockRetry):
		}
	}
}

// holder is ErrHomeInUse with the process that has the home, as far as that wrote it down.
func holder(home string) error {
	if pid := HomeHolder(home); pid > 0 {
		return fmt.Errorf("%w (pid %d)", ErrHomeInUse, pid)
	}
	return ErrHomeInUse
}

// HomeHolder returns the pid that the holder of a home's lock wrote down; -1 when it wrote down none, 0 when there is no holder.
func HomeHolder(home string) int {
	f, err := os.Open(filepath.Join(home, lockName))
	if err != nil {
		return 0
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
		return 0
	}
	if pid := readNote(f).PID; pid > 0 {
		return pid
	}
	return -1
}
