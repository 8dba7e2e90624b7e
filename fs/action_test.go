package fs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount/memfs"
)

// action is one operation that is done alike to a home and to its model.
type action struct {
	name string
	file string // that it is about, where it is then: what an fsync is called for
	do   func(w walker) error

	settles []string // files whose data are in the journal before it is

	// It writes more than a record of the journal holds. Its data may come to the disk in parts, and later than what is done to
	// names after it.
	parts bool
}

// What is longer comes to the journal in several records.
const (
	piece     = 48 << 10 // of a write
	minShared = 32 << 10 // of a copy
)

// inPart reports whether a file holds what it got up to some place, and what it had from there on.
func inPart(had, gets, got []byte) bool {
	k := firstDifference(got, gets)
	return k == len(got) && k >= len(had) || len(got) == len(had) && bytes.Equal(got[k:], had[k:])
}

// tree is what a directory holds, to be compared: what is said of the names, and the files' contents.
type tree struct {
	names string
	files map[string][]byte
	inos  map[string]fs.Ino // of the files
}

// content is what the file with a number holds.
func (t *tree) content(ino fs.Ino) []byte {
	for name, i := range t.inos {
		if i == ino {
			return t.files[name]
		}
	}
	return nil
}

func (t *tree) equal(o *tree) bool {
	return t.names == o.names && len(t.files) == len(o.files) && t.difference(o) == ""
}

// difference names the first file whose content is not o's.
func (t *tree) difference(o *tree) string {
	for name, b := range t.files {
		if !bytes.Equal(b, o.files[name]) {
			return name
		}
	}
	return ""
}

// tree reads everything below the walker's root.
func (w walker) tree() (*tree, error) {
	out := &tree{files: map[string][]byte{}, inos: map[string]fs.Ino{}}
	var lines []string
	var walk func(dir fs.Ino, path string) error
	walk = func(dir fs.Ino, path string) error {
		var names []string
		if err := w.v.ReadDir(dir, 0, func(e fs.Dirent) bool {
			names = append(names, e.Name)
			return true
		}); err != nil {
			return fmt.Errorf("list %q: %w", path, err)
		}
		slices.Sort(names)
		for _, name := range names {
			path := strings.TrimPrefix(path+"/"+name, "/")
			a, err := w.v.Lookup(dir, name)
			if err != nil {
				return fmt.Errorf("look up %q: %w", path, err)
			}
			if a.Mode&syscall.S_IFMT == syscall.S_IFREG {
				b, err := readAll(w.v, a)
				if err != nil {
					return fmt.Errorf("read %q: %w", path, err)
				}
				out.files[path], out.inos[path] = b, a.Ino
			}
			line, err := w.describe(path, a)
			if err != nil {
				return err
			}
			lines = append(lines, line)
			if a.IsDir() {
				if err := walk(a.Ino, path); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := walk(w.root, "")
	out.names = strings.Join(lines, "\n")
	return out, err
}

// describe says what there is to say of an inode beside its content.
func (w walker) describe(path string, a fs.Attr) (string, error) {
	line := fmt.Sprintf("%s %o nlink=%d %d:%d", path, a.Mode, a.Nlink, a.UID, a.GID)
	if a.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		target, err := w.v.Readlink(a.Ino)
		if err != nil {
			return "", fmt.Errorf("readlink %q: %w", path, err)
		}
		line += " -> " + target
	}
	xattrs, err := w.v.Listxattr(a.Ino)
	if err != nil {
		return "", fmt.Errorf("list attributes of %q: %w", path, err)
	}
	slices.Sort(xattrs)
	for _, x := range xattrs {
		v, err := w.v.Getxattr(a.Ino, x)
		if err != nil {
			return "", fmt.Errorf("attribute %s of %q: %w", x, path, err)
		}
		line += fmt.Sprintf(" %s=%q", x, v)
	}
	return line, nil
}

func readAll(v vfs, a fs.Attr) ([]byte, error) {
	b := make([]byte, a.Size)
	for off := 0; off < len(b); {
		n, err := v.Read(ctx, a.Ino, b[off:min(len(b), off+1<<20)], int64(off))
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if n == 0 {
			return nil, fmt.Errorf("it ends at %d of %d", off, len(b))
		}
		off += n
	}
	return b, nil
}

// newModel gives an empty model of a space.
func newModel() walker {
	return walker{memfs.New(memfs.Options{UID: 1000, GID: 1000}), fs.RootIno}
}

// at does fn to the inode at a path.
func at(path string, fn func(w walker, a fs.Attr) error) func(w walker) error {
	return func(w walker) error {
		a, err := w.find(path)
		if err != nil {
			return err
		}
		return fn(w, a)
	}
}

// in does fn to the directory of a path and its last name.
func in(path string, fn func(w walker, dir fs.Ino, name string) error) func(w walker) error {
	return func(w walker) error {
		dir, name, err := w.parent(path)
		if err != nil {
			return err
		}
		return fn(w, dir, name)
	}
}

var someone = fs.Cred{UID: 1000, GID: 1000}

func create(path string) action {
	return action{name: "create " + path, file: path, do: in(path, func(w walker, dir fs.Ino, name string) error {
		_, err := w.v.Mknod(dir, name, 0100644, 0, someone)
		return err
	})}
}

func mkdir(path string) action {
	return action{name: "mkdir " + path, file: path, do: in(path, func(w walker, dir fs.Ino, name string) error {
		_, err := w.v.Mkdir(dir, name, 0755, someone)
		return err
	})}
}

func symlink(path, target string) action {
	return action{name: "symlink " + path, file: path, do: in(path, func(w walker, dir fs.Ino, name string) error {
		_, err := w.v.Symlink(dir, name, target, someone)
		return err
	})}
}

func link(old, path string) action {
	return action{name: "link " + old + " " + path, file: path, settles: []string{old}, do: at(old, func(w walker, a fs.Attr) error {
		dir, name, err := w.parent(path)
		if err != nil {
			return err
		}
		if a.IsDir() {
			return fs.ErrPerm
		}
		_, err = w.v.Link(a.Ino, dir, name)
		return err
	})}
}

func unlink(path string) action {
	return action{name: "unlink " + path, file: path, do: in(path, func(w walker, dir fs.Ino, name string) error {
		return w.v.Unlink(dir, name)
	})}
}

func rmdir(path string) action {
	return action{name: "rmdir " + path, file: path, do: in(path, func(w walker, dir fs.Ino, name string) error {
		return w.v.Rmdir(dir, name)
	})}
}

func rename(old, path string, flags uint32) action {
	name, settles := "rename ", []string{old}
	if flags&fs.RenameExchange != 0 {
		name, settles = "exchange ", []string{old, path}
	}
	return action{name: name + old + " " + path, file: path, settles: settles, do: in(old, func(w walker, from fs.Ino, name string) error {
		to, newName, err := w.parent(path)
		if err != nil {
			return err
		}
		return w.v.Rename(from, name, to, newName, flags)
	})}
}

// regular does fn to a file at a path; the kernel lets nothing of the sort come for another kind of inode.
func regular(path string, fn func(w walker, a fs.Attr) error) func(w walker) error {
	return at(path, func(w walker, a fs.Attr) error {
		if a.Mode&syscall.S_IFMT != syscall.S_IFREG {
			return fs.ErrInvalid
		}
		return fn(w, a)
	})
}

// end as an offset is the end of the file.
const end = -1

// write writes n bytes in one call, at an offset or behind the end.
func write(path string, off int64, n int) action {
	data := pattern(uint64(n)+uint64(off)<<20, n)
	a := action{name: fmt.Sprintf("write %s %d+%d", path, off, n), file: path}
	a.do = regular(path, func(w walker, x fs.Attr) error {
		k, err := w.v.Write(ctx, x.Ino, data, max(off, 0), fs.WriteFlags{Append: off == end})
		if err == nil && k < len(data) {
			err = fmt.Errorf("short write: %d", k)
		}
		return err
	})
	a.parts = n > piece
	return a
}

func truncate(path string, size int64) action {
	return action{name: fmt.Sprintf("truncate %s %d", path, size), file: path, do: regular(path, func(w walker, a fs.Attr) error {
		_, err := w.v.Setattr(ctx, a.Ino, fs.SetAttr{Size: &size})
		return err
	})}
}

func fallocate(path string, mode uint32, off, n int64) action {
	return action{name: fmt.Sprintf("fallocate %s %x %d+%d", path, mode, off, n), file: path, do: regular(path, func(w walker, a fs.Attr) error {
		return w.v.Fallocate(ctx, a.Ino, mode, off, n)
	})}
}

func setxattr(path, name, value string) action {
	return action{name: "setxattr " + path + " " + name, file: path, do: at(path, func(w walker, a fs.Attr) error {
		return w.v.Setxattr(a.Ino, name, []byte(value), 0)
	})}
}

func removexattr(path, name string) action {
	return action{name: "removexattr " + path + " " + name, file: path, do: at(path, func(w walker, a fs.Attr) error {
		return w.v.Removexattr(a.Ino, name)
	})}
}

func chmod(path string, mode uint32) action {
	return action{name: fmt.Sprintf("chmod %s %o", path, mode), file: path, do: at(path, func(w walker, a fs.Attr) error {
		_, err := w.v.Setattr(ctx, a.Ino, fs.SetAttr{Mode: &mode})
		return err
	})}
}

func copyRange(src string, off int64, dst string, to, n int64) action {
	name := fmt.Sprintf("copy %s %d %s %d+%d", src, off, dst, to, n)
	return action{name: name, file: dst, parts: n > minShared, do: regular(src, func(w walker, a fs.Attr) error {
		b, err := w.find(dst)
		if err != nil {
			return err
		}
		if b.Mode&syscall.S_IFMT != syscall.S_IFREG || a.Ino == b.Ino {
			return fs.ErrInvalid
		}
		_, err = w.v.CopyRange(ctx, a.Ino, off, b.Ino, to, n)
		return err
	})}
}

// pattern gives n bytes that are the same each time for a seed.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	x := seed*0x9E3779B97F4A7C15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
