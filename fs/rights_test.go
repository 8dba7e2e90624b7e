package fs

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// guest has a home be in a space of another account, as a reader. It returns the other's list, and what brings that to the home.
func (th *testHome) guest(name string) (theirs *acl.Space, heard func()) {
	th.t.Helper()
	theirs = must2(acl.CreateSpace(th.someone(), store.NewMem(), nil))
	link := must2(theirs.Invite(acl.Terms{Role: acl.RoleReader}, th.clock(), nil))
	guest := must2(acl.NewGuest(th.keys, link, "guest", nil))
	list := func() (frames [][]byte) {
		th.must(theirs.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
		return frames
	}
	th.must(guest.Take(list(), true, th.clock()))
	for _, f := range guest.Answer() {
		th.must(theirs.List().Import(f))
	}
	th.must(theirs.Approve(theirs.Requests()[0].ID, acl.RoleNone, th.clock(), nil))
	must2(th.Join(name, theirs.ID(), list()))
	return theirs, func() {
		for _, f := range list() {
			th.must(th.Home.spaceOf(theirs.ID()).acl.List().Import(f))
		}
	}
}

// TestRoleThatIsShownHolds: who reads its role can do at once what that says, and no more: while a change of roles waits for what the device is at, the role is the one
// before, and so is what can be done.
func TestRoleThatIsShownHolds(t *testing.T) {
	th := newTestHome(t)
	theirs, heard := th.guest("Team")
	s, root := th.Home.spaceOf(theirs.ID()), must2(th.SpaceRoot("Team"))

	now := func(role acl.Role, name string, want error) {
		t.Helper()
		if got := string(must2(th.Getxattr(root, "user.anyfs.role"))); got != role.String() {
			t.Fatalf("the role is %s, not %s", got, role)
		}
		if _, err := th.Mkdir(root, name, 0o755, Cred{}); !errors.Is(err, want) {
			t.Fatalf("as %s: %v", role, err)
		}
		if writable := must2(th.Getattr(root)).Mode&0o200 != 0; writable != (want == nil) {
			t.Fatalf("as %s: the mode says that it can be written to: %v", role, writable)
		}
	}
	before := acl.RoleReader
	now(before, "a", ErrReadOnly)
	for i, role := range []acl.Role{acl.RoleWriter, acl.RoleReader, acl.RoleAdmin, acl.RoleReader} {
		want := map[bool]error{true: nil, false: ErrReadOnly}
		s.follow.Lock() // the device is at something else
		th.must(theirs.ChangeRole(th.keys.Identity, role, nil))
		heard()
		now(before, fmt.Sprint("not yet ", i), want[before > acl.RoleReader])
		s.follow.Unlock()
		s.followACL()
		now(role, fmt.Sprint("now ", i), want[role > acl.RoleReader])
		before = role
	}
}

// TestUnheardCountsOnceItMay: what was published by who had not heard that it might not counts for all when it may again, and not only with what it writes next; it takes
// one batch, however often the list grows.
func TestUnheardCountsOnceItMay(t *testing.T) {
	th := newTestHome(t)
	theirs, heard := th.guest("Team")
	s, root, me := th.Home.spaceOf(theirs.ID()), must2(th.SpaceRoot("Team")), th.keys.Identity
	others := must2(dag.Open(theirs.ID(), store.NewMem(), theirs.Files(), dag.Options{}))
	role := func(r acl.Role) {
		t.Helper()
		th.must(theirs.ChangeRole(me, r, others.Heads()))
	}
	hear := func() { heard(); s.followACL() }
	want := func(what string, batches uint64, hidden int) {
		t.Helper()
		th.must(s.graph.Batches(func(b *dag.Batch, _ [][]byte) error { return errOf(others.Ingest(must2(s.graph.Frame(b.ID())))) }))
		must2(others.Rejudge(nil))
		if n, _, _ := s.graph.Counters(); n != batches || others.QuarantineLen() != hidden {
			t.Fatalf("%s: %d batches, of which others hide %d; want %d and %d", what, n, others.QuarantineLen(), batches, hidden)
		}
	}
	role(acl.RoleWriter)
	hear()
	th.create(root, "heard", []byte("heard"))
	th.flush()
	want("as a writer", 1, 0)
	role(acl.RoleReader)
	th.create(root, "unheard", []byte("unheard"))
	th.flush()
	want("unheard", 2, 1)
	hear()
	want("heard of it", 2, 1)
	role(acl.RoleWriter)
	hear()
	want("a writer again", 3, 0)
	role(acl.RoleAdmin)
	hear()
	want("an admin", 3, 0)

	role(acl.RoleReader)
	th.create(root, "unheard too", nil)
	th.flush()
	hear()
	role(acl.RoleWriter)
	heard()
	th.reopen() // it ended before it saw to that
	s = th.Home.spaceOf(theirs.ID())
	s.followACL()
	want("opened as a writer", 5, 0)
}

// TestUnheardBranches: where the feed of a device has branches, as after a backup was restored, and none of them had heard, one batch is still enough.
func TestUnheardBranches(t *testing.T) {
	th := newTestHome(t)
	theirs, heard := th.guest("Team")
	s, root, me := th.Home.spaceOf(theirs.ID()), must2(th.SpaceRoot("Team")), th.keys.Identity
	others := must2(dag.Open(theirs.ID(), store.NewMem(), theirs.Files(), dag.Options{}))
	takes := func() {
		th.must(s.graph.Batches(func(b *dag.Batch, _ [][]byte) error { return errOf(others.Ingest(must2(s.graph.Frame(b.ID())))) }))
		must2(others.Rejudge(nil))
	}
	role := func(r acl.Role) {
		th.must(theirs.ChangeRole(me, r, others.Heads()))
		heard()
		s.followACL()
	}
	role(acl.RoleWriter)
	th.create(root, "heard", []byte("heard"))
	th.flush()
	takes()
	copied := must2(dag.Open(theirs.ID(), store.NewMem(), theirs.Files(), dag.Options{}))
	th.must(others.Batches(func(b *dag.Batch, _ [][]byte) error { return errOf(copied.Ingest(must2(others.Frame(b.ID())))) }))
	b := must2(copied.Begin(th.keys.Author(), s.acl.Heads(), s.acl.Epoch()))
	must2(b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte("sealed"), nil }))
	branch := must2(copied.Frame(must2(b.Commit()).ID()))
	th.must(theirs.ChangeRole(me, acl.RoleReader, others.Heads()))
	th.create(root, "unheard", []byte("unheard"))
	th.flush()
	must2(s.graph.Ingest(branch))
	heard()
	s.followACL()
	takes()
	if n := others.QuarantineLen(); n != 2 {
		t.Fatalf("others hide %d batches, not 2", n)
	}
	for _, r := range []acl.Role{acl.RoleWriter, acl.RoleAdmin, acl.RoleWriter, acl.RoleAdmin} {
		role(r)
		takes()
		if n, _, _ := s.graph.Counters(); n != 4 || others.QuarantineLen() != 0 {
			t.Fatalf("%v: %d batches, of which others hide %d; want 4 and none", r, n, others.QuarantineLen())
		}
	}
}

func errOf[T any](_ T, err error) error { return err }
