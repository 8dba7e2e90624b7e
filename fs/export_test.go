package fs

import (
	"math/rand/v2"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// TestHome lets tests outside the package work with a home on a simulated disk.
type TestHome struct{ *testHome }

// NewTestHome makes one.
func NewTestHome(t testing.TB) TestHome { return TestHome{newTestHome(t)} }

// Root is the root directory of its space.
func (th TestHome) Root() Ino { return th.root }

// Reopen closes it in order and opens it again; Kill opens what a SIGKILL leaves.
func (th TestHome) Reopen() { th.reopen() }

// Kill opens what a SIGKILL leaves.
func (th TestHome) Kill() { th.kill() }

// Checkpoint makes one.
func (th TestHome) Checkpoint() error { return th.checkpoint(th.t.Context()) }

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

// Abandon gives it up.
func (th TestHome) Abandon() {
	th.abandon()
	th.Home.closeSpaces()
}
