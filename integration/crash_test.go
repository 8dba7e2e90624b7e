package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/dag/crashpoint"
)

// TestKill kills the daemon with SIGKILL while a mixed workload runs, at random moments and at each named point of the code
// (package crashpoint), mounts again, and looks that every name that was acknowledged and every byte that was fsynced is there,
// that nothing is torn, and that mounting was quick. Some kills come while a mount recovers from the one before.
//
// It prints its seed and takes one from ANYFS_SEED; ANYFS_KILLS sets the number of kills (CI does 50).
func TestKill(t *testing.T) {
	NeedFUSE(t)
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	kills := int(envNumber("ANYFS_KILLS", 50))
	t.Logf("ANYFS_SEED=%d", seed)
	h := NewHome(t)
	h.binary = filepath.Join(t.TempDir(), "anyfs")
	check(t, buildBinary(h.binary, "-tags", "crashpoints"))
	k := &killer{t: t, h: h, rnd: rand.New(rand.NewPCG(seed, 1<<32)), landed: map[crashpoint.Point]int{}, tried: map[crashpoint.Point]int{}}
	k.mount(death{})
	const workers = 3
	for i := range workers {
		dir := h.Personal(fmt.Sprintf("worker%d", i))
		check(t, os.Mkdir(dir, 0o755))
		k.work = append(k.work, &crasher{dir: dir, rnd: rand.New(rand.NewPCG(seed, uint64(i))), names: map[string]*crashFile{}})
	}
	k.work = append(k.work, &crasher{dir: h.Mnt, spaces: true, rnd: rand.New(rand.NewPCG(seed, workers)), names: map[string]*crashFile{}})
	h.Unmount()
	var points []crashpoint.Point
	for round := range kills {
		how := death{}
		if round%5 != 4 { // each fifth comes at a random moment
			if len(points) == 0 {
				points = slices.Clone(crashpoint.Points)
				k.rnd.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
			}
			how.point, points = points[0], points[1:]
			how.passing = 1 + k.rnd.IntN(passings(how.point))
			how.atStart = how.point == crashpoint.JournalMove || round > 0 && k.rnd.IntN(8) == 0
		}
		if err := k.round(how); err != nil {
			t.Fatalf("round %d, a kill %v (ANYFS_SEED=%d): %v", round, how, seed, err)
		}
	}
	k.mount(death{})
	if err := k.verify(); err != nil {
		t.Fatalf("after the last kill (ANYFS_SEED=%d): %v", seed, err)
	}
	k.report(kills)
	if problems := h.Must("verify"); problems == "" {
		t.Error("verify says nothing")
	}
}

// death says how a daemon ends: at a passing of a point, or, without one, at a random moment.
type death struct {
	point   crashpoint.Point
	passing int
	atStart bool // passings count from the start of the daemon, not of the workload
}

func (d death) String() string {
	switch {
	case d.point == "":
		return "at a random moment"
	case d.atStart:
		return fmt.Sprintf("at passing %d since the start of %q", d.passing, d.point)
	}
	return fmt.Sprintf("at passing %d of %q", d.passing, d.point)
}

// passings is about how often a point is passed in the time that a kill is waited for.
func passings(p crashpoint.Point) int {
	switch p {
	case crashpoint.JournalWrite, crashpoint.JournalWritten:
		return 300
	case crashpoint.JournalSync, crashpoint.JournalSynced:
		return 60
	case crashpoint.BatchAppend, crashpoint.BatchAppended, crashpoint.PublishBegin, crashpoint.PublishNote, crashpoint.PublishNoted,
		crashpoint.PublishSynced, crashpoint.BlockWrite, crashpoint.BlockWritten, crashpoint.StreamSealed, crashpoint.BlockBody:
		return 10
	case crashpoint.CheckpointBegin, crashpoint.CheckpointDurable, crashpoint.CheckpointCommit, crashpoint.CheckpointDone,
		crashpoint.CheckpointRelease, crashpoint.BlockSync, crashpoint.BlockSynced:
		return 4
	}
	return 1
}

// killer kills the daemons of a home while its workers work.
type killer struct {
	t    *testing.T
	h    *Home
	rnd  *rand.Rand
	work []*crasher

	logged        int64 // bytes of the daemons' log that were looked at
	mounts        []time.Duration
	inFlight      int // operations that a kill hit
	random        int // kills at random moments
	recovering    int // kills while a mount recovered
	landed, tried map[crashpoint.Point]int
}

const (
	killPatience = 4 * time.Second // for a point to be passed
	lateMount    = 2 * time.Second
)

// mount mounts the home with a daemon that ends as how says. It returns false when that happened already.
func (k *killer) mount(how death) bool {
	k.t.Helper()
	cmd := k.h.Command("mount", k.h.Mnt)
	if how.point != "" {
		name := crashpoint.EnvLater
		if how.atStart {
			name = crashpoint.Env
		}
		cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d:%s", name, how.passing, how.point))
	}
	start := time.Now()
	r, err := run(cmd)
	if err != nil || r.Code != 0 && !how.atStart {
		k.t.Fatalf("mount: %v, exit %d: %s\n%s", err, r.Code, r.Stderr, k.h.logTail())
	}
	if r.Code != 0 {
		return false
	}
	k.h.mounted = true
	k.mounts = append(k.mounts, time.Since(start))
	return true
}

// daemon is the pid of the home's daemon, 0 when there is none.
func (k *killer) daemon() int {
	for _, pid := range daemonsOf(k.h.Dir) {
		return pid
	}
	return 0
}

// begin mounts, and looks at what the death before has left. It gives the daemon and how that will end.
func (k *killer) begin(how death) (pid, pidfd int, _ death, err error) {
	for {
		if k.mount(how) {
			pid = k.daemon()
			if pidfd, err = unix.PidfdOpen(pid, 0); err == nil {
				if err = k.verify(); err == nil {
					return pid, pidfd, how, nil
				}
				dead := disconnected(err) && waitFor(pidfd, killPatience) // its files are gone before it is
				unix.Close(pidfd)
				if !dead {
					return 0, 0, how, err
				}
			}
			if !how.atStart {
				return 0, 0, how, fmt.Errorf("the daemon ended by itself: %w", err)
			}
		}
		// It was to die early, and did so while it mounted or while its files were looked at.
		k.landed[how.point]++
		k.recovering++
		how = death{}
	}
}

// round lets the workers work until the daemon has ended.
func (k *killer) round(how death) error {
	k.tried[how.point]++
	pid, pidfd, how, err := k.begin(how)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	if how.point != "" && !how.atStart {
		if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
			return fmt.Errorf("the daemon %d: %w", pid, err)
		}
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, w := range k.work {
		wg.Go(w.run)
	}
	if pruning(how.point) {
		wg.Go(func() { k.prune(stop) })
	}
	patience := killPatience
	if how.point == "" {
		patience = time.Duration(20+k.rnd.IntN(400)) * time.Millisecond
	}
	ended := waitFor(pidfd, patience)
	if !ended {
		if err := kill(pid); err != nil {
			return err
		}
		k.random++
	} else {
		k.landed[how.point]++
	}
	close(stop)
	wg.Wait()
	for _, w := range k.work {
		if w.fault != nil {
			return fmt.Errorf("before the kill: %w", w.fault)
		}
		if w.inFlight {
			k.inFlight++
		}
	}
	if b, err := os.ReadFile(filepath.Join(k.h.Dir, "anyfs.crash")); err == nil && len(b) > 0 {
		return fmt.Errorf("the daemon crashed by itself: %s", b)
	}
	if ended && how.point == "" {
		return errors.New("the daemon ended by itself")
	}
	return nil
}

// waitFor waits until a process has ended, for at most d.
func waitFor(pidfd int, d time.Duration) bool {
	end := time.Now().Add(d)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(max(0, time.Until(end).Milliseconds())))
		if n > 0 || err != unix.EINTR && !time.Now().Before(end) {
			return n > 0
		}
	}
}

// pruning says whether a point is passed by prunes alone.
func pruning(p crashpoint.Point) bool {
	switch p {
	case crashpoint.PruneNoted, crashpoint.BlockEvicted, crashpoint.BlockMoved, crashpoint.BlockRemove, crashpoint.BlockRemoved:
		return true
	}
	return false
}

// prune drops old content again and again until stop is closed.
func (k *killer) prune(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(300 * time.Millisecond):
		}
		// It fails when the daemon ends, or when there is none; then it opens the home itself, which is as good.
		_, _ = run(k.h.Command("prune", "Personal"))
	}
}

// verify compares what every worker finds with what it was told.
func (k *killer) verify() error {
	for i, w := range k.work {
		if err := w.verify(); err != nil {
			return fmt.Errorf("worker %d: %w", i, err)
		}
	}
	return k.log()
}

// log looks for errors in what the daemons have logged since the last time: a kill is no reason for any.
func (k *killer) log() error {
	b, err := os.ReadFile(filepath.Join(k.h.Dir, "anyfs.log"))
	if err != nil {
		return err
	}
	fresh := b[min(k.logged, int64(len(b))):]
	k.logged = int64(len(b))
	for line := range bytes.Lines(fresh) {
		if bytes.Contains(line, []byte(`"level":"ERROR"`)) {
			return fmt.Errorf("a daemon logged %s", line)
		}
	}
	return nil
}

// report says what the run proves, and fails where it is too little.
func (k *killer) report(kills int) {
	ops := 0
	for _, w := range k.work {
		ops += w.ops
	}
	slices.Sort(k.mounts)
	n := len(k.mounts)
	median, nearly, slowest := k.mounts[n/2], k.mounts[(n-1)*95/100], k.mounts[n-1]
	k.t.Logf("%d kills hit %d operations in flight, %d operations were acknowledged; %d came at random, %d in a recovery; mounts took %v in the median, %v for 95 of 100, %v at most",
		kills, k.inFlight, ops, k.random, k.recovering, median.Round(time.Millisecond), nearly.Round(time.Millisecond), slowest.Round(time.Millisecond))
	var missed []string
	hit := 0
	for _, p := range crashpoint.Points {
		if k.tried[p] == 0 {
			continue
		}
		if k.landed[p] > 0 {
			hit++
		} else {
			missed = append(missed, string(p))
		}
		k.t.Logf("%3d of %3d landed: %s", k.landed[p], k.tried[p], p)
	}
	if len(missed) > hit/4 || len(missed) > 0 && kills > 10*len(crashpoint.Points) {
		k.t.Errorf("no kill landed at %q", missed)
	}
	if k.inFlight == 0 {
		k.t.Error("no kill hit an operation in flight: nothing was tested")
	}
	if nearly > lateMount { // the slowest few may have met other work on the machine
		k.t.Errorf("5 of 100 mounts took more than %v, want at most %v", nearly, lateMount)
	}
}

const (
	blockBytes = 4096
	blockCount = 8
)

// disconnected reports an error that says that there is no daemon, or was none any more. EIO is what the kernel gives (fuse_dev_do_read,
// fuse_dev_do_write) where the signal meets a thread that takes a request or hands an answer over; one of the daemon's own stands in its
// log, which is looked at.
func disconnected(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EIO)
}

// TestUnsyncedSurvivesKill holds that file data older than a second survives a kill without fsync.
func TestUnsyncedSurvivesKill(t *testing.T) {
	h := Mounted(t)
	small, large := h.Personal("small"), h.Personal("large")
	big := bytes.Repeat([]byte("0123456789abcdef"), 5<<16)
	check(t, os.WriteFile(small, []byte("never synced"), 0o644), os.WriteFile(large, big, 0o644))
	time.Sleep(1100 * time.Millisecond)
	h.Kill()
	h.Mount()
	if b, err := os.ReadFile(small); err != nil || string(b) != "never synced" {
		t.Errorf("small: %q, %v", b, err)
	}
	if b, err := os.ReadFile(large); err != nil || !bytes.Equal(b, big) {
		t.Errorf("large: %d bytes, %v", len(b), err)
	}
}

// envNumber reads a number from the environment.
func envNumber(name string, otherwise uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
		return n
	}
	return otherwise
}
