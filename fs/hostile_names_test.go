package fs

import (
	"encoding/binary"
	"errors"
	iofs "io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/nametest"
	"github.com/anyfs/anyfs/fs/tree"
)

// liar writes changes that no honest device makes: their payloads are put together here, and not by what checks them.
type liar struct {
	*testHome
	s *space
	b *dag.Builder
}

// cborBytes appends a byte string.
func cborBytes(p []byte, s string) []byte {
	switch n := len(s); {
	case n < 24:
		p = append(p, 0x40|byte(n))
	case n < 256:
		p = append(p, 0x58, byte(n))
	default:
		p = binary.BigEndian.AppendUint16(append(p, 0x59), uint16(n))
	}
	return append(p, s...)
}

// payloadHead begins a payload without listed ids, up to its operations; kind is that of the object which it makes.
func payloadHead(kind tree.Kind, ops int) []byte {
	return []byte{0x85, 1, byte(kind), 0, 0x80, 0x80 | byte(ops)}
}

func linkOp(p []byte, parent dag.ID, name string) []byte {
	p = append(p, 0x83, byte(tree.OpLink))
	return cborBytes(cborBytes(p, string(parent[:])), name)
}

// add puts a payload into the batch that is being written; of a new object, where object is zero.
func (l *liar) add(object dag.ID, payload []byte) dag.ID {
	l.t.Helper()
	if l.b == nil {
		l.b = must2(l.s.graph.Begin(l.keys.Author(), l.s.acl.Heads(), l.s.acl.Epoch()))
	}
	id, err := l.b.Add(object, func(h dag.Header) ([]byte, error) { return l.s.keys.SealChange(h, payload) })
	l.must(err)
	if n, size := l.b.Len(); n >= 100 || size > 500_000 {
		l.commit()
	}
	return id
}

func (l *liar) commit() {
	l.t.Helper()
	if l.b != nil {
		must2(l.b.Commit())
		l.b = nil
	}
}

// TestHostileMemberNames: a member that writes changes with the names of the corpus, and with names that are none, has none of these shown anywhere: not
// in the tree, nor in what shows the past, nor after a rebuild, nor by what a restore brings back. What is beside them in the same batch counts. The names
// that are names are shown as they are, each once.
func TestHostileMemberNames(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	d.settle()
	l := &liar{testHome: a, s: must2(a.namedSpace(PersonalName))}
	root := tree.RootObject(l.s.id)
	dir := l.add(dag.ID{}, linkOp(payloadHead(tree.KindDir, 1), root, "names"))
	var want []string
	for _, n := range nametest.All() {
		l.add(dag.ID{}, linkOp(payloadHead(tree.KindFile, 1), dir, n.Text))
		if tree.ValidName(n.Text) {
			want = append(want, n.Text)
		}
	}
	slices.Sort(want)
	if len(want) != len(nametest.Valid()) {
		t.Fatalf("%d of %d names are names to the tree", len(want), len(nametest.Valid()))
	}
	// Files, and a directory with something in it, that are moved to what is no name: they stay.
	stays := l.add(dag.ID{}, linkOp(payloadHead(tree.KindDir, 1), root, "stays"))
	inside := l.add(dag.ID{}, linkOp(payloadHead(tree.KindFile, 1), stays, "inside"))
	l.commit()
	for _, n := range nametest.Void() {
		for _, object := range []dag.ID{stays, inside} {
			p := append(payloadHead(0, 1), 0x86, byte(tree.OpMove), 1, 0, 0x82, 1, 0) // the link that the parent's first operation made, over its place there
			l.add(object, cborBytes(cborBytes(p, string(root[:])), n.Text))
			l.commit()
		}
	}
	// Links to everywhere, and such as no link says.
	links := l.add(dag.ID{}, linkOp(payloadHead(tree.KindSymlink, 1), root, "links")) // no directory
	targets := l.add(dag.ID{}, linkOp(payloadHead(tree.KindDir, 1), root, "targets"))
	_ = links
	for i, to := range append(nametest.Targets("/outside"), "", "a\x00b", strings.Repeat("t", 4096)) {
		p := linkOp(payloadHead(tree.KindSymlink, 2), targets, string(rune('A'+i)))
		l.add(dag.ID{}, cborBytes(append(p, 0x82, byte(tree.OpTarget)), to))
	}
	l.commit()
	c := a.another(a.keys.Account)
	must2(c.CreatePersonal())
	c.find()
	d.send(a, b)
	d.all = []*testHome{b, c} // what the liar itself shows is its own affair
	d.settle()

	shows := func(h *testHome, where string) {
		t.Helper()
		got := h.list(h.at(where))
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Fatalf("%s shows %q, want %q", where, got, want)
		}
	}
	void := func(h *testHome, dir Ino) {
		t.Helper()
		for _, n := range nametest.Void() {
			if at, err := h.Lookup(dir, n.Text); n.Text == viewName {
				if err != nil || !isView(at.Ino) {
					t.Errorf("%q is no view of the past: %v", n.Text, err)
				}
			} else if err == nil {
				t.Errorf("%q is found", n.Text)
			}
		}
	}
	for i, h := range d.all {
		shows(h, "Personal/names")
		void(h, h.at("Personal/names"))
		if got := h.list(h.at("Personal/stays")); !slices.Equal(got, []string{"inside"}) {
			t.Errorf("device %d: what was moved to no name: %q", i, got)
		}
		for j, to := range nametest.Targets("/outside") {
			at := h.look(h.at("Personal/targets"), string(rune('A'+j)))
			if got, err := h.Readlink(at); err != nil || got != to {
				t.Errorf("device %d: a link to %q says %q, %v", i, to, got, err)
			}
		}
		if got, most := len(h.list(h.at("Personal/targets"))), len(nametest.Targets("")); got != most {
			t.Errorf("device %d: %d links, %d can be", i, got, most)
		}
		if got := h.list(h.root); slices.Contains(got, viewName) || len(got) > 4 {
			t.Errorf("device %d: in the root: %q", i, got)
		}
	}
	same := func() {
		t.Helper()
		published := func(h *testHome) []string { // what ends in localSuffix, and is made here, stays here
			return slices.DeleteFunc(d.tree(h), func(line string) bool { return strings.Contains(line, localSuffix+" ") })
		}
		first := published(d.all[0])
		for i, h := range d.all {
			got := published(h)
			for j := range min(len(got), len(first)) {
				if got[j] != first[j] {
					t.Fatalf("device 0 shows\n%.300q\ndevice %d\n%.300q", first[j], i, got[j])
				}
			}
			if len(got) != len(first) {
				t.Fatalf("device 0 shows %d names, device %d %d", len(first), i, len(got))
			}
			// What was written that is nothing is counted, and is no damage of this home.
			v, err := h.Verify(t.Context(), nil)
			h.must(err)
			for _, p := range v.Problems {
				t.Errorf("device %d: %+v", i, p)
			}
			if want := 3*len(nametest.Void()) + 3; v.Void != want {
				t.Errorf("device %d: %d changes are none, of %d", i, v.Void, want)
			}
		}
	}
	same()

	// Deleted, and brought back: in the trash, in the versions and at a time each name is a name, and what comes back is what there was.
	b.tick(time.Minute)
	b.removeAll("Personal/names")
	b.flush()
	b.tick(time.Minute)
	past := b.FS(b.look(b.root, viewName))
	names := map[string]int{}
	b.must(iofs.WalkDir(past, "trash", func(p string, e iofs.DirEntry, err error) error {
		if err == nil && !tree.ValidName(e.Name()) {
			t.Errorf("in the past: %q", e.Name())
		}
		names[e.Name()]++
		return err
	}))
	for _, n := range want {
		if names[n] == 0 {
			t.Errorf("%q is not in the trash", n)
		}
	}
	b.restore("Personal/names", "", "")
	shows(b, "Personal/names")
	b.restore("Personal/names", b.log("Personal/names")[0].ID, "Personal/a/copy")
	shows(b, "Personal/a/copy")
	b.flush()
	d.settle()
	same()
	for _, n := range nametest.Void() {
		if _, err := b.Restore(t.Context(), "Personal/names", "", "Personal/to/"+n.Text); err == nil && len(n.Text) > 2 && !strings.Contains(n.Text, "/") {
			t.Errorf("restored to %q", n.Text)
		}
	}
	// A device that comes later, and reads it all at once, shows the same.
	e := a.another(a.keys.Account)
	must2(e.CreatePersonal())
	e.find()
	d.all = append(d.all, e)
	d.settle()
	same()
	shows(e, "Personal/names")
}

// TestVoidNames: no call makes what is no name, or moves something there; each says the errno that Linux says.
func TestVoidNames(t *testing.T) {
	th := newTestHome(t)
	file := th.create(th.root, "file", []byte("x"))
	before := th.list(th.root)
	errno := func(name string) syscall.Errno {
		switch {
		case name == "":
			return syscall.ENOENT
		case len(name) > MaxName:
			return syscall.ENAMETOOLONG
		case name == viewName:
			return syscall.EEXIST
		}
		return syscall.EINVAL // the kernel takes these for paths, or for the folder itself, and asks for none
	}
	for _, n := range nametest.Void() {
		c := Cred{1000, 1000}
		_, mknod := th.Mknod(th.root, n.Text, syscall.S_IFREG|0o644, 0, c)
		_, mkdir := th.Mkdir(th.root, n.Text, 0o755, c)
		_, symlink := th.Symlink(th.root, n.Text, "x", c)
		_, link := th.Link(file, th.root, n.Text)
		rename := th.Rename(th.root, "file", th.root, n.Text, 0)
		for what, err := range map[string]error{"mknod": mknod, "mkdir": mkdir, "symlink": symlink, "link": link, "rename": rename} {
			var got syscall.Errno
			if errors.As(err, &got); got != errno(n.Text) {
				t.Errorf("%s of %.40q: %v, not %v", what, n.Text, err, errno(n.Text))
			}
		}
		if err := th.Unlink(th.root, n.Text); err == nil {
			t.Errorf("%.40q was unlinked", n.Text)
		}
	}
	if got := th.list(th.root); !slices.Equal(got, before) {
		t.Errorf("%q", got)
	}
	th.verify()
}
