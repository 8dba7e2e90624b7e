package integration

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// TestLetInWhileAway: whose answer came while it was off finds the space when it is back, though the invitation was revoked meanwhile; and a name that no space can
// have, or a disk that does not take the space, uses up no invitation.
func TestLetInWhileAway(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSharing(t, 2)
	alice, bob := s.All[0], s.All[1]
	alice.Must("space", "create", "Team")
	alice.Must("space", "create", "Open")
	s.write(alice, "Team/a", "a")
	s.write(alice, "Open/b", "b")

	once := strings.TrimSpace(alice.Must("invite", "Open", "--open", "--uses", "1"))
	for _, name := range []string{"O/pen", "..", ".anyfs", strings.Repeat("x", 256)} {
		if r := bob.Run("join", once, "--as", name); r.Code != 2 {
			t.Errorf("as %s: %+v", name, r)
		}
	}
	if ms := fromJSON[[]memberOf](alice, "members", "Open"); len(ms) != 1 {
		t.Fatalf("the invitation is used up: %+v", ms)
	}
	// Who invites says what the space is called, and what lies in the way of its folder fails it for a while.
	named := once[:strings.LastIndexByte(once, '.')+1] + base64.RawURLEncoding.EncodeToString([]byte("../O"))
	inTheWay := filepath.Join(bob.Dir, "spaces", "0002")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := bob.Run("join", named); r.Code != 1 || !strings.Contains(r.Stderr, "you are in") {
		t.Errorf("a space that can't be made: %+v", r)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	s.reads(bob, "Shared/b", "b")

	link := strings.TrimSpace(alice.Must("invite", "Team"))
	s.join(alice, bob, "Team", link, "Team", "Bob")
	var again struct{ Name, State string }
	if again = fromJSON[struct{ Name, State string }](bob, "join", link, "--as", "Other"); again.Name != "Team" || again.State != "asked" {
		t.Errorf("asked again: %+v", again)
	}
	bob.Unmount()
	alice.Must("approve", "Team", "Bob")
	type inv struct{ ID string }
	alice.Must("invite", "revoke", "Team", fromJSON[[]inv](alice, "invites", "Team")[0].ID)
	bob.Mount("--no-discovery")
	s.reads(bob, "Team/a", "a")
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
