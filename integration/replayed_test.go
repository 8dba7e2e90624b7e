package integration

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRevokedWhereUnheard: an open invitation is revoked on a device that is cut off, and then used at another admin's, who has not heard of that and lets the guest in.
// Once the two meet again the guest is no member with anybody, its own mount says so, and of what is written from then on it reads nothing, neither as a file nor
// from whom it knows; by the same link it is not let in again, wherever it asks.
func TestRevokedWhereUnheard(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSharing(t, 4)
	alice, bob, carol, guest := s.All[0], s.All[1], s.All[2], s.All[3]
	s.team()
	s.Connect(bob, carol)
	alice.Must("role", "Team", "Bob", "admin")
	s.role(bob, "Team", "admin")
	link := strings.TrimSpace(bob.Must("invite", "Team", "--open", "--role", "writer"))
	type inv struct{ ID, State string }
	var id string
	s.Eventually("alice hears of the invitation", func() error {
		for _, i := range fromJSON[[]inv](alice, "invites", "Team") {
			if i.State == "live" && i.ID == openOf(bob) {
				id = i.ID
				return nil
			}
		}
		return errors.New("none")
	})

	alice.Must("pause")
	alice.Must("invite", "revoke", "Team", id)
	guest.Must("join", link, "--wait", "--name", "Guest")
	s.reads(guest, "Team/a", "a")
	s.write(guest, "Team/guest", "by the guest")
	s.reads(bob, "Team/guest", "by the guest")
	s.reads(carol, "Team/guest", "by the guest")
	for _, h := range []*Home{bob, carol} {
		if n := len(fromJSON[[]memberOf](h, "members", "Team")); n != 4 {
			t.Fatalf("%d members: nothing was tried", n)
		}
	}

	alice.Must("resume")
	for _, h := range []*Home{alice, bob, carol} {
		s.Eventually("the guest is no member", func() error {
			if ms := fromJSON[[]memberOf](h, "members", "Team"); len(ms) != 3 {
				return fmt.Errorf("%+v", ms)
			}
			return nil
		})
	}
	s.role(guest, "Team", "none")
	s.write(alice, "Team/later", "by alice, later")
	s.write(bob, "Team/a", "a by bob, later")
	for _, h := range []*Home{alice, bob, carol} {
		s.reads(h, "Team/later", "by alice, later")
		s.reads(h, "Team/a", "a by bob, later")
	}
	s.write(carol, "Team/last", "by carol")
	s.reads(alice, "Team/last", "by carol")

	for name, again := range map[string]string{"bob": link, "alice": leadingTo(t, link, strings.TrimSpace(alice.Must("invite", "Team")))} {
		if r := guest.Run("join", again, "--wait", "--as", "Again by "+name); r.Code == 0 || !strings.Contains(r.Stderr, "invitation") {
			t.Errorf("at %s: %+v", name, r)
		}
	}
	time.Sleep(time.Second) // what the guest was to get would have come
	for path, want := range map[string]string{"Team/a": "a", "Team/guest": "by the guest"} {
		if b, err := os.ReadFile(filepath.Join(guest.Mnt, path)); err != nil || string(b) != want {
			t.Errorf("the guest's %s: %q, %v", path, b, err)
		}
	}
	for _, path := range []string{"Team/later", "Team/last"} {
		s.absent(guest, path)
	}
	for _, h := range []*Home{alice, bob, carol} {
		s.absent(h, "Team/guest")
		h.Must("verify")
	}
	guest.Must("verify")
}

// openOf is the newest open invitation that is live.
func openOf(h *Home) string {
	type inv struct {
		ID, State string
		Open      bool
	}
	id := ""
	for _, i := range fromJSON[[]inv](h, "invites", "Team") {
		if i.Open && i.State == "live" {
			id = i.ID
		}
	}
	return id
}

// leadingTo is an invitation with the addresses of another one.
func leadingTo(t *testing.T, link, other string) string {
	t.Helper()
	a, err := url.Parse(link)
	check(t, err)
	b, err := url.Parse(other)
	check(t, err)
	q := a.Query()
	if q["at"] = b.Query()["at"]; len(q["at"]) == 0 {
		t.Fatalf("%s names no address", other)
	}
	a.RawQuery = q.Encode()
	return a.String()
}
