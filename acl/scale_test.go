package acl

import (
	"os"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl/seal"
)

// TestMany: a space of many is healed, removed from, shared and loaded at a cost that grows with it as a whole, and in records that fit. 150 members,
// with ANYFS_LONG 10,000.
func TestMany(t *testing.T) {
	n := 150
	if os.Getenv("ANYFS_LONG") != "" {
		n = 10_000
	}
	at := time.Now()
	lap := func(what string) { t.Logf("%-28s %v", what, time.Since(at).Round(time.Microsecond)); at = time.Now() }
	alice := person(t, "alice")
	s, all := crowd(t, alice, n)
	lap("joined and healed")
	for range n/100 + 1 { // what crowd has no patience for
		if wrote, err := s.Heal(nil); err != nil {
			t.Fatal(err)
		} else if !wrote {
			break
		}
	}
	lap("healed")
	for i := range 3 {
		must(t, s.Remove(all[i].Identity, nil, nil))
		lap("removed one")
		rec, size := lastRecord(t, s)
		if most := (n+1)*seal.AgreedWrapBytes + n*44/256 + 4096; len(rec.Remove.Next.Wraps) > 0 || size > most {
			t.Errorf("a removal takes %d bytes and %d wraps by HPKE, want at most %d and 0", size, len(rec.Remove.Next.Wraps), most)
		}
		at = time.Now()
	}
	if got := len(s.People()); got != n+1-3 {
		t.Errorf("%d members", got)
	}
	lap("people")
	link, err := s.Invite(Terms{Role: RoleReader}, today, nil)
	must(t, err)
	carol := person(t, "carol")
	g, err := NewGuest(carol, link, "Carol", nil)
	must(t, err)
	visit(t, s, g)
	lap("a guest came and asked")
	must(t, s.Approve(s.Requests()[0].ID, 0, today, nil))
	lap("let in")
	r := replica(t, carol, s)
	lap("all judged by a new device")
	if r.Role() != RoleReader || r.Epoch() != s.Epoch() {
		t.Error("who was let in has no key")
	}
	if r := replica(t, all[n-1], s); r.Epoch() != s.Epoch() {
		t.Error("a member has no key")
	}
	if r := replica(t, all[0], s); r.keys.Has(s.Epoch()) {
		t.Error("who was removed has the key")
	}

	// One who has agreed with nobody begins an epoch; who has heals it.
	at = time.Now()
	bob := replica(t, all[n-2], s)
	_, err = bob.Rotate(nil)
	must(t, err)
	at = time.Now()
	pass(t, bob, s)
	lap("another's epoch comes")
	wrote, err := s.Heal(nil)
	must(t, err)
	lap("healed")
	if _, size := lastRecord(t, s); !wrote || size > (n+1)*seal.AgreedWrapBytes+n*44/256+8192+4*(seal.WrapBytes+40) {
		t.Errorf("healing takes %d bytes", size)
	}
}
