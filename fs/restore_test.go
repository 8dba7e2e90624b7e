package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
)

func (th *testHome) restore(path, version, to string) RestoreResult {
	th.t.Helper()
	res, err := th.Restore(context.Background(), path, version, to)
	if err != nil {
		th.t.Fatalf("restore %s version %q to %q: %v", path, version, to, err)
	}
	if len(res.Skipped) > 0 {
		th.t.Fatalf("restore %s: skipped %v", path, res.Skipped)
	}
	return res
}

func (th *testHome) at(path string) Ino {
	th.t.Helper()
	ino, err := th.PathIno(path)
	if err != nil {
		th.t.Fatalf("%s: %v", path, err)
	}
	return ino
}

// tree describes everything below a path: names, modes, contents and targets.
func (th *testHome) tree(path string) []string {
	th.t.Helper()
	var out []string
	var walk func(path string)
	walk = func(path string) {
		ino := th.at(path)
		for _, name := range th.list(ino) {
			p := path + "/" + name
			a, err := th.Getattr(th.at(p))
			th.must(err)
			line := fmt.Sprintf("%s %o", p, a.Mode)
			switch {
			case a.IsDir():
				walk(p)
			case a.Mode&0170000 == 0120000:
				target, err := th.Readlink(a.Ino)
				th.must(err)
				line += " " + target
			default:
				b := th.read(a.Ino)
				line += fmt.Sprintf(" %d %x mtime %d", len(b), b[:min(len(b), 20)], a.Mtime)
			}
			out = append(out, line)
		}
	}
	walk(path)
	sort.Strings(out)
	return out
}

func (th *testHome) removeAll(path string) {
	th.t.Helper()
	ino := th.at(path)
	for _, name := range th.list(ino) {
		a, err := th.Lookup(ino, name)
		th.must(err)
		if a.IsDir() {
			th.removeAll(path + "/" + name)
		} else {
			th.must(th.Unlink(ino, name))
		}
	}
	i := strings.LastIndex(path, "/")
	th.must(th.Rmdir(th.at(path[:i]), path[i+1:]))
}

func (th *testHome) deleted(dir string) []DeletedEntry {
	th.t.Helper()
	out, err := th.Deleted(dir)
	th.must(err)
	return out
}

func TestRestoreFileInPlace(t *testing.T) {
	th := newTestHome(t)
	for _, n := range []int{100, 20 << 10, 5 << 20} {
		name := fmt.Sprint("f", n)
		path := "Personal/" + name
		v1, v2 := random(1, n), random(2, n+1)
		ino := th.create(th.root, name, v1)
		th.must(th.Setxattr(ino, "user.v", []byte("1"), 0))
		a1, _ := th.Getattr(ino)
		th.flush()
		th.save(ino, v2)
		mode := uint32(0600)
		_, err := th.Setattr(context.Background(), ino, SetAttr{Mode: &mode})
		th.must(err)
		th.must(th.Removexattr(ino, "user.v"))
		th.must(th.Setxattr(ino, "user.w", []byte("2"), 0))
		id := string(must2(th.Getxattr(ino, "user.anyfs.id")))
		vs := th.contents(path)
		th.Ref(ino) // someone has it open
		var events []Event
		cancel := th.Events(func(ev []Event) { events = append(events, ev...) })
		res := th.restore(path, vs[1].ID, "")
		cancel()
		if res.Files != 1 || res.Bytes != int64(n) || res.Version != vs[1].ID || res.Path != path {
			t.Fatalf("%+v", res)
		}
		if len(events) != 1 || events[0] != (Event{Parent: th.root, Name: name, Inode: ino, Renewed: true}) {
			t.Fatalf("events %+v", events)
		}
		check := func() {
			t.Helper()
			th.wantContent(th.root, name, v1)
			now := th.look(th.root, name)
			a, err := th.Getattr(now)
			th.must(err)
			if a.Mode != a1.Mode || a.Mtime != a1.Mtime || a.Nlink != 1 {
				t.Fatalf("%+v, was %+v", a, a1)
			}
			if v, err := th.Getxattr(now, "user.v"); err != nil || string(v) != "1" {
				t.Fatalf("xattr %q %v", v, err)
			}
			if _, err := th.Getxattr(now, "user.w"); !errors.Is(err, ErrNoAttr) {
				t.Fatalf("the xattr of the later version is there: %v", err)
			}
			if got := string(must2(th.Getxattr(now, "user.anyfs.id"))); got != id {
				t.Fatal("it is another object")
			}
		}
		check()
		if !bytes.Equal(th.read(ino), v2) {
			t.Fatal("who had it open sees something else now")
		}
		th.Unref(ino)
		if _, err := th.Getattr(ino); !errors.Is(err, ErrStale) {
			t.Fatalf("the old inode is still there: %v", err)
		}
		th.flush()
		check()
		th.kill()
		check()
		vs = th.contents(path)
		if len(vs) != 3 || !vs[0].Current {
			t.Fatalf("%d versions", len(vs))
		}
		for i, want := range [][]byte{v1, v2, v1} {
			if !bytes.Equal(th.versionBytes(path, vs[i].ID), want) {
				t.Fatalf("version %d", i)
			}
		}
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestRestoreNeedsAVersionOfWhatIsThere(t *testing.T) {
	th := newTestHome(t)
	th.create(th.root, "f", []byte("x"))
	for path, want := range map[string]error{"Personal/f": ErrInvalid, "Personal/none": ErrNotExist, "None/f": ErrNotExist, "": ErrInvalid} {
		if _, err := th.Restore(context.Background(), path, "", ""); !errors.Is(err, want) {
			t.Errorf("restore of %q: %v", path, err)
		}
	}
	if _, err := th.Restore(context.Background(), "Personal/f", "zzzzzzzz", ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("restore of no version: %v", err)
	}
	if _, err := th.Restore(context.Background(), "Personal/f", "2001-01-01", ""); !errors.Is(err, ErrNotExist) {
		t.Errorf("restore of a time before it: %v", err)
	}
}

func TestRestoreHardLinks(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "a", []byte("one"))
	_, err := th.Link(ino, th.root, "b")
	th.must(err)
	th.flush()
	th.save(ino, []byte("two"))
	vs := th.contents("Personal/a")
	th.restore("Personal/b", vs[1].Short, "")
	th.wantContent(th.root, "a", []byte("one"))
	th.wantContent(th.root, "b", []byte("one"))
	if th.look(th.root, "a") != th.look(th.root, "b") {
		t.Fatal("the names are of two files now")
	}
	th.flush()
	th.must(th.Unlink(th.root, "b"))
	th.flush()
	th.restore("Personal/b", "", "")
	if th.look(th.root, "a") != th.look(th.root, "b") {
		t.Fatal("the name came back as another file")
	}
	th.reopen()
	th.write(th.look(th.root, "a"), []byte("ONE"), 0)
	th.wantContent(th.root, "b", []byte("ONE"))
	if n := len(th.deleted("Personal")); n != 0 {
		t.Fatalf("%d deleted entries", n)
	}
}

func TestUndeleteFile(t *testing.T) {
	for _, how := range []string{"", "reopen", "kill", "open", "older"} {
		t.Run(how, func(t *testing.T) {
			th := newTestHome(t)
			d := th.mkdir(th.root, "d")
			data, old := random(5, 600<<10), random(6, 3000)
			ino := th.create(d, "f", old)
			th.must(th.Setxattr(ino, "user.k", []byte("v"), 0))
			th.flush()
			th.save(ino, data)
			th.flush()
			id := string(must2(th.Getxattr(ino, "user.anyfs.id")))
			if how == "open" {
				th.Ref(ino)
			}
			th.must(th.Unlink(d, "f"))
			if how == "open" {
				th.write(ino, []byte("only for who has it open"), 0)
			}
			list := th.deleted("Personal/d")
			if len(list) != 1 || list[0].Name != "f" || list[0].Size != int64(len(data)) || list[0].Kind != "file" || list[0].Object != id || list[0].Path != "Personal/d/f" {
				t.Fatalf("deleted: %+v", list)
			}
			if time.Since(list[0].Time).Abs() > time.Minute {
				t.Fatalf("deleted at %v", list[0].Time)
			}
			switch how {
			case "reopen":
				th.reopen()
			case "kill":
				th.kill()
			}
			version, want := "", data
			if how == "older" {
				version, want = th.contents("Personal/d/f")[1].ID, old
			}
			res := th.restore("Personal/d/f", version, "")
			if res.Files != 1 {
				t.Fatalf("%+v", res)
			}
			for range 3 {
				d = th.at("Personal/d")
				th.wantContent(d, "f", want)
				now := th.look(d, "f")
				if got := string(must2(th.Getxattr(now, "user.anyfs.id"))); got != id {
					t.Fatal("another object came back")
				}
				if v, err := th.Getxattr(now, "user.k"); err != nil || string(v) != "v" {
					t.Fatalf("xattr %q %v", v, err)
				}
				if len(th.deleted("Personal/d")) != 0 {
					t.Fatal("it is listed as deleted still")
				}
				th.flush()
				th.kill()
			}
			vs := th.log("Personal/d/f")
			restored := slices.ContainsFunc(vs, func(v Version) bool { return strings.HasPrefix(v.Summary(), "restored") })
			if !restored || !strings.HasPrefix(vs[len(vs)-1].Summary(), "created") {
				t.Fatalf("the history does not go on: %+v", vs)
			}
			want = random(9, 1000)
			th.save(th.at("Personal/d/f"), want)
			th.reopen()
			th.wantContent(th.at("Personal/d"), "f", want)
		})
	}
}

func TestUndeleteDirectory(t *testing.T) {
	for _, how := range []string{"reopen", "kill", "open", ""} {
		t.Run(how, func(t *testing.T) {
			th := newTestHome(t)
			p := th.mkdir(th.root, "p")
			d := th.mkdir(p, "d")
			th.create(d, "early", []byte("deleted before"))
			a := th.create(d, "a", random(1, 100))
			sub := th.mkdir(d, "sub")
			th.create(sub, "b", random(2, 700<<10))
			_, err := th.Link(a, sub, "hard")
			th.must(err)
			_, err = th.Symlink(sub, "link", "../a", Cred{1000, 1000})
			th.must(err)
			th.mkdir(sub, "empty")
			th.flush()
			th.tick(time.Minute)
			th.must(th.Unlink(d, "early"))
			th.tick(time.Minute)
			th.flush()
			want := th.tree("Personal/p")
			if how == "open" {
				th.Ref(d)
				th.Ref(sub)
			}
			th.removeAll("Personal/p")
			th.tick(time.Minute)
			switch how {
			case "reopen":
				th.reopen()
			case "kill":
				th.kill()
			}
			if l := th.deleted("Personal/p/d"); len(l) != 3 {
				t.Fatalf("deleted from the deleted directory: %+v", l)
			}
			res := th.restore("Personal/p/d", "", "")
			if res.Dirs != 4 || res.Files != 4 {
				t.Fatalf("%+v", res)
			}
			check := func() {
				t.Helper()
				if got := th.tree("Personal/p"); !slices.Equal(got, want) {
					t.Fatalf("restored:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				if a := th.at("Personal/p/d/a"); a != th.at("Personal/p/d/sub/hard") {
					t.Fatal("the hard link is none any more")
				}
			}
			check()
			th.kill()
			check()
			th.flush()
			th.reopen()
			check()
			if l := th.deleted("Personal/p/d"); len(l) != 1 || l[0].Name != "early" {
				t.Fatalf("deleted after the restore: %+v", l)
			}
			if vs := th.log("Personal/p/d"); len(vs) != 3 {
				t.Fatalf("history of the directory: %+v", vs)
			}
			// And again.
			th.removeAll("Personal/p")
			th.tick(time.Minute)
			th.flush()
			th.restore("Personal/p", "", "")
			check()
			th.restore("Personal/p/d/early", "", "")
			th.wantContent(th.at("Personal/p/d"), "early", []byte("deleted before"))
			if problems := must2(th.Verify(context.Background(), nil)).Problems; len(problems) > 0 {
				t.Fatalf("verify: %v", problems)
			}
		})
	}
}

// TestReplayKeepsWhoStandsForAnObject replays the removal of a directory and its return in one go: the number that it had goes
// at the end of the replay, and the object stays with the new one.
func TestReplayKeepsWhoStandsForAnObject(t *testing.T) {
	th := newTestHome(t)
	c := th.mkdir(th.root, "c")
	d := th.mkdir(th.root, "d")
	th.create(d, "f", []byte("f"))
	th.flush()
	then := th.clock()
	th.tick(time.Minute)
	th.must(th.Rename(th.root, "d", c, "d", 0))
	th.flush()
	th.removeAll("Personal/c/d")
	th.flush()
	th.restore("Personal/c/d", "", "")
	th.flush()
	id := string(must2(th.Getxattr(th.at("Personal/c/d"), "user.anyfs.id")))
	th.kill()
	object, err := dag.ParseID(id)
	th.must(err)
	s, local, err := th.space(th.at("Personal/c/d"))
	th.must(err)
	if ino, err := s.ix.Object(object); err != nil || ino != local {
		t.Fatalf("inode %d stands for the directory, not %d: %v", ino, local, err)
	}
	th.wantList(th.root, ".anyfs/at/"+then.Format(time.RFC3339Nano)+"/d", "f")
}

func TestRestoreOneOfADeletedDirectory(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.mkdir(th.root, "a"), "b")
	th.create(d, "f", []byte("f"))
	th.create(d, "g", []byte("g"))
	th.flush()
	th.removeAll("Personal/a")
	res := th.restore("Personal/a/b/f", "", "")
	if res.Dirs != 2 || res.Files != 1 {
		t.Fatalf("%+v", res)
	}
	th.wantContent(th.at("Personal/a/b"), "f", []byte("f"))
	if l := th.deleted("Personal/a/b"); len(l) != 1 || l[0].Name != "g" {
		t.Fatalf("%+v", l)
	}
	// A directory of the same name that came since takes what comes back.
	th.flush()
	th.removeAll("Personal/a")
	d = th.mkdir(th.mkdir(th.root, "a"), "b")
	th.restore("Personal/a/b/g", "", "")
	th.wantContent(d, "g", []byte("g"))
	if got := th.list(d); len(got) != 1 {
		t.Fatal(got)
	}
	th.flush()
	th.reopen()
	th.wantContent(th.at("Personal/a/b"), "g", []byte("g"))
}

func TestRestoreTo(t *testing.T) {
	th := newTestHome(t)
	must2(th.CreateSpace("Other"))
	d := th.mkdir(th.root, "d")
	v1, v2 := random(1, 300<<10), random(2, 100)
	f := th.create(d, "f", v1)
	sub := th.mkdir(d, "sub")
	th.create(sub, "g", v2)
	th.flush()
	th.save(f, v2)
	th.flush()
	vs := th.contents("Personal/d/f")
	for i, to := range []string{"Personal/copy", "Personal/x/y/copy", "Other/z/copy"} {
		res := th.restore("Personal/d/f", vs[1].ID, to)
		if res.Path != to || res.Files != 1 {
			t.Fatalf("%d: %+v", i, res)
		}
		if !bytes.Equal(th.read(th.at(to)), v1) {
			t.Fatal(to)
		}
	}
	th.wantContent(d, "f", v2)
	if _, err := th.Restore(context.Background(), "Personal/d/f", vs[1].ID, "Personal/copy"); !errors.Is(err, ErrExist) {
		t.Fatalf("over a file: %v", err)
	}
	if res := th.restore("Personal/d/f", vs[1].ID, "Other/z"); res.Path != "Other/z/f" {
		t.Fatalf("%+v", res)
	}
	// Whole directories, deleted or as they are or were.
	th.restore("Personal/d", "", "Personal/d2")
	if got := th.tree("Personal/d2"); len(got) != 3 {
		t.Fatal(got)
	}
	before := th.opt.Clock()
	th.tick(time.Hour)
	th.removeAll("Personal/d/sub")
	th.restore("Personal/d", before.Format(time.RFC3339Nano), "Other/d3")
	th.flush()
	th.reopen()
	th.wantContent(th.at("Other/d3/sub"), "g", v2)
	th.wantContent(th.at("Other/d3"), "f", v2)
	th.tick(time.Minute)
	th.removeAll("Personal/d")
	th.restore("Personal/d", "", "Other/d4")
	if got := th.list(th.at("Other/d4")); len(got) != 1 {
		t.Fatal(got)
	}
	if l := th.deleted("Personal"); len(l) != 1 || l[0].Name != "d" {
		t.Fatalf("a copy took it off the list: %+v", l)
	}
}

func TestRestoreDirectoryToATime(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	keep := th.create(d, "keep", []byte("same"))
	f := th.create(d, "f", []byte("old"))
	th.create(d, "gone", []byte("gone"))
	th.create(d, "moved", []byte("moved"))
	th.create(th.mkdir(d, "sub"), "x", []byte("x"))
	th.flush()
	want := th.tree("Personal/d")
	before := th.opt.Clock()
	th.tick(time.Hour)
	th.save(f, []byte("new"))
	th.must(th.Unlink(d, "gone"))
	th.must(th.Rename(d, "moved", th.root, "elsewhere", 0))
	th.removeAll("Personal/d/sub")
	th.create(d, "newer", []byte("newer"))
	th.tick(time.Hour)
	th.restore("Personal/d", before.Format(time.RFC3339Nano), "")
	th.flush()
	th.reopen()
	got := th.tree("Personal/d")
	got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "newer") })
	if !slices.Equal(got, want) {
		t.Fatalf("restored:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	th.wantContent(th.root, "elsewhere", []byte("moved"))
	th.wantContent(th.at("Personal/d"), "newer", []byte("newer"))
	if th.look(th.at("Personal/d"), "keep") != keep {
		t.Fatal("what was the same was touched")
	}
}
