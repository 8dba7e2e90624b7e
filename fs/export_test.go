package fs

import (
	crand "crypto/rand"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
)

// TestHome lets tests outside the package work with a home on a simulated disk.
type TestHome struct{ *testHome }

// NewTestHome makes one.
func NewTestHome(t testing.TB) TestHome { return TestHome{newTestHome(t)} }

// NewBareHome has keys on its disk, and is not open.
func NewBareHome(t testing.TB) TestHome { return TestHome{newBareHome(t, crand.Reader)} }

// Root is the root directory of its space.
func (th TestHome) Root() Ino { return th.root }

// Reopen closes it in order and opens it again; Kill opens what a SIGKILL leaves.
func (th TestHome) Reopen() { th.reopen() }

// Kill opens what a SIGKILL leaves.
func (th TestHome) Kill() { th.kill() }

// Tick lets time pass.
func (th TestHome) Tick(d time.Duration) { th.tick(d) }

// Checkpoint makes one.
func (th TestHome) Checkpoint() error { return th.checkpoint(th.t.Context()) }

// Age lets go of what was not asked for lately.
func (th TestHome) Age() { _ = th.age() }

// PowerLoss opens, beside the running home, what a power loss now would leave: a random part of what was not synced.
func (th TestHome) PowerLoss(rnd *rand.Rand) TestHome {
	c := &testHome{t: th.t, sim: th.sim.CrashClone(rnd), keys: th.keys, root: th.root, rand: th.rand}
	c.open()
	return TestHome{c}
}

// Killed opens, beside the running home, what a SIGKILL now would leave.
func (th TestHome) Killed() TestHome {
	c := &testHome{t: th.t, sim: th.sim.Crash(func() disk.Keep { return disk.Whole }), keys: th.keys, root: th.root, rand: th.rand}
	c.open()
	return TestHome{c}
}

// Sim is its disk.
func (th TestHome) Sim() *disk.Sim { return th.sim }

// On opens the home on another disk, as a crash left it. Nothing happens in it beside what is called, so that what is done to
// its disk is the same each time.
func (th TestHome) On(sim *disk.Sim) (TestHome, error) {
	c := th.Closed()
	c.sim = sim
	c.how.inline = true
	return c, c.tryOpen()
}

// Closed is the same home, not open.
func (th TestHome) Closed() TestHome {
	c := &testHome{t: th.t, sim: th.sim, keys: th.keys, root: th.root, dbs: th.dbs, rand: th.rand, how: th.how}
	c.skew.Store(th.skew.Load())
	return TestHome{c}
}

// NewTestHomeWithBolt makes one whose databases are real, below a folder.
func NewTestHomeWithBolt(t testing.TB, dir string) TestHome {
	th := newBareHome(t, crand.Reader)
	th.dbs = dir
	th.open()
	if _, err := th.CreatePersonal(); err != nil {
		t.Fatal(err)
	}
	th.find()
	t.Cleanup(th.leave)
	return TestHome{th}
}

// OnDisks is On for a home whose databases are real.
func (th TestHome) OnDisks(sim *disk.Sim, dir string) (TestHome, error) {
	c := th.Closed()
	c.sim, c.dbs = sim, dir
	c.how.inline = true
	var err error
	if c.keys, err = acl.OpenKeys(sim, nil); err != nil {
		return c, err
	}
	return c, c.tryOpen()
}

// Shrink sets the bytes of a file of the journal and of a segment of blocks, from the next opening on.
func (th TestHome) Shrink(journalBytes, segmentBytes int64) {
	th.how.journalBytes, th.how.segmentBytes = journalBytes, segmentBytes
}

// Written hands all records to the kernel, as happens within a second.
func (th TestHome) Written() error {
	for _, s := range th.each() {
		s.mu.Lock()
		last := s.last
		s.mu.Unlock()
		if err := th.written(last); err != nil {
			return err
		}
	}
	return nil
}

// Abandon gives it up.
func (th TestHome) Abandon() {
	th.abandon()
	th.Home.closeSpaces()
}
