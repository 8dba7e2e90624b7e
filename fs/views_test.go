package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sub finds a path below a directory.
func (th *testHome) sub(dir Ino, path string) Attr {
	th.t.Helper()
	var a Attr
	for _, name := range strings.Split(path, "/") {
		var err error
		if a, err = th.Lookup(dir, name); err != nil {
			th.t.Fatalf("%s of %s: %v", name, path, err)
		}
		dir = a.Ino
	}
	return a
}

func (th *testHome) noSub(dir Ino, path string) {
	th.t.Helper()
	parts := strings.Split(path, "/")
	if n := len(parts) - 1; n > 0 {
		dir = th.sub(dir, strings.Join(parts[:n], "/")).Ino
	}
	if a, err := th.Lookup(dir, parts[len(parts)-1]); !errors.Is(err, ErrNotExist) {
		th.t.Fatalf("%s: %+v %v", path, a, err)
	}
}

func (th *testHome) wantList(dir Ino, path string, want ...string) {
	th.t.Helper()
	got := th.list(th.sub(dir, path).Ino)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		th.t.Fatalf("%s lists %q, not %q", path, got, want)
	}
}

func TestVersionsView(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	var want [][]byte
	ino := th.create(d, "note.txt", nil)
	for i := range 5 {
		want = append(want, random(uint64(i), 1000<<(3*i)))
		th.save(ino, want[i])
		th.flush()
		th.tick(time.Second)
	}
	if slices.Contains(th.list(d), ".anyfs") {
		t.Fatal(".anyfs is listed")
	}
	th.wantList(d, ".anyfs", "at", "trash", "versions")
	th.wantList(d, ".anyfs/versions", "note.txt")
	check := func() {
		t.Helper()
		dir := th.sub(d, ".anyfs/versions/note.txt")
		names := th.list(dir.Ino)
		slices.Sort(names)
		if len(names) != len(want) {
			t.Fatalf("%d versions: %q", len(names), names)
		}
		vs := th.contents("Personal/d/note.txt")
		for i, name := range names {
			v := vs[len(vs)-1-i]
			if name != v.Time.UTC().Format("2006-01-02T15:04:05.000Z")+"-"+v.Short+".txt" {
				t.Fatalf("%s for version %s of %s", name, v.ID, v.Time.UTC())
			}
			a := th.sub(d, ".anyfs/versions/note.txt/"+name)
			if !isView(a.Ino) || a.Size != int64(len(want[i])) || a.Mode != 0100444 || a.Mtime > v.Time.UnixNano() || a.UID != 1000 {
				t.Fatalf("%s: %+v", name, a)
			}
			if b := th.read(a.Ino); !bytes.Equal(b, want[i]) {
				t.Fatalf("%s differs", name)
			}
			if id, err := th.Getxattr(a.Ino, "user.anyfs.id"); err != nil || string(id) != v.Object {
				t.Fatalf("id %q %v", id, err)
			}
			if id, err := th.Getxattr(a.Ino, "user.anyfs.version"); err != nil || string(id) != v.ID {
				t.Fatalf("version %q %v", id, err)
			}
		}
	}
	check()
	th.must(th.Unlink(d, "note.txt"))
	check()
	th.wantList(d, ".anyfs/versions", "note.txt")
	th.reopen()
	check()
	// Another file of the name has its versions beside those of the one that was deleted.
	th.tick(time.Minute)
	want = append(want, []byte("new file"))
	th.create(d, "note.txt", want[5])
	names := th.list(th.sub(d, ".anyfs/versions/note.txt").Ino)
	if len(names) != 6 {
		t.Fatalf("%q", names)
	}
	th.noSub(d, ".anyfs/versions/none")
	th.noSub(d, ".anyfs/versions/note.txt/none")
	th.noSub(d, ".anyfs/.anyfs")
	if _, err := th.Lookup(th.at("Personal/d/note.txt"), ".anyfs"); !errors.Is(err, ErrNotDir) {
		t.Fatal(err)
	}
}

func TestAtView(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	sub := th.mkdir(d, "sub")
	f := th.create(d, "f", []byte("one"))
	th.create(d, "gone", []byte("gone"))
	th.create(d, "moved", []byte("moved"))
	th.create(d, "renamed", []byte("renamed"))
	th.create(sub, "deep", random(3, 300<<10))
	_, err := th.Symlink(d, "link", "f", Cred{1000, 1000})
	th.must(err)
	th.must(th.Setxattr(f, "user.x", []byte("1"), 0))
	th.flush()
	then := th.clock()
	th.tick(90 * time.Minute)
	th.save(f, []byte("two"))
	th.must(th.Unlink(d, "gone"))
	th.must(th.Rename(d, "moved", th.root, "moved", 0))
	th.must(th.Rename(d, "renamed", d, "called", 0))
	th.removeAll("Personal/d/sub")
	th.create(d, "newer", []byte("newer"))
	th.flush()
	check := func() {
		t.Helper()
		for _, at := range []string{then.Format("2006-01-02T15:04:05.000000000"), then.UTC().Format("2006-01-02T15:04:05.999999999Z"), then.Format("2006-01-02T15:04:05")} {
			path := ".anyfs/at/" + at
			th.wantList(d, path, "f", "gone", "moved", "renamed", "sub", "link")
			th.wantList(d, path+"/sub", "deep")
			for name, want := range map[string]string{"f": "one", "gone": "gone", "moved": "moved", "renamed": "renamed"} {
				a := th.sub(d, path+"/"+name)
				if got := th.read(a.Ino); string(got) != want || a.Mode != 0100444 {
					t.Fatalf("%s holds %q: %+v", name, got, a)
				}
			}
			if !bytes.Equal(th.read(th.sub(d, path+"/sub/deep").Ino), random(3, 300<<10)) {
				t.Fatal("deep")
			}
			if target, err := th.Readlink(th.sub(d, path+"/link").Ino); err != nil || target != "f" {
				t.Fatal(target, err)
			}
			if x, err := th.Getxattr(th.sub(d, path+"/f").Ino, "user.x"); err != nil || string(x) != "1" {
				t.Fatal(x, err)
			}
			th.noSub(d, path+"/newer")
			th.noSub(d, path+"/called")
			th.noSub(th.root, strings.Replace(path, ".anyfs", ".anyfs", 1)+"/moved")
			if got := th.read(th.sub(th.root, path+"/d/f").Ino); string(got) != "one" {
				t.Fatalf("from the root: %q", got)
			}
		}
		th.wantList(d, ".anyfs/at/"+then.Add(-time.Hour).Format(time.RFC3339))
		th.wantList(d, ".anyfs/at/"+th.clock().Format(time.RFC3339Nano), "f", "called", "link", "newer")
		if got := th.read(th.sub(RootIno, ".anyfs/at/"+then.Format(time.RFC3339Nano)+"/Personal/d/f").Ino); string(got) != "one" {
			t.Fatalf("from the root of the home: %q", got)
		}
	}
	check()
	th.kill()
	check()
	days := th.list(th.sub(d, ".anyfs/at").Ino)
	if !slices.Contains(days, then.Format("2006-01-02")) {
		t.Fatalf("days %q", days)
	}
	th.noSub(d, ".anyfs/at/yesterday")
}

func TestTrashView(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	for i := range 3 {
		th.create(d, "f.txt", fmt.Append(nil, "f", i))
		th.flush()
		th.tick(time.Minute)
		th.must(th.Unlink(d, "f.txt"))
	}
	sub := th.mkdir(d, "sub")
	th.create(sub, "x", []byte("x"))
	th.create(th.mkdir(sub, "deeper"), "y", random(1, 100<<10))
	th.flush()
	th.removeAll("Personal/d/sub")
	check := func() {
		t.Helper()
		names := th.list(th.sub(d, ".anyfs/trash").Ino)
		slices.Sort(names)
		if len(names) != 4 || names[2] != "f.txt" || names[3] != "sub" || !strings.HasPrefix(names[0], "f (deleted 20") || !strings.HasSuffix(names[0], "Z).txt") {
			t.Fatalf("%q", names)
		}
		for name, want := range map[string]string{names[0]: "f0", names[1]: "f1", names[2]: "f2", "sub/x": "x"} {
			if got := th.read(th.sub(d, ".anyfs/trash/"+name).Ino); string(got) != want {
				t.Fatalf("%s holds %q, not %q", name, got, want)
			}
		}
		th.wantList(d, ".anyfs/trash/sub", "x", "deeper")
		if !bytes.Equal(th.read(th.sub(d, ".anyfs/trash/sub/deeper/y").Ino), random(1, 100<<10)) {
			t.Fatal("y")
		}
	}
	check()
	th.kill()
	check()
	th.restore("Personal/d/sub", "", "")
	if got := th.list(th.sub(d, ".anyfs/trash").Ino); len(got) != 3 {
		t.Fatalf("%q", got)
	}
}

func TestViewsAreReadOnly(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	th.create(d, "f", []byte("one"))
	th.flush()
	top := th.sub(d, ".anyfs").Ino
	dir := th.sub(d, ".anyfs/at/"+th.clock().Format(time.RFC3339Nano)).Ino
	f := th.sub(dir, "f").Ino
	ctx := context.Background()
	size := int64(0)
	calls := map[string]func() error{}
	for name, at := range map[string]Ino{"top": top, "dir": dir} {
		calls["mknod "+name] = func() error { _, err := th.Mknod(at, "x", 0100644, 0, Cred{}); return err }
		calls["mkdir "+name] = func() error { _, err := th.Mkdir(at, "x", 0755, Cred{}); return err }
		calls["symlink "+name] = func() error { _, err := th.Symlink(at, "x", "y", Cred{}); return err }
		calls["tmpfile "+name] = func() error { _, err := th.Tmpfile(at, 0644, Cred{}); return err }
		calls["link "+name] = func() error { _, err := th.Link(th.look(d, "f"), at, "x"); return err }
		calls["unlink "+name] = func() error { return th.Unlink(at, "f") }
		calls["rmdir "+name] = func() error { return th.Rmdir(at, "f") }
		calls["rename from "+name] = func() error { return th.Rename(at, "f", d, "g", 0) }
		calls["rename to "+name] = func() error { return th.Rename(d, "f", at, "g", 0) }
	}
	calls["write"] = func() error { _, err := th.Write(ctx, f, []byte("x"), 0, WriteFlags{}); return err }
	calls["truncate"] = func() error { _, err := th.Setattr(ctx, f, SetAttr{Size: &size}); return err }
	calls["setxattr"] = func() error { return th.Setxattr(f, "user.x", nil, 0) }
	calls["fallocate"] = func() error { return th.Fallocate(ctx, f, 0, 0, 10) }
	calls["copy"] = func() error { _, err := th.CopyRange(ctx, th.look(d, "f"), 0, f, 0, 1); return err }
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
	th.must(th.Fsync(ctx, f))
	if _, err := th.Mkdir(d, ".anyfs", 0755, Cred{}); !errors.Is(err, ErrExist) {
		t.Errorf("mkdir .anyfs: %v", err)
	}
	if p, err := th.Parent(dir); err != nil || p != th.sub(d, ".anyfs/at").Ino {
		t.Errorf("parent: %v %v", p, err)
	}
	if p, err := th.Parent(top); err != nil || p != d {
		t.Errorf("parent of .anyfs: %v %v", p, err)
	}
}

// TestViewTableIsBounded looks up more virtual inodes than are kept; what is referenced stays.
func TestViewTableIsBounded(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	th.create(d, "f", []byte("one"))
	th.flush()
	at := th.sub(d, ".anyfs/at").Ino
	th.Ref(at)
	held := th.sub(at, th.clock().Format(time.RFC3339Nano)).Ino
	th.Ref(held)
	f := th.sub(held, "f").Ino
	for i := range maxIdleViews + 100 {
		th.sub(at, time.Unix(int64(i), 0).UTC().Format(time.RFC3339))
	}
	if n := len(th.views.nodes); n > maxIdleViews+10 {
		t.Fatalf("%d nodes", n)
	}
	if _, err := th.Getattr(held); err != nil {
		t.Fatal(err)
	}
	if _, err := th.Getattr(f); !errors.Is(err, ErrStale) {
		t.Fatalf("what nobody holds: %v", err)
	}
	if again := th.sub(held, "f").Ino; again != f {
		t.Fatal("the number changed")
	}
	th.Unref(held)
	th.Unref(at)
	th.Unref(at)
	th.Unref(12345 | viewBit)
}

// TestViewsShowHoles: a sparse file in each view has the holes that it had, with a patch over it and without, and claims no
// more of the disk than its data.
func TestViewsShowHoles(t *testing.T) {
	th := newTestHome(t)
	const size, piece = int64(1 << 30), 32 << 10
	a, err := th.Mknod(th.root, "s", 0100644, 0, Cred{1000, 1000})
	th.must(err)
	long := size
	_, err = th.Setattr(context.Background(), a.Ino, SetAttr{Size: &long})
	th.must(err)
	marks := []int64{0, 1 << 20, 500 << 20}
	for i, off := range marks {
		th.write(a.Ino, random(uint64(i), piece), off)
	}
	th.flush()
	th.tick(time.Minute)
	th.write(a.Ino, []byte("a patch"), 800<<20)
	th.flush()
	patched := append(slices.Clone(marks), 800<<20)
	then := th.clock().Format(time.RFC3339Nano)
	th.tick(time.Minute)
	th.must(th.Unlink(th.root, "s"))
	th.flush()

	versions := th.list(th.sub(th.root, ".anyfs/versions/s").Ino)
	slices.Sort(versions)
	var withData []string
	for _, v := range versions {
		if a := th.sub(th.root, ".anyfs/versions/s/"+v); a.Blocks > 0 {
			withData = append(withData, ".anyfs/versions/s/"+v)
		}
	}
	if len(withData) != 2 {
		t.Fatalf("versions with data: %q of %q", withData, versions)
	}
	for path, want := range map[string][]int64{
		withData[0]: marks, withData[1]: patched, ".anyfs/at/" + then + "/s": patched, ".anyfs/trash/s": patched,
	} {
		a := th.sub(th.root, path)
		if a.Size != size || a.Blocks*512 > 4*piece {
			t.Errorf("%s: %d bytes, of which %d blocks are data", path, a.Size, a.Blocks)
		}
		var found []int64
		for off := int64(0); ; {
			data, err := th.Seek(a.Ino, off, SeekData)
			if errors.Is(err, errNoData) {
				break
			}
			th.must(err)
			hole, err := th.Seek(a.Ino, data, SeekHole)
			th.must(err)
			if hole <= data || hole-data > piece {
				t.Fatalf("%s: data from %d to %d", path, data, hole)
			}
			if at, err := th.Seek(a.Ino, hole, SeekHole); hole < size && (err != nil || at != hole) {
				t.Fatalf("%s: from the hole at %d SEEK_HOLE gives %d, %v", path, hole, at, err)
			}
			found, off = append(found, data), hole
		}
		if !slices.Equal(found, want) {
			t.Errorf("%s: data at %d, want %d", path, found, want)
		}
		if _, err := th.Seek(a.Ino, size, SeekHole); !errors.Is(err, errNoData) {
			t.Errorf("%s: at its end: %v", path, err)
		}
	}
}

// TestPastRootHasATime: the root of a space as it was shows the time that was asked for, since its history has none.
func TestPastRootHasATime(t *testing.T) {
	th := newTestHome(t)
	th.create(th.root, "f", []byte("f"))
	th.flush()
	then := th.clock()
	th.tick(time.Hour)
	for _, dir := range []Ino{th.root, RootIno} {
		path := ".anyfs/at/" + then.Format("2006-01-02T15:04:05.000000000Z07:00") // all digits: with fewer it is the end of the time that they name
		if dir == RootIno {
			path += "/" + PersonalName
		}
		if a := th.sub(dir, path); a.Mtime != then.UnixNano() || a.Ctime != a.Mtime {
			t.Errorf("%s of %d: %+v", path, dir, a)
		}
	}
	if _, err := th.Getxattr(th.root, "user.anyfs.author"); !errors.Is(err, ErrNoAttr) {
		t.Errorf("the author of the root of a space, which nobody changed: %v", err)
	}
}
