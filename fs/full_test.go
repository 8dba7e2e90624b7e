package fs

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/disk"
)

// noNewJournal is a disk that takes no new file of the journal while it is full.
type noNewJournal struct {
	disk.FS
	full *atomic.Bool
}

func (d noNewJournal) Create(name string) (disk.File, error) {
	if d.full.Load() && strings.HasPrefix(name, journalDir+"/") {
		return nil, syscall.ENOSPC
	}
	return d.FS.Create(name)
}

// TestDeletionWithAFullJournal: the deletion of a space for which the journal has no room fails, holds nobody up, and leaves the space
// as it was.
func TestDeletionWithAFullJournal(t *testing.T) {
	ctx := context.Background()
	th := newTestHome(t)
	name := strings.Repeat("long", 50)
	must2(th.CreateSpace(name))
	th.create(must2(th.SpaceRoot(name)), "f", []byte("in it"))
	th.flush()
	th.must(th.Close())
	var full atomic.Bool
	th.openInline(noNewJournal{th.sim, &full}, 16<<10)
	th.create(th.root, "a", random(1, 3000)) // what is not published keeps the journal's files
	full.Store(true)
	var err error
	for i := 0; err == nil; i++ {
		if err = th.Rename(th.root, "a", th.root, "b", 0); err == nil {
			err = th.Rename(th.root, "b", th.root, "a", 0)
		}
		if i > 1<<16 {
			t.Fatal("the journal is not full")
		}
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- th.DeleteSpace(name) }()
	select {
	case err := <-done:
		if !errors.Is(err, ErrNoSpace) {
			t.Fatalf("a deletion without room: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a deletion without room does not end")
	}
	if _, err := th.sim.ReadFile("spaces/0002/" + deletingFile); err == nil {
		t.Fatal("the space is marked as being deleted")
	}
	full.Store(false)
	th.wantContent(must2(th.SpaceRoot(name)), "f", []byte("in it"))
	th.must(th.checkpoint(ctx))
	th.must(th.DeleteSpace(name))
	if i, err := th.Space(name); !errors.Is(err, ErrNotExist) {
		t.Fatal(i, err)
	}
}
