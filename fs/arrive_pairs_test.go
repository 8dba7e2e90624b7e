package fs

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// concurrentOps are what one device does to a tree that another has too: dir/f, dir/g, dir/sub/h, empty/, other/ and a second name of
// f, other/f2. who distinguishes what the two write.
var concurrentOps = []struct {
	name string
	do   func(h *testHome, who string)
	text string // that is to be found afterwards, unless the other removes or replaces the same document
}{
	{"nothing", func(h *testHome, who string) {}, ""},
	{"create", func(h *testHome, who string) { h.create(h.in("dir"), "new", []byte("new by "+who)) }, "new by WHO"},
	{"create the same", func(h *testHome, who string) { h.create(h.in("dir"), "equal", []byte("equal")) }, "equal"},
	{"mkdir", func(h *testHome, who string) { h.dir0(h.in("dir"), "newdir") }, ""},
	{"mkdir with a file", func(h *testHome, who string) {
		h.create(h.dir0(h.in("dir"), "newdir"), "in "+who, []byte("within by "+who))
	}, "within by WHO"},
	{"write f", func(h *testHome, who string) { h.write(h.in("dir/f"), []byte("f by "+who), 0) }, "f by WHO"},
	{"append to f", func(h *testHome, who string) {
		a, err := h.Getattr(h.in("dir/f"))
		h.must(err)
		h.write(h.in("dir/f"), []byte("line by "+who+"\n"), a.Size)
	}, "line by WHO"},
	{"truncate f", func(h *testHome, who string) {
		zero := int64(0)
		must2(h.Setattr(context.Background(), h.in("dir/f"), SetAttr{Size: &zero}))
	}, ""},
	{"replace f", func(h *testHome, who string) {
		h.create(h.in("dir"), ".tmp", []byte("saved by "+who))
		h.must(h.Rename(h.in("dir"), ".tmp", h.in("dir"), "f", 0))
	}, "saved by WHO"},
	{"rename f", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "f", h.in("dir"), "f "+who, 0)) }, ""},
	{"rename f to g", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "f", h.in("dir"), "g", 0)) }, ""},
	{"move f", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "f", h.in("other"), "f", 0)) }, ""},
	{"move f to new", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "f", h.in("dir"), "new", 0)) }, ""},
	{"exchange f and g", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "f", h.in("dir"), "g", RenameExchange)) }, ""},
	{"unlink f", func(h *testHome, who string) { h.must(h.Unlink(h.in("dir"), "f")) }, ""},
	{"unlink f2", func(h *testHome, who string) { h.must(h.Unlink(h.in("other"), "f2")) }, ""},
	{"unlink both", func(h *testHome, who string) {
		h.must(h.Unlink(h.in("dir"), "f"))
		h.must(h.Unlink(h.in("other"), "f2"))
	}, ""},
	{"unlink and create f", func(h *testHome, who string) {
		h.must(h.Unlink(h.in("dir"), "f"))
		h.create(h.in("dir"), "f", []byte("again by "+who))
	}, "again by WHO"},
	{"link f", func(h *testHome, who string) { must2(h.Link(h.in("dir/f"), h.in("dir"), "link")) }, ""},
	{"symlink", func(h *testHome, who string) { must2(h.Symlink(h.in("dir"), "new", "to "+who, Cred{1000, 1000})) }, ""},
	{"chmod f", func(h *testHome, who string) {
		mode := uint32(0o600)
		must2(h.Setattr(context.Background(), h.in("dir/f"), SetAttr{Mode: &mode}))
	}, ""},
	{"setxattr f", func(h *testHome, who string) { h.must(h.Setxattr(h.in("dir/f"), "user.by", []byte(who), 0)) }, ""},
	{"chmod dir", func(h *testHome, who string) {
		mode := uint32(0o700)
		must2(h.Setattr(context.Background(), h.in("dir"), SetAttr{Mode: &mode}))
	}, ""},
	{"rename dir", func(h *testHome, who string) { h.must(h.Rename(h.root, "dir", h.root, "dir "+who, 0)) }, ""},
	{"rename dir to newname", func(h *testHome, who string) { h.must(h.Rename(h.root, "dir", h.root, "newname", 0)) }, ""},
	{"rename other to newname", func(h *testHome, who string) { h.must(h.Rename(h.root, "other", h.root, "newname", 0)) }, ""},
	{"move dir into other", func(h *testHome, who string) { h.must(h.Rename(h.root, "dir", h.in("other"), "dir", 0)) }, ""},
	{"move other into dir", func(h *testHome, who string) { h.must(h.Rename(h.root, "other", h.in("dir"), "other", 0)) }, ""},
	{"move sub", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "sub", h.root, "sub", 0)) }, ""},
	{"write h", func(h *testHome, who string) { h.write(h.in("dir/sub/h"), []byte("h by "+who), 0) }, "h by WHO"},
	{"remove sub", func(h *testHome, who string) {
		h.must(h.Unlink(h.in("dir/sub"), "h"))
		h.must(h.Rmdir(h.in("dir"), "sub"))
	}, ""},
	{"remove sub and create a file sub", func(h *testHome, who string) {
		h.must(h.Unlink(h.in("dir/sub"), "h"))
		h.must(h.Rmdir(h.in("dir"), "sub"))
		h.create(h.in("dir"), "sub", []byte("a file by "+who))
	}, "a file by WHO"},
	{"remove all", func(h *testHome, who string) {
		h.must(h.Unlink(h.in("dir/sub"), "h"))
		h.must(h.Rmdir(h.in("dir"), "sub"))
		h.must(h.Unlink(h.in("dir"), "f"))
		h.must(h.Unlink(h.in("dir"), "g"))
		h.must(h.Rmdir(h.root, "dir"))
	}, ""},
	{"remove all and make dir", func(h *testHome, who string) {
		h.must(h.Unlink(h.in("dir/sub"), "h"))
		h.must(h.Rmdir(h.in("dir"), "sub"))
		h.must(h.Unlink(h.in("dir"), "f"))
		h.must(h.Unlink(h.in("dir"), "g"))
		h.must(h.Rmdir(h.root, "dir"))
		h.create(h.dir0(h.root, "dir"), "second", []byte("second by "+who))
	}, "second by WHO"},
	// What follows is about g, which has one name, and about an empty directory.
	{"write g", func(h *testHome, who string) { h.write(h.in("dir/g"), []byte("g by "+who), 0) }, "g by WHO"},
	{"append to g", func(h *testHome, who string) {
		a, err := h.Getattr(h.in("dir/g"))
		h.must(err)
		h.write(h.in("dir/g"), []byte("more by "+who+"\n"), a.Size)
	}, "more by WHO"},
	{"truncate g", func(h *testHome, who string) {
		zero := int64(0)
		must2(h.Setattr(context.Background(), h.in("dir/g"), SetAttr{Size: &zero}))
	}, ""},
	{"replace g", func(h *testHome, who string) {
		h.create(h.in("dir"), ".tmp", []byte("saved g by "+who))
		h.must(h.Rename(h.in("dir"), ".tmp", h.in("dir"), "g", 0))
	}, "saved g by WHO"},
	{"save g, the old one aside", func(h *testHome, who string) {
		h.must(h.Rename(h.in("dir"), "g", h.in("dir"), "g~", 0))
		h.create(h.in("dir"), "g", []byte("aside by "+who))
		h.must(h.Unlink(h.in("dir"), "g~"))
	}, "aside by WHO"},
	{"unlink g", func(h *testHome, who string) { h.must(h.Unlink(h.in("dir"), "g")) }, ""},
	{"rename g", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "g", h.in("dir"), "g "+who, 0)) }, ""},
	{"rename g over f", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "g", h.in("dir"), "f", 0)) }, ""},
	{"link g", func(h *testHome, who string) { must2(h.Link(h.in("dir/g"), h.in("dir"), "link")) }, ""},
	{"rmdir empty", func(h *testHome, who string) { h.must(h.Rmdir(h.root, "empty")) }, ""},
	{"create in empty", func(h *testHome, who string) { h.create(h.in("empty"), "in", []byte("in by "+who)) }, "in by WHO"},
	{"move g into empty", func(h *testHome, who string) { h.must(h.Rename(h.in("dir"), "g", h.in("empty"), "g", 0)) }, ""},
}

func (h *testHome) dir0(parent Ino, name string) Ino {
	h.t.Helper()
	return must2(h.Mkdir(parent, name, 0o755, Cred{1000, 1000})).Ino
}

// removeBelow removes a name and what is below.
func (h *testHome) removeBelow(dir Ino, name string) {
	h.t.Helper()
	a, err := h.Lookup(dir, name)
	h.must(err)
	if a.Mode&0170000 != 0040000 {
		h.must(h.Unlink(dir, name))
		return
	}
	for _, n := range h.list(a.Ino) {
		h.removeBelow(a.Ino, n)
	}
	h.must(h.Rmdir(dir, name))
}

// in gives the inode of a path in Personal.
func (h *testHome) in(path string) Ino {
	h.t.Helper()
	at := h.root
	for _, name := range strings.Split(path, "/") {
		a, err := h.Lookup(at, name)
		if err != nil {
			h.t.Fatalf("%s: %v", path, err)
		}
		at = handle(&a)
	}
	return at
}

// Outcomes of a pair, where a did the one and b the other, and b's comes later in the total order. TREE.md tells them to people.
const (
	eitherWay = '=' // as if done one after the other, whichever comes first
	aThenB    = '>' // as if a did its own before b, and only so
	bThenA    = '<' // as if b did its own before a, and only so
	aCopy     = 'c' // both is kept, one as a conflict copy
	merged    = '+' // none of these: as no single device could have made it
)

const (
	pairsFile = "testdata/pairs.txt" // what each pair ends in
	treePage  = "TREE.md"            // has the table of outcomes
)

// TestConcurrentPairs: whatever two devices do at once, they end with one tree, which is the one that testdata/pairs.txt tells, their
// indexes say what the history says, and what both wrote is there. With -update it writes that file and the table of TREE.md anew.
func TestConcurrentPairs(t *testing.T) {
	n := len(concurrentOps)
	told := readPairs(t)
	s := newSerial(t)
	cells := map[string]string{}
	table := make([][]byte, n)
	for i := range n {
		table[i] = []byte(strings.Repeat("?", n))
		var d *devices
		for j := range n {
			if d == nil || j%8 == 0 { // after a failure, too
				d = newDevices(t, 2)
			}
			x, y := &concurrentOps[i], &concurrentOps[j]
			pair := x.name + " | " + y.name
			if !t.Run(x.name+"/"+y.name, func(t *testing.T) {
				if testing.Short() && (i+j)%10 != 0 {
					return // a tenth is run
				}
				d.t = t
				for _, h := range d.all {
					h.t = t
				}
				lines := d.pair(i, j)
				code := s.outcome(lines, i, j)
				got := string(code) + " " + difference(s.first, lines)
				table[i][j], cells[pair] = byte(code), got
				if want := told[pair]; got != want && !*update {
					t.Errorf("it ends in\n  %s\nand %s tells\n  %s", got, pairsFile, want)
				}
			}) {
				d = nil
			}
		}
	}
	if *update {
		writePairs(t, cells, table)
		return
	}
	if len(told) != n*n {
		t.Errorf("%s tells of %d pairs, not of %d", pairsFile, len(told), n*n)
	}
	if all := pairsTable(table); strings.Contains(all, "?") {
		return // some were not run
	}
	if page := string(must2(os.ReadFile(treePage))); !strings.Contains(page, pairsTable(table)) {
		t.Errorf("the table in %s is not\n%s", treePage, pairsTable(table))
	}
}

// pair has a do one operation and b another, and gives the tree in which they end.
func (d *devices) pair(i, j int) []string {
	d.t.Helper()
	x, y := &concurrentOps[i], &concurrentOps[j]
	a, b := d.all[0], d.all[1]
	roots := []Ino{a.root, b.root}
	defer func() { a.root, b.root = roots[0], roots[1] }()
	// Each cell in a folder of its own.
	cell := fmt.Sprintf("%d %d", i, j)
	a.root = a.dir0(a.root, cell)
	a.plantPair()
	d.settle()
	b.root = b.look(b.root, cell)
	// b's clock goes ahead of what a publishes: what b does comes later in the total order.
	ahead := must2(b.namedSpace(PersonalName))
	for k := range 4 {
		b.create(roots[1], fmt.Sprintf("%s ahead %d", cell, k), nil)
		b.must(ahead.publishAll(context.Background()))
	}
	x.do(a, "a")
	y.do(b, "b")
	d.settle()
	d.same()
	lines := d.pairTree(a)
	whole := strings.Join(lines, "\n")
	for who, text := range map[string]string{"a": x.text, "b": y.text} {
		if text = strings.ReplaceAll(text, "WHO", who); text != "" && !strings.Contains(whole, text) {
			d.t.Errorf("%q is lost:\n%s", text, whole)
		}
	}
	// What is removed stays so.
	for _, name := range a.list(a.root) {
		a.removeBelow(a.root, name)
	}
	d.settle()
	if d.same(); len(d.tree(a)) > 0 {
		d.t.Errorf("what was removed came back:\n%s", strings.Join(d.tree(a), "\n"))
	}
	return lines
}

// plantPair makes what concurrentOps are done to.
func (h *testHome) plantPair() {
	h.t.Helper()
	dir := h.dir0(h.root, "dir")
	h.create(dir, "f", []byte("one\ntwo\nthree\n"))
	h.create(dir, "g", []byte("g\n"))
	h.create(h.dir0(dir, "sub"), "h", []byte("h\n"))
	must2(h.Link(h.in("dir/f"), h.dir0(h.root, "other"), "f2"))
	h.dir0(h.root, "empty")
}

var (
	copyName = regexp.MustCompile(` \(conflict ([^()]*) \d{4}-\d\d-\d\d [A-Z2-7_]+\)`)
	nameOfA  = regexp.MustCompile(`\(conflict test\)`)
	nameOfB  = regexp.MustCompile(`\(conflict other\)`)
)

// pairTree is what a device shows, with the names of a file beside it, and names of conflict copies that are the same each time.
func (d *devices) pairTree(h *testHome) []string {
	d.t.Helper()
	lines := d.tree(h)
	for i, l := range lines {
		l = copyName.ReplaceAllString(l, " (conflict $1)")
		l = nameOfA.ReplaceAllString(l, "(conflict a)")
		lines[i] = nameOfB.ReplaceAllString(l, "(conflict b)")
	}
	var names [][]string
	seen := map[Ino]int{}
	var walk func(dir Ino, at string)
	walk = func(dir Ino, at string) {
		for _, name := range h.list(dir) {
			a := must2(h.Lookup(dir, name))
			path := copyName.ReplaceAllString(at+name, " (conflict)")
			switch {
			case a.Mode&0170000 == 0040000:
				walk(handle(&a), at+name+"/")
			case seen[a.Ino] > 0:
				names[seen[a.Ino]-1] = append(names[seen[a.Ino]-1], path)
			default:
				names = append(names, []string{path})
				seen[a.Ino] = len(names)
			}
		}
	}
	walk(h.root, "")
	for _, group := range names {
		if slices.Sort(group); len(group) > 1 {
			lines = append(lines, "one file: "+strings.Join(group, ", "))
		}
	}
	slices.Sort(lines)
	return lines
}

// serial does pairs of operations one after the other, on one device.
type serial struct {
	d     *devices
	n     int
	first []string // the tree before
}

func newSerial(t *testing.T) *serial {
	s := &serial{d: newDevices(t, 1)}
	s.first = s.tree(func(*testHome) {})
	return s
}

// impossible ends an operation that can't be done.
type impossible struct{ testing.TB }

func (impossible) Fatal(args ...any)            { panic(impossible{}) }
func (impossible) Fatalf(_ string, args ...any) { panic(impossible{}) }

// tree gives the tree that do makes of the planted one, as far as it can be done.
func (s *serial) tree(do func(h *testHome)) (lines []string) {
	h := s.d.all[0]
	root, t := h.root, h.t
	defer func() { h.root, h.t = root, t }()
	s.n++
	h.root = h.dir0(h.root, fmt.Sprint(s.n))
	h.plantPair()
	func() {
		defer func() {
			h.t = t
			_ = recover()
		}()
		h.t = impossible{t}
		do(h)
	}()
	lines = s.d.pairTree(h)
	for _, name := range h.list(h.root) {
		h.removeBelow(h.root, name)
	}
	return lines
}

// after gives the tree when who does one operation, and then the other device the other, as far as that can be done then.
func (s *serial) after(i int, who string, j int, other string) []string {
	return s.tree(func(h *testHome) {
		concurrentOps[i].do(h, who)
		concurrentOps[j].do(h, other)
	})
}

// outcome says what a tree is in which a did i and b did j at once.
func (s *serial) outcome(lines []string, i, j int) rune {
	ab := slices.Equal(lines, s.after(i, "a", j, "b"))
	ba := slices.Equal(lines, s.after(j, "b", i, "a"))
	switch {
	case ab && ba:
		return eitherWay
	case ab:
		return aThenB
	case ba:
		return bThenA
	case strings.Contains(strings.Join(lines, "\n"), "(conflict "):
		return aCopy
	}
	return merged
}

// difference says how a tree differs from the one before: what is gone, and what is there anew or otherwise.
func difference(before, after []string) string {
	var out []string
	for _, l := range before {
		if !slices.Contains(after, l) {
			path, _, _ := strings.Cut(l, " 1") // without the mode
			path, _, _ = strings.Cut(path, " 4")
			if !slices.ContainsFunc(after, func(o string) bool { return strings.HasPrefix(o, path+" ") }) {
				out = append(out, "-"+path)
			}
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			out = append(out, "+"+l)
		}
	}
	return strings.Join(out, "; ")
}

// readPairs reads the outcomes of pairs.
func readPairs(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	b, err := os.ReadFile(pairsFile)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		pair, outcome, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if ok && !strings.HasPrefix(line, "#") {
			out[pair] = outcome
		}
	}
	return out
}

// writePairs writes the outcomes of pairs, and their table into TREE.md.
func writePairs(t *testing.T, cells map[string]string, table [][]byte) {
	t.Helper()
	var b strings.Builder
	b.WriteString("# What two devices end in: \"a does | b does: outcome what is gone and what is new\". TREE.md says what the outcomes mean.\n")
	for i := range concurrentOps {
		for j := range concurrentOps {
			pair := concurrentOps[i].name + " | " + concurrentOps[j].name
			fmt.Fprintf(&b, "%s: %s\n", pair, cells[pair])
		}
	}
	if err := os.WriteFile(pairsFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	page := string(must2(os.ReadFile(treePage)))
	head, rest, ok := strings.Cut(page, pairsBegin)
	_, rest, ok2 := strings.Cut(rest, pairsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", treePage)
	}
	if err := os.WriteFile(treePage, []byte(head+pairsTable(table)+rest), 0o644); err != nil {
		t.Fatal(err)
	}
}

const (
	pairsBegin = "<!-- pairs -->\n"
	pairsEnd   = "<!-- end of pairs -->\n"
)

// pairsTable is the table of outcomes as TREE.md has it.
func pairsTable(table [][]byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n    %-36s%s\n    %-36s%s\n", pairsBegin, "a does; b does:", columns(10), "", columns(1))
	for i, row := range table {
		fmt.Fprintf(&b, "    %2d %-33s%s\n", i, concurrentOps[i].name, row)
	}
	return b.String() + "\n" + pairsEnd
}

// columns is one digit of the number of each column.
func columns(unit int) string {
	var b strings.Builder
	for j := range concurrentOps {
		fmt.Fprint(&b, j/unit%10)
	}
	return b.String()
}
