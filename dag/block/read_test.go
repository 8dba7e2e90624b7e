package block

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// TestReader reads parts through a reader while its block is moved, evicted and put again.
func TestReader(t *testing.T) {
	_, _, s := filled(t, 40)
	ctx := t.Context()
	id, want := dataID(1), data(1)
	r, size, err := s.Reader(ctx, id)
	if err != nil || size != int64(len(want)) {
		t.Fatal(size, err)
	}
	if err := iotest.TestReader(io.NewSectionReader(r, 0, size), want); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadAt(make([]byte, 10), size-4); n != 4 || err != io.EOF {
		t.Fatal(n, err)
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Fatal("a negative offset reads")
	}
	before, _, _ := s.lookup(id)
	for n := range 40 { // leave little beside it, so that its segment is compacted
		if n != 1 && n != 39 {
			if err := s.Evict(dataID(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	if after, _, _ := s.lookup(id); after == before {
		t.Fatal("it was not moved")
	}
	got := make([]byte, len(want))
	if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
	if err := s.Evict(id); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(got, 0); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	if err := s.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(got, 0); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	if _, err := s.Put(want); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
}

// source is a Fetcher over data, which answers when it is told to.
type source struct {
	asked  atomic.Int32
	answer chan error
}

func (f *source) Fetch(ctx context.Context, id ID) ([]byte, error) {
	f.asked.Add(1)
	select {
	case err := <-f.answer:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for n := range 100 {
		if dataID(n) == id {
			return bytes.Clone(data(n)), nil
		}
	}
	return []byte("other bytes"), nil
}

func TestFetchIsShared(t *testing.T) {
	s := open(t, disk.NewSim(nil), kv.NewMem())
	f := &source{answer: make(chan error)}
	s.SetFetcher(f)
	ctx := t.Context()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := s.Get(ctx, dataID(1)); err != nil || !bytes.Equal(got, data(1)) {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, size, err := s.Reader(ctx, dataID(1)); err != nil || size != int64(len(data(1))) {
				t.Error(err)
			}
		})
	}
	f.answer <- nil
	wg.Wait()
	if n := f.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if !s.Has(dataID(1)) {
		t.Error("what was fetched is not kept")
	}
}

// TestFetchOutlivesItsFirstCaller has the caller who asked give up: others are not affected.
func TestFetchOutlivesItsFirstCaller(t *testing.T) {
	s := open(t, disk.NewSim(nil), kv.NewMem())
	f := &source{answer: make(chan error)}
	s.SetFetcher(f)
	ctx, cancel := context.WithCancel(t.Context())
	var first, wg sync.WaitGroup
	first.Go(func() {
		if _, err := s.Get(ctx, dataID(1)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for f.asked.Load() == 0 {
	}
	wg.Go(func() {
		if got, err := s.Get(t.Context(), dataID(1)); err != nil || !bytes.Equal(got, data(1)) {
			t.Error(err)
		}
	})
	cancel()
	first.Wait() // or the answer may be there as soon as the end
	f.answer <- nil
	wg.Wait()
}

func TestFetchErrors(t *testing.T) {
	d, _, s := filled(t, 3)
	f := &source{answer: make(chan error, 1)}
	s.SetFetcher(f)
	f.answer <- ErrAbsent
	if _, err := s.Get(t.Context(), dataID(50)); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	f.answer <- nil
	if _, err := s.Get(t.Context(), ID{1}); !errors.Is(err, ErrCorrupt) || s.Has(ID{1}) {
		t.Fatal(err)
	}
	// What is damaged here is fetched and repaired.
	p, _, _ := s.lookup(dataID(2))
	flip(t, d, "blocks/000001.seg", int64(p.off)+recordHeader)
	f.answer <- nil
	if got, err := s.Get(t.Context(), dataID(2)); err != nil || !bytes.Equal(got, data(2)) {
		t.Fatal(err)
	}
	s.SetFetcher(nil)
	if got, err := s.Get(t.Context(), dataID(2)); err != nil || !bytes.Equal(got, data(2)) {
		t.Fatal(err)
	}
}

// TestEvictedBlockPutAgain does it at each moment of a checkpoint: the block must be there, also after a power loss.
func TestEvictedBlockPutAgain(t *testing.T) {
	for moment := range 4 {
		d, db, s := filled(t, 3)
		id := dataID(1)
		put := func(at int) {
			if at == moment {
				if _, err := s.Put(data(1)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := s.Evict(id); err != nil {
			t.Fatal(err)
		}
		put(0)
		write, done := s.Freeze()
		put(1)
		err := db.Update(func(tx kv.Tx) error { return write(tx) })
		put(2)
		done(err == nil)
		put(3)
		for range 2 {
			if got, err := s.Get(t.Context(), id); err != nil || !bytes.Equal(got, data(1)) {
				t.Fatalf("moment %d: %v", moment, err)
			}
			if err := s.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			if live, _ := s.Bytes(); s.Len() != 3 || live != int64(len(data(0))+len(data(1))+len(data(2))+3*recordHeader) {
				t.Fatalf("moment %d: %d blocks, %d bytes", moment, s.Len(), live)
			}
			s = open(t, d.(*disk.Sim).CrashClone(rnd1()), db)
		}
	}
}

func TestHold(t *testing.T) {
	_, _, s := filled(t, 3)
	h := s.Hold()
	if !h.Add(dataID(0)) || h.Add(dataID(9)) {
		t.Fatal("Add does not say what is here")
	}
	if _, err := h.Put(data(5)); err != nil {
		t.Fatal(err)
	}
	if err := s.Evict(dataID(0), dataID(1), dataID(5), dataID(77)); !errors.Is(err, ErrHeld) {
		t.Fatal(err)
	}
	if !s.Has(dataID(0)) || s.Has(dataID(1)) || !s.Has(dataID(5)) {
		t.Fatal("held blocks must stay and others go")
	}
	h.Release()
	if err := s.Evict(dataID(0), dataID(5)); err != nil || s.Has(dataID(0)) || s.Has(dataID(5)) {
		t.Fatal(err)
	}
}

// TestFreezeDoesNotWait freezes while another checkpoint is under way: what it leaves out is there after a crash all the same.
func TestFreezeDoesNotWait(t *testing.T) {
	d, db, s := filled(t, 3)
	write1, done1 := s.freezeWhole()
	if _, err := s.Put(data(5)); err != nil {
		t.Fatal(err)
	}
	write2, done2 := s.Freeze()
	if err := db.Update(func(tx kv.Tx) error { return write2(tx) }); err != nil {
		t.Fatal(err)
	}
	done2(true)
	s2 := open(t, d.(*disk.Sim).CrashClone(rnd1()), db)
	if !s2.Has(dataID(5)) {
		t.Fatal("not durable")
	}
	err := db.Update(func(tx kv.Tx) error { return write1(tx) })
	done1(err == nil)
	if err := s.Checkpoint(t.Context()); err != nil || !s.Has(dataID(5)) {
		t.Fatal(err)
	}
}

// TestFetchAfterAnother: who looked for a block before a fetch of it ended, and asks after that, finds it here.
func TestFetchAfterAnother(t *testing.T) {
	s := open(t, disk.NewSim(nil), kv.NewMem())
	f := &source{answer: make(chan error)}
	s.SetFetcher(f)
	if _, err := s.Put(data(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // nobody answers
	defer cancel()
	if got, err := s.fetch(ctx, dataID(1), ErrAbsent); err != nil || !bytes.Equal(got, data(1)) {
		t.Fatal(err)
	}
	if n := f.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}
