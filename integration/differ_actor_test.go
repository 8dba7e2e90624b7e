package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A differ does the same system calls in a folder of the mount and in one of a local filesystem, and compares what comes of
// them: results, error numbers, and of every inode concerned what stat shows, with which of its times have changed.
type differ struct {
	sides [2]*actor
	names [2]string
	// outcomes counts by the name of the call what came of it: "" is success, else an error.
	outcomes map[string]map[string]int
}

func newDiffer() *differ {
	return &differ{names: [2]string{"the mount", "ext4"}, outcomes: map[string]map[string]int{}}
}

// actor does system calls in one folder. Its thread has a working directory, an umask and credentials of its own, so that
// relative paths have the same length on both sides.
type actor struct {
	dir   string
	jobs  chan func()
	slots [slotCount]int // descriptors; -1: none
}

const slotCount = 4

// cred is who does something.
type cred struct {
	uid, gid int
	groups   []uint32
}

func (c cred) String() string { return fmt.Sprintf("%d:%d%v", c.uid, c.gid, c.groups) }

var root = cred{}

// newActor begins in dir; close ends it.
func newActor(dir string) (*actor, error) {
	a := &actor{dir: dir, jobs: make(chan func())}
	for i := range a.slots {
		a.slots[i] = -1
	}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(dir)
		}
		unix.Umask(0)
		ready <- err
		for job := range a.jobs {
			job()
		}
	}()
	return a, <-ready
}

func (a *actor) close() {
	for i := range a.slots {
		a.set(i, -1)
	}
	a.do(func() { _ = unix.Chdir("/") }) // the thread may live a little longer
	close(a.jobs)
}

// set puts a descriptor into a slot, and closes what was there.
func (a *actor) set(slot, fd int) {
	if a.slots[slot] >= 0 {
		unix.Close(a.slots[slot])
	}
	a.slots[slot] = fd
}

// do runs fn on the actor's thread.
func (a *actor) do(fn func()) {
	done := make(chan struct{})
	a.jobs <- func() { defer close(done); fn() }
	<-done
}

// as runs fn on the actor's thread with credentials. The real and the saved user stay root, so that it can go back.
func (a *actor) as(who cred, fn func()) {
	a.do(func() {
		if who.uid == 0 && who.gid == 0 && len(who.groups) == 0 {
			fn()
			return
		}
		become(who)
		defer become(root)
		fn()
	})
}

// become sets the credentials of the thread alone, which the functions of the library would set for the process.
func become(who cred) {
	minus := ^uintptr(0)
	call := func(trap, a, b, c uintptr) {
		if _, _, errno := unix.RawSyscall(trap, a, b, c); errno != 0 {
			panic(fmt.Sprintf("credentials %v: %v", who, errno))
		}
	}
	if who.uid == 0 {
		call(unix.SYS_SETRESUID, minus, 0, minus)
	}
	var groups unsafe.Pointer
	if len(who.groups) > 0 {
		groups = unsafe.Pointer(&who.groups[0])
	}
	call(unix.SYS_SETGROUPS, uintptr(len(who.groups)), uintptr(groups), 0)
	call(unix.SYS_SETRESGID, minus, uintptr(who.gid), minus)
	if who.uid != 0 {
		call(unix.SYS_SETRESUID, minus, uintptr(who.uid), minus)
	}
}

// call is one system call, or some, and what it concerns.
type call struct {
	text  string
	who   cred
	paths []string
	run   func(a *actor) (string, error)
}

func (c *call) String() string { return fmt.Sprintf("%v: %s", c.who, c.text) }

// compare does a call on both sides. It returns what differs, "" when nothing does.
func (d *differ) compare(c *call) string {
	var out [2]string
	for i, a := range d.sides {
		out[i] = a.observe(c)
	}
	name, _, _ := strings.Cut(c.text, " ")
	if d.outcomes[name] == nil {
		d.outcomes[name] = map[string]int{}
	}
	result, _, _ := strings.Cut(out[1], "\n")
	errno, failed := strings.CutPrefix(result, "fails with ")
	if !failed {
		errno = ""
	}
	d.outcomes[name][errno]++
	if out[0] == out[1] {
		return ""
	}
	text := ""
	x, y := strings.Split(out[0], "\n"), strings.Split(out[1], "\n")
	for i := range max(len(x), len(y)) {
		var l, r string
		if i < len(x) {
			l = x[i]
		}
		if i < len(y) {
			r = y[i]
		}
		if l != r {
			text += fmt.Sprintf("%s: %s\n%s: %s\n", d.names[0], l, d.names[1], r)
		}
	}
	return text
}

// observe does a call and says what came of it.
func (a *actor) observe(c *call) string {
	watched := map[string]bool{".": true}
	for _, p := range c.paths {
		watched[p] = true
		watched[path.Dir(strings.TrimRight(p, "/"))] = true
	}
	var before, after map[string]*seen
	var fdsBefore, fdsAfter [slotCount]*seen
	result := ""
	a.do(func() { before, fdsBefore = a.look(watched) })
	a.as(c.who, func() {
		s, err := c.run(a)
		var errno syscall.Errno
		switch {
		case err == nil:
			result = "gives " + s
		case errors.As(err, &errno):
			result = "fails with " + unix.ErrnoName(errno)
		default:
			result = "fails with " + err.Error()
		}
	})
	a.do(func() { after, fdsAfter = a.look(watched) })
	lines := []string{result}
	for _, p := range slices.Sorted(maps.Keys(after)) {
		lines = append(lines, fmt.Sprintf("%.60q is %s", p, after[p].since(before[p])))
	}
	for i := range fdsAfter {
		if s := fdsAfter[i].since(fdsBefore[i]); s != "" {
			lines = append(lines, fmt.Sprintf("slot %d is %s", i, s))
		}
	}
	return strings.Join(lines, "\n")
}

// seen is what stat says.
type seen struct {
	err error
	st  unix.Stat_t
}

func (a *actor) look(paths map[string]bool) (map[string]*seen, [slotCount]*seen) {
	out := map[string]*seen{}
	for p := range paths {
		var l, s seen
		l.err = unix.Lstat(p, &l.st)
		out[p] = &l
		if l.err == nil && l.st.Mode&unix.S_IFMT == unix.S_IFLNK {
			s.err = unix.Stat(p, &s.st)
			out[p+" ->"] = &s
		}
	}
	var fds [slotCount]*seen
	for i, fd := range a.slots {
		if fd >= 0 {
			fds[i] = new(seen)
			fds[i].err = unix.Fstat(fd, &fds[i].st)
		}
	}
	return out, fds
}

// since describes s in words that are the same on every filesystem, b being what was seen before.
func (s *seen) since(b *seen) string {
	switch {
	case s == nil:
		return ""
	case s.err != nil:
		return s.err.Error()
	}
	st := &s.st
	size := st.Size
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		size = 0
	}
	text := fmt.Sprintf("%o, %d links, %d:%d, size %d", st.Mode, st.Nlink, st.Uid, st.Gid, size)
	if t := st.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		text += fmt.Sprintf(", device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	switch {
	case b == nil || b.err != nil:
		return text + ", new"
	case b.st.Ino != st.Ino:
		return text + ", another inode"
	}
	return text + moved("mtime", b.st.Mtim, st.Mtim) + moved("ctime", b.st.Ctim, st.Ctim)
}

func moved(name string, before, after unix.Timespec) string {
	switch b, a := before.Nano(), after.Nano(); {
	case a > b:
		return ", " + name + " later"
	case a < b:
		return ", " + name + " earlier"
	}
	return ""
}

// trees compares all that the two folders hold, but for times.
func (d *differ) trees() string {
	var out [2][]string
	for i, a := range d.sides {
		a.do(func() { out[i] = listAll(a.dir) })
	}
	if slices.Equal(out[0], out[1]) {
		return ""
	}
	return fmt.Sprintf("%s holds\n%s\n%s holds\n%s", d.names[0], strings.Join(missing(out[0], out[1]), "\n"), d.names[1],
		strings.Join(missing(out[1], out[0]), "\n"))
}

func missing(a, b []string) (out []string) {
	for _, s := range a {
		if !slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// listAll describes everything below a folder.
func listAll(dir string) (all []string) {
	_ = filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		var s seen
		if s.err = unix.Lstat(p, &s.st); s.err != nil || err != nil {
			all = append(all, fmt.Sprint(p, s.err, err))
			return nil
		}
		line := strings.TrimPrefix(p, dir) + " " + strings.TrimSuffix(s.since(nil), ", new")
		switch s.st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			line += fmt.Sprintf(" %x %v", b, err)
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			line += fmt.Sprintf(" %q %v", target, err)
		}
		x, err := xattrsOf(p)
		all = append(all, fmt.Sprint(line, " ", x, err))
		return nil
	})
	slices.Sort(all)
	return all
}

// clear empties both folders, and begins in one that is deep enough for all ".." that a path may hold.
func (d *differ) clear() {
	const deep = "1/2/3/4/5/6/7/8/9"
	for _, a := range d.sides {
		for i := range a.slots {
			a.set(i, -1)
		}
		a.do(func() {
			_ = unix.Chdir(a.dir)
			unix.Umask(0)
			list, _ := os.ReadDir(".")
			for _, e := range list {
				os.RemoveAll(e.Name())
			}
			_ = unix.Chmod(".", 0o777)
			_ = os.MkdirAll(deep, 0o777)
			_ = unix.Chdir(deep)
		})
	}
}

// play empties the folders and does n calls as next gives them, up to the first that differs. It returns the calls and what
// differs.
func (d *differ) play(n int, next func(i int) *call) (calls []*call, diff string) {
	d.clear()
	for i := range n {
		c := next(i)
		calls = append(calls, c)
		if diff := d.compare(c); diff != "" {
			return calls, diff
		}
	}
	return calls, d.trees()
}

// shrink leaves calls out for as long as something differs still.
func (d *differ) shrink(calls []*call) ([]*call, string) {
	diff := ""
	for step := len(calls) / 2; step > 0; {
		smaller := false
		for i := 0; i < len(calls); {
			without := slices.Concat(calls[:i], calls[min(len(calls), i+step):])
			if few, found := d.play(len(without), func(i int) *call { return without[i] }); found != "" {
				calls, diff, smaller = few, found, true
				continue
			}
			i += step
		}
		if !smaller || step > 1 {
			step /= 2
		}
	}
	return calls, diff
}
