package mount

import (
	"context"
	"errors"
	iofs "io/fs"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errnoFor names the number that a program sees for an error.
type errnoFor struct {
	err   error
	errno syscall.Errno
}

var errnos = [...]errnoFor{ // first match wins; an errno inside comes before them all
	{context.Canceled, syscall.EINTR}, // the kernel interrupted the caller
	{context.DeadlineExceeded, syscall.EIO},
	{iofs.ErrNotExist, syscall.ENOENT},
	{iofs.ErrExist, syscall.EEXIST},
	{iofs.ErrPermission, syscall.EACCES},
	{iofs.ErrInvalid, syscall.EINVAL},
}

// status turns an error into the number that the kernel passes on. What has none is EIO, and logged with its cause.
func (f *filesystem) status(op string, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno, ok := err.(syscall.Errno)
	if !ok && !errors.As(err, &errno) {
		errno = syscall.EIO
		for _, e := range errnos {
			if errors.Is(err, e.err) {
				errno = e.errno
				break
			}
		}
	}
	switch errno {
	case 0:
		errno = syscall.EIO
	case syscall.ENOSYS: // it would switch the operation off for the life of the mount
		errno = syscall.EOPNOTSUPP
	}
	if errno == syscall.EIO {
		f.failures.log(f.log, op, err)
	}
	return fuse.Status(errno)
}

// failures logs failed operations, one a second at most: a dead disk fails thousands.
type failures struct {
	next    atomic.Int64 // unix nanoseconds
	skipped atomic.Int64
}

func (l *failures) log(log *slog.Logger, op string, err error) {
	now := time.Now().UnixNano()
	next := l.next.Load()
	if now < next || !l.next.CompareAndSwap(next, now+int64(time.Second)) {
		l.skipped.Add(1)
		return
	}
	log.Error("operation failed", "op", op, "cause", Cause(err), "unlogged", l.skipped.Swap(0))
}

// Cause returns the text of the innermost errors of a chain, without the names of files that outer ones carry.
func Cause(err error) string {
	for {
		switch e := err.(type) {
		case *iofs.PathError:
			return e.Op + ": " + Cause(e.Err)
		case interface{ Unwrap() error }:
			inner := e.Unwrap()
			if inner == nil {
				return err.Error()
			}
			err = inner
		case interface{ Unwrap() []error }:
			text := ""
			for i, inner := range e.Unwrap() {
				if i > 0 {
					text += "; "
				}
				text += Cause(inner)
			}
			return text
		default:
			return err.Error()
		}
	}
}
