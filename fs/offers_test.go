package fs

import (
	"bytes"
	"crypto/rand"
	"errors"
	mrand "math/rand/v2"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/store"
)

// someone is the keys of another account.
func (th *testHome) someone() *acl.Keys {
	th.t.Helper()
	return must2(acl.InitKeys(disk.NewSim(mrand.New(mrand.NewPCG(3, 4))), must2(acl.NewAccount(rand.Reader)), "other", nil, rand.Reader))
}

// offered has another account begin a one-to-one space with a home, and the home find it; it reports whether that was new.
func (th *testHome) offered(by *acl.Keys, number uint64) (dag.ID, bool) {
	th.t.Helper()
	s := must2(acl.BeginOneToOne(by, &th.keys.Public, number, store.NewMem(), nil, rand.Reader))
	var frames [][]byte
	th.must(s.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
	found := must2(th.FoundOneToOne(&by.Public, s.ID(), frames))
	return s.ID(), found
}

func (th *testHome) wantOffers(when string, want ...dag.PublicKey) {
	th.t.Helper()
	got := must2(th.Offers())
	if len(got) != len(want) {
		th.t.Fatalf("%s: %d offers, not %d", when, len(got), len(want))
	}
	for i := range want {
		if got[i].Other.Identity != want[i] || got[i].Time.IsZero() {
			th.t.Fatalf("%s: offer %d is %+v", when, i, got[i])
		}
	}
}

// TestOffersAreKept: who offers a one-to-one space is known after a restart, also after one that was a kill; what was declined stays declined, and is not asked for, until it
// is taken after all.
func TestOffersAreKept(t *testing.T) {
	th := newTestHome(t)
	bob, eve := th.someone(), th.someone()
	of, found := th.offered(bob, 0)
	if !found {
		t.Fatal("it is not found")
	}
	th.tick(time.Second)
	if _, found := th.offered(eve, 0); !found {
		t.Fatal("the other is not found")
	}
	th.wantOffers("found", bob.Identity, eve.Identity)
	th.reopen()
	th.wantOffers("after a restart", bob.Identity, eve.Identity)
	// The list is looked at again, once: the other may have left it.
	if ids := must2(th.SeekOneToOne(&bob.Public)); len(ids) != 1 || ids[0] != of {
		t.Errorf("sought after a restart: %v", ids)
	}
	if _, found := th.offered(bob, 0); found {
		t.Error("what was known is new")
	}
	if ids := must2(th.SeekOneToOne(&bob.Public)); len(ids) != 0 {
		t.Errorf("sought again: %v", ids)
	}

	if err := th.DeclineOneToOne(th.someone().Identity); !errors.Is(err, ErrNotExist) {
		t.Error("what nobody offers is declined:", err)
	}
	th.must(th.DeclineOneToOne(eve.Identity))
	th.kill()
	th.wantOffers("after one was declined", bob.Identity)
	if ids := must2(th.SeekOneToOne(&eve.Public)); len(ids) != 0 {
		t.Errorf("what was declined is sought: %v", ids)
	}
	if _, found := th.offered(eve, 0); found {
		t.Error("what was declined is offered again")
	}
	th.wantOffers("after it was found again", bob.Identity)
	if err := th.DeclineOneToOne(eve.Identity); !errors.Is(err, ErrNotExist) {
		t.Error("it is declined twice:", err)
	}

	// Taken, the one that was declined and the one that was not.
	for name, by := range map[string]*acl.Keys{"Bob": bob, "Eve": eve} {
		i := must2(th.OneToOne(name, &by.Public))
		if id := must2(acl.OneToOneID(by, &th.keys.Public, 0)); i.ID != id.String() {
			t.Errorf("with %s it is %s, not %s", name, i.ID, id)
		}
	}
	th.wantOffers("after they were taken")
	th.reopen()
	th.wantOffers("after they were taken, and a restart")
	if len(th.two.declined) > 0 || len(th.two.offers) > 0 {
		t.Error("what was taken is remembered as offered or declined")
	}
}

// TestOffersDamaged: a file that does not read keeps nothing shut, is named by verify, and is written anew; one that can't be read now is not written over.
func TestOffersDamaged(t *testing.T) {
	th := newTestHome(t)
	bob, eve := th.someone(), th.someone()
	th.offered(bob, 0)
	b := must2(th.sim.ReadFile(offersFile))
	b[len(b)/2] ^= 1
	th.must(th.sim.WriteFileAtomic(offersFile, b))
	th.reopen()
	th.wantOffers("damaged")
	v := must2(th.Verify(t.Context(), nil))
	if len(v.Problems) != 1 || v.Problems[0].Where != offersFile {
		t.Errorf("verify: %+v", v.Problems)
	}
	th.offered(eve, 0)
	th.wantOffers("anew", eve.Identity)
	th.reopen()
	th.wantOffers("anew, and a restart", eve.Identity)
	if v := must2(th.Verify(t.Context(), nil)); len(v.Problems) > 0 {
		t.Errorf("verify: %+v", v.Problems)
	}
}
