package mount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	unmountTries  = 8                // over about a third of a second: who just closed a file may not be through yet
	flushWithin   = 2 * time.Second  // for the pages of shared maps when a mount is taken from who still uses it
	endsWithin    = 10 * time.Second // for the requests that are being served then
	readAheadKiB  = 1024
	unmountsFirst = 5 * time.Millisecond
	dropAfter     = 100 * time.Millisecond
)

// Serve shows b at opt.Dir until it is unmounted, which is nil, or ctx ends, which is nil too.
//
// When ctx ends it unmounts: if files are still in use it takes the mount from who uses them. When it
// returns, no goroutine of it is left and the backend has been given back all that the kernel held. (Should
// the backend hold up a request for 10 s then, it returns EBUSY instead, and what is left ends with the process.)
func Serve(ctx context.Context, b Backend, opt Options) error {
	return serve(ctx, b, opt, func(f *filesystem) fuse.RawFileSystem { return f })
}

// serve is Serve with what stands between the kernel and the filesystem: nothing, but in tests.
func serve(ctx context.Context, b Backend, opt Options, through func(*filesystem) fuse.RawFileSystem) error {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	set, err := parseOptions(opt.ExtraOpts)
	if err != nil {
		return err
	}
	set.allowOther = set.allowOther || opt.AllowOther
	root := fs.RootIno
	if opt.Space != "" {
		if root, err = b.SpaceRoot(opt.Space); err != nil {
			return fmt.Errorf("space: %w", err)
		}
	}
	dir, err := prepare(opt.Dir)
	if err != nil {
		return err
	}
	f := newFilesystem(b, root, uint32(os.Geteuid()), uint32(os.Getegid()), log)
	dev, err := attach(dir, set)
	if err != nil {
		return err
	}
	f.kernel = dev
	f.echo.dir, f.echo.space, f.echo.fuse = dir, opt.Space, dev.fd
	f.echo.off, f.echo.still = set.readOnly, cmp.Or(opt.Still, f.echo.still)
	return f.serve(ctx, newServer(dev, through(f), negotiated(f), log, f.end), dir, opt.Ready)
}

func (f *filesystem) serve(ctx context.Context, server *server, dir string, ready func()) error {
	if err := server.begin(); err != nil {
		server.dev.close()
		_ = detach(dir, true)
		return err
	}
	var wg sync.WaitGroup
	served := make(chan struct{})
	wg.Go(func() {
		defer close(served)
		server.run()
	})
	wg.Go(func() { f.stale.run(f.stop) })
	quiet := f.back.Events(f.announce)

	dev := prime(dir, server.dev.fd)
	f.echo.dev = dev
	wg.Go(func() { f.echo.run(f.stop) })
	if ready != nil {
		ready()
	}
	select {
	case <-served:
	case <-ctx.Done():
	}
	quiet()
	f.end()
	if err := f.unmount(dir, dev, server, served); err != nil {
		return err
	}
	wg.Wait()
	f.release()
	return nil
}

// end ends all waits for absent content.
func (f *filesystem) end() { f.once.Do(func() { close(f.stop) }) }

// prime has the kernel learn that opens need no message and that files are not polled, and gives it a larger read-ahead
// where we may. fuse is our end of the connection. It returns the mount's device.
func prime(dir string, fuse int) (dev uint64) {
	var st unix.Stat_t
	apart(fuse, func() {
		if fd, err := unix.Open(filepath.Join(dir, probeName), unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			unix.Close(fd)
		}
		if fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			_ = unix.Fstat(fd, &st)
			unix.Close(fd)
		}
	})
	if st.Dev != 0 {
		name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
		_ = os.WriteFile(name, fmt.Appendf(nil, "%d", readAheadKiB), 0)
	}
	return st.Dev
}

// apart runs fn, which asks our own mount for something, on a thread that does not hold our end of the connection, and that ends
// with it. A thread that waits for an answer of ours when we are killed can't die before the connection ends, and that lasts for as
// long as anyone holds it: on a thread like all others, this process would wait for itself for ever. (The thread keeps all other
// descriptors: the runtime may poll on it.)
func apart(fuse int, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // /proc/self is this thread, and it can't go
			apart(fuse, fn)
			runtime.UnlockOSThread()
			return
		}
		// Never unlocked: the thread goes.
		if unix.Unshare(unix.CLONE_FILES) == nil {
			unix.Close(fuse)
		}
		fn()
	}()
	<-done
}

// unmount unmounts, where that has not happened, and waits until the last request is answered.
func (f *filesystem) unmount(dir string, dev uint64, server *server, served <-chan struct{}) error {
	if isClosed(served) {
		return nil
	}
	err := error(syscall.EBUSY)
	delay := unmountsFirst
	for try := 0; try < unmountTries && err == syscall.EBUSY; try++ {
		if try > 0 && over(served, delay) {
			return nil
		}
		delay += delay / 2
		err = detach(dir, false)
	}
	if err != nil && !isClosed(served) {
		f.log.Warn("taking the mount from who still uses it", "cause", Cause(err))
		flush(dir)
		server.settle(flushWithin)
		err = seize(dir, dev)
		if !over(served, dropAfter) {
			err = errors.Join(err, server.dev.drop())
		}
		if err != nil {
			err = fmt.Errorf("unmount: %w", err)
		}
	}
	if !over(served, endsWithin) {
		err = errors.Join(err, syscall.EBUSY)
	}
	return err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// over waits until c closes, for at most d, and reports whether it did.
func over(c <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// flush has the kernel write back the pages of shared maps, which would be lost with the connection. Linux 6.18 begins that
// and does not wait for the end, so who calls this waits until the server has nothing to do.
func flush(dir string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		defer unix.Close(fd)
		_ = unix.Syncfs(fd)
	}()
	over(done, flushWithin)
}

// seize ends the connection with the kernel, so that all who wait for us get an error, and unmounts.
func seize(dir string, dev uint64) error {
	err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != unix.EPERM {
		return err
	}
	err = fusermountUnmount(dir, true)
	name := fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", unix.Minor(dev))
	_ = os.WriteFile(name, []byte("1"), 0) // where there is no fusectl it ends when the device is closed
	return err
}
