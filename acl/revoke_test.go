package acl

import (
	"errors"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/store"
)

// TestRevokedDevice: a device without the account's secret has no key of the epoch that its revocation begins, and the others have; in a
// space that was made later the same word of the account keeps it out.
func TestRevokedDevice(t *testing.T) {
	a := mustAccount(t)
	desk, laptop := newKeys(t, a, "desk"), newKeys(t, a, "laptop")
	laptop.Account = nil // as a device that was paired
	s := newSpaceOf(t, desk)
	must(t, s.addDevice(laptop.Device.Certificate, laptop.Device.Name, nil))
	l, err := ImportSpace(laptop, s.ID(), store.NewMem(), exportOf(s))
	must(t, err)
	must(t, l.Writable())
	bob := person(t, "bob")
	link, err := s.Invite(Terms{Role: RoleWriter}, today, nil)
	must(t, err)
	g, err := NewGuest(bob, link, "Bob", nil)
	must(t, err)
	visit(t, s, g)
	must(t, s.Approve(s.Requests()[0].ID, RoleNone, time.Now(), nil))
	visit(t, s, g)
	b := enter(t, bob, g)

	r := a.Revoke(laptop.Device.PublicKey())
	must(t, s.RevokeDevice(r, nil, nil))
	must(t, s.RevokeDevice(r, nil, nil)) // again is nothing
	pass(t, s, l)
	pass(t, s, b)
	if s.Epoch() != b.Epoch() || s.Epoch().IsZero() {
		t.Error("another member has not the new key")
	}
	if l.keys.Has(s.Epoch()) || !l.Revoked() || l.MayWrite() || !errors.Is(l.Writable(), ErrRevoked) || s.Revoked() {
		t.Error("the revoked device goes on:", l.Writable())
	}
	if _, err := l.Rotate(nil); !errors.Is(err, ErrDenied) {
		t.Error("a revoked device writes a record:", err)
	}
	for _, x := range []*Space{s, b, l} {
		if wrote, err := x.Heal(nil); wrote || err != nil {
			t.Error("healed what was whole", wrote, err)
		}
	}
	if name, ok := b.DeviceName(laptop.Device.PublicKey()); !ok || name != "laptop" {
		t.Errorf("its name is %q", name)
	}
	must(t, s.Verify())

	later := newSpaceOf(t, desk)
	rs := s.Revocations()
	if len(rs) != 1 || rs[0] != r {
		t.Fatal(rs)
	}
	before := later.Epoch()
	must(t, later.RevokeDevice(rs[0], nil, nil))
	if later.Epoch() != before {
		t.Error("keys change for a device that never had them")
	}
	if err := later.addDevice(laptop.Device.Certificate, laptop.Device.Name, nil); !errors.Is(err, ErrDenied) {
		t.Error("a revoked device came into another space:", err)
	}
	wrong := r
	wrong.Device = bob.Device.PublicKey()
	if err := s.RevokeDevice(wrong, nil, nil); !errors.Is(err, ErrDenied) {
		t.Error("a signature for another device:", err)
	}
}

// exportOf gives the list of a space for ImportSpace.
func exportOf(s *Space) func(func([]byte) error) error {
	return func(yield func([]byte) error) error { return s.Export(yield) }
}
