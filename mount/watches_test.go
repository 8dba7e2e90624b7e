package mount

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWatchesOn: watches of this process are found, by the inode and the filesystem.
func TestWatchesOn(t *testing.T) {
	dir := t.TempDir()
	var st unix.Stat_t
	must(t, unix.Stat(dir, &st))
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	if watchesOn(st.Dev)[st.Ino] {
		t.Fatal("a watch is found before there is one")
	}
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE)
	must(t, err)
	began := time.Now()
	found := watchesOn(st.Dev)
	procs, err := os.ReadDir("/proc")
	must(t, err)
	t.Logf("looking through %d entries of /proc took %v", len(procs), time.Since(began))
	if !found[st.Ino] {
		t.Errorf("inode %d is not among %v", st.Ino, found)
	}
	if watchesOn(st.Dev + 1)[st.Ino] {
		t.Error("it is found on another filesystem")
	}
	out := map[uint64]bool{}
	parseWatches("pos:\t0\nflags:\t02004000\ninotify wd:3 ino:9e7e sdev:800013 mask:800afce\ninotify wd:2 ino:zz sdev:800013\ninotify\n", 0x800013, out)
	if len(out) != 1 || !out[0x9e7e] {
		t.Errorf("%v", out)
	}
}

// TestProcessorTime: what a look costs is what it takes of a processor: one that waited for others is not made rarer for it.
func TestProcessorTime(t *testing.T) {
	if took := processorTime(func() { time.Sleep(200 * time.Millisecond) }); took < 0 || took > 100*time.Millisecond {
		t.Errorf("sleeping took %v of a processor", took)
	}
	n := 0
	if took := processorTime(func() {
		for began := time.Now(); time.Since(began) < 20*time.Millisecond; {
			n++
		}
	}); took <= 0 {
		t.Errorf("counting to %d took %v", n, took)
	}
}
