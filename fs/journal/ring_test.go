package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/anyfs/anyfs/dag/disk"
)

func diskUse(tb testing.TB, d disk.FS) (bytes int64) {
	tb.Helper()
	names, err := d.ReadDir("journal")
	must(tb, err)
	for _, name := range names {
		f, err := d.Open("journal/" + name)
		must(tb, err)
		n, err := f.Size()
		must(tb, err)
		bytes += n
		must(tb, f.Close())
	}
	return bytes
}

// TestReuse: what is released is used again; the disk's space stays bounded, and shrinks when nothing happens.
func TestReuse(t *testing.T) {
	d := disk.NewSim(nil)
	o := testOptions(d)
	j, _ := sequence(t, o, 0)
	rec := make([]byte, 10<<10)
	for range 2000 {
		seq, _, err := j.Append(rec)
		must(t, err)
		if seq%20 == 0 {
			must(t, j.Sync(t.Context(), seq))
			j.Release(seq)
		}
		if use := diskUse(t, d); use > (5+spares)*o.FileBytes {
			t.Fatalf("%d bytes on the disk after %d records", use, seq)
		}
	}
	j.Release(2000)
	j.Release(2000)
	if use := diskUse(t, d); use > 2*o.FileBytes {
		t.Errorf("%d bytes when idle", use)
	}
	if first, live := j.Oldest(); first > 2000 || live > o.FileBytes {
		t.Errorf("oldest %d, %d bytes live", first, live)
	}
	for range 3 {
		j.Trim()
		if use := diskUse(t, d); use != o.FileBytes {
			t.Errorf("%d bytes after Trim, want one file", use)
		}
		if first, live := j.Oldest(); first != j.Next() || live != 0 {
			t.Errorf("after Trim the oldest is %d of %d, %d bytes are live", first, j.Next(), live)
		}
		// It goes on, also after a restart without a record that is needed.
		must(t, j.Close())
		var replayed map[Seq]string
		released := j.Next() - 1
		j, replayed = sequence(t, o, released)
		if len(replayed) > 0 || j.Next() != released+1 {
			t.Fatalf("%d records come back, the next is %d, want %d", len(replayed), j.Next(), released+1)
		}
		seq, _, err := j.Append(rec)
		must(t, err)
		must(t, j.Sync(t.Context(), seq))
		j.Release(seq)
	}
	must(t, j.Close())
}

// TestMayBeginLater: a journal whose first records were released opens from before them only for who does not know that.
func TestMayBeginLater(t *testing.T) {
	o := testOptions(disk.NewSim(nil))
	j, _ := sequence(t, o, 0)
	for range 500 {
		_, _, err := j.Append(make([]byte, 10<<10))
		must(t, err)
		if seq := j.Next() - 1; seq%20 == 0 {
			must(t, j.Sync(t.Context(), seq))
			j.Release(seq - 10)
		}
	}
	must(t, j.Close())
	first, _ := j.Oldest()
	if first < 400 || first > 491 {
		t.Fatalf("the oldest record is %d", first)
	}
	for _, from := range []Seq{0, first - 2} {
		if _, err := Open(o, from, func(Seq, []byte, Loc) error { return nil }); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("from %d: %v", from, err)
		}
		o := o
		o.MayBeginLater = true
		var seqs []Seq
		j, err := Open(o, from, func(seq Seq, _ []byte, _ Loc) error { seqs = append(seqs, seq); return nil })
		must(t, err)
		if len(seqs) == 0 || seqs[0] != first || seqs[len(seqs)-1] != 500 || len(seqs) != int(501-first) || j.Next() != 501 {
			t.Fatalf("from %d: %d records, next %d", from, len(seqs), j.Next())
		}
		must(t, j.Damage())
		must(t, j.Close())
	}
}

// TestLive: ordinary records stop at LiveBytes less the reserve, reserved ones at LiveBytes, and go on after a release.
func TestLive(t *testing.T) {
	o := testOptions(disk.NewSim(nil))
	o.Reserve = 256 << 10
	j, _ := sequence(t, o, 0)
	defer j.Close()
	fill := func(add func([]byte) (Seq, Loc, error)) int64 {
		for {
			if _, _, err := add(make([]byte, 1000)); err != nil {
				if err != ErrFull {
					t.Fatal(err)
				}
				_, live := j.Oldest()
				return live
			}
		}
	}
	if live := fill(j.Append); live > o.LiveBytes-o.Reserve || live < o.LiveBytes-o.Reserve-o.FileBytes {
		t.Errorf("full at %d bytes", live)
	}
	if live := fill(j.AppendReserved); live > o.LiveBytes || live < o.LiveBytes-o.FileBytes {
		t.Errorf("reserve is used up at %d bytes", live)
	}
	must(t, j.Write(j.Next()-1))
	j.Release(j.Next() - 1)
	_, _, err := j.Append([]byte("x"))
	must(t, err)
}

// TestFullDisk: on a full disk ordinary records are refused with ENOSPC while reserved ones still fit, nothing breaks, and
// all goes on when there is space.
func TestFullDisk(t *testing.T) {
	d := disk.NewSim(nil)
	o := testOptions(d)
	j, _ := sequence(t, o, 0)
	defer j.Close()
	d.SetCapacity(3*o.FileBytes + 100)
	var err error
	n := 0
	for ; err == nil; n++ {
		_, _, err = j.Append(make([]byte, 1000))
	}
	if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	if n < 100 {
		t.Errorf("full after %d records", n)
	}
	for range 40 {
		seq, _, err := j.AppendReserved(make([]byte, 200))
		must(t, err)
		must(t, j.Sync(t.Context(), seq))
	}
	if _, _, err := j.Append(make([]byte, 1000)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v", err)
	}
	d.SetCapacity(1 << 30)
	for range 3 { // the first try may only find out that there is space
		_, _, err = j.Append(make([]byte, 1000))
	}
	must(t, err)
}

// TestPins: a pinned file stays readable, also over restarts, until it is unpinned; then it goes.
func TestPins(t *testing.T) {
	d := disk.NewSim(nil)
	o := testOptions(d)
	j, _ := sequence(t, o, 0)
	rec := bytes.Repeat([]byte("pinned"), 1000)
	_, loc, err := j.Append(rec)
	must(t, err)
	must(t, j.Pin(loc))
	must(t, j.Pin(loc))
	check := func() {
		t.Helper()
		p := make([]byte, 100)
		must(t, j.ReadAt(loc, p, 300))
		if !bytes.Equal(p, rec[300:400]) {
			t.Fatal("reads differently")
		}
	}
	for range 100 {
		seq, _, err := j.Append(make([]byte, 10<<10))
		must(t, err)
		must(t, j.Sync(t.Context(), seq))
		j.Release(seq)
		check()
	}
	if file, pins, released := j.OldestFile(); file != loc.File || pins != 2 || !released {
		t.Errorf("oldest file %d, %d pins, released %t", file, pins, released)
	}
	must(t, j.Close())
	last := j.Next() - 1
	for range 3 {
		j, _ = sequence(t, o, last)
		check()
		must(t, j.Pin(loc))
		j.Release(last)
		must(t, j.Verify())
		check()
		must(t, j.Close())
	}
	j, _ = sequence(t, o, last)
	must(t, j.Pin(loc))
	_, _, err = j.Append([]byte("x"))
	must(t, err)
	j.Release(last)
	check()
	j.Unpin(loc)
	if err := j.ReadAt(loc, make([]byte, 1), 0); !errors.Is(err, ErrGone) {
		t.Errorf("after the last pin: %v", err)
	}
	if err := j.Pin(loc); !errors.Is(err, ErrGone) {
		t.Errorf("pin of what is gone: %v", err)
	}
	must(t, j.Close())
}

func TestSizes(t *testing.T) {
	o := testOptions(disk.NewSim(nil))
	j, _ := sequence(t, o, 0)
	for _, n := range []int{0, int(o.FileBytes/4) + 1} {
		if _, _, err := j.Append(make([]byte, n)); !errors.Is(err, ErrSize) {
			t.Errorf("record of %d bytes: %v", n, err)
		}
	}
	_, loc, err := j.Append(make([]byte, o.FileBytes/4))
	must(t, err)
	for _, off := range []int{-1, int(loc.Len), int(loc.Len) + 1} {
		if err := j.ReadAt(loc, make([]byte, 1), off); !errors.Is(err, ErrSize) {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	must(t, j.ReadAt(loc, nil, int(loc.Len)))
	if err := j.ReadAt(Loc{File: 99, Len: 1}, make([]byte, 1), 0); !errors.Is(err, ErrGone) {
		t.Errorf("read of an unknown file: %v", err)
	}
	must(t, j.Write(j.Next()-1))
	if err := j.ReadAt(Loc{File: loc.File, Off: 1 << 30, Len: 1}, make([]byte, 1), 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read beyond the file: %v", err)
	}
	must(t, j.Close())
	for _, bad := range []Options{
		{FileBytes: 1}, {FileBytes: 2 << 30}, {LiveBytes: 1 << 20}, {Reserve: -1}, {FileBytes: 1 << 20, LiveBytes: 1 << 20, Reserve: 1},
	} {
		bad.Disk, bad.Dir, bad.Key = o.Disk, o.Dir, o.Key
		if _, err := Open(bad, 0, nil); err == nil {
			t.Errorf("opens with %+v", bad)
		}
	}
}

// gate is a disk whose Sync waits, to hold a group up.
type gate struct {
	disk.FS
	wait chan struct{}
}

type gateFile struct {
	disk.File
	g *gate
}

func (g *gate) Open(name string) (disk.File, error) {
	f, err := g.FS.Open(name)
	return &gateFile{f, g}, err
}

func (g *gate) Create(name string) (disk.File, error) {
	f, err := g.FS.Create(name)
	return &gateFile{f, g}, err
}

func (f *gateFile) Sync() error {
	<-f.g.wait
	return f.File.Sync()
}

// TestGroup: whoever comes while a sync runs waits for one that begins later, or until its context ends; writes go on.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{FS: disk.NewSim(nil), wait: make(chan struct{}, 100)}
		o := testOptions(g)
		g.wait <- struct{}{} // for the file that Open prepares
		j, _ := sequence(t, o, 0)
		g.wait <- struct{}{} // for the next file
		_, _, err := j.Append([]byte("first"))
		must(t, err)
		must(t, j.Write(1))
		results := make(chan error, 20)
		for range 10 {
			go func() {
				seq, _, err := j.Append([]byte("more"))
				results <- errors.Join(err, j.Sync(context.Background(), seq))
			}()
		}
		synctest.Wait() // one has begun to sync, the others wait for the next
		ctx, cancel := context.WithCancel(context.Background())
		seq, _, err := j.Append([]byte("cancelled"))
		must(t, err)
		must(t, j.Write(seq))
		cancel()
		if err := j.Sync(ctx, seq); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		before := len(g.wait)
		for range 20 {
			g.wait <- struct{}{}
		}
		for range 10 {
			must(t, <-results)
		}
		if used := before + 20 - len(g.wait); used > 2 {
			t.Errorf("%d syncs for a group of 10", used)
		}
		must(t, j.Close())
	})
}

// TestParallelFaults has writes and syncs fail while several goroutines append, sync and read.
func TestParallelFaults(t *testing.T) {
	landed := int64(0)
	for round := range uint64(20) {
		d := disk.NewSim(nil)
		o := testOptions(d)
		o.Inline = false
		j, _ := sequence(t, o, 0)
		var mu sync.Mutex
		acked := map[Seq]string{}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 60 {
					rec := fmt.Sprint(g, i, string(bytes.Repeat([]byte("x"), i*5)))
					seq, loc, err := j.Append([]byte(rec))
					if err != nil {
						if errors.Is(err, ErrFull) {
							continue
						}
						return
					}
					if i%20 == 10 {
						d.FailAt(int64(1+round%7), syscall.EIO)
					}
					if err := j.Sync(context.Background(), seq); err != nil {
						return
					}
					mu.Lock()
					acked[seq] = rec
					mu.Unlock()
					p := make([]byte, len(rec))
					if err := j.ReadAt(loc, p, 0); err == nil && string(p) != rec {
						t.Error("reads differently")
					}
				}
			})
		}
		wg.Wait()
		landed += d.Landed()
		d.FailAt(0, nil)
		j.wg.Wait()
		o.Disk = d.Crash(func() disk.Keep { return disk.Drop })
		j, got := sequence(t, o, 0)
		for seq, rec := range acked {
			if got[seq] != rec {
				t.Fatalf("record %d is lost", seq)
			}
		}
		must(t, j.Close())
	}
	if landed == 0 {
		t.Error("no fault landed")
	}
}
