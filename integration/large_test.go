package integration

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSparse makes a file of 20 GiB with a few bytes in it: it costs next to nothing, and reads right everywhere.
func TestSparse(t *testing.T) {
	h := Mounted(t)
	path := h.Personal("sparse.img")
	const size = 20 << 30
	marks := []int64{0, 1 << 20, 4<<30 - 3, 10<<30 + 1, size - 16}
	f, err := os.Create(path)
	check(t, err)
	check(t, f.Truncate(size))
	for _, off := range marks {
		check(t, second(f.WriteAt(fmt.Appendf(nil, "mark at %08x", off&0xffffffff), off)))
	}
	check(t, f.Sync(), f.Close())
	verify := func(when string) {
		t.Helper()
		f, err := os.Open(path)
		check(t, err)
		defer f.Close()
		if st, err := f.Stat(); err != nil || st.Size() != size {
			t.Fatalf("%s: size %d, %v", when, st.Size(), err)
		}
		buf := make([]byte, 16)
		for _, off := range marks {
			if _, err := f.ReadAt(buf, off); err != nil || string(buf) != fmt.Sprintf("mark at %08x", off&0xffffffff) {
				t.Fatalf("%s: at %d stands %q, %v", when, off, buf, err)
			}
		}
		zero := make([]byte, 1<<20)
		for _, off := range []int64{2 << 20, 5 << 30, 15 << 30} {
			if _, err := f.ReadAt(zero, off); err != nil || bytes.IndexFunc(zero, func(r rune) bool { return r != 0 }) >= 0 {
				t.Fatalf("%s: the hole at %d reads as data, %v", when, off, err)
			}
		}
		// Walking data and holes visits every mark and is quick.
		seen, off := 0, int64(0)
		for range 1000 {
			data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
			if err == unix.ENXIO {
				break
			}
			check(t, err)
			hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
			check(t, err)
			for _, m := range marks {
				if m >= data && m < hole {
					seen++
				}
			}
			off = hole
		}
		if seen != len(marks) {
			t.Errorf("%s: SEEK_DATA and SEEK_HOLE show %d of %d marks", when, seen, len(marks))
		}
		var st syscall.Stat_t
		check(t, syscall.Stat(path, &st))
		if st.Blocks*512 > 64<<20 {
			t.Errorf("%s: the file claims %d bytes of disk", when, st.Blocks*512)
		}
	}
	verify("fresh")
	h.Settle()
	verify("published")
	h.Remount()
	verify("after the remount")
	check(t, os.Remove(path))
}

// TestManyFiles fills one directory: 10,000 files, with ANYFS_LONG 100,000.
func TestManyFiles(t *testing.T) {
	n := 10_000
	if Long() {
		n = 100_000
	}
	h := Mounted(t)
	dir := h.Personal("many")
	check(t, os.Mkdir(dir, 0o755))
	name := func(i int) string { return fmt.Sprintf("%s/file-%06d.txt", dir, i) }
	start := time.Now()
	for i := range n {
		check(t, os.WriteFile(name(i), fmt.Appendf(nil, "content %d", i), 0o644))
	}
	t.Logf("%d files made in %v", n, time.Since(start).Round(time.Millisecond))
	verify := func(when string, step int) {
		t.Helper()
		start := time.Now()
		list, err := os.ReadDir(dir)
		check(t, err)
		if want := (n + step - 1) / step; len(list) != want {
			t.Fatalf("%s: %d files listed, want %d", when, len(list), want)
		}
		for i := 0; i < n; i += step {
			st, err := os.Lstat(name(i))
			check(t, err)
			if st.Size() != int64(len(fmt.Sprintf("content %d", i))) {
				t.Fatalf("%s: %s has %d bytes", when, name(i), st.Size())
			}
		}
		t.Logf("%s: listed and looked at in %v", when, time.Since(start).Round(time.Millisecond))
		for i := 0; i < n; i += step * 97 {
			if b, err := os.ReadFile(name(i)); err != nil || string(b) != fmt.Sprintf("content %d", i) {
				t.Fatalf("%s: %s holds %q, %v", when, name(i), b, err)
			}
		}
	}
	verify("fresh", 1)
	h.Remount()
	verify("after the remount", 1)
	for i := range n {
		if i%2 == 1 {
			check(t, os.Remove(name(i)))
		}
	}
	verify("half removed", 2)
	h.Kill()
	h.Mount()
	verify("after a kill", 2)
	check(t, os.RemoveAll(dir))
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}
