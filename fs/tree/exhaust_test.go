package tree

import (
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// dirStep is one directory operation by names of directories, which all replicas know by their first name.
type dirStep struct {
	what    string // move, rename, rmdir, mkdir
	dir, to int    // of the directories that are there at first; to == len: the root
}

// dirSteps lists all operations on n directories: each moved into each other and the root, renamed to a name that collides,
// removed, and a new one made in each.
func dirSteps(n int) []dirStep {
	var out []dirStep
	for d := range n {
		for to := range n + 1 {
			if to != d {
				out = append(out, dirStep{what: "move", dir: d, to: to})
			}
		}
		out = append(out, dirStep{what: "rename", dir: d}, dirStep{what: "rmdir", dir: d})
	}
	for to := range n + 1 {
		out = append(out, dirStep{what: "mkdir", to: to})
	}
	return out
}

// do performs a step on a replica as far as a filesystem would let it.
func (s dirStep) do(r *replica, dirs []dag.ID) {
	r.t.Helper()
	root := r.tree.Root()
	parent := func(id dag.ID) (dag.ID, string, bool) {
		o := r.store.objects[id]
		if o == nil || o.Claimed == nil {
			return dag.ID{}, "", false
		}
		return o.Claimed.Parent, o.Claimed.Name, true
	}
	to := root
	if s.to < len(dirs) {
		to = dirs[s.to]
		if _, _, ok := parent(to); !ok {
			return
		}
	}
	var p *Plan
	var err error
	if s.what == "mkdir" {
		p, err = r.tree.PlanCreate(to, "new", KindDir)
	} else {
		in, name, ok := parent(dirs[s.dir])
		if !ok {
			return
		}
		switch s.what {
		case "rename":
			p, err = r.tree.PlanRename(in, name, in, "x")
		case "rmdir":
			below, err2 := r.tree.List(dirs[s.dir])
			if err2 != nil || len(below) > 0 {
				return
			}
			p, err = r.tree.PlanRemove(in, name)
		case "move":
			from, _, _ := r.tree.Path(dirs[s.dir])
			path, _, _ := r.tree.Path(to)
			if within(path, from) {
				return
			}
			if n, ok, _ := r.tree.Lookup(to, name); ok {
				below, err2 := r.tree.List(n.Object)
				if err2 != nil || len(below) > 0 || n.Object == dirs[s.dir] {
					return
				}
			}
			p, err = r.tree.PlanRename(in, name, to, name)
		}
	}
	if err != nil {
		if err == ErrExist {
			return
		}
		r.t.Fatalf("%+v: %v", s, err)
	}
	r.publish(p, 1)
}

func within(path, dir []string) bool {
	if len(path) < len(dir) {
		return false
	}
	for i := range dir {
		if path[i] != dir[i] {
			return false
		}
	}
	return true
}

// dirWorld is a tree of directories that all replicas hold, with a file in the deepest one.
func dirWorld(t testing.TB, shape []int, replicas int) ([]*replica, []dag.ID) {
	names := simDevices(replicas)
	var rs []*replica
	for i := range replicas {
		rs = append(rs, newReplica(t, i, names))
	}
	var dirs []dag.ID
	for i, up := range shape {
		parent := rs[0].tree.Root()
		if up >= 0 {
			parent = dirs[up]
		}
		p, err := rs[0].tree.PlanCreate(parent, fmt.Sprintf("d%d", i), KindDir)
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, rs[0].publish(p, 1).changes[0].object)
	}
	p, err := rs[0].tree.PlanCreate(dirs[len(dirs)-1], "file", KindFile)
	if err != nil {
		t.Fatal(err)
	}
	rs[0].publish(p, 1)
	for _, b := range rs[0].out {
		for _, r := range rs[1:] {
			r.receive(b)
		}
	}
	rs[0].out = nil
	return rs, dirs
}

// quiesce gives everyone everything, to each replica in another order, and holds the trees against the definition.
func quiesce(t testing.TB, rs []*replica) {
	t.Helper()
	out := make([][]*simBatch, len(rs))
	for i, r := range rs {
		out[i], r.out = r.out, nil
	}
	for i, r := range rs {
		for k := 1; k < len(rs); k++ {
			from := (i + k) % len(rs)
			if i%2 == 1 {
				from = (i + len(rs) - k) % len(rs)
			}
			for _, b := range out[from] {
				r.receive(b)
			}
		}
	}
	naive := resolveNaive(simSpace, rs[0].changes(), func(k dag.PublicKey) string { return rs[0].store.names[k] })
	entries := naive.walk()
	want := dump(entries)
	for i, r := range rs {
		if got := dump(walkTree(t, r.tree)); got != want {
			t.Fatalf("replica %d sees\n%swant\n%s", i, got, want)
		}
	}
	checkReachable(t, naive, entries)
	// No subtree is lost: the file is there, once, since nobody removed it.
	files := 0
	for _, e := range entries {
		if len(e.path) >= 5 && e.path[len(e.path)-5:] == "/file" {
			files++
		}
	}
	if files != 1 {
		t.Fatalf("the file is there %d times:\n%s", files, want)
	}
}

// TestDirectoriesExhaustively does every operation on every of three replicas at once (row R11 of the reliability figures), in
// two shapes of four directories; and three operations on each of three replicas, sampled.
// More of the latter: -schedules.
func TestDirectoriesExhaustively(t *testing.T) {
	shapes := [][]int{{-1, 0, -1, 2}, {-1, 0, 1, -1}}
	if testing.Short() {
		shapes = shapes[:1]
	}
	for _, shape := range shapes {
		steps := dirSteps(len(shape))
		n := 0
		stride := max(1, 4000/max(1, *schedules)) // all of them from 4,000 schedules on
		for c := 0; c < len(steps)*len(steps)*len(steps); c += stride {
			a, b, d := c%len(steps), c/len(steps)%len(steps), c/len(steps)/len(steps)
			if a > b || b > d { // replicas differ in their names alone
				continue
			}
			f := failingStep{t, fmt.Sprintf("%v: %+v, %+v, %+v", shape, steps[a], steps[b], steps[d])}
			rs, dirs := dirWorld(f, shape, 3)
			for i, s := range []int{a, b, d} {
				steps[s].do(rs[i], dirs)
			}
			quiesce(f, rs)
			n++
		}
		t.Logf("%d combinations of %d operations in shape %v", n, len(steps), shape)
	}
	for seed := *firstSeed; seed < *firstSeed+uint64(*schedules); seed++ {
		choose := seeded(seed)
		f := failing{TB: t, seed: seed}
		shape := shapes[choose(len(shapes))]
		steps := dirSteps(len(shape))
		rs, dirs := dirWorld(f, shape, 3)
		for _, r := range rs {
			for range 3 {
				steps[choose(len(steps))].do(r, dirs)
			}
		}
		quiesce(f, rs)
	}
}

type failingStep struct {
	testing.TB
	what string
}

func (f failingStep) Fatalf(format string, args ...any) {
	f.TB.Helper()
	f.TB.Fatalf("%s: %s", f.what, fmt.Sprintf(format, args...))
}

func (f failingStep) Fatal(args ...any) { f.TB.Helper(); f.Fatalf("%s", fmt.Sprint(args...)) }
