package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
)

func (th *testHome) prune(keep KeepPolicy, dry bool) PruneResult {
	th.t.Helper()
	res, err := th.Prune(context.Background(), PersonalName, keep, dry)
	if err != nil {
		th.t.Fatalf("prune: %v", err)
	}
	return res
}

func (th *testHome) verify() {
	th.t.Helper()
	problems, err := problemsOf(th.Verify(context.Background(), nil))
	th.must(err)
	if len(problems) > 0 {
		th.t.Fatalf("verify: %v", problems)
	}
}

func problemsOf(v Verified, err error) ([]Problem, error) { return v.Problems, err }

func TestPrune(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	var want [][]byte
	ino := th.create(d, "f", nil)
	const n = 3 << 20
	for i := range 4 {
		want = append(want, random(uint64(i), n))
		th.save(ino, want[i])
		th.flush()
		th.tick(time.Hour)
	}
	th.create(d, "small", []byte("kept in its change"))
	th.create(d, "dead", random(20, n))
	th.flush()
	th.tick(time.Hour)
	th.must(th.Unlink(d, "dead"))
	// A copy of an old version shares its blocks.
	vs := th.contents("Personal/d/f")
	th.restore("Personal/d/f", vs[3].ID, "Personal/d/copy")
	th.flush()

	dry := th.prune(KeepPolicy{}, true)
	if dry.Versions != 3 || dry.Bytes < 3*n || dry.Bytes > 3*n+n/8 {
		t.Fatalf("%+v", dry)
	}
	if got := must2(th.HistoryBytes(context.Background(), PersonalName)); got != dry.Bytes {
		t.Fatalf("history takes %d bytes, and a prune would free %d", got, dry.Bytes)
	}
	if res := th.prune(KeepPolicy{Last: 9}, false); res != (PruneResult{}) {
		t.Fatalf("%+v", res)
	}
	if res := th.prune(KeepPolicy{Within: 30 * time.Minute}, true); res.Versions != 2 {
		t.Fatalf("%+v", res) // v2 and v3: v1 is shared, and what was deleted just now is kept
	}
	if res := th.prune(KeepPolicy{Within: 150 * time.Minute}, true); res.Versions != 1 {
		t.Fatalf("%+v", res)
	}
	if res := th.prune(KeepPolicy{Last: 2}, true); res.Versions != 1 {
		t.Fatalf("%+v", res)
	}
	th.verify()
	_, before := th.spaceOf(d).blocks.Bytes()
	res := th.prune(KeepPolicy{}, false)
	if res != dry {
		t.Fatalf("%+v, expected %+v", res, dry)
	}
	if _, after := th.spaceOf(d).blocks.Bytes(); after > before-dry.Bytes+1<<20 {
		t.Fatalf("%d bytes on the disk, before %d", after, before)
	}
	check := func() {
		t.Helper()
		th.verify()
		d = th.at("Personal/d")
		th.wantContent(d, "f", want[3])
		th.wantContent(d, "copy", want[0])
		th.wantContent(d, "small", []byte("kept in its change"))
		vs := th.contents("Personal/d/f")
		for i, v := range vs {
			gone := i == 1 || i == 2
			if v.Pruned != gone {
				t.Fatalf("version %d: %+v", i, v)
			}
			f, err := th.OpenVersion(context.Background(), "Personal/d/f", v.ID)
			if gone && !errors.Is(err, ErrPruned) || !gone && err != nil {
				t.Fatalf("version %d: %v", i, err)
			}
			if err == nil {
				b := make([]byte, f.Size())
				if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, want[3-i]) {
					t.Fatalf("version %d: %v", i, err)
				}
			}
			if gone {
				if _, err := th.Restore(context.Background(), "Personal/d/f", v.ID, ""); !errors.Is(err, ErrPruned) {
					t.Fatalf("restore of version %d: %v", i, err)
				}
			}
		}
		if _, err := th.Restore(context.Background(), "Personal/d/dead", "", ""); !errors.Is(err, ErrPruned) {
			t.Fatalf("restore of the deleted file: %v", err)
		}
		for _, name := range th.list(th.sub(d, ".anyfs/versions/f").Ino) {
			a := th.sub(d, ".anyfs/versions/f/"+name)
			_, err := th.Read(context.Background(), a.Ino, make([]byte, 10), 0)
			if err != nil && !errors.Is(err, ErrPruned) {
				t.Fatal(err)
			}
		}
		if res := th.prune(KeepPolicy{}, false); res != (PruneResult{}) {
			t.Fatalf("a second prune: %+v", res)
		}
	}
	check()
	th.kill()
	check()
	// What was pruned can be written anew.
	th.save(th.look(d, "f"), want[2])
	th.flush()
	th.wantContent(d, "f", want[2])
	if vs := th.contents("Personal/d/f"); vs[0].Pruned || vs[2].Pruned {
		t.Fatalf("%+v", vs)
	}
	th.reopen()
	th.verify()
	th.wantContent(th.at("Personal/d"), "f", want[2])
}

func (th *testHome) spaceOf(ino Ino) *space {
	th.t.Helper()
	s, _, err := th.space(ino)
	th.must(err)
	return s
}

// TestPruneBesideWork prunes all the time while files are saved again and again with content that went, or is about to.
func TestPruneBesideWork(t *testing.T) {
	th := newTestHome(t)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- th.Run(ctx) }()
	pruned := make(chan PruneResult, 1)
	stop := make(chan struct{})
	go func() {
		var sum PruneResult
		for {
			res, err := th.Prune(context.Background(), PersonalName, KeepPolicy{}, false)
			if err != nil {
				t.Errorf("prune: %v", err)
			}
			sum.add(res)
			select {
			case <-stop:
				pruned <- sum
				return
			default:
			}
		}
	}()
	contents := make([][]byte, 4)
	for i := range contents {
		contents[i] = random(uint64(i), 1<<20+i*300<<10)
	}
	const least = 20
	took := 3 * time.Second
	if testing.Short() {
		took = time.Second
	}
	end := time.Now().Add(took)
	rounds := 0
	for i := 0; rounds < least || time.Now().Before(end); i++ {
		name := fmt.Sprint("f", i%3)
		want := contents[(i*7+i/3)%4]
		if a, err := th.Lookup(th.root, name); err == nil {
			th.save(a.Ino, want)
		} else {
			th.create(th.root, name, want)
		}
		if i%2 == 0 {
			th.flush()
		}
		th.wantContent(th.root, name, want)
		if i%5 == 0 {
			th.must(th.Unlink(th.root, name))
		}
		rounds++
	}
	close(stop)
	sum := <-pruned
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if sum.Versions == 0 {
		t.Fatalf("%d rounds, and %+v pruned", rounds, sum)
	}
	for _, name := range th.list(th.root) {
		th.read(th.look(th.root, name))
	}
	th.verify()
	th.kill()
	for _, name := range th.list(th.root) {
		th.read(th.look(th.root, name))
	}
	th.verify()
}

// fullDisk has as much room as free says: the simulated disk does not give holes back.
type fullDisk struct {
	disk.FS
	free func() int64
}

func (d fullDisk) Free() (avail, total int64, err error) { return d.free(), 1 << 40, nil }

func TestHistoryGoesWhenTheDiskIsFull(t *testing.T) {
	th := newTestHome(t)
	const n = 24 << 20
	ino := th.create(th.root, "f", random(1, n))
	th.flush()
	th.must(th.checkpoint(context.Background()))
	th.save(ino, random(2, n))
	th.flush()
	th.must(th.checkpoint(context.Background()))
	blocks := th.spaceOf(th.root).blocks
	_, used := blocks.Bytes()
	th.opt.Disk = fullDisk{th.sim, func() int64 {
		_, now := blocks.Bytes()
		return used + reserveBytes + 2<<20 - now
	}}
	th.forgetRoom()
	th.lookHistory(context.Background())
	if s := th.StatFS(); s.Free < n || s.Free > n+n/4+2<<20 {
		t.Fatalf("%d bytes free, %d of them of history", s.Free, th.historyRoom())
	}
	th.create(th.root, "g", random(3, 16<<20))
	th.flush()
	th.wantContent(th.root, "f", random(2, n))
	th.wantContent(th.root, "g", random(3, 16<<20))
	vs := th.contents("Personal/f")
	if !vs[1].Pruned {
		t.Fatal("the old version is there still")
	}
	th.verify()
	// Nothing goes when nothing would help.
	th.save(th.look(th.root, "g"), random(4, 1<<20))
	th.flush()
	if err := th.Fallocate(context.Background(), ino, 0, 0, 1<<40); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if vs := th.contents("Personal/g"); vs[1].Pruned {
		t.Fatal("it went in vain")
	}
}

// TestPruneBesidePublications: what is published, and replaced, after a prune chose what goes, and shares its blocks, is pruned
// with it, and no damage.
func TestPruneBesidePublications(t *testing.T) {
	th := newTestHome(t)
	ctx := context.Background()
	ino := th.create(th.root, "f", random(1, 6<<20))
	th.flush()
	change := func(seed uint64) {
		th.write(ino, random(seed, 1<<20), 0)
		th.flush()
		th.tick(time.Minute)
	}
	change(2)
	s := th.spaceOf(ino)
	p := pruner{s: s, now: th.clock().UnixNano(), lost: map[block.ID]struct{}{}}
	th.must(p.collect(ctx))
	if len(p.old) != 1 {
		t.Fatalf("%d old contents", len(p.old))
	}
	change(3)
	th.save(ino, random(4, 6<<20)) // shares nothing
	th.flush()
	p.now = th.clock().UnixNano()
	res, err := p.round(ctx, math.MaxInt64)
	th.must(err)
	if res.Versions != 3 || res.Blocks < 4 {
		t.Errorf("%+v", res)
	}
	th.verify()
	th.kill()
	th.verify()
}
