package fs

import (
	"context"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestTrashOfWhatCameBack: what one device removes while another gives it another name is not deleted, and neither calls it so; what was
// in a directory is found on both where the directory is now, and comes back from there.
func TestTrashOfWhatCameBack(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	dir := a.dir(t, a.root, "D")
	a.create(dir, "f1", []byte("one"))
	a.create(dir, "f2", []byte("two"))
	a.create(a.root, "file", []byte("three"))
	must2(a.Link(a.create(a.root, "several", []byte("four")), a.root, "other name"))
	d.settle()

	a.must(a.Rename(a.root, "D", a.root, "E", 0))
	a.must(a.Rename(a.root, "file", a.root, "renamed", 0))
	a.must(a.Rename(a.root, "several", a.root, "named anew", 0))
	b.removeBelow(b.root, "D")
	b.must(b.Unlink(b.root, "file"))
	b.must(b.Unlink(b.root, "several"))
	b.must(b.Unlink(b.root, "other name"))
	d.settle()
	d.same()

	deleted := func(h *testHome, path string) (names []string) {
		list, err := h.Deleted(path)
		h.must(err)
		for _, e := range list {
			names = append(names, e.Name)
		}
		slices.Sort(names)
		return names
	}
	check := func(when string) {
		t.Helper()
		for i, h := range d.all {
			if got := deleted(h, "Personal"); !slices.Equal(got, []string{"other name"}) {
				t.Errorf("%s: device %d calls deleted in the root: %q", when, i, got)
			}
			if got := deleted(h, "Personal/E"); !slices.Equal(got, []string{"f1", "f2"}) {
				t.Errorf("%s: device %d calls deleted in E: %q", when, i, got)
			}
			for _, gone := range []string{"Personal/D", "Personal/file"} {
				if _, err := h.Restore(context.Background(), gone, "", ""); !errors.Is(err, ErrNotExist) {
					t.Errorf("%s: device %d restores %s: %v", when, i, gone, err)
				}
			}
		}
	}
	check("at once")
	for _, h := range d.all {
		h.kill()
		h.must(h.arriveAll())
	}
	check("after a kill")

	for i, h := range d.all {
		name := []string{"f1", "f2"}[i]
		must2(h.Restore(context.Background(), "Personal/E/"+name, "", ""))
	}
	d.settle()
	d.same()
	for _, h := range d.all {
		e := h.look(h.root, "E")
		h.wantContent(e, "f1", []byte("one"))
		h.wantContent(e, "f2", []byte("two"))
		if got := deleted(h, "Personal/E"); len(got) > 0 {
			t.Errorf("still deleted in E: %q", got)
		}
	}
}

func (th *testHome) isDir(path string) bool {
	return must2(th.Getattr(th.at(path))).Mode&syscall.S_IFMT == syscall.S_IFDIR
}

// TestPastOnOtherDevices: what was deleted, and how directories were at any time, is the same on the devices that did it, on one that was
// along, and on one that comes in the end.
func TestPastOnOtherDevices(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDevices(t, 4)
		along, last := d.all[2], d.all[3]
		exchange := func(all ...*testHome) {
			for range 2 {
				for _, a := range all {
					for _, b := range all {
						if a != b {
							d.send(a, b)
						}
					}
				}
			}
		}
		later := func() {
			for _, h := range d.all {
				h.skew.Add(int64(time.Minute))
			}
		}
		var times []string
		names := []string{"a", "b", "c"}
		for step := range rapid.IntRange(3, 14).Draw(rt, "steps") {
			h := d.all[rapid.IntRange(0, 1).Draw(rt, "device")]
			dirs := []string{"Personal"}
			var files []string
			var walk func(dir string)
			walk = func(dir string) {
				in := h.list(h.at(dir))
				slices.Sort(in)
				for _, name := range in {
					if p := dir + "/" + name; h.isDir(p) {
						dirs = append(dirs, p)
						walk(p)
					} else {
						files = append(files, p)
					}
				}
			}
			walk("Personal")
			dir := rapid.SampledFrom(dirs).Draw(rt, "dir")
			name := rapid.SampledFrom(names).Draw(rt, "name")
			at, free := h.at(dir), true
			for _, n := range h.list(at) {
				free = free && n != name
			}
			later()
			switch op := rapid.SampledFrom([]string{"create", "mkdir", "move", "link", "remove", "move", "remove", "restore"}).Draw(rt, "op"); {
			case op == "create" && free:
				h.create(at, name, []byte(dir+name+strconv.Itoa(step)))
			case op == "mkdir" && free && len(dirs) < 5:
				h.dir(t, at, name)
			case op == "link" && free && len(files) > 0:
				must2(h.Link(h.at(rapid.SampledFrom(files).Draw(rt, "of")), at, name))
			case op == "move" && free && len(files)+len(dirs) > 1:
				from := rapid.SampledFrom(append(files, dirs[1:]...)).Draw(rt, "from")
				if !strings.HasPrefix(dir+"/", from+"/") {
					h.must(h.Rename(h.at(path.Dir(from)), path.Base(from), at, name, 0))
				}
			case op == "remove" && !free:
				h.removeBelow(at, name)
			case op == "restore" && free:
				if gone := h.deleted(dir); len(gone) > 0 {
					if p := rapid.SampledFrom(gone).Draw(rt, "gone").Path; !slices.Contains(h.list(at), path.Base(p)) {
						must2(h.Restore(context.Background(), p, "", ""))
					}
				}
			}
			if rapid.Bool().Draw(rt, "both") || step%2 == 1 {
				exchange(d.all[:2]...)
			}
			if rapid.Bool().Draw(rt, "along") {
				exchange(d.all[:3]...)
			}
			later()
			exchange(d.all[:2]...)
			times = append(times, d.all[0].clock().Format(time.RFC3339Nano))
		}
		exchange(d.all[:3]...)
		exchange(d.all...)
		d.same()

		past := func(h *testHome) (lines []string) {
			var walk func(prefix string, dir Ino)
			walk = func(prefix string, dir Ino) {
				names := h.list(dir)
				slices.Sort(names)
				for _, name := range names {
					a := h.sub(dir, name)
					lines = append(lines, prefix+"/"+name)
					if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
						walk(prefix+"/"+name, a.Ino)
					}
				}
			}
			for i, at := range times {
				walk("step "+strconv.Itoa(i), h.sub(h.root, ".anyfs/at/"+at).Ino)
			}
			var deleted func(path string)
			deleted = func(path string) {
				list, err := h.Deleted(path)
				h.must(err)
				for _, e := range list {
					lines = append(lines, "deleted "+e.Path+" "+e.Object[len(e.Object)-8:])
				}
				for _, name := range h.list(h.at(path)) {
					if p := path + "/" + name; h.isDir(p) {
						deleted(p)
					}
				}
			}
			deleted("Personal")
			slices.Sort(lines)
			return lines
		}
		want := past(d.all[0])
		for i, h := range []*testHome{d.all[1], along, last} {
			if got := past(h); !slices.Equal(got, want) {
				rt.Fatalf("the past on device 0\n  %s\non the %s\n  %s", strings.Join(want, "\n  "), []string{"second", "one along", "last"}[i], strings.Join(got, "\n  "))
			}
		}
	})
}

// TestPastOfADirectoryThatMovedUnseen: a device that hears at once of a directory that was made, filled and moved shows what was in it before the move, when it is gone
// too.
func TestPastOfADirectoryThatMovedUnseen(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	later := func() {
		for _, h := range d.all {
			h.skew.Add(int64(time.Minute))
		}
	}
	both := func() {
		d.send(a, b)
		d.send(b, a)
		later()
	}
	a.dir(t, a.root, "c")
	both()
	a.dir(t, a.dir(t, a.root, "b"), "in")
	a.flush()
	later()
	at := a.clock().Format(time.RFC3339Nano)
	later()
	a.must(a.Rename(a.root, "b", a.look(a.root, "c"), "b", 0))
	a.flush()
	both()
	a.removeBelow(a.root, "c")
	a.flush()
	both()
	for i, h := range d.all {
		if got := h.list(h.sub(h.root, ".anyfs/at/"+at+"/b").Ino); !slices.Equal(got, []string{"in"}) {
			t.Errorf("device %d: in b were %q", i, got)
		}
	}
}
