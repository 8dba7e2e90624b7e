package fs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs/index"
)

// fill makes a small tree with some history.
func (th *testHome) fill() map[string][]byte {
	th.t.Helper()
	ctx := context.Background()
	c := Cred{1000, 1000}
	d, err := th.Mkdir(th.root, "dir", 0755, c)
	th.must(err)
	e, err := th.Mkdir(d.Ino, "deep", 0700, c)
	th.must(err)
	want := map[string][]byte{}
	for i, n := range []int{0, 10, 9000, 3 << 20} {
		name := string(rune('a' + i))
		want[name] = random(uint64(i), n)
		ino := th.create(e.Ino, name, want[name])
		th.must(th.Flush(ctx))
		want[name] = append(want[name], []byte("more")...)
		th.write(ino, []byte("more"), int64(n))
		th.must(th.Setxattr(ino, "user.n", []byte(name), 0))
	}
	_, err = th.Symlink(d.Ino, "sym", "deep/a", c)
	th.must(err)
	_, err = th.Link(th.look(e.Ino, "b"), d.Ino, "hard")
	th.must(err)
	th.create(d.Ino, "gone", []byte("it was here"))
	th.must(th.Flush(ctx))
	th.must(th.Unlink(d.Ino, "gone"))
	th.must(th.Rename(d.Ino, "deep", th.root, "moved", 0))
	th.must(th.Flush(ctx))
	return want
}

func (th *testHome) check(root Ino, want map[string][]byte) {
	th.t.Helper()
	dir := th.look(root, "moved")
	for name, b := range want {
		th.wantContent(dir, name, b)
		v, err := th.Getxattr(th.look(dir, name), "user.n")
		th.must(err)
		if string(v) != name {
			th.t.Fatalf("attribute of %s is %q", name, v)
		}
	}
	if a, b := th.look(dir, "b"), th.look(th.look(root, "dir"), "hard"); a != b {
		th.t.Fatalf("the two names of a file show inodes %d and %d", a, b)
	}
	if got := strings.Join(th.list(th.look(root, "dir")), " "); !strings.Contains(got, "sym") || strings.Contains(got, "gone") {
		th.t.Fatalf("dir holds %s", got)
	}
}

func (th *testHome) sound() {
	th.t.Helper()
	problems, err := problemsOf(th.Verify(context.Background(), nil))
	th.must(err)
	for _, p := range problems {
		th.t.Errorf("%s: %s: %s", p.Space, p.Where, p.Text)
	}
	if len(problems) > 0 {
		th.t.FailNow()
	}
}

func TestVerifySound(t *testing.T) {
	th := newTestHome(t)
	want := th.fill()
	th.sound()
	th.reopen()
	th.check(th.root, want)
	th.sound()
}

// TestVerifyBesideWork works with a space while it is verified, from within and beside: nothing waits for the end of it, and
// nothing that is under way is taken for damage.
func TestVerifyBesideWork(t *testing.T) {
	th := newTestHome(t)
	th.fill()
	const files, names = 300, 40
	d := th.mkdir(th.root, "many")
	for i := range files {
		th.create(d, fmt.Sprint("f", i), []byte(fmt.Sprint(i)))
	}
	th.flush()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	work := func(seed uint64) {
		r := mrand.New(mrand.NewPCG(seed, 3))
		name := func() string { return fmt.Sprint("w", seed, "-", r.IntN(names)) }
		for ctx.Err() == nil {
			a, err := th.Mknod(d, name(), 0100644, 0, Cred{1000, 1000})
			if err == nil {
				_, err = th.Write(ctx, a.Ino, random(seed, r.IntN(20_000)), 0, WriteFlags{})
			}
			switch r.IntN(4) {
			case 0:
				err = th.Unlink(d, name())
			case 1:
				err = th.Rename(d, name(), th.root, name(), 0)
			case 2:
				err = th.Rename(th.root, name(), d, name(), 0)
			case 3:
				_, err = th.Mkdir(th.root, name()+"d", 0755, Cred{1000, 1000})
			}
			if r.IntN(8) == 0 {
				err = th.Flush(context.Background())
			}
			if r.IntN(50) == 0 {
				err = th.checkpoint(context.Background())
			}
			if err != nil && !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrExist) && !errors.Is(err, ErrStale) && !errors.Is(err, ErrIsDir) && !errors.Is(err, ErrNotDir) && !errors.Is(err, ErrNotEmpty) {
				t.Error(err)
			}
		}
	}
	for i := range 2 {
		wg.Go(func() { work(uint64(i)) })
	}
	published := 0
	for range 3 {
		problems, err := th.Verify(ctx, func(int64, int64) {
			if published++; published%8 == 0 {
				th.create(th.root, fmt.Sprint("p", published), []byte("x"))
				th.flush() // would wait for ever where the publisher is held
			}
		})
		if err != nil || len(problems.Problems) > 0 {
			t.Errorf("verify: %v %v", err, problems)
		}
	}
	cancel()
	wg.Wait()
	if published < 10 {
		t.Fatalf("progress was told %d times", published)
	}
	th.flush()
	th.sound()
}

// TestVerifyIndexDamage changes the index behind the history's back, and is told.
func TestVerifyIndexDamage(t *testing.T) {
	for what, damage := range map[string]func(s *space, dir, f *index.Inode){
		"a name is gone": func(s *space, dir, f *index.Inode) {
			s.ix.RemoveEntry(dir.Ino, s.nameHash(dir.Ino, "f"), &index.Entry{Name: "f"})
		},
		"a count is wrong":   func(s *space, dir, f *index.Inode) { dir.Entries++ },
		"a mode is wrong":    func(s *space, dir, f *index.Inode) { f.Mode ^= 0100 },
		"a size is wrong":    func(s *space, dir, f *index.Inode) { f.Size++ },
		"an inode is gone":   func(s *space, dir, f *index.Inode) { s.ix.Remove(f.Ino) },
		"an object is wrong": func(s *space, dir, f *index.Inode) { f.Object[5] ^= 1 },
	} {
		th := newTestHome(t)
		d := th.mkdir(th.root, "d")
		ino := th.create(d, "f", []byte("f"))
		th.create(d, "g", []byte("g"))
		th.flush()
		s := th.spaceOf(d)
		s.mu.Lock()
		dir, err := s.ix.Change(uint64(d) & localMask)
		th.must(err)
		f, err := s.ix.Change(uint64(ino) & localMask)
		th.must(err)
		damage(s, dir, f)
		s.mu.Unlock()
		if problems, err := problemsOf(th.Verify(context.Background(), nil)); err != nil || len(problems) == 0 {
			t.Errorf("%s: verify finds nothing: %v", what, err)
		}
	}
}

// TestVerifyMissesASpace: a space whose folder is gone is listed as unavailable, reported, and told by verify.
func TestVerifyMissesASpace(t *testing.T) {
	th := newTestHome(t)
	th.fill()
	s, err := th.namedSpace(PersonalName)
	th.must(err)
	id := s.id.String()
	th.must(th.Home.Close())
	th.must(th.sim.RemoveAll(s.dir))
	th.root = 0
	th.open()
	problems, err := problemsOf(th.Verify(context.Background(), nil))
	th.must(err)
	if len(problems) != 1 || problems[0].Space != PersonalName || !strings.Contains(problems[0].Text, id) {
		t.Errorf("problems: %+v", problems)
	}
	spaces, err := th.Spaces()
	th.must(err)
	if len(spaces) != 1 || spaces[0].Name != PersonalName || spaces[0].ID != id || spaces[0].State != "unavailable" {
		t.Errorf("spaces: %+v", spaces)
	}
	if names := th.list(RootIno); len(names) != 0 {
		t.Errorf("the root lists %q", names)
	}
	status, err := th.Status()
	th.must(err)
	if len(status.Errors) == 0 || !strings.Contains(status.Errors[0].Text, id) {
		t.Errorf("errors: %+v", status.Errors)
	}
}

func TestExportImport(t *testing.T) {
	th := newTestHome(t)
	want := th.fill()
	var car bytes.Buffer
	res, err := th.Export(context.Background(), PersonalName, &car)
	th.must(err)
	if res.Batches == 0 || res.Blocks == 0 || res.Bytes != int64(car.Len()) {
		t.Fatalf("export: %+v, %d bytes", res, car.Len())
	}
	if bytes.Contains(car.Bytes(), []byte("it was here")) || bytes.Contains(car.Bytes(), []byte("moved")) {
		t.Fatal("the export holds content in the clear")
	}
	// Another device of the account, by its phrase.
	sim := disk.NewSim(mrand.New(mrand.NewPCG(3, 4)))
	account, err := acl.AccountFromPhrase(th.keys.Account.Phrase())
	th.must(err)
	keys, err := acl.InitKeys(sim, account, "other", nil, rand.Reader)
	th.must(err)
	other := &testHome{t: t, sim: sim, keys: keys, rand: rand.Reader}
	other.open()
	if _, err := other.Import(context.Background(), bytes.NewReader(car.Bytes()), "", "Imported"); err != nil {
		t.Fatal(err)
	}
	other.find()
	other.check(other.root, want)
	other.sound()
	// It can be written there, and is the same after a restart.
	other.create(other.root, "new", []byte("written on the other device"))
	other.reopen()
	other.check(other.root, want)
	other.wantContent(other.root, "new", []byte("written on the other device"))
	other.sound()
	// What is damaged or cut off is refused, and leaves nothing behind.
	for _, bad := range [][]byte{car.Bytes()[:car.Len()/2], append([]byte{1}, car.Bytes()...), {}} {
		if _, err := other.Import(context.Background(), bytes.NewReader(bad), "bad", ""); err == nil {
			t.Fatal("a damaged CAR was taken in")
		}
		if _, err := other.Space("bad"); err == nil {
			t.Fatal("a damaged CAR left a space behind")
		}
	}
	flipped := bytes.Clone(car.Bytes())
	flipped[len(flipped)-100] ^= 1
	other.must(other.DeleteSpace(PersonalName))
	if _, err := other.Import(context.Background(), bytes.NewReader(flipped), "", "Imported"); err == nil {
		t.Fatal("a CAR with a flipped bit was taken in")
	}
	if _, err := other.Import(context.Background(), bytes.NewReader(car.Bytes()), "Back", ""); err != nil {
		t.Fatal(err)
	}
	root, err := other.SpaceRoot("Back")
	other.must(err)
	other.check(root, want)
}

// TestVerifyHoldsTheLogAgainstItsIndex: a record of the log that the index does not know is told.
func TestVerifyHoldsTheLogAgainstItsIndex(t *testing.T) {
	th := newTestHome(t)
	th.fill()
	th.sound()
	s, err := th.namedSpace(PersonalName)
	th.must(err)
	var recs []dag.Record
	th.must(s.log.Walk(0, func(rec dag.Record) error { recs = append(recs, rec); return nil }))
	again := recs[1]
	again.At = s.log.Next(len(again.Frame))
	th.must(s.log.Append(again, &dag.Update{}))
	problems, err := problemsOf(th.Verify(context.Background(), nil))
	th.must(err)
	if len(problems) != 1 || !strings.Contains(problems[0].Text, fmt.Sprint("record at ", again.At)) {
		t.Fatalf("%+v", problems)
	}
}
