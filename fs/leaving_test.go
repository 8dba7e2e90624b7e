package fs

import (
	"context"
	"fmt"
	"path"
	"syscall"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// TestDeletionThatWasCutShort: at whatever operation of the disk the deletion of a space ends, the next start has the space whole, or
// not at all, and reports nothing.
func TestDeletionThatWasCutShort(t *testing.T) {
	whole, gone := 0, 0
	for n := int64(1); ; n++ {
		th := newTestHome(t)
		_, err := th.CreateSpace("Work")
		th.must(err)
		root, err := th.SpaceRoot("Work")
		th.must(err)
		th.must(th.checkpoint(t.Context()))
		th.create(root, "f", []byte("not in a checkpoint"))
		th.create(th.root, "g", []byte("beside"))
		th.sim.FailAt(n, syscall.EIO)
		_ = th.DeleteSpace("Work")
		landed := th.sim.Landed()
		th.sim.FailAt(0, nil)
		after := TestHome{th}.Killed()
		st, err := after.Status()
		th.must(err)
		if len(st.Errors) > 0 {
			t.Errorf("operation %d: %+v", n, st.Errors)
		}
		if root, err := after.SpaceRoot("Work"); err == nil {
			after.wantContent(root, "f", []byte("not in a checkpoint"))
			whole++
		} else {
			gone++
		}
		after.Abandon()
		if landed == 0 {
			break
		}
	}
	if whole == 0 || gone < 2 {
		t.Errorf("%d times the space was there, and %d times it was not: the test proves nothing", whole, gone)
	}
}

// stuck is a disk on which no file of a name can be removed.
type stuck struct {
	disk.FS
	name string
}

func (d *stuck) Remove(name string) error {
	if path.Base(name) == d.name {
		return syscall.EIO
	}
	return d.FS.Remove(name)
}

// TestDeletionOfWhatTheJournalForgot: a space whose deletion is on record keeps nothing in the journal any more. Where its folder is
// still there at the next start, the records that remain can't be applied to it, and that is nothing to report.
func TestDeletionOfWhatTheJournalForgot(t *testing.T) {
	ctx := context.Background()
	th := newTestHome(t)
	_, err := th.CreateSpace("Work")
	th.must(err)
	th.must(th.Flush(ctx))
	th.must(th.checkpoint(ctx))
	th.must(th.Home.Close())
	const file = 256 << 10
	th.openInline(&stuck{th.sim, spaceFile}, file)
	work, err := th.namedSpace("Work")
	th.must(err)
	personal, err := th.namedSpace(PersonalName)
	th.must(err)
	th.create(work.ino(rootDir), "late", nil)
	for i := range 20 {
		th.create(personal.ino(rootDir), fmt.Sprint(i), random(uint64(i), file/8))
	}
	th.must(personal.publishAll(ctx))
	th.must(personal.checkpoint(ctx, false))
	th.must(th.Unlink(work.ino(rootDir), "late"))
	th.create(personal.ino(rootDir), "not in a checkpoint", nil)
	first, _ := th.jr.Oldest()
	mark := work.dir + "/" + spaceFile
	th.must(th.DeleteSpace("Work"))
	if _, err := th.sim.ReadFile(mark); err != nil {
		t.Fatalf("the folder is gone, or not whole: %v", err)
	}
	if now, _ := th.jr.Oldest(); now <= first {
		t.Fatalf("the journal gave nothing up: it begins with %d as before", now)
	}
	after := TestHome{th}.Killed()
	defer after.Abandon()
	st, err := after.Status()
	th.must(err)
	if len(st.Errors) > 0 {
		t.Errorf("the start reports %+v", st.Errors)
	}
	if names, err := after.sim.ReadDir(spacesDir); err != nil || len(names) != 3 {
		t.Errorf("folders: %q, %v, want those of two spaces, and the next number", names, err)
	}
}
