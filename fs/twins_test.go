package fs

import (
	"context"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// TestTwinsAfterACrash: of two folders of one space, of which the newer was to take the place of the older when a crash came, the older
// is the space where something was made in it.
func TestTwinsAfterACrash(t *testing.T) {
	ctx := context.Background()
	for _, touched := range []bool{false, true} {
		th := newTestHome(t)
		old := th.spaceOf(th.root)
		s, err := th.openSpace(ctx, th.next, dag.ID{}, func(st dag.Store) (*acl.Space, error) {
			return acl.DeriveSpace(th.keys, labelPersonal, st, th.rand)
		})
		th.must(err)
		th.must(s.openGraph())
		s.mu.Lock()
		s.makeRoot(th.now())
		s.last, s.passing = th.jr.Next()-1, true
		th.must(s.applyCreate(s.last, &createRecord{Ino: firstIno, Parent: rootDir, Name: "imported", Mode: 0100644, Time: th.now()}))
		s.mu.Unlock()
		th.must(s.checkpoint(ctx, true))
		as := spaceIdentity{label: labelPersonal, name: PersonalName}
		th.must(th.sim.WriteFileAtomic(s.dir+"/"+spaceFile, th.local.SealLocal(nil, as.encode(s.id), []byte(s.dir))))
		if s.id != old.id {
			t.Fatal("they are two spaces")
		}
		if touched {
			th.create(th.root, "f", []byte("made meanwhile"))
			th.must(th.SyncAll(ctx))
		}
		for range 2 {
			th.kill()
			want := s.slot
			if touched {
				want = old.slot
				th.wantContent(th.root, "f", []byte("made meanwhile"))
			}
			if now := th.spaceOf(th.root); now.slot != want {
				t.Fatalf("touched %v: the space is in %s", touched, now.dir)
			}
			if names, err := th.sim.ReadDir(spacesDir); err != nil || len(names) != 3 { // the file next, the home's own space, and this
				t.Fatal(names, err)
			}
			th.sound()
		}
	}
}

// TestNameAgain: a space without a name gets one, whatever names are taken; where there is no room for that, the home opens all the same.
func TestNameAgain(t *testing.T) {
	th := newTestHome(t)
	must2(th.CreateSpace("lost"))
	lost := must2(th.namedSpace("lost"))
	th.create(lost.ino(rootDir), "f", []byte("in it"))
	th.flush()
	unname := func() {
		t.Helper()
		name := must2(th.nameOf(th.Home.spaceOf(lost.id)))
		th.must(th.home.do(true, func() (*writer, func(*mutation) error, error) {
			r := &unlinkRecord{Parent: rootDir, Name: name, Time: th.now()}
			w := th.home.record(recUnlink)
			r.encode(w)
			return w, func(m *mutation) error { return th.home.applyUnlink(m.seq, r) }, nil
		}))
	}
	recovered := "Recovered " + lost.id.String()[len(lost.id.String())-8:]
	for _, want := range []string{"lost", recovered, recovered + " 2"} {
		unname()
		if want != "lost" {
			must2(th.CreateSpace("lost"))
			th.create(must2(th.SpaceRoot("lost")), "other", nil)
		}
		if want == recovered+" 2" {
			must2(th.CreateSpace(recovered))
			th.create(must2(th.SpaceRoot(recovered)), "other", nil)
		}
		th.kill()
		th.wantContent(must2(th.SpaceRoot(want)), "f", []byte("in it"))
		if want != "lost" {
			th.must(th.DeleteSpace("lost"))
		}
	}
	unname()
	th.Home.abandon()
	th.sim = th.sim.Crash(func() disk.Keep { return disk.Whole })
	th.sim.SetCapacity(reserveBytes)
	th.open()
	th.sim.SetCapacity(1 << 40)
	th.kill()
	th.wantContent(must2(th.SpaceRoot("lost")), "f", []byte("in it"))
}
