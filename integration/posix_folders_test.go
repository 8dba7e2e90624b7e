package integration

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Scenes of folders.

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
