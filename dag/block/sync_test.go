package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// slowSync is a disk whose syncs take a second and are counted.
type slowSync struct {
	*disk.Sim
	syncs, most, now atomic.Int32
}

type slowFile struct {
	disk.File
	d *slowSync
}

func (d *slowSync) Create(name string) (disk.File, error) {
	f, err := d.Sim.Create(name)
	return slowFile{f, d}, err
}

func (f slowFile) Sync() error {
	f.d.syncs.Add(1)
	f.d.most.Store(max(f.d.most.Load(), f.d.now.Add(1)))
	time.Sleep(time.Second)
	f.d.now.Add(-1)
	return f.File.Sync()
}

// TestSyncIsShared has many callers put and sync at a time: those that come during a sync share one more.
func TestSyncIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowSync{Sim: disk.NewSim(nil)}
		s := open(t, d, kv.NewMem())
		var wg sync.WaitGroup
		put := func(n int) {
			wg.Go(func() {
				if _, err := s.Put(data(n)); err != nil {
					t.Error(err)
				}
				if err := s.Sync(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		put(0)
		time.Sleep(time.Second / 2)
		for n := 1; n < 6; n++ {
			put(n)
		}
		time.Sleep(time.Second / 4)
		gone, cancel := context.WithCancelCause(t.Context())
		wg.Go(func() {
			if err := s.Sync(gone); err != syscall.EINTR {
				t.Errorf("a wait that was ended gives %v", err)
			}
		})
		synctest.Wait()
		cancel(syscall.EINTR)
		wg.Wait()
		if n := d.syncs.Load(); n != 2 {
			t.Errorf("%d syncs, want 2", n)
		}
		if err := s.Sync(t.Context()); err != nil || d.syncs.Load() != 2 {
			t.Error("a sync with nothing to do synced")
		}
		// Several segments are synced beside each other.
		for n := 10; n < 60; n++ {
			if _, err := s.Put(data(n)); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := s.Sync(t.Context()); err != nil || time.Since(start) > time.Second || d.most.Load() < 3 {
			t.Errorf("%v, %v, %d at a time", err, time.Since(start), d.most.Load())
		}
		s.Close()
		if err := s.Sync(t.Context()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// TestRescue fails a sync and cuts the power after the next one that succeeds: a second fdatasync of the same file
// would have proved nothing.
func TestRescue(t *testing.T) {
	d, db := disk.NewSim(rnd1()), kv.NewMem()
	s := open(t, d, db)
	for n := range 10 {
		if n == 5 {
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Put(data(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Evict(dataID(7)); err != nil {
		t.Fatal(err)
	}
	d.FailAt(1, syscall.EIO) // the fdatasync
	if err := s.Sync(t.Context()); err != nil || d.Landed() != 1 {
		t.Fatal(err)
	}
	if a, _, _ := s.lookup(dataID(2)); a.seg != 1 {
		t.Error("a durable block was moved")
	}
	if a, _, _ := s.lookup(dataID(8)); a.seg == 1 {
		t.Error("a block that was not durable is left where a sync failed")
	}
	for seed := range uint64(20) {
		s := open(t, d.CrashClone(rand.New(rand.NewPCG(seed, 0))), db)
		for n := range 10 {
			if got, err := s.Get(t.Context(), dataID(n)); n != 7 && (err != nil || !bytes.Equal(got, data(n))) {
				t.Fatal(n, err)
			}
		}
	}
	// When the other segment fails too, Sync says so, and the next one goes on.
	if _, err := s.Put(data(20)); err != nil {
		t.Fatal(err)
	}
	d.FailFrom(1, syscall.EIO)
	if err := s.Sync(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	d.FailFrom(0, nil)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := open(t, d.CrashClone(rnd1()), db); !s.Has(dataID(20)) {
		t.Fatal("lost after a sync that succeeded")
	}
}

// TestSpaceReturns evicts on a real filesystem and looks at what the files take.
func TestSpaceReturns(t *testing.T) {
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
	s, err := Open(Options{Disk: d, Dir: "blocks", DB: db, Seal: xorSealer{}, SegmentBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	used := func() (sum int64) {
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		names, _ := os.ReadDir(filepath.Join(dir, "blocks"))
		for _, n := range names {
			var st syscall.Stat_t
			if err := syscall.Stat(filepath.Join(dir, "blocks", n.Name()), &st); err != nil {
				t.Fatal(err)
			}
			sum += st.Blocks * 512
		}
		return sum
	}
	block := func(n int) []byte { return bytes.Repeat([]byte{byte(n), 1}, 150_000+n) }
	for n := range 40 {
		if _, err := s.Put(block(n)); err != nil {
			t.Fatal(err)
		}
	}
	full := used()
	if full < 40*300_000 {
		what := fmt.Sprintf("a folder for temporary files that compresses nothing: 40 blocks of 300,000 bytes take %d", full)
		if os.Getenv("CI") != "" {
			t.Fatal("this machine lacks " + what)
		}
		t.Skip("this machine lacks " + what)
	}
	for n := range 40 {
		if n%2 == 0 {
			if err := s.Evict(Sum(block(n))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := used(); now > full/2+20*2*page {
		t.Errorf("%d bytes before, %d after evicting half", full, now)
	} else if _, said := s.Bytes(); said-now > 8*page || now-said > 64*page {
		t.Errorf("Bytes says %d on disk, stat %d", said, now)
	}
	for n := range 38 {
		if err := s.Evict(Sum(block(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := used(); now > 2*300_000 {
		t.Errorf("%d bytes after compaction, for 1 block of 300,000", now)
	}
	if got, err := s.Get(t.Context(), Sum(block(39))); err != nil || !bytes.Equal(got, block(39)) {
		t.Error(err)
	}
}
