package tree

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// This file simulates devices that end conflicts as soon as they see them, as TREE.md says, and people who do something to the copies.

// ends publishes the ends of all conflicts that a replica sees, and reports whether there were any.
func (r *replica) ends(time int64) bool {
	r.t.Helper()
	for round := range 32 {
		all, err := r.tree.PlanEnds(1000, func(dag.ID) (bool, error) { return false, nil })
		if err != nil {
			r.t.Fatal(err)
		}
		if len(all.Drafts) == 0 {
			return round > 0
		}
		r.publish(all, time)
	}
	r.t.Fatal("the ends of conflicts have none")
	return false
}

// movedByPeople counts the moves of an object that were not to end a conflict.
func (r *replica) movedByPeople(id dag.ID) (n int) {
	for _, c := range r.store.history[id] {
		isEnd := slices.ContainsFunc(c.p.Ops, func(o Op) bool { return o.Kind == OpXattr && o.Name == ConflictXattr })
		for _, o := range c.p.Ops {
			if o.Kind == OpMove && !isEnd {
				n++
			}
		}
	}
	return n
}

// sets is what a store holds of twins, to compare.
func sets(m *MemStore) string {
	var out []string
	for k := range m.marks {
		if k.set == SetDealt {
			out = append(out, fmt.Sprintf("%x %q", k.dir[:4], k.name))
		}
	}
	for dir, names := range m.claims {
		for _, c := range names[""] {
			out = append(out, fmt.Sprintf("%x %x %v %v", dir[:4], c.Object[:4], c.Kind, c.Split))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

var copyNames = regexp.MustCompile(`[^/]*\(conflict [^/]*`)

// TestTwins: devices end conflicts at once, and people remove, rename and change the copies. In the end all show the same, nothing that was
// written is lost, and no copy is at its name of which all that people did was to remove or move it.
func TestTwins(t *testing.T) {
	dealt, twice := 0, 0
	for seed := range uint64(max(*schedules/8, 1)) {
		choose := seeded(*firstSeed + seed)
		f := &failing{TB: t, seed: *firstSeed + seed}
		s := newSchedule(f, choose, 2+choose(3))
		f.script = s.script
		s.script.names = simNames[:1+choose(2)]
		s.together(choose(2))
		for i := range choose(3) { // files that all write to
			s.script.kinds = []int{0}
			s.script.act(s.replicas[0])
			s.send(0)
			if i > 0 {
				continue
			}
			for k := range s.replicas {
				for len(s.inbox[k]) > 0 {
					s.deliver(k)
				}
			}
		}
		s.script.kinds = [][]int{{4, 5, 6}, {0, 1, 10, 4}, {0, 1, 4, 5, 14, 13, 10, 3, 17}, {0, 4, 7, 12, 2, 16}}[f.seed%4]
		gone := map[string]int{}  // names of copies that were removed or moved, and how often moved
		kept := map[string]bool{} // and of those to which anything else was done
		for range 8 + choose(32) {
			i := choose(len(s.replicas))
			r := s.replicas[i]
			if choose(2) == 0 { // what has come is taken in, and conflicts end
				for len(s.inbox[i]) > 0 && choose(8) != 0 {
					s.deliver(i)
				}
				r.ends(s.script.time)
				s.send(i)
				continue
			}
			r.ends(s.script.time)
			var copies []spot
			for _, e := range r.spots() {
				// Rivals in two folders that show as one are not ended: what is done to their copies is no deal.
				if strings.Contains(e.Name, "(conflict ") && e.Kind != KindDir && !e.Conflict {
					copies = append(copies, e)
				}
			}
			if len(copies) > 0 && choose(4) != 0 {
				e := copies[choose(len(copies))]
				var p *Plan
				var err error
				to := simNames[choose(3)]
				if choose(2) == 0 {
					to = "nowhere"
					p, err = r.tree.PlanRemove(e.dir, e.Name)
				} else {
					p, err = r.tree.PlanRename(e.dir, e.Name, r.tree.Root(), to)
				}
				if err != nil {
					f.Fatal(err)
				}
				s.script.log = append(s.script.log, fmt.Sprintf("device %d: away with %s, to %s", i, e.path, to))
				if gone[e.Name] += 0; to != "nowhere" {
					gone[e.Name]++
				}
				dealt++
				r.publish(p, s.script.time)
			} else {
				n := len(s.script.log)
				s.script.act(r)
				for _, l := range s.script.log[n:] {
					for _, name := range copyNames.FindAllString(l, -1) {
						kept[name] = true
					}
				}
			}
			s.send(i)
		}
		for rest := false; !rest; {
			for i := range s.replicas {
				for len(s.inbox[i]) > 0 {
					s.deliver(i)
				}
			}
			rest = true
			for i, r := range s.replicas {
				if r.ends(s.script.time) {
					rest = false
					s.send(i)
				}
			}
		}
		for _, r := range s.replicas[1:] {
			if got, want := sets(r.store), sets(s.replicas[0].store); got != want {
				f.Fatalf("one replica holds of twins\n%s\nanother\n%s", got, want)
			}
		}
		s.check(1)
		for i, r := range s.replicas {
			for _, e := range r.spots() {
				st, err := r.tree.State(e.Object)
				if err != nil {
					f.Fatal(err)
				}
				// What was written to it elsewhere, by whatever name, brings it back, and so may where others have put it.
				if slices.ContainsFunc(st.values, func(v *value) bool { return v.Ref.Change != e.Object }) || r.movedByPeople(e.Object) > min(gone[e.Name], 1) {
					continue
				}
				if _, is := gone[e.Name]; is && !slices.ContainsFunc(slices.Collect(maps.Keys(kept)), func(n string) bool { return strings.Contains(n, e.Name) }) {
					f.Fatalf("replica %d shows %s again", i, e.path)
				}
			}
		}
		for _, o := range s.replicas[0].store.objects {
			for _, l := range o.State.Links {
				if len(l.Values) > 1 {
					twice++
				}
			}
		}
	}
	if t.Logf("%d copies were removed or moved, %d links have several placements", dealt, twice); *schedules >= 1000 && (dealt == 0 || twice == 0) {
		t.Error("what the schedules are for did not happen")
	}
}

// copyDraft is what the end of a conflict makes of a losing content in a folder.
func copyDraft(dir dag.ID, name, text string, mtime int64) *Draft {
	c := Conflict{Of: dag.Sum([]byte("kept")), Lost: "f", Name: name}
	return &Draft{Kind: KindFile, Ops: []Op{
		{Kind: OpLink, Parent: dir, Name: name},
		{Kind: OpContent, Mtime: mtime, Content: &Content{Size: int64(len(text)), Inline: []byte(text)}},
		{Kind: OpXattr, Name: ConflictXattr, Value: c.Value()},
	}}
}

// TestEqualCopyOfAnother: a copy does not go with one of its name that is another file's: in another folder, or with another content or time.
func TestEqualCopyOfAnother(t *testing.T) {
	const name = "f (conflict device 0 2026-01-01 AAAA)"
	for _, twin := range []bool{false, true} {
		for _, of := range []string{"folder", "time", "text"} {
			r := newReplica(t, 0, simDevices(1))
			p, err := r.tree.PlanCreate(r.tree.Root(), "dir", KindDir)
			if err != nil {
				t.Fatal(err)
			}
			dir := r.publish(p, 1).changes[0].object
			one := r.publish(&Plan{Drafts: []*Draft{copyDraft(r.tree.Root(), name, "text", 5)}}, 1).changes[0].object
			// What a person does to one, the other being unheard of.
			s, err := r.tree.State(one)
			if err != nil {
				t.Fatal(err)
			}
			ops := s.Unlink(s.Links[0].ID)
			deal, ok := s.Deal(ops)
			if !ok {
				t.Fatal("the copy is none")
			}
			r.publish(&Plan{Drafts: []*Draft{{Object: one, Ops: append(ops, deal)}}}, 2)
			other := copyDraft(r.tree.Root(), name, "text", 5)
			other.Ops = slices.Insert(other.Ops, 1, Op{Kind: OpMode, Mode: 0600}) // another change than the first
			if !twin {
				switch of {
				case "folder":
					other.Ops[0].Parent = dir
				case "time":
					other.Ops[2].Mtime++
				case "text":
					other.Ops[2].Content.Inline = []byte("else")
				}
			}
			r.publish(&Plan{Drafts: []*Draft{other}}, 3)
			if got := r.ends(4); got != twin {
				t.Errorf("another %s: a copy goes: %v, want %v", of, got, twin)
			}
		}
	}
}

// TestForgedCopies: whoever makes many objects that claim to be one copy, some of them dealt with, makes devices look at each once at most; and
// at none where they are more than any devices make.
func TestForgedCopies(t *testing.T) {
	for _, n := range []int{maxTwins / 2, maxTwins} {
		r := newReplica(t, 0, simDevices(1))
		const name = "f (conflict device 0 2026-01-01 AAAA)"
		x, value := dealtXattr(name)
		p := &Plan{}
		for i := range n {
			left, dealt := copyDraft(r.tree.Root(), name, "left "+fmt.Sprint(i), 5), copyDraft(r.tree.Root(), name, "dealt "+fmt.Sprint(i), 5)
			dealt.Ops = slices.Insert(dealt.Ops, 1, Op{Kind: OpXattr, Name: x, Value: value})
			p.Drafts = append(p.Drafts, left, dealt)
		}
		b := r.publish(p, 1)
		c := &countingStore{MemStore: r.store}
		tree, err := NewTree(simSpace, c)
		if err != nil {
			t.Fatal(err)
		}
		d := dealer{tree, map[dag.ID]dag.ID{}}
		looked := 0
		if err := tree.Dealt(func(object dag.ID) error {
			looked++
			p, err := d.plan(object)
			if err == nil && len(p.Drafts) > 0 {
				t.Errorf("of %d copies one goes that is like no other", 2*n)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		want := 0
		if n < maxTwins {
			want = n
		}
		if looked != want || c.history > 2*want {
			t.Errorf("of %d forged copies: %d looked at and %d histories read; want %d and at most %d", 2*n, looked, c.history, want, 2*want)
		}
		twins, err := tree.Twins(b.changes[0].object)
		if err != nil {
			t.Fatal(err)
		}
		if n == maxTwins && len(twins) != 1 || n < maxTwins && len(twins) != 2*n {
			t.Errorf("%d of %d forged copies are twins", len(twins), 2*n)
		}
	}
}
