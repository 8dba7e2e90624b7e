package acl

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// crowd is a space of an owner and n others, who joined by one open invitation, each without having heard of the others.
func crowd(t testing.TB, owner *Keys, n int) (*Space, []*Keys) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := CreateSpace(owner, store.NewMem(), nil)
	check(err)
	link, err := s.Invite(Terms{Role: RoleWriter, Open: true}, today, nil)
	check(err)
	var frames [][]byte
	check(s.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
	var all []*Keys
	for i := range n {
		k := newKeys(t, mustAccount(t), fmt.Sprint("device ", i))
		g, err := NewGuest(k, link, fmt.Sprint("member ", i), nil)
		check(err)
		check(g.Take(frames, true, today))
		for _, f := range g.Answer() {
			_, err := s.list.Graph().Ingest(f)
			check(err)
		}
		all = append(all, k)
	}
	for _, i := range s.Invitations() {
		check(s.RevokeInvite(i.ID, nil))
	}
	for range 20 {
		if wrote, err := s.Heal(nil); err != nil {
			t.Fatal(err)
		} else if !wrote {
			break
		}
	}
	return s, all
}

// replica is a space as another member has it.
func replica(t testing.TB, k *Keys, of *Space) *Space {
	t.Helper()
	s, err := ImportSpace(k, of.ID(), store.NewMem(), func(yield func([]byte) error) error { return of.Export(yield) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// last is the record that was written last.
func lastRecord(t testing.TB, s *Space) (rec *list.Record, size int) {
	t.Helper()
	var frame []byte
	if err := s.Export(func(f []byte) error { frame = bytes.Clone(f); return nil }); err != nil {
		t.Fatal(err)
	}
	_, bodies, err := dag.DecodeFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	c, err := dag.DecodeChange(bodies[0])
	if err != nil {
		t.Fatal(err)
	}
	if rec, err = list.DecodeRecord(c.Payload); err != nil {
		t.Fatal(err)
	}
	return rec, len(frame)
}

// TestAgreedKeys: in a space of many a removal has no HPKE wraps, each that stays has the new key, with its device and with its phrase alone,
// and who goes has not; who got another device since, or whose wrap is not to be opened, gets it otherwise.
func TestAgreedKeys(t *testing.T) {
	alice := person(t, "alice")
	s, all := crowd(t, alice, agreeFrom+4)
	gone, stays, renewed := all[0], all[1], all[2]

	// renewed has a second device since the keys were agreed on.
	theirs := replica(t, renewed, s)
	second := newKeys(t, renewed.Account, "second")
	seconds := replica(t, second, theirs)
	must(t, seconds.AddDevice(nil))
	pass(t, seconds, s)

	must(t, s.Remove(gone.Identity, nil, nil))
	rec, size := lastRecord(t, s)
	if n := len(rec.Remove.Next.Wraps); n != 3 {
		t.Errorf("%d HPKE wraps, want 3 to the account with another device and its devices", n)
	}
	if want := 3*(seal.WrapBytes+64) + (len(all)+2)*seal.AgreedWrapBytes + 2048; size > want {
		t.Errorf("the removal takes %d bytes, want at most %d", size, want)
	}
	for _, k := range []*Keys{alice, stays, renewed, second, newKeys(t, stays.Account, "by the phrase"), {Device: stays.Device, Public: stays.Public, Identity: stays.Identity}} {
		if r := replica(t, k, s); !r.keys.Has(s.Epoch()) || r.Epoch() != s.Epoch() {
			t.Errorf("%s lacks the key", k.Device.Name)
		}
	}
	for _, k := range []*Keys{gone, newKeys(t, gone.Account, "another of who is gone")} {
		if r := replica(t, k, s); r.keys.Has(s.Epoch()) {
			t.Error("who was removed has the key")
		}
	}
	if wrote, err := s.Heal(nil); wrote || err != nil {
		t.Error("healed what was whole", err)
	}

	// Who is removed and comes again with the same device had a key that was agreed on: it opens nothing from between.
	between := s.Epoch()
	must(t, s.Remove(all[3].Identity, nil, nil))
	link, err := s.Invite(Terms{Role: RoleReader}, today, nil)
	must(t, err)
	g, err := NewGuest(gone, link, "again", nil)
	must(t, err)
	visit(t, s, g)
	if r := replica(t, gone, s); r.keys.Has(between) || r.keys.Has(s.Epoch()) {
		t.Error("a guest has a key")
	}
}

// TestAgreedSlots: a record's wraps are those of the members whose bits are set.
func TestAgreedSlots(t *testing.T) {
	alice := person(t, "alice")
	s, _ := crowd(t, alice, agreeFrom+10)
	must(t, s.Remove(s.People()[3].Account, nil, nil))
	st := s.list.State()
	epochs := st.Epochs()
	e := &epochs[len(epochs)-1]
	var to []dag.PublicKey
	st.AgreedTo(e, func(who, by dag.PublicKey) {
		if to = append(to, who); by != alice.Identity {
			t.Error("by another")
		}
	})
	if len(to) != 2*len(st.Members()) {
		t.Errorf("%d recipients of %d members", len(to), len(st.Members()))
	}
	for _, m := range st.Members() {
		got := st.AgreedFor(e, m.Account)
		if len(got) != 1 || !slices.Contains(to, m.Account) {
			t.Fatalf("%d wraps for a member", len(got))
		}
		key := s.agreedKey(got[0].By.Salt, m.Account)
		if k, err := seal.UnwrapAgreed(key, agreedInfo(s.ID(), e.Commitment), got[0].Wrap); err != nil || !s.matches(e, k) {
			t.Fatal(err)
		}
	}
}

// TestMoreThanARecordHolds: where nobody agreed on keys, a removal wraps to as many as its record holds, and the rest are healed.
func TestMoreThanARecordHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("makes some hundred accounts")
	}
	alice := person(t, "alice")
	s, all := crowd(t, alice, maxWraps/2+20)
	bob := replica(t, all[0], s)
	must(t, s.ChangeRole(all[0].Identity, RoleAdmin, nil))
	pass(t, s, bob)
	must(t, bob.Remove(all[1].Identity, nil, nil)) // on a device that has agreed with nobody
	if rec, _ := lastRecord(t, bob); len(rec.Remove.Next.Wraps) != maxWraps {
		t.Errorf("%d wraps", len(rec.Remove.Next.Wraps))
	}
	if wrote, err := bob.Heal(nil); !wrote || err != nil {
		t.Fatal("not healed", err)
	}
	st := bob.list.State()
	epochs := st.Epochs()
	e := &epochs[len(epochs)-1]
	if len(e.Wraps) != 2*len(st.Members()) {
		t.Errorf("%d wraps for %d members", len(e.Wraps), len(st.Members()))
	}
	for _, k := range all[2:] {
		if _, ok := (&Space{list: bob.list, k: k, keys: seal.NewSpace(bob.ID())}).find(st, e); !ok {
			t.Fatal("a member lacks the key")
		}
	}
}

// BenchmarkRemove1000 is a removal of one of 1,000 members; bytes are those of its frame.
func BenchmarkRemove1000(b *testing.B) {
	s, all := crowd(b, newKeys(b, mustAccount(b), "laptop"), 1000)
	size := 0
	for b.Loop() {
		if err := s.Remove(all[0].Identity, nil, nil); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_, size = lastRecord(b, s)
		all = all[1:]
		b.StartTimer()
	}
	b.ReportMetric(float64(size), "bytes")
}

// TestSharedByAgreedKeys: an epoch that another began is shared by who has agreed on keys with the members under these, so that it takes as much as one
// of its own; also where the other kept it from all.
func TestSharedByAgreedKeys(t *testing.T) {
	alice := person(t, "alice")
	s, all := crowd(t, alice, agreeFrom+4)
	bob := replica(t, all[0], s)
	rec, err := bob.nextEpoch(dag.PublicKey{}, dag.ID{}, nil)
	must(t, err)
	rec.Wraps = slices.DeleteFunc(rec.Wraps, func(w list.Wrap) bool { return w.To != alice.Identity && w.To != alice.Device.PublicKey() })
	epoch, err := bob.write(&list.Record{Kind: list.KindRotateKey, RotateKey: rec})
	must(t, err)
	pass(t, bob, s)
	if s.Epoch() != epoch {
		t.Fatal("not the epoch to seal in")
	}
	if wrote, err := s.Heal(nil); !wrote || err != nil {
		t.Fatal("not healed", err)
	}
	shared, size := lastRecord(t, s)
	if shared.ShareKey == nil || len(shared.ShareKey.Wraps) > 0 || size > 2048+(len(all)+1)*seal.AgreedWrapBytes {
		t.Errorf("%d bytes, kind %d", size, shared.Kind)
	}
	for _, k := range all[1:] {
		if r := replica(t, k, s); r.Epoch() != epoch {
			t.Errorf("%s lacks the key", k.Device.Name)
		}
	}
	if r := replica(t, &Keys{Account: all[2].Account, Device: newKeys(t, all[2].Account, "new").Device, Public: all[2].Public, Identity: all[2].Identity}, s); !r.keys.Has(epoch) {
		t.Error("the phrase alone does not open it")
	}
	if wrote, err := s.Heal(nil); wrote || err != nil {
		t.Error("healed what was whole", err)
	}
}
