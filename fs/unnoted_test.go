package fs

import (
	"context"
	"testing"

	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/index"
)

// failingDB takes no update.
type failingDB struct{ kv.DB }

func (failingDB) Update(func(kv.Tx) error) error { return kv.ErrClosed }

// commitUnnoted publishes everything as where the journal takes no record behind it.
func (s *space) commitUnnoted(t *testing.T) {
	t.Helper()
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	items, upTo, _, err := s.capture(func(uint64, dirtyState, *index.Inode) bool { return true })
	if err != nil || len(items) == 0 {
		t.Fatalf("%d inodes: %v", len(items), err)
	}
	defer s.settle(items)
	for i := range items {
		if n := items[i].n; n.IsRegular() && len(n.Links) > 0 {
			if items[i].content, err = s.nextContent(context.Background(), n); err != nil {
				t.Fatal(err)
			}
		}
	}
	rec, _, err := s.commitBatch(items)
	if err != nil || rec == nil {
		t.Fatal(rec, err)
	}
	rec.Seq = uint64(upTo)
	s.mu.Lock()
	s.unnoted = rec
	s.mu.Unlock()
}

// TestCheckpointOfAnUnnotedPublication: a batch that a checkpoint holds is not published a second time, whatever the journal says
// of it.
func TestCheckpointOfAnUnnotedPublication(t *testing.T) {
	ctx := context.Background()
	for _, how := range []string{"kill", "kill after more work", "failed checkpoint", "reopen"} {
		t.Run(how, func(t *testing.T) {
			th := newTestHome(t)
			s := th.spaceOf(th.root)
			want := random(1, 30_000)
			ino := th.create(th.root, "f", want)
			th.create(th.root, "gone", []byte("gone"))
			th.flush()
			th.must(th.Unlink(th.root, "gone"))
			th.create(th.root, "new", []byte("new"))
			th.write(ino, random(2, 100), 5000)
			copy(want[5000:], random(2, 100))
			batches, _, _ := s.graph.Counters()
			s.commitUnnoted(t)
			switch how {
			case "kill":
				th.must(s.checkpoint(ctx, true))
				th.kill()
			case "kill after more work":
				th.must(s.checkpoint(ctx, true))
				th.must(th.Rename(th.root, "new", th.root, "newer", 0))
				th.must(th.Rename(th.root, "newer", th.root, "new", 0))
				th.kill()
			case "failed checkpoint":
				old := s.db
				s.db = failingDB{old}
				if err := s.checkpoint(ctx, true); err == nil {
					t.Fatal("the checkpoint did not fail")
				}
				s.db = old
				th.flush()
				th.kill()
			case "reopen":
				th.reopen()
			}
			th.flush()
			s = th.spaceOf(th.root)
			if now, _, _ := s.graph.Counters(); now != batches+1 {
				t.Fatalf("%d batches were made of one publication", now-batches)
			}
			th.wantContent(th.root, "f", want)
			th.wantContent(th.root, "new", []byte("new"))
			if n := len(th.contents("Personal/new")); n != 1 {
				t.Fatalf("the new file has %d versions", n)
			}
			th.verify()
		})
	}
}

// TestRemovalOfWhatIsUnnoted: what is removed while its publication is not noted yet is gone in the history too.
func TestRemovalOfWhatIsUnnoted(t *testing.T) {
	ctx := context.Background()
	for _, how := range []string{"noted", "checkpoint", "noted and kill"} {
		t.Run(how, func(t *testing.T) {
			th := newTestHome(t)
			s := th.spaceOf(th.root)
			th.create(th.root, "new", []byte("new"))
			d := th.mkdir(th.root, "d")
			th.create(d, "deep", []byte("deep"))
			s.commitUnnoted(t)
			th.must(th.Unlink(th.root, "new"))
			th.removeAll("Personal/d")
			if how == "checkpoint" {
				th.must(s.checkpoint(ctx, true))
			}
			th.flush()
			if how == "noted and kill" {
				th.kill()
			}
			th.verify()
			s = th.spaceOf(th.root)
			s.mu.Lock()
			if len(s.orphaned) > 0 {
				t.Fatalf("%d inodes without a name are left", len(s.orphaned))
			}
			s.mu.Unlock()
			tr, _, err := s.foldAll(ctx)
			th.must(err)
			if nodes, err := tr.List(tr.Root()); err != nil || len(nodes) > 0 {
				t.Fatalf("the history shows %d names: %v", len(nodes), err)
			}
		})
	}
}
