package fs

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// crossed gives each of two devices what the other had published, at once: each ends the conflicts of that before it hears how the other did.
func (d *devices) crossed(a, b *testHome) {
	d.t.Helper()
	ctx := context.Background()
	sa, sb := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	a.must(sa.publishAll(ctx))
	b.must(sb.publishAll(ctx))
	toB, toA := sa.lackedBy(d.t, sb), sb.lackedBy(d.t, sa)
	sb.takes(d.t, toB)
	sa.takes(d.t, toA)
	a.must(sa.arrive(ctx))
	b.must(sb.arrive(ctx))
}

// crossedCopy makes a conflict on two devices, which both end it before they hear of one another, and gives the name of the copy, in case.
func (d *devices) crossedCopy(make func(a, b *testHome)) string {
	d.t.Helper()
	a, b := d.all[0], d.all[1]
	a.create(a.dir0(a.root, "case"), "old", []byte("first\n"))
	a.create(a.root, "other", []byte("other\n"))
	d.settle()
	d.sendBlocks(a, b)
	d.sendBlocks(b, a)
	make(a, b)
	d.crossed(a, b)
	d.same()
	return d.copyIn(a, "case")
}

// copyIn gives the name of the one conflict copy in a folder.
func (d *devices) copyIn(h *testHome, dir string) (name string) {
	d.t.Helper()
	for _, n := range h.list(h.in(dir)) {
		if strings.Contains(n, " (conflict ") {
			if name != "" {
				d.t.Fatalf("%s has the copies %q and %q", dir, name, n)
			}
			name = n
		}
	}
	if name == "" {
		d.t.Fatalf("%q in %s, and no conflict copy", h.list(h.in(dir)), dir)
	}
	return name
}

// copiesOf are ways in which two devices make a conflict at once: of contents, and of names.
var copiesOf = []struct {
	what string
	make func(a, b *testHome)
}{
	{"contents", func(a, b *testHome) {
		a.write(a.in("case/old"), []byte("by a\n"), 0)
		b.write(b.in("case/old"), []byte("by b\n"), 0)
	}},
	{"large contents", func(a, b *testHome) {
		a.write(a.in("case/old"), bytes.Repeat([]byte("by a\n"), 9000), 0)
		b.write(b.in("case/old"), bytes.Repeat([]byte("by b\n"), 9000), 0)
	}},
	{"files", func(a, b *testHome) {
		a.create(a.in("case"), "f", []byte("by a\n"))
		b.create(b.in("case"), "f", []byte("by b\n"))
	}},
	{"symlinks", func(a, b *testHome) {
		must2(a.Symlink(a.in("case"), "f", "a", Cred{1000, 1000}))
		must2(b.Symlink(b.in("case"), "f", "b", Cred{1000, 1000}))
	}},
	{"a file and a folder", func(a, b *testHome) {
		a.create(a.in("case"), "f", []byte("by a\n"))
		b.dir0(b.in("case"), "f")
	}},
}

// TestCopyRemovedBeforeItsTwin: two devices end a conflict by equal copies, which show as one. What a person does to the copy before the other
// device's has come is what becomes of both.
func TestCopyRemovedBeforeItsTwin(t *testing.T) {
	resolve := func(keep Keep) func(h *testHome, name string) {
		return func(h *testHome, name string) { must2(h.ResolveConflict("Personal/case/"+name, keep)) }
	}
	for i, does := range []struct {
		what string
		do   func(h *testHome, name string)
	}{
		{"unlink", func(h *testHome, name string) { h.must(h.Unlink(h.in("case"), name)) }},
		{"rename", func(h *testHome, name string) { h.must(h.Rename(h.in("case"), name, h.in("case"), "mine", 0)) }},
		{"move", func(h *testHome, name string) { h.must(h.Rename(h.in("case"), name, h.root, name, 0)) }},
		{"rename and remove", func(h *testHome, name string) {
			h.must(h.Rename(h.in("case"), name, h.root, "x", 0))
			h.publishes()
			h.must(h.Unlink(h.root, "x"))
		}},
		{"rename over", func(h *testHome, name string) { h.must(h.Rename(h.in("case"), name, h.root, "other", 0)) }},
		{"exchange", func(h *testHome, name string) { h.must(h.Rename(h.in("case"), name, h.root, "other", RenameExchange)) }},
		{"resolve, keep this", resolve(KeepThis)},
		{"resolve, keep that", resolve(KeepThat)},
		{"resolve, keep both", resolve(KeepBoth)},
		{"remove the folder", func(h *testHome, name string) { h.removeAll("Personal/case") }},
		{"move, then remove the folder", func(h *testHome, name string) {
			h.must(h.Rename(h.in("case"), name, h.root, "mine", 0))
			h.removeAll("Personal/case")
		}},
	} {
		for j, of := range copiesOf {
			if of.what == "a file and a folder" && does.what == "resolve, keep this" {
				continue // what a folder has can't be taken
			}
			for who := range 2 {
				how := []string{"published", "not published", "in steps", "killed"}[(i+j+2*who)%4]
				t.Run(fmt.Sprintf("%s/%s by %d, %s", does.what, of.what, who, how), func(t *testing.T) {
					d := newDevices(t, 2)
					name := d.crossedCopy(of.make)
					h, other := d.all[who], d.all[1-who]
					does.do(h, name)
					want := d.tree(h)
					switch how {
					case "not published": // the other's comes first
						h.takes(other)
						if got := d.tree(h); !slices.Equal(got, want) {
							t.Fatalf("the device shows\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
						}
					case "in steps":
						d.send(h, other)
						d.send(other, h)
					case "killed":
						h.must(h.SyncAll(context.Background()))
						h.kill()
					}
					d.settle()
					d.same(want...)
				})
			}
		}
	}
}

// takes takes what another device has published.
func (th *testHome) takes(other *testHome) {
	th.t.Helper()
	s := must2(th.namedSpace(PersonalName))
	s.takes(th.t, must2(other.namedSpace(PersonalName)).lackedBy(th.t, s))
	th.must(s.arrive(context.Background()))
}

// TestTwinThatIsTouched: of a copy that one device removed, the other's is kept where something was done to it that a removal does not go
// before.
func TestTwinThatIsTouched(t *testing.T) {
	for does, do := range map[string]func(h *testHome, name string){
		"write":  func(h *testHome, name string) { h.write(h.in("case/"+name), []byte("edited\n"), 0) },
		"rename": func(h *testHome, name string) { h.must(h.Rename(h.in("case"), name, h.in("case"), "kept", 0)) },
		"move":   func(h *testHome, name string) { h.must(h.Rename(h.in("case"), name, h.root, name, 0)) },
		"link":   func(h *testHome, name string) { must2(h.Link(h.in("case/"+name), h.in("case"), "kept")) },
	} {
		for _, of := range copiesOf[:3] {
			for who := range 2 {
				t.Run(fmt.Sprintf("%s/%s by %d", does, of.what, who), func(t *testing.T) {
					d := newDevices(t, 2)
					name := d.crossedCopy(of.make)
					h, other := d.all[who], d.all[1-who]
					do(h, name)
					want := d.tree(h)
					if does == "link" { // what has a name more keeps that
						want = slices.DeleteFunc(want, func(l string) bool { return strings.Contains(l, name) })
					}
					other.must(other.Unlink(other.in("case"), name))
					d.settle()
					d.same(want...)
				})
			}
		}
	}
}

// TestCopyRestoredBeforeItsTwin: a copy that was removed and restored is there, however that crosses the other device's.
func TestCopyRestoredBeforeItsTwin(t *testing.T) {
	ctx := context.Background()
	for _, of := range copiesOf[:4] {
		for _, when := range []string{"before it came", "after it came", "after it went"} {
			for _, aside := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, aside %v", of.what, when, aside), func(t *testing.T) {
					d := newDevices(t, 2)
					name := d.crossedCopy(of.make)
					a, b := d.all[0], d.all[1]
					path, to := "Personal/case/"+name, ""
					want := d.tree(a)
					a.must(a.Unlink(a.in("case"), name))
					switch when {
					case "after it came":
						d.send(b, a)
					case "after it went":
						d.settle()
					}
					if aside {
						to = path
					}
					must2(a.Restore(ctx, path, "", to))
					d.settle()
					d.same(want...)
					a.must(a.Unlink(a.in("case"), name))
					d.settle()
					if left := b.list(b.in("case")); slices.Contains(left, name) {
						t.Errorf("removed again there is %q", left)
					}
				})
			}
		}
	}
}

// TestTwinThatIsTouchedUnpublished: what a person does to a copy stays where the news that another device removed its twin comes before that is
// published; and a file that is open and has no name any more disturbs nothing.
func TestTwinThatIsTouchedUnpublished(t *testing.T) {
	for does, do := range map[string]func(h *testHome, name string) (gone bool){
		"write": func(h *testHome, name string) bool { h.write(h.in("case/"+name), []byte("edited\n"), 0); return false },
		"rename": func(h *testHome, name string) bool {
			h.must(h.Rename(h.in("case"), name, h.in("case"), "kept", 0))
			return false
		},
		"write and rename": func(h *testHome, name string) bool {
			h.write(h.in("case/"+name), []byte("edited\n"), 0)
			h.must(h.Rename(h.in("case"), name, h.root, "kept", 0))
			return false
		},
		"link": func(h *testHome, name string) bool {
			must2(h.Link(h.in("case/"+name), h.in("case"), "kept"))
			return true
		},
		"save over it": func(h *testHome, name string) bool {
			h.create(h.in("case"), "tmp", []byte("saved\n"))
			h.must(h.Rename(h.in("case"), "tmp", h.in("case"), name, 0))
			return false
		},
		"unlink and make anew": func(h *testHome, name string) bool {
			h.must(h.Unlink(h.in("case"), name))
			h.create(h.in("case"), name, []byte("anew\n"))
			return false
		},
	} {
		for _, at := range []int{0, 2} {
			for who := range 2 {
				t.Run(fmt.Sprintf("%s/%s by %d", does, copiesOf[at].what, who), func(t *testing.T) {
					d := newDevices(t, 2)
					name := d.crossedCopy(copiesOf[at].make)
					h, other := d.all[who], d.all[1-who]
					other.must(other.Unlink(other.in("case"), name))
					must2(other.namedSpace(PersonalName)).publishAll(context.Background())
					gone := do(h, name)
					want := d.tree(h)
					if gone {
						want = slices.DeleteFunc(want, func(l string) bool { return strings.Contains(l, name) })
					}
					h.takes(other)
					h.takes(other)
					d.settle()
					d.same(want...)
				})
			}
		}
	}
}

// TestUnpublishedNames: what ends conflicts finds what was removed or renamed here among much that is dirty, also where that was made while
// the file was being published; and it looks at what is dirty once.
func TestUnpublishedNames(t *testing.T) {
	th := newTestHome(t)
	s := th.spaceOf(th.root)
	th.create(th.root, "published", nil)
	th.flush()
	for i := range 100 {
		th.create(th.root, fmt.Sprint(i), nil)
	}
	names := func(want, left int) {
		t.Helper()
		s.checkNames(t)
		s.mu.Lock()
		defer s.mu.Unlock()
		got, err := s.unpublishedNames()
		th.must(err)
		if len(got) != want || len(s.touched) != left {
			t.Fatalf("%d objects have names to publish, and %d inodes are looked at again; want %d and %d", len(got), len(s.touched), want, left)
		}
	}
	names(0, 0)
	th.must(th.Rename(th.root, "published", th.root, "renamed", 0))
	names(1, 1)
	s.commitUnnoted(t)
	th.must(th.Rename(th.root, "1", th.root, "one", 0))
	th.must(th.Unlink(th.root, "2"))
	names(1, 1)
	s.pubMu.Lock()
	err := s.note(context.Background())
	s.pubMu.Unlock()
	th.must(err)
	names(2, 2)
	th.flush()
	names(0, 0)
}
