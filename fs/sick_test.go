package fs

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// under lists the files below a folder of the disk.
func under(t *testing.T, d disk.FS, dir string) (files []string) {
	t.Helper()
	names, err := d.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		p := path.Join(dir, name)
		if _, err := d.ReadDir(p); err == nil {
			files = append(files, under(t, d, p)...)
		} else {
			files = append(files, p)
		}
	}
	return files
}

// wantWorking uses all there is of a space.
func (th *testHome) wantWorking(name string) {
	th.t.Helper()
	root, err := th.SpaceRoot(name)
	th.must(err)
	th.wantContent(root, "f", []byte("in "+name))
	th.create(root, "new", []byte("new"))
	th.flush()
	th.wantContent(root, "new", []byte("new"))
	th.must(th.Unlink(root, "new"))
	th.flush()
}

func (th *testHome) wantSick(name string) {
	th.t.Helper()
	if _, err := th.Lookup(RootIno, name); !errors.Is(err, ErrIO) {
		th.t.Fatalf("lookup of the damaged space: %v", err)
	}
	found := false
	th.must(th.ReadDir(RootIno, 0, func(e Dirent) bool {
		if e.Name == name {
			found = true
			if _, err := th.Getattr(e.Ino); err == nil {
				th.t.Fatal("the damaged space has attributes")
			}
		}
		return true
	}))
	if !found {
		th.t.Fatal("the damaged space has no name any more")
	}
	st, err := th.Status()
	th.must(err)
	if i := slices.IndexFunc(st.Spaces, func(i SpaceInfo) bool { return i.Name == name }); st.Spaces[i].State != stateDamaged || st.Spaces[i].Problem == "" {
		th.t.Fatalf("status: %+v", st.Spaces[i])
	}
	problems, err := problemsOf(th.Verify(context.Background(), nil))
	if err != nil || len(problems) == 0 {
		th.t.Fatalf("verify: %v %v", problems, err)
	}
	for _, p := range problems {
		if !strings.Contains(p.Where+p.Text, "spaces/0002") && p.Space != name {
			th.t.Fatalf("verify: %+v", problems)
		}
	}
	if _, err := th.Log(name + "/f"); !errors.Is(err, ErrIO) {
		th.t.Fatalf("log: %v", err)
	}
	if err := th.Rmdir(RootIno, name); !errors.Is(err, ErrIO) {
		th.t.Fatalf("rmdir: %v", err)
	}
	if _, err := th.Prune(context.Background(), "", KeepPolicy{}, true); err != nil {
		th.t.Fatalf("prune of what works: %v", err)
	}
	th.StatFS()
}

// newHomeToBreak has a space Broken beside Personal, with a file in each, checkpointed.
func newHomeToBreak(t *testing.T) *testHome {
	t.Helper()
	th := newTestHome(t)
	must2(th.CreateSpace("Broken"))
	for _, name := range []string{PersonalName, "Broken"} {
		th.create(must2(th.SpaceRoot(name)), "f", []byte("in "+name))
	}
	th.flush()
	th.reopen()
	return th
}

// TestDamagedSpaceKeepsNoOtherShut damages each file of a space, in turn. The other spaces work as before, and the damaged one is
// whole again when its file is.
func TestDamagedSpaceKeepsNoOtherShut(t *testing.T) {
	th := newHomeToBreak(t)
	// And what only the journal has.
	th.create(must2(th.SpaceRoot("Broken")), "late", []byte("late"))
	th.must(th.SyncAll(context.Background()))
	th.Home.abandon()
	whole := func() disk.Keep { return disk.Whole }
	base := th.sim.Crash(whole)
	sick := 0
	for _, name := range under(t, base, "spaces/0002") {
		if path.Base(name) == dbFile {
			continue // the simulated database takes a damaged end for a commit that was cut off
		}
		good, err := base.ReadFile(name)
		th.must(err)
		for _, bad := range [][]byte{bytes.Repeat([]byte{0x55}, len(good)), nil} {
			th.sim = base.Crash(whole)
			th.must(th.sim.WriteFileAtomic(name, bad))
			th.open()
			th.wantWorking(PersonalName)
			if must2(th.Space("Broken")).State != stateDamaged {
				continue // it has not been read yet
			}
			sick++
			th.wantSick("Broken")
			th.kill()
			th.must(th.checkpoint(context.Background()))
			th.wantSick("Broken")
			th.wantWorking(PersonalName)
			th.Home.abandon()
			th.sim = th.sim.Crash(whole)
			th.must(th.sim.WriteFileAtomic(name, good))
			th.open()
			th.wantWorking(PersonalName)
			th.wantWorking("Broken")
			th.wantContent(must2(th.SpaceRoot("Broken")), "late", []byte("late"))
			th.verify()
		}
	}
	t.Logf("%d damages kept the space shut", sick)
	if sick < 4 {
		t.Fatal("too few")
	}
}

// TestDamagedSpaceCanBeDeleted deletes a space whose database can't be opened, and takes it in again.
func TestDamagedSpaceCanBeDeleted(t *testing.T) {
	th := newTestHome(t)
	must2(th.CreateSpace("Broken"))
	th.create(must2(th.SpaceRoot("Broken")), "f", []byte("in Broken"))
	th.flush()
	var car bytes.Buffer
	must2(th.Export(context.Background(), "Broken", &car))
	th.must(th.Home.Close())
	h, err := Open(context.Background(), Options{
		Disk: th.sim, Keys: th.keys, Rand: th.rand, UID: 1000, GID: 1000, Clock: th.clock,
		OpenDB: func(name string) (kv.DB, error) {
			if strings.Contains(name, "0002") {
				return nil, kv.ErrCorrupt
			}
			return kv.NewSimDB(th.sim, name)
		},
	})
	th.must(err)
	th.Home = h
	th.wantSick("Broken")
	if _, err := th.Import(context.Background(), bytes.NewReader(car.Bytes()), "Again", ""); !errors.Is(err, ErrExist) {
		t.Fatalf("import of what is there: %v", err)
	}
	th.must(th.RenameSpace("Broken", "Still broken"))
	th.wantSick("Still broken")
	th.must(th.DeleteSpace("Still broken"))
	if names, err := th.sim.ReadDir("spaces/0002"); err == nil {
		t.Fatalf("its folder holds %q", names)
	}
	if _, err := th.Import(context.Background(), bytes.NewReader(car.Bytes()), "Broken", ""); err != nil {
		t.Fatal(err)
	}
	th.wantWorking("Broken")
	th.reopen()
	th.wantWorking("Broken")
	th.verify()
}

// TestDamagedSpaceDoesNotFillTheJournal writes more than the journal keeps, beside a space that holds a record in it: in the end that
// is given up, and the space says so from then on, whole or not.
func TestDamagedSpaceDoesNotFillTheJournal(t *testing.T) {
	if testing.Short() {
		t.Skip("writes more than the journal's 256 MiB")
	}
	th := newTestHome(t)
	must2(th.CreateSpace("Broken"))
	th.create(must2(th.SpaceRoot("Broken")), "f", []byte("in Broken"))
	th.flush()
	good, err := th.sim.ReadFile("spaces/0002/" + spaceFile)
	th.must(err)
	th.Home.abandon()
	th.sim = th.sim.Crash(func() disk.Keep { return disk.Whole })
	th.must(th.sim.WriteFileAtomic("spaces/0002/"+spaceFile, []byte("damaged")))
	th.open()
	th.wantSick("Broken")
	data := random(1, 200<<10) // short enough to go into the journal itself
	ino := th.create(th.root, "big", nil)
	given := 0 // when it was given up
	for i := 0; given == 0 || i < given+200; i++ {
		th.write(ino, data, int64(i%8*len(data)))
		if i%100 == 0 {
			th.flush()
			th.must(th.checkpoint(context.Background()))
		}
		if _, err := th.sim.ReadFile("spaces/0002/" + abandonedFile); given == 0 && err == nil {
			given = i
		}
		if i > 400<<20/len(data) {
			t.Fatal("the journal is not full yet")
		}
	}
	th.reopen()
	th.wantSick("Broken")
	th.Home.abandon()
	th.sim = th.sim.Crash(func() disk.Keep { return disk.Whole })
	th.must(th.sim.WriteFileAtomic("spaces/0002/"+spaceFile, good))
	th.open()
	th.wantSick("Broken")
	if i := must2(th.Space("Broken")); !strings.Contains(i.Problem, errAbandoned.Error()) {
		t.Fatalf("%+v", i)
	}
	th.must(th.DeleteSpace("Broken"))
	th.reopen()
	if problems := must2(th.Verify(context.Background(), nil)).Problems; len(problems) > 0 {
		t.Fatal(problems)
	}
}

// TestMissingSpaceFile: a folder without the file that says which space is in it is removed where it was never finished, and kept where a
// space is missing.
func TestMissingSpaceFile(t *testing.T) {
	th := newHomeToBreak(t)
	th.create(must2(th.SpaceRoot("Broken")), "late", []byte("late"))
	th.must(th.SyncAll(context.Background()))
	file := "spaces/0002/" + spaceFile
	good := must2(th.sim.ReadFile(file))
	th.Home.abandon()
	whole := func() disk.Keep { return disk.Whole }
	th.sim = th.sim.Crash(whole)
	th.must(th.sim.Remove(file))
	th.open()
	th.wantWorking(PersonalName)
	th.wantSick("Broken")
	th.must(th.checkpoint(context.Background()))
	th.kill()
	th.wantSick("Broken")
	th.Home.abandon()
	th.sim = th.sim.Crash(whole)
	th.must(th.sim.WriteFileAtomic(file, good))
	th.open()
	th.wantWorking("Broken")
	th.wantContent(must2(th.SpaceRoot("Broken")), "late", []byte("late"))
	th.verify()

	// And one that goes while it is deleted.
	th.must(th.checkpoint(context.Background()))
	s := must2(th.namedSpace("Broken"))
	th.must(th.sim.WriteFileAtomic(s.dir+"/"+deletingFile, nil))
	th.must(th.home.do(true, func() (*writer, func(*mutation) error, error) {
		r := &unlinkRecord{Parent: rootDir, Name: "Broken", Time: th.now()}
		w := th.home.record(recUnlink)
		r.encode(w)
		return w, func(m *mutation) error { return th.home.applyUnlink(m.seq, r) }, nil
	}))
	th.must(th.sim.Remove(file))
	th.kill()
	if names, err := th.sim.ReadDir(s.dir); err == nil {
		t.Fatalf("the folder of what was deleted holds %q", names)
	}
	th.verify()
}
