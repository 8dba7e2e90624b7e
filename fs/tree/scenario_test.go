package tree

import (
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// user is a person at a replica who says paths.
type user struct {
	*replica
	w *world
}

// world is a few users of one space.
type world struct {
	t     testing.TB
	users []*user
	time  int64
}

func newWorld(t testing.TB, n int) *world {
	w := &world{t: t, time: 1_769_860_800e9} // 2026-01-31 12:00 UTC
	names := simDevices(n)
	for i := range n {
		w.users = append(w.users, &user{newReplica(t, i, names), w})
	}
	return w
}

// sync gives everyone everything.
func (w *world) sync() {
	w.t.Helper()
	for _, u := range w.users {
		for _, b := range u.out {
			for _, v := range w.users {
				if v != u {
					v.receive(b)
				}
			}
		}
		u.out = nil
	}
}

// split returns the directory object and the name of a path.
func (u *user) split(path string) (dag.ID, string) {
	u.t.Helper()
	dir := u.tree.Root()
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		n, ok, err := u.tree.Lookup(dir, p)
		if err != nil || !ok || n.Kind != KindDir {
			u.t.Fatalf("%q: %q is no directory (%v)", path, p, err)
		}
		dir = n.Object
	}
	return dir, parts[len(parts)-1]
}

func (u *user) do(p *Plan, err error) *simBatch {
	u.t.Helper()
	if err != nil {
		u.t.Fatal(err)
	}
	u.w.time += 1e9
	return u.publish(p, u.w.time)
}

func (u *user) mkdir(path string) {
	u.t.Helper()
	dir, name := u.split(path)
	u.do(u.tree.PlanCreate(dir, name, KindDir))
}

func text(s string) *Content { return &Content{Size: int64(len(s)), Inline: []byte(s)} }

func blocks(s string) *Content {
	return &Content{Size: 1 << 20, Root: block.Sum([]byte(s)).CID(), Layout: []Chunk{{0, 1 << 20}}}
}

func (u *user) create(path string, c *Content) *simBatch {
	u.t.Helper()
	dir, name := u.split(path)
	return u.do(u.tree.PlanCreate(dir, name, KindFile, Op{Kind: OpContent, Mtime: u.w.time, Content: c}))
}

func (u *user) write(path string, c *Content) {
	u.t.Helper()
	dir, name := u.split(path)
	u.do(u.tree.PlanWrite(dir, name, u.w.time, func([]Ref) *Content { return c }))
}

func (u *user) remove(path string) { u.t.Helper(); u.do(u.tree.PlanRemove(u.split(path))) }

func (u *user) rename(from, to string) {
	u.t.Helper()
	dir, name := u.split(from)
	newDir, newName := u.split(to)
	u.do(u.tree.PlanRename(dir, name, newDir, newName))
}

func (u *user) link(from, to string) {
	u.t.Helper()
	dir, name := u.split(from)
	newDir, newName := u.split(to)
	u.do(u.tree.PlanLink(dir, name, newDir, newName))
}

// ls is what a user sees, a line for each entry: the path, and the content of a file.
func (u *user) ls() []string {
	u.t.Helper()
	var out []string
	for _, e := range walkTree(u.t, u.tree) {
		line := strings.TrimPrefix(e.path, "/")
		if e.content != "" {
			line += " = " + strings.TrimLeft(e.content, "0123456789 ")
		}
		out = append(out, line)
	}
	return out
}

// scenario is a story of a few users. In want, of the letters of a conflict copy's hash only XXXX is said.
type scenario struct {
	name  string
	users int
	tell  func(u []*user, sync func())
	want  []string
}

const day = "2026-01-31"

func scenarios() []scenario {
	return []scenario{
		{"directories of one name merge", 2, func(u []*user, sync func()) {
			u[0].mkdir("d")
			u[0].create("d/a", text("1"))
			u[0].mkdir("d/sub")
			u[0].create("d/sub/x", text("2"))
			u[1].mkdir("d")
			u[1].create("d/b", text("3"))
			u[1].mkdir("d/sub")
			u[1].create("d/sub/y", text("4"))
		}, []string{"d", `d/a = "1"`, `d/b = "3"`, "d/sub", `d/sub/x = "2"`, `d/sub/y = "4"`}},
		{"merged directories move and go as one", 2, func(u []*user, sync func()) {
			u[0].mkdir("d")
			u[0].create("d/a", text("1"))
			u[1].mkdir("d")
			u[1].create("d/b", text("2"))
			sync()
			u[0].mkdir("e")
			u[0].rename("d", "e/f")
			u[0].remove("e/f/a")
			u[0].remove("e/f/b")
			u[0].remove("e/f")
		}, []string{"e"}},
		{"two moves that would make a cycle", 2, func(u []*user, sync func()) {
			u[0].mkdir("a")
			u[0].create("a/file", text("of a"))
			u[0].mkdir("b")
			u[0].mkdir("b/d")
			u[0].create("b/d/file", text("of d"))
			sync()
			u[0].rename("a", "b/d/e")
			u[1].rename("b/d", "a/c")
		}, []string{"b", "b/d", "b/d/e", `b/d/e/file = "of a"`, `b/d/file = "of d"`}},
		{"an edit beats a delete", 2, func(u []*user, sync func()) {
			u[0].create("f", text("1"))
			sync()
			u[0].remove("f")
			u[1].write("f", text("2"))
		}, []string{`f = "2"`}},
		{"a delete that saw the edit", 2, func(u []*user, sync func()) {
			u[0].create("f", text("1"))
			u[0].write("f", text("2"))
			sync()
			u[1].remove("f")
		}, nil},
		{"a rename beats a delete", 2, func(u []*user, sync func()) {
			u[0].create("f", text("1"))
			sync()
			u[0].remove("f")
			u[1].rename("f", "g")
		}, []string{`g = "1"`}},
		{"what is made in a removed directory brings it back", 2, func(u []*user, sync func()) {
			u[0].mkdir("d")
			u[0].mkdir("d/e")
			u[0].create("d/old", text("1"))
			sync()
			u[0].remove("d/old")
			u[0].remove("d/e")
			u[0].remove("d")
			u[1].create("d/e/new", text("2"))
		}, []string{"d", "d/e", `d/e/new = "2"`}},
		{"a directory that came back stays when it is emptied", 2, func(u []*user, sync func()) {
			u[0].mkdir("d")
			sync()
			u[0].remove("d")
			u[1].create("d/new", text("2"))
			sync()
			u[0].remove("d/new")
		}, []string{"d"}},
		{"two files of one name", 2, func(u []*user, sync func()) {
			u[0].create("report.txt", text("by 0"))
			u[1].mkdir("makes the second file the higher one")
			u[1].create("report.txt", text("by 1"))
		}, []string{"makes the second file the higher one", "report (conflict device 0 " + day + ` XXXX).txt = "by 0"`, `report.txt = "by 1"`}},
		{"two equal files show once, and go at once", 2, func(u []*user, sync func()) {
			u[0].create("f", text("same"))
			u[1].create("f", text("same"))
			sync()
			u[0].create("other", text("x"))
			u[0].remove("f")
		}, []string{`other = "x"`}},
		{"the file that lost its name keeps the one that it shows when the other goes", 2, func(u []*user, sync func()) {
			u[0].create("f", text("by 0"))
			u[1].mkdir("d")
			u[1].create("f", text("by 1"))
			sync()
			u[0].remove("f")
		}, []string{"d", "f (conflict device 0 " + day + ` XXXX) = "by 0"`}},
		{"a directory keeps its name against a file", 2, func(u []*user, sync func()) {
			u[0].mkdir("x")
			u[1].mkdir("higher")
			u[1].create("x", text("file"))
		}, []string{"higher", "x", "x (conflict device 1 " + day + ` XXXX) = "file"`}},
		{"texts that were edited apart merge", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a\nb\nc\nd\n"))
			sync()
			u[0].write("f", text("A\nb\nc\nd\n"))
			u[1].write("f", text("a\nb\nc\nd\ne\n"))
		}, []string{`f = "A\nb\nc\nd\ne\n"`}},
		{"a write to a merge", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a\nb\nc\nd\n"))
			sync()
			u[0].write("f", text("A\nb\nc\nd\n"))
			u[1].write("f", text("a\nb\nc\nd\ne\n"))
			sync()
			u[0].write("f", text("A\nb\nc\nd\ne\nf\n"))
			u[1].write("f", text("A\nB\nc\nd\ne\n"))
		}, []string{`f = "A\nB\nc\nd\ne\nf\n"`}},
		{"texts that were edited in adjacent lines conflict", 2, func(u []*user, sync func()) {
			u[0].create("f.txt", text("a\nb\n"))
			sync()
			u[0].write("f.txt", text("A\nb\n"))
			u[1].mkdir("d")
			u[1].write("f.txt", text("a\nB\n"))
		}, []string{"d", "f (conflict device 0 " + day + ` XXXX).txt = "A\nb\n"`, `f.txt = "a\nB\n"`}},
		{"what is no text conflicts", 2, func(u []*user, sync func()) {
			u[0].create("f.bin", blocks("0"))
			sync()
			u[0].write("f.bin", blocks("1"))
			u[1].mkdir("d")
			u[1].write("f.bin", blocks("2"))
		}, []string{"d", "f (conflict device 0 " + day + " XXXX).bin = " + showBlocks("1"), "f.bin = " + showBlocks("2")}},
		{"the same edit twice", 2, func(u []*user, sync func()) {
			u[0].create("f", blocks("0"))
			sync()
			u[0].write("f", blocks("1"))
			u[1].write("f", blocks("1"))
		}, []string{"f = " + showBlocks("1")}},
		{"equal chunks at other places", 2, func(u []*user, sync func()) {
			u[0].create("f", blocks("0"))
			sync()
			u[0].write("f", &Content{Size: 2 << 20, Root: blocks("1").Root, Layout: []Chunk{{0, 1 << 20}}})
			u[1].mkdir("d")
			u[1].write("f", &Content{Size: 2 << 20, Root: blocks("1").Root, Layout: []Chunk{{1 << 20, 1 << 20}}})
		}, []string{"d", "f = " + blocks("1").Root.String() + "[{1048576 1048576}][]", "f (conflict device 0 " + day + " XXXX) = " + showBlocks("1")}},
		{"a copy that is written is a file of its own", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			sync()
			u[0].write("f", text("b"))
			u[1].mkdir("d")
			u[1].write("f", text("c"))
			sync()
			u[0].write(copyOf(u[0], "f"), text("mine"))
			u[0].rename("f", "g")
		}, []string{"d", "f (conflict device 0 " + day + ` XXXX) = "mine"`, `g = "c"`}},
		{"both settle a conflict alike", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			sync()
			u[0].write("f", text("b"))
			u[1].mkdir("d")
			u[1].write("f", text("c"))
			sync()
			u[0].rename("f", "g")
			u[1].rename("f", "g")
		}, []string{"d", "f (conflict device 0 " + day + ` XXXX) = "b"`, `g = "c"`}},
		{"a copy takes the place of what beat it", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			sync()
			u[0].write("f", text("b"))
			u[1].mkdir("d")
			u[1].write("f", text("c"))
			sync()
			u[0].rename(copyOf(u[0], "f"), "f")
		}, []string{"d", `f = "b"`}},
		{"a real file has the name of a copy", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			u[1].mkdir("d")
			u[1].create("f", text("b"))
			sync()
			name := copyOf(u[0], "f")
			u[0].remove(name)
			u[0].create(name, text("c"))
			u[1].rename("f", "g")
			sync()
			if n := len(copyOf(u[0], "f")); n != len(name) {
				u[0].t.Fatalf("%d bytes, had %d", n, len(name))
			}
		}, []string{"d", "f (conflict device 0 " + day + ` K4QJ) (conflict device 1 ` + day + ` XXXX) = "a"`, "f (conflict device 0 " + day + ` XXXX) = "c"`, `g = "b"`}},
		{"a merge of larger texts that both publish", 2, func(u []*user, sync func()) {
			u[0].create("f", blocks("0"))
			sync()
			u[0].write("f", blocks("1"))
			u[1].write("f", blocks("2"))
			sync()
			for _, v := range u {
				n, _, err := v.tree.Lookup(v.split("f"))
				if err != nil {
					v.t.Fatal(err)
				}
				s, err := v.tree.State(n.Object)
				if err != nil || s.View().Base == nil {
					v.t.Fatal("no base", err)
				}
				v.do(&Plan{[]*Draft{{Object: n.Object, Ops: []Op{s.Merge(blocks("merged"))}}}}, nil)
			}
		}, []string{"f = " + showBlocks("merged")}},
		{"a save by rename meets an edit", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a\nb\nc\nd\n"))
			sync()
			u[1].write("f", text("a\nb\nc\nD\n"))
			seen := u[0].behind("f")
			b := u[0].create("f.tmp", text("A\nb\nc\nd\n"))
			dir, name := u[0].split("f")
			u[0].do(u[0].tree.PlanSave(b.changes[0].object, dir, name, seen))
		}, []string{`f = "A\nb\nc\nD\n"`}},
		{"a save by rename over what came in meanwhile", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a\nb\nc\nd\n"))
			sync()
			u[1].write("f", text("a\nb\nc\nD\n"))
			seen := u[0].behind("f")
			b := u[0].create("f.tmp", text("A\nb\nc\nd\n"))
			sync()
			dir, name := u[0].split("f")
			u[0].do(u[0].tree.PlanSave(b.changes[0].object, dir, name, seen))
		}, []string{`f = "A\nb\nc\nD\n"`}},
		{"a hard link goes while the file is edited", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			u[0].link("f", "g")
			sync()
			u[0].remove("g")
			u[1].write("f", text("b"))
		}, []string{`f = "b"`}},
		{"both hard links go while the file is edited", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			u[0].link("f", "g")
			sync()
			u[0].remove("f")
			u[0].remove("g")
			u[1].write("f", text("b"))
		}, []string{`g = "b"`}},
		{"each removes another of two hard links", 2, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			u[0].link("f", "g")
			sync()
			u[0].remove("f")
			u[1].remove("g")
		}, nil},
		{"two links of one name go at once, with one that was removed before an edit", 3, func(u []*user, sync func()) {
			// Found by seed 1036960 of TestConvergence: the removed link came back.
			u[0].create("a", text("1"))
			sync()
			u[0].link("a", "d")
			u[1].link("a", "d")
			u[1].remove("a")
			u[2].write("a", text("2"))
			sync()
			u[0].remove("d")
		}, nil},
		{"a rename over two links of one name, with one that was removed before an edit", 3, func(u []*user, sync func()) {
			// Found by seed 1045414 of TestConvergence.
			u[0].create("a", text("1"))
			u[0].create("f", text("f"))
			sync()
			u[0].link("a", "d")
			u[1].link("a", "d")
			u[1].remove("a")
			u[2].write("a", text("2"))
			sync()
			u[0].rename("f", "d")
		}, []string{`d = "f"`}},
		{"an equal file stays hidden when the other is written under another name", 2, func(u []*user, sync func()) {
			// Found by seed 2088990 of TestConvergence: it came out as a conflict copy.
			u[0].mkdir("d")
			sync()
			u[1].create("d/f", text("same"))
			u[0].create("d/f", text("same"))
			u[0].link("d/f", "g")
			u[0].rename("d/f", "h")
			u[0].rename("h", "d/f") // the higher one
			sync()
			u[0].write("g", text("other"))
		}, []string{"d", `d/f = "other"`, `g = "other"`}},
		{"three who rename", 3, func(u []*user, sync func()) {
			u[0].create("f", text("a"))
			sync()
			u[0].rename("f", "x")
			u[1].rename("f", "y")
			u[2].mkdir("d")
			u[2].rename("f", "z")
		}, []string{"d", `z = "a"`}},
		{"a long name is cut for its copy", 2, func(u []*user, sync func()) {
			u[0].create(strings.Repeat("é", 125)+".text", text("0"))
			u[1].mkdir("d")
			u[1].create(strings.Repeat("é", 125)+".text", text("1"))
		}, []string{"d", strings.Repeat("é", 83) + " (conflict device 0 " + day + ` XXXX).text = "0"`, strings.Repeat("é", 125) + `.text = "1"`}},
	}
}

func showBlocks(s string) string {
	return block.Sum([]byte(s)).CID().String() + "[]"
}

func (u *user) behind(path string) []Ref {
	n, _, err := u.tree.Lookup(u.split(path))
	if err != nil {
		u.t.Fatal(err)
	}
	s, err := u.tree.State(n.Object)
	if err != nil {
		u.t.Fatal(err)
	}
	return s.View().Behind
}

// copyOf returns the name of the conflict copy of a name in the root.
func copyOf(u *user, name string) string {
	u.t.Helper()
	nodes, err := u.tree.List(u.tree.Root())
	if err != nil {
		u.t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Conflict && n.Lost == name {
			return n.Name
		}
	}
	// It may have become a file of its own.
	for _, n := range nodes {
		if lost, _, ok := lostName(n.Name); ok && lost == name {
			return n.Name
		}
	}
	u.t.Fatalf("%q has no copy", name)
	return ""
}

// hideLetters puts XXXX for the letters of the hash in the names of conflict copies.
func hideLetters(line string) string {
	i := strings.LastIndex(line, copyTag)
	if i < 0 {
		return line
	}
	j := strings.IndexByte(line[i:], ')') + i
	k := strings.LastIndexByte(line[:j], ' ')
	return line[:k+1] + "XXXX" + line[j:]
}

// runScenario tells a story, and checks that all see the same, and that it is as defined.
func runScenario(t testing.TB, sc scenario) *world {
	t.Helper()
	w := newWorld(t, sc.users)
	sc.tell(w.users, w.sync)
	w.sync()
	changes := w.users[0].changes()
	naive := resolveNaive(simSpace, changes, func(k dag.PublicKey) string { return w.users[0].store.names[k] })
	want := dump(naive.walk())
	for i, u := range w.users {
		if got := dump(walkTree(t, u.tree)); got != want {
			t.Fatalf("user %d sees\n%swant\n%s", i, got, want)
		}
	}
	return w
}

func TestScenarios(t *testing.T) {
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			w := runScenario(t, sc)
			got := w.users[0].ls()
			for i := range got {
				got[i] = hideLetters(got[i])
			}
			slices.Sort(got)
			want := slices.Clone(sc.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("sees\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}
