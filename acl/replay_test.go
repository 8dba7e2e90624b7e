package acl

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// importOf is another device's replica of a space as it is now.
func importOf(t *testing.T, k *Keys, s *Space) *Space {
	t.Helper()
	all := frames(t, s)
	out, err := ImportSpace(k, s.ID(), store.NewMem(), func(yield func([]byte) error) error {
		for _, f := range all {
			if err := yield(f); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
	return out
}

// TestRevokedInvitationReplayed: who has a link that was revoked, and finds a member's device that has not heard of it, asks there or even is let in there by
// it; once that device hears, there is nothing left of it, there and with everybody, whichever comes first. Who only comes then is told that the link is of no use.
func TestRevokedInvitationReplayed(t *testing.T) {
	for _, open := range []bool{false, true} {
		for _, first := range []string{"the revocation", "what the guest wrote"} {
			alice, bob, eve := person(t, "alice"), person(t, "bob"), person(t, "eve")
			s := newSpaceOf(t, alice)
			others, err := s.Invite(Terms{Role: RoleWriter}, today, nil)
			must(t, err)
			g, err := NewGuest(bob, others, "Bob", nil)
			must(t, err)
			visit(t, s, g)
			must(t, s.Approve(s.Requests()[0].ID, RoleNone, today, nil))
			link, err := s.Invite(Terms{Role: RoleWriter, Open: open}, today, nil)
			must(t, err)
			id := s.list.State().InvitationsBy(mustKeys(t, link).public())[0].ID
			b := importOf(t, bob, s) // has not heard of what comes
			must(t, s.RevokeInvite(id, nil))

			g, err = NewGuest(eve, link, "Eve", nil)
			must(t, err)
			want := map[bool]GuestState{false: GuestAsked, true: GuestIn}[open]
			if st := visit(t, b, g); st != want {
				t.Fatalf("open %v: by who has not heard of the revocation: %v, %v", open, st, g.err)
			}
			if open != (b.list.State().Role(eve.Identity) == RoleWriter) || open == (len(b.Requests()) == 1) {
				t.Fatalf("open %v: nothing was tried", open)
			}
			_, err = b.Heal(nil) // it may hand the guest what it has, and not what it hears of later
			must(t, err)
			if first == "the revocation" {
				pass(t, s, b)
				pass(t, b, s)
			} else {
				pass(t, b, s)
				pass(t, s, b)
			}
			for who, r := range map[string]*Space{"alice": s, "bob": b} {
				st := r.list.State()
				if len(r.Requests()) > 0 || st.Role(eve.Identity) != RoleNone || st.HasDevice(eve.Identity, eve.Device.PublicKey()) {
					t.Errorf("open %v, %s first: eve is something to %s: %v, %v", open, first, who, st.Role(eve.Identity), r.Requests())
				}
				if st.Invited(g.keys.public(), eve.Device.PublicKey(), seconds(today)) {
					t.Errorf("open %v, %s first: %s goes on showing the list to eve", open, first, who)
				}
			}
			// The list as it goes on tells the guest so, and the key of what is written now is not hers.
			for _, r := range []*Space{s, b} {
				_, err := r.Heal(nil)
				must(t, err)
			}
			pass(t, s, b)
			pass(t, b, s)
			if s.Epoch() != b.Epoch() || s.Writable() != nil || b.Writable() != nil {
				t.Errorf("open %v, %s first: alice and bob don't seal alike", open, first)
			}
			visit(t, s, g)
			if st, err := g.State(); !open && (st != GuestFailed || !errors.Is(err, ErrInvitation)) {
				t.Errorf("who asked waits on: %v, %v", st, err)
			}
			if e := importOf(t, eve, s); open && e.keys.Has(s.Epoch()) || e.Role() != RoleNone || e.MayWrite() {
				t.Errorf("open %v, %s first: eve has the key of now: %v, or a role: %v", open, first, e.keys.Has(s.Epoch()), e.Role())
			}
			// Again, by the same link, on whoever's device.
			for who, r := range map[string]*Space{"alice": s, "bob": b} {
				again, err := NewGuest(eve, link, "Eve", nil)
				must(t, err)
				if st := visit(t, r, again); st != GuestFailed || !errors.Is(again.err, ErrInvitation) || len(again.Answer()) > 0 {
					t.Errorf("open %v: by %s, who has heard of the revocation: %v, %v", open, who, st, again.err)
				}
			}
			must(t, s.Verify())
			must(t, b.Verify())
		}
	}
}

func mustKeys(t *testing.T, l *Link) *inviteKeys {
	t.Helper()
	k, err := l.keys()
	must(t, err)
	return k
}

// TestRequestSentAgain: the frame of a request that was heard on the way does nothing when it is sent again, whether it was declined, accepted, or its author removed
// since; and what it proves serves nobody else, and is of no other space.
func TestRequestSentAgain(t *testing.T) {
	alice, bob, eve := person(t, "alice"), person(t, "bob"), person(t, "eve")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleWriter}, today, nil)
	must(t, err)
	ask := func() []byte {
		g, err := NewGuest(bob, link, "Bob", nil)
		must(t, err)
		if st := visit(t, s, g); st != GuestAsked {
			t.Fatal(st, g.err)
		}
		return bytes.Clone(g.Answer()[0])
	}
	again := func(after string, captured []byte) {
		t.Helper()
		before := s.list.Heads()
		had, role := len(s.Requests()), s.list.State().Role(bob.Identity)
		for range 3 {
			if res, err := s.list.Graph().Ingest(bytes.Clone(captured)); err != nil || res.Status != dag.Duplicate {
				t.Errorf("%s: sent again it is %v, %v", after, res.Status, err)
			}
		}
		if len(s.Requests()) != had || s.list.State().Role(bob.Identity) != role || !slices.Equal(before, s.list.Heads()) {
			t.Errorf("%s: sent again it did something: %v, %v", after, s.Requests(), s.list.State().Role(bob.Identity))
		}
	}
	first := ask()
	again("while it waits", first)
	must(t, s.Decline(s.Requests()[0].ID))
	again("declined", first)
	second := ask()
	if bytes.Equal(first, second) {
		t.Fatal("one request is another")
	}
	must(t, s.Approve(s.Requests()[0].ID, RoleNone, today, nil))
	again("accepted", second)
	must(t, s.Remove(bob.Identity, nil, nil))
	for _, captured := range [][]byte{first, second} {
		again("removed", captured)
	}
	if s.list.State().Role(bob.Identity) != RoleNone {
		t.Fatal("who was removed is back")
	}

	// The proof is of the account and the device: another can't ask with it.
	batch, bodies, err := dag.DecodeFrame(second)
	must(t, err)
	c, err := dag.DecodeChange(bodies[0])
	must(t, err)
	rec, err := list.DecodeRecord(c.Payload)
	must(t, err)
	if batch.Account != bob.Identity || rec.JoinRequest == nil {
		t.Fatal("it is no request of bob's")
	}
	e := importOf(t, eve, s)
	if _, err := e.write(&list.Record{Kind: list.KindJoinRequest, JoinRequest: rec.JoinRequest}); !errors.Is(err, ErrDenied) {
		t.Error("with bob's keys:", err)
	}
	stolen := *rec.JoinRequest
	stolen.Certificate, stolen.Keys = *eve.Device.Certificate, eve.Public
	if _, err := e.write(&list.Record{Kind: list.KindJoinRequest, JoinRequest: &stolen}); !errors.Is(err, list.ErrSignature) {
		t.Error("with bob's proof:", err)
	}
	// A frame is of one space.
	o := newSpaceOf(t, alice)
	if res, err := o.list.Graph().Ingest(bytes.Clone(second)); !errors.Is(err, dag.ErrSpace) {
		t.Error("in another space:", res.Status, err)
	}
	if len(s.Requests()) > 0 {
		t.Error(s.Requests())
	}
}
