package acl

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

var today = time.Unix(1_800_000_000, 0)

// guestOf brings a guest as far as a peer with the space brings it.
func visit(t *testing.T, s *Space, g *Guest) GuestState {
	t.Helper()
	var frames [][]byte
	must(t, s.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
	must(t, g.Take(frames, true, today))
	for _, f := range g.Answer() {
		if _, err := s.list.Graph().Ingest(f); err != nil {
			t.Fatal(err)
		}
	}
	state, _ := g.State()
	return state
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enter makes a guest's space of what it was given.
func enter(t *testing.T, k *Keys, g *Guest) *Space {
	t.Helper()
	frames, err := g.Frames()
	must(t, err)
	s, err := ImportSpace(k, g.Space(), store.NewMem(), func(yield func([]byte) error) error {
		for _, f := range frames {
			if err := yield(f); err != nil {
				return err
			}
		}
		return nil
	})
	must(t, err)
	return s
}

// pass brings what one replica of a space has to another.
func pass(t *testing.T, from, to *Space) {
	t.Helper()
	must(t, from.Export(to.list.Import))
}

func person(t *testing.T, name string) *Keys {
	t.Helper()
	return newKeys(t, mustAccount(t), name+"'s laptop")
}

func newSpaceOf(t *testing.T, k *Keys) *Space {
	t.Helper()
	s, err := CreateSpace(k, store.NewMem(), nil)
	must(t, err)
	return s
}

func TestInviteApproveRemove(t *testing.T) {
	alice, bob := person(t, "alice"), person(t, "bob")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleWriter}, today, nil)
	must(t, err)
	link.Addresses = []string{"/ip4/127.0.0.1/tcp/1/p2p/x", "/ip6/::1/udp/2/quic-v1/p2p/y"}
	link, err = ParseLink(link.String())
	must(t, err)
	g, err := NewGuest(bob, link, "Bob", nil)
	must(t, err)
	if st := visit(t, s, g); st != GuestAsked {
		t.Fatal(st, g.err)
	}
	qs := s.Requests()
	if len(qs) != 1 || qs[0].Name != "Bob" || qs[0].Account != bob.Identity || qs[0].Role != RoleWriter || !qs[0].Time.Equal(today) {
		t.Fatal(qs)
	}
	if st := visit(t, s, g); st != GuestAsked || len(s.Requests()) != 1 {
		t.Fatal("asked again", st)
	}
	must(t, s.Approve(qs[0].ID, RoleNone, today, nil))
	if st := visit(t, s, g); st != GuestIn {
		t.Fatal(st)
	}
	b := enter(t, bob, g)
	if err := b.Writable(); err != nil || b.Epoch() != s.Epoch() {
		t.Fatal(err)
	}
	if ps := b.People(); len(ps) != 2 || ps[1].Name != "Bob" || ps[0].Name != "alice's laptop" || ps[1].Role != RoleWriter {
		t.Fatal(ps)
	}
	if name, ok := s.DeviceName(bob.Device.PublicKey()); !ok || name != "bob's laptop" {
		t.Fatal(name)
	}
	if again, err := s.Heal(nil); again || err != nil {
		t.Fatal("healed what was whole", err)
	}

	// What is written after the removal is sealed with a key that bob cannot get.
	before := s.Epoch()
	must(t, s.Remove(bob.Identity, nil, nil))
	if s.Epoch() == before || s.Epoch().IsZero() {
		t.Fatal("no new epoch")
	}
	pass(t, s, b)
	if b.keys.Has(s.Epoch()) || b.Writable() == nil || b.Role() != RoleNone || !b.Epoch().IsZero() {
		t.Fatal("the removed one has the new key")
	}
	if _, err := b.Invite(Terms{Role: RoleReader}, today, nil); !errors.Is(err, ErrDenied) {
		t.Error("an invitation by who is no member:", err)
	}
	if name, ok := s.DeviceName(bob.Device.PublicKey()); !ok || name != "bob's laptop" {
		t.Fatal("the name of a removed device is gone:", name)
	}
	must(t, s.Verify())
	must(t, b.Verify())

	// And again, by the same link: it leads to all before it.
	g, err = NewGuest(bob, link, "Bob", nil)
	must(t, err)
	visit(t, s, g)
	must(t, s.Approve(s.Requests()[0].ID, RoleReader, today, nil))
	pass(t, s, b)
	if b.Role() != RoleReader || !b.keys.Has(s.Epoch()) {
		t.Fatal("not back")
	}
}

func TestOpenInvitation(t *testing.T) {
	alice, bob, carol := person(t, "alice"), person(t, "bob"), person(t, "carol")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleReader, Open: true, Uses: 1}, today, nil)
	must(t, err)
	if _, err := s.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	g, err := NewGuest(bob, link, "Bob", nil)
	must(t, err)
	if st := visit(t, s, g); st != GuestIn {
		t.Fatal(st, g.err)
	}
	b := enter(t, bob, g)
	if b.Role() != RoleReader || b.Epoch() != s.Epoch() || s.People()[1].Name != "Bob" {
		t.Fatal(b.Role(), s.People())
	}
	g, err = NewGuest(carol, link, "Carol", nil)
	must(t, err)
	if st := visit(t, s, g); st != GuestFailed || !errors.Is(g.err, ErrInvitation) {
		t.Fatal(st, g.err)
	}
}

// TestLeaveAndHeal: who publishes next begins an epoch, and who lacks a key gets it.
func TestLeaveAndHeal(t *testing.T) {
	alice, bob := person(t, "alice"), person(t, "bob")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleWriter}, today, nil)
	must(t, err)
	g, err := NewGuest(bob, link, "Bob", nil)
	must(t, err)
	visit(t, s, g)
	must(t, s.Approve(s.Requests()[0].ID, RoleNone, today, nil))
	visit(t, s, g)
	b := enter(t, bob, g)
	must(t, b.Leave(nil))
	pass(t, b, s)
	if !s.Epoch().IsZero() {
		t.Fatal("an epoch is clean that who left has the key of")
	}
	must(t, s.Ready(nil))
	pass(t, s, b)
	if b.keys.Has(s.Epoch()) {
		t.Fatal("who left has the new key")
	}
	// An epoch whose key is withheld from one device.
	carol := person(t, "carol")
	g, err = NewGuest(carol, link, "Carol", nil)
	must(t, err)
	visit(t, s, g)
	must(t, s.Approve(s.Requests()[0].ID, RoleNone, today, nil))
	visit(t, s, g)
	c := enter(t, carol, g)
	k, err := s.nextEpoch(carol.Identity, dag.ID{}, nil)
	must(t, err)
	if _, err := s.write(&list.Record{Kind: list.KindRotateKey, RotateKey: k}); err != nil {
		t.Fatal(err)
	}
	pass(t, s, c)
	if c.Epoch() == s.Epoch() {
		t.Fatal("the key was not withheld")
	}
	if wrote, err := s.Heal(nil); !wrote || err != nil {
		t.Fatal(wrote, err)
	}
	pass(t, s, c)
	if c.Epoch() != s.Epoch() {
		t.Fatal("the key was not shared")
	}
}

func TestInvitationsThatAreNone(t *testing.T) {
	alice, bob, mallory := person(t, "alice"), person(t, "bob"), person(t, "mallory")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleWriter, Expires: today.Add(time.Hour)}, today, nil)
	must(t, err)
	fails := func(what string, l Link, now time.Time, words string) {
		t.Helper()
		g, err := NewGuest(bob, &l, "Bob", nil)
		must(t, err)
		var frames [][]byte
		must(t, s.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
		must(t, g.Take(frames, true, now))
		if st, err := g.State(); st != GuestFailed || !errors.Is(err, ErrInvitation) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, %v", what, st, err)
		}
	}
	swapped := *link
	swapped.By = mallory.Identity
	fails("the key of another who invites", swapped, today, "by another")
	other := *link
	other.Secret[0]++
	fails("another secret", other, today, "does not know")
	fails("an old one", *link, today.Add(2*time.Hour), "expired")
	must(t, s.RevokeInvite(s.Invitations()[0].ID, nil))
	fails("a revoked one", *link, today, "revoked")

	// The list of a space of mallory's does not pass for that of the link.
	g, err := NewGuest(bob, link, "Bob", nil)
	must(t, err)
	m := newSpaceOf(t, mallory)
	must(t, m.Export(func(f []byte) error {
		if err := g.Take([][]byte{f}, true, today); err == nil {
			t.Error("a record of another space was taken")
		}
		return nil
	}))
	for _, text := range []string{"", "anyfs:", "http://x#y", link.String()[:len(link.String())-3], strings.Split(link.String(), "#")[0],
		strings.Replace(link.String(), "by=z", "by=q", 1), strings.Repeat("a", 10000)} {
		if _, err := ParseLink(text); !errors.Is(err, ErrLink) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestDeviceOfAnother: a member that names another's device as its own keeps nobody from beginning an epoch, and takes over
// nothing, whether it knew that member before or not.
func TestDeviceOfAnother(t *testing.T) {
	alice, bob, mallory := person(t, "alice"), person(t, "bob"), person(t, "mallory")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleReader, Open: true}, today, nil)
	must(t, err)
	g, err := NewGuest(mallory, link, "Mallory", nil)
	must(t, err)
	visit(t, s, g)
	m := enter(t, mallory, g)
	claim := func(device dag.PublicKey) error {
		c := list.Certificate{Account: mallory.Identity, Device: device, HPKE: mallory.Device.Certificate.HPKE, Serial: 1}
		c.Sign(mallory.Account.identity)
		_, err := m.write(&list.Record{Kind: list.KindAddDevice, AddDevice: &list.AddDevice{Certificate: c, Epoch: m.ID(), Name: make([]byte, 80)}})
		return err
	}
	if err := claim(alice.Device.PublicKey()); !errors.Is(err, ErrDenied) {
		t.Error("a device of another member was taken in:", err)
	}
	if err := claim(alice.Identity); !errors.Is(err, ErrDenied) {
		t.Error("an account was taken in as a device:", err)
	}
	// Beside the joining of bob nothing forbids it, and it comes first.
	must(t, claim(bob.Device.PublicKey()))
	_, err = s.Rotate(nil)
	must(t, err)
	g, err = NewGuest(bob, link, "Bob", nil)
	must(t, err)
	visit(t, s, g)
	pass(t, m, s)
	if _, of, _ := s.list.State().Device(bob.Device.PublicKey()); of != bob.Identity {
		t.Error("bob's device is another's")
	}
	if name, _ := s.DeviceName(bob.Device.PublicKey()); name != "bob's laptop" {
		t.Errorf("bob's device is called %q", name)
	}
	_, err = s.Rotate(nil)
	must(t, err)
	b := enter(t, bob, g)
	pass(t, s, b)
	if b.Epoch() != s.Epoch() {
		t.Error("bob has no key")
	}
}

// TestUsedUpInvitation: an open invitation that is used up gets no keys any more, and who heals a space ends it, so that nobody
// joins by it from before its use, in the place of who did.
func TestUsedUpInvitation(t *testing.T) {
	alice, bob, eve := person(t, "alice"), person(t, "bob"), person(t, "eve")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleReader, Open: true, Uses: 1}, today, nil)
	must(t, err)
	late, err := NewGuest(eve, link, "Eve", nil)
	must(t, err)
	early := frames(t, s)
	_, err = s.Rotate(nil)
	must(t, err)
	g, err := NewGuest(bob, link, "Bob", nil)
	must(t, err)
	visit(t, s, g)
	if s.list.State().Invited(late.keys.public(), dag.PublicKey{}, 1) {
		t.Error("who proves a used up invitation sees the list")
	}
	_, err = s.Rotate(nil)
	must(t, err)
	if _, _, err := late.openKey(s.list.State(), &s.list.State().Invitations()[0]); err == nil {
		es := s.list.State().Epochs()
		for _, w := range es[len(es)-1].Wraps {
			if w.To == late.keys.public() {
				t.Error("a used up invitation gets the new key")
			}
		}
	}
	wrote, err := s.Heal(nil)
	must(t, err)
	if !wrote || !s.list.State().Invitations()[0].Revoked() {
		t.Error("a used up invitation is live")
	}
	if wrote, err := s.Heal(nil); wrote || err != nil {
		t.Error("healed what was whole", err)
	}
	// Eve has the link and the list as it was before bob joined, and says that she was first.
	must(t, late.Take(early, true, today))
	for _, f := range late.Answer() {
		if _, err := s.list.Graph().Ingest(f); err != nil {
			t.Fatal(err)
		}
	}
	if s.list.State().Role(eve.Identity) != RoleNone || s.list.State().Role(bob.Identity) != RoleReader {
		t.Error("eve is in the place of bob:", s.People())
	}
}

// TestRemovedWithAnOpenLink: who was removed and has the link of an open invitation opens the key of now by it, as whoever has it does, until that invitation is
// revoked; then nothing that it has opens one.
func TestRemovedWithAnOpenLink(t *testing.T) {
	alice, bob := person(t, "alice"), person(t, "bob")
	s := newSpaceOf(t, alice)
	link, err := s.Invite(Terms{Role: RoleReader, Open: true}, today, nil)
	must(t, err)
	g, err := NewGuest(bob, link, "Bob", nil)
	must(t, err)
	if st := visit(t, s, g); st != GuestIn {
		t.Fatal(st, g.err)
	}
	must(t, s.Remove(bob.Identity, nil, nil))
	opens := func() bool {
		t.Helper()
		st := s.list.State()
		again, err := NewGuest(bob, link, "Bob", nil)
		must(t, err)
		must(t, again.Take(frames(t, s), true, today))
		i := st.InvitationsBy(again.keys.public())[0]
		e, _, err := again.openKey(st, &i)
		return err == nil && e.ID == s.Epoch()
	}
	if !opens() {
		t.Error("an open invitation that is live opens nothing")
	}
	must(t, s.RevokeInvite(s.Invitations()[0].ID, nil))
	if opens() || importOf(t, bob, s).keys.Has(s.Epoch()) {
		t.Error("who was removed has the key of now, by a link that was revoked")
	}
}

// TestExpiredOpenInvitation: an open invitation that has expired gets no key of later epochs, and is ended by who removes a member, and by who made it or owns
// the space, after a while by other admins: who was removed and has its link opens nothing by it, and does not come in again, though the list that it
// still hears of reads no clock.
func TestExpiredOpenInvitation(t *testing.T) {
	alice, bob, carol := person(t, "alice"), person(t, "bob"), person(t, "carol")
	now := today
	clock := func() time.Time { return now }
	in := func(s *Space, k *Keys, terms Terms) (*Space, *Link) {
		link, err := s.Invite(terms, now, nil)
		must(t, err)
		g, err := NewGuest(k, link, "x", nil)
		must(t, err)
		visit(t, s, g)
		for _, q := range s.Requests() {
			must(t, s.Approve(q.ID, RoleNone, now, nil))
		}
		if st := visit(t, s, g); st != GuestIn {
			t.Fatal(st, g.err)
		}
		other := enter(t, k, g)
		other.SetClock(clock)
		return other, link
	}
	opens := func(s *Space, link *Link) bool {
		g, err := NewGuest(bob, link, "Bob", nil)
		must(t, err)
		st := s.list.State()
		i := st.InvitationsBy(g.keys.public())[0]
		e, _, err := g.openKey(st, &i)
		return err == nil && e.ID == s.Epoch()
	}
	// comes has Bob, whose clock is as he likes, join by what he hears of the list, and bring that.
	comes := func(heard, s *Space, link *Link) bool {
		g, err := NewGuest(bob, link, "Bob", nil)
		must(t, err)
		must(t, g.Take(frames(t, heard), true, today))
		for _, f := range g.Answer() {
			if _, err := s.list.Graph().Ingest(f); err != nil {
				t.Fatal(err)
			}
		}
		return s.list.State().Role(bob.Identity) != RoleNone
	}
	live := func(s *Space) (n int) {
		for _, i := range s.Invitations() {
			if i.Open && !i.Revoked {
				n++
			}
		}
		return n
	}

	s := newSpaceOf(t, alice)
	s.SetClock(clock)
	terms := Terms{Role: RoleReader, Open: true, Expires: today.Add(time.Hour)}
	b, link := in(s, bob, terms)
	must(t, s.Remove(bob.Identity, nil, nil))
	if !opens(s, link) || live(s) != 1 {
		t.Fatal("an invitation that has not expired was ended")
	}
	now = now.Add(2 * time.Hour)
	if _, err := s.Rotate(nil); err != nil || opens(s, link) {
		t.Error("an invitation that has expired gets the new key", err)
	}
	pass(t, s, b)
	if wrote, err := s.Heal(nil); err != nil || !wrote || live(s) != 0 {
		t.Fatal("an invitation that has expired is live", wrote, err)
	}
	if wrote, err := s.Heal(nil); wrote || err != nil {
		t.Error("healed what was whole", err)
	}
	if opens(s, link) || comes(b, s, link) {
		t.Error("who was removed comes in by an invitation that has expired")
	}

	// An admin who removes ends what another one made, and by itself after a while.
	for _, removes := range []bool{true, false} {
		now = today
		s := newSpaceOf(t, alice)
		s.SetClock(clock)
		b, link := in(s, bob, terms)
		c, _ := in(s, carol, Terms{Role: RoleAdmin})
		now = today.Add(time.Hour)
		if wrote, err := c.Heal(nil); wrote || err != nil {
			t.Fatal("an admin ends at once what another may be about to", err)
		}
		if removes {
			must(t, c.Remove(bob.Identity, nil, nil))
		} else {
			now = now.Add(expiredLong)
			if wrote, err := c.Heal(nil); !wrote || err != nil {
				t.Error("nobody ends an invitation that has expired", wrote, err)
			}
			must(t, c.Remove(bob.Identity, nil, nil))
		}
		pass(t, c, b)
		pass(t, c, s)
		if live(s) != 0 || opens(c, link) || comes(b, s, link) {
			t.Error("who was removed comes in by an invitation that has expired")
		}
	}
}

// TestFindPerson: an account means that account, whatever others call themselves.
func TestFindPerson(t *testing.T) {
	bob, mallory := dag.PublicKey{1}, dag.PublicKey{2}
	accounts := []dag.PublicKey{mallory, bob}
	names := []string{FormatIdentity(bob), "Bob"}
	for _, who := range []string{FormatIdentity(bob), "Bob"} {
		if i, err := FindPerson(who, accounts, names); err != nil || i != 1 {
			t.Errorf("%s: %d, %v", who, i, err)
		}
	}
	for _, who := range []string{"Carol", "z6Mk"} {
		if _, err := FindPerson(who, accounts, names); !errors.Is(err, ErrNobody) {
			t.Errorf("%s: %v", who, err)
		}
	}
}

// TestWithheldByAWriter: a writer who begins an epoch, and wraps nothing to one member under that member's name, keeps it out only until an
// admin heals the space; and that ends.
func TestWithheldByAWriter(t *testing.T) {
	alice, bob, mallory := person(t, "alice"), person(t, "bob"), person(t, "mallory")
	s := newSpaceOf(t, alice)
	in := func(k *Keys, name string) *Space {
		link, err := s.Invite(Terms{Role: RoleWriter}, today, nil)
		must(t, err)
		g, err := NewGuest(k, link, name, nil)
		must(t, err)
		visit(t, s, g)
		must(t, s.Approve(s.Requests()[0].ID, RoleNone, today, nil))
		visit(t, s, g)
		return enter(t, k, g)
	}
	b, m := in(bob, "Bob"), in(mallory, "Mallory")
	pass(t, s, b)
	if wrote, err := s.Heal(nil); wrote || err != nil {
		t.Fatal("healed what was whole", wrote, err)
	}
	k, err := m.nextEpoch(dag.PublicKey{}, dag.ID{}, nil)
	must(t, err)
	for i := range k.Wraps {
		if to := k.Wraps[i].To; to == bob.Identity || to == bob.Device.PublicKey() {
			k.Wraps[i].Sealed = make([]byte, len(k.Wraps[i].Sealed))
		}
	}
	if _, err := m.write(&list.Record{Kind: list.KindRotateKey, Must: true, RotateKey: k}); err != nil {
		t.Fatal(err)
	}
	pass(t, m, s)
	pass(t, m, b)
	if b.Epoch() == s.Epoch() {
		t.Fatal("the key was not withheld")
	}
	if wrote, err := m.Heal(nil); wrote || err != nil {
		t.Fatal("a writer heals what writers did", wrote, err)
	}
	if wrote, err := s.Heal(nil); !wrote || err != nil {
		t.Fatal(wrote, err)
	}
	pass(t, s, b)
	if b.Epoch() != s.Epoch() || b.Epoch().IsZero() {
		t.Error("the member is kept out")
	}
	if wrote, err := s.Heal(nil); wrote || err != nil {
		t.Error("healed what was whole", wrote, err)
	}
}
