package fs

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"
)

// Histories of files with several names, and of directories that were moved or deleted: what the model of history found.

// step ends a step of a test: what was done is published, and a minute passes.
func (th *testHome) step(err error) {
	th.t.Helper()
	th.must(err)
	th.flush()
	th.tick(time.Minute)
}

func (th *testHome) link(ino, dir Ino, name string) error {
	_, err := th.Link(ino, dir, name)
	return err
}

// reimport takes the space out and in again: its index is made anew, with what it knows of the past.
func (th *testHome) reimport() {
	th.t.Helper()
	var car bytes.Buffer
	ctx := context.Background()
	_, err := th.Export(ctx, PersonalName, &car)
	th.must(err)
	th.must(th.DeleteSpace(PersonalName))
	_, err = th.Import(ctx, &car, PersonalName, "")
	th.must(err)
	th.find()
}

// TestRestoreVersionOfARemovedName brings a name of a file that lives on under another back, as it was: the file is one still.
func TestRestoreVersionOfARemovedName(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "a", []byte("one"))
	th.step(th.link(ino, th.root, "b"))
	th.save(ino, []byte("two"))
	th.step(nil)
	th.step(th.Unlink(th.root, "b"))
	vs := th.contents("Personal/b")
	th.restore("Personal/b", vs[1].ID, "")
	for _, name := range []string{"a", "b"} {
		th.wantContent(th.root, name, []byte("one"))
	}
	if th.look(th.root, "a") != th.look(th.root, "b") {
		t.Fatal("the name came back as another file")
	}
	th.step(nil)
	if vs := th.contents("Personal/a"); len(vs) != 3 {
		t.Fatalf("%d versions", len(vs))
	}
	th.verify()
}

// TestRestoreOfTheLastVersionIsNone brings a deleted file back by the ID of its last version: that makes no new one.
func TestRestoreOfTheLastVersionIsNone(t *testing.T) {
	th := newTestHome(t)
	for _, n := range []int{0, 100, 40_000} {
		ino := th.create(th.root, "f", random(1, n))
		th.step(nil)
		th.save(ino, random(2, n))
		th.step(nil)
		before := th.clock()
		th.tick(time.Minute)
		for _, version := range []string{th.contents("Personal/f")[0].ID, before.Format(time.RFC3339Nano)} {
			th.step(th.Unlink(th.root, "f"))
			th.restore("Personal/f", version, "")
			th.step(nil)
			if vs := th.contents("Personal/f"); len(vs) != 2 {
				t.Fatalf("%d bytes: %d versions", n, len(vs))
			}
			th.wantContent(th.root, "f", random(2, n))
		}
		th.verify()
		th.step(th.Unlink(th.root, "f"))
	}
}

// TestUndeleteOneOfTwoEqualNames has a file called alike in two directories. The one whose name is brought back gets it, and the
// other can still be.
func TestUndeleteOneOfTwoEqualNames(t *testing.T) {
	th := newTestHome(t)
	d, e := th.mkdir(th.root, "d"), th.mkdir(th.root, "e")
	th.step(th.link(th.create(d, "f", []byte("f")), e, "f"))
	th.step(th.Unlink(d, "f"))
	th.step(th.Unlink(e, "f"))
	th.restore("Personal/d/f", "", "")
	th.step(nil)
	for range 2 {
		if l := th.deleted("Personal/d"); len(l) != 0 {
			t.Fatalf("deleted from d: %+v", l)
		}
		if l := th.deleted("Personal/e"); len(l) != 1 {
			t.Fatalf("deleted from e: %+v", l)
		}
		th.reimport()
	}
	th.restore("Personal/e/f", "", "")
	if th.at("Personal/d/f") != th.at("Personal/e/f") {
		t.Fatal("the names are of two files")
	}
}

// TestPastOfADirectoryWhoseFileIsElsewhere brings a file of a deleted directory back in another of its name.
func TestPastOfADirectoryWhoseFileIsElsewhere(t *testing.T) {
	th := newTestHome(t)
	th.create(th.mkdir(th.root, "d"), "f", []byte("f"))
	th.step(nil)
	then := ".anyfs/at/" + th.clock().Format(time.RFC3339Nano) + "/d"
	th.tick(time.Minute)
	th.removeAll("Personal/d")
	th.step(nil)
	th.mkdir(th.root, "d")
	th.step(nil)
	th.restore("Personal/d/f", "", "")
	th.step(nil)
	for _, next := range []func(){th.kill, th.reimport, func() {}} {
		th.wantList(th.root, then, "f")
		if l := th.deleted("Personal"); len(l) != 1 || l[0].Name != "d" {
			t.Fatalf("deleted: %+v", l)
		}
		next()
	}
	// A second life of the directory has its own past, and that of the first.
	th.removeAll("Personal/d")
	th.step(nil)
	th.restore("Personal/d", "", "")
	th.wantContent(th.at("Personal/d"), "f", []byte("f"))
	th.wantList(th.root, then, "f")
}

// TestBackToATimeFromElsewhere restores a directory to a time before what was in it moved to another and was deleted there: it
// leaves that one's trash, and its own past stays.
func TestBackToATimeFromElsewhere(t *testing.T) {
	th := newTestHome(t)
	d, e := th.mkdir(th.root, "d"), th.mkdir(th.root, "e")
	s := th.mkdir(d, "s")
	th.create(s, "f", []byte("f"))
	th.create(s, "g", []byte("g"))
	th.create(d, "x", []byte("x"))
	th.step(nil)
	then := th.clock().Format(time.RFC3339Nano)
	th.tick(time.Minute)
	th.step(th.Unlink(s, "g"))
	th.must(th.Rename(d, "x", e, "y", 0))
	th.step(th.Rename(d, "s", e, "s", 0))
	between := th.clock().Format(time.RFC3339Nano)
	th.tick(time.Minute)
	th.removeAll("Personal/e")
	th.step(nil)
	th.restore("Personal/d", then, "")
	th.step(nil)
	for _, next := range []func(){th.kill, th.reimport, func() {}} {
		th.wantList(th.root, "d", "s", "x")
		th.wantList(th.root, "d/s", "f", "g")
		th.wantList(th.root, ".anyfs/at/"+between+"/e/s", "f")
		th.wantList(th.root, ".anyfs/at/"+then+"/d/s", "f", "g")
		if l := th.deleted("Personal/e"); len(l) != 0 {
			t.Fatalf("deleted: %+v", l)
		}
		next()
	}
	th.restore("Personal/e", "", "")
	th.wantList(th.root, "e")
	th.step(nil)
	th.verify()
}

// TestTrashKnowsWhenANameWent removes one name of a file, which is then written and removed for good. The second removal says
// of the first name, too, that it saw what was written; made anew, the trash has its own time still, and a directory that comes
// back does so without it.
func TestTrashKnowsWhenANameWent(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	ino := th.create(d, "a", []byte("one"))
	th.step(th.link(ino, d, "b"))
	th.step(th.Unlink(d, "b"))
	th.save(ino, []byte("two"))
	th.step(nil)
	th.removeAll("Personal/d")
	th.step(nil)
	want := th.deleted("Personal/d")
	if len(want) != 2 || want[0].Time.Sub(want[1].Time) < time.Minute {
		t.Fatalf("deleted: %+v", want)
	}
	th.reimport()
	got := th.deleted("Personal/d")
	for i := range got {
		if len(got) != 2 || got[i].Name != want[i].Name || got[i].Time.Sub(want[i].Time).Abs() > time.Second {
			t.Fatalf("deleted: %+v, before %+v", got, want)
		}
	}
	th.restore("Personal/d", "", "")
	if names := th.list(th.at("Personal/d")); !slices.Equal(names, []string{"a"}) {
		t.Fatalf("it came back with %q", names)
	}
}

// TestTrashMadeAnewHasNamesThatWentBeforeTheirFile removes a directory in which a file has a name, and then the file's other
// name: one change says both, with the time of the last.
func TestTrashMadeAnewHasNamesThatWentBeforeTheirFile(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	sub := th.mkdir(d, "sub")
	th.step(th.link(th.create(sub, "a", []byte("f")), d, "b"))
	th.must(th.Unlink(sub, "a"))
	th.must(th.Rmdir(d, "sub"))
	th.must(th.Unlink(d, "b"))
	th.step(th.Rmdir(th.root, "d"))
	th.reimport()
	th.wantList(th.root, ".anyfs/trash/d/sub", "a")
	th.restore("Personal/d", "", "")
	th.wantContent(th.at("Personal/d/sub"), "a", []byte("f"))
	th.wantContent(th.at("Personal/d"), "b", []byte("f"))
}

// TestTrashOfOneMillisecond removes files of one name at one time: each has a name of its own in the trash.
func TestTrashOfOneMillisecond(t *testing.T) {
	th := newTestHome(t)
	now := time.Now()
	th.opt.Clock = func() time.Time { return now }
	for i := range 5 {
		th.create(th.root, "f.txt", []byte{byte(i)})
		th.flush()
		th.must(th.Unlink(th.root, "f.txt"))
	}
	trash := th.sub(th.root, ".anyfs/trash").Ino
	var held []byte
	for _, name := range th.list(trash) {
		held = append(held, th.read(th.sub(trash, name).Ino)...)
		if !strings.HasSuffix(name, ".txt") || strings.Count(name, "deleted") > 1 {
			t.Errorf("%q", name)
		}
	}
	if slices.Sort(held); string(held) != "\x00\x01\x02\x03\x04" {
		t.Fatalf("the trash holds %q", held)
	}
}

// TestCopyKeepsHardLinks copies a directory as it was: what was one file is one in the copy.
func TestCopyKeepsHardLinks(t *testing.T) {
	th := newTestHome(t)
	must2(th.CreateSpace("Other"))
	d := th.mkdir(th.root, "d")
	sub := th.mkdir(d, "sub")
	ino := th.create(d, "a", random(1, 20_000))
	th.must(th.link(ino, d, "b"))
	th.must(th.link(ino, sub, "c"))
	th.create(d, "single", []byte("s"))
	th.step(nil)
	then := th.clock().Format(time.RFC3339Nano)
	th.tick(time.Minute)
	th.removeAll("Personal/d")
	th.step(nil)
	for to, version := range map[string]string{"Personal/copy": then, "Other/copy": then, "Personal/dead": ""} {
		if res := th.restore("Personal/d", version, to); res.Files != 4 || res.Bytes != 20_001 {
			t.Fatalf("%+v", res)
		}
		a, err := th.Getattr(th.at(to + "/a"))
		if err != nil || a.Nlink != 3 || th.at(to+"/b") != a.Ino || th.at(to+"/sub/c") != a.Ino {
			t.Fatalf("%+v %v", a, err)
		}
		th.wantContent(th.at(to+"/sub"), "c", random(1, 20_000))
	}
	th.step(nil)
	th.verify()
}

// TestRestoreDirectoryWithHardLinks restores a directory to a time at which a file in it had two names: it becomes one version
// more, not two; and where the names are now of one file and were of two, one of them alone can be as it was.
func TestRestoreDirectoryWithHardLinks(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	ino := th.create(d, "a", []byte("old"))
	th.step(th.link(ino, d, "b"))
	x := th.create(d, "x", []byte("x"))
	th.create(d, "y", []byte("y"))
	th.step(nil)
	then := th.clock().Format(time.RFC3339Nano)
	th.tick(time.Minute)
	th.save(ino, []byte("new"))
	th.step(nil)
	th.restore("Personal/d", then, "")
	th.step(nil)
	for range 2 {
		for _, name := range []string{"a", "b"} {
			th.wantContent(d, name, []byte("old"))
			if vs := th.contents("Personal/d/" + name); len(vs) != 3 {
				t.Fatalf("%s has %d versions", name, len(vs))
			}
		}
		th.restore("Personal/d", then, "") // all is as it was: nothing is done
		th.step(nil)
	}
	th.must(th.Unlink(d, "y"))
	th.step(th.link(x, d, "y"))
	th.save(x, []byte("both"))
	th.step(nil)
	res, err := th.Restore(context.Background(), "Personal/d", then, "")
	if err != nil || len(res.Skipped) != 1 || !strings.Contains(res.Skipped[0], "another name of Personal/d/") {
		t.Fatalf("%+v %v", res, err)
	}
	th.step(nil)
	th.verify()
}

// TestUndeleteTheNameThatWentLast: a file had the same name twice, by two links; a content that was written between makes the
// removal of the second remove the first anew. The second comes back, so that the other name, which it had, gets a copy.
func TestUndeleteTheNameThatWentLast(t *testing.T) {
	th := newTestHome(t)
	step := func() { th.flush(); th.tick(3 * time.Minute) }
	th.create(th.root, "a", []byte("one"))
	step()
	_, err := th.Link(th.look(th.root, "a"), th.root, "b")
	th.must(err)
	step()
	then := th.clock().Format(time.RFC3339Nano)
	step()
	th.must(th.Unlink(th.root, "a"))
	step()
	th.must(th.Rename(th.root, "b", th.root, "a", 0))
	step()
	vs := th.contents("Personal/a")
	th.restore("Personal/a", vs[0].ID, "")
	step()
	th.must(th.Unlink(th.root, "a"))
	step()
	th.restore("Personal/a", "", "")
	step()
	th.restore("Personal", then, "")
	step()
	a, err := th.Lookup(th.root, "a")
	th.must(err)
	b, err := th.Lookup(th.root, "b")
	th.must(err)
	if a.Ino == b.Ino || a.Nlink != 1 {
		t.Errorf("%d links, and one file: %v", a.Nlink, a.Ino == b.Ino)
	}
	th.verify()
}

// TestSaveByAFileThatHadAnotherName: the temporary file of a save was published, under two names; the second went before it was written
// again. With the rename it is gone, and no name of it comes back.
func TestSaveByAFileThatHadAnotherName(t *testing.T) {
	th := newTestHome(t)
	th.create(th.root, "doc", []byte("doc"))
	th.flush()
	th.tick(time.Hour)
	tmp := th.create(th.root, "tmp", []byte("one"))
	_, err := th.Link(tmp, th.root, "second")
	th.must(err)
	th.flush()
	th.must(th.Unlink(th.root, "second"))
	th.flush()
	th.write(tmp, []byte("two"), 0)
	th.flush()
	th.must(th.Rename(th.root, "tmp", th.root, "doc", 0))
	th.flush()
	th.verify()
}
