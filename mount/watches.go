package mount

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// watchesOn finds the inodes of a filesystem that processes watch by inotify, as far as this process may see: of its own user, or as root
// of all. It reads /proc, for some 10 to 20 µs for each process.
func watchesOn(dev uint64) map[uint64]bool {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	sdev := uint64(unix.Major(dev))<<20 | uint64(unix.Minor(dev))
	out := map[uint64]bool{}
	for _, p := range procs {
		if c := p.Name()[0]; c < '0' || c > '9' {
			continue
		}
		dir := "/proc/" + p.Name()
		fds, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(dir + "/fd/" + fd.Name()); err != nil || to != "anon_inode:inotify" {
				continue
			}
			b, err := os.ReadFile(dir + "/fdinfo/" + fd.Name())
			if err != nil {
				continue
			}
			parseWatches(string(b), sdev, out)
		}
	}
	return out
}

// parseWatches adds the inodes of a filesystem that an inotify descriptor's fdinfo lists.
func parseWatches(fdinfo string, sdev uint64, out map[uint64]bool) {
	for line := range strings.Lines(fdinfo) {
		rest, ok := strings.CutPrefix(line, "inotify ")
		if !ok {
			continue
		}
		var ino, on uint64
		for _, word := range strings.Fields(rest) {
			if v, ok := strings.CutPrefix(word, "ino:"); ok {
				ino, _ = strconv.ParseUint(v, 16, 64)
			} else if v, ok := strings.CutPrefix(word, "sdev:"); ok {
				on, _ = strconv.ParseUint(v, 16, 64)
			}
		}
		if on == sdev && ino != 0 {
			out[ino] = true
		}
	}
}

// processorTime is what a function that stays in its goroutine takes of a processor.
func processorTime(fn func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &before); err != nil {
		began := time.Now()
		fn()
		return time.Since(began)
	}
	fn()
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &after)
	return time.Duration(after.Nano() - before.Nano())
}
