package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// scenario goes through everything that touches the disk. try runs a step and reports whether it succeeded.
func scenario(m *machine, try func(string, func() error) bool) {
	ctx := context.Background()
	sync := func() error { return m.durable(func() error { return m.s.Sync(ctx) }) }
	for n := range 15 {
		try("put", func() error { return m.put(n) })
		if n == 5 {
			try("sync", sync)
		}
	}
	try("checkpoint", func() error { return m.durable(func() error { return m.s.Checkpoint(ctx) }) })
	try("evict", func() error { return m.evict(1, 2, 3, 4, 6, 7, 8) })
	try("put", func() error { return m.put(15) })
	try("put", func() error { return m.put(2) })
	try("freeze", func() error { return m.durable(func() error { return m.freeze(false) }) })
	try("sync", sync)
	try("put", func() error { return m.put(16) })
	try("compact", func() error { return m.durable(func() error { return m.s.Compact(ctx) }) })
	try("put", func() error { return m.put(3) })
	try("sync", sync)
	try("read", func() error {
		for n, live := range m.live {
			if got, err := m.s.Get(ctx, dataID(n)); live && (err != nil || !bytes.Equal(got, data(n))) {
				return fmt.Errorf("block %d: %w", n, err)
			}
		}
		return nil
	})
}

// TestEveryFault makes each disk operation of the scenario fail in turn, once. The step that meets it may fail, and must
// succeed when it is tried again; afterwards, and after a power loss, everything is there.
func TestEveryFault(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, io.ErrShortWrite} {
		t.Run(fault.Error(), func(t *testing.T) {
			landed := int64(0)
			for n := int64(1); ; n++ {
				rnd := rand.New(rand.NewPCG(uint64(n), 3))
				m := &machine{live: map[int]bool{}, sure: map[int]bool{}, disk: disk.NewSim(rnd), rnd: rnd}
				m.db = kv.NewMem()
				s, err := Open(options(m.disk, m.db))
				if err != nil {
					t.Fatal(err)
				}
				m.s = s
				m.disk.FailAt(n, fault)
				scenario(m, func(step string, do func() error) bool {
					err := do()
					if err != nil && !errors.Is(err, fault) {
						t.Fatalf("fault %d: %s returned %v", n, step, err)
					}
					if err != nil {
						if err := do(); err != nil {
							t.Fatalf("fault %d: %s failed again: %v", n, step, err)
						}
					}
					return err == nil
				})
				hit := m.disk.Landed()
				landed += hit
				m.disk.FailAt(0, nil)
				m.check(t)
				m.disk = m.disk.CrashClone(rnd)
				if m.s, err = Open(options(m.disk, m.db)); err != nil {
					t.Fatalf("fault %d: open: %v", n, err)
				}
				for b, sure := range m.sure {
					if got, err := m.s.Get(t.Context(), dataID(b)); sure && (err != nil || !bytes.Equal(got, data(b))) {
						t.Fatalf("fault %d: after the crash block %d: %v", n, b, err)
					}
				}
				if hit == 0 {
					break
				}
			}
			t.Logf("%d faults landed", landed)
			if landed < 20 {
				t.Errorf("only %d faults landed", landed)
			}
		})
	}
}

// TestPowerLossAtEveryOperation ends the scenario at each disk operation in turn, the DB's included, and wants what was
// durable by then.
func TestPowerLossAtEveryOperation(t *testing.T) {
	crashes := 0
	for n := int64(1); ; n++ {
		rnd := rand.New(rand.NewPCG(uint64(n), 4))
		m := &machine{live: map[int]bool{}, sure: map[int]bool{}, disk: disk.NewSim(rnd), rnd: rnd}
		m.open(t)
		m.disk.FailFrom(n, syscall.EIO)
		off := false
		scenario(m, func(step string, do func() error) bool {
			if off {
				return false
			}
			err := do()
			off = off || m.disk.Landed() > 0
			return err == nil
		})
		m.disk.FailFrom(0, nil)
		m.disk = m.disk.CrashClone(rnd)
		m.restart(t, m.sure)
		if crashes++; !off {
			break
		}
	}
	t.Logf("%d crashes", crashes)
	if crashes < 30 {
		t.Errorf("only %d operations were interrupted", crashes)
	}
}

// TestFailedSyncThenKill lets each sync in turn fail, kills the process after any step, and takes the power from the one that comes
// after it: what was durable is there, and nothing is damaged.
func TestFailedSyncThenKill(t *testing.T) {
	landed := int64(0)
	for n := int64(1); ; n++ {
		rnd := rand.New(rand.NewPCG(uint64(n), 6))
		m := &machine{live: map[int]bool{}, sure: map[int]bool{}, disk: disk.NewSim(rnd), rnd: rnd}
		m.open(t)
		m.disk.FailSyncAt(n, syscall.EIO)
		scenario(m, func(_ string, do func() error) bool {
			err := do()
			for _, left := range []func(*disk.Sim) *disk.Sim{(*disk.Sim).Fork, func(d *disk.Sim) *disk.Sim { return d.CrashClone(rnd) }} {
				k := &machine{live: maps.Clone(m.live), sure: maps.Clone(m.sure), disk: left(m.disk), rnd: rnd}
				k.restart(t, m.sure)
				k.disk = k.disk.Crash(func() disk.Keep { return disk.Drop })
				k.restart(t, m.sure)
			}
			return err == nil
		})
		hit := m.disk.Landed()
		if landed += hit; hit == 0 {
			break
		}
	}
	t.Logf("%d syncs failed", landed)
	if landed < 5 {
		t.Errorf("only %d syncs failed", landed)
	}
}

// TestOpenUnderFaults makes each operation of Open fail. The next Open must find everything.
func TestOpenUnderFaults(t *testing.T) {
	landed := 0
	for n := int64(1); ; n++ {
		rnd := rand.New(rand.NewPCG(uint64(n), 5))
		m := &machine{live: map[int]bool{}, sure: map[int]bool{}, disk: disk.NewSim(rnd), rnd: rnd, db: kv.NewMem()}
		m.s, _ = Open(options(m.disk, m.db))
		scenario(m, func(_ string, do func() error) bool { return do() == nil })
		for b := range 20 {
			m.put(20 + b)
		}
		m.disk = m.disk.CrashClone(rnd)
		m.disk.FailAt(n, syscall.EIO)
		_, err := Open(options(m.disk, m.db))
		if hit := m.disk.Landed() > 0; hit != (err != nil) {
			t.Fatalf("operation %d failed: %v; Open: %v", n, hit, err)
		} else if hit {
			landed++
		}
		m.disk.FailAt(0, nil)
		s, err2 := Open(options(m.disk, m.db))
		if err2 != nil {
			t.Fatal(err2)
		}
		for b, sure := range m.sure {
			if sure && !s.Has(dataID(b)) {
				t.Fatalf("operation %d: block %d is lost", n, b)
			}
		}
		if err == nil {
			break
		}
	}
	if landed < 5 {
		t.Errorf("only %d faults landed", landed)
	}
}

// TestFullDisk fills a disk, frees some of it, and goes on.
func TestFullDisk(t *testing.T) {
	d, db := disk.NewSim(nil), kv.NewMem()
	s := open(t, d, db)
	d.SetCapacity(600_000)
	var ids []ID
	for n := 0; ; n++ {
		id, err := s.Put(data(n))
		if err == nil {
			ids = append(ids, id)
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if s.Has(dataID(n)) {
			t.Fatal("a block is there whose Put failed")
		}
		break
	}
	if err := s.Evict(ids[:len(ids)/2]...); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	for n := range len(ids) / 4 {
		if _, err := s.Put(data(1000 + n)); err != nil {
			t.Fatalf("after eviction, put %d: %v", n, err)
		}
	}
	if err := s.Verify(t.Context(), func(id ID, err error) {
		if err != nil {
			t.Error(id, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestNewSegmentWithoutBlocks: the first block of a segment can't be written, and a checkpoint names the segment: its header is
// durable by then.
func TestNewSegmentWithoutBlocks(t *testing.T) {
	d, db := disk.NewSim(nil), kv.NewMem()
	s := open(t, d, db)
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.FailAt(2, io.ErrShortWrite) // behind the header of the segment
	if _, err := s.Put(data(1)); err == nil || d.Landed() != 1 {
		t.Fatalf("%v, %d faults", err, d.Landed())
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, d.Crash(func() disk.Keep { return disk.Drop }), db)
	if err := s.Verify(t.Context(), func(id ID, err error) {
		if err != nil {
			t.Error(id, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}
