package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCrowd lets several threads do random calls on the same few names at once. No call may fail as none does on a sound
// filesystem; in the end every inode has as many names as it says, and unmount and mount change nothing.
func TestCrowd(t *testing.T) {
	if os.Geteuid() != 0 {
		without(t, "root's rights, which this test needs")
	}
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	total := int(envNumber("ANYFS_CALLS", 12_000))
	t.Logf("ANYFS_SEED=%d", seed)
	h := NewHome(t)
	openToOthers(t, h, "")
	dir := h.Personal("crowd")
	check(t, os.MkdirAll(dir+"/1/2/3", 0o777))
	const members = 6
	never := map[syscall.Errno]bool{}
	for _, e := range []syscall.Errno{unix.EIO, unix.ESTALE, unix.ENOSYS, unix.EFAULT, unix.ENOTCONN, unix.ENOSPC, unix.EPROTO, unix.ENXIO, unix.EAGAIN, unix.EINTR} {
		never[e] = true
	}
	var wg sync.WaitGroup
	for i := range members {
		a, err := newActor(filepath.Join(dir, "1/2/3"))
		check(t, err)
		t.Cleanup(a.close)
		c := &caller{rnd: rand.New(rand.NewPCG(seed, uint64(i))), creds: creds}
		wg.Go(func() {
			for n := range total / members {
				if n%16 == 0 {
					c.know(a)
				}
				k := c.next()
				a.as(k.who, func() {
					_, err := k.run(a)
					var errno syscall.Errno
					if errors.As(err, &errno) && never[errno] && !(errno == unix.ENXIO && strings.HasPrefix(k.text, "open")) {
						t.Errorf("%v: %v", k, err)
					}
				})
			}
			for i := range a.slots {
				a.set(i, -1)
			}
			a.do(func() { _ = unix.Chdir("/") })
		})
	}
	wg.Wait()
	before := listAll(dir)
	countLinks(t, dir)
	h.Unmount()
	openToOthers(t, h, "")
	if after := listAll(dir); strings.Join(before, "\n") != strings.Join(after, "\n") {
		t.Errorf("unmount and mount changed\n%s\nto\n%s", strings.Join(missing(before, after), "\n"), strings.Join(missing(after, before), "\n"))
	}
	if r := h.Run("verify"); r.Code != 0 {
		t.Errorf("verify: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	t.Logf("%d calls of %d threads at once left %d names", total, members, len(before))
}

// countLinks compares the names below a folder with the links that inodes say they have.
func countLinks(t *testing.T, dir string) {
	t.Helper()
	names, says, path := map[uint64]uint64{}, map[uint64]uint64{}, map[uint64]string{}
	check(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		path[st.Ino], says[st.Ino] = p, uint64(st.Nlink)
		names[st.Ino]++
		if d.IsDir() {
			names[st.Ino]++ // "."
			var up unix.Stat_t
			if err := unix.Lstat(filepath.Dir(p), &up); err == nil && p != dir {
				names[up.Ino]++ // ".."
			}
		}
		return nil
	}))
	for ino, n := range names {
		if says[ino] != n {
			t.Errorf("%s has %d names and says %d", path[ino], n, says[ino])
		}
	}
}
