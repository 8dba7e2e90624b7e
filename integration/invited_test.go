package integration

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestExpiredWhileWaiting: who asked in time is let in after the invitation has expired, also where its device was off meanwhile and other records came
// first; whose answer came while it was off is told that the request waits no more; and who comes with the link later gets nothing.
func TestExpiredWhileWaiting(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSharing(t, 4)
	alice, bob, carol, dave := s.All[0], s.All[1], s.All[2], s.All[3]
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/a", "a")
	link := strings.TrimSpace(alice.Must("invite", "Team", "--expires", "30s"))
	expired := time.Now().Add(30 * time.Second)
	s.join(alice, bob, "Team", link, "Team", "Bob")
	s.join(alice, carol, "Team", link, "Team", "Carol")
	carol.Unmount()
	if time.Now().After(expired) {
		t.Fatal("nobody asked in time")
	}
	time.Sleep(time.Until(expired) + time.Second)
	type inv struct{ ID, State string }
	if is := fromJSON[[]inv](alice, "invites", "Team"); len(is) != 1 || is[0].State != "expired" {
		t.Fatalf("%+v", is)
	}
	alice.Must("invite", "Team") // another record comes to who waits
	bob.Remount()                // and asks again who it is that asks
	if qs := fromJSON[[]requestOf](alice, "requests", "Team"); len(qs) != 2 {
		t.Fatalf("%+v", qs)
	}
	if r := dave.Run("join", link, "--wait"); r.Code != 1 || !strings.Contains(r.Stderr, "expired") {
		t.Errorf("an invitation that has expired: %+v", r)
	}
	if r := alice.Run("approve", "Team", "Bob"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	s.reads(bob, "Team/a", "a")
	s.write(bob, "Team/bob", "bob")
	s.reads(alice, "Team/bob", "bob")

	alice.Must("decline", "Team", "Carol")
	carol.Mount("--no-discovery")
	began := time.Now()
	r := carol.Run("join", link, "--name", "Carol", "--wait")
	if r.Code != 1 || !strings.Contains(r.Stderr, "invitation") {
		t.Errorf("declined while it was off: %+v", r)
	}
	t.Logf("told after %v: %s", time.Since(began), r.Stderr)
}

// TestRefusedGuestHearsSoon: who is a member of another space of the device that a link names, and so connected to it, hears within seconds that the
// link is of no use.
func TestRefusedGuestHearsSoon(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSharing(t, 3)
	alice, bob := s.All[0], s.All[1]
	s.team()
	alice.Must("space", "create", "Other")
	link := strings.TrimSpace(alice.Must("invite", "Other"))
	type inv struct{ ID, State string }
	alice.Must("invite", "revoke", "Other", fromJSON[[]inv](alice, "invites", "Other")[0].ID)
	time.Sleep(10 * time.Second) // a device that was just mounted may be about to open its spaces
	began := time.Now()
	r := bob.Run("join", link, "--wait")
	took := time.Since(began)
	if r.Code != 1 || !strings.Contains(r.Stderr, "revoked") {
		t.Errorf("%+v", r)
	}
	if took > 12*time.Second {
		t.Errorf("told after %v", took)
	}
	t.Log(took)
	s.Eventually("no request is there", func() error {
		if qs := fromJSON[[]requestOf](alice, "requests", "Other"); len(qs) != 0 {
			return errors.New(fmt.Sprint(qs))
		}
		return nil
	})
}
