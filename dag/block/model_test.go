package block

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"pgregory.net/rapid"
)

// The checks take what both kinds of test have.
type fataler interface {
	Fatal(...any)
	Fatalf(string, ...any)
}

// machine drives a store on a simulated disk beside a model of what it must hold.
//
// live is what the running store holds. sure is what must be there after a power loss: live and made durable since.
// Whatever else a crash leaves may be there, but then it must be whole.
type machine struct {
	disk *disk.Sim
	db   kv.DB
	s    *Store
	live map[int]bool
	sure map[int]bool
	rnd  *rand.Rand
}

const machineBlocks = 60

func (m *machine) open(t fataler) {
	db, err := kv.NewSimDB(m.disk, "space.db")
	if err != nil {
		t.Fatal("open the DB:", err)
	}
	s, err := Open(options(m.disk, db))
	if err != nil {
		t.Fatal("open the store:", err)
	}
	m.db, m.s = db, s
}

// restart takes over what a new process finds, and checks that all is there that must be.
func (m *machine) restart(t fataler, must map[int]bool) {
	m.open(t)
	for n := range machineBlocks {
		has := m.s.Has(dataID(n))
		if must[n] && !has {
			t.Fatalf("block %d is lost", n)
		}
		if m.live[n] = has; !has {
			m.sure[n] = false
		}
	}
	m.check(t)
}

// check compares everything with the model.
func (m *machine) check(t fataler) {
	ctx := context.Background()
	live, count := int64(0), int64(0)
	for n := range machineBlocks {
		id := dataID(n)
		got, err := m.s.Get(ctx, id)
		switch {
		case m.live[n] && (err != nil || !bytes.Equal(got, data(n))):
			t.Fatalf("block %d: %d bytes, %v", n, len(got), err)
		case !m.live[n] && !errors.Is(err, ErrAbsent):
			t.Fatalf("block %d should be absent: %v", n, err)
		case m.live[n]:
			live += int64(len(got)) + recordHeader
			count++
		}
	}
	if l, d := m.s.Bytes(); l != live || d < l || m.s.Len() != count {
		t.Fatalf("%d blocks, %d bytes live of %d on disk; want %d, %d", m.s.Len(), l, d, count, live)
	}
	var checked int64
	if err := m.s.Verify(ctx, func(id ID, err error) {
		if err != nil {
			t.Fatalf("verify: %s: %v", id, err)
		}
		checked++
	}); err != nil || checked != count {
		t.Fatalf("verified %d of %d blocks: %v", checked, count, err)
	}
}

func (m *machine) put(n int) error {
	err := m.s.PutHashed(dataID(n), data(n))
	if err == nil {
		m.live[n] = true
	}
	return err
}

func (m *machine) evict(ns ...int) error {
	var ids []ID
	for _, n := range ns {
		ids = append(ids, dataID(n))
		m.live[n], m.sure[n] = false, false
	}
	return m.s.Evict(ids...)
}

// durable runs what makes all that is live durable.
func (m *machine) durable(do func() error) error {
	err := do()
	if err == nil {
		for n, l := range m.live {
			m.sure[n] = l
		}
	}
	return err
}

func (m *machine) freeze(fail bool) error {
	write, done := m.s.Freeze()
	err := m.db.Update(func(tx kv.Tx) error {
		if err := write(tx); err != nil {
			return err
		}
		if fail {
			return io.ErrClosedPipe
		}
		return nil
	})
	done(err == nil)
	if fail && err == io.ErrClosedPipe {
		return nil
	}
	return err
}

func TestModel(t *testing.T) {
	var faults, crashes int
	check := func(rt *rapid.T) {
		m := &machine{live: map[int]bool{}, sure: map[int]bool{}}
		m.rnd = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		m.disk = disk.NewSim(m.rnd)
		ctx := context.Background()
		m.open(rt)
		some := rapid.SliceOfN(rapid.IntRange(0, machineBlocks-1), 1, 20)
		steps := map[string]func() error{
			"put": func() (err error) {
				for _, n := range some.Draw(rt, "puts") {
					err = errors.Join(err, m.put(n))
				}
				return err
			},
			"evict":      func() error { return m.evict(some.Draw(rt, "evicts")...) },
			"sync":       func() error { return m.durable(func() error { return m.s.Sync(ctx) }) },
			"freeze":     func() error { return m.durable(func() error { return m.freeze(false) }) },
			"checkpoint": func() error { return m.durable(func() error { return m.s.Checkpoint(ctx) }) },
			"fail tx":    func() error { return m.freeze(true) },
			"compact":    func() error { return m.durable(func() error { return m.s.Compact(ctx) }) },
		}
		actions := map[string]func(*rapid.T){
			"": func(*rapid.T) { m.check(rt) },
			"crash": func(*rapid.T) {
				m.disk = m.disk.CrashClone(m.rnd)
				crashes++
				m.restart(rt, m.sure)
			},
			"kill": func(*rapid.T) { m.restart(rt, m.live) },
			"fault": func(*rapid.T) {
				name := rapid.SampledFrom([]string{"put", "evict", "sync", "freeze", "checkpoint", "compact"}).Draw(rt, "op")
				err := rapid.SampledFrom([]error{syscall.EIO, syscall.ENOSPC, io.ErrShortWrite}).Draw(rt, "err")
				landed := m.disk.Landed()
				m.disk.FailAt(int64(rapid.IntRange(1, 12).Draw(rt, "at")), err)
				// Where there is little to do the fault waits for more.
				for _, name := range []string{name, "put", "sync", "put", "checkpoint", "compact"} {
					if m.disk.Landed() > landed {
						break
					}
					if got := steps[name](); got != nil && m.disk.Landed() == landed {
						rt.Fatalf("%s failed without a fault: %v", name, got)
					}
				}
				m.disk.FailAt(0, nil)
				if m.disk.Landed() > landed {
					faults++
				}
				// A block whose Put failed may not be there, and an update of the DB that failed leaves it unusable.
				m.restart(rt, m.live)
			},
		}
		for name, step := range steps {
			actions[name] = func(*rapid.T) {
				if err := step(); err != nil {
					rt.Fatalf("%s: %v", name, err)
				}
			}
		}
		rt.Repeat(actions)
	}
	// A short run may come to its end before a fault has landed: then it goes on.
	for tries := 0; tries < 10 && (faults == 0 || crashes == 0) && !t.Failed(); tries++ {
		rapid.Check(t, check)
	}
	t.Logf("%d faults landed, %d crashes", faults, crashes)
	if faults == 0 || crashes == 0 {
		t.Error("no fault or no crash was tried")
	}
}
