package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Tree is all that a folder holds, by path relative to it.
type Tree map[string]Entry

// Entry is one file, directory or symlink as a comparison sees it.
type Entry struct {
	Mode     uint32 // type and permissions, as st_mode
	UID, GID uint32
	Size     int64  // 0 for directories
	Sum      string // SHA-256 of a regular file's bytes
	Target   string // of a symlink
	Mtime    int64  // nanoseconds; 0 where times are left out
	Rdev     uint64
	Links    string // the first path, in order, of the same inode
	Xattrs   string // name=value, in order
}

// TreeOptions say what a comparison leaves out.
type TreeOptions struct {
	NoTimes  bool                   // mtimes differ, since the work did not set them
	DirTimes bool                   // compare the mtimes of directories too (else only of files and symlinks)
	Skip     func(path string) bool // paths to leave out, with what is below
}

// ReadTree reads a folder.
func ReadTree(t testing.TB, dir string, opt TreeOptions) Tree {
	t.Helper()
	tree, err := readTree(dir, opt)
	if err != nil {
		t.Fatalf("reading the tree %s: %v", dir, err)
	}
	return tree
}

// readTree is ReadTree of a folder in which something may go on.
func readTree(dir string, opt TreeOptions) (Tree, error) {
	tree := Tree{}
	type inode struct{ dev, ino uint64 }
	first := map[inode]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if opt.Skip != nil && opt.Skip(rel) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return fmt.Errorf("lstat %s: %w", path, err)
		}
		e := Entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size}
		if !opt.NoTimes && (opt.DirTimes || st.Mode&syscall.S_IFMT != syscall.S_IFDIR) {
			e.Mtime = st.Mtim.Nano()
		}
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			e.Size = 0
		case syscall.S_IFREG:
			if e.Sum, err = sumFile(path); err != nil {
				return err
			}
		case syscall.S_IFLNK:
			if e.Target, err = os.Readlink(path); err != nil {
				return err
			}
		case syscall.S_IFCHR, syscall.S_IFBLK:
			e.Rdev = st.Rdev
		}
		if st.Mode&syscall.S_IFMT != syscall.S_IFDIR && st.Nlink > 1 {
			id := inode{st.Dev, st.Ino}
			if first[id] == "" {
				first[id] = rel
			}
			e.Links = first[id]
		}
		if e.Xattrs, err = xattrsOf(path); err != nil {
			return err
		}
		tree[rel] = e
		return nil
	})
	delete(tree, ".")
	return tree, err
}

// DiffTrees gives what differs, one line each, at most 20.
func DiffTrees(want, got Tree) []string {
	var out []string
	for _, path := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[path]
		if !ok {
			out = append(out, path+": is missing")
		} else if w := want[path]; w != g {
			out = append(out, fmt.Sprintf("%s: want %+v\n%*s  got %+v", path, w, len(path), "", g))
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			out = append(out, path+": is too much")
		}
	}
	if len(out) > 20 {
		out = append(out[:20], fmt.Sprintf("and %d more", len(out)-20))
	}
	return out
}

// SameTree fails when two trees differ.
func SameTree(t testing.TB, what string, want, got Tree) {
	t.Helper()
	if d := DiffTrees(want, got); len(d) > 0 {
		t.Fatalf("%s: the trees differ:\n%s", what, strings.Join(d, "\n"))
	}
	if len(want) == 0 {
		t.Fatalf("%s: the trees are empty, so nothing was compared", what)
	}
}

// SameAsLocal does the same work in a local folder and in one of the space Personal, and compares what it left; then again
// after unmount and mount. It gives the home, mounted, and the folder in it.
func SameAsLocal(t *testing.T, opt TreeOptions, work func(t *testing.T, dir string)) (*Home, string) {
	t.Helper()
	local := filepath.Join(t.TempDir(), "work")
	if err := os.Mkdir(local, 0o755); err != nil {
		t.Fatal(err)
	}
	work(t, local)
	want := ReadTree(t, local, opt)
	h := Mounted(t)
	dir := h.Personal("work")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	work(t, dir)
	SameTree(t, "on the mount", want, ReadTree(t, dir, opt))
	h.Remount()
	SameTree(t, "after unmount and mount", want, ReadTree(t, dir, opt))
	return h, dir
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// xattrsOf lists a file's attributes with their values, without following a symlink.
func xattrsOf(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("llistxattr %s: %w", path, err)
	}
	var out []string
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		v := make([]byte, 64<<10)
		m, err := unix.Lgetxattr(path, name, v)
		if err != nil {
			return "", fmt.Errorf("lgetxattr %s %s: %w", path, name, err)
		}
		out = append(out, fmt.Sprintf("%s=%q", name, v[:m]))
	}
	slices.Sort(out)
	return strings.Join(out, " "), nil
}

func getxattr(path, name string) (string, error) {
	v := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, name, v)
	if err != nil {
		return "", err
	}
	return string(v[:n]), nil
}
