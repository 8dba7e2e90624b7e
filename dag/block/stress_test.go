package block

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// TestStress runs everything beside everything, on the real disk and on the simulated one: writers that hold what they put, readers, an evictor,
// a checkpointer, a compactor, a verifier. No block that is held may be absent, none may read as other bytes, and in the
// end the counts, the disk and a new process agree.
func TestStress(t *testing.T) {
	t.Run("os", func(t *testing.T) {
		dir := t.TempDir()
		d, err := disk.OS(dir)
		if err != nil {
			t.Fatal(err)
		}
		db, err := kv.OpenBolt(filepath.Join(dir, "space.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		stress(t, d, db)
	})
	t.Run("sim", func(t *testing.T) { stress(t, disk.NewSim(nil), kv.NewMem()) })
}

func stress(t *testing.T, d disk.FS, db kv.DB) {
	s := open(t, d, db)
	s.lately.min = 1
	const blocks = 120
	length := 2 * time.Second
	if testing.Short() {
		length /= 10
	}
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var wg sync.WaitGroup
	var puts, reads, evictions, checkpoints, compactions, verified atomic.Int64
	loop := func(seed uint64, step func(*rand.Rand)) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, 1))
			for ctx.Err() == nil && !t.Failed() {
				step(rnd)
			}
		})
	}
	for w := range uint64(3) {
		loop(w, func(rnd *rand.Rand) {
			h := s.Hold()
			defer h.Release()
			for range 8 {
				n := rnd.IntN(blocks)
				id, err := h.Put(data(n))
				if err != nil {
					t.Error("put:", err)
					return
				}
				if got, err := s.Get(context.Background(), id); err != nil || !bytes.Equal(got, data(n)) {
					t.Errorf("block %d is held and reads as %d bytes, %v", n, len(got), err)
					return
				}
				puts.Add(1)
			}
			if rnd.IntN(4) == 0 {
				if err := s.Sync(context.Background()); err != nil {
					t.Error("sync:", err)
				}
			}
		})
	}
	for w := range uint64(2) {
		loop(10+w, func(rnd *rand.Rand) {
			n := rnd.IntN(blocks)
			r, size, err := s.Reader(context.Background(), dataID(n))
			if errors.Is(err, ErrAbsent) {
				return
			}
			if err != nil || size != int64(len(data(n))) {
				t.Errorf("reader of block %d: %d bytes, %v", n, size, err)
				return
			}
			for range 4 {
				off := rnd.Int64N(size + 1)
				p := make([]byte, min(100, size-off))
				if _, err := r.ReadAt(p, off); err == nil && !bytes.Equal(p, data(n)[off:off+int64(len(p))]) {
					t.Errorf("block %d reads as other bytes at %d", n, off)
				} else if err != nil && !errors.Is(err, ErrAbsent) && len(p) > 0 {
					t.Errorf("block %d at %d: %v", n, off, err)
				}
				reads.Add(1)
			}
		})
	}
	var given atomic.Int64
	for w := range uint64(2) {
		var buf []byte
		loop(60+w, func(rnd *rand.Rand) {
			n := rnd.IntN(blocks)
			p, _, _ := s.lookup(dataID(n))
			known := s.lately.has(p)
			got, err := s.GetToGive(dataID(n), buf)
			if errors.Is(err, ErrAbsent) {
				return
			}
			if err != nil || !bytes.Equal(got, data(n)) {
				t.Errorf("block %d is given as %d bytes, %v", n, len(got), err)
				return
			}
			if buf = got; known {
				given.Add(1)
			}
		})
	}
	loop(20, func(rnd *rand.Rand) {
		ids := make([]ID, 20)
		for i := range ids {
			ids[i] = dataID(rnd.IntN(blocks))
		}
		if err := s.Evict(ids...); err != nil && !errors.Is(err, ErrHeld) {
			t.Error("evict:", err)
		}
		evictions.Add(1)
		time.Sleep(time.Millisecond)
	})
	loop(30, func(rnd *rand.Rand) {
		fail := rnd.IntN(5) == 0
		write, done := s.Freeze()
		err := db.Update(func(tx kv.Tx) error {
			if err := write(tx); err != nil {
				t.Error("checkpoint:", err)
			}
			if fail {
				return context.Canceled
			}
			return nil
		})
		if done(err == nil); err != nil && !fail {
			t.Error("checkpoint:", err)
		}
		checkpoints.Add(1)
		time.Sleep(2 * time.Millisecond)
	})
	loop(40, func(*rand.Rand) {
		if err := s.Compact(context.Background()); err != nil && !errors.Is(err, errNotEmpty) {
			t.Error("compact:", err)
		}
		compactions.Add(1)
		time.Sleep(5 * time.Millisecond)
	})
	loop(50, func(*rand.Rand) {
		if err := s.Verify(context.Background(), func(id ID, err error) {
			if err != nil {
				t.Error("verify:", id, err)
			}
			verified.Add(1)
		}); err != nil {
			t.Error("verify:", err)
		}
		live, onDisk := s.Bytes()
		if live < 0 || onDisk < live {
			t.Errorf("%d bytes live, %d on disk", live, onDisk)
		}
		time.Sleep(5 * time.Millisecond)
	})
	wg.Wait()
	if given.Load() == 0 {
		t.Error("no block was given without being hashed")
	}
	t.Logf("%d puts, %d reads, %d evictions, %d checkpoints, %d compactions, %d verified",
		puts.Load(), reads.Load(), evictions.Load(), checkpoints.Load(), compactions.Load(), verified.Load())

	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func() map[ID]int64 {
		here, sum := map[ID]int64{}, int64(0)
		if err := s.All(t.Context(), func(id ID, size int64) error {
			if _, twice := here[id]; twice {
				t.Errorf("%s is listed twice", id)
			}
			here[id] = size
			sum += size + recordHeader
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if live, _ := s.Bytes(); live != sum || s.Len() != int64(len(here)) {
			t.Fatalf("Bytes says %d and Len %d, there are %d in %d blocks", live, s.Len(), sum, len(here))
		}
		if bad := damage(t, s); len(bad) > 0 {
			t.Fatal(bad)
		}
		return here
	}
	before := check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d, db)
	if after := check(); len(after) != len(before) {
		t.Fatalf("%d blocks before, %d after opening again", len(before), len(after))
	}
	s.Close()
}
