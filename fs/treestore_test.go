package fs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// The tree of a space in its database is what a fold of all its history in memory gives, whatever restarts and kills lay between,
// and its rows are those that a fold from the start writes.

// wholeTree lists all that a tree shows, and what of it is in conflict.
func wholeTree(t testing.TB, tr *tree.Tree) []string {
	t.Helper()
	var out []string
	var walk func(dir dag.ID, at string)
	walk = func(dir dag.ID, at string) {
		nodes, err := tr.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i := range nodes {
			n := &nodes[i]
			st, err := tr.State(n.Object)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%s%+v %x", at, *n, dag.Sum(st.Encode())))
			if n.Kind == tree.KindDir {
				walk(n.Object, at+n.Name+"/")
			}
		}
	}
	walk(tr.Root(), "")
	if err := tr.Unsettled(func(n tree.DirName) error {
		out = append(out, fmt.Sprintf("unsettled %v", n))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// checkTree holds the tree of a space, where it has one, against the fold of its history.
func checkTree(t testing.TB, s *space) {
	t.Helper()
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if s.in.t == nil {
		return
	}
	for all, end := false, false; !all || !end; {
		var err error
		if all, end, err = s.foldArrived(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	want, _, err := s.foldAll(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	a, b := wholeTree(t, s.in.t), wholeTree(t, want)
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			t.Fatalf("the tree of %s has\n%q\nits history gives\n%q", s.id, a[min(i, len(a)):], b[min(i, len(b)):])
		}
	}
}

// rowsOf lists the rows of a tree, but for those that say what is to be looked at.
func rowsOf(t testing.TB, s *space) []string {
	t.Helper()
	var out []string
	if err := s.rows.Scan("", "", func(k string, v []byte) bool {
		if k[:1] != rowLater && k[:1] != rowRoot && k[:1] != rowFresh {
			out = append(out, fmt.Sprintf("%q: %x", k, v))
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// checkRows folds the tree from the start, and fails where it has other rows then.
func checkRows(t testing.TB, s *space) {
	t.Helper()
	checkTree(t, s)
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if s.in.t == nil {
		return
	}
	was := rowsOf(t, s)
	if err := s.treeAnew(); err != nil {
		t.Fatal(err)
	}
	for end := false; !end; {
		var err error
		if _, end, err = s.foldArrived(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if now := rowsOf(t, s); !slices.Equal(was, now) {
		t.Fatalf("%d rows of %s, from the start %d:\n%q\n%q", len(was), s.id, len(now), was, now)
	}
}

// TestTreeStore: two and three devices do what they like, exchange, restart and are killed.
func TestTreeStore(t *testing.T) {
	moved := 0
	rapid.Check(t, func(rt *rapid.T) {
		t := rapidTB{t, rt}
		d := newDevices(t, rapid.IntRange(2, 3).Draw(rt, "devices"))
		who := rapid.Custom(func(rt *rapid.T) *testHome {
			return d.all[rapid.IntRange(0, len(d.all)-1).Draw(rt, "device")]
		})
		name := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		// dirs lists the directories of a device, the root first.
		dirs := func(h *testHome) []Ino {
			out := []Ino{h.root}
			for i := 0; i < len(out) && i < 20; i++ {
				h.must(h.ReadDir(out[i], 0, func(e Dirent) bool {
					if a, err := h.Lookup(out[i], e.Name); err == nil && a.Mode&0170000 == 0040000 {
						out = append(out, handle(&a))
					}
					return true
				}))
			}
			return out
		}
		n := 0
		var trace []string // of what was done, for who looks for the cause of a failure
		note := func(h *testHome, what string, args ...any) {
			trace = append(trace, fmt.Sprintf("device %d: ", slices.Index(d.all, h))+what+fmt.Sprint(args...))
		}
		defer func() {
			if rt.Failed() {
				rt.Log(strings.Join(trace, "\n"))
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"work": func(rt *rapid.T) {
				h := who.Draw(rt, "who")
				for range rapid.IntRange(1, 6).Draw(rt, "operations") {
					all := dirs(h)
					in, to := rapid.SampledFrom(all).Draw(rt, "in"), rapid.SampledFrom(all).Draw(rt, "to")
					a, b := name.Draw(rt, "name"), name.Draw(rt, "other")
					n++
					what := rapid.SampledFrom([]string{"make", "make", "write", "mkdir", "mkdir", "rename", "rename", "unlink", "rmdir", "link"}).Draw(rt, "what")
					note(h, what, " ", n, " ", in&0xffff, "/", a, " ", to&0xffff, "/", b)
					switch what {
					case "make":
						if x, err := h.Mknod(in, a, 0100644, 0, Cred{1000, 1000}); err == nil {
							h.write(x.Ino, fmt.Appendf(nil, "made %d", n), 0)
						}
					case "write":
						if x, err := h.Lookup(in, a); err == nil && x.Mode&0170000 == 0100000 {
							h.write(handle(&x), fmt.Appendf(nil, "written %d\n", n), 0)
						}
					case "mkdir":
						_, _ = h.Mkdir(in, a, 0o755, Cred{1000, 1000})
					case "rename":
						if h.Rename(in, a, to, b, 0) == nil {
							moved++
						}
					case "unlink":
						_ = h.Unlink(in, a)
					case "rmdir":
						_ = h.Rmdir(in, a)
					case "link":
						if x, err := h.Lookup(in, a); err == nil {
							_, _ = h.Link(handle(&x), to, b)
						}
					}
				}
			},
			"send": func(rt *rapid.T) {
				if a, b := who.Draw(rt, "from"), who.Draw(rt, "to"); a != b {
					note(a, "sends to ", slices.Index(d.all, b))
					d.send(a, b)
				}
			},
			"restart": func(rt *rapid.T) {
				h := who.Draw(rt, "who")
				how := rapid.IntRange(0, 4).Draw(rt, "how")
				note(h, "restarts ", how)
				switch how {
				case 0:
					h.reopen()
				case 1:
					h.kill()
				case 2:
					h.must(h.checkpoint(context.Background()))
					h.kill()
				case 3:
					h.age()
				}
			},
			"": func(rt *rapid.T) {
				if rapid.IntRange(0, 5).Draw(rt, "check") == 0 {
					checkTree(t, must2(who.Draw(rt, "checked").namedSpace(PersonalName)))
				}
			},
		})
		d.settle()
		d.same()
		for _, h := range d.all {
			checkRows(t, must2(h.namedSpace(PersonalName)))
			h.must(h.arriveAll())
		}
		d.same()
		for _, h := range d.all {
			h.leave()
		}
	})
	if moved == 0 {
		t.Error("nothing was renamed")
	}
}

// TestUnbornObjects: of an object that has changes before its root the tree knows so when the root comes, also after a restart.
func TestUnbornObjects(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.write(must2(a.Mknod(a.root, "a", 0100644, 0, Cred{1000, 1000})).Ino, []byte("a"), 0)
	d.send(a, b)
	s := must2(b.namedSpace(PersonalName))
	early, other := dag.ID{1}, dag.ID{2}
	s.pubMu.Lock()
	st := s.in.st
	b.must(st.born(early))
	if _, known := st.set[early]; !known {
		t.Error("what has no changes is looked up")
	}
	clear(st.set)
	b.must(st.SetObject(early, &tree.Object{State: tree.NewState(early)}))
	st.end(st.next)
	s.pubMu.Unlock()
	b.must(b.checkpoint(context.Background()))
	for range 2 {
		s.pubMu.Lock()
		st = must2(s.openTreeStore())
		b.must(st.born(early))
		b.must(st.born(other))
		if _, known := st.set[early]; known {
			t.Error("an object is taken for new that has changes")
		}
		if _, known := st.set[other]; !known {
			t.Error("what has no changes is looked up")
		}
		s.pubMu.Unlock()
	}
	for _, h := range d.all {
		h.leave()
	}
}
