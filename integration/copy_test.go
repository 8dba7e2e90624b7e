package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// makeRichTree makes a folder with everything that a filesystem keeps: modes, hard links, symlinks (dangling ones too),
// fifos, sockets, xattrs, access lists, sparse files, times with nanoseconds, odd names, other owners.
func makeRichTree(t *testing.T, dir string) {
	t.Helper()
	write := func(name string, b []byte, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		check(t, os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, b, mode), os.Chmod(p, mode))
		return p
	}
	for i, mode := range []os.FileMode{0o600, 0o644, 0o755, 0o400, 0o777 | os.ModeSticky, 0o000} {
		write(fmt.Sprintf("modes/m%d", i), []byte("x"), mode)
	}
	check(t, os.MkdirAll(dir+"/modes/sticky", 0o755), os.Chmod(dir+"/modes/sticky", 0o1777), os.Mkdir(dir+"/modes/gid", 0o755), os.Chmod(dir+"/modes/gid", 0o755|os.ModeSetgid))
	a := write("links/a", []byte("linked"), 0o644)
	check(t, os.Link(a, dir+"/links/b"), os.MkdirAll(dir+"/links/deep", 0o755), os.Link(a, dir+"/links/deep/c"))
	check(t, os.Symlink("a", dir+"/links/s"), os.Symlink("../nowhere at all", dir+"/links/dangling"), os.Symlink("/etc/hostname", dir+"/links/absolute"))
	check(t, syscall.Mkfifo(dir+"/fifo", 0o640))
	x := write("xattrs/x", []byte("x"), 0o644)
	check(t, unix.Setxattr(x, "user.comment", []byte("a comment"), 0), unix.Setxattr(x, "user.binary", []byte{0, 1, 255, 0}, 0),
		unix.Setxattr(x, "user.empty", nil, 0), unix.Setxattr(dir+"/xattrs", "user.dir", []byte("of a directory"), 0))
	s := write("sparse", nil, 0o644)
	f, err := os.OpenFile(s, os.O_WRONLY, 0)
	check(t, err)
	check(t, f.Truncate(8<<20), second(f.WriteAt([]byte("in the middle"), 4<<20)), f.Close())
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	write("big", big, 0o644)
	for _, name := range scripts {
		write("names/"+name, []byte(name), 0o644)
	}
	check(t, os.MkdirAll(dir+"/empty/of/files", 0o755))
	if os.Getuid() == 0 {
		check(t, os.Lchown(dir+"/links/s", 1234, 5678), os.Chown(a, 1000, 100))
	}
	// Times last, from the leaves up.
	n := int64(0)
	var dirs []string
	check(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, p)
			return nil
		}
		n++
		return touch(p, 1_500_000_000_000_000_000+n*1_000_000_001)
	}))
	for i := len(dirs) - 1; i >= 0; i-- {
		n++
		check(t, touch(dirs[i], 1_400_000_000_123_456_789+n*1_000_000_007))
	}
}

// touch sets the mtime in nanoseconds, of a symlink itself.
func touch(path string, ns int64) error {
	ts := []unix.Timespec{unix.NsecToTimespec(ns), unix.NsecToTimespec(ns)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func TestRichTree(t *testing.T) {
	SameAsLocal(t, TreeOptions{DirTimes: true}, makeRichTree)
}

func TestRsync(t *testing.T) {
	Need(t, "rsync")
	src := t.TempDir()
	makeRichTree(t, src)
	_, dir := SameAsLocal(t, TreeOptions{DirTimes: true}, func(t *testing.T, dir string) {
		Sh(t, dir, `rsync -aHAX "$SRC/" copy/`, "SRC="+src)
		if out := Sh(t, dir, `rsync -aHAXi --checksum "$SRC/" copy/`, "SRC="+src); out != "" {
			t.Fatalf("a second rsync finds differences:\n%s", out)
		}
		check(t, touch(dir+"/copy", 1e18))
	})
	SameTree(t, "beside the source", ReadTree(t, src, TreeOptions{DirTimes: true}), ReadTree(t, dir+"/copy", TreeOptions{DirTimes: true}))
	out := t.TempDir()
	Sh(t, dir, `rsync -aHAX copy/ "$OUT/"; rsync -aHAX --inplace --no-whole-file --ignore-times "$OUT/" copy/; test -z "$(rsync -aHAXi --checksum "$OUT/" copy/)"`, "OUT="+out)
	SameTree(t, "out again", ReadTree(t, src, TreeOptions{DirTimes: true}), ReadTree(t, out, TreeOptions{DirTimes: true}))
}

func TestTar(t *testing.T) {
	Need(t, "tar")
	src := t.TempDir()
	makeRichTree(t, src)
	archive := t.TempDir() + "/in.tar"
	Sh(t, src, `tar --xattrs --xattrs-include='*' --acls --sparse --format=posix -cf "$A" .`, "A="+archive)
	_, dir := SameAsLocal(t, TreeOptions{DirTimes: true}, func(t *testing.T, dir string) {
		Sh(t, dir, `mkdir in && tar --xattrs --xattrs-include='*' --acls --same-owner -xpf "$A" -C in`, "A="+archive)
	})
	out := t.TempDir()
	Sh(t, dir+"/in", `tar --xattrs --xattrs-include='*' --acls --sparse --format=posix -cf "$O.tar" . && mkdir "$O" && tar --xattrs --xattrs-include='*' --acls --same-owner -xpf "$O.tar" -C "$O"`, "O="+out+"/out")
	SameTree(t, "in and out", ReadTree(t, src, TreeOptions{DirTimes: true}), ReadTree(t, out+"/out", TreeOptions{DirTimes: true}))
}

// TestAccessLists holds that access lists are refused: storing what nobody heeds would be a lie.
func TestAccessLists(t *testing.T) {
	Need(t, "setfacl")
	h := Mounted(t)
	file := h.Personal("f")
	check(t, os.WriteFile(file, nil, 0o644))
	if f := trySh(h.Personal(), "setfacl -m u:1234:r f"); !strings.Contains(f, "not supported") {
		t.Errorf("setfacl: %q", f)
	}
	Sh(t, h.Personal(), "getfacl -c f | grep -q user::rw-")
}

// TestCopyFileRange copies a large file with cp and looks that the copy is right and independent.
func TestCopyFileRange(t *testing.T) {
	Need(t, "cp", "cmp")
	_, dir := SameAsLocal(t, TreeOptions{NoTimes: true}, func(t *testing.T, dir string) {
		Sh(t, dir, `
seq 1 1500000 > a
cp a b && cmp a b
cp --reflink=auto --sparse=always a c && cmp a c
printf X | dd of=b bs=1 seek=5000000 conv=notrunc status=none
truncate -s 6000000 c
seq 1 1500000 | cmp - a`)
	})
	Sh(t, dir, `seq 1 1500000 | cmp - a; cmp a b && exit 1; head -c 6000000 a | cmp - c`)
}
