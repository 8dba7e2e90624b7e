package fs

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// concurrentOps are what one device does to a tree that another has too: dir/f, dir/g, dir/sub/h, other/ and a second name of f,
// other/f2. who distinguishes what the two write.
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

// TestConcurrentPairs: whatever two devices do at once, they end with one tree, their indexes say what the history says, and what
// both wrote is there.
func TestConcurrentPairs(t *testing.T) {
	n := len(concurrentOps)
	for i := range n {
		var d *devices
		for j := range n {
			if d == nil || j%8 == 0 { // after a failure, too
				d = newDevices(t, 2)
			}
			x, y := &concurrentOps[i], &concurrentOps[j]
			if !t.Run(x.name+"/"+y.name, func(t *testing.T) {
				if testing.Short() && (i+j)%5 != 0 {
					return // a fifth is run
				}
				d.t = t
				for _, h := range d.all {
					h.t = t
				}
				a, b := d.all[0], d.all[1]
				roots := []Ino{a.root, b.root}
				defer func() { a.root, b.root = roots[0], roots[1] }()
				// Each cell in a folder of its own.
				cell := fmt.Sprintf("%d %d", i, j)
				a.root = a.dir0(a.root, cell)
				dir := a.dir0(a.root, "dir")
				a.create(dir, "f", []byte("one\ntwo\nthree\n"))
				a.create(dir, "g", []byte("g\n"))
				a.create(a.dir0(dir, "sub"), "h", []byte("h\n"))
				must2(a.Link(a.in("dir/f"), a.dir0(a.root, "other"), "f2"))
				d.settle()
				b.root = b.look(b.root, cell)
				x.do(a, "a")
				y.do(b, "b")
				d.settle()
				d.same()
				whole := strings.Join(d.tree(a), "\n")
				for who, text := range map[string]string{"a": x.text, "b": y.text} {
					if text = strings.ReplaceAll(text, "WHO", who); text != "" && !strings.Contains(whole, text) {
						t.Errorf("%q is lost:\n%s", text, whole)
					}
				}
				t.Logf("\n%s", whole)
				// What is removed stays so.
				for _, name := range a.list(a.root) {
					a.removeBelow(a.root, name)
				}
				d.settle()
				if d.same(); len(d.tree(a)) > 0 {
					t.Errorf("what was removed came back:\n%s", strings.Join(d.tree(a), "\n"))
				}
			}) {
				d = nil
			}
		}
	}
}
