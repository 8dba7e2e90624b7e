package fs

import (
	"context"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// loseJournal makes a file of which what the journal had is lost.
func (th *testHome) loseJournal(name string) {
	th.t.Helper()
	th.flush()
	th.create(th.root, name, random(1, 3000))
	th.must(th.SyncAll(context.Background()))
	th.must(th.checkpoint(context.Background()))
	th.Home.abandon()
	th.sim = th.sim.Crash(func() disk.Keep { return disk.Whole })
	names, err := th.sim.ReadDir(journalDir)
	th.must(err)
	for _, name := range names {
		th.must(th.sim.Remove(journalDir + "/" + name))
	}
	th.open()
}

// TestLostRecordsAreNoOthers: what a file had in records of the journal that are lost reads as EIO, also when what comes later has
// the numbers of the journal's files that these had.
func TestLostRecordsAreNoOthers(t *testing.T) {
	ctx := context.Background()
	th := newTestHome(t)
	th.loseJournal("f")
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

// TestUnpublishableFileLeavesRoom: a file that can't be published, and holds nothing in the journal, is no reason for ENOSPC when that
// is full of what others hold.
func TestUnpublishableFileLeavesRoom(t *testing.T) {
	th := newTestHome(t)
	th.loseJournal("f")
	th.create(th.root, "held", random(2, 3000)) // keeps all records behind it
	data := random(3, 200<<10)
	ino := th.create(th.root, "big", data)
	for range journalLimit / len(data) {
		th.write(ino, data, 0)
	}
	th.wantContent(th.root, "big", data)
	th.wantContent(th.root, "held", random(2, 3000))
}
