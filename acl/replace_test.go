package acl

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// TestSuccession: a new account takes an old one's place in a space of its own and in Personal, opens all that is there, and nothing of what is written later is the old one's.
func TestSuccession(t *testing.T) {
	d := newDisk()
	k, err := InitKeys(d, testAccount(t), "laptop", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	by, err := MakeSuccessor(d, k, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := MakeSuccessor(d, k, nil); err != nil || again.Account.Identity() != by.Account.Identity() || again.Device.PublicKey() != by.Device.PublicKey() {
		t.Fatal("another one the second time", err)
	}
	var secrets []SpaceSecret
	var stores []*store.Mem
	var ids []dag.ID
	var blocks [][]byte
	for _, derived := range []bool{false, true} {
		st := store.NewMem()
		var s *Space
		if derived {
			s = derive(t, k, LabelPersonal, st)
		} else if s, err = CreateSpace(k, st, nil); err != nil {
			t.Fatal(err)
		}
		block, err := s.Keys().SealChunk(nil, []byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it is done
			if s.Role() != RoleNone {
				id, err := s.AskReplaced(by, "Ann", today, nil)
				if err == nil {
					err = s.GiveWay(by, id, nil, today, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		secret, err := s.Secret("")
		if err != nil {
			t.Fatal(err)
		}
		secrets, stores, ids, blocks = append(secrets, secret), append(stores, st), append(ids, s.ID()), append(blocks, block)
	}
	n, err := Succeed(d, k, by, secrets, nil)
	if err == nil {
		n, err = OpenKeys(d, nil)
	}
	if err != nil || n.Identity != by.Account.Identity() || n.Account == nil || n.Device.PublicKey() == k.Device.PublicKey() || len(n.Spaces) != 3 {
		t.Fatal(err)
	}
	for i, id := range ids {
		s, err := OpenSpace(n, id, stores[i])
		if err != nil {
			t.Fatal(err)
		}
		if s.Role() != RoleOwner || len(s.Members()) != 1 {
			t.Fatalf("it is %s of %d", s.Role(), len(s.Members()))
		}
		if _, err := s.Keys().OpenChunk(nil, blocks[i]); err != nil {
			t.Error(err)
		}
		if p := s.People()[0]; p.Name != "Ann" || p.Unnamed {
			t.Errorf("it is called %q", p.Name)
		}
		if err := s.Ready(nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
		old, err := OpenSpace(k, id, stores[i])
		if err != nil {
			t.Fatal(err)
		}
		if old.Role() != RoleNone || old.Keys().Has(s.Epoch()) {
			t.Error("the old account has the new key")
		}
	}
	if err := EndSuccession(d); err != nil {
		t.Fatal(err)
	}
	if s, err := ReadSuccessor(d, n); s != nil || err != nil {
		t.Error(s, err)
	}
}

// A home whose succession failed anywhere, and crashed, is one of the old account or of the new one; then it goes on.
func TestSuccessionSurvivesFailures(t *testing.T) {
	landed, old, whole := 0, 0, 0
	for at := int64(1); ; at++ {
		d := newDisk()
		k, err := InitKeys(d, testAccount(t), "laptop", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		home, err := derive(t, k, LabelHome, store.NewMem()).Secret(LabelHome)
		if err != nil {
			t.Fatal(err)
		}
		before := d.Landed()
		d.FailFrom(at, errors.New("power loss"))
		by, err := MakeSuccessor(d, k, nil)
		if err == nil {
			_, err = Succeed(d, k, by, []SpaceSecret{home}, nil)
		}
		done := d.Landed() == before
		d.FailAt(0, nil)
		after := d.CrashClone(rand.New(rand.NewPCG(uint64(at), 3)))
		again, oerr := OpenKeys(after, nil)
		if oerr != nil {
			t.Fatalf("failure %d (%v): %v", at, err, oerr)
		}
		if again.Identity == k.Identity {
			old++
		} else if by == nil || again.Identity != by.Account.Identity() {
			t.Fatalf("failure %d: of a third account", at)
		}
		want := home.ID
		if again.Identity != k.Identity {
			want = DeriveSpaceID(by.Account, LabelHome)
		}
		if id, err := DerivedID(again, LabelHome); err != nil || id != want {
			t.Fatalf("failure %d: the home space can't be opened: %v", at, err)
		}
		next, err := MakeSuccessor(after, again, nil)
		if err != nil {
			t.Fatalf("failure %d: going on: %v", at, err)
		}
		if again.Identity != k.Identity && next.Account.Identity() != again.Identity {
			t.Fatalf("failure %d: the new account begins to be replaced", at)
		}
		if _, err := Succeed(after, again, next, []SpaceSecret{home}, nil); err != nil {
			t.Fatalf("failure %d: going on: %v", at, err)
		}
		if end, err := OpenKeys(after, nil); err != nil || end.Account == nil || end.Identity != next.Account.Identity() {
			t.Fatalf("failure %d: in the end: %v", at, err)
		}
		if done {
			break
		}
		if again.Identity != k.Identity {
			whole++
		}
		landed++
	}
	if landed < 10 || old < 5 || whole == 0 {
		t.Fatalf("%d faults landed, %d before the keys changed and %d after", landed, old, whole)
	}
}
