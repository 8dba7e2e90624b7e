package integration

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

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

func appendsOfProcesses(s *scene) {
	var ps []*process
	for i := range 4 {
		p := newProcess(s)
		p.start("append %s %c 300", s.path("log"), 'a'+i)
		ps = append(ps, p)
	}
	for _, p := range ps {
		s.say("appended", nil, p.end())
	}
	b, err := os.ReadFile(s.path("log"))
	lines := strings.Split(string(b), "\n")
	slices.Sort(lines)
	s.say("log", err, len(b), sumText(lines))
}

func sumText(lines []string) string {
	return fmt.Sprintf("%d lines, %x", len(lines), sha256.Sum256([]byte(strings.Join(lines, "\n"))))
}

func limits(s *scene) {
	p := newProcess(s)
	s.say("open", nil, p.do("open 0 %s %d", s.path("f"), unix.O_RDWR|unix.O_CREAT))
	s.say("limit", nil, p.do("limit 10000"))
	s.say("below", nil, p.do("write 0 0 5000"))
	s.say("across", nil, p.do("write 0 5000 10000"))
	s.say("above", nil, p.do("write 0 10000 10"))
	s.say("truncate above", nil, p.do("truncate 0 10001"))
	s.say("truncate below", nil, p.do("truncate 0 9999"))
}

// inMap does something with a map, and tells of the fault where there is one.
func (s *scene) inMap(what string, do func()) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		var err error
		if v := recover(); v != nil {
			err = errors.New("a fault")
		}
		s.say(what, err)
	}()
	do()
}

func mapsAndTruncation(s *scene) {
	fd := s.open("f", unix.O_RDWR|unix.O_CREAT)
	const page = 4096
	_, err := unix.Write(fd, bytes.Repeat([]byte("x"), 3*page-100))
	s.say("write", err)
	m, err := unix.Mmap(fd, 0, 4*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(s, err)
	defer func() { _ = unix.Munmap(m) }()
	s.say("what it shows", nil, m[0], m[3*page-101], m[3*page-100], m[3*page-1])
	s.inMap("a page behind the end", func() { m[3*page] = 1 })
	s.inMap("the last page, behind the end", func() { m[3*page-1] = 'y' })
	s.say("truncate", unix.Ftruncate(fd, page+10))
	s.inMap("a page that was cut", func() { _ = m[2*page] })
	s.inMap("a page that was cut, to write", func() { m[2*page] = 1 })
	s.inMap("the page of the end", func() { m[page+5] = 'z' })
	s.say("behind the end", nil, m[page+10], m[2*page-1])
	// What is written there and not synced while the file grows, the kernel keeps in a FUSE file: see docs/reliability.md.
	s.say("grow", unix.Ftruncate(fd, 4*page))
	s.inMap("what it grew by", func() { s.say("shows", nil, m[page+5], m[page+10], m[2*page], m[3*page-1], m[4*page-1]) })
	s.inMap("write there", func() { m[4*page-1] = 'e' })
	_, err = unix.Pwrite(fd, []byte("written"), 2*page-3)
	s.inMap("read what was written", func() { s.say("shows", err, string(m[2*page-3:2*page+4])) })
	s.say("hole", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 2*page-1, 2*page))
	s.inMap("read the hole", func() { s.say("shows", nil, m[2*page-2], m[2*page-1], m[2*page], m[4*page-2], m[4*page-1]) })
	s.say("sync", unix.Msync(m, unix.MS_SYNC))
	b, err := os.ReadFile(s.path("f"))
	s.say("read", err, len(b), sumText([]string{string(b)}))
	s.say("truncate", unix.Ftruncate(fd, 0))
	s.inMap("a map of nothing", func() { _ = m[0] })
}

func privateMaps(s *scene) {
	check(s, os.WriteFile(s.path("f"), bytes.Repeat([]byte("p"), 10000), 0o644))
	fd := s.open("f", unix.O_RDONLY)
	_, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	s.say("a shared one to write, of a file to read", err)
	m, err := unix.Mmap(fd, 0, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	check(s, err)
	m[5] = 'q'
	check(s, os.WriteFile(s.path("f"), bytes.Repeat([]byte("r"), 10000), 0o644))
	s.say("after another write", nil, string(m[4:7]), string(m[5000]))
	s.say("unmap", unix.Munmap(m))
	b, err := os.ReadFile(s.path("f"))
	s.say("read", err, string(b[4:7]))
	w := s.open("w", unix.O_WRONLY|unix.O_CREAT)
	_, err = unix.Mmap(w, 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED)
	s.say("a map of a file to write only", err)
	_, err = unix.Mmap(fd, 100, 4096, unix.PROT_READ, unix.MAP_SHARED)
	s.say("from the middle of a page", err)
	d := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	_, err = unix.Mmap(d, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
	s.say("of a folder", err)
}

func dataAndHoles(s *scene) {
	const k = 4096
	fd := s.open("f", unix.O_RDWR|unix.O_CREAT)
	walk := func(what string) {
		check(s, unix.Fsync(fd)) // what an ext4 has allocated and not written yet, it takes for a hole
		var all []string
		for off := int64(0); ; {
			data, err := unix.Seek(fd, off, unix.SEEK_DATA)
			if err != nil {
				all = append(all, err.Error())
				break
			}
			hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
			if err != nil {
				all = append(all, err.Error())
				break
			}
			all = append(all, fmt.Sprintf("%d-%d", data/k, (hole+k-1)/k))
			off = hole
		}
		var st unix.Stat_t
		check(s, unix.Fstat(fd, &st))
		s.say(what, nil, st.Size, all)
	}
	write := func(from, n int) {
		_, err := unix.Pwrite(fd, bytes.Repeat([]byte("d"), n*k), int64(from*k))
		check(s, err)
	}
	allocate := func(mode uint32, from, n int) {
		s.say(fmt.Sprintf("allocate %#x %d+%d", mode, from, n), unix.Fallocate(fd, mode, int64(from*k), int64(n*k)))
	}
	walk("empty")
	check(s, unix.Ftruncate(fd, 100*k))
	walk("all hole")
	write(10, 5)
	write(50, 1)
	write(99, 1)
	walk("three pieces")
	allocate(0, 20, 5)
	walk("a reservation")
	allocate(unix.FALLOC_FL_KEEP_SIZE, 200, 5)
	walk("a reservation behind the end")
	allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 11, 2)
	walk("a hole in a piece")
	allocate(unix.FALLOC_FL_ZERO_RANGE, 50, 1)
	walk("a piece zeroed")
	allocate(unix.FALLOC_FL_ZERO_RANGE, 95, 15)
	walk("zeros over the end")
	write(109, 1)
	allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 109, 10)
	walk("a hole over the end")
	check(s, unix.Ftruncate(fd, 12*k))
	walk("cut")
	check(s, unix.Ftruncate(fd, 20*k))
	walk("grown")
	for _, off := range []int64{-1, 20 * k, 21 * k} {
		_, err := unix.Seek(fd, off, unix.SEEK_DATA)
		s.say("data from there", err, off)
		_, err = unix.Seek(fd, off, unix.SEEK_HOLE)
		s.say("hole from there", err, off)
	}
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, 0x80} {
		s.say("a mode that there is not", unix.Fallocate(fd, mode, 0, k), mode)
	}
	s.say("of nothing", unix.Fallocate(fd, 0, 0, 0))
	s.say("of less", unix.Fallocate(fd, 0, 0, -1))
	s.say("before", unix.Fallocate(fd, 0, -1, 1))
	s.say("one to read", unix.Fallocate(s.open("f", unix.O_RDONLY), 0, 0, k))
	s.say("of a folder", unix.Fallocate(s.open(".", unix.O_RDONLY), 0, 0, k))
}

// timesKept sets times within those that both can keep: an ext4 has 1901 to 2446, we have 1677 to 2262.
func timesKept(s *scene) {
	check(s, os.WriteFile(s.path("f"), nil, 0o644), os.Mkdir(s.path("d"), 0o755), os.Symlink("f", s.path("l")))
	for _, name := range []string{"f", "d", "l"} {
		for _, sec := range []int64{-1<<31 + 1, -1, 0, 1, 1<<31 - 1, 1 << 31, 1<<32 + 1, 9_000_000_000} {
			for _, nsec := range []int64{0, 1, 999_999_999} {
				ts := []unix.Timespec{{Sec: 1, Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: nsec}}
				err := unix.UtimesNanoAt(unix.AT_FDCWD, s.path(name), ts, unix.AT_SYMLINK_NOFOLLOW)
				var st unix.Stat_t
				check(s, unix.Lstat(s.path(name), &st))
				s.say(name, err, st.Mtim)
			}
		}
	}
	for _, nsec := range []int64{-1, 1e9, unix.UTIME_OMIT, unix.UTIME_NOW} {
		s.say("nanoseconds", unix.UtimesNanoAt(unix.AT_FDCWD, s.path("f"), []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: nsec}}, 0), nsec)
	}
}

func runningProgram(s *scene) {
	sleep, err := exec.LookPath("sleep")
	check(s, err)
	b, err := os.ReadFile(sleep)
	check(s, err)
	path := s.path("program")
	check(s, os.WriteFile(path, b, 0o755))
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	check(s, err)
	s.say("run what is open to write", exec.Command(path, "0").Run())
	check(s, unix.Close(fd))
	cmd := exec.Command(path, "60")
	check(s, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	_, err = unix.Open(path, unix.O_WRONLY, 0)
	s.say("open to write what runs", err)
	_, err = unix.Open(path, unix.O_RDONLY|unix.O_TRUNC, 0)
	s.say("truncate by opening", err)
	s.say("truncate what runs", unix.Truncate(path, 0))
	s.say("rename over it", os.WriteFile(s.path("other"), b, 0o755), unix.Rename(s.path("other"), path))
	s.say("run the new one", exec.Command(path, "0").Run())
	s.say("unlink what runs", unix.Unlink(path))
	check(s, os.WriteFile(path, b, 0o644))
	s.say("run what may not be", exec.Command(path, "0").Run())
	check(s, os.WriteFile(s.path("script"), []byte("#!/bin/sh\nexit 7\n"), 0o755))
	s.say("run a script", exec.Command(s.path("script")).Run())
}

func deletedFolder(s *scene) {
	a, err := newActor(s.dir)
	check(s, err)
	defer a.close()
	check(s, os.Mkdir(s.path("d"), 0o755))
	fd := s.open("d", unix.O_RDONLY|unix.O_DIRECTORY)
	a.do(func() {
		s.say("chdir", unix.Chdir("d"))
		s.say("rmdir", unix.Rmdir(s.path("d")))
		s.say("mkdir", unix.Mkdir("x", 0o755))
		_, err := unix.Open("x", unix.O_CREAT|unix.O_WRONLY, 0o644)
		s.say("create", err)
		s.say("symlink", unix.Symlink("a", "x"))
		s.say("link", unix.Link("../f", "x"))
		check(s, os.WriteFile(s.path("f"), nil, 0o644))
		s.say("link", unix.Link(s.path("f"), "x"))
		s.say("rename into it", unix.Rename(s.path("f"), "x"))
		s.say("mknod", unix.Mknod("x", unix.S_IFIFO|0o600, 0))
		var st unix.Stat_t
		s.say("stat", unix.Stat(".", &st), st.Nlink)
		names, err := listing(".")
		s.say("list", err, names)
		s.say("chmod", unix.Chmod(".", 0o700))
		s.say("xattr", unix.Setxattr(".", "user.a", []byte("b"), 0))
		s.say("stat of what is above", unix.Stat("..", &st))
		var b [4096]byte
		_, err = unix.Getcwd(b[:])
		s.say("where", err)
		f, err := unix.Open("../f", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		s.say("open by way of it", err)
		unix.Close(f)
	})
	s.say("sync", unix.Fsync(fd))
	s.say("mkdirat", unix.Mkdirat(fd, "x", 0o755))
	s.say("again", os.Mkdir(s.path("d"), 0o755), unix.Mkdirat(fd, "x", 0o755))
}

func unlinkedFile(s *scene) {
	fd := s.open("f", unix.O_RDWR|unix.O_CREAT)
	_, err := unix.Write(fd, []byte("first"))
	s.say("write", err)
	s.say("link", os.Link(s.path("f"), s.path("g")))
	stat := func(what string) {
		var st unix.Stat_t
		s.say(what, unix.Fstat(fd, &st), st.Nlink, st.Size)
	}
	stat("two names")
	check(s, os.Remove(s.path("f")))
	stat("one")
	check(s, os.Remove(s.path("g")))
	stat("none")
	s.say("grow", unix.Ftruncate(fd, 100000))
	_, err = unix.Pwrite(fd, []byte("last"), 99996)
	s.say("write", err)
	b := make([]byte, 4)
	_, err = unix.Pread(fd, b, 99996)
	s.say("read", err, string(b))
	s.say("sync", unix.Fsync(fd))
	s.say("chmod", unix.Fchmod(fd, 0o600))
	s.say("xattr", unix.Fsetxattr(fd, "user.a", []byte("b"), 0))
	s.say("allocate", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 50000))
	self := fmt.Sprintf("/proc/self/fd/%d", fd)
	again, err := unix.Open(self, unix.O_RDWR|unix.O_CLOEXEC, 0)
	s.say("open again", err)
	_, err = unix.Pread(again, b, 99996)
	s.say("read", err, string(b))
	check(s, unix.Close(again))
	s.say("link back", unix.Linkat(unix.AT_FDCWD, self, unix.AT_FDCWD, s.path("back"), unix.AT_SYMLINK_FOLLOW))
	stat("end")
	// One that is replaced.
	check(s, os.WriteFile(s.path("x"), []byte("x"), 0o644), os.WriteFile(s.path("y"), []byte("y"), 0o644))
	fd = s.open("y", unix.O_RDONLY)
	check(s, os.Rename(s.path("x"), s.path("y")))
	stat("replaced")
	_, err = unix.Pread(fd, b[:1], 0)
	s.say("read", err, string(b[:1]))
}

func namelessFile(s *scene) {
	for _, flags := range []int{unix.O_RDWR, unix.O_RDWR | unix.O_EXCL, unix.O_RDONLY} {
		fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_CLOEXEC|flags, 0o640)
		s.say("open", err, flags)
		if err != nil {
			continue
		}
		_, err = unix.Write(fd, []byte("nameless"))
		s.say("write", err)
		var st unix.Stat_t
		s.say("stat", unix.Fstat(fd, &st), st.Nlink, fmt.Sprintf("%o", st.Mode))
		name := fmt.Sprintf("t%d", flags)
		s.say("link", unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, s.path(name), unix.AT_SYMLINK_FOLLOW))
		s.say("stat", unix.Fstat(fd, &st), st.Nlink)
		s.say("unlink", unix.Unlink(s.path(name)))
		s.say("link of what had a name", unix.Linkat(fd, "", unix.AT_FDCWD, s.path(name), unix.AT_EMPTY_PATH))
		check(s, unix.Close(fd))
	}
	names, err := listing(s.dir)
	s.say("list", err, names)
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

func splices(s *scene) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 10000)
	check(s, os.WriteFile(s.path("f"), data, 0o644))
	from := s.open("f", unix.O_RDONLY)
	to := s.open("g", unix.O_RDWR|unix.O_CREAT)
	var p [2]int
	check(s, unix.Pipe2(p[:], unix.O_CLOEXEC))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	var done int64
	for done < int64(len(data)) {
		n, err := unix.Splice(from, nil, p[1], nil, 1<<16, 0)
		if err != nil || n == 0 {
			s.say("splice in", err, n)
			break
		}
		for n > 0 {
			m, err := unix.Splice(p[0], nil, to, nil, int(n), 0)
			if err != nil || m == 0 {
				s.say("splice out", err, m)
				return
			}
			n -= m
			done += m
		}
	}
	b, err := os.ReadFile(s.path("g"))
	s.say("spliced", err, bytes.Equal(b, data))
	out := s.open("h", unix.O_RDWR|unix.O_CREAT)
	var off int64
	for off < int64(len(data)) {
		if n, err := unix.Sendfile(out, from, &off, len(data)); err != nil || n == 0 {
			s.say("sendfile", err, n)
			break
		}
	}
	b, err = os.ReadFile(s.path("h"))
	s.say("sent", err, bytes.Equal(b, data))
	_, err = unix.Splice(p[0], nil, s.open("f", unix.O_WRONLY|unix.O_APPEND), nil, 10, unix.SPLICE_F_NONBLOCK)
	s.say("splice to the end", err)
}

func writeFlags(s *scene) {
	fd := s.open("f", unix.O_RDWR|unix.O_CREAT)
	check(s, unix.Ftruncate(fd, 10))
	_, err := unix.Pwritev2(fd, [][]byte{[]byte("at the "), []byte("end")}, 0, unix.RWF_APPEND)
	s.say("append", err)
	_, err = unix.Pwritev2(fd, [][]byte{[]byte("durable")}, 0, unix.RWF_DSYNC|unix.RWF_SYNC)
	s.say("sync", err)
	_, err = unix.Pwritev2(fd, [][]byte{[]byte("?")}, 0, 1<<20)
	s.say("a flag that there is not", err)
	b, err := os.ReadFile(s.path("f"))
	s.say("read", err, fmt.Sprintf("%q", b))
	a := s.open("f", unix.O_WRONLY|unix.O_APPEND)
	_, err = unix.Pwrite(a, []byte("!"), 0) // goes to the end, on Linux
	s.say("pwrite to the end", err)
	_, err = unix.Pread(a, b, 0)
	s.say("read what is to write", err)
	_, err = unix.Pwrite(s.open("f", unix.O_RDONLY), []byte("!"), 0)
	s.say("write what is to read", err)
	_, err = unix.Pwrite(fd, nil, 5)
	s.say("nothing", err)
	_, err = unix.Pwrite(fd, []byte("x"), -1)
	s.say("before", err)
	b, err = os.ReadFile(s.path("f"))
	s.say("read", err, fmt.Sprintf("%q", b))
	_, err = unix.FcntlInt(uintptr(a), unix.F_SETFL, 0) // no O_APPEND from here on
	s.say("setfl", err)
	_, err = unix.Pwrite(a, []byte("front"), 0)
	s.say("pwrite", err)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
	s.say("setfl", err)
	_, err = unix.Write(fd, []byte("tail"))
	s.say("write", err)
	b, err = os.ReadFile(s.path("f"))
	s.say("read", err, fmt.Sprintf("%q", b))
}

// entries reads what is left of an open folder, in the order of names.
func entries(fd int) (string, error) {
	var names []string
	b := make([]byte, 1024)
	for {
		n, err := unix.Getdents(fd, b)
		if err != nil || n <= 0 {
			slices.Sort(names)
			return strings.Join(names, " "), err
		}
		for at := 0; at < n; {
			length := int(b[at+16]) | int(b[at+17])<<8
			name, _, _ := bytes.Cut(b[at+19:at+length], []byte{0})
			names = append(names, string(name))
			at += length
		}
	}
}

func openFolder(s *scene) {
	fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	list := func(what string) {
		_, err := unix.Seek(fd, 0, unix.SEEK_SET)
		check(s, err)
		names, err := entries(fd)
		s.say(what, err, names)
	}
	list("empty")
	for i := range 5 {
		check(s, os.WriteFile(s.path(fmt.Sprint("f", i)), nil, 0o644))
		list("one more")
	}
	list("again") // from what the kernel remembers
	check(s, os.Remove(s.path("f2")), os.Rename(s.path("f3"), s.path("g3")), os.Mkdir(s.path("d"), 0o755))
	list("changed")
	names, err := entries(fd)
	s.say("behind the end", err, names)
	other := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	names, err = entries(other)
	s.say("by another", err, names)
	_, err = unix.Seek(fd, 0, unix.SEEK_SET)
	check(s, err)
	_, err = unix.Read(fd, make([]byte, 10))
	s.say("read", err)
	_, err = unix.Write(fd, make([]byte, 10))
	s.say("write", err)
	s.say("truncate", unix.Ftruncate(fd, 0))
	_, err = unix.Getdents(s.open("f0", unix.O_RDONLY), make([]byte, 1000))
	s.say("list a file", err)
	_, err = unix.Getdents(fd, make([]byte, 5))
	s.say("list into nothing", err)
	s.say("mkdirat", unix.Mkdirat(fd, "e", 0o755))
	s.say("sync", unix.Fsync(fd))
	var st unix.Stat_t
	s.say("stat", unix.Fstat(fd, &st), st.Nlink)
}

// listingWhileItChanges holds that each entry that is there all the time is listed once, whatever else comes and goes.
func listingWhileItChanges(s *scene) {
	const n = 1000
	for i := range n {
		check(s, os.WriteFile(s.path(fmt.Sprintf("stays-%04d-%s", i, strings.Repeat("x", i%90))), nil, 0o644))
	}
	fd := s.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	seen := map[string]int{}
	b := make([]byte, 2000)
	for step := 0; ; step++ {
		k, err := unix.Getdents(fd, b)
		check(s, err)
		if k == 0 {
			break
		}
		for at := 0; at < k; {
			length := int(b[at+16]) | int(b[at+17])<<8
			name, _, _ := bytes.Cut(b[at+19:at+length], []byte{0})
			seen[string(name)]++
			at += length
		}
		check(s, os.WriteFile(s.path(fmt.Sprintf("comes-%04d", step)), nil, 0o644))
		if step > 2 {
			check(s, os.Remove(s.path(fmt.Sprintf("comes-%04d", step-2))))
		}
		if step%5 == 0 { // it goes on where it was
			off, err := unix.Seek(fd, 0, unix.SEEK_CUR)
			check(s, err)
			_, err = unix.Seek(fd, 0, unix.SEEK_SET)
			check(s, err)
			_, err = unix.Getdents(fd, make([]byte, 4000))
			check(s, err)
			_, err = unix.Seek(fd, off, unix.SEEK_SET)
			check(s, err)
		}
	}
	stays, twice := 0, 0
	for name, k := range seen {
		if strings.HasPrefix(name, "stays") {
			stays++
		}
		if k > 1 {
			twice++
		}
	}
	s.say("listed", nil, stays, twice)
}

func watchedFolder(s *scene) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	check(s, err)
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, s.dir, unix.IN_ALL_EVENTS&^(unix.IN_ACCESS|unix.IN_OPEN|unix.IN_CLOSE_NOWRITE))
	s.say("watch", err)
	check(s, os.WriteFile(s.path("f"), []byte("x"), 0o644), os.Chmod(s.path("f"), 0o600), os.Rename(s.path("f"), s.path("g")),
		os.Mkdir(s.path("d"), 0o755), os.Link(s.path("g"), s.path("h")), os.Truncate(s.path("h"), 0), os.Remove(s.path("g")), os.Remove(s.path("d")))
	b := make([]byte, 10000)
	n, err := unix.Read(fd, b)
	s.say("events", err)
	for at := 0; at < n; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[at]))
		name, _, _ := bytes.Cut(b[at+unix.SizeofInotifyEvent:at+unix.SizeofInotifyEvent+int(e.Len)], []byte{0})
		s.say("event", nil, fmt.Sprintf("%#x", e.Mask), string(name))
		at += unix.SizeofInotifyEvent + int(e.Len)
	}
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

func syncs(s *scene) {
	fd := s.open("f", unix.O_RDWR|unix.O_CREAT)
	_, err := unix.Write(fd, make([]byte, 10000))
	s.say("write", err)
	r := s.open("f", unix.O_RDONLY)
	s.say("fsync of one to read", unix.Fsync(r))
	s.say("fdatasync", unix.Fdatasync(fd))
	s.say("syncfs", unix.Syncfs(fd))
	s.say("a part", unix.SyncFileRange(fd, 0, 4096, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER))
	s.say("of a folder", unix.Fsync(s.open(".", unix.O_RDONLY)))
	s.say("of a path", unix.Fsync(s.open("f", unix.O_PATH)))
	for _, advice := range []int{unix.FADV_NORMAL, unix.FADV_SEQUENTIAL, unix.FADV_RANDOM, unix.FADV_WILLNEED, unix.FADV_DONTNEED, 99} {
		s.say("advice", unix.Fadvise(fd, 0, 0, advice), advice)
	}
	for _, flags := range []int{unix.O_SYNC, unix.O_DSYNC} {
		_, err := unix.Write(s.open("f", unix.O_WRONLY|flags), []byte("x"))
		s.say("write, synced", err)
	}
}

func statxFields(s *scene) {
	check(s, os.WriteFile(s.path("f"), []byte("12345"), 0o640), os.Symlink("f", s.path("l")))
	for _, name := range []string{"f", "l", "."} {
		var x unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, s.path(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_ALL, &x)
		const want = unix.STATX_BASIC_STATS | unix.STATX_BTIME
		size := x.Size
		if name == "." {
			size = 0
		}
		s.say(name, err, x.Mask&want == want, fmt.Sprintf("%o", x.Mode), x.Nlink, size, x.Blksize,
			x.Btime.Sec > 1e9, statxTime(x.Btime) <= statxTime(x.Mtime), statxTime(x.Mtime) <= statxTime(x.Ctime))
		before := statxTime(x.Btime)
		check(s, os.Chmod(s.path("f"), 0o600))
		check(s, unix.Statx(unix.AT_FDCWD, s.path(name), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &x))
		s.say("born when it was", nil, before == statxTime(x.Btime))
	}
	var f unix.Statfs_t
	s.say("statfs", unix.Statfs(s.dir, &f), f.Bsize, f.Frsize, f.Namelen, f.Blocks > 0, f.Bfree > 0, f.Bfree <= f.Blocks, f.Bavail <= f.Bfree,
		f.Ffree > 0, f.Ffree <= f.Files, f.Flags&(unix.ST_NOSUID|unix.ST_NODEV|unix.ST_RDONLY))
}

func statxTime(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// largeOffsets stays below the 16 TiB that an ext4 takes.
func largeOffsets(s *scene) {
	fd := s.open("f", unix.O_RDWR|unix.O_CREAT)
	for _, off := range []int64{1<<31 - 2, 1<<32 - 2, 1<<40 - 2} {
		_, err := unix.Pwrite(fd, []byte("across"), off)
		s.say("write", err, off)
		b := make([]byte, 10)
		n, err := unix.Pread(fd, b, off-1)
		s.say("read", err, n, fmt.Sprintf("%q", b[:n]))
		data, err := unix.Seek(fd, off-100000, unix.SEEK_DATA)
		s.say("data", err, data/4096)
	}
	s.say("cut", unix.Ftruncate(fd, 1<<32))
	n, err := unix.Pread(fd, make([]byte, 10), 1<<32-2)
	s.say("read", err, n)
	s.say("sync", unix.Fsync(fd))
	_, err = unix.Pwrite(fd, []byte("x"), 1<<63-1)
	s.say("at the end of numbers", err)
	s.say("truncate to less than nothing", unix.Ftruncate(fd, -1))
}

// manyLinks takes a file to some hundred names and back.
func manyLinks(s *scene) {
	check(s, os.WriteFile(s.path("f"), []byte("x"), 0o644), os.Mkdir(s.path("d"), 0o755))
	for i := range 500 {
		check(s, os.Link(s.path("f"), s.path("d", fmt.Sprint(i))))
	}
	var st unix.Stat_t
	s.say("links", unix.Stat(s.path("f"), &st), st.Nlink)
	for i := range 500 {
		if i%2 == 0 {
			check(s, os.Remove(s.path("d", fmt.Sprint(i))))
		} else {
			check(s, os.Rename(s.path("d", fmt.Sprint(i)), s.path(fmt.Sprint("m", i))))
		}
	}
	s.say("links", unix.Stat(s.path("m1"), &st), st.Nlink)
	s.say("one over another", unix.Rename(s.path("m1"), s.path("m3"))) // of one file: nothing happens
	s.say("links", unix.Stat(s.path("m1"), &st), st.Nlink)
	check(s, os.Remove(s.path("f")))
	s.say("links", unix.Stat(s.path("m3"), &st), st.Nlink)
	for i := range 60 {
		check(s, os.Mkdir(s.path("d", fmt.Sprint("sub", i)), 0o755))
	}
	s.say("of a folder", unix.Stat(s.path("d"), &st), st.Nlink)
}
