package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// docModel is one file of the model: what it held after each save.
type docModel struct {
	versions [][]byte
}

// historyModel is a tree of files with all that they ever held, in the plainest form.
type historyModel struct {
	th    *testHome
	live  map[string]*docModel   // by path below the space
	dirs  map[string]bool        // "" is the root
	dead  map[string][]*docModel // by path, the last removed last
	snaps []treeSnap
	n     int
}

// treeSnap is what the tree held at a time.
type treeSnap struct {
	at    time.Time
	files map[string][]byte
	dirs  map[string]bool
}

func (m *historyModel) ino(dir string) Ino {
	if dir == "" {
		return m.th.at("Personal")
	}
	return m.th.at("Personal/" + dir)
}

func splitPath(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

func joinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// data gives content that was never saved before.
func (m *historyModel) data(t *rapid.T) []byte {
	m.n++
	size := rapid.SampledFrom([]int{0, 10, 500, 9000, 40_000}).Draw(t, "size")
	return append(fmt.Appendf(nil, "version %d ", m.n), random(uint64(m.n), size)...)
}

func (m *historyModel) anyLive(t *rapid.T) string {
	if len(m.live) == 0 {
		t.Skip("no file")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.live))).Draw(t, "file")
}

func (m *historyModel) anyDir(t *rapid.T) string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.dirs))).Draw(t, "dir")
}

// names counts the names of a file.
func (m *historyModel) names(doc *docModel) int {
	n := 0
	for _, d := range m.live {
		if d == doc {
			n++
		}
	}
	return n
}

func (m *historyModel) link(t *rapid.T) {
	p, q := m.anyLive(t), m.free(t)
	dir, name := splitPath(p)
	newDir, newName := splitPath(q)
	_, err := m.th.Link(m.th.look(m.ino(dir), name), m.ino(newDir), newName)
	m.th.must(err)
	m.live[q] = m.live[p]
	m.done()
}

// moveDir gives a directory another name, with all that is and was in it.
func (m *historyModel) moveDir(t *rapid.T) {
	p, q := m.anyDir(t), m.free(t)
	if p == "" || strings.HasPrefix(q+"/", p+"/") {
		t.Skip("not there")
	}
	dir, name := splitPath(p)
	newDir, newName := splitPath(q)
	m.th.must(m.th.Rename(m.ino(dir), name, m.ino(newDir), newName, 0))
	moved := func(path string) (string, bool) {
		if path == p || strings.HasPrefix(path, p+"/") {
			return q + path[len(p):], true
		}
		return path, false
	}
	live, dirs, dead := map[string]*docModel{}, map[string]bool{}, map[string][]*docModel{}
	for path, doc := range m.live {
		path, _ = moved(path)
		live[path] = doc
	}
	for path := range m.dirs {
		path, _ = moved(path)
		dirs[path] = true
	}
	for path, docs := range m.dead {
		if to, ok := moved(path); ok && path != p {
			dead[to] = append(dead[to], docs...)
		} else if !strings.HasPrefix(path, q+"/") {
			dead[path] = append(dead[path], docs...)
		}
	}
	m.live, m.dirs, m.dead = live, dirs, dead
	m.done()
}

// free gives a path that nothing has.
func (m *historyModel) free(t *rapid.T) string {
	p := joinPath(m.anyDir(t), rapid.SampledFrom([]string{"a", "b", "c", "d.txt"}).Draw(t, "name"))
	if m.live[p] != nil || m.dirs[p] {
		t.Skip("taken")
	}
	return p
}

func (m *historyModel) done() {
	m.th.flush()
	m.th.tick(3 * time.Minute)
}

func (m *historyModel) create(t *rapid.T) {
	p := m.free(t)
	dir, name := splitPath(p)
	data := m.data(t)
	m.th.create(m.ino(dir), name, data)
	m.live[p] = &docModel{versions: [][]byte{data}}
	m.done()
}

func (m *historyModel) save(t *rapid.T) {
	p := m.anyLive(t)
	dir, name := splitPath(p)
	data := m.data(t)
	d := m.ino(dir)
	doc := m.live[p]
	how := rapid.SampledFrom([]string{"in place", "append", "rename", "aside"}).Draw(t, "how")
	if m.names(doc) > 1 && how == "aside" {
		how = "rename"
	}
	switch how {
	case "in place":
		m.th.save(m.th.look(d, name), data)
	case "append":
		old := m.live[p].versions[len(m.live[p].versions)-1]
		m.th.write(m.th.look(d, name), data, int64(len(old)))
		data = append(slices.Clone(old), data...)
	case "rename":
		m.th.create(d, ".tmp", data)
		m.th.must(m.th.Rename(d, ".tmp", d, name, 0))
		if m.names(doc) > 1 {
			// Of a file with several names this takes one away, as POSIX has it.
			m.dead[p] = append(m.dead[p], doc)
			m.live[p] = &docModel{}
		}
	case "aside":
		m.th.must(m.th.Rename(d, name, d, name+"~", 0))
		m.th.create(d, name, data)
		m.th.must(m.th.Unlink(d, name+"~"))
	}
	m.live[p].versions = append(m.live[p].versions, data)
	m.done()
}

func (m *historyModel) unlink(t *rapid.T) {
	p := m.anyLive(t)
	dir, name := splitPath(p)
	m.th.must(m.th.Unlink(m.ino(dir), name))
	m.dead[p] = append(m.dead[p], m.live[p])
	delete(m.live, p)
	m.done()
}

func (m *historyModel) rename(t *rapid.T) {
	p, q := m.anyLive(t), joinPath(m.anyDir(t), rapid.SampledFrom([]string{"a", "b", "c", "d.txt"}).Draw(t, "name"))
	if p == q || m.dirs[q] || m.live[p] == m.live[q] {
		t.Skip("no rename")
	}
	dir, name := splitPath(p)
	newDir, newName := splitPath(q)
	m.th.must(m.th.Rename(m.ino(dir), name, m.ino(newDir), newName, 0))
	if old := m.live[q]; old != nil {
		m.dead[q] = append(m.dead[q], old)
	}
	m.live[q] = m.live[p]
	delete(m.live, p)
	m.done()
}

func (m *historyModel) mkdir(t *rapid.T) {
	p := m.free(t)
	if strings.Count(p, "/") > 2 {
		t.Skip("deep enough")
	}
	dir, name := splitPath(p)
	m.th.mkdir(m.ino(dir), name)
	m.dirs[p] = true
	m.done()
}

// removeTree removes a directory with all in it, and brings it back.
func (m *historyModel) removeTree(t *rapid.T) {
	p := m.anyDir(t)
	if p == "" {
		t.Skip("the root")
	}
	want := m.th.tree("Personal")
	m.th.removeAll("Personal/" + p)
	m.done()
	m.snap()
	if rapid.Bool().Draw(t, "kill") {
		m.th.kill()
	}
	m.th.restore("Personal/"+p, "", "")
	m.done()
	if got := m.th.tree("Personal"); !slices.Equal(got, want) {
		t.Fatalf("%s came back as\n%s\nit was\n%s", p, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (m *historyModel) undelete(t *rapid.T) {
	var gone []string
	for p, docs := range m.dead {
		if dir, _ := splitPath(p); len(docs) > 0 && m.live[p] == nil && !m.dirs[p] && m.dirs[dir] {
			gone = append(gone, p)
		}
	}
	if len(gone) == 0 {
		t.Skip("nothing is deleted")
	}
	slices.Sort(gone)
	p := rapid.SampledFrom(gone).Draw(t, "deleted")
	docs := m.dead[p]
	m.th.restore("Personal/"+p, "", "")
	m.live[p] = docs[len(docs)-1]
	m.dead[p] = docs[:len(docs)-1]
	m.done()
}

func (m *historyModel) back(t *rapid.T) {
	p := m.anyLive(t)
	doc := m.live[p]
	i := rapid.IntRange(0, len(doc.versions)-1).Draw(t, "version")
	vs := m.th.contents("Personal/" + p)
	if len(vs) != len(doc.versions) {
		t.Fatalf("%s has %d versions, not %d", p, len(vs), len(doc.versions))
	}
	m.th.restore("Personal/"+p, vs[len(vs)-1-i].ID, "")
	doc.versions = append(doc.versions, doc.versions[i])
	m.done()
}

func (m *historyModel) snap() {
	s := treeSnap{at: m.th.clock(), files: map[string][]byte{}, dirs: map[string]bool{}}
	var walk func(path string)
	walk = func(path string) {
		s.dirs[path] = true
		for _, name := range m.th.list(m.ino(path)) {
			p := joinPath(path, name)
			a, err := m.th.Lookup(m.ino(path), name)
			m.th.must(err)
			if a.IsDir() {
				walk(p)
			} else {
				s.files[p] = m.th.read(a.Ino)
			}
		}
	}
	walk("")
	m.snaps = append(m.snaps, s)
	m.th.tick(3 * time.Minute)
}

// glance compares one file with its history, and now and then an earlier time.
func (m *historyModel) glance(t *rapid.T) {
	if len(m.live) > 0 {
		p := m.anyLive(t)
		m.wantVersions(t, p, m.live[p])
	}
	if len(m.snaps) > 0 && rapid.IntRange(0, 3).Draw(t, "look back") == 0 {
		m.wantPast(t, rapid.IntRange(0, len(m.snaps)-1).Draw(t, "time"))
	}
}

// check compares everything that is live, every history, and all times.
func (m *historyModel) check(t *rapid.T) {
	now := m.th.clock()
	for p, doc := range m.live {
		dir, name := splitPath(p)
		m.th.wantContent(m.ino(dir), name, doc.versions[len(doc.versions)-1])
		m.wantVersions(t, p, doc)
	}
	for p, docs := range m.dead {
		if dir, _ := splitPath(p); len(docs) > 0 && m.live[p] == nil && !m.dirs[p] && m.dirs[dir] {
			m.wantVersions(t, p, docs[len(docs)-1])
		}
	}
	for i := range m.snaps {
		m.wantPast(t, i)
	}
	if m.th.clock().Sub(now) > time.Minute {
		t.Fatal("the check took too long for its clock")
	}
}

func (m *historyModel) wantVersions(t *rapid.T, p string, doc *docModel) {
	vs := m.th.contents("Personal/" + p)
	if len(vs) != len(doc.versions) {
		var all []string
		for _, v := range m.th.log("Personal/" + p) {
			all = append(all, v.Summary())
		}
		t.Fatalf("%s has %d versions, not %d:\n%s", p, len(vs), len(doc.versions), strings.Join(all, "\n"))
	}
	for i, v := range vs {
		want := doc.versions[len(vs)-1-i]
		f, err := m.th.OpenVersion(context.Background(), "Personal/"+p, v.ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("version %d of %s: %d bytes, not the %d saved: %v", i, p, len(got), len(want), err)
		}
	}
}

// wantPast compares a time with what there was then. What fails names no moment of this run: equal failures have equal texts,
// or they are not shrunk.
func (m *historyModel) wantPast(t *rapid.T, i int) {
	s := &m.snaps[i]
	root := m.th.sub(m.ino(""), ".anyfs/at/"+s.at.Format(time.RFC3339Nano)).Ino
	m.th.Ref(root)
	defer m.th.Unref(root)
	files, dirs := map[string]bool{}, map[string]bool{}
	var walk func(path string, dir Ino)
	walk = func(path string, dir Ino) {
		dirs[path] = true
		for _, name := range m.th.list(dir) {
			p := joinPath(path, name)
			a, err := m.th.Lookup(dir, name)
			m.th.must(err)
			if a.IsDir() {
				m.th.Ref(a.Ino)
				walk(p, a.Ino)
				m.th.Unref(a.Ino)
				continue
			}
			files[p] = true
			if got := m.th.read(a.Ino); !bytes.Equal(got, s.files[p]) {
				t.Fatalf("at time %d %s holds %d bytes, not %d", i, p, len(got), len(s.files[p]))
			}
		}
	}
	walk("", root)
	got, want := slices.Sorted(maps.Keys(files)), slices.Sorted(maps.Keys(s.files))
	if !slices.Equal(got, want) {
		t.Fatalf("at time %d there are files %q, not %q", i, got, want)
	}
	got, want = slices.Sorted(maps.Keys(dirs)), slices.Sorted(maps.Keys(s.dirs))
	if !slices.Equal(got, want) {
		t.Fatalf("at time %d there are directories %q, not %q", i, got, want)
	}
}

// rapidTB lets what fails in the helpers of a test home fail one check, so that it is shrunk, and not the whole test.
type rapidTB struct {
	testing.TB
	rt *rapid.T
}

func (t rapidTB) Cleanup(fn func())                 { t.rt.Cleanup(fn) }
func (t rapidTB) Error(args ...any)                 { t.rt.Error(args...) }
func (t rapidTB) Errorf(format string, args ...any) { t.rt.Errorf(format, args...) }
func (t rapidTB) Fail()                             { t.rt.Fail() }
func (t rapidTB) FailNow()                          { t.rt.FailNow() }
func (t rapidTB) Failed() bool                      { return t.rt.Failed() }
func (t rapidTB) Fatal(args ...any)                 { t.rt.Fatal(args...) }
func (t rapidTB) Fatalf(format string, args ...any) { t.rt.Fatalf(format, args...) }
func (t rapidTB) Log(args ...any)                   { t.rt.Log(args...) }
func (t rapidTB) Logf(format string, args ...any)   { t.rt.Logf(format, args...) }

// TestHistoryModel does random work, and holds every version of every file, and the tree at random times, against what was
// done. Its clock moves three minutes with each step, so that saves by rename are told from renames.
func TestHistoryModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &historyModel{
			th: newTestHome(rapidTB{t, rt}), live: map[string]*docModel{}, dirs: map[string]bool{"": true}, dead: map[string][]*docModel{},
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create":     m.create,
			"save":       m.save,
			"save more":  m.save,
			"unlink":     m.unlink,
			"rename":     m.rename,
			"mkdir":      m.mkdir,
			"moveDir":    m.moveDir,
			"link":       m.link,
			"removeTree": m.removeTree,
			"undelete":   m.undelete,
			"back":       m.back,
			"snap":       func(*rapid.T) { m.snap() },
			"kill":       func(*rapid.T) { m.th.kill() },
			"reopen":     func(*rapid.T) { m.th.reopen() },
			"":           m.glance,
		})
		m.check(rt)
		if problems, err := m.th.Verify(context.Background(), nil); err != nil || len(problems) > 0 {
			rt.Fatalf("verify: %v %v", problems, err)
		}
	})
}

// TestHistoryAfterImport takes a space out and in again: the index is made anew, with what it knows of the past.
func TestHistoryAfterImport(t *testing.T) {
	th := newTestHome(t)
	d := th.mkdir(th.root, "d")
	sub := th.mkdir(d, "sub")
	f := th.create(d, "f", []byte("one"))
	th.create(sub, "x", []byte("x"))
	th.create(d, "moved", []byte("moved"))
	th.flush()
	then := th.clock()
	th.tick(time.Hour)
	th.save(f, []byte("two"))
	th.must(th.Rename(d, "moved", th.root, "moved", 0))
	th.flush()
	th.tick(time.Hour)
	th.must(th.Unlink(d, "f"))
	th.removeAll("Personal/d/sub")
	th.flush()
	th.tick(time.Hour)
	var car bytes.Buffer
	_, err := th.Export(context.Background(), PersonalName, &car)
	th.must(err)
	th.must(th.DeleteSpace(PersonalName))
	_, err = th.Import(context.Background(), &car, PersonalName)
	th.must(err)
	d = th.at("Personal/d")
	if l := th.deleted("Personal/d"); len(l) != 2 {
		t.Fatalf("%+v", l)
	}
	at := ".anyfs/at/" + then.Format(time.RFC3339Nano)
	th.wantList(d, at, "f", "moved", "sub")
	th.wantList(d, at+"/sub", "x")
	if got := th.read(th.sub(d, at+"/f").Ino); string(got) != "one" {
		t.Fatalf("%q", got)
	}
	th.restore("Personal/d/sub", "", "")
	th.restore("Personal/d/f", "", "")
	th.wantContent(d, "f", []byte("two"))
	th.wantContent(th.at("Personal/d/sub"), "x", []byte("x"))
	if l := th.deleted("Personal/d"); len(l) != 0 {
		t.Fatalf("%+v", l)
	}
	th.flush()
	th.verify()
	if _, err := th.Log("Personal/d/none"); !errors.Is(err, ErrNotExist) {
		t.Fatal(err)
	}
}
