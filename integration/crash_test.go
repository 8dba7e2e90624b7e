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
)

// TestKill kills the daemon with SIGKILL at random moments of a mixed workload, mounts again, and looks that every name that
// was acknowledged and every byte that was fsynced is there, that nothing is torn, and that mounting was quick.
//
// It prints its seed and takes one from ANYFS_SEED; ANYFS_KILLS sets the number of kills (CI does 12).
func TestKill(t *testing.T) {
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	kills := int(envNumber("ANYFS_KILLS", 12))
	t.Logf("ANYFS_SEED=%d", seed)
	h := Mounted(t)
	const workers = 3
	var ws []*crasher
	for i := range workers {
		dir := h.Personal(fmt.Sprintf("worker%d", i))
		check(t, os.Mkdir(dir, 0o755))
		ws = append(ws, &crasher{dir: dir, rnd: rand.New(rand.NewPCG(seed, uint64(i))), names: map[string]*crashFile{}})
	}
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	landed, mounts := 0, []time.Duration{}
	for round := range kills {
		pid := h.PID()
		var wg sync.WaitGroup
		for _, w := range ws {
			wg.Go(w.work)
		}
		time.Sleep(time.Duration(20+rnd.IntN(400)) * time.Millisecond)
		h.KillPID(pid)
		wg.Wait()
		for _, w := range ws {
			if w.fault != nil {
				t.Fatalf("round %d: before the kill: %v", round, w.fault)
			}
			if w.inFlight {
				landed++
			}
		}
		start := time.Now()
		h.Mount()
		mounts = append(mounts, time.Since(start))
		for i, w := range ws {
			if err := w.verify(); err != nil {
				t.Fatalf("round %d, worker %d (seed %d): %v", round, i, seed, err)
			}
		}
	}
	ops := 0
	for _, w := range ws {
		ops += w.ops
	}
	slices.Sort(mounts)
	median, nearly, slowest := mounts[len(mounts)/2], mounts[(len(mounts)-1)*95/100], mounts[len(mounts)-1]
	t.Logf("%d kills hit %d operations in flight, %d operations were acknowledged; mounts took %v in the median, %v for 95 of 100, %v at most",
		kills, landed, ops, median.Round(time.Millisecond), nearly.Round(time.Millisecond), slowest.Round(time.Millisecond))
	if landed == 0 {
		t.Error("no kill hit an operation in flight: nothing was tested")
	}
	if nearly > 2*time.Second { // the slowest few may have met other work on the machine
		t.Errorf("5 of 100 mounts took more than %v, want at most 2 s", nearly)
	}
	if problems := h.Must("verify"); problems == "" {
		t.Error("verify says nothing")
	}
}

// crasher does random operations in a directory of its own and remembers what was acknowledged.
type crasher struct {
	dir      string
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
	kind string // "dir", "log", "blocks", "link"
	// log: what was written, and how much of it was fsynced when.
	written []byte
	synced  int
	// blocks: the stamps written and those fsynced.
	stamps, durable [blockCount]uint64
	target          string
}

func (w *crasher) work() {
	w.inFlight, w.fault = false, nil
	for {
		w.next = maps.Clone(w.names)
		do := w.choose()
		w.inFlight = true
		if err := do(); err != nil {
			if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
				w.fault = err
			}
			return
		}
		w.inFlight = false
		w.names = w.next
		w.ops++
	}
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
	switch w.rnd.IntN(10) {
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
	line := bytes.Repeat(fmt.Appendf(nil, "%d,", w.serial), 1+w.rnd.IntN(3000))
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
		found = append(found, e.Name())
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
		if err := w.verifyFile(filepath.Join(w.dir, n), f); err != nil {
			return fmt.Errorf("%s (%s): %w", n, f.kind, err)
		}
	}
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
	b, err := os.ReadFile(path)
	if err != nil {
		return err
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
