package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
// It is a lock of the open file (F_OFD_SETLK): unlike flock's it can be asked about without being taken.
type HomeLock struct {
	file *os.File
}

// LockHome takes the lock of a home, or fails with ErrHomeInUse. The folder must exist.
func LockHome(home string) (*HomeLock, error) {
	f, err := os.OpenFile(filepath.Join(home, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err == nil {
		_ = f.Truncate(0)
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		if err == syscall.EAGAIN || err == syscall.EACCES {
			err = holder(home)
		}
		return nil, err
	}
	return &HomeLock{file: f}, nil
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

// Unlock gives the home free.
func (l *HomeLock) Unlock() error {
	_ = l.file.Truncate(0)
	return l.file.Close()
}

// holder is ErrHomeInUse with the process that has the home, as far as that wrote it down.
func holder(home string) error {
	if pid := HomeHolder(home); pid > 0 {
		return fmt.Errorf("%w (pid %d)", ErrHomeInUse, pid)
	}
	return ErrHomeInUse
}

// HomeHolder returns the pid that the holder of a home's lock wrote down, 0 when there is none.
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
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	return pid
}
