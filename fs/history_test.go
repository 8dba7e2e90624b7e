package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func (th *testHome) log(path string) []Version {
	th.t.Helper()
	vs, err := th.Log(path)
	if err != nil {
		th.t.Fatalf("log of %s: %v", path, err)
	}
	return vs
}

// contents gives the versions of a path that brought content.
func (th *testHome) contents(path string) []Version {
	th.t.Helper()
	return slices.DeleteFunc(th.log(path), func(v Version) bool { return !v.Content })
}

func (th *testHome) versionBytes(path, version string) []byte {
	th.t.Helper()
	f, err := th.OpenVersion(context.Background(), path, version)
	if err != nil {
		th.t.Fatalf("version %q of %s: %v", version, path, err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		th.t.Fatalf("version %q of %s: %v", version, path, err)
	}
	return b
}

func (th *testHome) flush() {
	th.t.Helper()
	th.must(th.Flush(context.Background()))
}

func (th *testHome) trunc(ino Ino, size int64) {
	th.t.Helper()
	_, err := th.Setattr(context.Background(), ino, SetAttr{Size: &size})
	th.must(err)
}

func (th *testHome) mkdir(dir Ino, name string) Ino {
	th.t.Helper()
	a, err := th.Mkdir(dir, name, 0755, Cred{1000, 1000})
	th.must(err)
	return a.Ino
}

// save replaces the content of a file in place.
func (th *testHome) save(ino Ino, data []byte) {
	th.t.Helper()
	th.trunc(ino, 0)
	th.write(ino, data, 0)
}

func TestLogListsEachSave(t *testing.T) {
	th := newTestHome(t)
	sizes := []int{10, 5000, 9 << 10, 3 << 20, 0, 100, 700 << 10}
	var want [][]byte
	ino := th.create(th.root, "f", random(1, sizes[0]))
	want = append(want, random(1, sizes[0]))
	th.flush()
	for i, n := range sizes[1:] {
		want = append(want, random(uint64(i+2), n))
		th.save(ino, want[i+1])
		th.flush()
	}
	check := func() {
		t.Helper()
		vs := th.contents("Personal/f")
		if len(vs) != len(want) {
			t.Fatalf("%d versions of %d saves", len(vs), len(want))
		}
		for i, v := range vs {
			w := want[len(want)-1-i]
			if v.Size != int64(len(w)) || v.Path != "Personal/f" || v.Kind != "file" || v.Current != (i == 0) {
				t.Fatalf("version %d: %+v, of %d bytes", i, v, len(w))
			}
			if v.Device.Name != "test" || v.Device.PeerID == "" || v.Account == "" {
				t.Fatalf("version %d: %+v", i, v)
			}
			for _, name := range []string{v.ID, v.Short} {
				if !bytes.Equal(th.versionBytes("Personal/f", name), w) {
					t.Fatalf("version %s is not what was saved", name)
				}
			}
			if i > 0 && v.Time.After(vs[i-1].Time) {
				t.Fatal("the order is wrong")
			}
		}
		if !strings.HasPrefix(vs[len(vs)-1].Summary(), "created") {
			t.Fatalf("the first version is %q", vs[len(vs)-1].Summary())
		}
	}
	check()
	th.reopen()
	check()
	th.must(th.Unlink(th.root, "f"))
	vs := th.log("Personal/f")
	if vs[0].Changes[0].What != didRemove {
		t.Fatalf("the last version is %+v", vs[0])
	}
	th.kill()
	vs = th.contents("Personal/f")
	for i, v := range vs {
		if !bytes.Equal(th.versionBytes("Personal/f", v.ID), want[len(want)-1-i]) || v.Current {
			t.Fatalf("version %d of the deleted file: %+v", i, v)
		}
	}
}

func TestLogSaysWhatChanged(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	ino := th.create(th.root, "a", []byte("one"))
	th.flush()
	th.must(th.Rename(th.root, "a", d, "b", 0))
	th.flush()
	mode := uint32(0600)
	_, err := th.Setattr(context.Background(), ino, SetAttr{Mode: &mode})
	th.must(err)
	th.must(th.Setxattr(ino, "user.color", []byte("red"), 0))
	th.flush()
	th.must(th.Removexattr(ino, "user.color"))
	th.flush()
	_, err = th.Link(ino, th.root, "c")
	th.must(err)
	th.flush()
	th.must(th.Unlink(th.root, "c"))
	th.flush()
	th.write(ino, []byte("two"), 3)
	vs := th.log("Personal/d/b")
	var got []string
	for _, v := range vs {
		got = append(got, fmt.Sprintf("%s %d %s", v.Path, v.Size, v.Summary()))
	}
	want := []string{
		"Personal/d/b 6 content",
		"Personal/d/b 3 removed",
		"Personal/d/b 3 linked Personal/c",
		"Personal/d/b 3 xattr removed user.color",
		"Personal/d/b 3 mode 0600, xattr user.color",
		"Personal/d/b 3 renamed Personal/a → Personal/d/b",
		"Personal/a 3 created, content",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("log:\n%s", strings.Join(got, "\n"))
	}
	if s := th.log("Personal/d"); len(s) != 1 || s[0].Summary() != "created" || s[0].Kind != "directory" {
		t.Fatalf("log of the directory: %+v", s)
	}
	if _, err := th.Log("Personal/none"); !errors.Is(err, ErrNotExist) {
		t.Fatalf("log of nothing: %v", err)
	}
}

// TestLogOfSeveralNames asks for the history of a file by each of its names: each version has the name by which it was asked
// for where the file had it then, else another that it had.
func TestLogOfSeveralNames(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	ino := th.create(th.root, "a", []byte("1"))
	step := func(err error) {
		t.Helper()
		th.must(err)
		th.flush()
		th.tick(time.Minute)
	}
	step(nil)
	th.write(ino, []byte("2"), 1)
	step(nil)
	_, err := th.Link(ino, d, "b")
	step(err)
	th.write(ino, []byte("3"), 2)
	step(nil)
	step(th.Rename(d, "b", d, "c", 0))
	th.write(ino, []byte("4"), 3)
	step(nil)
	step(th.Unlink(th.root, "a"))
	th.write(ino, []byte("5"), 4)
	step(nil)
	step(th.Rename(th.root, "d", th.root, "e", 0))
	check := func(path string, want ...string) {
		t.Helper()
		var got []string
		for _, v := range th.log(path) {
			got = append(got, fmt.Sprintf("%s %d %s", v.Path, v.Size, v.Summary()))
			if v.Current != (len(got) == 1 && path == "Personal/e/c") {
				t.Errorf("version %d of %s is current: %v", len(got)-1, path, v.Current)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("log of %s:\n%s\nwant\n%s", path, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for range 2 {
		check("Personal/e/c",
			"Personal/e/c 5 content",
			"Personal/e/c 4 removed",
			"Personal/e/c 4 content",
			"Personal/e/c 3 renamed Personal/e/b → Personal/e/c",
			"Personal/e/b 3 content",
			"Personal/e/b 2 linked Personal/e/b",
			"Personal/a 2 content",
			"Personal/a 1 created, content",
		)
		check("Personal/a",
			"Personal/e/c 5 content",
			"Personal/a 4 removed",
			"Personal/a 4 content",
			"Personal/a 3 renamed Personal/e/b → Personal/e/c",
			"Personal/a 3 content",
			"Personal/a 2 linked Personal/e/b",
			"Personal/a 2 content",
			"Personal/a 1 created, content",
		)
		th.kill()
	}
	// Both names in the first change.
	ino = th.create(th.root, "x", []byte("x"))
	_, err = th.Link(ino, th.root, "y")
	step(err)
	for path, other := range map[string]string{"Personal/x": "Personal/y", "Personal/y": "Personal/x"} {
		vs := th.log(path)
		if len(vs) != 1 || vs[0].Path != path || vs[0].Summary() != "created, linked "+other+", content" {
			t.Errorf("log of %s: %+v", path, vs)
		}
	}
}

func TestSavesByRenameAreOneHistory(t *testing.T) {
	th := newTestHome(t)
	var want [][]byte
	th.create(th.root, "doc", []byte("v0"))
	want = append(want, []byte("v0"))
	th.flush()
	for i := range 6 {
		data := random(uint64(i), 1000*(i+1))
		want = append(want, data)
		if i%2 == 0 {
			th.create(th.root, ".doc.tmp", data)
			if i == 4 {
				th.flush() // the temporary was published
			}
			th.must(th.Rename(th.root, ".doc.tmp", th.root, "doc", 0))
		} else {
			th.must(th.Rename(th.root, "doc", th.root, "doc~", 0))
			if i == 3 {
				th.flush()
			}
			th.create(th.root, "doc", data)
			th.must(th.Unlink(th.root, "doc~"))
		}
		th.flush()
	}
	vs := th.contents("Personal/doc")
	if len(vs) != len(want) {
		t.Fatalf("%d versions of %d saves", len(vs), len(want))
	}
	for i, v := range vs {
		if !bytes.Equal(th.versionBytes("Personal/doc", v.ID), want[len(want)-1-i]) {
			t.Fatalf("version %d", i)
		}
		if what := strings.TrimPrefix(v.Summary(), "renamed Personal/doc~ → Personal/doc, "); what != "content" && i < len(vs)-1 {
			t.Errorf("version %d, which changed the content alone, says %q", i, what)
		}
	}
	// So does a restore; one that changes the mode says that too, and so does a save.
	th.restore("Personal/doc", vs[2].ID, "")
	th.flush()
	if what := th.contents("Personal/doc")[0].Summary(); what != "content" {
		t.Errorf("a restore of content alone says %q", what)
	}
	mode := uint32(0600)
	tmp := th.create(th.root, ".doc.tmp", []byte("private"))
	_, err := th.Setattr(context.Background(), tmp, SetAttr{Mode: &mode})
	th.must(err)
	th.must(th.Rename(th.root, ".doc.tmp", th.root, "doc", 0))
	th.flush()
	if what := th.contents("Personal/doc")[0].Summary(); what != "mode 0600, content" {
		t.Errorf("a save with another mode says %q", what)
	}
	th.restore("Personal/doc", vs[2].ID, "")
	th.flush()
	if what := th.contents("Personal/doc")[0].Summary(); what != "mode 0644, content" {
		t.Errorf("a restore with another mode says %q", what)
	}
	th.reopen()
	if a, err := th.Getattr(th.at("Personal/doc")); err != nil || a.Mode != 0100644 {
		t.Errorf("after all that the mode is %o, %v", a.Mode, err)
	}
	th.verify()
}
