package fs

import (
	"context"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
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
