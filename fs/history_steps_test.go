package fs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
	d.live[name] = &linkModel{&docModel{id: m.id(p), versions: [][]byte{data}}}
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
			d.live[name] = &linkModel{doc}
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
	d.live[name] = &linkModel{doc}
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
	p, _ := m.anyFile(t)
	q, d, _ := m.anyName(t)
	m.renamed(t, p, q, d)
}

func (m *historyModel) moveDir(t *rapid.T) {
	p, _ := m.anyDir(t)
	q, d, _ := m.anyName(t)
	if p == "" || strings.HasPrefix(q+"/", p+"/") {
		t.Skip("not there")
	}
	m.renamed(t, p, q, d)
}

func (m *historyModel) renamed(t *rapid.T, p, q string, d *dirModel) {
	from, dir, name := m.above(p)
	_, newDir, newName := m.above(q)
	what, old := from.live[name], d.live[newName]
	if old != nil && idOf(old) == idOf(what) {
		t.Skip("one file")
	}
	_, isFile := what.(*linkModel)
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
	if strings.HasPrefix(p+"/", q+"/") || strings.HasPrefix(q+"/", p+"/") || idOf(a.live[name]) == idOf(b.live[newName]) {
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
		if problems, err := problemsOf(m.th.Verify(context.Background(), nil)); err != nil || len(problems) > 0 {
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
