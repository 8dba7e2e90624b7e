package mount

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount/memfs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// needFUSE skips where there is no /dev/fuse, visibly; in CI that is a failure.
func needFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return
	}
	without(t, "FUSE: "+err.Error())
}

// needRoot does the same where the test is not root.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		without(t, "root for the tests: only root can be another user")
	}
}

func without(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("this machine lacks " + what)
	}
	t.Skip("this machine lacks " + what)
}

// testMount is a backend that is mounted for the time of a test.
type testMount struct {
	dir    string
	f      *filesystem
	cancel context.CancelFunc
	served chan error
	once   sync.Once
	err    error
}

// mountOn mounts b and unmounts it when the test ends, whatever happens.
func mountOn(t testing.TB, b Backend, opts ...func(*Options)) *testMount {
	t.Helper()
	return mountThrough(t, b, func(f *filesystem) fuse.RawFileSystem { return f }, opts...)
}

func mountThrough(t testing.TB, b Backend, through func(*filesystem) fuse.RawFileSystem, opts ...func(*Options)) *testMount {
	t.Helper()
	needFUSE(t)
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	m := &testMount{dir: filepath.Join(t.TempDir(), "mnt"), cancel: cancel, served: make(chan error, 1)}
	opt := Options{Dir: m.dir, Ready: func() { close(ready) }, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	for _, o := range opts {
		o(&opt)
	}
	m.dir = opt.Dir
	go func() {
		m.served <- serve(ctx, b, opt, func(f *filesystem) fuse.RawFileSystem {
			m.f = f
			return through(f)
		})
	}()
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		_ = unix.Unmount(m.dir, unix.MNT_DETACH)
	})
	select {
	case <-ready:
	case err := <-m.served:
		m.served <- err
		t.Fatalf("Serve: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("not mounted after 20 s")
	}
	return m
}

// stop ends the mount and returns what Serve returned.
func (m *testMount) stop() error {
	m.once.Do(func() {
		m.cancel()
		select {
		case m.err = <-m.served:
		case <-time.After(20 * time.Second):
			m.err = errors.New("Serve did not end within 20 s")
		}
	})
	return m.err
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("log: %s", p)
	return len(p), nil
}

func newMem() *memfs.FS {
	return memfs.New(memfs.Options{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readAll(t testing.TB, f *os.File) string {
	t.Helper()
	_, err := f.Seek(0, io.SeekStart)
	must(t, err)
	b, err := io.ReadAll(f)
	must(t, err)
	return string(b)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func contextCanceled() error { return context.Canceled }

func statusOf(e syscall.Errno) fuse.Status { return fuse.Status(e) }

func cred0() fs.Cred { return fs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())} }
