package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// caller makes up calls. They follow from its source of random numbers alone.
type caller struct {
	rnd   *rand.Rand
	creds []cred
	// What there is to call upon: paths, those of directories, slots in use, and extended attributes.
	paths, dirs []string
	slots       []int
	xattrs      [][2]string // a path and a name each
}

// know looks at what there is, so that not all calls fail.
func (c *caller) know(a *actor) {
	c.paths, c.dirs, c.slots, c.xattrs = nil, []string{"."}, nil, nil
	list := make([]byte, 1000)
	for i, fd := range a.slots {
		if fd >= 0 {
			c.slots = append(c.slots, i)
		}
	}
	a.do(func() {
		_ = filepath.WalkDir(".", func(p string, e os.DirEntry, err error) error {
			if err != nil || p == "." {
				return nil
			}
			c.paths = append(c.paths, p)
			if n, err := unix.Llistxattr(p, list); err == nil {
				for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
					if name != "" {
						c.xattrs = append(c.xattrs, [2]string{p, name})
					}
				}
			}
			if e.IsDir() {
				c.dirs = append(c.dirs, p)
			}
			return nil
		})
	})
}

// The users of pjdfstest, and some groups.
var creds = []cred{
	{}, {}, {},
	{65534, 65534, nil},
	{65533, 65533, []uint32{65534, 65531}},
	{65533, 65532, []uint32{65533}},
	{65532, 65531, []uint32{65530}},
}

var (
	owners     = []int{-1, 0, 65534, 65533, 65532}
	groupsOf   = []int{-1, 0, 65534, 65533, 65532, 65531, 65530}
	longName   = strings.Repeat("x", 255)
	tooLong    = strings.Repeat("y", 256)
	components = []string{
		"a", "a", "a", "b", "b", "b", "c", "c", "d", "e", "f", "g", "h", ".", "..", longName, tooLong, "\xff\xfe", "ä",
	}
	linkTargets = []string{"a", "b", "../a", "../b/c", ".", "..", "a/b", "self", "d", "nowhere", "c/", longName, tooLong + "/a"}
	fileModes   = []uint32{0o644, 0o666, 0o777, 0o600, 0, 0o400, 0o070, 0o007, 0o4777, 0o2777, 0o6755, 0o2766, 0o6666, 0o1777, 0o4711, 0o2070}
	dirModes    = []uint32{0o755, 0o777, 0o777, 0o777, 0o1777, 0o2777, 0o3777, 0o700, 0o070, 0o711, 0o555, 0o2755, 0}
)

func (c *caller) of(list ...int) int { return list[c.rnd.IntN(len(list))] }

func pick[T any](c *caller, list []T) T { return list[c.rnd.IntN(len(list))] }

func (c *caller) chance(n int) bool { return c.rnd.IntN(n) == 0 }

// name makes up a path: mostly one that is there or could be.
func (c *caller) name() string {
	p := ""
	switch k := c.rnd.IntN(10); {
	case k < 5 && len(c.paths) > 0:
		p = pick(c, c.paths)
	case k < 8:
		p = pick(c, c.dirs) + "/" + pick(c, components)
	default:
		parts := make([]string, 1+c.rnd.IntN(3))
		for i := range parts {
			parts[i] = pick(c, components)
		}
		p = strings.Join(parts, "/")
	}
	switch c.rnd.IntN(80) {
	case 0:
		p += "/"
	case 1:
		p += "/."
	case 2:
		p += "/.."
	case 3:
		return ""
	case 4, 5: // of 4095 bytes, the longest that a call takes, or of one more
		want := 4095 + c.rnd.IntN(2)
		if len(p) < want {
			fill := want - len(p)
			p = strings.Repeat("/", fill%2) + p
			p = strings.Repeat("./", fill/2) + p
			if p[0] == '/' {
				p = "." + p[1:]
			}
		}
	}
	return p
}

// stamp makes up a time for utimensat.
func (c *caller) stamp() unix.Timespec {
	switch c.rnd.IntN(6) {
	case 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case 1:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case 2:
		return unix.Timespec{Sec: -1, Nsec: 999999999}
	}
	return unix.Timespec{Sec: c.rnd.Int64N(1 << 33), Nsec: c.rnd.Int64N(1e9)}
}

func none(err error) (string, error) { return "", err }

// fd gives the descriptor in a slot.
func (a *actor) fd(slot int) int { return a.slots[slot] }

// next makes up a call.
func (c *caller) next() *call {
	k := &call{who: pick(c, c.creds)}
	p, q, slot := c.name(), c.name(), c.slot()
	mode, perm := pick(c, dirModes), pick(c, fileModes)
	uid, gid := pick(c, owners), pick(c, groupsOf)
	if uid < 0 && gid < 0 {
		k.who = root // of others the mount does not hear whether they chown or write: see docs/reliability.md
	}
	is := func(run func(a *actor) (string, error), format string, args ...any) *call {
		k.text, k.run = fmt.Sprintf(format, args...), run
		return k
	}
	on := func(paths ...string) { k.paths = paths }
	switch c.rnd.IntN(43) {
	case 0, 1:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Mkdir(p, mode)) }, "mkdir %.40q %o", p, mode)
	case 2:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Rmdir(p)) }, "rmdir %.40q", p)
	case 3:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Unlink(p)) }, "unlink %.40q", p)
	case 4:
		on(p)
		kind := uint32(c.of(unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFDIR, 0))
		dev := c.of(0, int(unix.Mkdev(1, 3)), int(unix.Mkdev(4095, 1048575)))
		return is(func(*actor) (string, error) { return none(unix.Mknod(p, kind|perm, dev)) }, "mknod %.40q %o %#x", p, kind|perm, dev)
	case 5:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Mkfifo(p, perm)) }, "mkfifo %.40q %o", p, perm)
	case 6, 7:
		on(p)
		target := pick(c, linkTargets)
		if c.chance(20) {
			target = strings.Repeat("./", c.of(2047, 2048)) + "a" // 4095 bytes go, 4097 do not
		}
		if c.chance(30) {
			target = ""
		}
		return is(func(*actor) (string, error) { return none(unix.Symlink(target, p)) }, "symlink %.40q (%d) %.40q", target, len(target), p)
	case 8, 9:
		on(p, q)
		flags := c.of(0, unix.AT_SYMLINK_FOLLOW)
		return is(func(*actor) (string, error) { return none(unix.Linkat(unix.AT_FDCWD, p, unix.AT_FDCWD, q, flags)) }, "link %.40q %.40q %#x", p, q, flags)
	case 10, 11, 12:
		on(p, q)
		flags := uint(c.of(0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE|unix.RENAME_NOREPLACE))
		return is(func(*actor) (string, error) { return none(unix.Renameat2(unix.AT_FDCWD, p, unix.AT_FDCWD, q, flags)) }, "rename %.40q %.40q %#x", p, q, flags)
	case 13:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Chmod(p, perm)) }, "chmod %.40q %o", p, perm)
	case 14:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Chmod(p, mode)) }, "chmod %.40q %o", p, mode)
	case 15:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Chown(p, uid, gid)) }, "chown %.40q %d:%d", p, uid, gid)
	case 16:
		on(p)
		return is(func(*actor) (string, error) { return none(unix.Lchown(p, uid, gid)) }, "lchown %.40q %d:%d", p, uid, gid)
	case 17:
		on(p)
		size := c.size()
		return is(func(*actor) (string, error) { return none(unix.Truncate(p, size)) }, "truncate %.40q %d", p, size)
	case 18:
		on(p)
		times := []unix.Timespec{c.stamp(), c.stamp()}
		flags := c.of(0, unix.AT_SYMLINK_NOFOLLOW)
		return is(func(*actor) (string, error) {
			err := unix.UtimesNanoAt(unix.AT_FDCWD, p, times, flags)
			var st unix.Stat_t
			if err == nil && unix.Fstatat(unix.AT_FDCWD, p, &st, flags) == nil && times[1].Nsec < unix.UTIME_OMIT-1 {
				return fmt.Sprint(st.Mtim), nil
			}
			return "", err
		}, "utimensat %.40q %v %#x", p, times, flags)
	case 19, 20, 21, 22:
		on(p)
		return c.open(k, p, perm)
	case 23:
		return is(func(a *actor) (string, error) { a.set(slot, -1); return "", nil }, "close slot %d", slot)
	case 24:
		n := c.rnd.IntN(5000)
		return is(func(a *actor) (string, error) {
			b := make([]byte, n)
			n, err := unix.Read(a.fd(slot), b)
			return fmt.Sprintf("%x", b[:max(n, 0)]), notFifo(err)
		}, "read slot %d %d", slot, n)
	case 25, 26:
		b := []byte(strings.Repeat(string(rune('a'+c.rnd.IntN(26))), 1+c.rnd.IntN(5000)))
		off := c.size()
		return is(func(a *actor) (string, error) {
			n, err := unix.Pwrite(a.fd(slot), b, off)
			return fmt.Sprint(n), err
		}, "pwrite slot %d %d at %d", slot, len(b), off)
	case 27:
		size := c.size()
		return is(func(a *actor) (string, error) { return none(unix.Ftruncate(a.fd(slot), size)) }, "ftruncate slot %d %d", slot, size)
	case 28:
		return is(func(a *actor) (string, error) { return none(unix.Fchmod(a.fd(slot), perm)) }, "fchmod slot %d %o", slot, perm)
	case 29:
		return is(func(a *actor) (string, error) { return none(unix.Fchown(a.fd(slot), uid, gid)) }, "fchown slot %d %d:%d", slot, uid, gid)
	case 30:
		mode := uint32(c.of(0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE))
		off, n := c.size(), c.size()-1
		return is(func(a *actor) (string, error) { return none(unix.Fallocate(a.fd(slot), mode, off, n)) }, "fallocate slot %d mode %#x %d+%d", slot, mode, off, n)
	case 31:
		return is(func(a *actor) (string, error) { return none(unix.Fsync(a.fd(slot))) }, "fsync slot %d", slot)
	case 32, 38, 39:
		return c.xattr(k, p)
	case 33:
		on(p)
		return is(func(*actor) (string, error) {
			b := make([]byte, 5000)
			n, err := unix.Readlink(p, b)
			return string(b[:max(n, 0)]), err
		}, "readlink %.40q", p)
	case 34:
		on(p)
		want := uint32(c.of(0, unix.R_OK, unix.W_OK, unix.X_OK, unix.R_OK|unix.W_OK|unix.X_OK))
		return is(func(*actor) (string, error) { return none(unix.Faccessat2(unix.AT_FDCWD, p, want, unix.AT_EACCESS)) }, "access %.40q %d", p, want)
	case 35:
		on(p)
		return is(func(*actor) (string, error) { return listing(p) }, "list %.40q", p)
	case 40:
		mask := c.of(0, 0, 0o22, 0o77, 0o777)
		return is(func(*actor) (string, error) { return fmt.Sprintf("%o", unix.Umask(mask)), nil }, "umask %o", mask)
	case 41:
		on(p)
		return is(func(*actor) (string, error) {
			return none(unix.Fchmodat(unix.AT_FDCWD, p, perm, unix.AT_SYMLINK_NOFOLLOW))
		}, "lchmod %.40q %o", p, perm)
	case 42:
		times := []unix.Timespec{c.stamp(), c.stamp()}
		return is(func(a *actor) (string, error) {
			return none(unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/thread-self/fd/%d", a.fd(slot)), times, 0))
		}, "futimens slot %d %v", slot, times)
	case 36:
		on(q)
		return is(func(a *actor) (string, error) {
			return none(unix.Linkat(a.fd(slot), "", unix.AT_FDCWD, q, unix.AT_EMPTY_PATH))
		}, "link slot %d %.40q", slot, q)
	default:
		other, from, to, n := c.slot(), c.size(), c.size(), c.size()
		return is(func(a *actor) (string, error) {
			from, to := from, to
			n, err := unix.CopyFileRange(a.fd(slot), &from, a.fd(other), &to, int(max(n, 0)), 0)
			return fmt.Sprint(n), err
		}, "copy slot %d %d to slot %d %d, %d bytes", slot, from, other, to, n)
	}
}

// notFifo gives one name to what an empty fifo says with and without a writer.
func notFifo(err error) error {
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return err
}

// slot chooses a descriptor, mostly an open one.
func (c *caller) slot() int {
	if len(c.slots) > 0 && !c.chance(8) {
		return pick(c, c.slots)
	}
	return c.rnd.IntN(slotCount)
}

func (c *caller) size() int64 {
	switch c.rnd.IntN(8) {
	case 0:
		return 0
	case 1:
		return 4096
	case 2:
		if c.chance(3) {
			return -1
		}
	}
	return c.rnd.Int64N(20000)
}

// open opens a path into a slot. What devices and fifos do when they are opened for real is not the filesystem's.
func (c *caller) open(k *call, p string, perm uint32) *call {
	slot := c.rnd.IntN(slotCount)
	flags := c.of(unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR, unix.O_PATH)
	for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, unix.O_NOFOLLOW, unix.O_DIRECTORY, unix.O_NOATIME} {
		if c.chance(4) {
			flags |= f
		}
	}
	if c.chance(12) {
		flags |= unix.O_TMPFILE
	}
	k.text = fmt.Sprintf("open %.40q %#x %o in slot %d", p, flags, perm, slot)
	k.run = func(a *actor) (string, error) {
		fd, err := unix.Open(p, flags|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, perm)
		if err != nil {
			return "", err
		}
		a.set(slot, fd)
		got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		return fmt.Sprintf("%#x", got), err
	}
	return k
}

func (c *caller) xattr(k *call, p string) *call {
	name := pick(c, []string{"user.a", "user.a", "user.a", "user.a", "user.b", "user.b", "trusted.c", "trusted.c", "security.d", "user.", "nothing", "user." + longName[:250], "user." + longName[:251]})
	value := []byte(strings.Repeat("v", c.of(0, 1, 100)))
	flags := c.of(0, 0, 0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE, unix.XATTR_CREATE|unix.XATTR_REPLACE)
	do := c.rnd.IntN(5)
	if do >= 3 && len(c.xattrs) > 0 && c.chance(2) {
		x := pick(c, c.xattrs)
		p, name = x[0], x[1]
	}
	k.paths = []string{p}
	switch do {
	case 0:
		k.text = fmt.Sprintf("lsetxattr %.40q %.20s %d %d", p, name, len(value), flags)
		k.run = func(*actor) (string, error) { return none(unix.Lsetxattr(p, name, value, flags)) }
	case 1, 2:
		k.text = fmt.Sprintf("setxattr %.40q %.20s %d %d", p, name, len(value), flags)
		k.run = func(*actor) (string, error) { return none(unix.Setxattr(p, name, value, flags)) }
	case 3:
		k.text = fmt.Sprintf("removexattr %.40q %.20s", p, name)
		k.run = func(*actor) (string, error) { return none(unix.Removexattr(p, name)) }
	default:
		n := c.of(0, 10, 1000)
		k.text = fmt.Sprintf("lgetxattr and llistxattr %.40q %.20s %d", p, name, n)
		k.run = func(*actor) (string, error) {
			b := make([]byte, n)
			got, err := unix.Lgetxattr(p, name, b)
			if err != nil {
				return "", err
			}
			list := make([]byte, 1000)
			m, err := unix.Llistxattr(p, list)
			if err != nil {
				return "", err
			}
			names := strings.Split(string(list[:m]), "\x00")
			slices.Sort(names)
			return fmt.Sprint(got, names), nil
		}
	}
	return k
}

// listing reads a directory.
func listing(p string) (string, error) {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var names []string
	b := make([]byte, 8192)
	for {
		n, err := unix.Getdents(fd, b)
		if err != nil || n <= 0 {
			slices.Sort(names)
			return strings.Join(names, "|"), err
		}
		for at := 0; at < n; {
			length := int(b[at+16]) | int(b[at+17])<<8
			kind, name := b[at+18], b[at+19:at+length]
			end := slices.Index(name, 0)
			names = append(names, fmt.Sprintf("%s:%d", name[:end], kind))
			at += length
		}
	}
}

// settledClock reports whether the times of a folder are fine enough that two changes one after the other differ.
func settledClock(dir string) bool {
	var last unix.Timespec
	for i := range 20 {
		p := fmt.Sprintf("%s/.clock", dir)
		fd, err := unix.Open(p, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		_, err = unix.Write(fd, []byte{byte(i)})
		var st unix.Stat_t
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		unix.Close(fd)
		if err != nil || st.Mtim.Nano() <= last.Nano() {
			return false
		}
		last = st.Mtim
		time.Sleep(10 * time.Microsecond)
	}
	return unix.Unlink(dir+"/.clock") == nil
}
