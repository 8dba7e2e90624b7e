package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func create(tb testing.TB, d disk.FS, name, data string) disk.File {
	tb.Helper()
	f, err := d.Create(name)
	must(tb, err)
	_, err = f.WriteAt([]byte(data), 0)
	must(tb, err)
	return f
}

func all() disk.Keep  { return disk.Whole }
func none() disk.Keep { return disk.Drop }

func list(tb testing.TB, d disk.FS, name string) []string {
	tb.Helper()
	names, err := d.ReadDir(name)
	must(tb, err)
	return names
}

// TestSimNames: names are durable after SyncDir of their directory, and not before.
func TestSimNames(t *testing.T) {
	s := disk.NewSim(nil)
	must(t, s.MkdirAll("a"))
	must(t, s.MkdirAll("b"))
	f := create(t, s, "a/f", "content")
	must(t, f.Sync())
	if got := list(t, s.Crash(none), "."); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("directories: %q", got)
	}
	if got := list(t, s.Crash(none), "a"); len(got) != 0 {
		t.Errorf("unsynced name: %q", got)
	}
	must(t, s.SyncDir("a"))
	if got, _ := s.Crash(none).ReadFile("a/f"); string(got) != "content" {
		t.Errorf("synced file: %q", got)
	}
	create(t, s, "a/other", "")
	must(t, s.Rename("a/f", "b/g"))
	if got := list(t, s.Crash(none), "a"); !slices.Equal(got, []string{"f"}) {
		t.Errorf("unsynced rename: %q", got)
	}
	create(t, s, "a/later", "")
	must(t, s.SyncDir("b"))
	c := s.Crash(none)
	if a, b := list(t, c, "a"), list(t, c, "b"); !slices.Equal(a, []string{"other"}) || !slices.Equal(b, []string{"g"}) {
		t.Errorf("rename between directories: %q, %q", a, b)
	}
	must(t, s.Remove("b/g"))
	if got := list(t, s.Crash(none), "b"); !slices.Equal(got, []string{"g"}) {
		t.Errorf("unsynced remove: %q", got)
	}
	must(t, s.SyncDir("b"))
	if got := list(t, s.Crash(none), "b"); len(got) != 0 {
		t.Errorf("synced remove: %q", got)
	}
	must(t, s.RemoveAll("a"))
	if got := list(t, s.Crash(all), "."); !slices.Equal(got, []string{"b"}) {
		t.Errorf("all kept: %q", got)
	}
}

// TestSimSubsets: any subset of unsynced names survives, and none of them makes another file appear twice.
func TestSimSubsets(t *testing.T) {
	seen := map[string]bool{}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		s := disk.NewSim(nil)
		create(t, s, "x", "1")
		must(t, s.Rename("x", "y"))
		create(t, s, "z", "2")
		c := s.CrashClone(rnd)
		seen[fmt.Sprint(list(t, c, "."))] = true
	}
	for _, want := range []string{"[]", "[x]", "[y]", "[z]", "[x z]", "[y z]"} {
		if !seen[want] {
			t.Errorf("never saw %s", want)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("saw %v", seen)
	}
}

// TestSimSectors: after a crash each sector is as it was at some time since the last Sync, and all times occur.
func TestSimSectors(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	states := map[byte]int{}
	mixed := 0
	for range 400 {
		s := disk.NewSim(nil)
		f := create(t, s, "f", "")
		must(t, s.SyncDir("."))
		for v := byte(1); v <= 4; v++ {
			_, err := f.WriteAt(bytes.Repeat([]byte{v}, 4*disk.Sector), 0)
			must(t, err)
			if v == 2 {
				must(t, f.Sync())
			}
		}
		got, err := s.CrashClone(rnd).ReadFile("f")
		must(t, err)
		if len(got) != 4*disk.Sector {
			t.Fatalf("%d bytes", len(got))
		}
		kinds := map[byte]bool{}
		for i := 0; i < len(got); i += disk.Sector {
			sector := got[i : i+disk.Sector]
			if bytes.Count(sector, sector[:1]) != disk.Sector {
				t.Fatal("a sector is torn")
			}
			states[sector[0]]++
			kinds[sector[0]] = true
		}
		if len(kinds) > 1 {
			mixed++
		}
	}
	if len(states) != 3 || states[2] == 0 || states[3] == 0 || states[4] == 0 || mixed == 0 {
		t.Errorf("states %v, %d mixed", states, mixed)
	}
}

func TestSimTruncate(t *testing.T) {
	s := disk.NewSim(nil)
	f := create(t, s, "f", "0123456789")
	must(t, s.SyncDir("."))
	must(t, f.Sync())
	must(t, f.Truncate(3))
	must(t, f.Truncate(5))
	for want, keep := range map[string]func() disk.Keep{"0123456789": none, "012\x00\x00": all} {
		if got, _ := s.Crash(keep).ReadFile("f"); string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	n := 0
	first := func() disk.Keep {
		if n++; n == 1 {
			return disk.Whole
		}
		return disk.Drop
	}
	if got, _ := s.Crash(first).ReadFile("f"); string(got) != "012" {
		t.Errorf("got %q", got)
	}
}

// TestSimFailedSync: what a failed Sync left is readable, and lost, whatever later Syncs say.
func TestSimFailedSync(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		s := disk.NewSim(rand.New(rand.NewPCG(seed, 1)))
		f := create(t, s, "f", "")
		must(t, s.SyncDir("."))
		_, err := f.WriteAt(bytes.Repeat([]byte{1}, 3*disk.Sector), 0)
		must(t, err)
		s.FailAt(1, syscall.EIO)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) || s.Landed() != 1 {
			t.Fatalf("%v, %d landed", err, s.Landed())
		}
		must(t, f.Sync())
		if got, _ := s.ReadFile("f"); bytes.Count(got, []byte{1}) != 3*disk.Sector {
			t.Fatal("the cache lost it")
		}
		got, _ := s.Crash(all).ReadFile("f")
		if bytes.Count(got, []byte{1}) != 3*disk.Sector {
			lost++
		}
		_, err = f.WriteAt(bytes.Repeat([]byte{2}, 3*disk.Sector), 0)
		must(t, err)
		must(t, f.Sync())
		if got, _ := s.Crash(none).ReadFile("f"); bytes.Count(got, []byte{2}) != 3*disk.Sector {
			t.Fatal("what is written again is not durable")
		}
	}
	if lost == 0 || lost == 50 {
		t.Errorf("lost in %d of 50 runs", lost)
	}
}

func TestSimFaults(t *testing.T) {
	s := disk.NewSim(nil)
	f := create(t, s, "f", "x")
	s.FailAt(2, io.ErrShortWrite)
	must(t, f.Sync())
	_, err := f.WriteAt([]byte("a"), 0)
	must(t, err)
	must(t, f.Sync())
	if n, err := f.WriteAt([]byte("bcdef"), 0); n == 5 || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%d, %v", n, err)
	}
	s.FailFrom(1, syscall.ENOSPC)
	for range 3 {
		_, err = s.Create("g")
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("create: %v", err)
		}
		must(t, f.Sync())
	}
	if _, err := s.Open("g"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	if s.Landed() != 4 {
		t.Errorf("%d landed", s.Landed())
	}
	s.FailAt(0, nil)
	s.SetCapacity(10)
	if _, err := f.WriteAt(make([]byte, 11), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write beyond the capacity: %v", err)
	}
	_, err = f.WriteAt(make([]byte, 10), 0)
	must(t, err)
	if err := f.Truncate(11); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("truncate beyond the capacity: %v", err)
	}
	if avail, total, _ := s.Free(); avail != 0 || total != 10 {
		t.Errorf("free %d of %d", avail, total)
	}
	must(t, s.Remove("f"))
	if avail, _, _ := s.Free(); avail != 10 {
		t.Errorf("free %d", avail)
	}
	if s.Ops() == 0 {
		t.Error("nothing was counted")
	}
}

// TestAtomic: a crash at any operation of WriteFileAtomic, or a failure of it, leaves the old or the new content.
func TestAtomic(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	landed, states := 0, map[string]int{}
	for n := int64(1); ; n++ {
		done := false
		for range 50 {
			s := disk.NewSim(rand.New(rand.NewPCG(rnd.Uint64(), 1)))
			must(t, s.WriteFileAtomic("f", []byte("old")))
			s.FailFrom(n, syscall.EIO)
			err := s.WriteFileAtomic("f", bytes.Repeat([]byte("new"), 1000))
			done = s.Landed() == 0
			landed += int(s.Landed())
			got, rerr := s.CrashClone(rnd).ReadFile("f")
			must(t, rerr)
			switch {
			case string(got) == "old" && err != nil:
				states["old"]++
			case bytes.Equal(got, bytes.Repeat([]byte("new"), 1000)):
				states["new"]++
			default:
				t.Fatalf("error %v leaves %.20q", err, got)
			}
		}
		if done {
			break
		}
	}
	if landed == 0 || states["old"] == 0 || states["new"] == 0 {
		t.Errorf("%d faults, states %v", landed, states)
	}
}

func BenchmarkCrashClone(b *testing.B) {
	s := disk.NewSim(nil)
	for i := range 20 {
		f := create(b, s, fmt.Sprint(i), "")
		_, err := f.WriteAt(make([]byte, 32<<10), 0)
		must(b, err)
		must(b, f.Sync())
		_, err = f.WriteAt(make([]byte, 4<<10), 0)
		must(b, err)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		s.CrashClone(rnd)
	}
}
