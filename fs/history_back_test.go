package fs

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// The steps of TestHistoryModel that bring something back.

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
		case *linkModel:
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
	link, isFile := last.what.(*linkModel)
	if isFile && rapid.Bool().Draw(t, "older") {
		i = rapid.IntRange(0, len(link.doc.versions)-1).Draw(t, "version")
		version = m.version(t, p, link.doc, i)
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
	if version != "" {
		link.doc.show(link.doc.versions[i])
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

// show makes a file hold what it or another held once, which is a new version unless it does.
func (doc *docModel) show(data []byte) {
	if !bytes.Equal(doc.last(), data) {
		doc.versions = append(doc.versions, data)
	}
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
	then := func(what any) any {
		if l, ok := what.(*linkModel); ok {
			return l.now()
		}
		return what
	}
	at.live[name] = m.copied(q, then(g.what), map[*docModel]*docModel{}, func(d *dirModel) map[string]any {
		names := map[string]any{}
		for _, x := range d.dead {
			if x.step == g.step {
				names[x.name] = then(x.what)
			}
		}
		return names
	})
}

// copied gives the model of a copy that is at a path now: what was one file is one in the copy.
func (m *historyModel) copied(p string, what any, docs map[*docModel]*docModel, in func(*dirModel) map[string]any) any {
	if old, ok := what.(pastFile); ok {
		doc := docs[old.link.doc]
		if doc == nil {
			doc = &docModel{id: m.id(p), versions: [][]byte{old.data}}
			docs[old.link.doc] = doc
		}
		return &linkModel{doc}
	}
	d := newDirModel(m.id(p))
	for name, what := range in(what.(*dirModel)) {
		d.live[name] = m.copied(joinPath(p, name), what, docs, in)
	}
	return d
}

// backTo restores a directory to what it was at a time.
func (m *historyModel) backTo(t *rapid.T) {
	p, d, s := m.anySnap(t)
	b := &backModel{m: m, s: s, is: map[*docModel]pastFile{}, alive: map[any]bool{}}
	for _, x := range m.dirs() {
		for _, what := range x.live {
			b.alive[what] = true
			if l, ok := what.(*linkModel); ok {
				b.alive[l.doc] = true
			}
		}
	}
	b.into(p, d, d)
	if b.clash {
		t.Skip("two files are one now")
	}
	res, err := m.th.Restore(context.Background(), spacePath(p), s.at.Format(time.RFC3339Nano), "")
	m.th.must(err)
	if len(res.Skipped) != b.skipped {
		t.Fatalf("%d were skipped, not %d: %q", len(res.Skipped), b.skipped, res.Skipped)
	}
	m.done()
	for _, do := range b.todo {
		do()
	}
}

// backModel plans what backTo does to the model.
type backModel struct {
	m       *historyModel
	s       *treeSnap
	is      map[*docModel]pastFile // what files that are there come to hold
	alive   map[any]bool           // links, files with a name, and directories
	copies  map[*docModel]*docModel
	skipped int
	clash   bool // a file would have to hold what two files held
	todo    []func()
}

// into makes what is in d at path p as it was in old.
func (b *backModel) into(p string, d, old *dirModel) {
	for name, was := range b.s.dirs[old] {
		q := joinPath(p, name)
		file, isFile := was.(pastFile)
		switch now := d.live[name].(type) {
		case nil:
			b.back(q, d, name, was)
		case *linkModel:
			if isFile {
				b.show(now.doc, file)
			} else {
				b.skipped++
			}
		case *dirModel:
			if isFile {
				b.skipped++
			} else {
				b.into(q, now, was.(*dirModel))
			}
		}
	}
}

func (b *backModel) show(doc *docModel, file pastFile) {
	old, ok := b.is[doc]
	b.clash = b.clash || ok && old.link.doc != file.link.doc
	b.is[doc] = file
	b.todo = append(b.todo, func() {
		// Of a file of another object its content is a version always.
		if ok || doc == file.link.doc {
			doc.show(file.data)
		} else {
			doc.versions = append(doc.versions, file.data)
		}
	})
}

// back brings something to a free name in d: itself if it is deleted, a copy if it is elsewhere.
func (b *backModel) back(p string, d *dirModel, name string, was any) {
	file, isFile := was.(pastFile)
	var what any = file.link
	if !isFile {
		what = was
	}
	if b.alive[what] {
		b.todo = append(b.todo, func() {
			if b.copies == nil {
				b.copies = map[*docModel]*docModel{}
			}
			d.live[name] = b.m.copied(p, was, b.copies, func(x *dirModel) map[string]any { return b.s.dirs[x] })
		})
		return
	}
	b.alive[what] = true
	b.todo = append(b.todo, func() {
		for _, x := range b.m.everyDir() {
			x.dead = slices.DeleteFunc(x.dead, func(g grave) bool { return g.what == what })
		}
		d.live[name] = what
	})
	if isFile {
		b.show(file.link.doc, file)
		return
	}
	sub := was.(*dirModel)
	for name, was := range b.s.dirs[sub] {
		b.back(joinPath(p, name), sub, name, was)
	}
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
