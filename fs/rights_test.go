package fs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
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

// TestUnheardIsNotWaitedFor: what counts on this device alone is not among what others are to hold, and is told of; what others see in its place is. Once it counts
// for all it is to be sent, and nothing says that it was.
func TestUnheardIsNotWaitedFor(t *testing.T) {
	th := newTestHome(t)
	theirs, heard := th.guest("Team")
	s, root, me := th.Home.spaceOf(theirs.ID()), must2(th.SpaceRoot("Team")), th.keys.Identity
	r := &th.Home.Replicas()[slices.IndexFunc(th.Home.Replicas(), func(r Replica) bool { return r.ID == theirs.ID() })]
	others := must2(dag.Open(theirs.ID(), store.NewMem(), theirs.Files(), dag.Options{}))
	role := func(role acl.Role) {
		t.Helper()
		th.must(theirs.ChangeRole(me, role, others.Heads()))
		heard()
		s.followACL()
	}
	send := func() {
		t.Helper()
		th.must(s.graph.Batches(func(b *dag.Batch, _ [][]byte) error { return errOf(others.Ingest(must2(s.graph.Frame(b.ID())))) }))
		must2(others.Rejudge(nil))
	}
	want := func(what string, changes, contents int) {
		t.Helper()
		send()
		hidden := must2(others.Quarantined())
		if alone := must2(s.graph.Alone()); !slices.Equal(alone, hidden) {
			t.Fatalf("%s: %v count here alone, others hide %v", what, alone, hidden)
		}
		if heads, all, err := s.graph.HeadsElsewhere(); err != nil || all != (len(hidden) == 0) || !all && !slices.Equal(heads, others.Heads()) {
			t.Fatalf("%s: heads elsewhere %v, %v, %v; others have %v", what, heads, all, err, others.Heads())
		}
		i := must2(th.Space("Team"))
		list, _, err := r.Undelivered(t.Context(), 0, 10)
		if th.must(err); i.UnheardChanges != changes || r.ToSend() != contents || len(list) != contents || (i.SendBlocks > 0) != (contents > 0) {
			t.Fatalf("%s: %d changes, %d contents to send, of which %d listed, %d blocks", what, i.UnheardChanges, r.ToSend(), len(list), i.SendBlocks)
		}
	}
	deliver := func() {
		t.Helper()
		list, _, err := r.Undelivered(t.Context(), 0, 10)
		th.must(err)
		r.Delivered(list)
	}
	state := func(ino Ino, want string) {
		t.Helper()
		if f := must2(th.FileState(t.Context(), ino)); f.Sync != want {
			t.Fatalf("%s, not %s", f.Sync, want)
		}
	}
	large := func(fill byte) []byte { return bytes.Repeat([]byte{fill}, 1<<20) }
	role(acl.RoleWriter)
	file := th.create(root, "file", large('a'))
	kept := th.create(root, "kept", large('k'))
	th.flush()
	want("as a writer", 0, 2)

	th.must(theirs.ChangeRole(me, acl.RoleReader, others.Heads())) // not heard of
	th.write(file, large('b'), 0)
	only := th.create(root, "only", large('c'))
	mode := uint32(0o600)
	th.must(errOf(th.Setattr(t.Context(), kept, SetAttr{Mode: &mode})))
	th.flush()
	heard()
	s.followACL()
	want("a reader", 3, 2) // what others see of file, and kept
	if list, _, _ := r.Undelivered(t.Context(), 0, 10); !slices.ContainsFunc(list, func(d Delivery) bool { return d.other != nil }) {
		t.Fatal("what is shown here is to be held by others")
	}
	deliver()
	want("others hold what counts", 3, 0)
	mark := r.Mark()
	r.Held(mark, false)
	if counted, whole := r.HeldUpTo(); counted != mark || whole != 0 {
		t.Fatalf("held up to %d and %d, not %d and 0", counted, whole, mark)
	}
	state(only, SyncLocal)
	state(file, SyncLocal)

	role(acl.RoleWriter)
	want("a writer again", 0, 2)
	if counted, whole := r.HeldUpTo(); counted != 0 || whole != 0 {
		t.Fatalf("held up to %d and %d, and nobody said so", counted, whole)
	}
	state(only, SyncLocal)
	deliver()
	r.Held(r.Mark(), true)
	want("held", 0, 0)
	state(only, SyncDone)
	state(file, SyncDone)
}

func errOf[T any](_ T, err error) error { return err }
