package fs

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// historyModel is a tree of files with all that it ever held, in the plainest form: what history_steps_test.go does to a
// space it does to this tree too, and the two are compared.
type historyModel struct {
	th    *testHome
	root  *dirModel
	snaps []treeSnap
	n     int // contents that were made
	step  int
}

// docModel is a file: what it held after each save.
type docModel struct {
	id       string // its object
	versions [][]byte
}

func (doc *docModel) last() []byte { return doc.versions[len(doc.versions)-1] }

// linkModel is a name of a file, wherever it is: it goes on when it is moved, and when it comes back.
type linkModel struct{ doc *docModel }

// dirModel is a directory: what is in it, and what was removed from it.
type dirModel struct {
	id   string
	live map[string]any // *linkModel or *dirModel
	dead []grave        // the last removed last
}

func newDirModel(id string) *dirModel { return &dirModel{id: id, live: map[string]any{}} }

// grave is a name that was removed from a directory. What went in one step went in one go.
type grave struct {
	name string
	what any
	step int
}

// treeSnap is what the tree held at a time: what was in each directory that there was, by name a pastFile or a *dirModel.
type treeSnap struct {
	at   time.Time
	dirs map[*dirModel]map[string]any
}

// pastFile is a file at a time.
type pastFile struct {
	link *linkModel
	data []byte
}

func (l *linkModel) now() pastFile { return pastFile{l, l.doc.last()} }

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

// spacePath gives the path of a model's path in the home.
func spacePath(p string) string { return strings.TrimSuffix("Personal/"+p, "/") }

func (m *historyModel) ino(p string) Ino { return m.th.at(spacePath(p)) }

func (m *historyModel) id(p string) string {
	id, err := m.th.Getxattr(m.ino(p), "user.anyfs.id")
	m.th.must(err)
	return string(id)
}

// each calls fn for everything below a directory, directories before what is in them, in the order of names.
func (d *dirModel) each(path string, fn func(path string, what any)) {
	for _, name := range slices.Sorted(maps.Keys(d.live)) {
		p := joinPath(path, name)
		fn(p, d.live[name])
		if sub, ok := d.live[name].(*dirModel); ok {
			sub.each(p, fn)
		}
	}
}

func (m *historyModel) files() map[string]*docModel {
	out := map[string]*docModel{}
	m.root.each("", func(p string, what any) {
		if l, ok := what.(*linkModel); ok {
			out[p] = l.doc
		}
	})
	return out
}

func (m *historyModel) dirs() map[string]*dirModel {
	out := map[string]*dirModel{"": m.root}
	m.root.each("", func(p string, what any) {
		if d, ok := what.(*dirModel); ok {
			out[p] = d
		}
	})
	return out
}

// names counts the names of a file.
func (m *historyModel) names(doc *docModel) int {
	n := 0
	for _, d := range m.files() {
		if d == doc {
			n++
		}
	}
	return n
}

// modelStep is one part of a path.
type modelStep struct {
	name string
	what any
	in   *dirModel
	dead int // the index of its grave, or -1
}

// find follows names from a directory: at each what is there comes first, and then what was removed, the newest first.
func (d *dirModel) find(names []string) []modelStep {
	try := func(st modelStep) []modelStep {
		if len(names) == 1 {
			return []modelStep{st}
		}
		if sub, ok := st.what.(*dirModel); ok {
			if rest := sub.find(names[1:]); rest != nil {
				return append([]modelStep{st}, rest...)
			}
		}
		return nil
	}
	if what, ok := d.live[names[0]]; ok {
		if found := try(modelStep{names[0], what, d, -1}); found != nil {
			return found
		}
	}
	for i := len(d.dead) - 1; i >= 0; i-- {
		if g := d.dead[i]; g.name == names[0] {
			if found := try(modelStep{g.name, g.what, d, i}); found != nil {
				return found
			}
		}
	}
	return nil
}

func (m *historyModel) find(p string) []modelStep { return m.root.find(strings.Split(p, "/")) }

// deadPaths gives the paths that lead to something deleted.
func (m *historyModel) deadPaths() []string {
	found := map[string]bool{}
	var walk func(path string, d *dirModel)
	walk = func(path string, d *dirModel) {
		for name, what := range d.live {
			if sub, ok := what.(*dirModel); ok {
				walk(joinPath(path, name), sub)
			}
		}
		for _, g := range d.dead {
			p := joinPath(path, g.name)
			if steps := m.find(p); steps != nil && steps[len(steps)-1].dead >= 0 {
				found[p] = true
			}
			if sub, ok := g.what.(*dirModel); ok {
				walk(p, sub)
			}
		}
	}
	walk("", m.root)
	return slices.Sorted(maps.Keys(found))
}

func (d *dirModel) bury(name string, step int) {
	d.dead = append(d.dead, grave{name, d.live[name], step})
	delete(d.live, name)
}

// raise brings a grave's content back under its name, a directory with what went with it.
func (d *dirModel) raise(in *dirModel, dead int) {
	g := in.dead[dead]
	in.dead = slices.Delete(in.dead, dead, dead+1)
	d.live[g.name] = g.what
	sub, ok := g.what.(*dirModel)
	if !ok {
		return
	}
	for i := len(sub.dead) - 1; i >= 0; i-- {
		if sub.dead[i].step == g.step && sub.live[sub.dead[i].name] == nil {
			sub.raise(sub, i)
			i = len(sub.dead)
		}
	}
}

// take notes the tree as it is.
func (m *historyModel) take() treeSnap {
	s := treeSnap{at: m.th.clock(), dirs: map[*dirModel]map[string]any{}}
	for _, d := range m.dirs() {
		names := map[string]any{}
		for name, what := range d.live {
			names[name] = what
			if l, ok := what.(*linkModel); ok {
				names[name] = l.now()
			}
		}
		s.dirs[d] = names
	}
	return s
}

// glance compares one file and one directory with their history, and now and then an earlier time.
func (m *historyModel) glance(t *rapid.T) {
	if files := m.files(); len(files) > 0 {
		p := pick(t, "file", files)
		m.wantFile(t, p, files[p])
	}
	dirs := m.dirs()
	p := pick(t, "dir", dirs)
	m.wantDir(t, p, dirs[p])
	if len(m.snaps) > 0 && rapid.IntRange(0, 3).Draw(t, "look back") == 0 {
		m.wantPast(t, rapid.IntRange(0, len(m.snaps)-1).Draw(t, "time"), p, dirs[p])
	}
}

func pick[T any](t *rapid.T, label string, from map[string]T) string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(from))).Draw(t, label)
}

// check compares everything that is there, every history, and all times.
func (m *historyModel) check(t *rapid.T) {
	now := m.th.clock()
	for p, doc := range m.files() {
		m.wantFile(t, p, doc)
	}
	for p, d := range m.dirs() {
		m.wantDir(t, p, d)
		for i := range m.snaps {
			m.wantPast(t, i, p, d)
		}
	}
	for _, p := range m.deadPaths() {
		steps := m.find(p)
		if l, ok := steps[len(steps)-1].what.(*linkModel); ok {
			m.wantVersions(t, p, l.doc)
		}
	}
	if m.th.clock().Sub(now) > time.Minute {
		t.Fatal("the check took too long for its clock")
	}
}

func (m *historyModel) wantFile(t *rapid.T, p string, doc *docModel) {
	ino := m.ino(p)
	if got, want := m.th.read(ino), doc.last(); !bytes.Equal(got, want) {
		t.Fatalf("%s holds %s, not %s", p, title(got), title(want))
	}
	a, err := m.th.Getattr(ino)
	m.th.must(err)
	if n := m.names(doc); int(a.Nlink) != n {
		t.Fatalf("%s has %d links, not %d", p, a.Nlink, n)
	}
	if m.id(p) != doc.id {
		t.Fatalf("%s is another object", p)
	}
	if v := m.th.log(spacePath(p))[0]; v.Path != spacePath(p) {
		t.Fatalf("the last version of %s is one of %q", p, v.Path)
	}
	m.wantVersions(t, p, doc)
}

// title is how a content of the model begins: enough to tell it.
func title(b []byte) string { return fmt.Sprintf("%.14q", b) }

func (m *historyModel) wantVersions(t *rapid.T, p string, doc *docModel) {
	vs := m.th.contents(spacePath(p))
	if len(vs) != len(doc.versions) {
		var all []string
		for _, v := range m.th.log(spacePath(p)) {
			all = append(all, v.Summary())
		}
		t.Fatalf("%s has %d versions, not %d:\n%s", p, len(vs), len(doc.versions), strings.Join(all, "\n"))
	}
	for i, v := range vs {
		want := doc.versions[len(vs)-1-i]
		f, err := m.th.OpenVersion(context.Background(), spacePath(p), v.ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("version %d of %s is %s, not %s: %v", i, p, title(got), title(want), err)
		}
	}
}

// wantDir compares a directory with what is in it, was removed from it, and was in its files.
func (m *historyModel) wantDir(t *rapid.T, p string, d *dirModel) {
	dir := m.ino(p)
	names := m.th.list(dir)
	slices.Sort(names)
	if want := slices.Sorted(maps.Keys(d.live)); !slices.Equal(names, want) {
		t.Fatalf("%q holds %q, not %q", p, names, want)
	}
	if p != "" && m.id(p) != d.id {
		t.Fatalf("%s is another object", p)
	}
	var got, want []string
	for _, e := range m.th.deleted(spacePath(p)) {
		got = append(got, e.Name+" "+m.name(e.Object))
	}
	for _, g := range d.dead {
		id := idOf(g.what)
		if now, ok := d.live[g.name]; ok && idOf(now) == id {
			continue // by another link the object has the name again
		}
		if line := g.name + " " + m.name(id); !slices.Contains(want, line) { // an object that lost a name several times is listed once
			want = append(want, line)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("deleted from %q are %q, not %q", p, got, want)
	}
	if n := len(m.th.list(m.th.sub(dir, ".anyfs/trash").Ino)); n != len(want) {
		t.Fatalf("the trash of %q has %d names, not %d", p, n, len(want))
	}
	m.wantVersionsView(t, p, d)
}

func idOf(what any) string {
	if l, ok := what.(*linkModel); ok {
		return l.doc.id
	}
	return what.(*dirModel).id
}

// name says which object of the model an id is, in a way that is the same in each run.
func (m *historyModel) name(id string) string {
	var found string
	var walk func(path string, d *dirModel)
	seen := map[*dirModel]bool{}
	look := func(path string, what any) {
		if idOf(what) == id && (found == "" || path < found) {
			found = path
		}
		if sub, ok := what.(*dirModel); ok {
			walk(path, sub)
		}
	}
	walk = func(path string, d *dirModel) {
		if seen[d] {
			return
		}
		seen[d] = true
		for name, what := range d.live {
			look(joinPath(path, name), what)
		}
		for i, g := range d.dead {
			look(fmt.Sprintf("%s(%d)", joinPath(path, g.name), i), g.what)
		}
	}
	walk("", m.root)
	return cmp.Or(found, "unknown")
}

// wantVersionsView compares .anyfs/versions of a directory: what all files held that have or had each name in it.
func (m *historyModel) wantVersionsView(t *rapid.T, p string, d *dirModel) {
	docs := map[string][]*docModel{}
	note := func(name string, what any) {
		if l, ok := what.(*linkModel); ok && !slices.Contains(docs[name], l.doc) {
			docs[name] = append(docs[name], l.doc)
		}
	}
	for name, what := range d.live {
		note(name, what)
	}
	for _, g := range d.dead {
		note(g.name, g.what)
	}
	top := m.th.sub(m.ino(p), ".anyfs/versions").Ino
	names := m.th.list(top)
	slices.Sort(names)
	if want := slices.Sorted(maps.Keys(docs)); !slices.Equal(names, want) {
		t.Fatalf("there are versions of %q in %q, not of %q", names, p, want)
	}
	for _, name := range names {
		var got, want []string
		dir := m.th.sub(top, name).Ino
		for _, v := range m.th.list(dir) {
			got = append(got, title(m.th.read(m.th.sub(dir, v).Ino)))
		}
		for _, doc := range docs[name] {
			for _, b := range doc.versions {
				want = append(want, title(b))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("versions of %s are %q, not %q", joinPath(p, name), got, want)
		}
	}
}

// wantPast compares a directory that is at a path now, or was at no time before, with what it held at a time. What fails names
// no moment of this run: equal failures have equal texts, or they are not shrunk.
func (m *historyModel) wantPast(t *rapid.T, i int, path string, d *dirModel) {
	s := &m.snaps[i]
	var walk func(p string, dir Ino, d *dirModel)
	walk = func(p string, dir Ino, d *dirModel) {
		m.th.Ref(dir)
		defer m.th.Unref(dir)
		names := m.th.list(dir)
		slices.Sort(names)
		if want := slices.Sorted(maps.Keys(s.dirs[d])); !slices.Equal(names, want) {
			t.Fatalf("%q at time %d, of %q, held %q, not %q", p, i, path, names, want)
		}
		for _, name := range names {
			a, err := m.th.Lookup(dir, name)
			m.th.must(err)
			q := joinPath(p, name)
			sub, isDir := s.dirs[d][name].(*dirModel)
			switch {
			case a.IsDir() != isDir:
				t.Fatalf("%q at time %d is of the wrong kind", q, i)
			case isDir:
				walk(q, a.Ino, sub)
			default:
				if got, want := m.th.read(a.Ino), s.dirs[d][name].(pastFile).data; !bytes.Equal(got, want) {
					t.Fatalf("%q at time %d held %s, not %s", q, i, title(got), title(want))
				}
			}
		}
	}
	walk(path, m.th.sub(m.ino(path), ".anyfs/at/"+s.at.Format(time.RFC3339Nano)).Ino, d)
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
