package store_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
)

// home is a graph on a simulated disk, and what it must keep.
type home struct {
	sim     *disk.Sim
	o       store.Options
	st      *store.Store
	g       *dag.Graph
	objects []dag.ID
	log     [][]byte // frames in the order in which they were appended
	durable int      // of them that were synced
	unsure  bool     // a batch failed that may be in the log
	auth    *ended
	n       int
}

// ended is an Authorizer by which the batches of a device count up to a clock, and after it only when they are named.
type ended map[dag.PublicKey]uint64

func (e *ended) Accept(*dag.Batch, []*dag.Change) error { return nil }

func (e *ended) Counts(b *dag.Batch) dag.Verdict {
	if clock, ok := (*e)[b.Device]; ok && b.Clock > clock {
		return dag.CountsIfNamed
	}
	return dag.Counts
}

func openHome(sim *disk.Sim, auth *ended) (*home, error) {
	h := &home{sim: sim, auth: auth}
	if err := h.open(); err != nil {
		return h, err
	}
	_, err := h.g.Rejudge(nil) // what the access list said last may be lost
	return h, err
}

func (h *home) open() error {
	db, err := kv.NewSimDB(h.sim, "db")
	if err != nil {
		return err
	}
	h.o = store.Options{Disk: h.sim, Dir: "batches", DB: db, Name: "files", Seal: newSealer()}
	if h.st, err = store.Open(h.o); err != nil {
		return err
	}
	h.g, err = dag.Open(space, h.st, h.auth, dag.Options{})
	return err
}

// write makes a batch: mostly of a device's own, sometimes one of a device that is behind.
func (h *home) write(rnd *rand.Rand) error {
	h.n++
	a := author(rnd.IntN(3))
	if _, ok := (*h.auth)[a.Device]; ok {
		return nil
	}
	b, err := h.g.Begin(a, nil, dag.ID{})
	if err != nil {
		return err
	}
	defer b.Abort()
	payload := func(dag.Header) ([]byte, error) { return bytes.Repeat([]byte{byte(h.n)}, 1+rnd.IntN(1500)), nil }
	var fresh dag.ID
	if len(h.objects) < 5 {
		if fresh, err = b.Add(dag.ID{}, payload); err != nil {
			return err
		}
	}
	for _, o := range h.objects {
		if rnd.IntN(2) == 0 {
			if _, err := b.Add(o, payload); err != nil {
				return err
			}
		}
	}
	if n, _ := b.Len(); n == 0 {
		return nil
	}
	h.unsure = true
	batch, err := b.Commit()
	if err != nil {
		return err
	}
	h.unsure = false
	frame, err := h.g.Frame(batch.ID())
	if err != nil {
		if frame, err = h.g.Frame(batch.ID()); err != nil {
			return err
		}
	}
	h.log = append(h.log, frame)
	if !fresh.IsZero() {
		h.objects = append(h.objects, fresh)
	}
	return nil
}

func (h *home) sync() error {
	if err := h.st.Sync(); err != nil {
		return err
	}
	h.durable = len(h.log)
	return nil
}

// dump is all that a graph shows.
func dump(g *dag.Graph) (string, error) {
	var s strings.Builder
	fmt.Fprintln(&s, g.Heads())
	batches, changes, objects := g.Counters()
	quarantined, err := g.Quarantined()
	if err != nil {
		return "", err
	}
	fmt.Fprintln(&s, batches, changes, objects, quarantined, len(g.Tips()))
	err = g.Objects(func(id dag.ID) error {
		heads, err := g.HeadsOf(id)
		if err != nil {
			return err
		}
		fmt.Fprintln(&s, id, heads)
		return g.Changes(id, func(e dag.Entry) error {
			_, err := fmt.Fprintln(&s, e.ID, e.Pos, len(e.Change.Payload), e.Change.ID() == e.ID)
			return err
		})
	})
	return s.String(), err
}

// check holds a reopened graph against one in memory that was given the same frames: they must be the first of the log,
// and all that was durable.
func (h *home) check(after *home) error {
	n := 0
	if err := after.st.Walk(0, func(rec dag.Record) error {
		if n == len(h.log) && h.unsure {
			h.log, h.unsure = append(h.log, rec.Frame), false
		}
		if n == len(h.log) || !bytes.Equal(rec.Frame, h.log[n]) {
			return fmt.Errorf("record %d is not what was appended", n)
		}
		n++
		return nil
	}); err != nil {
		return err
	}
	if n < h.durable {
		return fmt.Errorf("%d batches of %d durable ones", n, h.durable)
	}
	mem, err := dag.Open(space, store.NewMem(), h.auth, dag.Options{})
	if err != nil {
		return err
	}
	for _, f := range h.log[:n] {
		if res, err := mem.Ingest(f); err != nil || res.Status != dag.Accepted {
			return fmt.Errorf("%v %w", res.Status, err)
		}
	}
	want, err := dump(mem)
	if err != nil {
		return err
	}
	got, err := dump(after.g)
	if err == nil && got != want {
		err = fmt.Errorf("reopened:\n%s\nwant:\n%s", got, want)
	}
	if err == nil {
		err = after.g.Verify(nil)
	}
	return err
}

// goOn writes and syncs more after a reopening, and then the power fails.
func (h *home) goOn(after *home, script, rnd *rand.Rand) error {
	if err := after.adopt(h); err != nil {
		return err
	}
	for range 5 {
		if err := after.write(script); err != nil {
			return err
		}
	}
	if err := after.sync(); err != nil {
		return err
	}
	last, err := openHome(after.sim.CrashClone(rnd), after.auth)
	if err != nil {
		return err
	}
	return after.check(last)
}

// adopt makes h, which was opened on what is left of old's disk, its successor.
func (h *home) adopt(old *home) error {
	n := 0
	if err := h.st.Walk(0, func(dag.Record) error { n++; return nil }); err != nil {
		return err
	}
	h.log, h.durable, h.n = old.log[:n:n], n, old.n
	return h.g.Objects(func(id dag.ID) error { h.objects = append(h.objects, id); return nil })
}

// work does a random piece of work.
func (h *home) work(rnd *rand.Rand) error {
	switch rnd.IntN(16) {
	case 0, 1:
		return h.sync()
	case 2, 3:
		return checkpoint(h.st, h.o.DB, rnd.IntN(3) > 0)
	case 4:
		d := author(1 + rnd.IntN(2)).Device
		if _, ok := (*h.auth)[d]; ok {
			delete(*h.auth, d)
		} else {
			(*h.auth)[d] = rnd.Uint64N(20)
		}
		_, err := h.g.Rejudge(func(_, device dag.PublicKey) bool { return device == d })
		return err
	}
	return h.write(rnd)
}

var seeds = flag.Int("seeds", 40, "how many random histories TestCrash crashes")

func TestCrash(t *testing.T) {
	lost := 0
	for seed := range uint64(*seeds) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		h, err := openHome(disk.NewSim(nil), &ended{})
		must(t, err)
		for range 3 {
			for range rnd.IntN(60) {
				must(t, h.work(rnd))
			}
			after, err := openHome(h.sim.CrashClone(rnd), h.auth)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err := h.check(after); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			// It goes on from there.
			must(t, after.adopt(h))
			if len(after.log) < len(h.log) {
				lost++
			}
			h = after
		}
	}
	if lost == 0 {
		t.Error("no crash lost anything")
	}
	t.Log("crashes that lost batches:", lost)
}

// TestFault fails the n-th operation of the disk, for every n until none fails, and opens it again: as the process that
// goes on, and as after a power loss.
func TestFault(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		landed := 0
		for n := int64(1); ; n++ {
			rnd := rand.New(rand.NewPCG(uint64(n), 9))
			sim := disk.NewSim(rand.New(rand.NewPCG(uint64(n), 8)))
			h, err := openHome(sim, &ended{})
			must(t, err)
			script := rand.New(rand.NewPCG(3, 3))
			sim.FailAt(n, fault)
			for range 30 { // what still works goes on
				err := h.work(script)
				if err != nil && !errors.Is(err, fault) && !errors.Is(err, kv.ErrBroken) {
					t.Fatalf("operation %d: %v", n, err)
				}
			}
			hit := sim.Landed() > 0
			sim.FailAt(0, nil)
			crashed := sim.CrashClone(rnd)
			for i, disk := range []*disk.Sim{sim, crashed} {
				after, err := openHome(disk, h.auth)
				if err == nil {
					err = h.check(after)
				}
				if err == nil {
					err = h.goOn(after, script, rnd)
				}
				if err != nil {
					t.Fatalf("operation %d, %v, disk %d: %v", n, fault, i, err)
				}
			}
			if !hit {
				break
			}
			landed++
		}
		if landed < 20 {
			t.Errorf("%v: only %d faults landed", fault, landed)
		}
		t.Log(fault, landed)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func author(n int) dag.Author {
	a := dag.Author{Key: seedKey(byte(n + 1))}
	copy(a.Device[:], a.Key[32:])
	a.Account = a.Device
	return a
}

// eager checkpoints before each update that comes without a record, as the owner's clock may.
type eager struct {
	*store.Store
	db kv.DB
}

func (e *eager) Index(rec dag.Record, u *dag.Update) error {
	if rec.At == 0 {
		if err := checkpoint(e.Store, e.db, true); err != nil {
			return err
		}
	}
	return e.Store.Index(rec, u)
}

// TestRaisedSurvivesCrash: a batch that counts because another names it counts after a crash that took what the index said
// of it, wherever the last checkpoint was.
func TestRaisedSurvivesCrash(t *testing.T) {
	removed, member := author(1), author(2)
	auth := &ended{}
	from, err := dag.Open(space, store.NewMem(), auth, dag.Options{})
	must(t, err)
	write := func(a dag.Author) (dag.ID, []byte) {
		b, err := from.Begin(a, nil, dag.ID{})
		must(t, err)
		_, err = b.Add(dag.Sum([]byte("fixed")), func(dag.Header) ([]byte, error) { return []byte("x"), nil })
		must(t, err)
		batch, err := b.Commit()
		must(t, err)
		frame, err := from.Frame(batch.ID())
		must(t, err)
		return batch.ID(), frame
	}
	named, frame := write(removed)
	naming, next := write(member)
	*auth = ended{removed.Device: 0}
	for name, between := range map[string]bool{"before the one that names it": false, "before the update that follows that": true} {
		sim := disk.NewSim(nil)
		h := &home{sim: sim, auth: auth}
		must(t, h.open())
		if between {
			h.g, err = dag.Open(space, &eager{h.st, h.o.DB}, auth, dag.Options{})
			must(t, err)
		}
		_, err := h.g.Ingest(bytes.Clone(frame))
		must(t, err)
		must(t, checkpoint(h.st, h.o.DB, true))
		if q, err := h.g.Quarantined(); err != nil || len(q) != 1 || q[0] != named {
			t.Fatal(q, err)
		}
		_, err = h.g.Ingest(bytes.Clone(next))
		must(t, err)
		must(t, h.st.Sync())
		want, err := dump(h.g)
		must(t, err)

		after := &home{sim: sim.Crash(func() disk.Keep { return disk.Drop }), auth: auth}
		must(t, after.open())
		got, err := dump(after.g)
		must(t, err)
		if has, err := after.g.Has(naming); err != nil || !has {
			t.Fatal("the batch was durable", err)
		}
		if got != want {
			t.Errorf("checkpoint %s: reopened\n%s\nwant\n%s", name, got, want)
		}
		must(t, after.g.Verify(nil))
	}
}
