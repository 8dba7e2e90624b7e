package fs

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/journal"
)

// TestReleasedStaysReleased: files of the journal that were given up while a space was quiet are not asked for by that space
// when it has a record again, whichever database knows.
func TestReleasedStaysReleased(t *testing.T) {
	for _, how := range []string{"kill", "kill after the other space is deleted"} {
		t.Run(how, func(t *testing.T) {
			ctx := context.Background()
			th := newTestHome(t)
			_, err := th.CreateSpace("quiet")
			th.must(err)
			_, err = th.CreateSpace("busy")
			th.must(err)
			busy, err := th.namedSpace("busy")
			th.must(err)
			quiet, err := th.SpaceRoot("quiet")
			th.must(err)
			th.must(th.Flush(ctx))
			th.must(th.checkpoint(ctx))
			// More than a file of the journal is filled, published and given up.
			data := random(1, 32<<10)
			for i := range 3 * journal.DefaultFileBytes / 2 / len(data) {
				th.create(busy.ino(rootDir), fmt.Sprint(i), data)
			}
			th.must(th.Flush(ctx))
			th.must(busy.checkpoint(ctx, false))
			for end := time.Now().Add(20 * time.Second); !th.givenUp(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the files of the journal are not given up")
				}
			}
			// The quiet one has a record now, but no checkpoint.
			_, err = th.Mkdir(quiet, "d", 0755, Cred{1000, 1000})
			th.must(err)
			th.create(busy.ino(rootDir), "one more", nil)
			th.must(busy.checkpoint(ctx, false))
			if how != "kill" {
				th.must(th.DeleteSpace("busy"))
			}
			th.kill()
			th.look(quiet, "d")
		})
	}
}

// TestReleaseOfAnUnfinishedSpace: what is thrown away with a space whose making was interrupted is not the only place that knew
// which files of the journal were given up.
func TestReleaseOfAnUnfinishedSpace(t *testing.T) {
	ctx := context.Background()
	th := newTestHome(t)
	_, err := th.CreateSpace("busy")
	th.must(err)
	busy, err := th.namedSpace("busy")
	th.must(err)
	th.must(th.Flush(ctx))
	th.must(th.RenameSpace("busy", "busier"))
	data := random(1, 32<<10)
	for i := range 3 * journal.DefaultFileBytes / 2 / len(data) {
		th.create(busy.ino(rootDir), fmt.Sprint(i), data)
	}
	th.must(busy.publishAll(ctx))
	th.must(th.SyncAll(ctx))
	th.must(busy.checkpoint(ctx, false)) // the home space has an older record, and keeps it from giving back
	th.must(th.home.checkpoint(ctx, false))
	th.spaceMu.Lock()
	s, err := th.newSpace(ctx, th.next, spaceIdentity{name: "passing"}, func(st dag.Store) (*acl.Space, error) { return acl.CreateSpace(th.keys, st, th.rand) }, nil)
	th.spaceMu.Unlock()
	th.must(err)
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end) && !th.givenUp(); {
		time.Sleep(time.Millisecond)
	}
	th.must(th.sim.Remove(s.dir + "/" + spaceFile)) // it ends before that is made
	th.kill()
	th.look(busy.ino(rootDir), "0")
}

// givenUp reports whether of the journal's files only the current one is in use.
func (th *testHome) givenUp() bool {
	names, err := th.sim.ReadDir(journalDir)
	th.must(err)
	used := 0
	for _, name := range names {
		b, err := th.sim.ReadFile(journalDir + "/" + name)
		if err == nil && len(b) >= 1024 && !bytes.Equal(b[:1024], make([]byte, 1024)) {
			used++
		}
	}
	return used == 1
}
