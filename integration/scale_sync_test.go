package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/fs"
)

// maxSyncMB is what a daemon may take of memory, whatever comes in.
const maxSyncMB = 250

// maxIngestTimes bounds the CPU of a new device, in times of verifying and storing its changes. The goal is 3; it is at 6.6 to 8.2 (27 before
// the bound was there), for the tree, the index and the journal, of which verifying and storing has nothing.
const maxIngestTimes = 12

// TestNewDeviceAtScale: a device that is new to a space of many small files takes it in with bounded memory and CPU.
// It shows the root by the other's preview first.
// ANYFS_FILES=N sets how many (3,000; with ANYFS_LONG 100,000). ANYFS_SCALE_DIR=DIR keeps the space in DIR for the next run.
func TestNewDeviceAtScale(t *testing.T) {
	n := filesAtScale(t, 3000, 100_000)
	a := scaleHome(t, n)
	cost := ingestCost(t, a)
	t.Logf("verifying and storing the changes of %d files takes %v of CPU", n, cost.Round(time.Millisecond))

	d := &Devices{t: t, All: []*Home{a}}
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	b := NewHome(t)
	b.Listen = a.Listen
	d.login(b, 1)
	b.Mount("--no-discovery")
	d.All = append(d.All, b)
	made := previewMade(t, a)
	w := newScaleWatch(t, a, b)
	d.Connect(a, b)
	w.until(n, n/filesPerDir)
	if made && w.preview == 0 && n >= 30_000 { // of fewer the history may be there first
		t.Error("the new device did not show the root by the preview")
	}
	w.report()
	for i, x := range []int{0, n / filesPerDir / 2, n/filesPerDir - 1} {
		if p, err := os.ReadFile(b.Personal(dirName(x), fmt.Sprintf("file-%04d", i))); err != nil || string(p) != fileContent(x) {
			t.Errorf("a file of directory %d holds %q, %v", x, p, err)
		}
	}
	if used := w.cpu(1); n >= 100_000 && used > maxIngestTimes*cost {
		t.Errorf("the new device took %v of CPU, %.1f times the cost of verifying and storing", used, float64(used)/float64(cost))
	} else {
		t.Logf("the new device took %.1f times the CPU of verifying and storing", float64(used)/float64(cost))
	}
}

// TestAwayAtScale: a device that was away while another made many changes catches up, with bounded memory. Of the changes half make
// files, and a sixth each rename, rewrite and remove what both had. ANYFS_FILES is their number.
func TestAwayAtScale(t *testing.T) {
	n := filesAtScale(t, 3000, 100_000)
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	file := func(i int) string { return a.Personal(dirName(i/filesPerDir), fmt.Sprintf("file-%04d", i%filesPerDir)) }
	for i := range n / 2 {
		if i%filesPerDir == 0 {
			check(t, os.Mkdir(filepath.Dir(file(i)), 0o755))
		}
		check(t, os.WriteFile(file(i), []byte("first\n"), 0o644))
	}
	for _, h := range d.All {
		h.Must("status", "--wait", "--timeout", "30m")
	}
	b.Unmount()
	for i := range n / 2 {
		switch i % 3 {
		case 0:
			check(t, os.Rename(file(i), file(i)+" moved"))
		case 1:
			check(t, os.WriteFile(file(i), fmt.Appendf(nil, "second %d\n", i), 0o644))
		case 2:
			check(t, os.Remove(file(i)))
		}
		check(t, os.WriteFile(file(i)+" new", fmt.Appendf(nil, "new %d\n", i), 0o644))
	}
	a.Must("status", "--wait", "--here", "--timeout", "30m")
	b.Mount("--no-discovery")
	w := newScaleWatch(t, a, b)
	w.until(n/2-n/2/3+n/2, (n/2+filesPerDir-1)/filesPerDir)
	w.report()
	here, err := readTree(a.Personal(), TreeOptions{})
	check(t, err)
	there, err := readTree(b.Personal(), TreeOptions{})
	check(t, err)
	if diff := DiffTrees(here, there); len(diff) > 0 {
		t.Errorf("%d differences, as %s", len(diff), strings.Join(diff[:min(len(diff), 8)], "\n"))
	}
}

// filesAtScale is the number of files of a test.
func filesAtScale(t *testing.T, short, long int) int {
	if s := os.Getenv("ANYFS_FILES"); s != "" {
		n, err := strconv.Atoi(s)
		check(t, err)
		return n
	}
	if Long() {
		return long
	}
	return short
}

// scaleHome gives a home whose space Personal has n small files, not mounted.
func scaleHome(t *testing.T, n int) *Home {
	NeedFUSE(t)
	h := NewHome(t)
	kept := os.Getenv("ANYFS_SCALE_DIR")
	if kept != "" {
		kept = filepath.Join(kept, strconv.Itoa(n))
		if words, err := os.ReadFile(filepath.Join(kept, "phrase")); err == nil {
			check(t, exec.Command("cp", "-a", filepath.Join(kept, "home"), h.Dir).Run())
			h.Phrase = string(words)
			return h
		}
	}
	start := time.Now()
	h.Phrase = fill(t, h, n)
	t.Logf("%d files made in %v", n, time.Since(start).Round(time.Millisecond))
	if kept != "" {
		check(t, os.MkdirAll(kept, 0o700), exec.Command("cp", "-a", h.Dir, filepath.Join(kept, "home")).Run(),
			os.WriteFile(filepath.Join(kept, "phrase"), []byte(h.Phrase), 0o600))
	}
	return h
}

// previewMade waits until a daemon has made a preview of its one space, and says what that took. It is false of a space that is too small
// for one.
func previewMade(t *testing.T, h *Home) bool {
	if h.Status().Spaces[0].Objects < 1000 {
		return false
	}
	const says = "a preview is made"
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log"))
		check(t, err)
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, says) {
				t.Logf("the preview: %s; the daemon took at most %d MB", strings.TrimSpace(line), memory(t, h.PID(), "VmHWM"))
				return true
			}
		}
		if time.Since(start) > 30*time.Minute {
			t.Fatal("no preview is made")
		}
	}
}

// ingestCost is the CPU time of verifying and storing all changes of a home's space Personal, and nothing else: as dag/store's
// BenchmarkIngest does it, with a checkpoint each 20,000 changes.
func ingestCost(t *testing.T, h *Home) time.Duration {
	from, err := disk.OS(h.Dir)
	check(t, err)
	keys, err := acl.OpenKeys(from, nil)
	check(t, err)
	home, err := fs.Open(t.Context(), fs.Options{Disk: from, Dir: h.Dir, Keys: keys, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())})
	check(t, err)
	defer home.Close()
	dir := t.TempDir()
	to, err := disk.OS(dir)
	check(t, err)
	db, err := kv.OpenBolt(filepath.Join(dir, "db"))
	check(t, err)
	defer db.Close()
	for _, r := range home.Replicas() {
		if r.Name() != fs.PersonalName {
			continue
		}
		st, err := store.Open(store.Options{Disk: to, Dir: "batches", DB: db, Name: "files", Seal: store.Plain{}})
		check(t, err)
		defer st.Close()
		g, err := dag.Open(r.ID, st, dag.Anyone{}, dag.Options{})
		check(t, err)
		var used time.Duration
		changes := 0
		check(t, r.Files.FramesSince(nil, func(_ dag.ID, frame []byte) error {
			start := cpuHere()
			res, err := g.Ingest(frame)
			if err != nil || res.Status != dag.Accepted {
				return errors.Join(err, fmt.Errorf("a batch is %v", res.Status))
			}
			b, _, err := g.Batch(res.ID)
			if err != nil {
				return err
			}
			if before := changes; before/20_000 != (before+len(b.Changes))/20_000 {
				write, done := st.Freeze()
				err = db.Update(write)
				done(err == nil)
			}
			changes += len(b.Changes)
			used += cpuHere() - start
			return err
		}))
		return used
	}
	t.Fatal("the home has no space Personal")
	return 0
}

// cpuHere is the CPU time that this process has taken.
func cpuHere() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is the CPU time that a process has taken.
func cpuOf(t testing.TB, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks int
	for _, s := range f[11:13] { // utime, stime
		n, err := strconv.Atoi(s)
		check(t, err)
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// scaleWatch follows what comes in to the second of two devices.
type scaleWatch struct {
	t     *testing.T
	homes []*Home
	pids  []int
	used  []time.Duration
	start time.Time

	preview time.Duration // until the root was whole by a preview; 0 where it came by the history
}

func newScaleWatch(t *testing.T, homes ...*Home) *scaleWatch {
	w := &scaleWatch{t: t, homes: homes, start: time.Now()}
	for _, h := range homes {
		pid := h.PID()
		w.pids, w.used = append(w.pids, pid), append(w.used, cpuOf(t, pid))
	}
	return w
}

func (w *scaleWatch) cpu(i int) time.Duration { return cpuOf(w.t, w.pids[i]) - w.used[i] }

// until waits until the second device shows all its directories in the root, and then until it has all files.
func (w *scaleWatch) until(files, dirs int) {
	b := w.homes[1]
	first, root := time.Duration(0), time.Duration(0)
	for told := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if root == 0 {
			list, _ := os.ReadDir(b.Personal())
			if len(list) > 0 && first == 0 {
				first = time.Since(w.start)
				w.t.Logf("something in the root after %v", first.Round(10*time.Millisecond))
			}
			if len(list) >= dirs {
				root = time.Since(w.start)
				how := "by the history"
				if strings.Contains(b.Must("status"), "is a preview") {
					w.preview, how = root, "by the preview"
				}
				w.t.Logf("the root is whole after %v, %s", root.Round(10*time.Millisecond), how)
			}
		}
		if root != 0 || time.Since(told) > 10*time.Second {
			s := b.Status().Spaces
			if len(s) == 1 && s[0].Objects == int64(files+dirs+1) && root != 0 {
				break
			}
			if time.Since(told) > 10*time.Second {
				told = time.Now()
				w.t.Logf("after %v: %d MB and %d MB, CPU %v and %v, %+v", time.Since(w.start).Round(time.Second), memory(w.t, w.pids[0], "VmHWM"),
					memory(w.t, w.pids[1], "VmHWM"), w.cpu(0), w.cpu(1), s)
			}
		}
		if time.Since(w.start) > max(time.Hour, time.Duration(files)*10*time.Millisecond) {
			w.t.Fatal("the device does not catch up")
		}
	}
	w.t.Logf("all files are there after %v", time.Since(w.start).Round(10*time.Millisecond))
	b.Must("status", "--wait", "--timeout", "30m")
}

// report says what it cost, and checks the bound on memory.
func (w *scaleWatch) report() {
	for i := range w.homes {
		peak := memory(w.t, w.pids[i], "VmHWM")
		w.t.Logf("device %d: %v of CPU, at most %d MB", i, w.cpu(i).Round(10*time.Millisecond), peak)
		if peak > maxSyncMB {
			w.t.Errorf("device %d took %d MB, more than %d", i, peak, maxSyncMB)
		}
	}
}
