package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The steps of TestHistoryModel: each is done to the space and to the model.

// done ends a step: what was done is published, and three minutes pass.
func (m *historyModel) done() {
	m.th.flush()
	m.th.tick(3 * time.Minute)
	m.step++
}

// data gives content that was never saved before.
func (m *historyModel) data(t *rapid.T) []byte {
	m.n++
	size := rapid.SampledFrom([]int{0, 10, 500, 9000, 40_000}).Draw(t, "size")
	return append(fmt.Appendf(nil, "version %d ", m.n), random(uint64(m.n), size)...)
}

func (m *historyModel) anyFile(t *rapid.T) (p string, doc *docModel) {
	files := m.files()
	if len(files) == 0 {
		t.Skip("no file")
	}
	p = pick(t, "file", files)
	return p, files[p]
}

func (m *historyModel) anyDir(t *rapid.T) (string, *dirModel) {
	dirs := m.dirs()
	p := pick(t, "dir", dirs)
	return p, dirs[p]
}

func (m *historyModel) anyName(t *rapid.T) (p string, dir *dirModel, name string) {
	p, dir = m.anyDir(t)
	if strings.Count(p, "/") > 2 {
		t.Skip("deep enough")
	}
	name = rapid.SampledFrom([]string{"a", "b", "c", "d.txt"}).Draw(t, "name")
	return joinPath(p, name), dir, name
}

// free gives a path that nothing has.
func (m *historyModel) free(t *rapid.T) (p string, dir *dirModel, name string) {
	p, dir, name = m.anyName(t)
	if dir.live[name] != nil {
		t.Skip("taken")
	}
	return p, dir, name
}

func (m *historyModel) above(p string) (dir *dirModel, ino Ino, name string) {
	up, name := splitPath(p)
	return m.dirs()[up], m.ino(up), name
}

func (m *historyModel) create(t *rapid.T) {
	p, d, name := m.free(t)
	_, dir, _ := m.above(p)
	data := m.data(t)
	m.th.create(dir, name, data)
	m.done()
	d.live[name] = &docModel{id: m.id(p), versions: [][]byte{data}}
}

func (m *historyModel) save(t *rapid.T) {
	p, doc := m.anyFile(t)
	d, dir, name := m.above(p)
	data := m.data(t)
	how := rapid.SampledFrom([]string{"in place", "append", "rename", "aside"}).Draw(t, "how")
	if m.names(doc) > 1 && how == "aside" {
		how = "rename"
	}
	switch how {
	case "in place":
		m.th.save(m.th.look(dir, name), data)
	case "append":
		old := doc.last()
		m.th.write(m.th.look(dir, name), data, int64(len(old)))
		data = append(slices.Clone(old), data...)
	case "rename":
		m.th.create(dir, ".tmp", data)
		m.th.must(m.th.Rename(dir, ".tmp", dir, name, 0))
		if m.names(doc) > 1 {
			// Of a file with several names this takes one away, as POSIX has it.
			d.bury(name, m.step)
			doc = &docModel{}
			d.live[name] = doc
		}
	case "aside":
		m.th.must(m.th.Rename(dir, name, dir, name+"~", 0))
		m.th.create(dir, name, data)
		m.th.must(m.th.Unlink(dir, name+"~"))
	}
	doc.versions = append(doc.versions, data)
	m.done()
	if doc.id == "" {
		doc.id = m.id(p)
	}
}

func (m *historyModel) unlink(t *rapid.T) {
	p, _ := m.anyFile(t)
	d, dir, name := m.above(p)
	m.th.must(m.th.Unlink(dir, name))
	d.bury(name, m.step)
	m.done()
}

func (m *historyModel) link(t *rapid.T) {
	p, doc := m.anyFile(t)
	q, d, name := m.free(t)
	_, dir, _ := m.above(q)
	_, err := m.th.Link(m.ino(p), dir, name)
	m.th.must(err)
	d.live[name] = doc
	m.done()
}

func (m *historyModel) mkdir(t *rapid.T) {
	p, d, name := m.free(t)
	_, dir, _ := m.above(p)
	m.th.mkdir(dir, name)
	m.done()
	d.live[name] = newDirModel(m.id(p))
}

// rename gives a file another name, which a file may have, and moveDir a directory, which an empty directory may have.
func (m *historyModel) rename(t *rapid.T) {
	p, doc := m.anyFile(t)
	q, d, _ := m.anyName(t)
	m.renamed(t, p, q, doc, d)
}

func (m *historyModel) moveDir(t *rapid.T) {
	p, moved := m.anyDir(t)
	q, d, _ := m.anyName(t)
	if p == "" || strings.HasPrefix(q+"/", p+"/") {
		t.Skip("not there")
	}
	m.renamed(t, p, q, moved, d)
}

func (m *historyModel) renamed(t *rapid.T, p, q string, what any, d *dirModel) {
	from, dir, name := m.above(p)
	_, newDir, newName := m.above(q)
	old := d.live[newName]
	if old == what {
		t.Skip("one file")
	}
	_, isFile := what.(*docModel)
	if sub, ok := old.(*dirModel); ok && (isFile || len(sub.live) > 0) || old != nil && !ok && !isFile {
		t.Skip("no rename")
	}
	m.th.must(m.th.Rename(dir, name, newDir, newName, 0))
	if old != nil {
		d.bury(newName, m.step)
	}
	delete(from.live, name)
	d.live[newName] = what
	m.done()
}

// exchange lets two names change what they stand for.
func (m *historyModel) exchange(t *rapid.T) {
	var all []string
	m.root.each("", func(p string, _ any) { all = append(all, p) })
	if len(all) < 2 {
		t.Skip("too few")
	}
	p, q := rapid.SampledFrom(all).Draw(t, "one"), rapid.SampledFrom(all).Draw(t, "other")
	a, dir, name := m.above(p)
	b, newDir, newName := m.above(q)
	if strings.HasPrefix(p+"/", q+"/") || strings.HasPrefix(q+"/", p+"/") || a.live[name] == b.live[newName] {
		t.Skip("one is in the other")
	}
	m.th.must(m.th.Rename(dir, name, newDir, newName, RenameExchange))
	a.live[name], b.live[newName] = b.live[newName], a.live[name]
	m.done()
}

// remove removes a directory with all in it.
func (m *historyModel) remove(t *rapid.T) {
	p, d := m.anyDir(t)
	if p == "" {
		t.Skip("the root")
	}
	m.th.removeAll(spacePath(p))
	var bury func(d *dirModel)
	bury = func(d *dirModel) {
		for name, what := range d.live {
			if sub, ok := what.(*dirModel); ok {
				bury(sub)
			}
			d.bury(name, m.step)
		}
	}
	bury(d)
	up, _, name := m.above(p)
	up.bury(name, m.step)
	m.done()
}

// removeTree removes a directory with all in it, and brings it back.
func (m *historyModel) removeTree(t *rapid.T) {
	p, _ := m.anyDir(t)
	if p == "" {
		t.Skip("the root")
	}
	want := m.th.tree("Personal")
	m.th.removeAll(spacePath(p))
	m.done()
	m.th.tick(3 * time.Minute)
	if rapid.Bool().Draw(t, "kill") {
		m.th.kill()
	}
	m.th.restore(spacePath(p), "", "")
	m.done()
	if got := m.th.tree("Personal"); !slices.Equal(got, want) {
		t.Fatalf("%s came back as\n%s\nit was\n%s", p, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// undelete brings back something deleted, with the directories above it.
func (m *historyModel) undelete(t *rapid.T) {
	gone := m.deadPaths()
	if len(gone) == 0 {
		t.Skip("nothing is deleted")
	}
	p := rapid.SampledFrom(gone).Draw(t, "deleted")
	steps := m.find(p)
	at := m.root
	for _, st := range steps[:len(steps)-1] {
		switch now := at.live[st.name].(type) {
		case *docModel:
			if _, err := m.th.Restore(context.Background(), spacePath(p), "", ""); !errors.Is(err, ErrExist) {
				t.Fatalf("%s came back in a file: %v", p, err)
			}
			// Directories above it may have come back all the same.
			t.Skip("in a file")
		case *dirModel:
			at = now
		default:
			at = st.what.(*dirModel)
		}
	}
	version, i := "", 0
	last := steps[len(steps)-1]
	doc, isFile := last.what.(*docModel)
	if isFile && rapid.Bool().Draw(t, "older") {
		i = rapid.IntRange(0, len(doc.versions)-1).Draw(t, "version")
		version = m.version(t, p, doc, i)
	}
	m.th.restore(spacePath(p), version, "")
	at = m.root
	for k, st := range steps {
		if k == len(steps)-1 {
			at.raise(st.in, st.dead)
			break
		}
		if at.live[st.name] == nil {
			at.live[st.name] = st.what
			st.in.dead = slices.Delete(st.in.dead, st.dead, st.dead+1)
		}
		at = at.live[st.name].(*dirModel)
	}
	if version != "" && !bytes.Equal(doc.versions[i], doc.last()) {
		doc.versions = append(doc.versions, doc.versions[i])
	}
	m.done()
}

// version gives the id of the i-th version of the file at a path.
func (m *historyModel) version(t *rapid.T, p string, doc *docModel, i int) string {
	vs := m.th.contents(spacePath(p))
	if len(vs) != len(doc.versions) {
		t.Fatalf("%s has %d versions, not %d", p, len(vs), len(doc.versions))
	}
	return vs[len(vs)-1-i].ID
}

func (m *historyModel) back(t *rapid.T) {
	p, doc := m.anyFile(t)
	i := rapid.IntRange(0, len(doc.versions)-1).Draw(t, "version")
	m.th.restore(spacePath(p), m.version(t, p, doc, i), "")
	doc.versions = append(doc.versions, doc.versions[i])
	m.done()
}

// anySnap gives a directory with what it held at a time.
func (m *historyModel) anySnap(t *rapid.T) (p string, d *dirModel, s *treeSnap) {
	p, d = m.anyDir(t)
	if len(m.snaps) == 0 {
		t.Skip("no time")
	}
	s = &m.snaps[rapid.IntRange(0, len(m.snaps)-1).Draw(t, "time")]
	if s.dirs[d] == nil {
		t.Skip("not there then")
	}
	return p, d, s
}

// copyOld copies a directory as it was at a time, and copyDead something deleted.
func (m *historyModel) copyOld(t *rapid.T) {
	p, d, s := m.anySnap(t)
	q, at, name := m.free(t)
	m.th.restore(spacePath(p), s.at.Format(time.RFC3339Nano), spacePath(q))
	m.done()
	at.live[name] = m.copied(q, d, map[*docModel]*docModel{}, func(d *dirModel) map[string]any { return s.dirs[d] })
}

func (m *historyModel) copyDead(t *rapid.T) {
	gone := m.deadPaths()
	if len(gone) == 0 {
		t.Skip("nothing is deleted")
	}
	p := rapid.SampledFrom(gone).Draw(t, "deleted")
	q, at, name := m.free(t)
	steps := m.find(p)
	g := steps[len(steps)-1].in.dead[steps[len(steps)-1].dead]
	m.th.restore(spacePath(p), "", spacePath(q))
	m.done()
	what := g.what
	if doc, ok := what.(*docModel); ok {
		what = pastDoc{doc, doc.last()}
	}
	at.live[name] = m.copied(q, what, map[*docModel]*docModel{}, func(d *dirModel) map[string]any {
		names := map[string]any{}
		for _, x := range d.dead {
			if x.step != g.step {
				continue
			}
			names[x.name] = x.what
			if doc, ok := x.what.(*docModel); ok {
				names[x.name] = pastDoc{doc, doc.last()}
			}
		}
		return names
	})
}

// copied gives the model of a copy at a path: what was one file is one in the copy.
func (m *historyModel) copied(p string, what any, docs map[*docModel]*docModel, in func(*dirModel) map[string]any) any {
	if old, ok := what.(pastDoc); ok {
		if docs[old.doc] == nil {
			docs[old.doc] = &docModel{id: m.id(p), versions: [][]byte{old.data}}
		}
		return docs[old.doc]
	}
	d := newDirModel(m.id(p))
	for name, what := range in(what.(*dirModel)) {
		d.live[name] = m.copied(joinPath(p, name), what, docs, in)
	}
	return d
}

// backTo restores a directory to what it was at a time. What that does to which object is not modelled: it is held against what
// a restore promises, and then the model takes it over.
func (m *historyModel) backTo(t *rapid.T) {
	p, d, s := m.anySnap(t)
	res, err := m.th.Restore(context.Background(), spacePath(p), s.at.Format(time.RFC3339Nano), "")
	m.th.must(err)
	m.done()
	skipped := func(p string) bool {
		return slices.ContainsFunc(res.Skipped, func(text string) bool { return strings.HasPrefix(text, spacePath(p)+": ") })
	}
	var want func(p string, d *dirModel)
	want = func(p string, d *dirModel) {
		for name, what := range s.dirs[d] {
			q := joinPath(p, name)
			a, err := m.th.Getattr(m.ino(q))
			m.th.must(err)
			old, isFile := what.(pastDoc)
			switch {
			case skipped(q):
				if a.IsDir() != isFile && a.Nlink == 1 {
					t.Fatalf("%s is not as it was: %q", q, res.Skipped)
				}
			case a.IsDir() == isFile:
				t.Fatalf("%s is of the wrong kind", q)
			case !isFile:
				want(q, what.(*dirModel))
			default:
				if got := m.th.read(a.Ino); !bytes.Equal(got, old.data) {
					t.Fatalf("%s holds %s, not %s", q, title(got), title(old.data))
				}
			}
		}
	}
	want(p, d)
	m.adopt(t)
}

// adopt takes over what a step did to the space. It may have given objects names again, made new ones, and made versions; it has
// taken nothing away.
func (m *historyModel) adopt(t *rapid.T) {
	known := map[string]any{}
	for _, d := range m.everyDir() {
		for _, what := range d.live {
			known[idOf(what)] = what
		}
		for _, g := range d.dead {
			known[idOf(g.what)] = g.what
		}
	}
	var walk func(p string, d *dirModel)
	walk = func(p string, d *dirModel) {
		was := maps.Clone(d.live)
		for _, name := range m.th.list(m.ino(p)) {
			q := joinPath(p, name)
			id := m.id(q)
			what := known[id]
			if old := was[name]; old != nil && old != what {
				t.Fatalf("%s is another object", q)
			}
			delete(was, name)
			a, err := m.th.Getattr(m.ino(q))
			m.th.must(err)
			if what == nil && a.IsDir() {
				what = newDirModel(id)
			} else if what == nil {
				what = &docModel{id: id}
			}
			known[id], d.live[name] = what, what
			if sub, ok := what.(*dirModel); ok {
				walk(q, sub)
			} else {
				m.adoptVersions(t, q, what.(*docModel))
			}
		}
		if len(was) > 0 {
			t.Fatalf("%q lost %q", p, slices.Sorted(maps.Keys(was)))
		}
		var dead []grave
		for _, e := range m.th.deleted(spacePath(p)) {
			i := len(d.dead) - 1
			for i >= 0 && (d.dead[i].name != e.Name || idOf(d.dead[i].what) != e.Object) {
				i--
			}
			if i < 0 {
				t.Fatalf("%s was deleted from %q", e.Name, p)
			}
			dead = append([]grave{d.dead[i]}, dead...)
			d.dead = slices.Delete(d.dead, i, i+1)
		}
		d.dead = dead
	}
	walk("", m.root)
}

func (m *historyModel) adoptVersions(t *rapid.T, p string, doc *docModel) {
	vs := m.th.contents(spacePath(p))
	var all [][]byte
	for i := len(vs) - 1; i >= 0; i-- {
		all = append(all, m.th.versionBytes(spacePath(p), vs[i].ID))
	}
	n := len(doc.versions)
	if len(all) < n || len(all) > n+1 || !slices.EqualFunc(all[:n], doc.versions, bytes.Equal) {
		t.Fatalf("%s had %d versions, and has %d", p, n, len(all))
	}
	doc.versions = all
}

// everyDir gives all directories, deleted ones too.
func (m *historyModel) everyDir() []*dirModel {
	var out []*dirModel
	var walk func(what any)
	walk = func(what any) {
		d, ok := what.(*dirModel)
		if !ok || slices.Contains(out, d) {
			return
		}
		out = append(out, d)
		for _, what := range d.live {
			walk(what)
		}
		for _, g := range d.dead {
			walk(g.what)
		}
	}
	walk(m.root)
	return out
}

func (m *historyModel) snap(*rapid.T) {
	m.snaps = append(m.snaps, m.take())
	m.th.tick(3 * time.Minute)
	m.step++
}

// TestHistoryModel does random work, and holds every version of every file, what was deleted, and the tree at random times,
// against what was done. Its clock moves three minutes with each step, so that saves by rename are told from renames.
func TestHistoryModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		keys := rapid.Uint64().Draw(rt, "keys")
		rnd := mrand.NewChaCha8([32]byte(bytes.Repeat(binary.LittleEndian.AppendUint64(nil, keys), 4)))
		m := &historyModel{th: newTestHomeOf(rapidTB{t, rt}, rnd), root: newDirModel("")}
		rt.Repeat(map[string]func(*rapid.T){
			"create":     m.create,
			"save":       m.save,
			"save more":  m.save,
			"unlink":     m.unlink,
			"link":       m.link,
			"rename":     m.rename,
			"mkdir":      m.mkdir,
			"moveDir":    m.moveDir,
			"exchange":   m.exchange,
			"remove":     m.remove,
			"removeTree": m.removeTree,
			"undelete":   m.undelete,
			"back":       m.back,
			"backTo":     m.backTo,
			"copyOld":    m.copyOld,
			"copyDead":   m.copyDead,
			"snap":       m.snap,
			"kill":       func(*rapid.T) { m.th.kill() },
			"reopen":     func(*rapid.T) { m.th.reopen() },
			"reimport":   func(*rapid.T) { m.th.reimport() },
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
	_, err = th.Import(context.Background(), &car, PersonalName, "")
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
