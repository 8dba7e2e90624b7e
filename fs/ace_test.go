package fs_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
)

// All short workloads on a small tree, and what a power loss leaves at each point of them: after Mohan et al., "Finding
// Crash-Consistency Bugs with Bounded Black-Box Crash Testing" (OSDI 2018), whose generator is called ACE.

var (
	aceSample = flag.Int("ace", 400, "workloads of two operations that are tried, of all; 0 is all")
	acePart   = flag.Int("ace-part", 0, "of all, in parts: the one with this number, from 0 on")
	aceParts  = flag.Int("ace-parts", 1, "in how many parts all are tried")
)

// aceSetup makes the tree on which the workloads work. What is in published has a history already, the rest is in the journal.
var aceSetup = struct{ published, journaled []action }{
	published: []action{
		mkdir("A"), mkdir("B"), mkdir("A/C"),
		create("foo"), write("foo", 0, 5000), setxattr("foo", "user.u", "one"),
		create("A/foo"), write("A/foo", 0, 20<<10), chmod("A/foo", 04755),
	},
	journaled: []action{
		create("A/bar"), write("A/bar", 0, 700), create("B/bar"), write("B/bar", 0, 40<<10), setxattr("B/bar", "user.u", "two"),
	},
}

// aceActions are the operations of the workloads.
var aceActions = []action{
	create("new"), create("A/new"), create("B/foo"),
	mkdir("D"), mkdir("A/D"),
	write("foo", 0, 3000), write("A/foo", 10_000, 5000), write("A/bar", 100, 200), write("B/bar", 0, 40<<10),
	write("foo", end, 100), write("A/bar", end, 9000), write("A/foo", 50_000, 1000),
	write("foo", end, 70<<10), write("A/foo", end, 600<<10), write("A/foo", 0, 100<<10), write("B/bar", end, 300<<10),
	truncate("foo", 0), truncate("A/foo", 7000), truncate("A/bar", 100_000),
	link("foo", "A/ln"), link("A/bar", "ln"), link("foo", "B/foo"),
	symlink("sym", "A/foo"), symlink("A/sym", "../foo"),
	unlink("foo"), unlink("A/foo"), unlink("B/bar"),
	rmdir("A/C"), rmdir("B"),
	rename("foo", "new", 0), rename("foo", "A/foo", 0), rename("A/foo", "foo", 0), rename("A/bar", "B/bar", 0), rename("A/bar", "bar", 0),
	rename("A", "D", 0), rename("B", "A/B", 0), rename("A/C", "B/C", 0), rename("A/C", "B", 0),
	rename("foo", "A/foo", fs.RenameExchange), rename("A/bar", "B", fs.RenameExchange), rename("A/C", "B", fs.RenameExchange),
	fallocate("foo", fs.FallocKeepSize|fs.FallocPunchHole, 1000, 2000), fallocate("A/foo", fs.FallocZeroRange, 4096, 8192),
	fallocate("foo", fs.FallocKeepSize, 0, 100_000), fallocate("A/bar", 0, 0, 50_000),
	setxattr("foo", "user.u", "three"), setxattr("A", "user.v", "four"), removexattr("foo", "user.u"), removexattr("B/bar", "user.u"),
	chmod("foo", 0600), chmod("A", 0700),
	copyRange("A/foo", 0, "foo", 1000, 10_000),
}

// persist is an operation that makes something durable.
type persist struct {
	name string
	do   func(th fs.TestHome, w walker, a *action) error
	// What it says of contents that are written in large pieces: all are durable, or that of the operation's file. It always
	// does of what was done before to the names and to files in small pieces.
	all, file bool
}

var persists = []persist{
	{name: "nothing"},
	{name: "fsync", file: true, do: func(_ fs.TestHome, w walker, a *action) error { return fsync(w, a.file) }},
	{name: "fsync of the directory", do: func(_ fs.TestHome, w walker, a *action) error {
		return fsync(w, path.Dir(a.file))
	}},
	{name: "sync of all", all: true, do: func(th fs.TestHome, _ walker, _ *action) error { return th.SyncAll(ctx) }},
	{name: "publication", all: true, do: func(th fs.TestHome, _ walker, _ *action) error { return th.Flush(ctx) }},
	{name: "checkpoint", do: func(th fs.TestHome, _ walker, _ *action) error { return th.Checkpoint() }},
}

// fsync syncs what is at a path, or the root where nothing is there any more.
func fsync(w walker, name string) error {
	if name == "." {
		name = ""
	}
	a, err := w.find(name)
	if err != nil {
		a, err = w.find("")
	}
	if err != nil {
		return err
	}
	return w.v.Fsync(ctx, a.Ino)
}

// ace is what all workloads share.
type ace struct {
	base fs.TestHome
	disk *disk.Sim // as the setup left it
	seed uint64

	workloads, tried, crashes, lossy, behind, again atomic.Int64
	most                                            atomic.Int64 // crash points of one workload
}

func newACE(t testing.TB, seed uint64) *ace {
	x := &ace{base: fs.NewTestHome(t), seed: seed}
	w := walker{x.base.Home, x.base.Root()}
	do := func(list []action) {
		for _, a := range list {
			if err := a.do(w); err != nil {
				t.Fatalf("%s: %v", a.name, err)
			}
		}
	}
	do(aceSetup.published)
	must(t, x.base.Flush(ctx))
	must(t, x.base.Checkpoint())
	do(aceSetup.journaled)
	must(t, x.base.SyncAll(ctx))
	x.disk = x.base.Sim().Crash(func() disk.Keep { return disk.Drop })
	return x
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// workload is one or two operations, each with what makes it durable.
type workload struct {
	ops  []*action
	sync []*persist
}

func (l *workload) String() string {
	out := ""
	for i, a := range l.ops {
		out += a.name + ", " + l.sync[i].name + "; "
	}
	return out
}

// states gives the trees that the model passes through, the first before the first operation; nil where an operation fails.
func (x *ace) states(ops []*action) (list []*tree, err error) {
	m := newModel()
	for _, part := range [][]action{aceSetup.published, aceSetup.journaled} {
		for i := range part {
			if err := part[i].do(m); err != nil {
				return nil, err
			}
		}
	}
	for i := 0; ; i++ {
		t, err := m.tree()
		if err != nil {
			return nil, err
		}
		list = append(list, t)
		if i == len(ops) {
			return list, nil
		}
		if ops[i].do(m) != nil {
			return nil, nil
		}
	}
}

// crashed is a disk after a power loss, and between which states of the model what it holds must be.
type crashed struct {
	disk   *disk.Sim
	how    string
	lossy  bool
	lo, hi int    // states that the tree may be
	acked  int    // the first that it may be after one more power loss
	lag    uint64 // a bit for each operation whose data may come later than the rest, and in part
}

// crashes are those of one workload; disks that are equal, also in what is not durable after a kill, are one.
type crashes []crashed

func (l *crashes) add(c crashed) {
	for i := range *l {
		if o := &(*l)[i]; o.lossy == c.lossy && o.disk.Unsynced() == c.disk.Unsynced() && o.disk.Same(c.disk) {
			o.lo, o.hi, o.acked, o.lag = max(o.lo, c.lo), min(o.hi, c.hi), max(o.acked, c.acked), o.lag&c.lag
			return
		}
	}
	*l = append(*l, c)
}

// run does a workload and checks what a power loss leaves at each point from its last operation on; what is before is another
// workload.
func (x *ace) run(l *workload, states []*tree) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s%w", l, err)
		}
	}()
	x.workloads.Add(1)
	rnd := rand.New(rand.NewPCG(x.seed, uint64(sum([]byte(l.String())))))
	th, err := x.base.On(x.disk.Crash(func() disk.Keep { return disk.Drop }))
	if err != nil {
		return err
	}
	defer th.Abandon()
	w := walker{th.Home, th.Root()}
	var mu sync.Mutex
	var list crashes
	acked, named, hi, points, lag := 0, 0, 0, 0, uint64(0)
	capture := func() { // called by who is about to change the disk
		mu.Lock()
		defer mu.Unlock()
		points++
		for _, k := range keeps(th.Sim().Unsynced(), rnd) {
			left := th.Sim().Crash(k.keep)
			if k.kill {
				left = th.Sim().Fork()
			}
			c := crashed{left, fmt.Sprintf("point %d, %s", points, k.name), !k.kill, acked, hi, acked, lag}
			if k.kill {
				c.lo = max(acked, named)
			}
			list.add(c)
			x.tried.Add(1)
		}
	}
	for i, a := range l.ops {
		mu.Lock()
		hi = i + 1
		if a.parts {
			lag |= 1 << i
		}
		mu.Unlock()
		last := i == len(l.ops)-1
		if last {
			th.Sim().Watch(capture)
		}
		if err := a.do(w); err != nil {
			return fmt.Errorf("%s fails: %w", a.name, err)
		}
		mu.Lock()
		if !isData(a) {
			named = i + 1
		}
		mu.Unlock()
		if p := l.sync[i]; p.do != nil {
			if err := p.do(th, w, a); err != nil {
				return fmt.Errorf("%s fails: %w", p.name, err)
			}
			mu.Lock()
			acked = i + 1
			for j, o := range l.ops[:i+1] {
				if p.all || p.file && o.file == a.file {
					lag &^= 1 << j
				}
			}
			mu.Unlock()
		}
	}
	th.Sim().Watch(nil)
	capture()
	x.most.Store(max(x.most.Load(), int64(points)))
	for _, c := range list {
		if err := x.check(l, states, &c, rnd, true); err != nil {
			return fmt.Errorf("%s: %w", c.how, err)
		}
	}
	return nil
}

// isData reports whether an operation is a write: what a kill leaves of it is up to the last second.
func isData(a *action) bool {
	return len(a.name) > 5 && (a.name[:5] == "write" || a.name[:4] == "copy")
}

type keeping struct {
	name string
	keep func() disk.Keep
	kill bool // all is kept, as when a process is killed
}

// keeps are the choices of what of n unsynced operations survives: nothing, all, all but one end, and some at random.
func keeps(n int, rnd *rand.Rand) []keeping {
	all := func(k disk.Keep) func() disk.Keep { return func() disk.Keep { return k } }
	if n == 0 {
		return []keeping{{"nothing is unsynced", all(disk.Drop), true}}
	}
	out := []keeping{{"nothing unsynced is kept", all(disk.Drop), false}, {"all is kept", all(disk.Whole), true}}
	pick := func(name string, fn func(i int) disk.Keep) {
		i := -1
		out = append(out, keeping{name, func() disk.Keep { i++; return fn(i) }, false})
	}
	if n > 1 {
		only := func(yes bool, k int) func(int) disk.Keep {
			return func(i int) disk.Keep {
				if (i == k) == yes {
					return disk.Whole
				}
				return disk.Drop
			}
		}
		pick("the first alone is kept", only(true, 0))
		pick("the last alone is kept", only(true, n-1))
		pick("the first alone is lost", only(false, 0))
		pick("the last alone is lost", only(false, n-1))
	}
	for len(out) < 8 {
		seed := rnd.Uint64()
		r := rand.New(rand.NewPCG(seed, 3))
		torn := 1 + r.IntN(9)
		pick(fmt.Sprintf("torn at random, seed %d", seed), func(int) disk.Keep {
			switch k := r.IntN(10); {
			case k < torn:
				return disk.Torn
			case k%2 == 0:
				return disk.Whole
			}
			return disk.Drop
		})
	}
	return out
}

// check opens what a crash left and holds it against the states that it may show. first is false for what a second crash left.
func (x *ace) check(l *workload, states []*tree, c *crashed, rnd *rand.Rand, first bool) error {
	x.crashes.Add(1)
	if c.lossy {
		x.lossy.Add(1)
	}
	sim := c.disk
	var second []crashed
	if first && rnd.IntN(8) == 0 {
		// The power goes again, somewhere in the recovery.
		left := rnd.IntN(20)
		sim.Watch(func() {
			if left--; left == 0 {
				ks := keeps(sim.Unsynced(), rnd)
				k := ks[rnd.IntN(len(ks))]
				second = append(second, crashed{sim.Crash(k.keep), "again in the recovery, " + k.name, !k.kill, c.acked, c.hi, c.acked, c.lag})
			}
		})
	}
	th, err := x.base.On(sim)
	sim.Watch(nil)
	if err != nil {
		return err
	}
	defer th.Abandon()
	got, err := walker{th.Home, th.Root()}.tree()
	if err != nil {
		return err
	}
	i := matchState(states, l.ops, got, c.lo, c.hi, c.lag)
	if i < 0 {
		want := states[c.hi]
		return fmt.Errorf("the tree is none of those from %d to %d:\n%s\ncontent of %q differs from the last", c.lo, c.hi,
			diffLines(got.names, want.names), got.difference(want))
	}
	if i < c.hi {
		x.behind.Add(1)
	}
	if err := sound(th); err != nil {
		return err
	}
	if first && rnd.IntN(8) == 0 {
		if err := x.goesOn(th, got); err != nil {
			return err
		}
	}
	for _, c := range second {
		x.again.Add(1)
		if err := x.check(l, states, &c, rnd, false); err != nil {
			return fmt.Errorf("%s: %w", c.how, err)
		}
	}
	return nil
}

// goesOn uses a home after a crash, and takes its power once more.
func (x *ace) goesOn(th fs.TestHome, had *tree) error {
	a := create("after")
	w := walker{th.Home, th.Root()}
	if err := a.do(w); err != nil {
		return fmt.Errorf("%s fails: %w", a.name, err)
	}
	if err := fsync(w, a.file); err != nil {
		return fmt.Errorf("fsync fails: %w", err)
	}
	next, err := x.base.On(th.Sim().Crash(func() disk.Keep { return disk.Drop }))
	if err != nil {
		return err
	}
	defer next.Abandon()
	w = walker{next.Home, next.Root()}
	if err := unlink("after").do(w); err != nil {
		return err
	}
	got, err := w.tree()
	if err != nil {
		return err
	}
	if !got.equal(had) {
		return fmt.Errorf("one more power loss changed the tree:\n%s", diffLines(got.names, had.names))
	}
	return nil
}

// sound is nil where Verify finds nothing.
func sound(th fs.TestHome) error {
	verified, err := th.Verify(ctx, nil)
	problems := verified.Problems
	for _, p := range problems {
		err = errors.Join(err, fmt.Errorf("verify: %s: %s: %s", p.Space, p.Where, p.Text))
	}
	return err
}

// matchState finds which of the states between lo and hi a tree is: the last that fits, -1 where none does. ops[i] leads to
// states[i+1]. What an operation wrote in large pieces may be there in part, where lag has its bit.
func matchState(states []*tree, ops []*action, got *tree, lo, hi int, lag uint64) int {
next:
	for i := hi; i >= lo; i-- {
		if got.names != states[i].names {
			continue
		}
		for name, b := range got.files {
			if string(b) == string(states[i].files[name]) {
				continue
			}
			fits := false
			for j, a := range ops[:min(i+1, len(ops))] {
				if lag&(1<<j) == 0 {
					continue
				}
				ino := states[j+1].inos[a.file]
				late := states[i].inos[name] == ino
				for k := j + 1; k < i; k++ {
					for _, settled := range ops[k].settles {
						late = late && states[k].inos[settled] != ino
					}
				}
				fits = fits || late && inPart(states[j].content(ino), states[j+1].content(ino), b)
			}
			if !fits {
				continue next
			}
		}
		return i
	}
	return -1
}

// each runs fn for the numbers below n on all cores until one fails.
func each(n int, fn func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for len(errs) < 5 {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := fn(i); err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// TestPowerLossInShortWorkloads tries all workloads of one operation, and those of two (or a sample of them): what a power loss
// leaves at each point where the disk changes opens, is a state that the operations passed through, has what was synced, and is
// sound.
func TestPowerLossInShortWorkloads(t *testing.T) {
	x := newACE(t, *modelSeed)
	n, sample := len(aceActions), *aceSample
	if testing.Short() {
		sample = min(sample, 40)
	}
	one := func(i int) error {
		ops := []*action{&aceActions[i]}
		states, err := x.states(ops)
		if states == nil || err != nil {
			return err // it is possible after another one only
		}
		for p := range persists {
			if err := x.run(&workload{ops, []*persist{&persists[p]}}, states); err != nil {
				return err
			}
		}
		return nil
	}
	two := func(i, j int, pick func(p, q int) bool) error {
		ops := []*action{&aceActions[i], &aceActions[j]}
		states, err := x.states(ops)
		if states == nil || err != nil {
			return err // the second is not possible after the first
		}
		for p := range persists {
			for q := range persists {
				if !pick(p, q) {
					continue
				}
				if err := x.run(&workload{ops, []*persist{&persists[p], &persists[q]}}, states); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err := each(n, func(i int) error {
		if testing.Short() && i%4 != int(x.seed%4) {
			return nil
		}
		return one(i)
	})
	singles := x.workloads.Load()
	if sample == 0 {
		err = errors.Join(err, each(n*n, func(i int) error {
			if i%*aceParts != *acePart {
				return nil
			}
			return two(i/n, i%n, func(_, q int) bool { return q > 0 })
		}))
	} else {
		err = errors.Join(err, each(sample, func(i int) error {
			r := rand.New(rand.NewPCG(x.seed, uint64(i)))
			p, q := r.IntN(len(persists)), 1+r.IntN(len(persists)-1)
			return two(r.IntN(n), r.IntN(n), func(a, b int) bool { return a == p && b == q })
		}))
	}
	t.Logf("seed %d: %d workloads of one operation and %d of two; %d power losses, which left %d different disks; of these %d lacked something, %d came during a recovery and %d left an earlier state; up to %d points in one",
		x.seed, singles, x.workloads.Load()-singles, x.tried.Load(), x.crashes.Load(), x.lossy.Load(), x.again.Load(), x.behind.Load(), x.most.Load())
	if err != nil {
		t.Fatal(err)
	}
	if singles == 0 || x.lossy.Load() == 0 || x.behind.Load() == 0 || x.again.Load() == 0 {
		t.Fatal("no power loss took anything: the test proves nothing")
	}
}
