package journal

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag/disk"
)

var runs = flag.Int("journal.runs", 150, "random histories of the journal to try")
var firstSeed = flag.Uint64("journal.seed", 1, "the first of them")

// world is the naive model of a journal, and the journal that is compared with it on a simulated disk.
type world struct {
	tb   testing.TB
	pick func(n int) int // 0 to n-1
	seed func() uint64
	d    *disk.Sim
	o    Options
	j    *Journal

	recs     []string // all that was appended, by number less one; "" where the content is not known any more
	locs     []Loc
	written  Seq // what Write or Sync answered for
	synced   Seq // what Sync answered for
	ckpt     Seq // a durable checkpoint
	released Seq
	pins     map[Seq]int

	faults bool  // operations may fail
	inject bool  // and steps make them fail
	landed int64 // of those that did, on earlier disks
	trace  []string
}

func newWorld(tb testing.TB, pick func(n int) int, seed func() uint64) *world {
	w := &world{tb: tb, pick: pick, seed: seed, pins: map[Seq]int{}}
	w.d = disk.NewSim(w.rand())
	w.o = testOptions(w.d)
	w.o.FileBytes = []int64{16 << 10, 64 << 10, 300 << 10}[pick(3)]
	w.o.LiveBytes = w.o.FileBytes * int64(4+pick(5))
	w.o.Reserve = w.o.LiveBytes / 4
	w.o.Rand = &seededReader{w.rand()}
	w.open()
	return w
}

type seededReader struct{ *rand.Rand }

func (r *seededReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return len(p), nil
}

func (w *world) rand() *rand.Rand { return rand.New(rand.NewPCG(w.seed(), w.seed())) }

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) fatal(format string, args ...any) {
	w.tb.Helper()
	for _, line := range w.trace[max(0, len(w.trace)-60):] {
		w.tb.Log(line)
	}
	w.tb.Fatalf(format, args...)
}

// open opens the journal and checks what it replays against what was promised: up to `sure` for certain.
func (w *world) open() { w.reopen(0) }

func (w *world) reopen(sure Seq) {
	w.tb.Helper()
	w.o.Disk = w.d
	last := w.ckpt
	var locs []Loc
	cut := Seq(0) // a record that refers to what is not there
	if w.pick(4) == 0 {
		cut = max(sure, w.ckpt) + 1 + Seq(w.pick(4))
	}
	replay := func(seq Seq, rec []byte, loc Loc) error {
		if seq == cut {
			w.note("cut at %d", seq)
			return fmt.Errorf("a block is missing: %w", ErrEnd)
		}
		if seq != last+1 || int(seq) > len(w.recs) {
			w.fatal("replays %d behind %d of %d", seq, last, len(w.recs))
		}
		if want := w.recs[seq-1]; want != "" && want != string(rec) {
			w.fatal("record %d is replayed differently", seq)
		}
		last = seq
		locs = append(locs, loc)
		return nil
	}
	var err error
	for range 3 {
		last, locs = w.ckpt, nil
		if w.j, err = Open(w.o, w.ckpt, replay); err == nil {
			break
		}
		w.note("open: %v", err)
		if !w.faults {
			w.fatal("open: %v", err)
		}
		w.d.FailAt(0, nil)
	}
	if err != nil {
		w.fatal("open, without a fault: %v", err)
	}
	w.note("open at %d: replayed to %d, sure of %d", w.ckpt, last, sure)
	if last < sure {
		w.fatal("replayed to %d, but %d was promised", last, sure)
	}
	if err := w.j.Damage(); err != nil {
		w.fatal("says damage: %v", err)
	}
	for i, loc := range locs {
		if got := w.locs[int(w.ckpt)+i]; got != loc && got != (Loc{}) {
			w.fatal("record %d was at %v, is at %v", int(w.ckpt)+i+1, got, loc)
		}
	}
	w.recs, w.locs = w.recs[:last], w.locs[:last]
	w.written, w.synced = last, last
	if w.j.Next() != last+1 {
		w.fatal("goes on with %d", w.j.Next())
	}
	for seq, n := range w.pins {
		if seq > sure {
			delete(w.pins, seq) // nobody promised that it is still there
			continue
		}
		for range n {
			if err := w.j.Pin(w.locs[seq-1]); err != nil {
				w.fatal("pin of %d, %v: %v", seq, w.locs[seq-1], err)
			}
		}
		w.read(seq)
	}
	w.released = w.ckpt
	w.j.Release(w.ckpt)
}

// failed takes an error in: true means that the operation did not happen.
func (w *world) failed(what string, err error) bool {
	if err == nil {
		return false
	}
	w.note("%s: %v", what, err)
	if !w.faults && !errors.Is(err, ErrFull) {
		w.fatal("%s: %v", what, err)
	}
	if errors.Is(err, ErrBroken) {
		if _, _, err := w.j.Append([]byte("x")); !errors.Is(err, ErrBroken) {
			w.fatal("append to a broken journal: %v", err)
		}
		if w.d.Landed() == 0 {
			w.fatal("broken without a fault")
		}
		w.crash()
	}
	return true
}

func (w *world) crash() {
	w.d.FailAt(0, nil)
	if w.pick(2) == 0 {
		w.note("kill")
		w.reopen(w.written)
		return
	}
	w.note("power loss")
	w.landed += w.d.Landed()
	w.d = w.d.CrashClone(w.rand())
	// What is known of unsynced records that are lost is forgotten by reopen.
	w.reopen(w.synced)
}

func (w *world) read(seq Seq) {
	w.tb.Helper()
	rec, loc := w.recs[seq-1], w.locs[seq-1]
	if rec == "" {
		return
	}
	off := w.pick(len(rec))
	p := make([]byte, 1+w.pick(len(rec)-off))
	if err := w.j.ReadAt(loc, p, off); err != nil {
		if w.faults && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrGone) {
			return
		}
		w.fatal("read of %d: %v", seq, err)
	}
	if string(p) != rec[off:off+len(p)] {
		w.fatal("record %d reads differently", seq)
	}
}

func (w *world) last() Seq { return Seq(len(w.recs)) }

func (w *world) step() {
	w.tb.Helper()
	ctx := context.Background()
	switch k := w.pick(100); {
	case k < 45:
		n := 1 + w.pick(200)
		if k < 12 {
			n = 1 + w.pick(int(w.o.FileBytes/4))
		}
		rec := bytes.Repeat([]byte{byte(w.seed())}, n)
		rec[n/2]++
		add := w.j.Append
		if k%9 == 0 {
			add = w.j.AppendReserved
		}
		seq, loc, err := add(rec)
		if w.failed("append", err) {
			if _, live := w.j.Oldest(); err == ErrFull && live+2*w.o.FileBytes < w.o.LiveBytes-w.o.Reserve {
				w.fatal("full with %d of %d bytes live", live, w.o.LiveBytes)
			}
			return
		}
		w.note("append %d, %d bytes: %v", seq, n, loc)
		w.recs, w.locs = append(w.recs, string(rec)), append(w.locs, loc)
		if seq != w.last() {
			w.fatal("append gives %d, want %d", seq, w.last())
		}
	case k < 60:
		seq := w.last() - Seq(w.pick(3))
		if int64(seq) > 0 && !w.failed("write", w.j.Write(seq)) {
			w.note("write %d", seq)
			w.written = max(w.written, seq)
		}
	case k < 70:
		seq := w.last()
		if !w.failed("sync", w.j.Sync(ctx, seq)) {
			w.note("sync %d", seq)
			w.written, w.synced = max(w.written, seq), max(w.synced, seq)
		}
	case k < 76:
		w.ckpt = max(w.ckpt, w.last()-min(w.last(), Seq(w.pick(4))))
		w.note("checkpoint %d", w.ckpt)
		if k < 75 {
			w.released = w.ckpt
			w.j.Release(w.ckpt)
		}
	case k < 80:
		if live := w.last() - w.released; live > 0 {
			seq := w.released + 1 + Seq(w.pick(int(live)))
			if err := w.j.Pin(w.locs[seq-1]); err != nil {
				w.fatal("pin: %v", err)
			}
			w.pins[seq]++
			w.note("pin %d", seq)
		}
	case k < 84:
		if seq, ok := w.anyPin(); ok {
			w.note("unpin %d", seq)
			w.j.Unpin(w.locs[seq-1])
			if w.pins[seq]--; w.pins[seq] == 0 {
				delete(w.pins, seq)
			}
		}
	case k < 92:
		if live := w.last() - w.released; live > 0 {
			w.read(w.released + 1 + Seq(w.pick(int(live))))
		}
		if seq, ok := w.anyPin(); ok {
			w.read(seq)
		}
	case k < 93:
		if err := w.j.Verify(); err != nil && (!w.faults || errors.Is(err, ErrCorrupt)) {
			w.fatal("verify: %v", err)
		}
	case k < 94:
		w.j.Trim()
	case k < 96:
		if !w.failed("close", w.j.Close()) {
			w.note("close")
			w.written, w.synced = w.last(), w.last()
			w.reopen(w.last())
		}
	case k < 98:
		if w.inject {
			n, err := 1+w.pick(12), faultErrs[w.pick(len(faultErrs))]
			w.note("fault %v at %d", err, n)
			w.d.FailAt(int64(n), err)
		}
	default:
		w.crash()
	}
}

var faultErrs = []error{syscall.EIO, syscall.ENOSPC, io.ErrShortWrite}

// anyPin returns the lowest pinned record, or one above.
func (w *world) anyPin() (Seq, bool) {
	var best Seq
	for seq := range w.pins {
		if best == 0 || seq < best {
			best = seq
		}
	}
	return best, best != 0
}

func (w *world) end() {
	w.d.FailAt(0, nil)
	w.crash()
	if err := w.j.Verify(); err != nil {
		w.fatal("verify: %v", err)
	}
	if err := w.j.Close(); err != nil {
		w.fatal("close: %v", err)
	}
	w.reopen(w.last())
	must(w.tb, w.j.Close())
}

func seededWorld(tb testing.TB, seed uint64) *world {
	rnd := rand.New(rand.NewPCG(seed, 7))
	return newWorld(tb, rnd.IntN, rnd.Uint64)
}

// TestHistories compares random histories, with kills and power losses, with the model.
func TestHistories(t *testing.T) { histories(t, false) }

// TestFaultyHistories does so on a disk whose operations fail now and then.
func TestFaultyHistories(t *testing.T) { histories(t, true) }

func histories(t *testing.T, faults bool) {
	landed := int64(0)
	for seed := *firstSeed; seed < *firstSeed+uint64(*runs); seed++ {
		w := seededWorld(t, seed)
		w.faults, w.inject = faults, faults
		w.note("seed %d", seed)
		for range 150 {
			w.step()
		}
		w.end()
		landed += w.landed + w.d.Landed()
	}
	if faults && landed == 0 {
		t.Error("no fault landed")
	}
	t.Logf("seeds %d to %d, %d faults landed", *firstSeed, *firstSeed+uint64(*runs)-1, landed)
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") }
		seed := func() uint64 { return rapid.Uint64().Draw(rt, "seed") }
		w := newWorld(rapidTB{t, rt}, pick, seed)
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			w.step()
		}
		w.end()
	})
}

// rapidTB lets rapid see failures.
type rapidTB struct {
	testing.TB
	rt *rapid.T
}

func (r rapidTB) Helper()                      {}
func (r rapidTB) Log(args ...any)              { r.rt.Log(args...) }
func (r rapidTB) Fatal(args ...any)            { r.rt.Fatal(args...) }
func (r rapidTB) Fatalf(f string, args ...any) { r.rt.Fatalf(f, args...) }

// TestEveryFault lets each operation of many histories fail in turn, and crashes afterwards.
func TestEveryFault(t *testing.T) {
	landed := 0
	for scenario := range uint64(30) {
		for n := int64(1); ; n++ {
			done := true
			for _, stays := range []bool{false, true} {
				for _, fault := range faultErrs {
					w := seededWorld(t, 1000**firstSeed+scenario)
					w.faults = true
					w.note("scenario %d, %v at %d, stays %t", scenario, fault, n, stays)
					if stays {
						w.d.FailFrom(n, fault)
					} else {
						w.d.FailAt(n, fault)
					}
					for range 25 {
						w.step()
					}
					w.end()
					if w.landed+w.d.Landed() > 0 {
						landed++
						done = false
					}
				}
			}
			if done {
				break
			}
		}
	}
	if landed == 0 {
		t.Error("no fault landed")
	}
	t.Logf("%d runs in which a fault landed", landed)
}
