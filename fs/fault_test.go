package fs_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
)

// A drill is a piece of work in which the disk fails, once or from then on, at each of its operations in turn: what was
// acknowledged is there afterwards, and the home goes on, or after it is opened again.

var faultSample = flag.Int("faults", 3, "operations of the disk that fail in each drill and way; 0 is all")

// drill is one of them. Paths begin with the name of a space.
type drill struct {
	name        string
	setup, work []task

	journalBytes, segmentBytes int64 // of a file of the journal and of a segment, where they are to be small

	bare  bool // there is no home yet
	after func(th fs.TestHome) error
}

// task is an action on home and model, or on the home alone.
type task struct {
	action
	home func(r *drilling) error // where it is not the action
	data bool                    // it is a write: a kill may take what comes in the second before
	some bool                    // where it fails a part of it may have happened
	late bool                    // where it fails it may be seen whole after the next opening
	acks acks
}

// acks says what is durable when a step returns.
type acks uint8

const (
	ackNone  acks = iota
	ackNames      // the names, and what small writes wrote
	ackFile       // that, and all of the step's file
	ackAll
)

func do(list ...action) (out []task) {
	for _, a := range list {
		out = append(out, task{action: a, data: isData(&a)})
	}
	return out
}

func tasks(lists ...[]task) []task { return slices.Concat(lists...) }

// alone is a step that leaves the tree as it is.
func alone(name string, acks acks, fn func(r *drilling) error) []task {
	return []task{{action: action{name: name}, home: fn, acks: acks}}
}

func fsyncOf(path string) []task {
	s := alone("fsync "+path, ackFile, func(r *drilling) error { return fsync(r.walker(), path) })
	s[0].file = path
	return s
}

var (
	syncAll    = alone("sync of all", ackAll, func(r *drilling) error { return r.th.SyncAll(ctx) })
	publish    = alone("publication", ackAll, func(r *drilling) error { return r.th.Flush(ctx) })
	checkpoint = alone("checkpoint", ackNames, func(r *drilling) error { return r.th.Checkpoint() })
	// reopen ends the home in order; killed gives it up. Both open it again.
	reopen = alone("reopening", ackAll, func(r *drilling) error {
		err := r.th.Close()
		return errors.Join(err, r.open())
	})
	killed = alone("opening after a kill", ackNone, func(r *drilling) error {
		r.th.Abandon()
		return r.open()
	})
)

// way is how the disk fails.
type way struct {
	name string
	err  error
	set  func(sim *disk.Sim, n int64, err error)
	good bool // for good
}

var ways = []way{
	{"EIO once", syscall.EIO, (*disk.Sim).FailAt, false},
	{"EIO for good", syscall.EIO, (*disk.Sim).FailFrom, true},
	{"ENOSPC once", syscall.ENOSPC, (*disk.Sim).FailAt, false},
	{"ENOSPC for good", syscall.ENOSPC, (*disk.Sim).FailFrom, true},
	{"short write", io.ErrShortWrite, (*disk.Sim).FailAt, false},
	{"failed fsync", syscall.EIO, (*disk.Sim).FailSyncAt, false},
}

// prepared is a drill after its setup.
type prepared struct {
	*drill
	base  fs.TestHome
	disk  *disk.Sim
	model func() (walker, error) // a new model after the setup
}

func (d *drill) prepare(t testing.TB) *prepared {
	t.Helper()
	p := &prepared{drill: d}
	p.model = func() (walker, error) { return d.newModel() }
	if d.bare {
		p.base = fs.NewBareHome(t)
		p.disk = p.base.Sim()
		return p
	}
	p.base = fs.NewTestHome(t)
	p.base.Shrink(d.journalBytes, d.segmentBytes)
	r := &drilling{p: p, th: p.base, sim: p.base.Sim()}
	must(t, reopen[0].home(r))
	for _, s := range d.setup {
		if err := s.onHome(r); err != nil {
			t.Fatalf("%s: %s: %v", d.name, s.name, err)
		}
	}
	must(t, r.th.SyncAll(ctx))
	p.base = r.th
	p.disk = p.base.Sim().Crash(func() disk.Keep { return disk.Drop })
	return p
}

// newModel makes a model in which the setup was done. Its spaces are in one of two directories; what is deleted and comes back
// waits in the other.
func (d *drill) newModel() (walker, error) {
	m := newModel()
	for _, dir := range []string{"home", "away"} {
		if err := mkdir(dir).do(m); err != nil {
			return m, err
		}
	}
	a, err := m.find("home")
	if err != nil {
		return m, err
	}
	m.root = a.Ino
	if d.bare {
		return m, nil
	}
	if err := mkdir("Personal").do(m); err != nil {
		return m, err
	}
	for _, s := range d.setup {
		if s.do != nil {
			if err := s.do(m); err != nil {
				return m, fmt.Errorf("%s on the model: %w", s.name, err)
			}
		}
	}
	return m, nil
}

func (s *task) onHome(r *drilling) error {
	if s.home != nil {
		return s.home(r)
	}
	return s.do(r.walker())
}

// drilling is one run of a drill.
type drilling struct {
	p   *prepared
	th  fs.TestHome
	sim *disk.Sim
	way *way

	// From step to step.
	buf  []byte
	held fs.Ino
	stop func() error // ends what runs beside

	model  walker
	states []*tree   // that the operations passed through
	ops    []*action // ops[i] leads to states[i+1]
	some   map[int]bool
	lag    uint64
	did    []*task // what succeeded
	late   []*tree // that may be seen after the next opening, beside the last state
	trace  []string
	acked  int // the last state that is durable
	named  int // the last one that a kill leaves
}

func (r *drilling) walker() walker { return walker{r.th.Home, fs.RootIno} }

// end ends what runs beside the steps.
func (r *drilling) end() error {
	stop := r.stop
	if r.stop = nil; stop == nil {
		return nil
	}
	return stop()
}

// open opens the home. One of whose spaces can't be opened counts as one that does not open: the next attempt has to find all.
func (r *drilling) open() error {
	th, err := r.th.On(r.sim)
	r.th = th
	if err != nil {
		return err
	}
	st, err := th.Status()
	if err != nil {
		return err
	}
	for _, i := range st.Spaces {
		if i.State == "damaged" {
			th.Abandon()
			th.Home = nil
			return fmt.Errorf("space %s is damaged: %s: %w", i.Name, i.Problem, r.way.err)
		}
	}
	return nil
}

// failure is what one run came to.
type failure struct {
	landed  map[string]int64
	failed  int // steps
	refused bool
}

// run does the work with the disk failing at its n-th operation that can fail so; 0: with no fault.
func (p *prepared) run(w *way, n int64, seed uint64) (f failure, err error) {
	watch := time.AfterFunc(3*time.Minute, func() {
		buf := make([]byte, 1<<20)
		panic(fmt.Sprintf("%s, %s at operation %d hangs:\n%s", p.name, w.name, n, buf[:runtime.Stack(buf, true)]))
	})
	defer watch.Stop()
	r := &drilling{p: p, way: w, sim: p.disk.CrashClone(rand.New(rand.NewPCG(seed, uint64(n)))), th: p.base.Closed(), some: map[int]bool{}}
	defer func() {
		r.end()
		if r.th.Home != nil {
			r.th.Abandon()
		}
		if err != nil {
			err = fmt.Errorf("%s, %s at operation %d: %w\nsteps:\n%s", p.name, w.name, n, err, strings.Join(r.trace[max(0, len(r.trace)-12):], "\n"))
		}
	}()
	if r.model, err = p.model(); err != nil {
		return f, err
	}
	first, err := r.model.tree()
	if err != nil {
		return f, err
	}
	r.states = []*tree{first}
	if !p.bare {
		if err := r.open(); err != nil {
			return f, err
		}
	}
	if n > 0 {
		w.set(r.sim, n, w.err)
	}
	for i := range p.work {
		s := &p.work[i]
		if err := s.onHome(r); err != nil {
			if f.failed++; n == 0 {
				return f, fmt.Errorf("%s: %w", s.name, err)
			}
			r.trace = append(r.trace, fmt.Sprintf("%s: %v", s.name, err))
			if err := carriesErrno(err, w); err != nil {
				if f.failed > 1 {
					break // what it builds on is not there
				}
				return f, fmt.Errorf("%s: %w", s.name, err)
			}
			stop, err := r.doubt(s)
			if err != nil {
				return f, fmt.Errorf("after %s had failed: %w", s.name, err)
			}
			if stop || f.failed == 3 {
				break
			}
			continue
		}
		r.trace = append(r.trace, s.name)
		if err := r.done(s); err != nil {
			return f, err
		}
	}
	if err := r.end(); err != nil && n == 0 {
		return f, err
	}
	f.landed = r.sim.LandedOn()
	w.set(r.sim, 0, nil)
	f.refused, err = r.settle(seed)
	return f, err
}

// done notes that a step succeeded.
func (r *drilling) done(s *task) error {
	r.did = append(r.did, s)
	if s.do != nil {
		if err := s.do(r.model); err != nil {
			return fmt.Errorf("%s: the home does it, the model says: %w", s.name, err)
		}
		if err := r.push(s); err != nil {
			return err
		}
	}
	at := len(r.states) - 1
	if !s.data && s.do != nil {
		r.named = at
	}
	if s.acks != ackNone {
		r.acked, r.named = at, at
		for i, o := range r.ops {
			if s.acks == ackAll || s.acks == ackFile && o.file == s.file {
				r.lag &^= 1 << i
			}
		}
	}
	return nil
}

// push notes the state that the model is in.
func (r *drilling) push(s *task) error {
	t, err := r.model.tree()
	if err != nil {
		return err
	}
	r.states, r.ops = append(r.states, t), append(r.ops, &s.action)
	if s.some {
		r.some[len(r.ops)-1] = true
	}
	if s.parts {
		r.lag |= 1 << (len(r.ops) - 1)
	}
	return nil
}

// doubt finds out what a failed step did. stop says that the work can't go on behind it.
func (r *drilling) doubt(s *task) (stop bool, err error) {
	if r.th.Home == nil {
		return true, nil // the opening failed
	}
	if s.do == nil {
		return false, nil
	}
	r.way.set(r.sim, 0, nil)
	got, err := r.walker().tree()
	if r.way.good {
		r.way.set(r.sim, 1, r.way.err)
	}
	if err != nil {
		return false, err
	}
	before := r.states[len(r.states)-1]
	if got.equal(before) {
		if s.late {
			err = r.mayBeLate(s)
		}
		return false, err
	}
	if err := s.do(r.model); err != nil {
		return false, err
	}
	r.did = append(r.did, s)
	if err := r.push(s); err != nil {
		return false, err
	}
	last := len(r.states) - 1
	after := r.states[last]
	switch {
	case got.equal(after):
		return false, nil
	case s.some && between(before, after, got):
		r.states[last] = got
		return true, nil
	case s.parts && got.names == after.names && inPart(before.files[s.file], after.files[s.file], got.files[s.file]):
		r.states[last] = got
		return true, nil
	}
	return false, fmt.Errorf("the tree is neither that of before nor that of after:\n%s\nor:\n%s\ncontent of %q", diffLines(got.names, before.names),
		diffLines(got.names, after.names), got.difference(after))
}

// mayBeLate notes the state that a step would have led to which failed, on a model of its own.
func (r *drilling) mayBeLate(s *task) error {
	m, err := r.p.model()
	if err != nil {
		return err
	}
	for _, d := range append(slices.Clone(r.did), s) {
		if d.do == nil {
			continue
		}
		if d.do(m) != nil {
			return nil // a step before it, which makes room for it, failed too
		}
	}
	t, err := m.tree()
	r.late = append(r.late, t)
	return err
}

// between reports whether each line and content of a tree is one of two others'.
func between(a, b, got *tree) bool {
	known := map[string]bool{}
	for _, t := range []*tree{a, b} {
		for line := range strings.SplitSeq(t.names, "\n") {
			known[line] = true
		}
	}
	for line := range strings.SplitSeq(got.names, "\n") {
		// The number of links of a directory goes with what is in it.
		if !known[line] && !strings.Contains(line, " 4") {
			return false
		}
	}
	for name, c := range got.files {
		x, inA := a.files[name]
		y, inB := b.files[name]
		if !(inA && string(x) == string(c)) && !(inB && string(y) == string(c)) {
			return false
		}
	}
	return true
}

// carriesErrno is nil where an error matches what the disk said, or says that nothing can be written any more.
func carriesErrno(err error, w *way) error {
	for _, ok := range []error{w.err, syscall.EIO, syscall.EROFS} {
		if errors.Is(err, ok) {
			return nil
		}
	}
	return fmt.Errorf("the error has no errno: %w", err)
}

// settle checks, with the disk well again, the home as it runs and what a kill and power losses leave of it. refused says that
// the home takes no more writes.
func (r *drilling) settle(seed uint64) (refused bool, err error) {
	if r.th.Home == nil {
		if err := r.open(); err != nil {
			return false, fmt.Errorf("it does not open when the disk is well again: %w", err)
		}
		r.acked = min(r.acked, len(r.states)-1)
	}
	got, err := r.walker().tree()
	if err != nil {
		return false, err
	}
	last := len(r.states) - 1
	if r.match(got, r.named, last) < 0 {
		return false, fmt.Errorf("the home shows what it should not:\n%s\ncontent of %q", diffLines(got.names, r.states[last].names),
			got.difference(r.states[last]))
	}
	type image struct {
		how string
		sim *disk.Sim
		lo  int
	}
	rnd := rand.New(rand.NewPCG(seed, 77))
	images := []image{
		{"a kill", r.sim.Fork(), r.named},
		{"a power loss that took all it could", r.sim.Crash(func() disk.Keep { return disk.Drop }), r.acked},
		{"a power loss", r.sim.CrashClone(rnd), r.acked},
	}
	if refused, err = r.works(); err != nil {
		return refused, err
	}
	for _, i := range images {
		if err := r.found(i.sim, i.lo); err != nil {
			return refused, fmt.Errorf("after %s: %w", i.how, err)
		}
	}
	return refused, nil
}

// works uses the home where the disk is well again. One that lost more than it could make good stays read-only.
func (r *drilling) works() (refused bool, err error) {
	st, err := r.th.Status()
	if err != nil {
		return false, err
	}
	w := r.walker()
	if r.p.bare {
		return st.ReadOnly != "", nil
	}
	a := create("Personal/after")
	if st.ReadOnly != "" {
		if err := a.do(w); !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EIO) {
			return true, fmt.Errorf("the home is read-only, and yet: %w", err)
		}
		return true, nil
	}
	for try := 0; ; try++ {
		if err = a.do(w); err == nil || try == 3 {
			break
		}
	}
	if err == nil {
		err = fsync(w, a.file)
	}
	if err == nil {
		err = r.th.Flush(ctx)
	}
	if st, e := r.th.Status(); err != nil && e == nil && st.ReadOnly != "" && errors.Is(err, syscall.EIO) {
		return true, nil // what the journal could not write was about to be written
	}
	if err == nil {
		err = sound(r.th)
	}
	if err != nil {
		return false, fmt.Errorf("the disk is well again, and yet: %w", err)
	}
	return false, unlink(a.file).do(w)
}

// match finds the state between lo and hi that a tree is; -1: none.
func (r *drilling) match(got *tree, lo, hi int) int {
	if slices.ContainsFunc(r.late, got.equal) {
		return hi
	}
	if i := matchState(r.states, r.ops, got, lo, hi, r.lag); i >= 0 {
		return i
	}
	for i := range r.some {
		if i >= lo && i < hi && between(r.states[i], r.states[i+1], got) {
			return i
		}
	}
	return -1
}

// found opens a disk as a crash left it.
func (r *drilling) found(sim *disk.Sim, lo int) error {
	th, err := r.p.base.On(sim)
	if err != nil {
		return err
	}
	defer th.Abandon()
	got, err := walker{th.Home, fs.RootIno}.tree()
	if err != nil {
		return err
	}
	hi := len(r.states) - 1
	if r.match(got, lo, hi) < 0 {
		return fmt.Errorf("the tree is none of those from %d to %d:\n%s\ncontent of %q differs from the last", lo, hi,
			diffLines(got.names, r.states[hi].names), got.difference(r.states[hi]))
	}
	if r.p.after != nil {
		if err := r.p.after(th); err != nil {
			return err
		}
	}
	// What was acknowledged before a kill survives the next loss of power.
	next, err := r.p.base.On(sim.Crash(func() disk.Keep { return disk.Drop }))
	if err != nil {
		return fmt.Errorf("then a power loss: %w", err)
	}
	defer next.Abandon()
	again, err := walker{next.Home, fs.RootIno}.tree()
	if err != nil {
		return fmt.Errorf("then a power loss: %w", err)
	}
	if r.match(again, r.acked, hi) < 0 {
		return fmt.Errorf("then a power loss: the tree is none of those from %d to %d:\n%s\ncontent of %q differs from the last", r.acked, hi,
			diffLines(again.names, r.states[hi].names), again.difference(r.states[hi]))
	}
	if err := sound(next); err != nil {
		return fmt.Errorf("then a power loss: %w", err)
	}
	return sound(th)
}

// TestDiskFailsInDrills fails the n-th operation of the disk in each drill, for every n until the work succeeds, or for a few.
func TestDiskFailsInDrills(t *testing.T) {
	seed := *modelSeed
	if *faultSample > 0 && seed == 1 {
		seed = uint64(time.Now().UnixNano()) % 1e6 // other operations each time
	}
	t.Logf("-seed %d", seed)
	if len(drills) < 30 {
		t.Fatalf("only %d drills", len(drills))
	}
	total := map[string]int64{}
	var mu sync.Mutex
	runs, readOnly := 0, 0
	for i := range drills {
		d := &drills[i]
		t.Run(d.name, func(t *testing.T) {
			if testing.Short() && i%4 != int(seed%4) {
				t.Skip("another time")
			}
			p := d.prepare(t)
			if _, err := p.run(&ways[0], 0, seed); err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			landed := int64(0)
			for k := range ways {
				w := &ways[k]
				list, err := p.operations(w, seed+uint64(k))
				must(t, err)
				err = each(len(list), func(i int) error {
					f, err := p.run(w, list[i], seed)
					mu.Lock()
					defer mu.Unlock()
					runs++
					if f.refused {
						readOnly++
					}
					for kind, n := range f.landed {
						total[w.name+", "+kind] += n
						landed += n
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
			if !t.Failed() && landed == 0 {
				t.Fatal("no fault landed: the drill proves nothing")
			}
		})
	}
	sum := int64(0)
	for _, what := range slices.Sorted(maps.Keys(total)) {
		t.Logf("%8d %s", total[what], what)
		sum += total[what]
	}
	t.Logf("%d faults landed in %d runs of %d drills; %d homes were read-only until they were opened again", sum, runs, len(drills), readOnly)
}

// operations gives the numbers of the operations that are to fail.
func (p *prepared) operations(w *way, seed uint64) ([]int64, error) {
	n, err := p.count(w)
	if err != nil {
		return nil, err
	}
	stride, first := int64(1), int64(1)
	if k := int64(*faultSample); k > 0 && n > k {
		stride = n / k
		first = 1 + int64(rand.New(rand.NewPCG(seed, 5)).IntN(int(stride)))
	}
	var list []int64
	for i := first; i <= n; i += stride {
		list = append(list, i)
	}
	return list, nil
}

// count counts the operations of a drill that can fail in a way.
func (p *prepared) count(w *way) (int64, error) {
	const never = 1 << 40
	r := &drilling{p: p, way: w, sim: p.disk.Crash(func() disk.Keep { return disk.Drop }), th: p.base.Closed()}
	defer func() {
		r.end()
		if r.th.Home != nil {
			r.th.Abandon()
		}
	}()
	if !p.bare {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	w.set(r.sim, never, w.err)
	for i := range p.work {
		if err := p.work[i].onHome(r); err != nil {
			return 0, fmt.Errorf("%s: %w", p.work[i].name, err)
		}
	}
	return never - r.sim.Left(), nil
}
