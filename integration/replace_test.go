package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type replaced struct {
	Phrase, Account, Replaced string
	Spaces                    []struct{ Space, State, Error string }
}

func (r replaced) how(space string) string {
	for _, s := range r.Spaces {
		if s.Space == space {
			return s.State
		}
	}
	return "missing"
}

// TestReplaceOwnAccount: the secret of an account may be known. One command puts a new one in its place: where it owns the space at once, elsewhere after its owner
// lets the new one in; who has the old secret alone gets nothing more.
func TestReplaceOwnAccount(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSharing(t, 3)
	alice, bob, carol := s.All[0], s.All[1], s.All[2]
	s.write(bob, "Personal/diary", "dear diary")
	bob.Must("space", "create", "Mine")
	s.write(bob, "Mine/notes", "notes")
	// Bob owns Club, in which Carol is, and is a writer in Alice's Team.
	bob.Must("space", "create", "Club")
	s.write(bob, "Club/a", "a")
	s.join(bob, carol, "Club", strings.TrimSpace(bob.Must("invite", "Club")), "Club", "Carol")
	bob.Must("approve", "Club", "Carol")
	s.reads(carol, "Club/a", "a")
	s.two(alice, bob)
	s.write(bob, "Team/bob", "by Bob")
	s.reads(alice, "Team/bob", "by Bob")
	bob.Must("space", "rename", "Mine", "Renamed")
	old := account(bob)
	bob.Must("status", "--wait", "--timeout", "30s")

	// The thief has the phrase: a device of his own, which has all that Bob had.
	thief := login(t, bob, "thief's")
	thief.Mount("--no-discovery")
	s.Connect(thief, bob)
	s.reads(thief, "Team/bob", "by Bob")
	s.reads(thief, "Club/a", "a")
	s.reads(thief, "Personal/diary", "dear diary")
	thief.Must("pause") // what he has not sent when he hears of it is another test's matter

	var r replaced
	text := bob.Must("account", "replace", "--yes", "--json")
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if r.Replaced != old || r.Account == old || len(strings.Fields(r.Phrase)) != 12 || r.Phrase == strings.TrimSpace(bob.Phrase) {
		t.Fatalf("%+v", r)
	}
	for space, want := range map[string]string{"Personal": "replaced", "Renamed": "replaced", "Club": "replaced", "Team": "asked"} {
		if got := r.how(space); got != want {
			t.Errorf("%s is %s, not %s", space, got, want)
		}
	}
	bob.Mount("--no-discovery")
	if account(bob) != r.Account || strings.TrimSpace(bob.Must("account", "phrase")) != r.Phrase {
		t.Error("the home is not the new account's")
	}
	for path, want := range map[string]string{"Personal (old)/diary": "dear diary", "Renamed/notes": "notes", "Club/a": "a", "Team/bob": "by Bob"} {
		s.reads(bob, path, want)
	}
	s.role(bob, "Club", "owner")
	s.role(bob, "Personal (old)", "owner")
	s.write(bob, "Personal (old)/diary", "new page")
	s.write(bob, "Personal/new", "new")
	s.write(bob, "Club/secret", "not for thieves")
	s.Connect(bob, carol)
	s.reads(carol, "Club/secret", "not for thieves")
	s.write(carol, "Club/carol", "by Carol")
	s.reads(bob, "Club/carol", "by Carol")
	s.Eventually("Club has two members", func() error {
		ms := fromJSON[[]memberOf](carol, "members", "Club")
		if len(ms) != 2 || ms[0].Account != r.Account || ms[0].Role != "owner" {
			return fmt.Errorf("%+v", ms)
		}
		return nil
	})

	// In Team it waits, and can be read; Alice sees who asks, and for whom.
	if got := fromJSON[[]struct{ Name, State string }](bob, "space", "list"); !stateIs(got, "Team", "asked") {
		t.Errorf("%+v", got)
	}
	s.Connect(alice, bob)
	s.Eventually("Alice is asked", func() error {
		for _, q := range fromJSON[[]struct{ Account, Replaces, Name, Role string }](alice, "requests", "Team") {
			if q.Account == r.Account && q.Replaces == old && q.Name == "Bob" && q.Role == "writer" {
				return nil
			}
		}
		return errors.New(alice.Run("requests", "Team").Stdout)
	})
	if res := alice.Run("approve", "Team", "Bob"); res.Code == 0 {
		t.Error("let in by a name that another account had")
	}
	if m := fromJSON[memberOf](alice, "approve", "Team", r.Account); m.Role != "writer" || m.Account != r.Account {
		t.Errorf("%+v", m)
	}
	s.role(bob, "Team", "writer")
	s.write(bob, "Team/bob", "by the new Bob")
	s.reads(alice, "Team/bob", "by the new Bob")
	s.write(alice, "Team/secret", "for the new Bob")
	s.reads(bob, "Team/secret", "for the new Bob")
	if ms := fromJSON[[]memberOf](alice, "members", "Team"); len(ms) != 2 {
		t.Errorf("%+v", ms)
	}

	// The thief comes back: he hears that he is out, and gets nothing.
	thief.Must("resume")
	for _, h := range []*Home{bob, carol, alice} {
		s.Connect(thief, h)
	}
	s.role(thief, "Team", "none")
	s.role(thief, "Club", "none")
	for _, path := range []string{"Team/secret", "Club/secret", "Club/carol"} {
		s.absent(thief, path)
	}
	s.reads(thief, "Personal/diary", "dear diary")
	for _, h := range []*Home{alice, bob, carol} {
		h.Must("verify")
	}

	// Another device of the new account.
	bob.Phrase = r.Phrase
	second := login(t, bob, "second")
	second.Mount("--no-discovery")
	s.Connect(second, bob)
	s.reads(second, "Club/secret", "not for thieves")
	s.reads(second, "Renamed/notes", "notes")
	s.reads(second, "Personal (old)/diary", "new page")
	s.reads(second, "Personal/new", "new")
	s.write(second, "Personal/second", "by the second")
	s.reads(bob, "Personal/second", "by the second")
}

func stateIs(all []struct{ Name, State string }, name, state string) bool {
	for _, x := range all {
		if x.Name == name {
			return x.State == state
		}
	}
	return false
}

// TestReplaceInterrupted: the command is killed at ever later moments and run again, and goes on: the home is always of one account, whole, and in the end of
// a new one, which owns all that the first one owned.
func TestReplaceInterrupted(t *testing.T) {
	s := newSharing(t, 1)
	h := s.All[0]
	s.write(h, "Personal/a", "a")
	h.Must("space", "create", "Work")
	s.write(h, "Work/b", "b")
	h.Must("space", "create", "Empty")
	h.Unmount()
	first := account(h)
	killed, seen := 0, map[string]bool{first: true}
	var r replaced
	for wait := 15 * time.Millisecond; ; wait += 9 * time.Millisecond {
		var out bytes.Buffer
		c := h.Command("account", "replace", "--yes", "--json")
		c.Stdout, c.Stderr = &out, os.Stderr
		check(t, c.Start())
		kill := time.AfterFunc(wait, func() { _ = c.Process.Kill() })
		err := c.Wait()
		kill.Stop()
		if err == nil {
			check(t, json.Unmarshal(out.Bytes(), &r))
			break
		}
		killed++
		seen[account(h)] = true
		if _, err := os.Stat(filepath.Join(h.Dir, "successor")); errors.Is(err, os.ErrNotExist) && account(h) != first {
			check(t, json.Unmarshal(out.Bytes(), &r)) // it was done, and had said so
			break
		}
	}
	if killed < 5 {
		t.Fatalf("it was killed %d times", killed)
	}
	t.Logf("killed %d times", killed)
	if len(seen) > 2 || account(h) != r.Account || r.Account == first || strings.TrimSpace(h.Must("account", "phrase")) != r.Phrase {
		t.Errorf("the home was of the accounts %v, and %s is said to be the new one", seen, r.Account)
	}
	if _, err := os.Stat(filepath.Join(h.Dir, "successor")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the successor is still awaited", err)
	}
	h.Mount("--no-discovery")
	s.reads(h, "Personal (old)/a", "a")
	s.write(h, "Work/b", "b 2")
	s.write(h, "Empty/c", "c")
	h.Must("status", "--wait", "--here")
	for _, space := range []string{"Personal", "Personal (old)", "Work", "Empty"} {
		if ms := fromJSON[[]memberOf](h, "members", space); len(ms) != 1 || ms[0].Account != r.Account || ms[0].Role != "owner" {
			t.Errorf("%s: %+v", space, ms)
		}
	}
	h.Must("verify")
}

// TestReplaceBoth: the thief and the owner both replace the account, apart. All come to the same: one of the two new accounts owns the space, the other is not in it.
func TestReplaceBoth(t *testing.T) {
	s := newSharing(t, 2)
	bob, carol := s.All[0], s.All[1]
	bob.Must("space", "create", "Club")
	s.write(bob, "Club/a", "a")
	s.join(bob, carol, "Club", strings.TrimSpace(bob.Must("invite", "Club")), "Club", "Carol")
	bob.Must("approve", "Club", "Carol")
	s.reads(carol, "Club/a", "a")
	thief := login(t, bob, "thief's")
	thief.Mount("--no-discovery")
	s.Connect(thief, bob)
	s.reads(thief, "Club/a", "a")
	bob.Unmount()
	thief.Unmount()
	var made [2]replaced
	for i, h := range []*Home{bob, thief} {
		check(t, json.Unmarshal([]byte(h.Must("account", "replace", "--yes", "--json")), &made[i]))
		if made[i].how("Club") != "replaced" {
			t.Fatalf("%+v", made[i])
		}
		h.Mount("--no-discovery")
		s.Connect(h, carol)
	}
	var winner, loser *Home
	s.Eventually("all three see one new owner, and the same", func() error {
		var roles [2]string
		for i, h := range []*Home{bob, thief} {
			roles[i] = h.Xattr(filepath.Join(h.Mnt, "Club"), "user.anyfs.role")
		}
		ms := fromJSON[[]memberOf](carol, "members", "Club")
		for i := range roles {
			if roles[i] == "owner" && roles[1-i] == "none" && len(ms) == 2 && ms[0].Role == "owner" && ms[0].Account == made[i].Account {
				winner, loser = []*Home{bob, thief}[i], []*Home{bob, thief}[1-i]
				return nil
			}
		}
		return fmt.Errorf("they are %v, and Carol sees %+v", roles, ms)
	})
	s.write(winner, "Club/after", "after")
	s.reads(carol, "Club/after", "after")
	s.absent(loser, "Club/after")
}

// TestReplaceOnPairedDevice: the device that had the phrase is gone, and what is left was paired by a code. It replaces the account all the same, and lets in others from then on.
func TestReplaceOnPairedDevice(t *testing.T) {
	s := newSharing(t, 1)
	laptop := s.All[0]
	s.write(laptop, "Personal/note", "note")
	laptop.Must("space", "create", "Work")
	s.write(laptop, "Work/plan", "plan")
	phone := s.pair(laptop, "phone")
	s.reads(phone, "Personal/note", "note")
	s.reads(phone, "Work/plan", "plan")
	laptop.Unmount() // it is stolen

	var r replaced
	check(t, json.Unmarshal([]byte(phone.Must("account", "replace", "--yes", "--json")), &r))
	phone.Mount("--no-discovery")
	if r.how("Work") != "replaced" || r.how("Personal") != "replaced" || strings.TrimSpace(phone.Must("account", "phrase")) != r.Phrase {
		t.Fatalf("%+v", r)
	}
	s.write(phone, "Personal (old)/note", "not for thieves")
	s.write(phone, "Personal/mine", "mine")
	tablet := s.pair(phone, "tablet")
	s.reads(tablet, "Personal (old)/note", "not for thieves")
	s.reads(tablet, "Personal/mine", "mine")
	s.reads(tablet, "Work/plan", "plan")
	s.write(tablet, "Work/plan", "plan of the tablet")
	s.reads(phone, "Work/plan", "plan of the tablet")

	laptop.Mount("--no-discovery")
	s.Connect(laptop, phone)
	s.role(laptop, "Work", "none")
	s.role(laptop, "Personal", "none")
	s.reads(laptop, "Personal/note", "note")
	for _, h := range []*Home{phone, tablet} {
		h.Must("verify")
	}
}

// pair gives a mounted device that was paired by a code, and connected.
func (s *sharing) pair(with *Home, name string) *Home {
	s.t.Helper()
	h := NewHome(s.t)
	h.Listen = "/ip4/127.0.0.1/tcp/0"
	a := with.addDevice()
	h.Must("login", "--pair", "--peer", with.address(), "--device-name", name, a.Code)
	if text, code := a.wait(); code != 0 {
		s.t.Fatalf("device add ends with %d: %s %s", code, text, a.log.String())
	}
	h.Mount("--no-discovery")
	s.Connect(h, with)
	return h
}
