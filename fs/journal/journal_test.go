package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/disk"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func testOptions(d disk.FS) Options {
	return Options{Disk: d, Dir: "journal", Key: seal.NewLocal([32]byte{1}), FileBytes: 64 << 10, LiveBytes: 1 << 20, Inline: true}
}

// sequence opens the journal and returns what it replays, by number.
func sequence(tb testing.TB, o Options, from Seq) (*Journal, map[Seq]string) {
	tb.Helper()
	got := map[Seq]string{}
	j, err := Open(o, from, func(seq Seq, rec []byte, loc Loc) error {
		if seq != from+Seq(len(got))+1 {
			tb.Fatalf("replays %d after %d records", seq, len(got))
		}
		got[seq] = string(rec)
		return nil
	})
	must(tb, err)
	return j, got
}

func TestRoundTrip(t *testing.T) {
	for _, sim := range []bool{true, false} {
		var d disk.FS = disk.NewSim(nil)
		if !sim {
			var err error
			d, err = disk.OS(t.TempDir())
			must(t, err)
		}
		o := testOptions(d)
		o.Inline = sim
		j, got := sequence(t, o, 0)
		if len(got) != 0 {
			t.Fatal("an empty journal replays something")
		}
		rnd := rand.New(rand.NewPCG(1, 1))
		want := map[Seq]string{}
		locs := map[Seq]Loc{}
		for i := range 200 {
			rec := bytes.Repeat([]byte{byte(i)}, 1+rnd.IntN(5000))
			seq, loc, err := j.Append(rec)
			must(t, err)
			if seq != Seq(i+1) {
				t.Fatalf("seq %d", seq)
			}
			want[seq], locs[seq] = string(rec), loc
			if i%3 == 0 {
				must(t, j.Write(seq))
			}
			if i%17 == 0 {
				must(t, j.Sync(context.Background(), seq))
			}
		}
		check := func(j *Journal) {
			t.Helper()
			for seq, loc := range locs {
				off := rnd.IntN(len(want[seq]))
				p := make([]byte, rnd.IntN(len(want[seq])-off)+1)
				must(t, j.ReadAt(loc, p, off))
				if string(p) != want[seq][off:off+len(p)] {
					t.Fatalf("record %d reads differently", seq)
				}
			}
		}
		check(j)
		must(t, j.Verify())
		must(t, j.Close())
		must(t, j.Close())
		if _, _, err := j.Append([]byte("x")); !errors.Is(err, ErrClosed) {
			t.Errorf("append after close: %v", err)
		}
		j, got = sequence(t, o, 0)
		if len(got) != len(want) {
			t.Fatalf("replays %d records", len(got))
		}
		for seq, rec := range want {
			if got[seq] != rec {
				t.Fatalf("record %d differs", seq)
			}
		}
		check(j)
		must(t, j.Damage())
		seq, _, err := j.Append([]byte("next"))
		if must(t, err); seq != 201 {
			t.Fatalf("goes on with %d", seq)
		}
		must(t, j.Close())
		j, got = sequence(t, o, 150)
		if len(got) != 51 || got[201] != "next" {
			t.Fatalf("replays %d records", len(got))
		}
		j.Release(201)
		must(t, j.Close())
	}
}

func TestParallel(t *testing.T) {
	o := testOptions(disk.NewSim(nil))
	o.Inline = false
	o.FileBytes, o.LiveBytes = 64<<10, 64<<20
	j, _ := sequence(t, o, 0)
	var mu sync.Mutex
	want := map[Seq]string{}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				rec := fmt.Sprintf("%d %d %s", g, i, bytes.Repeat([]byte("x"), i*3))
				seq, loc, err := j.Append([]byte(rec))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				want[seq] = rec
				mu.Unlock()
				switch i % 5 {
				case 0:
					err = j.Sync(context.Background(), seq)
				case 1, 2, 3:
					err = j.Write(seq)
				}
				p := make([]byte, len(rec))
				if err := errors.Join(err, j.ReadAt(loc, p, 0)); err != nil || string(p) != rec {
					t.Errorf("%d: %v", seq, err)
				}
			}
		})
	}
	wg.Wait()
	must(t, j.Close())
	j, got := sequence(t, o, 0)
	if len(got) != 2400 {
		t.Fatalf("replays %d", len(got))
	}
	for seq, rec := range got {
		if want[seq] != rec {
			t.Fatalf("record %d differs", seq)
		}
	}
	must(t, j.Close())
}
