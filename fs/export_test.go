package fs

import "testing"

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
