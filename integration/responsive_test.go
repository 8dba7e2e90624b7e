package integration

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestResponsive measures, while a large file is written and published, how long those wait who ask the daemon for something
// else: statfs, the root's attributes, a listing, a name that is not there. Then it unmounts, which takes no longer than the
// disk needs. Times are printed; what fails the test is far above them, since machines have other work.
//
// ANYFS_LONG writes 1 GiB, else it is 256 MiB.
func TestResponsive(t *testing.T) {
	h := Mounted(t)
	total := int64(256 << 20)
	if Long() {
		total = 1 << 30
	}
	const folders = 2000
	for i := range folders {
		dir := h.Personal("folders", fmt.Sprint(i))
		check(t, os.MkdirAll(dir, 0o755))
		for j := range 3 {
			check(t, create(filepath.Join(dir, fmt.Sprint(j))))
		}
	}
	h.Settle()
	h.Remount() // what is not in the kernel's cache is asked for
	idle := probe(h, 0, time.Second, nil)
	stop := make(chan struct{})
	results := make(chan map[string][]time.Duration)
	go func() { results <- probe(h, folders/2, time.Hour, stop) }()

	start := time.Now()
	sum := writeNoise(t, h.Personal("large"), total)
	written := time.Since(start)
	h.Settle()
	published := time.Since(start)
	close(stop)
	busy := <-results

	start = time.Now()
	h.Unmount()
	unmounted := time.Since(start)
	t.Logf("%d MiB were written in %v and published after %v; unmount took %v", total>>20, written.Round(time.Millisecond),
		published.Round(time.Millisecond), unmounted.Round(time.Millisecond))
	for _, what := range []string{"statfs", "root", "list", "lookup"} {
		t.Logf("%-7s idle %s\n        busy %s", what, percentiles(idle[what]), percentiles(busy[what]))
		if n := len(busy[what]); n < 20 {
			t.Errorf("only %d times %s while it was written", n, what)
		} else if busy[what][n*99/100] > 2*time.Second {
			t.Errorf("one of 100 times %s took more than 2 s", what)
		}
	}

	// Written and not published: unmount makes it durable, and takes about what the disk takes for that.
	h.Mount()
	start = time.Now()
	local := filepath.Join(t.TempDir(), "local")
	writeNoise(t, local, total)
	syncFile(t, local)
	disk := time.Since(start)
	check(t, os.Remove(local))
	start = time.Now()
	sum2 := writeNoise(t, h.Personal("large 2"), total)
	written = time.Since(start)
	start = time.Now()
	h.Unmount()
	unmounted = time.Since(start)
	t.Logf("the local disk took %v to write as much durably; the mount %v to write and %v to unmount", disk.Round(time.Millisecond),
		written.Round(time.Millisecond), unmounted.Round(time.Millisecond))
	if unmounted > 10*time.Second+5*disk {
		t.Errorf("unmount took %v", unmounted)
	}
	h.Mount()
	for name, want := range map[string]string{"large": sum, "large 2": sum2} {
		if got, err := sumFile(h.Personal(name)); err != nil || got != want {
			t.Errorf("%s is not what was written: %v", name, err)
		}
	}
}

// probe asks for things that the kernel does not know, again and again, until stop is closed or time is over. It gives how long
// each took, sorted.
func probe(h *Home, folder int, during time.Duration, stop <-chan struct{}) map[string][]time.Duration {
	out := map[string][]time.Duration{}
	took := func(what string, do func()) {
		start := time.Now()
		do()
		out[what] = append(out[what], time.Since(start))
	}
	for i, end := 0, time.Now().Add(during); time.Now().Before(end); i++ {
		select {
		case <-stop:
			end = time.Now()
		case <-time.After(2 * time.Millisecond):
		}
		took("statfs", func() {
			var st unix.Statfs_t
			_ = unix.Statfs(h.Mnt, &st)
		})
		took("root", func() {
			var st unix.Statx_t
			_ = unix.Statx(unix.AT_FDCWD, h.Mnt, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
		})
		took("list", func() { _, _ = os.ReadDir(h.Personal("folders", fmt.Sprint(folder))) })
		took("lookup", func() { _, _ = os.Lstat(h.Personal(fmt.Sprint("no ", folder, " ", i))) })
		folder++
	}
	for _, d := range out {
		slices.Sort(d)
	}
	return out
}

// percentiles describes sorted times.
func percentiles(d []time.Duration) string {
	if len(d) == 0 {
		return "never"
	}
	at := func(p int) time.Duration { return d[(len(d)-1)*p/1000].Round(time.Microsecond) }
	return fmt.Sprintf("%d times: median %v, 99%% %v, 99.9%% %v, at most %v", len(d), at(500), at(990), at(999), at(1000))
}

// writeNoise writes a file that no compression and no deduplication makes smaller, and returns its sum.
func writeNoise(t *testing.T, path string, size int64) string {
	t.Helper()
	var seed [32]byte
	copy(seed[:], path)
	noise := rand.NewChaCha8(seed)
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	sum := sha256.New()
	b := make([]byte, 1<<20)
	for size > 0 {
		n := min(size, int64(len(b)))
		_, _ = noise.Read(b[:n])
		_, _ = sum.Write(b[:n])
		check(t, second(f.Write(b[:n])))
		size -= n
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

func syncFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	check(t, f.Sync(), f.Close())
}
