package fs

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/store"
)

// TestRoleThatIsShownHolds: who reads its role can do at once what that says, and no more: while a change of roles waits for what the device is at, the role is the one
// before, and so is what can be done.
func TestRoleThatIsShownHolds(t *testing.T) {
	th := newTestHome(t)
	owner := th.someone()
	theirs := must2(acl.CreateSpace(owner, store.NewMem(), nil))
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
	must2(th.Join("Team", theirs.ID(), list()))
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
		for _, f := range list() {
			th.must(s.acl.List().Import(f))
		}
		now(before, fmt.Sprint("not yet ", i), want[before > acl.RoleReader])
		s.follow.Unlock()
		s.followACL()
		now(role, fmt.Sprint("now ", i), want[role > acl.RoleReader])
		before = role
	}
}
