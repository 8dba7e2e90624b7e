package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

type oneToOne struct{ ID, Name, Role, With, State string }

type offerOf struct{ Account, Name, Kind, Space string }

// two makes two accounts members of one space, called by their names, and connects them.
func (s *sharing) two(alice, bob *Home) {
	s.t.Helper()
	alice.Must("space", "create", "Team")
	link := strings.TrimSpace(alice.Must("invite", "Team"))
	s.join(alice, bob, "Team", link, "Team", "Bob")
	s.write(alice, "Team/a", "a")
	alice.Must("approve", "Team", "Bob")
	s.reads(bob, "Team/a", "a")
}

// begin gives the one-to-one space that a command makes.
func begin(h *Home, args ...string) oneToOne {
	h.t.Helper()
	return fromJSON[oneToOne](h, append([]string{"space", "create", "--with"}, args...)...)
}

// TestOneToOne: two accounts of one team come to a space of their own, each by the plain command; what is refused in it; how one leaves.
func TestOneToOne(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob, carol := s.All[0], s.All[1], s.All[2]
	s.two(alice, bob)
	made := begin(alice, "Bob")
	if made.Name != "Bob" || made.Role != "owner" || made.With != account(bob) {
		t.Fatalf("%+v", made)
	}
	if again := begin(alice, account(bob), "Another"); again != made {
		t.Errorf("a second time it is %+v", again)
	}
	s.write(alice, "Bob/hello.txt", "hello Bob")

	// Bob is told of it, without a word from Alice but that they share a space.
	s.Eventually("the space is offered to Bob", func() error {
		for _, o := range fromJSON[[]offerOf](bob, "requests") {
			if o.Kind == "one-to-one" && o.Account == account(alice) && o.Space == "" {
				return nil
			}
		}
		return errors.New("nothing")
	})
	if _, err := os.Stat(filepath.Join(bob.Mnt, "Alice")); err == nil {
		t.Error("it is there unasked")
	}
	taken := begin(bob, account(alice), "Alice")
	if taken.ID != made.ID || taken.Name != "Alice" {
		t.Fatalf("Alice made %+v, Bob came to %+v", made, taken)
	}
	s.reads(bob, "Alice/hello.txt", "hello Bob")
	s.write(bob, "Alice/answer.txt", "hello Alice")
	s.reads(alice, "Bob/answer.txt", "hello Alice")
	if left := fromJSON[[]offerOf](bob, "requests"); len(left) != 0 {
		t.Errorf("what was taken is still offered: %+v", left)
	}
	for h, name := range map[*Home]string{alice: "Bob", bob: "Alice"} {
		ms := fromJSON[[]memberOf](h, "members", name)
		if len(ms) != 2 || ms[0].Role != "owner" || ms[1].Role != "owner" {
			t.Errorf("members of %s: %+v", name, ms)
		}
		other := map[*Home]*Home{alice: bob, bob: alice}[h]
		for _, bad := range []struct{ args, says []string }{
			{[]string{"remove", name, account(other)}, []string{"neither", "can leave"}},
			{[]string{"role", name, account(other), "reader"}, []string{"belongs to both"}},
			{[]string{"transfer", name, account(other)}, []string{"belongs to both"}},
			{[]string{"invite", name}, []string{"nobody else"}},
			{[]string{"invite", name, "--open"}, []string{"nobody else"}},
		} {
			r := h.Run(bad.args...)
			if r.Code != 1 {
				t.Errorf("%v: code %d, %s", bad.args, r.Code, r.Stderr)
			}
			for _, say := range bad.says {
				if !strings.Contains(r.Stderr, say) {
					t.Errorf("%v says %q, and not %q", bad.args, r.Stderr, say)
				}
			}
		}
	}
	if got := strings.TrimSpace(alice.Must("__complete", "--", "anyfs", "space", "create", "--with", "B")); got != "Bob" {
		t.Errorf("completed to %q", got)
	}
	if got := alice.Xattr(filepath.Join(alice.Mnt, "Bob"), "user.anyfs.role"); got != "owner" {
		t.Errorf("the role is %q", got)
	}
	// Whom Carol has no space with she can't name, but she can be given a card.
	if r := carol.Run("space", "create", "--with", account(bob)); r.Code != 3 || !strings.Contains(r.Stderr, "account card") {
		t.Errorf("code %d, %s", r.Code, r.Stderr)
	}
	card := strings.TrimSpace(bob.Must("account", "card"))
	if r := bob.Run("space", "create", "--with", card); r.Code != 2 {
		t.Errorf("with oneself: code %d, %s", r.Code, r.Stderr)
	}
	if r := carol.Run("space", "create", "--with", card[:len(card)-9]); r.Code != 2 {
		t.Errorf("a card cut short: code %d, %s", r.Code, r.Stderr)
	}

	// Each restarts and goes on.
	for _, h := range []*Home{alice, bob} {
		h.Unmount()
		h.Mount("--no-discovery")
	}
	s.Connect(alice, bob)
	s.write(alice, "Bob/after.txt", "after a restart")
	s.reads(bob, "Alice/after.txt", "after a restart")

	bob.Must("leave", "Alice")
	s.role(bob, "Alice", "none")
	s.Eventually("Alice is alone in it", func() error {
		if ms := fromJSON[[]memberOf](alice, "members", "Bob"); len(ms) != 1 || ms[0].Account != account(alice) {
			return fmt.Errorf("%+v", ms)
		}
		return nil
	})
	s.write(alice, "Bob/secret.txt", "not for Bob any more")
	alice.Sync()
	if _, err := os.Stat(filepath.Join(bob.Mnt, "Alice", "secret.txt")); err == nil {
		t.Error("who left gets what is written later")
	}
	s.reads(bob, "Alice/hello.txt", "hello Bob")
	// They find together again, in another space.
	next := begin(bob, account(alice), "Alice again")
	if next.ID == made.ID {
		t.Fatal("who left is back")
	}
	s.Eventually("the next one is offered to Alice", func() error {
		if len(fromJSON[[]offerOf](alice, "requests")) != 1 {
			return errors.New("nothing")
		}
		return nil
	})
	if got := begin(alice, "Bob"); got.ID != next.ID || got.Name != "Bob 2" {
		t.Errorf("Bob began %+v, Alice came to %+v", next, got)
	}
	s.write(alice, "Bob 2/again.txt", "again")
	s.reads(bob, "Alice again/again.txt", "again")
}

// TestOneToOneApart: two who have no space in common and are on nowhere together come to one space by each other's cards, through a node; it finds another
// device of one of them, and one that was paired by a code. The node sees whose it is, and who pays.
func TestOneToOneApart(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	var homes [2]*Home
	for i := range homes {
		h := NewHome(t)
		h.Listen = "/ip4/127.0.0.1/tcp/0"
		h.Mount("--no-discovery")
		h.Must("network", "add", node.File())
		homes[i] = h
	}
	alice, bob := homes[0], homes[1]
	s := &sharing{&Devices{t: t, All: homes[:]}, t}
	cards := [2]string{strings.TrimSpace(alice.Must("account", "card")), strings.TrimSpace(bob.Must("account", "card"))}
	made := begin(alice, cards[1], "Bob")
	s.write(alice, "Bob/"+plantedName, plantedContent)
	alice.Sync()
	alice.Unmount() // they are never on together
	of := account(alice)
	s.Eventually("the node counts it to who brought it", func() error {
		if all := node.Status().Spaces; !paid(all, made.ID, of) {
			return fmt.Errorf("%+v", all)
		}
		return nil
	})

	taken := begin(bob, cards[0], "Alice")
	if taken.ID != made.ID {
		t.Fatalf("Alice made %+v, Bob came to %+v", made, taken)
	}
	s.reads(bob, "Alice/"+plantedName, plantedContent)
	s.write(bob, "Alice/answer", "by Bob")
	bob.Sync()
	bob.Unmount()
	node.Disk(func(name string, b []byte) {
		for _, no := range []string{plantedName, plantedContent[:40]} {
			if strings.Contains(name+string(b), no) {
				t.Errorf("%s holds %q", name, no)
			}
		}
	})

	second := login(t, alice, "Alice's second")
	second.Must("network", "add", node.Link)
	second.Mount("--no-discovery")
	s.reads(second, "Bob/answer", "by Bob")
	s.reads(second, "Bob/"+plantedName, plantedContent)
	s.write(second, "Bob/second", "by the second")
	second.Sync()
	if got := begin(second, cards[1]); got.ID != made.ID || got.Name != "Bob" {
		t.Errorf("the second device has %+v", got)
	}
	alice.Mount("--no-discovery")
	s.reads(alice, "Bob/second", "by the second")
	s.reads(alice, "Bob/answer", "by Bob")
}

// paid says whether a node counts a space to an account.
func paid(all []NodeSpace, id, account string) bool {
	return slices.ContainsFunc(all, func(u NodeSpace) bool { return u.ID == id && u.Owner == account })
}

// TestOneToOneDeclined: who is offered a one-to-one space declines it, and hears no more of it, also after a restart, and the other hears nothing of that; it can be
// taken all the same. What is not declined is offered after a restart while the other is away.
func TestOneToOneDeclined(t *testing.T) {
	t.Parallel() // it mostly waits
	s := newSharing(t, 2)
	alice, bob := s.All[0], s.All[1]
	s.two(alice, bob)
	made := begin(alice, "Bob")
	offers := func() []offerOf { return fromJSON[[]offerOf](bob, "requests") }
	s.Eventually("the space is offered to Bob", func() error {
		if len(offers()) != 1 {
			return errors.New("nothing")
		}
		return nil
	})
	bob.Unmount()
	if got := offers(); len(got) != 1 || got[0].Account != account(alice) {
		t.Errorf("with no mount it is %+v", got)
	}
	if r := bob.Run("decline", "Nobody"); r.Code != 3 || !strings.Contains(r.Stderr, "anyfs requests") {
		t.Errorf("code %d, %s", r.Code, r.Stderr)
	}
	bob.Mount("--no-discovery")
	if got := fromJSON[offerOf](bob, "decline", account(alice)); got.Kind != "one-to-one" || got.Account != account(alice) {
		t.Errorf("declined: %+v", got)
	}
	bob.Unmount()
	bob.Mount("--no-discovery")
	s.Connect(alice, bob)
	s.write(alice, "Team/b", "b")
	s.reads(bob, "Team/b", "b") // they are connected, and Bob would ask
	time.Sleep(6 * time.Second)
	if got := offers(); len(got) != 0 {
		t.Errorf("what was declined is offered: %+v", got)
	}
	if ms := fromJSON[[]memberOf](alice, "members", "Bob"); len(ms) != 2 {
		t.Errorf("Alice is told: %+v", ms)
	}
	if got := begin(bob, account(alice), "Alice"); got.ID != made.ID {
		t.Errorf("taken after all it is %+v", got)
	}
	s.write(alice, "Bob/hello", "hello")
	s.reads(bob, "Alice/hello", "hello")
}
