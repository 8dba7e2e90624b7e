package fs

import (
	"context"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// TestLostRecordsAreNoOthers: what a file had in records of the journal that are lost reads as EIO, also when what comes later has
// the numbers of the journal's files that these had.
func TestLostRecordsAreNoOthers(t *testing.T) {
	ctx := context.Background()
	th := newTestHome(t)
	th.flush()
	th.create(th.root, "f", random(1, 3000))
	th.must(th.SyncAll(ctx))
	th.must(th.checkpoint(ctx))
	th.Home.abandon()
	th.sim = th.sim.Crash(func() disk.Keep { return disk.Whole })
	names, err := th.sim.ReadDir(journalDir)
	th.must(err)
	for _, name := range names {
		th.must(th.sim.Remove(journalDir + "/" + name))
	}
	th.open()
	th.create(th.root, "g", random(2, 60_000))
	th.create(th.root, "h", random(3, 60_000))
	for _, how := range []string{"while the journal is written", "after a kill"} {
		b := make([]byte, 3000)
		if n, err := th.Read(ctx, th.look(th.root, "f"), b, 0); !errors.Is(err, ErrIO) {
			t.Fatalf("%s: %d bytes of lost records are read: %v", how, n, err)
		}
		th.wantContent(th.root, "g", random(2, 60_000))
		th.kill()
	}
}
