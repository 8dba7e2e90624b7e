package fs

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/fs/index"
)

var (
	contentRuns  = flag.Int("contentruns", 6, "runs of TestContentModel")
	contentSteps = flag.Int("contentsteps", 150, "steps of each run of TestContentModel")
	contentSeed  = flag.Uint64("contentseed", 1, "first seed of TestContentModel")
)

// contentModel is two files of several chunks beside what they hold and what they held at each publication.
type contentModel struct {
	th     *testHome
	r      *mrand.Rand
	files  map[string]*fileModel
	script []string

	pruned, imported bool

	patches, packs, whole int // publications of each kind
}

type fileModel struct {
	data     []byte
	dirty    bool
	versions [][]byte // the last one is the newest; nil where the content was pruned
}

var contentNames = []string{"a", "b"}

const mostContent = 5 << 20

func newContentModel(t *testing.T, seed uint64) *contentModel {
	m := &contentModel{th: newTestHome(t), r: mrand.New(mrand.NewPCG(seed, 77)), files: map[string]*fileModel{}}
	for i, name := range contentNames {
		data := random(seed*10+uint64(i), 1<<20+m.r.IntN(2<<20))
		m.th.create(m.th.root, name, data)
		m.files[name] = &fileModel{data: data, dirty: true}
	}
	m.flush()
	return m
}

func (m *contentModel) fatal(format string, args ...any) {
	m.th.t.Helper()
	from := max(0, len(m.script)-40)
	m.th.t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(m.script[from:], "\n"))
}

func (m *contentModel) note(format string, args ...any) {
	m.script = append(m.script, fmt.Sprintf(format, args...))
}

func (m *contentModel) ino(name string) Ino { return m.th.look(m.th.root, name) }

// inode clones an inode, to look at how its content is kept.
func (m *contentModel) inode(name string) *index.Inode {
	ino := m.ino(name)
	s := m.th.spaceOf(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.inode(uint64(ino) & localMask)
	m.th.must(err)
	return n.Clone()
}

// size is a length, mostly a small one.
func (m *contentModel) size() int {
	switch m.r.IntN(10) {
	case 0:
		return 1 + m.r.IntN(600<<10)
	case 1, 2:
		return 1 + m.r.IntN(50_000)
	case 3:
		return 1 + m.r.IntN(4)
	}
	return 1 + m.r.IntN(5000)
}

// change does one random operation on a file. atomic: not one that others can see half done, as a copy.
func (m *contentModel) change(name string, atomic bool) {
	f := m.files[name]
	ino := m.ino(name)
	ctx := context.Background()
	off, n := m.r.IntN(len(f.data)+1), m.size()
	if m.r.IntN(4) == 0 {
		off = m.r.IntN(min(len(f.data), 200_000) + 1) // some places are written again and again
	}
	switch k := m.r.IntN(20); {
	case k < 11:
		n = min(n, mostContent-off)
		if n <= 0 {
			return
		}
		p := random(m.r.Uint64(), n)
		m.note("write %s %d+%d", name, off, n)
		m.th.write(ino, p, int64(off))
		f.put(p, off)
	case k < 13:
		n = min(n, mostContent-len(f.data))
		if n <= 0 {
			return
		}
		p := random(m.r.Uint64(), n)
		m.note("append %s %d+%d", name, len(f.data), n)
		m.th.write(ino, p, int64(len(f.data)))
		f.put(p, len(f.data))
	case k < 15:
		size := off
		if m.r.IntN(3) == 0 {
			size = min(len(f.data)+n, mostContent)
		}
		m.note("truncate %s %d to %d", name, len(f.data), size)
		m.th.trunc(ino, int64(size))
		f.resize(size)
		f.dirty = true
	case k < 18:
		mode := []uint32{FallocPunchHole | FallocKeepSize, FallocZeroRange, FallocZeroRange | FallocKeepSize}[m.r.IntN(3)]
		if mode == FallocZeroRange {
			n = min(n, mostContent-off)
		}
		if n <= 0 || off >= len(f.data) {
			return
		}
		m.note("zero %s %d+%d mode %x", name, off, n, mode)
		m.th.must(m.th.Fallocate(ctx, ino, mode, int64(off), int64(n)))
		if mode&FallocKeepSize == 0 {
			f.resize(max(len(f.data), off+n))
		}
		clear(f.data[min(off, len(f.data)):min(off+n, len(f.data))])
		f.dirty = true
	default:
		other := contentNames[m.r.IntN(len(contentNames))]
		g := m.files[other]
		from := m.r.IntN(len(g.data) + 1)
		n = min(10*n, len(g.data)-from, mostContent-off)
		if other == name || n <= 0 || atomic {
			return
		}
		m.note("copy %s+%d to %s+%d %d", other, from, name, off, n)
		k, err := m.th.CopyRange(ctx, m.ino(other), int64(from), ino, int64(off), int64(n))
		m.th.must(err)
		if int(k) != n {
			m.fatal("%d bytes were copied, not %d", k, n)
		}
		f.put(g.data[from:from+n], off)
	}
}

func (f *fileModel) put(p []byte, off int) {
	f.resize(max(len(f.data), off+len(p)))
	copy(f.data[off:], p)
	f.dirty = true
}

func (f *fileModel) resize(n int) {
	if n <= len(f.data) {
		f.data = f.data[:n:n]
		return
	}
	f.data = append(f.data, make([]byte, n-len(f.data))...)
}

// saved notes that what the files hold is published now.
func (m *contentModel) saved() {
	for name, f := range m.files {
		if !f.dirty {
			continue
		}
		f.versions, f.dirty = append(f.versions, bytes.Clone(f.data)), false
		switch n := m.inode(name); {
		case n.Patched.Count > 0:
			m.patches++
		case n.Base != nil && !n.Base.LayoutBlock.IsZero():
			m.packs++
		default:
			m.whole++
		}
	}
}

func (m *contentModel) flush() {
	m.note("flush")
	m.th.flush()
	m.th.tick(time.Minute)
	m.saved()
}

// race changes files while they are being published: what was published is what they held at some moment of that.
func (m *contentModel) race() {
	m.note("flush, and meanwhile:")
	type state struct{ a, b []byte }
	now := func() state { return state{bytes.Clone(m.files["a"].data), bytes.Clone(m.files["b"].data)} }
	states := []state{now()}
	done := make(chan error, 1)
	go func() { done <- m.th.Flush(context.Background()) }()
	for range 1 + m.r.IntN(6) {
		m.change(contentNames[m.r.IntN(2)], true)
		states = append(states, now())
	}
	m.th.must(<-done)
	m.th.tick(time.Minute)
	for i, name := range contentNames {
		f := m.files[name]
		of := func(s state) []byte { return [][]byte{s.a, s.b}[i] }
		vs := m.th.contents("Personal/" + name) // publishes the rest
		k := 0
		for at := len(vs) - len(f.versions) - 1; at >= 0; at-- {
			got := m.th.versionBytes("Personal/"+name, vs[at].ID)
			for k < len(states) && !bytes.Equal(of(states[k]), got) {
				k++
			}
			if k == len(states) {
				m.fatal("version %d of %s, published while it was written, is none of the %d states it had", at, name, len(states))
			}
			f.versions = append(f.versions, got)
		}
		f.dirty = false
		if last := f.versions[len(f.versions)-1]; !bytes.Equal(last, f.data) {
			m.fatal("the last version of %s is not what it holds", name)
		}
	}
}

// check compares what the files hold.
func (m *contentModel) check() {
	m.th.t.Helper()
	for name, f := range m.files {
		got := m.th.read(m.ino(name))
		if !bytes.Equal(got, f.data) {
			m.fatal("%s holds %d bytes, not the %d written (first difference at %d)", name, len(got), len(f.data), firstDiff(got, f.data))
		}
		m.holes(name)
	}
}

// holes checks that what a file says to be a hole reads as zeros, and that data and holes alternate.
func (m *contentModel) holes(name string) {
	f, ino := m.files[name], m.ino(name)
	for off := int64(0); off < int64(len(f.data)); {
		data, err := m.th.Seek(ino, off, SeekData)
		if errors.Is(err, errNoData) {
			data = int64(len(f.data))
		} else if err != nil || data < off {
			m.fatal("SEEK_DATA of %s at %d: %d, %v", name, off, data, err)
		}
		if i := bytes.IndexFunc(f.data[off:data], func(c rune) bool { return c != 0 }); i >= 0 {
			m.fatal("%s has data at %d, in the hole from %d to %d", name, off+int64(i), off, data)
		}
		if data == int64(len(f.data)) {
			return
		}
		if off, err = m.th.Seek(ino, data, SeekHole); err != nil || off <= data {
			m.fatal("SEEK_HOLE of %s at %d: %d, %v", name, data, off, err)
		}
	}
}

// history compares some versions of the files.
func (m *contentModel) history() {
	m.th.t.Helper()
	m.flush()
	for name, f := range m.files {
		vs := m.th.contents("Personal/" + name)
		if len(vs) != len(f.versions) {
			m.fatal("%s has %d versions, not %d", name, len(vs), len(f.versions))
		}
		slices.Reverse(vs)
		dir := m.th.sub(m.th.root, ".anyfs/versions/"+name)
		m.th.Ref(dir.Ino)
		for range 3 {
			i := m.r.IntN(len(vs))
			m.version(name, vs[i], f.versions[i])
		}
		m.version(name, vs[len(vs)-1], f.data)
		m.th.Unref(dir.Ino)
	}
}

// version compares one version, whole by its change and a piece of it by the view.
func (m *contentModel) version(name string, v Version, want []byte) {
	m.th.t.Helper()
	if v.Size != int64(len(want)) && want != nil {
		m.fatal("version %s of %s has %d bytes, not %d", v.Short, name, v.Size, len(want))
	}
	f, err := m.th.OpenVersion(context.Background(), "Personal/"+name, v.ID)
	var got []byte
	if err == nil {
		got, err = io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	}
	if want == nil && (errors.Is(err, ErrPruned) || m.imported && errors.Is(err, ErrIO)) {
		return
	}
	if err != nil || want != nil && !bytes.Equal(got, want) {
		m.fatal("version %s of %s: %d bytes, not %d (first difference at %d): %v", v.Short, name, len(got), len(want), firstDiff(got, want), err)
	}
	dir := m.th.sub(m.th.root, ".anyfs/versions/"+name)
	m.th.must(m.th.ReadDir(dir.Ino, 0, func(e Dirent) bool {
		if !strings.Contains(e.Name, v.Short) || len(got) == 0 {
			return true
		}
		a, err := m.th.Lookup(dir.Ino, e.Name)
		m.th.must(err)
		off := m.r.IntN(len(got))
		p := make([]byte, min(len(got)-off, 100_000))
		if k, err := m.th.Read(context.Background(), a.Ino, p, int64(off)); err != nil || !bytes.Equal(p[:k], got[off:off+k]) || k < len(p) {
			m.fatal("the view of version %s of %s at %d: %d bytes, %v", v.Short, name, off, k, err)
		}
		return false
	}))
}

// prune drops old versions, and checks that what is there is whole.
func (m *contentModel) prune() {
	m.flush()
	last := m.r.IntN(4)
	m.note("prune but for the last %d", last)
	m.th.prune(KeepPolicy{Last: last}, false)
	m.pruned = true
	for _, f := range m.files {
		for i := range max(0, len(f.versions)-max(1, last)) {
			f.versions[i] = nil // perhaps: blocks that the others share stay
		}
	}
	m.check()
	m.th.verify()
}

// restore brings an old version back, over the file or as the deleted file that it was.
func (m *contentModel) restore() {
	m.flush()
	name := contentNames[m.r.IntN(len(contentNames))]
	f := m.files[name]
	if m.r.IntN(2) == 0 {
		m.note("remove and restore %s", name)
		m.th.must(m.th.Unlink(m.th.root, name))
		m.th.flush()
		m.th.restore("Personal/"+name, "", "")
		m.th.flush()
		m.th.tick(time.Minute)
		return // no new content
	}
	i := m.r.IntN(len(f.versions))
	if f.versions[i] == nil {
		return
	}
	m.note("restore version %d of %s", i, name)
	vs := m.th.contents("Personal/" + name)
	m.th.restore("Personal/"+name, vs[len(vs)-1-i].ID, "")
	f.data, f.dirty = bytes.Clone(f.versions[i]), true
	m.flush()
}

// save replaces a file by a temporary that shares most of its content, as editors do.
func (m *contentModel) save() {
	name := contentNames[m.r.IntN(len(contentNames))]
	m.flush()
	f := m.files[name]
	m.note("save %s", name)
	a, err := m.th.Mknod(m.th.root, "tmp", 0100644, 0, Cred{1000, 1000})
	m.th.must(err)
	if len(f.data) > 0 {
		_, err = m.th.CopyRange(context.Background(), m.ino(name), 0, a.Ino, 0, int64(len(f.data)))
		m.th.must(err)
	}
	m.th.write(a.Ino, []byte("saved"), int64(len(f.data)/2))
	f.put([]byte("saved"), len(f.data)/2)
	m.th.must(m.th.Rename(m.th.root, "tmp", m.th.root, name, 0))
	m.flush()
}

func (m *contentModel) step() {
	switch m.r.IntN(60) {
	case 0:
		m.note("reopen")
		m.th.reopen() // publishes
		m.th.tick(time.Minute)
		m.saved()
	case 1:
		m.note("sync, kill")
		m.th.must(m.th.SyncAll(context.Background()))
		m.th.kill()
	case 2:
		m.note("checkpoint, kill")
		m.th.must(m.th.SyncAll(context.Background()))
		m.th.must(m.th.checkpoint(context.Background()))
		m.th.kill()
	case 3:
		m.history()
	case 4:
		m.prune()
	case 5:
		m.restore()
	case 6:
		m.save()
	case 7, 8:
		m.race()
	case 9:
		m.note("idle")
		m.flush()
		m.th.tick(time.Minute)
		for _, s := range m.th.each() {
			s.foldIdle(m.th.clock().UnixNano())
		}
		for _, f := range m.files {
			f.dirty = false
		}
		for name, f := range m.files {
			f.dirty = m.inode(name).Dirty()
		}
		m.flush()
	case 10, 11, 12, 13, 14, 15, 16, 17, 18, 19:
		m.flush()
	default:
		m.change(contentNames[m.r.IntN(len(contentNames))], false)
	}
	if m.r.IntN(8) == 0 {
		m.check()
	}
}

// TestContentModel does random writes, holes, truncations and copies on two files of several chunks, with publications, restarts, kills,
// prunes, restores and looks at the past between them, against a model; at the end another device imports what there is.
func TestContentModel(t *testing.T) {
	runs := *contentRuns
	if testing.Short() {
		runs = min(runs, 2)
	}
	var patches, packs, whole int
	for run := range runs {
		seed := *contentSeed + uint64(run)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			m := newContentModel(t, seed)
			for range *contentSteps {
				m.step()
			}
			m.history()
			m.check()
			m.th.verify()
			m.elsewhere()
			patches, packs, whole = patches+m.patches, packs+m.packs, whole+m.whole
		})
	}
	t.Logf("%d publications as patches, %d in parts of blocks, %d whole", patches, packs, whole)
	if !t.Failed() && (patches == 0 || packs == 0 || whole == 0) {
		t.Fatal("not all kinds of content were published: the test proves less than it says")
	}
}

// elsewhere imports the space on another device and compares what is shown there, and goes on writing.
func (m *contentModel) elsewhere() {
	var car bytes.Buffer
	_, err := m.th.Export(context.Background(), PersonalName, &car)
	m.th.must(err)
	account, err := acl.AccountFromPhrase(m.th.keys.Account.Phrase())
	m.th.must(err)
	other := m.th.another(account)
	other.skew.Store(m.th.skew.Load())
	if _, err := other.Import(context.Background(), &car, "", "Imported"); err != nil {
		m.fatal("import: %v", err)
	}
	other.find()
	m.th.leave()
	m.th = other
	m.note("imported elsewhere")
	m.imported = true
	m.check()
	for name := range m.files {
		if m.inode(name).Dirty() {
			m.fatal("the import left %s to be published", name)
		}
	}
	for range 20 {
		m.change(contentNames[m.r.IntN(len(contentNames))], false)
	}
	m.history()
	m.check()
	if !m.pruned { // what was pruned here is missing there, and no list says why
		other.verify()
	}
}
