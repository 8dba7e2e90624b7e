package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
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

// crasher does random operations in a directory of its own and remembers what was acknowledged.
type crasher struct {
	dir      string
	spaces   bool // dir is the root of the mount: what is made there are spaces
	rnd      *rand.Rand
	names    map[string]*crashFile // as acknowledged
	next     map[string]*crashFile // as it is when the operation in flight was done
	inFlight bool
	serial   int
	ops      int
	fault    error // an error that the kill does not explain
}

const (
	blockBytes = 4096
	blockCount = 8
)

// crashFile is a directory (neither log nor blocks), an append-only log or a file of stamped blocks.
type crashFile struct {
	kind string // "dir", "log", "blocks", "link", "whole", "space"
	// log: what was written, and how much of it was fsynced when.
	written []byte
	synced  int
	// blocks: the stamps written and those fsynced.
	stamps, durable [blockCount]uint64
	target          string
	// whole: the stamp of what was saved last.
	stamp uint64
	// space: what its one file holds (written), or is to hold while that is written or removed.
	next  []byte
	loose bool
}

func (w *crasher) run() {
	w.inFlight, w.fault = false, nil
	for {
		w.next = maps.Clone(w.names)
		do := w.choose()
		if w.spaces {
			do = w.chooseSpace()
		}
		w.inFlight = true
		if err := do(); err != nil {
			if !disconnected(err) {
				w.fault = err
			}
			return
		}
		w.inFlight = false
		w.names = w.next
		w.ops++
	}
}

// disconnected reports an error that says that there is no daemon, or was none any more. EIO is what the kernel gives (fuse_dev_do_read,
// fuse_dev_do_write) where the signal meets a thread that takes a request or hands an answer over; one of the daemon's own stands in its
// log, which is looked at.
func disconnected(err error) bool {
	return errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EIO)
}

// choose picks an operation and writes into next what it will have done.
func (w *crasher) choose() func() error {
	existing := slices.Sorted(maps.Keys(w.names))
	pick := func(kind string) (string, *crashFile) {
		for range 8 {
			if len(existing) == 0 {
				break
			}
			n := existing[w.rnd.IntN(len(existing))]
			if f := w.names[n]; kind == "" || f.kind == kind {
				return n, f
			}
		}
		return "", nil
	}
	w.serial++
	fresh := fmt.Sprintf("n%d", w.serial)
	at := func(n string) string { return filepath.Join(w.dir, n) }
	if len(existing) > 60 {
		n := existing[w.rnd.IntN(len(existing))]
		delete(w.next, n)
		return func() error { return os.Remove(at(n)) }
	}
	switch w.rnd.IntN(11) {
	case 0:
		w.next[fresh] = &crashFile{kind: "dir"}
		return func() error { return os.Mkdir(at(fresh), 0o755) }
	case 1:
		target := fmt.Sprintf("../to/%d", w.serial)
		w.next[fresh] = &crashFile{kind: "link", target: target}
		return func() error { return os.Symlink(target, at(fresh)) }
	case 2:
		if n, f := pick(""); f != nil {
			delete(w.next, n)
			w.next[fresh] = f
			return func() error { return os.Rename(at(n), at(fresh)) }
		}
	case 3:
		if n, f := pick(""); f != nil && len(existing) > 20 {
			delete(w.next, n)
			return func() error { return os.Remove(at(n)) }
		}
	case 4:
		n, f := pick("log")
		m, g := pick("log")
		if f != nil && g != nil && n != m { // a save: one log takes another's name
			delete(w.next, n)
			w.next[m] = f
			return func() error { return os.Rename(at(n), at(m)) }
		}
	case 5, 6:
		if n, f := pick("log"); f != nil {
			return func() error { return w.appendLog(at(n), f) }
		}
	case 7, 8:
		if n, f := pick("blocks"); f != nil {
			return func() error { return w.writeBlocks(at(n), f) }
		}
		w.next[fresh] = &crashFile{kind: "blocks"}
		return func() error { return create(at(fresh)) }
	case 9:
		n, _ := pick("whole")
		if n == "" || w.rnd.IntN(4) == 0 {
			n = fresh
		}
		w.next[n] = &crashFile{kind: "whole", stamp: uint64(w.serial)}
		return func() error { return w.save(at(n)) }
	}
	w.next[fresh] = &crashFile{kind: "log"}
	return func() error { return create(at(fresh)) }
}

func create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// appendLog appends some bytes, and fsyncs every other time.
func (w *crasher) appendLog(path string, f *crashFile) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	repeat := 1 + w.rnd.IntN(3000)
	if w.rnd.IntN(10) == 0 {
		repeat = 30_000 + w.rnd.IntN(100_000) // so large that it goes into blocks
	}
	if len(f.written) > 1<<20 {
		repeat = 1
	}
	line := bytes.Repeat(fmt.Appendf(nil, "%d,", w.serial), repeat)
	f.written = append(f.written, line...)
	if _, err := file.Write(line); err != nil {
		return err
	}
	if w.rnd.IntN(2) == 0 {
		n := len(f.written)
		if err := file.Sync(); err != nil {
			return err
		}
		f.synced = n
	}
	return nil
}

// whole is what a file holds that was saved with a stamp.
func whole(stamp uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%d saved\n", stamp), int(1_000+stamp%5*8_000))
}

// save replaces a file by a new one, as editors do.
func (w *crasher) save(path string) error {
	tmp := filepath.Join(filepath.Dir(path), ".saving")
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(whole(uint64(w.serial))); err != nil {
		return err
	}
	if w.rnd.IntN(2) == 0 {
		if err := file.Sync(); err != nil {
			return err
		}
	}
	return os.Rename(tmp, path)
}

// chooseSpace is choose for the root of the mount.
func (w *crasher) chooseSpace() func() error {
	w.serial++
	w.next = maps.Clone(w.names)
	existing := slices.Sorted(maps.Keys(w.names))
	at := func(n string) string { return filepath.Join(w.dir, n) }
	time.Sleep(time.Duration(w.rnd.IntN(50)) * time.Millisecond) // nobody makes spaces as fast as this could
	switch fresh := fmt.Sprintf("space %d", w.serial); {
	case len(existing) < 2 || len(existing) < 6 && w.rnd.IntN(3) == 0:
		w.next[fresh] = &crashFile{kind: "space"}
		return func() error { return os.Mkdir(at(fresh), 0o755) }
	case w.rnd.IntN(3) == 0:
		n := existing[w.rnd.IntN(len(existing))]
		w.next[fresh] = w.names[n]
		delete(w.next, n)
		return func() error { return os.Rename(at(n), at(fresh)) }
	case w.rnd.IntN(2) == 0:
		n := existing[w.rnd.IntN(len(existing))]
		f := w.names[n]
		return func() error {
			f.loose, f.next = true, []byte(n)
			if err := writeSynced(filepath.Join(at(n), "file"), n); err != nil {
				return err
			}
			f.loose, f.written = false, f.next
			return nil
		}
	default:
		n := existing[w.rnd.IntN(len(existing))]
		delete(w.next, n)
		f := w.names[n]
		return func() error {
			f.loose, f.next = true, nil
			if err := os.Remove(filepath.Join(at(n), "file")); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return os.Remove(at(n))
		}
	}
}

// writeBlocks overwrites a block with its next stamp, and fsyncs every other time.
func (w *crasher) writeBlocks(path string, f *crashFile) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	i := w.rnd.IntN(blockCount)
	f.stamps[i]++
	if _, err := file.WriteAt(stampBlock(f.stamps[i]), int64(i)*blockBytes); err != nil {
		return err
	}
	if w.rnd.IntN(2) == 0 {
		if err := file.Sync(); err != nil {
			return err
		}
		f.durable = f.stamps
	}
	return nil
}

func stampBlock(stamp uint64) []byte {
	b := make([]byte, blockBytes)
	for i := 0; i < blockBytes; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], stamp)
	}
	return b
}

// verify compares the directory with what was acknowledged, and takes what it finds as the start of the next round.
func (w *crasher) verify() error {
	list, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	var found []string
	for _, e := range list {
		if e.Name() != ".saving" && !(w.spaces && e.Name() == "Personal") {
			found = append(found, e.Name())
		}
	}
	slices.Sort(found)
	before, after := slices.Sorted(maps.Keys(w.names)), slices.Sorted(maps.Keys(w.next))
	switch {
	case slices.Equal(found, before):
	case w.inFlight && slices.Equal(found, after):
		w.names = w.next
	default:
		return fmt.Errorf("the directory holds %q,\nacknowledged was %q,\nwith what was in flight %q", found, before, after)
	}
	for n, f := range w.names {
		err := w.verifyFile(filepath.Join(w.dir, n), f)
		if g := w.next[n]; err != nil && w.inFlight && g != nil && g != f { // it was about to be replaced
			if w.verifyFile(filepath.Join(w.dir, n), g) == nil {
				w.names[n], err = g, nil
			}
		}
		if err != nil {
			return fmt.Errorf("%s (%s): %w", n, f.kind, err)
		}
	}
	w.next, w.inFlight = w.names, false
	return nil
}

func (w *crasher) verifyFile(path string, f *crashFile) error {
	switch f.kind {
	case "dir":
		st, err := os.Lstat(path)
		if err == nil && !st.IsDir() {
			err = errors.New("is no directory any more")
		}
		return err
	case "link":
		target, err := os.Readlink(path)
		if err == nil && target != f.target {
			err = fmt.Errorf("points to %q, not %q", target, f.target)
		}
		return err
	}
	if f.kind == "space" {
		return f.verifySpace(path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if f.kind == "whole" {
		if want := whole(f.stamp); !bytes.Equal(b, want) {
			return fmt.Errorf("holds %d bytes from %.20q on, not the %d that were saved with %d", len(b), b, len(want), f.stamp)
		}
		return nil
	}
	if f.kind == "log" {
		if len(b) < f.synced {
			return fmt.Errorf("holds %d bytes, %d were fsynced", len(b), f.synced)
		}
		if !bytes.HasPrefix(f.written, b) {
			return fmt.Errorf("holds %d bytes that are no beginning of the %d written", len(b), len(f.written))
		}
		f.written, f.synced = bytes.Clone(b), len(b)
		return nil
	}
	for i := range blockCount {
		got := make([]byte, blockBytes)
		if off := i * blockBytes; off < len(b) {
			copy(got, b[off:])
		}
		stamp := binary.LittleEndian.Uint64(got)
		if !bytes.Equal(got, stampBlock(stamp)) {
			return fmt.Errorf("block %d is torn: %x … %x", i, got[:8], got[blockBytes-8:])
		}
		if stamp < f.durable[i] || stamp > f.stamps[i] {
			return fmt.Errorf("block %d has stamp %d; fsynced was %d, written %d", i, stamp, f.durable[i], f.stamps[i])
		}
		f.stamps[i], f.durable[i] = stamp, stamp
	}
	return nil
}

// verifySpace looks at the one file that a space may have.
func (f *crashFile) verifySpace(path string) error {
	b, err := os.ReadFile(filepath.Join(path, "file"))
	if errors.Is(err, os.ErrNotExist) {
		b, err = nil, nil
		if _, err := os.Lstat(path); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	// While it is written it is empty for a moment.
	if !bytes.Equal(b, f.written) && !(f.loose && (len(b) == 0 || bytes.Equal(b, f.next))) {
		return fmt.Errorf("its file holds %q, not %q (or %q: %v)", b, f.written, f.next, f.loose)
	}
	f.written, f.next, f.loose = b, nil, false
	return nil
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
