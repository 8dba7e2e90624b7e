package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestDiffersNotFromDisk does the same random work on the mount and on a local folder, and compares every result, every
// error number and in the end the trees.
func TestDiffersNotFromDisk(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			m := mountOn(t, open(t))
			top := m.dir
			if name != "mem" {
				top += "/Personal"
			}
			local := t.TempDir()
			run := 0
			rapid.Check(t, func(t *rapid.T) {
				run++
				d := differ{t: t, roots: [2]string{fmt.Sprintf("%s/%d", top, run), fmt.Sprintf("%s/%d", local, run)}}
				for _, root := range d.roots {
					if err := os.Mkdir(root, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				t.Repeat(d.actions())
				a, b := tree(d.roots[0]), tree(d.roots[1])
				if !slices.Equal(a, b) {
					t.Fatalf("the mount holds\n%s\nthe disk\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
				}
			})
		})
	}
}

// differ does things twice.
type differ struct {
	t     *rapid.T
	roots [2]string
}

// both does something in both places and compares what comes of it.
func (d *differ) both(t *rapid.T, what string, do func(root string) (string, error)) {
	var results [2]string
	for i, root := range d.roots {
		s, err := do(root)
		var errno syscall.Errno
		errors.As(err, &errno)
		results[i] = fmt.Sprintf("%q, %s", s, unix.ErrnoName(errno))
	}
	if results[0] != results[1] {
		t.Fatalf("%s: the mount gives %s, the disk %s", what, results[0], results[1])
	}
}

var pathGen = rapid.Custom(func(t *rapid.T) string {
	part := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	return strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "parts"), "/")
})

func (d *differ) actions() map[string]func(*rapid.T) {
	one := func(f func(path string) error) func(*rapid.T) {
		return func(t *rapid.T) {
			p := pathGen.Draw(t, "path")
			d.both(t, p, func(root string) (string, error) { return "", f(root + "/" + p) })
		}
	}
	two := func(f func(a, b string) error) func(*rapid.T) {
		return func(t *rapid.T) {
			p, q := pathGen.Draw(t, "from"), pathGen.Draw(t, "to")
			d.both(t, p+" "+q, func(root string) (string, error) { return "", f(root+"/"+p, root+"/"+q) })
		}
	}
	rename := func(flags uint) func(*rapid.T) {
		return two(func(a, b string) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) })
	}
	return map[string]func(*rapid.T){
		"mkdir":    one(func(p string) error { return unix.Mkdir(p, 0o750) }),
		"rmdir":    one(unix.Rmdir),
		"unlink":   one(unix.Unlink),
		"link":     two(unix.Link),
		"rename":   rename(0),
		"fresh":    rename(unix.RENAME_NOREPLACE),
		"exchange": rename(unix.RENAME_EXCHANGE),
		"symlink":  one(func(p string) error { return unix.Symlink("a/b", p) }),
		"fifo":     one(func(p string) error { return unix.Mknod(p, unix.S_IFIFO|0o600, 0) }),
		"chmod": func(t *rapid.T) {
			p, mode := pathGen.Draw(t, "path"), rapid.Uint32Range(0o700, 0o777).Draw(t, "mode")
			d.both(t, "chmod", func(root string) (string, error) { return "", unix.Chmod(root+"/"+p, mode) })
		},
		"write": func(t *rapid.T) {
			p := pathGen.Draw(t, "path")
			flags := rapid.SampledFrom([]int{0, unix.O_APPEND, unix.O_TRUNC, unix.O_EXCL, unix.O_CREAT, unix.O_CREAT | unix.O_EXCL, unix.O_CREAT | unix.O_TRUNC}).Draw(t, "flags")
			off := rapid.Int64Range(0, 9000).Draw(t, "off")
			data := strings.Repeat(rapid.StringN(1, 10, 20).Draw(t, "data"), rapid.IntRange(1, 500).Draw(t, "times"))
			d.both(t, "write", func(root string) (string, error) {
				fd, err := unix.Open(root+"/"+p, unix.O_RDWR|unix.O_NONBLOCK|flags, 0o640)
				if err != nil {
					return "", err
				}
				defer unix.Close(fd)
				if flags&unix.O_APPEND == 0 {
					_, _ = unix.Seek(fd, off, 0)
				}
				n, err := unix.Write(fd, []byte(data))
				return fmt.Sprint(n), err
			})
		},
		"truncate": func(t *rapid.T) {
			p, size := pathGen.Draw(t, "path"), rapid.Int64Range(0, 20000).Draw(t, "size")
			d.both(t, "truncate", func(root string) (string, error) {
				var st unix.Stat_t
				if err := unix.Stat(root+"/"+p, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
					return "", nil
				}
				return "", unix.Truncate(root+"/"+p, size)
			})
		},
		"xattr": func(t *rapid.T) {
			p, name := pathGen.Draw(t, "path"), rapid.SampledFrom([]string{"user.a", "user.b"}).Draw(t, "name")
			value, flags := rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "value"), rapid.IntRange(0, 2).Draw(t, "flags")
			remove := rapid.Bool().Draw(t, "remove")
			d.both(t, "xattr", func(root string) (string, error) {
				if remove {
					return "", unix.Removexattr(root+"/"+p, name)
				}
				return "", unix.Setxattr(root+"/"+p, name, value, flags)
			})
		},
		"read": func(t *rapid.T) {
			p := pathGen.Draw(t, "path")
			d.both(t, "stat", func(root string) (string, error) {
				var st unix.Stat_t
				err := unix.Lstat(root+"/"+p, &st)
				if st.Mode&unix.S_IFMT == unix.S_IFDIR {
					st.Size = 0
				}
				return fmt.Sprintf("%o %d %d", st.Mode, st.Nlink, st.Size), err
			})
		},
	}
}

// tree lists everything below a folder.
func tree(root string) (all []string) {
	_ = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(path, &st) != nil {
			all = append(all, fmt.Sprint(path, err))
			return nil
		}
		line := fmt.Sprintf("%s %o %d", strings.TrimPrefix(path, root), st.Mode, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			line += fmt.Sprintf(" %q %v", b, err)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			line += fmt.Sprintf(" %q %v", target, err)
		}
		for _, name := range []string{"user.a", "user.b"} {
			b := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, name, b); err == nil {
				line += fmt.Sprintf(" %s=%q", name, b[:n])
			}
		}
		all = append(all, line)
		return nil
	})
	return all
}
