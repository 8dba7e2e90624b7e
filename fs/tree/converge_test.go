package tree

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
)

var (
	schedules = flag.Int("schedules", 2000, "how many schedules TestConvergence runs")
	firstSeed = flag.Uint64("seed", 1, "the first seed of TestConvergence")
)

// schedule runs one simulation: replicas act, batches travel, some twice, links are cut and healed; in the end everyone has
// everything.
type schedule struct {
	t        testing.TB
	choose   chooser
	replicas []*replica
	inbox    [][]*simBatch // on the way to each replica
	script   *script
	apart    bool // nothing is delivered before all is done
	dups     int
	cuts     int
}

func newSchedule(t testing.TB, choose chooser, n int) *schedule {
	s := &schedule{t: t, choose: choose, script: &script{choose: choose, time: 1_790_000_000e9}, inbox: make([][]*simBatch, n)}
	names := simDevices(n)
	for i := range n {
		s.replicas = append(s.replicas, newReplica(t, i, names))
	}
	return s
}

// send puts what a replica published on the way to all others.
func (s *schedule) send(from int) {
	r := s.replicas[from]
	for _, b := range r.out {
		for i := range s.inbox {
			if i != from {
				s.inbox[i] = append(s.inbox[i], b)
			}
		}
	}
	r.out = nil
}

// deliver takes one batch of a replica's inbox in, any; now and then it stays there, to come again.
func (s *schedule) deliver(to int) {
	box := s.inbox[to]
	i := s.choose(len(box))
	b := box[i]
	if s.choose(8) != 0 {
		s.inbox[to] = slices.Delete(box, i, i+1)
	} else {
		s.dups++
	}
	s.replicas[to].receive(b)
}

func (s *schedule) run(ops int) {
	s.t.Helper()
	cut := make([]bool, len(s.replicas))
	for done := 0; done < ops; {
		i := s.choose(len(s.replicas))
		switch s.choose(8) {
		case 0:
			if cut[i] = !cut[i]; cut[i] {
				s.cuts++
			}
		case 1, 2, 3, 4:
			s.script.act(s.replicas[i])
			s.send(i)
			done++
		default:
			if !cut[i] && !s.apart && len(s.inbox[i]) > 0 {
				s.deliver(i)
			}
		}
	}
	for i := range s.replicas {
		for len(s.inbox[i]) > 0 {
			s.deliver(i)
		}
		if len(s.replicas[i].waiting) > 0 {
			s.t.Fatal("batches wait for ever")
		}
	}
}

// check holds what all replicas see against one another and against the definition.
func (s *schedule) check(orders int) {
	s.t.Helper()
	first := s.replicas[0]
	entries := walkTree(s.t, first.tree)
	seen, hashes := dump(entries), stateHashes(s.t, first.store)
	changes := first.changes()
	naive := resolveNaive(simSpace, changes, func(k dag.PublicKey) string { return first.store.names[k] })
	if want := dump(naive.walk()); seen != want {
		s.t.Fatalf("the tree is not as defined:\n%swant\n%s", seen, want)
	}
	for i, r := range s.replicas[1:] {
		if got := dump(walkTree(s.t, r.tree)); got != seen {
			s.t.Fatalf("replica %d sees\n%sand replica 0\n%s", i+1, got, seen)
		}
		if got := stateHashes(s.t, r.store); got != hashes {
			s.t.Fatalf("replica %d has\n%sand replica 0\n%s", i+1, got, hashes)
		}
	}
	s.checkConflicts(entries)
	checkKept(s.t, changes, entries, naive)
	checkReachable(s.t, naive, entries)
	for range orders {
		s.rebuild(seen, hashes)
	}
	s.retract(seen, hashes)
}

// rebuild applies all batches in another order, in pieces of any size, and compares.
func (s *schedule) rebuild(seen, hashes string) {
	s.t.Helper()
	first := s.replicas[0]
	r := newReplica(s.t, 0, first.store.names)
	left := slices.Clone(first.order)
	have := map[dag.ID]bool{}
	for len(left) > 0 {
		var piece []Change
		for range 1 + s.choose(4) {
			var ready []int
			for i, b := range left {
				if !slices.ContainsFunc(b.deps, func(d dag.ID) bool { return !have[d] }) {
					ready = append(ready, i)
				}
			}
			if len(ready) == 0 {
				break
			}
			i := ready[s.choose(len(ready))]
			b := left[i]
			left = slices.Delete(left, i, i+1)
			have[b.id] = true
			for _, c := range b.decode(s.t) {
				r.store.AddChange(c.Object, c.At, c.Payload)
				piece = append(piece, c)
			}
		}
		if _, err := r.tree.Apply(piece...); err != nil {
			s.t.Fatal(err)
		}
	}
	if got := dump(walkTree(s.t, r.tree)); got != seen {
		s.t.Fatalf("in another order the tree is\n%sinstead of\n%s", got, seen)
	}
	if got := stateHashes(s.t, r.store); got != hashes {
		s.t.Fatalf("in another order the states are\n%sinstead of\n%s", got, hashes)
	}
}

// retract takes some batches out of a replica with all that build on them, compares with the definition, and puts them back.
func (s *schedule) retract(seen, hashes string) {
	s.t.Helper()
	r := s.replicas[len(s.replicas)-1]
	if len(r.order) == 0 {
		return
	}
	out := map[dag.ID]bool{r.order[s.choose(len(r.order))].id: true}
	for grown := true; grown; {
		grown = false
		for _, b := range r.order {
			if !out[b.id] && slices.ContainsFunc(b.deps, func(d dag.ID) bool { return out[d] }) {
				out[b.id], grown = true, true
			}
		}
	}
	var kept, gone []Change
	for _, b := range r.order {
		if out[b.id] {
			gone = append(gone, b.decode(s.t)...)
		} else {
			kept = append(kept, b.decode(s.t)...)
		}
	}
	for _, c := range gone {
		r.store.RemoveChange(c.Object, c.At)
	}
	before := r.see()
	d, err := r.tree.Retract(gone...)
	if err != nil {
		s.t.Fatal(err)
	}
	r.checkDelta(d, before, r.see())
	naive := resolveNaive(simSpace, kept, func(k dag.PublicKey) string { return r.store.names[k] })
	if got, want := dump(walkTree(s.t, r.tree)), dump(naive.walk()); got != want {
		s.t.Fatalf("after a retraction the tree is\n%swant\n%s", got, want)
	}
	for _, c := range gone {
		r.store.AddChange(c.Object, c.At, c.Payload)
	}
	if _, err := r.tree.Apply(gone...); err != nil {
		s.t.Fatal(err)
	}
	if got := dump(walkTree(s.t, r.tree)) + stateHashes(s.t, r.store); got != seen+hashes {
		s.t.Fatalf("what was retracted and came back gives\n%sinstead of\n%s", got, seen+hashes)
	}
}

// checkConflicts compares the list of conflicts with what a walk finds.
func (s *schedule) checkConflicts(entries []nEntry) {
	s.t.Helper()
	tr := s.replicas[0].tree
	var got, want []string
	if err := tr.Conflicts(func(dir dag.ID, n Node) bool {
		names, ok, err := tr.Path(dir)
		if err != nil || !ok {
			s.t.Fatalf("a conflict outside of the tree: %v", err)
		}
		path := "/" + n.Name
		if len(names) > 0 {
			path = "/" + strings.Join(names, "/") + path
		}
		got = append(got, path)
		return true
	}); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if e.conflict {
			want = append(want, e.path)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.t.Fatalf("conflicts %q, want %q", got, want)
	}
}

// checkKept looks for every content that was ever written: it is shown somewhere, or someone who saw it replaced it or removed
// its file.
func checkKept(t testing.TB, changes []Change, entries []nEntry, n *naive) {
	t.Helper()
	replaced, removed := map[Ref]bool{}, map[Ref]map[Ref]bool{}
	for _, c := range changes {
		for i := range c.Payload.Ops {
			o := &c.Payload.Ops[i]
			switch o.Kind {
			case OpContent, OpDrop:
				for _, r := range o.Over {
					replaced[r] = true
				}
			case OpUnlink:
				if removed[o.Link] == nil {
					removed[o.Link] = map[Ref]bool{}
				}
				for _, r := range o.Contents {
					removed[o.Link][r] = true
				}
			}
		}
	}
	shown, behind := map[string]bool{}, map[Ref]bool{}
	for _, e := range entries {
		shown[e.content] = true
		for _, r := range e.behind {
			behind[r] = true
		}
	}
	for _, o := range n.objects {
		for _, op := range o.ops {
			if op.Kind != OpContent || replaced[op.ref] || behind[op.ref] {
				continue
			}
			i := slices.IndexFunc(o.candidates, func(v *nValue) bool { return v.op.ref == op.ref })
			if i >= 0 && shown[o.candidates[i].show()] {
				continue
			}
			seen := len(o.links) > 0
			for _, l := range o.links {
				seen = seen && removed[l.id][op.ref]
			}
			if !seen {
				t.Fatalf("the content %v of %x is lost", op.Content, o.id[:4])
			}
		}
	}
}

// checkReachable looks for orphans: what is live is below the root, and the places of directories make no cycle.
func checkReachable(t testing.TB, n *naive, entries []nEntry) {
	t.Helper()
	for _, o := range n.objects {
		if o.kind != KindDir || o.id == n.root || !n.liveDir(o) {
			continue
		}
		steps := 0
		for at := o; at.id != n.root; at = n.objects[at.place.parent] {
			if steps++; steps > len(n.objects) || at.place == nil || !n.liveDir(at) {
				t.Fatalf("directory %x is not below the root", o.id[:4])
			}
		}
	}
	shown := map[dag.ID]bool{}
	for _, e := range entries {
		shown[e.object] = true
	}
	for _, o := range n.objects {
		if o.kind != KindDir && o.kind != KindFile && len(o.live()) > 0 && !shown[o.id] {
			// A symlink may hide behind an equal one, but then that has the same target.
			found := false
			for _, p := range n.objects {
				found = found || p.kind == o.kind && shown[p.id] && p.target == o.target
			}
			if !found {
				t.Fatalf("object %x is lost", o.id[:4])
			}
		}
	}
}

func seeded(seed uint64) chooser {
	rnd := rand.New(rand.NewPCG(seed, 17))
	return func(n int) int { return rnd.IntN(n) }
}

// profiles are what the replicas of a schedule do most; nil is everything alike.
var profiles = [][]int{
	nil,
	{2, 3, 7, 8, 9, 12, 17},             // directories that are moved and removed
	{2, 7, 8, 9, 7, 8, 9, 17},           // moved only
	{0, 4, 5, 6, 4, 5, 6, 10, 16, 15},   // files that are written
	{0, 1, 7, 8, 9, 10, 13, 17, 14, 4},  // names
	{2, 3, 0, 1, 7, 8, 12, 12, 4, 5, 6}, // work in directories that go
	{0, 13, 13, 10, 11, 7, 4, 17},       // few files with many names
	{0, 4, 5, 6, 16, 10, 7, 9},          // one or two files and what rivals them
}

// together makes directories in one another that all replicas hold before they part.
func (s *schedule) together(n int) {
	r := s.replicas[0]
	for i := range n {
		dirs := []dag.ID{r.tree.Root()}
		for _, e := range r.spots() {
			dirs = append(dirs, e.Object)
		}
		p, err := r.tree.PlanCreate(dirs[s.choose(len(dirs))], simNames[i], KindDir)
		if err != nil {
			s.t.Fatal(err)
		}
		r.publish(p, s.script.time)
	}
	s.send(0)
	for i := range s.replicas {
		for len(s.inbox[i]) > 0 {
			s.deliver(i)
		}
	}
}

// runSeed runs the schedule of a seed, and returns what happened in it.
func runSeed(t testing.TB, seed uint64) (s *schedule, conflicts int) {
	choose := seeded(seed)
	f := &failing{TB: t, seed: seed}
	s = newSchedule(f, choose, 2+choose(4))
	f.script = s.script
	s.script.kinds = profiles[int(seed)%len(profiles)]
	if seed%8 >= 6 {
		s.script.names = simNames[:2]
	}
	for _, r := range s.replicas {
		r.watch = seed%4 == 0
	}
	if seed%3 == 0 || s.script.kinds != nil && seed%16 == 2 {
		s.together(1 + choose(4))
		s.apart = choose(3) == 0 || seed%16 == 2
	}
	s.run(4 + choose(24))
	orders := 1
	if seed%64 == 0 {
		orders = 100
	}
	s.check(orders)
	for _, e := range walkTree(f, s.replicas[0].tree) {
		if e.conflict {
			conflicts++
		}
	}
	return s, conflicts
}

// failing says which seed failed, and what was done in its schedule.
type failing struct {
	testing.TB
	seed   uint64
	script *script
}

func (f failing) Fatalf(format string, args ...any) {
	f.TB.Helper()
	did := ""
	if f.script != nil {
		did = "\n" + strings.Join(f.script.log, "\n")
	}
	f.TB.Fatalf("seed %d: %s%s", f.seed, fmt.Sprintf(format, args...), did)
}

func (f failing) Fatal(args ...any) { f.TB.Helper(); f.Fatalf("%s", fmt.Sprint(args...)) }

// happened counts what the schedules came to.
type happened struct{ merges, conflicts, skipped, dups, cuts, removed int }

func (h *happened) add(s *schedule, conflicts int) {
	h.conflicts += conflicts
	h.dups += s.dups
	h.cuts += s.cuts
	r := s.replicas[0]
	if r.merges {
		h.merges++
	}
	for _, m := range r.store.moves {
		if m.Skipped {
			h.skipped++
		}
	}
	for _, o := range r.store.objects {
		if o.State.Kind == KindDir && len(o.State.Links) > 0 && o.State.Links[0].Removed && o.Claimed != nil {
			h.removed++
		}
	}
}

// TestConvergence runs many schedules, on all cores:
// go test ./fs/tree -run TestConvergence -schedules 100000 -timeout 1h
func TestConvergence(t *testing.T) {
	workers := uint64(runtime.GOMAXPROCS(0))
	counts := make([]happened, workers)
	t.Run("schedules", func(t *testing.T) {
		for w := range workers {
			t.Run(fmt.Sprint(w), func(t *testing.T) {
				t.Parallel()
				for seed := *firstSeed + w; seed < *firstSeed+uint64(*schedules); seed += workers {
					s, conflicts := runSeed(t, seed)
					counts[w].add(s, conflicts)
				}
			})
		}
	})
	var h happened
	for _, c := range counts {
		h = happened{
			h.merges + c.merges, h.conflicts + c.conflicts, h.skipped + c.skipped, h.dups + c.dups, h.cuts + c.cuts, h.removed + c.removed,
		}
	}
	t.Logf("%d schedules from seed %d: %d conflict copies, %d with merged directories, %d skipped moves, %d removed directories that live, %d deliveries twice, %d cuts",
		*schedules, *firstSeed, h.conflicts, h.merges, h.skipped, h.removed, h.dups, h.cuts)
	if *schedules >= 1000 && (h.conflicts == 0 || h.merges == 0 || h.skipped == 0 || h.removed == 0 || h.dups == 0 || h.cuts == 0) {
		t.Error("something that the schedules are for did not happen")
	}
}

// TestConvergenceShrinking runs schedules from rapid, which shrinks those that fail.
func TestConvergenceShrinking(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		s := newSchedule(rapidTB{t, rt}, choose, 2+choose(2))
		s.run(choose(10))
		s.check(1)
	})
}

// rapidTB lets helpers that take a testing.TB fail a rapid test.
type rapidTB struct {
	testing.TB
	rt *rapid.T
}

func (r rapidTB) Helper()                           { r.rt.Helper() }
func (r rapidTB) Fatalf(format string, args ...any) { r.rt.Helper(); r.rt.Fatalf(format, args...) }
func (r rapidTB) Fatal(args ...any)                 { r.rt.Helper(); r.rt.Fatal(args...) }
