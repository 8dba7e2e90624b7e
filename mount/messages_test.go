package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// mountCounted mounts and counts from then on.
func mountCounted(t testing.TB, b Backend) (*testMount, *counting) {
	t.Helper()
	var c *counting
	m := mountThrough(t, b, func(f *filesystem) fuse.RawFileSystem {
		c = &counting{filesystem: f}
		return c
	})
	c.take()
	return m, c
}

// costs checks which requests the kernel makes for some work.
func costs(t *testing.T, c *counting, what, want string, work func()) {
	t.Helper()
	c.take()
	work()
	if got := c.take(); got != want {
		t.Errorf("%s costs %q, want %q", what, got, want)
	}
}

// TestMessages holds what work costs: each request that is not here is time that every program saves.
func TestMessages(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			m, c := mountCounted(t, open(t))
			root := m.dir
			if name != "mem" {
				root += "/Personal"
			}
			dir := root + "/dir"
			one := dir + "/one"
			must(t, unix.Mkdir(dir, 0o755))
			// Under default_permissions the kernel asks for a directory's mode again after each change in it.
			settle := func() { stat(t, dir) }
			settle()
			costs(t, c, "a new file", "CREATE 1, GETXATTR 1, LOOKUP 1, WRITE 1", func() { newFile(t, one, strings.Repeat("x", 4096)) })
			costs(t, c, "another", "CREATE 1, GETATTR 1, GETXATTR 1, LOOKUP 1, WRITE 1", func() { newFile(t, dir+"/two", "short") })
			settle()
			costs(t, c, "a new file with no content", "CREATE 1, LOOKUP 1", func() { newFile(t, dir+"/empty", "") })
			settle()
			costs(t, c, "the attributes after a write", "GETATTR 1", func() { stat(t, one) })
			costs(t, c, "them again", "", func() { stat(t, one) })
			costs(t, c, "whole pages just written", "", func() { contains(t, one, strings.Repeat("x", 4096)) })
			costs(t, c, "part of a page just written", "GETATTR 1, READ 1", func() { contains(t, dir+"/two", "short") })
			costs(t, c, "its time of access after that", "GETATTR 1", func() { stat(t, dir+"/two") })
			costs(t, c, "opening and closing", "", func() { openAndClose(t, one) })
			costs(t, c, "a name that is not there", "LOOKUP 1", func() { absent(t, dir+"/none") })
			costs(t, c, "and again", "", func() { absent(t, dir+"/none") })
			must(t, os.Symlink("one", dir+"/link"))
			settle()
			costs(t, c, "a link", "READLINK 1", func() { readlink(t, dir+"/link") })
			costs(t, c, "and again", "", func() { readlink(t, dir+"/link") })
			costs(t, c, "a listing", "READDIRPLUS 2", func() { list(t, dir, 4) })
			settle() // the directory's time of access
			costs(t, c, "and again", "", func() { list(t, dir, 4) })
			costs(t, c, "truncation by open", "GETXATTR 1, SETATTR 1", func() {
				fd, err := unix.Open(one, unix.O_WRONLY|unix.O_TRUNC, 0)
				must(t, err)
				must(t, unix.Close(fd))
			})
			costs(t, c, "a birth", "STATX 1", func() { birth(t, one) })
			costs(t, c, "and again", "", func() { birth(t, one) })
		})
	}
}

func newFile(t testing.TB, path, content string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)
	must(t, err)
	if content != "" {
		_, err = unix.Write(fd, []byte(content))
		must(t, err)
	}
	must(t, unix.Close(fd))
}

func stat(t testing.TB, path string) (st unix.Stat_t) {
	t.Helper()
	must(t, unix.Lstat(path, &st))
	return st
}

func birth(t testing.TB, path string) {
	t.Helper()
	var st unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
	if st.Mask&unix.STATX_BTIME == 0 || st.Btime.Sec == 0 {
		t.Errorf("no time of birth: %+v", st)
	}
}

func openAndClose(t testing.TB, path string) {
	t.Helper()
	for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND} {
		fd, err := unix.Open(path, flags, 0)
		must(t, err)
		must(t, unix.Close(fd))
	}
}

func absent(t testing.TB, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != unix.ENOENT {
		t.Fatalf("lstat: %v, want ENOENT", err)
	}
}

func readlink(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Readlink(path); err != nil {
		t.Fatal(err)
	}
}

func list(t testing.TB, path string, want int) []string {
	t.Helper()
	d, err := os.Open(path)
	must(t, err)
	defer d.Close()
	_, err = d.Stat()
	must(t, err)
	names, err := d.Readdirnames(-1)
	must(t, err)
	if want >= 0 && len(names) != want {
		t.Errorf("%d entries, want %d: %q", len(names), want, names)
	}
	return names
}

func contains(t testing.TB, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != want {
		t.Fatalf("%s holds %q, %v; want %q", filepath.Base(path), b, err, want)
	}
}

// TestWarmTree holds that a tree that was looked at before is looked at again for nothing.
func TestWarmTree(t *testing.T) {
	m, c := mountCounted(t, newMem())
	for i := range 20 {
		dir := fmt.Sprintf("%s/d%d", m.dir, i)
		must(t, os.Mkdir(dir, 0o755))
		for j := range 20 {
			newFile(t, fmt.Sprintf("%s/f%d", dir, j), strings.Repeat("x", 100*j+1))
		}
	}
	walk := func() {
		must(t, filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if _, err := d.Info(); err != nil {
				return err
			}
			_, err = os.ReadFile(path)
			return err
		}))
	}
	walk()
	walk() // reading made the times of access stale
	costs(t, c, "a warm walk over 400 files", "", walk)
}

// TestNoRelease holds that closes are not told from the first file on, since the mount asks once itself.
func TestNoRelease(t *testing.T) {
	m, c := mountCounted(t, newMem())
	for i := range 100 {
		newFile(t, fmt.Sprintf("%s/f%d", m.dir, i), "x")
	}
	if got := c.take(); strings.Contains(got, "RELEASE") || strings.Contains(got, "OPEN") || strings.Contains(got, "FLUSH") {
		t.Errorf("100 new files cost %q", got)
	}
}

// TestSync holds that fsync and files opened for synchronous writing reach the backend.
func TestSync(t *testing.T) {
	m, c := mountCounted(t, newMem())
	f, err := os.Create(m.dir + "/f")
	must(t, err)
	defer f.Close()
	costs(t, c, "fsync", "FSYNC 1", func() { must(t, f.Sync()) })
	for name, flag := range map[string]int{"O_SYNC": unix.O_SYNC, "O_DSYNC": unix.O_DSYNC, "O_DIRECT|O_DSYNC": unix.O_DIRECT | unix.O_DSYNC} {
		fd, err := unix.Open(m.dir+"/f", unix.O_WRONLY|flag, 0)
		must(t, err)
		buf := make([]byte, 8192)
		if flag&unix.O_DIRECT != 0 {
			buf, err = unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
			must(t, err)
		}
		c.take()
		_, err = unix.Pwrite(fd, buf[:4096], 0)
		must(t, err)
		if got := c.take(); !strings.Contains(got, "FSYNC 1") {
			t.Errorf("a write with %s costs %q", name, got)
		}
		must(t, unix.Close(fd))
	}
	d, err := os.Open(m.dir)
	must(t, err)
	defer d.Close()
	must(t, d.Sync())
}
