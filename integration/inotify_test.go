package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inotify watches a directory.
type inotify struct {
	t  *testing.T
	fd int
}

func watchDir(t *testing.T, dir string) *inotify {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	check(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MODIFY|unix.IN_CLOSE_WRITE|unix.IN_ATTRIB|unix.IN_MOVE)
	check(t, err)
	return &inotify{t, fd}
}

// await collects events until there is one, as "name MASK", that it waits for, and returns all.
func (w *inotify) await(want string) []string {
	w.t.Helper()
	var got []string
	names := map[uint32]string{unix.IN_CREATE: "CREATE", unix.IN_DELETE: "DELETE", unix.IN_MODIFY: "MODIFY", unix.IN_CLOSE_WRITE: "CLOSE_WRITE",
		unix.IN_ATTRIB: "ATTRIB", unix.IN_MOVED_FROM: "MOVED_FROM", unix.IN_MOVED_TO: "MOVED_TO", unix.IN_ISDIR: "ISDIR"}
	b := make([]byte, 64<<10)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 100); err != nil {
			continue
		}
		n, err := unix.Read(w.fd, b)
		if err != nil {
			continue
		}
		for p := 0; p < n; {
			e := (*unix.InotifyEvent)(unsafe.Pointer(&b[p]))
			name := strings.TrimRight(string(b[p+unix.SizeofInotifyEvent:p+unix.SizeofInotifyEvent+int(e.Len)]), "\x00")
			for bit, what := range names {
				if e.Mask&bit != 0 && bit != unix.IN_ISDIR {
					got = append(got, name+" "+what)
				}
			}
			p += unix.SizeofInotifyEvent + int(e.Len)
		}
		if slices.Contains(got, want) {
			return got
		}
	}
	w.t.Fatalf("there is no %q, but %q", want, got)
	return nil
}

// TestInotify: programs that watch a directory by inotify are told what another device did there; nothing of that is recorded, and the
// mount shows what it showed.
func TestInotify(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	check(t, os.Mkdir(a.Personal("dir"), 0o755), os.WriteFile(a.Personal("dir", "known"), []byte("1"), 0o644),
		os.WriteFile(a.Personal("dir", "unknown"), []byte("1"), 0o644))
	d.Same()
	b.Remount() // it knows nothing of what is there
	d.Connect(a, b)
	_, err := os.ReadFile(b.Personal("dir", "known"))
	check(t, err)
	w := watchDir(t, b.Personal("dir"))
	top := watchDir(t, b.Mnt)
	time.Sleep(time.Second) // it is looked for watches now and then

	check(t, os.WriteFile(a.Personal("dir", "made"), []byte("made"), 0o640))
	w.await("made CREATE")
	st, err := os.Stat(b.Personal("dir", "made"))
	if err != nil || st.Mode() != 0o640 || st.Size() != 4 {
		t.Errorf("what was made is %v, %v", st, err)
	}
	check(t, os.WriteFile(a.Personal("dir", "known"), []byte("22"), 0o644))
	w.await("known MODIFY")
	if got, err := os.ReadFile(b.Personal("dir", "known")); string(got) != "22" {
		t.Errorf("what was changed holds %q, %v", got, err)
	}
	check(t, os.WriteFile(a.Personal("dir", "unknown"), []byte("333"), 0o644))
	w.await("unknown CLOSE_WRITE")
	check(t, os.Chmod(a.Personal("dir", "unknown"), 0o600))
	w.await("unknown MODIFY")
	check(t, os.Mkdir(a.Personal("dir", "sub"), 0o755))
	w.await("sub CREATE")
	check(t, os.Symlink("known", a.Personal("dir", "link")))
	w.await("link CREATE")
	check(t, os.Rename(a.Personal("dir", "known"), a.Personal("dir", "moved")))
	all := w.await("moved CREATE")
	if !slices.Contains(all, "known DELETE") {
		t.Errorf("of a rename it is told %q", all)
	}
	check(t, os.Remove(a.Personal("dir", "made")))
	w.await("made DELETE")
	check(t, os.Remove(a.Personal("dir", "sub")))
	w.await("sub DELETE")
	check(t, os.WriteFile(a.Personal("dir", "save.tmp"), []byte("saved"), 0o644),
		os.Rename(a.Personal("dir", "save.tmp"), a.Personal("dir", "moved")))
	w.await("moved MODIFY")
	check(t, os.Mkdir(a.Mnt+"/Space", 0o755))
	top.await("Space CREATE")

	// Both work in the directory at once, under the same names, and look at what is there: what the kernel believes then is so.
	work := func(h *Home, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		for i := range 400 {
			name := h.Personal("dir", fmt.Sprint("busy", rnd.IntN(4)))
			switch rnd.IntN(8) {
			case 0:
				_ = os.Remove(name)
			case 1:
				_ = os.Mkdir(name, 0o755)
			case 2:
				_ = os.Rename(name, h.Personal("dir", fmt.Sprint("busy", rnd.IntN(4))))
			case 3, 4:
				_, _ = os.Stat(name)
			default:
				_ = os.WriteFile(name, fmt.Appendf(nil, "%d of %d", i, seed), 0o644)
			}
			if i%10 == 0 {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { work(a, 1) })
	wg.Go(func() { work(b, 2) })
	wg.Wait()
	for _, h := range d.All {
		h.Must("status", "--wait", "--timeout", "30s")
	}
	a.Must("status", "--wait", "--timeout", "30s")
	tree := d.Same()
	for _, h := range d.All {
		var s struct {
			Spaces []struct {
				Pending int `json:"pending_changes"`
			}
		}
		check(t, json.Unmarshal([]byte(h.Must("status", "--json")), &s))
		for _, x := range s.Spaces {
			if x.Pending != 0 {
				t.Errorf("something is to be published: %+v", s)
			}
		}
		h.Must("verify")
	}
	b.Remount()
	if fresh, err := readTree(b.Mnt, TreeOptions{}); err != nil || len(DiffTrees(tree, fresh)) > 0 {
		t.Errorf("a new mount shows something else: %q, %v", DiffTrees(tree, fresh), err)
	}
	// All that was written is a's.
	var versions []struct{ Device struct{ Name string } }
	check(t, json.Unmarshal([]byte(b.Must("log", "--json", b.Personal("dir", "moved"))), &versions))
	for _, v := range versions {
		if v.Device.Name == "device 1" {
			t.Errorf("the device that was only watched wrote: %+v", versions)
		}
	}
}

// TestInotifyKilled: a daemon that is killed while it has the kernel tell of changes goes, and one that is to end ends.
func TestInotifyKilled(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	check(t, os.Mkdir(a.Personal("dir"), 0o755))
	for i := range 4 {
		d.Same()
		w := watchDir(t, b.Personal("dir"))
		time.Sleep(time.Second)
		for k := range 800 {
			check(t, os.WriteFile(a.Personal("dir", fmt.Sprintf("%d %d", i, k)), nil, 0o644))
		}
		w.await(fmt.Sprintf("%d 100 CREATE", i))
		if i%2 == 0 {
			b.Kill()
		} else {
			began := time.Now()
			unix.Close(w.fd)
			b.Unmount()
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the end takes %v", took)
			}
		}
		b.Mount("--no-discovery")
	}
	d.Same()
}
