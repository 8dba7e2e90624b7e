package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scene is a folder in which something is done, and what is told of it: the same on every filesystem.
type scene struct {
	*testing.T
	dir   string
	lines []string
}

func (s *scene) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// say tells what came of something.
func (s *scene) say(what string, err error, more ...any) {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		what += ": " + unix.ErrnoName(errno)
	case err != nil:
		what += ": " + err.Error()
	}
	if len(more) > 0 {
		what += ": " + strings.TrimSpace(fmt.Sprintln(more...))
	}
	s.lines = append(s.lines, what)
}

// open opens a file until the end of the test.
func (s *scene) open(name string, flags int) int {
	s.Helper()
	fd, err := unix.Open(s.path(name), flags|unix.O_CLOEXEC, 0o666)
	if err != nil {
		s.Fatalf("open %s: %v", name, err)
	}
	s.Cleanup(func() { unix.Close(fd) })
	return fd
}

// scenes are told in a folder of an ext4 and in one of the mount; the tales must be equal.
var scenes = map[string]func(s *scene){
	"record locks": recordLocks, "whole locks": wholeLocks, "locks of descriptions": descriptionLocks, "leases": leases,
	"appends of processes": appendsOfProcesses, "limits": limits, "maps and truncation": mapsAndTruncation,
	"private maps": privateMaps, "data and holes": dataAndHoles, "times": timesKept, "running program": runningProgram,
	"deleted folder": deletedFolder, "unlinked file": unlinkedFile, "nameless file": namelessFile, "pipes and sockets": pipesAndSockets,
	"splices": splices, "write flags": writeFlags, "open folder": openFolder, "listing while it changes": listingWhileItChanges,
	"watched folder": watchedFolder, "many attributes": manyAttributes, "syncs": syncs, "statx": statxFields, "large offsets": largeOffsets,
	"many links": manyLinks,
}

// TestScenes does what belongs to processes, maps, locks and open descriptors, on the mount and on an ext4, and compares.
func TestScenes(t *testing.T) {
	local := localFolder(t)
	h := Mounted(t)
	for name, play := range scenes {
		t.Run(name, func(t *testing.T) {
			var tales [2]string
			for i, base := range []string{local, h.Personal()} {
				s := &scene{T: t, dir: filepath.Join(base, strings.ReplaceAll(name, " ", "-"))}
				check(t, os.Mkdir(s.dir, 0o777))
				play(s)
				tales[i] = strings.Join(s.lines, "\n")
				if len(s.lines) == 0 {
					t.Fatal("nothing was told")
				}
			}
			if tales[0] != tales[1] {
				t.Errorf("an ext4 says\n%s\nthe mount\n%s", differing(tales[0], tales[1]), differing(tales[1], tales[0]))
			}
		})
	}
}

// differing gives the lines of a that differ from those of b.
func differing(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	var out []string
	for i, l := range x {
		if i >= len(y) || y[i] != l {
			out = append(out, fmt.Sprintf("%d %s", i, l))
		}
	}
	return strings.Join(out, "\n")
}

func recordLocks(s *scene) {
	a, b, c := newProcess(s), newProcess(s), newProcess(s)
	for _, p := range []*process{a, b, c} {
		s.say("open", nil, p.do("open 0 %s %d", s.path("f"), unix.O_RDWR|unix.O_CREAT))
	}
	s.say("a writes 0+100", nil, a.do("lock set 0 w 0 100"))
	s.say("b wants to read 50+10", nil, b.do("lock set 0 r 50 10"))
	s.say("b asks", nil, b.do("lock get 0 w 50 10"))
	s.say("b reads 100+0", nil, b.do("lock set 0 r 100 0"))
	s.say("c reads 1000+10", nil, c.do("lock set 0 r 1000 10"))
	s.say("c wants to write there", nil, c.do("lock set 0 w 1000 10"))
	s.say("a splits", nil, a.do("lock set 0 u 40 20"))
	s.say("b takes the middle", nil, b.do("lock set 0 w 40 20"))
	s.say("a asks behind", nil, a.do("lock get 0 w 30 100"))
	s.say("a asks before", nil, a.do("lock get 0 w 0 40"))
	a.start("lock wait 0 w 40 20")
	time.Sleep(100 * time.Millisecond)
	s.say("b waits for a", nil, b.do("lock wait 0 w 0 40")) // EDEADLK
	s.say("b gives it up", nil, b.do("lock set 0 u 40 20"))
	s.say("a waited", nil, a.end())
	b.start("lock wait 0 w 0 10")
	time.Sleep(50 * time.Millisecond)
	a.kill() // its locks go
	s.say("b waited", nil, b.end())
	s.say("c opens again", nil, c.do("open 1 %s %d", s.path("f"), unix.O_RDWR))
	s.say("and closes", nil, c.do("close 1")) // with it all its locks of the file
	s.say("b writes where c was", nil, b.do("lock set 0 w 1000 10"))
	s.say("one that does not write", nil, c.do("open 2 %s %d", s.path("f"), unix.O_RDONLY))
	s.say("locks for it", nil, c.do("lock set 2 w 5000 1"))
}

func wholeLocks(s *scene) {
	a, b := newProcess(s), newProcess(s)
	for _, p := range []*process{a, b} {
		for i := range 2 {
			s.say("open", nil, p.do("open %d %s %d", i, s.path("f"), unix.O_RDWR|unix.O_CREAT))
		}
	}
	s.say("a shares", nil, a.do("flock 0 %d", unix.LOCK_SH))
	s.say("b shares", nil, b.do("flock 0 %d", unix.LOCK_SH))
	s.say("b wants it all", nil, b.do("flock 0 %d", unix.LOCK_EX|unix.LOCK_NB))
	s.say("a's other one too", nil, a.do("flock 1 %d", unix.LOCK_EX|unix.LOCK_NB))
	s.say("record locks are apart", nil, a.do("lock set 1 w 0 0"))
	b.start("flock 1 %d", unix.LOCK_EX)
	s.say("a gives up", nil, a.do("flock 0 %d", unix.LOCK_UN))
	time.Sleep(50 * time.Millisecond)
	b.kill()
	s.say("a has it all", nil, a.do("flock 0 %d", unix.LOCK_EX|unix.LOCK_NB))
}

func descriptionLocks(s *scene) {
	a, b := newProcess(s), newProcess(s)
	for i := range 2 {
		s.say("open", nil, a.do("open %d %s %d", i, s.path("f"), unix.O_RDWR|unix.O_CREAT))
	}
	s.say("open", nil, b.do("open 0 %s %d", s.path("f"), unix.O_RDWR))
	s.say("the first", nil, a.do("lock ofdset 0 w 0 10"))
	s.say("the second of one process", nil, a.do("lock ofdset 1 w 5 10"))
	s.say("asks", nil, a.do("lock ofdget 1 w 5 10"))
	s.say("a record lock of another", nil, b.do("lock set 0 r 0 1"))
	s.say("a record lock of the same", nil, a.do("lock set 1 r 20 1"))
	s.say("close of the second", nil, a.do("close 1"))
	s.say("the first holds", nil, b.do("lock set 0 r 0 1"))
	s.say("close of the first", nil, a.do("close 0"))
	s.say("then not", nil, b.do("lock set 0 r 0 1"))
}

func leases(s *scene) {
	a := newProcess(s)
	s.say("open", nil, a.do("open 0 %s %d", s.path("f"), unix.O_RDONLY|unix.O_CREAT))
	s.say("lease", nil, a.do("lease 0 %d", unix.F_RDLCK))
	s.say("back", nil, a.do("lease 0 %d", unix.F_UNLCK))
}

func pipesAndSockets(s *scene) {
	fifo := s.path("fifo")
	s.say("mkfifo", unix.Mkfifo(fifo, 0o600))
	_, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK, 0)
	s.say("to write without a reader", err)
	read := make(chan string)
	go func() {
		b, err := os.ReadFile(fifo)
		read <- fmt.Sprint(string(b), err)
	}()
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	check(s, err)
	_, err = w.WriteString("through the fifo")
	check(s, err, w.Close())
	s.say("read", nil, <-read)
	a, err := newActor(s.dir) // an address holds 108 bytes
	check(s, err)
	defer a.close()
	var l net.Listener
	a.do(func() { l, err = net.Listen("unix", "sock") })
	check(s, err)
	var st unix.Stat_t
	s.say("socket", unix.Lstat(s.path("sock"), &st), fmt.Sprintf("%o", st.Mode&unix.S_IFMT))
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte("through the socket"))
			c.Close()
		}
	}()
	a.do(func() {
		c, err := net.Dial("unix", "sock")
		if err != nil {
			s.say("dial", err)
			return
		}
		b := make([]byte, 100)
		n, err := c.Read(b)
		s.say("dial", err, string(b[:n]))
		c.Close()
	})
	_, err = unix.Open(s.path("sock"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	s.say("open a socket", err)
	a.do(func() { l.Close() })
	s.say("device", unix.Mknod(s.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	s.say("stat", unix.Stat(s.path("null"), &st), unix.Major(st.Rdev), unix.Minor(st.Rdev))
	_, err = unix.Open(s.path("null"), unix.O_RDWR, 0)
	s.say("open a device", err)
}

func manyAttributes(s *scene) {
	check(s, os.WriteFile(s.path("f"), nil, 0o644))
	for i := range 40 {
		check(s, unix.Setxattr(s.path("f"), fmt.Sprintf("user.%d", i), bytes.Repeat([]byte("v"), i), 0))
	}
	n, err := unix.Listxattr(s.path("f"), nil)
	s.say("list", err, n)
	b := make([]byte, n)
	_, err = unix.Listxattr(s.path("f"), b[:n-1])
	s.say("list into too little", err)
	_, err = unix.Listxattr(s.path("f"), b)
	names := strings.Split(string(b), "\x00")
	slices.Sort(names)
	s.say("list", err, names)
	for i := range 40 {
		k, err := unix.Getxattr(s.path("f"), fmt.Sprintf("user.%d", i), b[:39])
		s.say("value", err, k)
	}
	s.say("name of 255", unix.Setxattr(s.path("f"), "user."+strings.Repeat("n", 250), nil, 0))
	s.say("name of 256", unix.Setxattr(s.path("f"), "user."+strings.Repeat("n", 251), nil, 0))
	s.say("value of 64 KiB and one", unix.Setxattr(s.path("f"), "user.large", make([]byte, 65537), 0))
	s.say("flags", unix.Setxattr(s.path("f"), "user.a", nil, 8))
	for i := range 40 {
		check(s, unix.Removexattr(s.path("f"), fmt.Sprintf("user.%d", i)))
	}
	check(s, unix.Removexattr(s.path("f"), "user."+strings.Repeat("n", 250)))
	n, err = unix.Listxattr(s.path("f"), nil)
	s.say("none left", err, n)
}
