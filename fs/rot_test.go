package fs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
)

// One bit of one file of a home is wrong. Either nothing uses it, and then all is as it was; or Verify says so and names the file,
// and what is read is what was written, or EIO.

var rotFlips = flag.Int("rot", 150, "bits that are flipped, one at a time; 10,000 is the long run")

// rotten is a home of which a bit is to be flipped, closed in order or killed: its disk, and its databases, which are real ones.
type rotten struct {
	name   string
	base   fs.TestHome
	disk   *disk.Sim
	dbs    map[string][]byte // by name
	states []*tree           // that it passed through behind the last publication; the last one is what it shows
	ops    []*action         // that lead from one to the next
	files  []rotFile
	temp   string
}

type rotFile struct {
	name, kind string
	content    []byte
	used       func(at int) (bool, string) // whether a byte is of use, and else what it is
	bytes      []int32                     // those of use
}

// newRotten makes a home with everything that one can hold, and gives it as a kill left it and as its closing did.
func newRotten(t testing.TB) (killed, closed *rotten) {
	x := &rotten{name: "killed", temp: fastTemp(t)}
	x.base = fs.NewTestHomeWithBolt(t, filepath.Join(x.temp, "base"))
	x.base.Shrink(1<<20, 2<<20)
	r := &drilling{p: &prepared{drill: &drill{}, base: x.base}, th: x.base, sim: x.base.Sim()}
	must(t, reopen[0].home(r))
	work := func(list []task, each func(s *task)) {
		t.Helper()
		for i := range list {
			s := &list[i]
			if err := s.onHome(r); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if each != nil {
				each(s)
			}
		}
	}
	work(tasks(
		do(mkdir("Work"), mkdir("Personal/d"), mkdir("Personal/d/e"), create("Personal/empty"), create("Personal/d/inline"), write("Personal/d/inline", 0, 4000),
			create("Personal/d/block"), write("Personal/d/block", 0, 30<<10), create("Personal/d/e/large"), symlink("Personal/d/sym", "e/large"),
			link("Personal/d/block", "Personal/d/e/hard"), setxattr("Personal/d/block", "user.x", "value"), chmod("Personal/d", 0750)),
		large("Personal/d/e/large", 4), publish, checkpoint, doc, gone,
		// Patches, and blocks that nobody needs any more.
		do(write("Personal/d/e/large", 1<<20, 5000), write("Personal/d/e/large", 3<<20, 300)), publish,
		do(create("Work/w"), write("Work/w", 0, 200<<10), create("Work/old"), write("Work/old", 0, 90<<10)), publish, tick(time.Hour),
		do(truncate("Work/old", 10)), publish, checkpoint,
		alone("prune", ackNone, func(r *drilling) error {
			_, err := r.th.Prune(ctx, "Work", fs.KeepPolicy{}, false)
			return err
		}),
		small("Personal/many", 30, 300), publish, checkpoint, checkpoint,
	), nil)
	// What is in the journal alone, and the blocks that it refers to.
	state := func() {
		s, err := r.walker().tree()
		must(t, err)
		x.states = append(x.states, s)
	}
	state()
	work(tasks(do(create("Personal/fresh"), write("Personal/fresh", 0, 40<<10), write("Personal/d/block", 50, 500), rename("Personal/empty", "Personal/renamed", 0)),
		do(create("Work/stream")), large("Work/stream", 2), fsyncOf("Work/stream"), do(unlink("Personal/d/inline"), setxattr("Work/w", "user.y", "z"))),
		func(s *task) {
			must(t, r.th.SyncAll(ctx)) // what is in several frames can be told from what a crash tore
			state()
			x.ops = append(x.ops, &s.action)
		})
	must(t, r.th.SyncAll(ctx))
	x.base = r.th
	x.capture(t)
	must(t, r.th.Close())
	c := &rotten{name: "closed", base: r.th, temp: x.temp, states: x.states[len(x.states)-1:]}
	c.capture(t)
	return x, c
}

// capture notes what is on the disk.
func (x *rotten) capture(t testing.TB) {
	t.Helper()
	x.disk, x.dbs = x.base.Sim().Fork(), map[string][]byte{}
	for _, name := range rotWalk(t, x.disk, ".") {
		b, err := x.disk.ReadFile(name)
		must(t, err)
		x.files = append(x.files, rotFile{name: name, kind: rotKind(name), content: b})
	}
	root := filepath.Join(x.temp, "base")
	must(t, filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(root, path)
		x.dbs[name], err = os.ReadFile(path)
		x.files = append(x.files, rotFile{name: name, kind: "space.db", content: x.dbs[name]})
		return err
	}))
	for i := range x.files {
		f := &x.files[i]
		switch f.kind {
		case "journal":
			f.used = usedOfJournal(f.content, x.name == "killed")
		case "space.db":
			f.used = usedOfBolt(f.content)
		case "batches", "acl":
			end := len(bytes.TrimRight(f.content, "\x00"))
			f.used = func(at int) (bool, string) { return at < end, "written ahead" }
		case "blocks":
			f.used = usedOfSegment(f.content)
		case "keys.key":
			f.used = func(at int) (bool, string) {
				line := f.content[bytes.LastIndexByte(f.content[:at], '\n')+1:]
				return line[0] != '#', "a comment"
			}
		default:
			f.used = func(int) (bool, string) { return true, "" }
		}
		for at := range f.content {
			if ok, _ := f.used(at); ok {
				f.bytes = append(f.bytes, int32(at))
			}
		}
	}
}

// fastTemp is a folder where a sync costs nothing, if there is one: what is tested is not whether the disk keeps what it has.
func fastTemp(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "anyfs-rot-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func rotWalk(t testing.TB, d *disk.Sim, dir string) (out []string) {
	names, err := d.ReadDir(dir)
	must(t, err)
	for _, name := range names {
		if dir != "." {
			name = dir + "/" + name
		}
		if _, err := d.ReadDir(name); errors.Is(err, syscall.ENOTDIR) {
			out = append(out, name)
			continue
		}
		out = append(out, rotWalk(t, d, name)...)
	}
	return out
}

// rotKind says what sort of file one is.
func rotKind(name string) string {
	switch {
	case strings.HasPrefix(name, "journal/"):
		return "journal"
	case strings.Contains(name, "/acl/"):
		return "acl"
	case strings.Contains(name, "/batches/"):
		return "batches"
	case strings.Contains(name, "/blocks/"):
		return "blocks"
	case strings.HasSuffix(name, "/space"):
		return "space"
	}
	return name
}

// usedOfJournal says which bytes of a file of the journal are of use: its headers and frames, up to the zeros behind the last one.
func usedOfJournal(b []byte, killed bool) func(at int) (bool, string) {
	if len(bytes.TrimRight(b[:1024], "\x00")) == 0 {
		return func(int) (bool, string) { return false, "of a file that is free" }
	}
	last, end := 1024, 1024
	for end+4 <= len(b) {
		n := int(binary.BigEndian.Uint32(b[end:]))
		if n == 0 || n > 64<<10 {
			break
		}
		last, end = end, end+28+n
	}
	return func(at int) (bool, string) {
		switch {
		case at >= end:
			return false, "behind the last frame"
		case killed && at >= last:
			return false, "of the last frame before a kill, which may be one that a crash tore"
		}
		return true, ""
	}
}

// usedOfSegment says which bytes of a segment of blocks are of use.
func usedOfSegment(b []byte) func(at int) (bool, string) {
	type span struct{ from, to int }
	var dead []span
	for at := 64; at+48 <= len(b); {
		n := int(binary.LittleEndian.Uint32(b[at+8:]))
		if b[at+4] == 'D' {
			dead = append(dead, span{at + 48, at + 48 + n})
		}
		at += 48 + n
	}
	return func(at int) (bool, string) {
		for _, d := range dead {
			if at >= d.from && at < d.to {
				return false, "of a block that was given up"
			}
		}
		return true, ""
	}
}

// usedOfBolt says which bytes of a database are of use: it follows the newest root.
func usedOfBolt(b []byte) func(at int) (bool, string) {
	const page = 4096
	ne := binary.NativeEndian
	used := make([]bool, len(b))
	mark := func(at, n int) {
		for i := at; i < min(at+n, len(used)); i++ {
			used[i] = true
		}
	}
	meta := 0
	if ne.Uint64(b[page+16+48:]) > ne.Uint64(b[16+48:]) {
		meta = 1
	}
	m := b[meta*page+16:]
	mark(meta*page, 16+64)
	var tree func(id uint64)
	inline := func(at int, walk func(at int)) { walk(at) }
	var elements func(at int)
	elements = func(at int) {
		flags, count := ne.Uint16(b[at+8:]), int(ne.Uint16(b[at+10:]))
		mark(at, 16+16*count)
		for i := range count {
			e := at + 16 + 16*i
			if flags == 1 {
				pos, ks := int(ne.Uint32(b[e:])), int(ne.Uint32(b[e+4:]))
				mark(e+pos, ks)
				tree(ne.Uint64(b[e+8:]))
				continue
			}
			kind, pos, ks, vs := ne.Uint32(b[e:]), int(ne.Uint32(b[e+4:])), int(ne.Uint32(b[e+8:])), int(ne.Uint32(b[e+12:]))
			mark(e+pos, ks+vs)
			if kind == 1 {
				head := e + pos + ks
				if root := ne.Uint64(b[head:]); root != 0 {
					tree(root)
				} else {
					inline(head+16, elements)
				}
			}
		}
	}
	tree = func(id uint64) { elements(int(id) * page) }
	tree(ne.Uint64(m[16:]))
	if free := ne.Uint64(m[32:]); free != ^uint64(0) {
		at := int(free) * page
		n := int(ne.Uint16(b[at+10:]))
		mark(at, 16+8*n)
	}
	return func(at int) (bool, string) {
		switch {
		case used[at]:
			return true, ""
		case at < 2*page:
			return false, "of the root before, or behind one"
		}
		return false, "of a free page, or behind what a page holds"
	}
}

// flip is one bit.
type flip struct {
	home *rotten
	file *rotFile
	at   int
	bit  int
}

func (f flip) String() string {
	return fmt.Sprintf("%s: bit %d of byte %d of %s (of %d)", f.home.name, f.bit, f.at, f.file.name, len(f.file.content))
}

// outcome is what became of a flip.
type outcome string

const (
	rotRefused  outcome = "refused at the opening"
	rotFound    outcome = "found by verify"
	rotReadEIO  outcome = "found by verify, and reads gave EIO"
	rotOlder    outcome = "found by verify, and the state of before it was shown"
	rotMissing  outcome = "found by verify, and names were missing"
	rotHarmless outcome = "of no use"
)

// try flips a bit and looks what becomes of it.
func (x *rotten) try(f flip, number int) (out outcome, why string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", f, err)
		}
	}()
	sim := x.disk.Fork()
	dir := filepath.Join(x.temp, fmt.Sprint(number))
	defer os.RemoveAll(dir)
	for name, b := range x.dbs {
		if name == f.file.name {
			b = bytes.Clone(b)
			b[f.at] ^= 1 << f.bit
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0700); err != nil {
			return "", "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0600); err != nil {
			return "", "", err
		}
	}
	if x.dbs[f.file.name] == nil {
		file, err := sim.Open(f.file.name)
		if err != nil {
			return "", "", err
		}
		if _, err := file.WriteAt([]byte{f.file.content[f.at] ^ 1<<f.bit}, int64(f.at)); err != nil {
			return "", "", err
		}
		if err := errors.Join(file.Sync(), file.Close()); err != nil {
			return "", "", err
		}
	}
	th, err := x.base.OnDisks(sim, dir)
	if err != nil {
		base := f.file.name[strings.LastIndexByte(f.file.name, '/')+1:]
		if d := filepath.Dir(f.file.name); !strings.Contains(err.Error(), d) && !strings.Contains(err.Error(), base) {
			return "", "", fmt.Errorf("it does not open, and does not say why: %w", err)
		}
		return rotRefused, err.Error(), nil
	}
	defer th.Abandon()
	got := x.look(th)
	verified, verr := th.Verify(ctx, nil)
	problems := verified.Problems
	again := x.look(th)
	named := ""
	for _, p := range problems {
		named += fmt.Sprintf("%s: %s: %s\n", p.Space, p.Where, p.Text)
	}
	if verr != nil {
		return "", "", fmt.Errorf("verify stops: %w\n%s", verr, named)
	}
	for _, l := range []*rotLook{got, again} {
		if l.wrong != "" {
			return "", "", fmt.Errorf("%s\nverify: %s", l.wrong, named)
		}
	}
	if len(problems) == 0 {
		if got.eio+got.missing+again.eio+again.missing > 0 || got.state != len(x.states)-1 {
			return "", "", fmt.Errorf("%d reads fail, %d names are missing, the state is %d of %d; and verify finds nothing", got.eio, got.missing, got.state, len(x.states)-1)
		}
		used, what := f.file.used(f.at)
		if used {
			return "", "", errors.New("nobody notices")
		}
		return rotHarmless, what, nil
	}
	if !namesFile(f, problems) {
		return "", "", fmt.Errorf("verify does not name the file:\n%s", named)
	}
	switch {
	case got.missing > 0:
		return rotMissing, named, nil
	case got.eio > 0:
		return rotReadEIO, named, nil
	case got.state < len(x.states)-1:
		return rotOlder, named, nil
	}
	return rotFound, named, nil
}

// namesFile reports whether a problem says which file it is about, and, of one that is read in pieces, where the piece begins.
func namesFile(f flip, list []fs.Problem) bool {
	for _, p := range list {
		text := p.Where + " " + p.Text
		i := strings.Index(text, f.file.name)
		if i < 0 {
			continue
		}
		switch f.file.kind {
		case "acl", "batches", "blocks", "journal":
			for _, m := range somePlace.FindAllStringSubmatch(text[i:], -1) {
				if at, err := strconv.Atoi(m[1]); err == nil && at <= f.at {
					return true
				}
			}
			continue
		}
		return true
	}
	return false
}

var somePlace = regexp.MustCompile(` at (\d+)`)

// rotLook is what a home shows after a flip.
type rotLook struct {
	state        int // the newest that it fits
	eio, missing int
	wrong        string
}

// look reads everything. What reads give must be what was written; what was written last may be missing as a whole.
func (x *rotten) look(th fs.TestHome) *rotLook {
	last := len(x.states) - 1
	if got, err := (walker{th.Home, fs.RootIno}).tree(); err == nil {
		if i := matchState(x.states, x.ops, got, 0, last, ^uint64(0)); i >= 0 {
			return &rotLook{state: i}
		}
	}
	var best *rotLook
	for i := last; i >= 0; i-- {
		l := x.lookAs(th, x.states[i])
		l.state = i
		if best == nil || best.wrong != "" && l.wrong == "" {
			best = l
		}
		if best.wrong == "" {
			break
		}
	}
	return best
}

func (x *rotten) lookAs(th fs.TestHome, want *tree) *rotLook {
	l := &rotLook{}
	w := walker{th.Home, fs.RootIno}
	fails := func(what string, err error) bool {
		switch {
		case err == nil:
			return false
		case errors.Is(err, syscall.EIO):
			l.eio++
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ESTALE):
			l.missing++
		default:
			l.wrong = fmt.Sprintf("%s: %v", what, err)
		}
		return true
	}
	lines := map[string]string{}
	for line := range strings.SplitSeq(want.names, "\n") {
		path, _, _ := strings.Cut(line, " ")
		lines[path] = line
	}
	for path := range lines {
		a, err := w.find(path)
		if fails("find "+path, err) {
			continue
		}
		if line, err := w.describe(path, a); !fails("attributes of "+path, err) && line != lines[path] {
			l.wrong = fmt.Sprintf("it shows %q, not %q", line, lines[path])
		}
		if a.IsDir() {
			err := th.ReadDir(a.Ino, 0, func(e fs.Dirent) bool {
				if _, ok := lines[path+"/"+e.Name]; !ok {
					l.wrong = path + " has " + e.Name
				}
				return true
			})
			fails("list "+path, err)
		}
		if a.Mode&syscall.S_IFMT == syscall.S_IFREG {
			b, err := readAll(th.Home, a)
			if !fails("read "+path, err) && !bytes.Equal(b, want.files[path]) {
				l.wrong = fmt.Sprintf("%s holds what it never held: %d bytes, not %d, from %d on", path, len(b), len(want.files[path]), firstDifference(b, want.files[path]))
			}
		}
	}
	if l.eio+l.missing == 0 && l.wrong == "" {
		l.wrong = "the tree is another"
		if got, err := w.tree(); err == nil {
			l.wrong += ": " + diffLines(got.names, want.names)
		}
	}
	return l
}

// TestRot flips bits of each kind of file of a home, as many of each.
func TestRot(t *testing.T) {
	seed, n := *modelSeed, *rotFlips
	if testing.Short() {
		n = min(n, 60)
	}
	rnd := rand.New(rand.NewPCG(seed, 21))
	killed, closed := newRotten(t)
	var kinds [][]flip // a file each
	for _, x := range []*rotten{killed, closed} {
		byKind := map[string][]flip{}
		for i := range x.files {
			f := &x.files[i]
			byKind[f.kind] = append(byKind[f.kind], flip{home: x, file: f})
		}
		for _, k := range slices.Sorted(maps.Keys(byKind)) {
			kinds = append(kinds, byKind[k])
		}
	}
	list := make([]flip, n)
	for i := range list {
		files := kinds[i%len(kinds)]
		if inUse := slices.DeleteFunc(slices.Clone(files), func(f flip) bool { return len(f.file.bytes) == 0 }); len(inUse) > 0 && rnd.IntN(8) > 0 {
			files = inUse
		}
		f := files[rnd.IntN(len(files))]
		f.bit, f.at = rnd.IntN(8), rnd.IntN(len(f.file.content))
		// Most of a large file is of no use: one flip of eight goes anywhere.
		if k := len(f.file.bytes); k > 0 && rnd.IntN(8) > 0 {
			f.at = int(f.file.bytes[rnd.IntN(k)])
		}
		list[i] = f
	}
	counts, reasons := map[string]map[outcome]int{}, map[string]int{}
	harmful := 0
	var mu sync.Mutex
	err := each(len(list), func(i int) error {
		out, why, err := list[i].home.try(list[i], i)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			return err
		}
		k := list[i].file.kind
		if counts[k] == nil {
			counts[k] = map[outcome]int{}
		}
		counts[k][out]++
		if out == rotHarmless {
			reasons[k+": "+why]++
		} else {
			harmful++
		}
		return nil
	})
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		for _, o := range slices.Sorted(maps.Keys(counts[k])) {
			t.Logf("%-14s %6d %s", k, counts[k][o], o)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(reasons)) {
		t.Logf("of no use: %6d %s", reasons[r], r)
	}
	t.Logf("seed %d: %d bits in %d kinds of files, %d of use", seed, len(list), len(counts), harmful)
	if err != nil {
		t.Fatal(err)
	}
	if harmful == 0 {
		t.Fatal("no flip did any harm: the test proves nothing")
	}
}
