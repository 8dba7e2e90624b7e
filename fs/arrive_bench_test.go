package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// arriveBench is a device that makes 100,000 changes of small files, 250 a directory, and what a device takes in of them.
type arriveBench struct {
	b       *testing.B
	account *acl.Account
	cred    Cred
	from    *Home
	frames  [][]byte // what is to be taken in
}

const arrivePerDir, arriveStep = 250, 1 << 20

func newArriveBench(b *testing.B) *arriveBench {
	account, err := acl.NewAccount(rand.Reader)
	must(b, err)
	a := &arriveBench{b: b, account: account, cred: Cred{uint32(os.Geteuid()), uint32(os.Getegid())}}
	a.from = a.open("old")
	return a
}

func (a *arriveBench) open(name string) *Home {
	dir := a.b.TempDir()
	d, err := disk.OS(dir)
	must(a.b, err)
	keys, err := acl.InitKeys(d, a.account, name, nil, rand.Reader)
	must(a.b, err)
	h, err := Open(context.Background(), Options{Disk: d, Dir: dir, Keys: keys, Rand: rand.Reader, UID: a.cred.UID, GID: a.cred.GID})
	must(a.b, err)
	_, err = h.CreatePersonal()
	must(a.b, err)
	return h
}

func (a *arriveBench) personal(h *Home) *space {
	s, err := h.namedSpace(PersonalName)
	must(a.b, err)
	return s
}

// dirs makes or finds n directories, and calls fn for the numbers of the files in each.
func (a *arriveBench) dirs(n int, fn func(dir Ino, number int)) {
	ctx := context.Background()
	root, err := a.from.SpaceRoot(PersonalName)
	must(a.b, err)
	for i := range n {
		name := fmt.Sprintf("dir-%04d", i)
		dir, err := a.from.Lookup(root, name)
		if err != nil {
			dir, err = a.from.Mkdir(root, name, 0o755, a.cred)
		}
		must(a.b, err)
		for j := range arrivePerDir {
			fn(dir.Ino, i*arrivePerDir+j)
		}
		if i%8 == 7 {
			must(a.b, a.from.Flush(ctx))
		}
		if i%64 == 63 {
			must(a.b, a.from.checkpoint(ctx))
		}
	}
	must(a.b, a.from.Flush(ctx))
}

func (a *arriveBench) write(dir Ino, name, content string) {
	f, err := a.from.Lookup(dir, name)
	if err != nil {
		f, err = a.from.Mknod(dir, name, 0100644, 0, a.cred)
	}
	must(a.b, err)
	_, err = a.from.Write(context.Background(), f.Ino, []byte(content), 0, WriteFlags{})
	must(a.b, err)
}

// collect gathers what a device that has the given batches lacks.
func (a *arriveBench) collect(have []dag.ID) {
	a.frames = nil
	must(a.b, a.personal(a.from).graph.FramesSince(have, func(_ dag.ID, frame []byte) error {
		a.frames = append(a.frames, append([]byte{}, frame...))
		return nil
	}))
}

// another opens a device that is new to the space.
func (a *arriveBench) another() *Home {
	h := a.open("new")
	s := a.personal(h)
	must(a.b, a.personal(a.from).acl.List().Export(func(f []byte) error { return s.acl.List().Import(f) }))
	_, err := s.graph.Rejudge(nil)
	must(a.b, err)
	return h
}

// take has a device take the frames in, each MiB of which arrives in the tree and the index, and gives the CPU of the process for that
// with the checkpoints, and for verifying and storing alone.
func (a *arriveBench) take(h *Home) (all, ingest time.Duration) {
	ctx, s := context.Background(), a.personal(h)
	start, came := cpuUsed(), 0
	for i, frame := range a.frames {
		at := cpuUsed()
		r, err := s.graph.Ingest(frame)
		if err != nil || r.Status != dag.Accepted {
			a.b.Fatal(errors.Join(err, fmt.Errorf("batch %s: %v", r.ID, r.Status)))
		}
		ingest += cpuUsed() - at
		if came += len(frame); came >= arriveStep || i == len(a.frames)-1 {
			came = 0
			must(a.b, s.arrive(ctx))
		}
	}
	must(a.b, h.checkpoint(ctx))
	return cpuUsed() - start, ingest
}

// run measures what a device takes that is made by make; it has so many objects in the end. us/change is the CPU of the process for all of
// it, ingest-us/change that of verifying and storing alone, and B/op what was allocated.
func (a *arriveBench) run(objects, changes int, make func() *Home) {
	b := a.b
	var all, ingest time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		h := make()
		b.StartTimer()
		x, y := a.take(h)
		all, ingest = all+x, ingest+y
		b.StopTimer()
		if n := a.personal(h).objects; n != int64(objects) {
			b.Fatalf("%d objects", n)
		}
		must(b, h.Close())
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(float64(all.Microseconds())/float64(b.N*changes), "us/change")
	b.ReportMetric(float64(ingest.Microseconds())/float64(b.N*changes), "ingest-us/change")
	must(b, a.from.Close())
}

// BenchmarkArrive has a device that is new take in a space of 100,000 small files.
func BenchmarkArrive(b *testing.B) {
	const n = 100_000
	a := newArriveBench(b)
	a.dirs(n/arrivePerDir, func(dir Ino, i int) { a.write(dir, fmt.Sprintf("file-%06d", i), fmt.Sprintf("file %d\n", i)) })
	a.collect(nil)
	a.run(n+n/arrivePerDir+1, n, a.another)
}

// BenchmarkArriveAway has a device that has 50,000 small files take in 100,000 changes, of which half make files, and a sixth each rename,
// rewrite and remove one.
func BenchmarkArriveAway(b *testing.B) {
	const n = 50_000
	a := newArriveBench(b)
	name := func(i int) string { return fmt.Sprintf("file-%06d", i) }
	a.dirs(n/arrivePerDir, func(dir Ino, i int) { a.write(dir, name(i), fmt.Sprintf("file %d\n", i)) })
	var had []dag.ID
	for _, t := range a.personal(a.from).graph.Tips() {
		had = append(had, t.Batch)
	}
	a.collect(nil)
	before := a.frames
	a.dirs(n/arrivePerDir, func(dir Ino, i int) {
		switch i % 3 {
		case 0:
			must(b, a.from.Rename(dir, name(i), dir, name(i)+" moved", 0))
		case 1:
			a.write(dir, name(i), fmt.Sprintf("second %d\n", i))
		case 2:
			must(b, a.from.Unlink(dir, name(i)))
		}
		a.write(dir, name(i)+" new", fmt.Sprintf("new %d\n", i))
	})
	a.collect(had)
	changes := a.frames
	a.run(n-n/3+n+n/arrivePerDir+1, 2*n, func() *Home {
		h := a.another()
		a.frames = before
		a.take(h)
		a.frames = changes
		return h
	})
}

// cpuUsed is the CPU time that this process has taken.
func cpuUsed() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
