package fs

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// conflicted makes two devices on which doc.txt was written apart, and dir/made was made twice.
func conflicted(t *testing.T) *devices {
	t.Helper()
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.create(a.root, "doc.txt", []byte("one\n"))
	a.create(a.root, "mine (conflict me 2026-11-27 ABCD).txt", []byte("not a copy"))
	a.dir0(a.root, "dir")
	d.settle()
	for _, h := range d.all {
		who := map[*testHome]string{a: "a", b: "b"}[h]
		h.write(h.in("doc.txt"), []byte("by "+who+"\n"), 0)
		h.create(h.in("dir"), "made", []byte("made by "+who))
	}
	d.settle()
	d.same()
	return d
}

// paths gives what is listed: the copies, and what they are copies of.
func (h *testHome) paths(at string) (copies, originals []string) {
	h.t.Helper()
	for _, c := range must2(h.Conflicts(at)) {
		copies, originals = append(copies, c.Path), append(originals, c.Original)
		if c.Device == "" || len(c.Date) != len("2026-11-27") || c.Gone || c.Object == "" {
			h.t.Errorf("%+v", c)
		}
	}
	return copies, originals
}

// TestConflicts: conflict copies are listed alike on all devices, by where they are and by what they are copies of, after a crash too;
// and not a file of a person that is called like one.
func TestConflicts(t *testing.T) {
	d := conflicted(t)
	a, b := d.all[0], d.all[1]
	copies, originals := a.paths("")
	if want := []string{"Personal/dir/made", "Personal/doc.txt"}; !slices.Equal(originals, want) {
		t.Fatalf("in conflict are %q, want %q", originals, want)
	}
	if other, _ := b.paths(""); !slices.Equal(copies, other) {
		t.Errorf("one device lists %q, the other %q", copies, other)
	}
	for at, want := range map[string]int{"Personal": 2, "Personal/dir": 1, "Personal/dir/made": 1, "Personal/doc.txt": 1, copies[1]: 1,
		"Personal/mine (conflict me 2026-11-27 ABCD).txt": 0} {
		if got, _ := a.paths(at); len(got) != want {
			t.Errorf("at %s are %q, want %d", at, got, want)
		}
		ino := must2(a.PathIno(at))
		if got := string(must2(a.Getxattr(ino, "user.anyfs.conflicts"))); got != string(rune('0'+want)) {
			t.Errorf("the attribute of %s is %q, want %d", at, got, want)
		}
	}
	if i := must2(a.Space(PersonalName)); i.Conflicts != 2 {
		t.Errorf("the space has %d conflicts", i.Conflicts)
	}
	if _, err := a.Conflicts("Personal/none"); !errors.Is(err, ErrNotExist) {
		t.Errorf("%v", err)
	}
	for _, x := range must2(a.Listxattr(a.in(strings.TrimPrefix(copies[0], "Personal/")))) {
		t.Errorf("a copy shows the attribute %s", x)
	}
	b.Home.abandon()
	b.sim = b.sim.Crash(func() disk.Keep { return disk.Drop })
	b.open()
	if got, _ := b.paths(""); !slices.Equal(got, copies) {
		t.Errorf("after a crash %q, want %q", got, copies)
	}
	// The original is found under another name, and a copy that a person renames is none.
	a.must(a.Rename(a.root, "doc.txt", a.root, "final.txt", 0))
	if _, got := a.paths("Personal/final.txt"); !slices.Equal(got, []string{"Personal/final.txt"}) {
		t.Errorf("after a rename it is of %q", got)
	}
	_, name, _ := cutLast(copies[1])
	a.must(a.Rename(a.root, name, a.root, "other.txt", 0))
	if got, _ := a.paths(""); len(got) != 1 {
		t.Errorf("after a copy is renamed there are %q", got)
	}
}

// TestResolveConflict: what is kept, from the copy's side and the original's, is kept on all devices.
func TestResolveConflict(t *testing.T) {
	for _, x := range []struct {
		name string
		copy bool // the path names the copy
		keep Keep
		want func(original, copy string) []string // contents afterwards
	}{
		{"this of the original", false, KeepThis, func(o, c string) []string { return []string{"doc.txt " + o} }},
		{"that of the original", false, KeepThat, func(o, c string) []string { return []string{"doc.txt " + c} }},
		{"both of the original", false, KeepBoth, func(o, c string) []string { return []string{"doc.txt " + o, "doc (2).txt " + c} }},
		{"this of the copy", true, KeepThis, func(o, c string) []string { return []string{"doc.txt " + c} }},
		{"that of the copy", true, KeepThat, func(o, c string) []string { return []string{"doc.txt " + o} }},
		{"both of the copy", true, KeepBoth, func(o, c string) []string { return []string{"doc.txt " + o, "doc (2).txt " + c} }},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := conflicted(t)
			a, b := d.all[0], d.all[1]
			list := must2(a.Conflicts("Personal/doc.txt"))
			if len(list) != 1 {
				t.Fatalf("%+v", list)
			}
			cut := func(p string) string { return strings.TrimPrefix(p, "Personal/") }
			o, c := string(a.read(a.in("doc.txt"))), string(a.read(a.in(cut(list[0].Path))))
			id := must2(a.Getxattr(a.in("doc.txt"), "user.anyfs.id"))
			path := list[0].Original
			if x.copy {
				path = list[0].Path
			}
			var events []Event
			cancel := a.Events(func(ev []Event) { events = append(events, ev...) })
			r, err := a.ResolveConflict(path, x.keep)
			cancel()
			if err != nil || r.Path != "Personal/doc.txt" || len(events) == 0 {
				t.Fatalf("%+v, %v, %d events", r, err, len(events))
			}
			d.settle()
			d.same()
			for _, h := range d.all {
				var got []string
				for _, line := range d.tree(h) {
					if strings.HasPrefix(line, "doc") {
						name, _, _ := strings.Cut(line, " 100644")
						got = append(got, name+" "+string(h.read(h.in(name))))
					}
				}
				want := x.want(o, c)
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("there is %q, want %q", got, want)
				}
				if list := must2(h.Conflicts("")); len(list) != 1 {
					t.Errorf("left is %+v", list)
				}
				if got := must2(h.Getxattr(h.in("doc.txt"), "user.anyfs.id")); string(got) != string(id) {
					t.Error("the document is another object")
				}
			}
			if _, err := b.ResolveConflict("Personal/doc.txt", KeepThis); !errors.Is(err, ErrNoConflict) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// TestResolveSeveral: of several copies one is chosen, and takes the place of all.
func TestResolveSeveral(t *testing.T) {
	d := newDevices(t, 3)
	a := d.all[0]
	a.create(a.root, "doc", []byte("zero"))
	d.settle()
	for i, h := range d.all {
		h.write(h.in("doc"), []byte{'b', 'y', ' ', byte('0' + i)}, 0)
	}
	d.settle()
	list := must2(a.Conflicts("Personal/doc"))
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	if _, err := a.ResolveConflict("Personal/doc", KeepThat); !errors.Is(err, ErrSeveral) {
		t.Errorf("that of several: %v", err)
	}
	_, name, _ := cutLast(list[1].Path)
	want := string(a.read(a.in(name)))
	if r, err := a.ResolveConflict(list[1].Path, KeepThis); err != nil || len(r.Removed) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	d.settle()
	d.same("doc 100644 " + `"` + want + `"`)
}

// TestResolveOverFolder: a file whose name a folder has can't take it.
func TestResolveOverFolder(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.create(a.root, "x", []byte("a file"))
	b.create(b.dir0(b.root, "x"), "inside", []byte("inside"))
	d.settle()
	list := must2(a.Conflicts(""))
	if len(list) != 1 || list[0].Original != "Personal/x" {
		t.Fatalf("%+v", list)
	}
	if _, err := a.ResolveConflict(list[0].Path, KeepThis); !errors.Is(err, ErrFolder) {
		t.Errorf("%v", err)
	}
	if r, err := a.ResolveConflict("Personal/x", KeepBoth); err != nil || !slices.Equal(r.Renamed, []string{"Personal/x (2)"}) {
		t.Errorf("%+v, %v", r, err)
	}
	d.settle()
	d.same()
	if list := must2(b.Conflicts("")); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}
