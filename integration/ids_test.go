package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIDAtAnyTime asks everything for its id at once after it was made, while it is written, and by many at a time: each has one of
// its own, which it keeps when it is published, moved, and after a kill. What is in no history has none.
func TestIDAtAnyTime(t *testing.T) {
	h := Mounted(t)
	top := h.Personal("top")
	check(t, os.Mkdir(top, 0o755))
	p := func(name string) string { return filepath.Join(top, name) }
	made := map[string]string{} // path: id
	ask := func(path string) string {
		t.Helper()
		id := h.ID(path)
		if !strings.HasPrefix(id, "b") || len(id) < 50 {
			t.Errorf("the id of %s is %q", path, id)
		}
		for other, x := range made {
			if x == id && other != path {
				t.Errorf("%s and %s have one id", path, other)
			}
		}
		made[path] = id
		return id
	}
	ask(h.Mnt)
	ask(h.Personal())
	ask(top)
	check(t, os.MkdirAll(p("a/b/c/d"), 0o755), os.WriteFile(p("a/b/c/d/deep"), []byte("x"), 0o644))
	ask(p("a/b/c/d/deep")) // with the directories above it
	ask(p("a/b/c/d"))
	ask(p("a/b"))
	check(t, os.Symlink("nowhere", p("symlink")), syscall.Mkfifo(p("fifo"), 0o644), os.WriteFile(p("empty"), nil, 0o644))
	ask(p("empty"))
	// The kernel has user attributes of files and directories only; a command tells the others' ids.
	for _, name := range []string{"symlink", "fifo"} {
		if v, err := getxattr(p(name), "user.anyfs.id"); !errors.Is(err, unix.ENODATA) {
			t.Errorf("the attribute of the %s is %q, %v", name, v, err)
		}
		var s struct{ ID string }
		if err := json.Unmarshal([]byte(h.Must("status", p(name), "--json")), &s); err != nil || len(s.ID) < 50 {
			t.Errorf("status of the %s gives the id %q, %v", name, s.ID, err)
		}
	}
	check(t, os.Link(p("empty"), p("hard")))
	if id := h.ID(p("hard")); id != made[p("empty")] {
		t.Errorf("a hard link has the id %s, its file %s", id, made[p("empty")])
	}

	// While it is written: the id comes at once, and is no end of the writing.
	f, err := os.Create(p("growing"))
	check(t, err)
	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	for i := range 24 {
		check(t, second(f.Write(piece)))
		if i%8 == 0 {
			if id := ask(p("growing")); i > 0 && id != made[p("growing")] {
				t.Errorf("the id changed while the file grew: %s", id)
			}
		}
	}
	check(t, f.Close())
	if b, err := os.ReadFile(p("growing")); err != nil || len(b) != 24*len(piece) {
		t.Errorf("the file that was asked for its id holds %d bytes, %v", len(b), err)
	}

	// By many at once.
	var wg sync.WaitGroup
	ids := make([]string, 64)
	for i := range ids {
		wg.Go(func() {
			name := p(fmt.Sprintf("many%d", i))
			if err := os.WriteFile(name, []byte{byte(i)}, 0o644); err == nil {
				ids[i], _ = getxattr(name, "user.anyfs.id")
			}
		})
	}
	wg.Wait()
	for i, id := range ids {
		if name := p(fmt.Sprintf("many%d", i)); id == "" || ask(name) != id {
			t.Errorf("%s had the id %q, now %q", name, id, made[name])
		}
	}

	// What has no name is in no history.
	u, err := os.Create(p("unlinked"))
	check(t, err, os.Remove(p("unlinked")))
	defer u.Close()
	tmp, err := unix.Open(top, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	check(t, err)
	defer unix.Close(tmp)
	for what, fd := range map[string]int{"an unlinked file": int(u.Fd()), "an O_TMPFILE": tmp} {
		if _, err := unix.Fgetxattr(fd, "user.anyfs.id", make([]byte, 256)); !errors.Is(err, unix.ENODATA) {
			t.Errorf("the id of %s: %v, want ENODATA", what, err)
		}
	}
	check(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", tmp), unix.AT_FDCWD, p("linked"), unix.AT_SYMLINK_FOLLOW))
	ask(p("linked"))

	check(t, os.Rename(p("a"), p("moved")))
	moved := map[string]string{}
	for path, id := range made {
		if rest, ok := strings.CutPrefix(path, p("a")+"/"); ok {
			path = p("moved/" + rest)
		}
		moved[path] = id
	}
	u.Close()
	unix.Close(tmp)
	for _, step := range []struct {
		name string
		do   func()
	}{{"moved", func() {}}, {"settled", h.Settle}, {"after a kill", func() { h.Kill(); h.Mount() }}, {"after a remount", h.Remount}} {
		step.do()
		for path, id := range moved {
			if now := h.ID(path); now != id {
				t.Errorf("%s: %s has the id %s, had %s", step.name, path, now, id)
			}
		}
	}
}

// TestVirtualXattrs holds what the attributes user.anyfs.* say of files, directories, spaces and views, that they are in no list,
// and that they cannot be set or removed.
func TestVirtualXattrs(t *testing.T) {
	h := Mounted(t)
	f, d := h.Personal("f"), h.Personal("d")
	check(t, os.WriteFile(f, []byte("one"), 0o644), os.Mkdir(d, 0o755))
	h.Settle()
	check(t, os.WriteFile(f, []byte("two"), 0o644))
	h.Settle()
	account := h.Status().Account
	for _, c := range []struct{ path, name, want string }{
		{f, "sync", "local"}, {f, "versions", "2"}, {f, "conflicts", "0"}, {f, "author", account}, {f, "heads", "b*"}, {f, "id", "b*"},
		{f, "role", "!"}, {f, "members", "!"}, {f, "nonsense", "!"},
		{d, "sync", "local"}, {d, "versions", "1"}, {d, "conflicts", "0"}, {d, "author", account}, {d, "role", "!"},
		{h.Personal(), "role", "owner"}, {h.Personal(), "members", account + " owner\n"}, {h.Personal(), "id", "b*"}, {h.Personal(), "author", "!"},
		{h.Mnt, "id", "b*"}, {h.Mnt, "role", "!"},
	} {
		v, err := getxattr(c.path, "user.anyfs."+c.name)
		switch {
		case c.want == "!":
			if !errors.Is(err, unix.ENODATA) {
				t.Errorf("%s of %s: %q, %v, want ENODATA", c.name, c.path, v, err)
			}
		case err != nil || v != c.want && !(c.want == "b*" && strings.HasPrefix(v, "b") && len(v) > 50):
			t.Errorf("%s of %s: %q, %v, want %q", c.name, c.path, v, err, c.want)
		}
	}
	for _, path := range []string{f, d, h.Personal()} {
		if list, err := xattrsOf(path); err != nil || strings.Contains(list, "anyfs") {
			t.Errorf("%s lists %q, %v", path, list, err)
		}
		for _, name := range []string{"user.anyfs.id", "user.anyfs.nonsense"} {
			if err := unix.Lsetxattr(path, name, []byte("x"), 0); !errors.Is(err, unix.EPERM) {
				t.Errorf("setting %s of %s: %v, want EPERM", name, path, err)
			}
			if err := unix.Lremovexattr(path, name); !errors.Is(err, unix.EPERM) {
				t.Errorf("removing %s of %s: %v, want EPERM", name, path, err)
			}
		}
	}
	versions, err := filepath.Glob(h.Personal(".anyfs/versions/f/*"))
	if err != nil || len(versions) != 2 {
		t.Fatalf("versions of f: %q, %v", versions, err)
	}
	seen := map[string]bool{}
	for _, v := range versions {
		if id := h.ID(v); id != h.ID(f) {
			t.Errorf("%s is a version of %s, not of %s", v, id, h.ID(f))
		}
		seen[h.Xattr(v, "user.anyfs.version")] = true
	}
	if !seen[h.Xattr(f, "user.anyfs.heads")] || len(seen) != 2 {
		t.Errorf("the versions are %v, the head is %s", seen, h.Xattr(f, "user.anyfs.heads"))
	}
}

// TestCopyCostsNothing holds that copy_file_range makes references: a copy of 64 MiB takes next to no room.
func TestCopyCostsNothing(t *testing.T) {
	h := Mounted(t)
	const size = 64 << 20
	Sh(t, h.Personal(), fmt.Sprintf("head -c %d /dev/urandom > original", size))
	h.Settle()
	before := diskBytes(t, h.Dir)
	in, err := os.Open(h.Personal("original"))
	check(t, err)
	out, err := os.Create(h.Personal("copy"))
	check(t, err)
	for done := 0; done < size; {
		n, err := unix.CopyFileRange(int(in.Fd()), nil, int(out.Fd()), nil, size-done, 0)
		check(t, err)
		if n == 0 {
			t.Fatalf("the copy ends after %d bytes", done)
		}
		done += n
	}
	check(t, in.Close(), out.Close())
	h.Settle()
	if more := diskBytes(t, h.Dir) - before; more > size/16 {
		t.Errorf("a copy of %d bytes takes %d more", size, more)
	}
	Sh(t, h.Personal(), "cmp original copy && echo x >> copy && ! cmp -s original copy")
	h.Remount()
	Sh(t, h.Personal(), fmt.Sprintf("cmp -n %d original copy && test $(stat -c %%s original) = %d", size, size))
}

// diskBytes is what the files of a folder take on the disk.
func diskBytes(t *testing.T, dir string) (sum int64) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && syscall.Lstat(p, &st) == nil {
			sum += st.Blocks * 512
		}
		return err
	}))
	return sum
}
