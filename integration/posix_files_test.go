package integration

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Scenes of files: maps, holes, times, sizes, and files without a name.

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
