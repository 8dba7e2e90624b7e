package acl

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// two are keys of two accounts that know nothing of each other but their public keys.
func two(t testing.TB) (ann, bob *Keys) {
	t.Helper()
	other, err := NewAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	return newKeys(t, testAccount(t), "ann's laptop"), newKeys(t, other, "bob's laptop")
}

func begin(t testing.TB, k, with *Keys, number uint64) *Space {
	t.Helper()
	s, err := BeginOneToOne(k, &with.Public, number, store.NewMem(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOneToOne(t *testing.T) {
	ann, bob := two(t)
	a, b := begin(t, ann, bob, 0), begin(t, bob, ann, 0)
	if a.ID() != b.ID() {
		t.Fatal("they came to two spaces")
	}
	if begin(t, ann, bob, 1).ID() == a.ID() {
		t.Error("the second space of the two is the first")
	}
	if a.Epoch() == a.ID() || a.Epoch().IsZero() || a.Writable() != nil || b.Epoch() == b.ID() {
		t.Fatal("what is written first is sealed under the agreed key")
	}
	blocks := [2][]byte{}
	for i, s := range []*Space{a, b} {
		var err error
		if blocks[i], err = s.Keys().SealChunk(nil, []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	bring(t, a, b)
	bring(t, b, a)
	same(t, a, b)
	if a.Epoch() != b.Epoch() {
		t.Error("they seal in two epochs")
	}
	for _, s := range []*Space{a, b} {
		for i := range blocks {
			if _, err := s.Keys().OpenChunk(nil, blocks[i]); err != nil {
				t.Errorf("what %d wrote before they met: %v", i, err)
			}
		}
		if s.Role() != RoleOwner || len(s.Members()) != 2 || s.Alone() || s.OneToOne() == nil {
			t.Error("members")
		}
		if name, ok := s.DeviceName(bob.Device.PublicKey()); !ok || name != "bob's laptop" {
			t.Errorf("the other's device is called %q", name)
		}
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
	}
	for what, err := range map[string]error{
		"a removal": a.Remove(bob.Identity, nil, nil), "a demotion": a.ChangeRole(bob.Identity, RoleReader, nil), "a transfer": a.Transfer(bob.Identity),
		"an invitation": second(a.Invite(Terms{Role: RoleWriter}, today, nil)),
	} {
		if !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Another device of one of them, which has but the phrase and the list.
	var all [][]byte = frames(t, a)
	ann2 := newKeys(t, testAccount(t), "ann's phone")
	c, err := ImportSpace(ann2, a.ID(), store.NewMem(), func(yield func([]byte) error) error {
		for _, f := range all {
			if err := yield(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || c.Writable() != nil {
		t.Fatal(err, c.Writable())
	}
	if _, err := c.Keys().OpenChunk(nil, blocks[1]); err != nil {
		t.Error(err)
	}
	// One that was paired by a code gets in by another one.
	paired := newKeys(t, testAccount(t), "ann's tablet")
	paired.Account = nil
	if _, err := BeginOneToOne(paired, &bob.Public, 0, store.NewMem(), nil, nil); !errors.Is(err, ErrNoSecret) {
		t.Errorf("without the secret: %v", err)
	}
	if ok, err := a.AdmitDevice(paired.Device.Certificate, "ann's tablet", nil); !ok || err != nil {
		t.Fatal(ok, err)
	}
	all = frames(t, a)
	d, err := ImportSpace(paired, a.ID(), store.NewMem(), func(yield func([]byte) error) error {
		for _, f := range all {
			if err := yield(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || d.Writable() != nil {
		t.Fatal(err, d.Writable())
	}
	// One leaves: what the other writes from then on is not for it.
	bring(t, a, b)
	if err := b.Leave(nil); err != nil {
		t.Fatal(err)
	}
	bring(t, b, a)
	if !a.Alone() || a.Epoch() != (dag.ID{}) || a.Ready(nil) != nil {
		t.Fatal("who stayed can't go on")
	}
	bring(t, a, b)
	if b.Keys().Has(a.Epoch()) || b.Role() != RoleNone {
		t.Error("who left has the next key")
	}
	if _, err := BeginOneToOne(bob, &ann.Public, 0, storeOf(t, b), nil, nil); !errors.Is(err, ErrDenied) {
		t.Errorf("who left came back: %v", err)
	}
}

// storeOf is a store with all that a space holds.
func storeOf(t testing.TB, s *Space) dag.Store {
	t.Helper()
	st := store.NewMem()
	l, err := list.Open(s.ID(), st)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames(t, s) {
		if err := l.Import(f); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

func second(_ *Link, err error) error { return err }

// TestOneToOneForged: what one of the two makes by another key than the agreed one is not taken by the other, and a third can make none.
func TestOneToOneForged(t *testing.T) {
	ann, bob := two(t)
	eve, err := NewAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	root, key, err := ann.Account.oneToOne(&bob.Public, 0)
	if err != nil {
		t.Fatal(err)
	}
	forged := *root
	forged.Seed = [32]byte(eve.Identity())
	forged.Sign(eve.identity)
	if forged.Verify() != nil {
		t.Fatal("the forgery is none: it is signed by the key that it names")
	}
	s, err := bringIn(ann, forged.ID(), forged.Encode(), key, store.NewMem(), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ImportSpace(bob, forged.ID(), store.NewMem(), func(yield func([]byte) error) error {
		return errors.Join(slices.Collect(func(to func(error) bool) {
			for _, f := range frames(t, s) {
				to(yield(f))
			}
		})...)
	})
	if !errors.Is(err, ErrDenied) {
		t.Errorf("a space of two that one of them made up: %v", err)
	}
	third := newKeys(t, eve, "eve's")
	if _, err := bringIn(third, root.ID(), root.Encode(), key, store.NewMem(), nil); !errors.Is(err, ErrDenied) {
		t.Errorf("a third began the space of two: %v", err)
	}
	weak := bob.Public
	weak.X25519 = [32]byte{}
	weak.Sign(bob.Account.identity)
	if _, _, err := ann.Account.oneToOne(&weak, 0); err == nil {
		t.Error("agreed with a key that gives zeros")
	}
	swapped := bob.Public
	swapped.X25519 = eve.public.X25519
	if _, _, err := ann.Account.oneToOne(&swapped, 0); !errors.Is(err, list.ErrSignature) {
		t.Errorf("another's key under an account's name: %v", err)
	}
	if _, _, err := ann.Account.oneToOne(&ann.Public, 0); !errors.Is(err, ErrDenied) {
		t.Errorf("with itself: %v", err)
	}
}

func TestCard(t *testing.T) {
	ann, _ := two(t)
	card := FormatCard(&ann.Public)
	back, err := ParseCard(" " + card + "\n")
	if err != nil || back.Identity != ann.Identity || !LikeCard(card) {
		t.Fatal(err)
	}
	for _, bad := range []string{"", cardPrefix, card[:len(card)-1], card + "A", strings.Replace(card, "A", "B", 1), "anyfs:x" + card, card[:40] + "+" + card[41:]} {
		if _, err := ParseCard(bad); !errors.Is(err, ErrCard) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}
