package integration

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
)

// TestManyObjects makes a space of 10,000 files (1,000,000 with ANYFS_LONG) through the Go API, mounts it with the real binary,
// and says how long that took and how much memory the daemon has, at once and after a walk over a part of it.
func TestManyObjects(t *testing.T) {
	n := 10_000
	if Long() {
		n = 1_000_000
	}
	NeedFUSE(t)
	h := NewHome(t)
	start := time.Now()
	fill(t, h, n)
	t.Logf("%d files made in %v", n, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	h.Mount()
	mounted := time.Since(start)
	pid := h.PID()
	first := memory(t, pid, "VmRSS")
	seen := 0
	for d := range min(n/filesPerDir, 100) {
		list, err := os.ReadDir(h.Personal(dirName(d)))
		check(t, err)
		for _, e := range list {
			st, err := e.Info()
			check(t, err)
			if st.Size() != int64(len(fileContent(d))) {
				t.Fatalf("%s has %d bytes", e.Name(), st.Size())
			}
			seen++
		}
	}
	t.Logf("mounted in %v, memory then %d MB, after a walk over %d files %d MB, at most %d MB", mounted.Round(time.Millisecond),
		first, seen, memory(t, pid, "VmRSS"), memory(t, pid, "VmHWM"))
	if s, want := h.Status().Spaces, int64(n+n/filesPerDir+1); len(s) != 1 || s[0].Objects != want {
		t.Errorf("status tells of %+v, want %d objects with the root", s, want)
	}
	if b, err := os.ReadFile(h.Personal(dirName(n/filesPerDir-1), "file-0000")); err != nil || string(b) != fileContent(n/filesPerDir-1) {
		t.Errorf("the last directory's file holds %q, %v", b, err)
	}
	if peak := memory(t, pid, "VmHWM"); peak > 300 {
		t.Errorf("the daemon took %d MB", peak)
	}
}

const filesPerDir = 1000

func dirName(d int) string     { return fmt.Sprintf("dir-%04d", d) }
func fileContent(d int) string { return fmt.Sprintf("content of a file of directory %d\n", d) }

// fill makes n files in the home's space Personal, without a daemon, and gives the account's phrase.
func fill(t *testing.T, h *Home, n int) string {
	ctx := context.Background()
	check(t, os.MkdirAll(h.Dir, 0o700))
	d, err := disk.OS(h.Dir)
	check(t, err)
	account, err := acl.NewAccount(rand.Reader)
	check(t, err)
	keys, err := acl.InitKeys(d, account, "test", nil, rand.Reader)
	check(t, err)
	cred := fs.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	home, err := fs.Open(ctx, fs.Options{Disk: d, Dir: h.Dir, Keys: keys, Rand: rand.Reader, UID: cred.UID, GID: cred.GID})
	check(t, err)
	_, err = home.CreatePersonal()
	check(t, err)
	root, err := home.SpaceRoot(fs.PersonalName)
	check(t, err)
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- home.Run(running) }()
	for i := range n / filesPerDir {
		dir, err := home.Mkdir(root, dirName(i), 0o755, cred)
		check(t, err)
		content := []byte(fileContent(i))
		for j := range filesPerDir {
			a, err := home.Mknod(dir.Ino, fmt.Sprintf("file-%04d", j), 0o100644, 0, cred)
			check(t, err)
			_, err = home.Write(ctx, a.Ino, content, 0, fs.WriteFlags{})
			check(t, err)
		}
	}
	stop()
	check(t, <-done, home.Close())
	return account.Phrase()
}

// memory reads a figure of a process's memory in MB.
func memory(t *testing.T, pid int, name string) int {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	check(t, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name+":" {
			kb, err := strconv.Atoi(f[1])
			check(t, err)
			return kb >> 10
		}
	}
	t.Fatalf("process %d has no %s", pid, name)
	return 0
}
