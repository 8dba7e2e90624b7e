package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestBuiltOnUnheard: of what a removed member wrote before it heard of that, what another member built on before hearing of it counts for all, and
// 'anyfs log' says so, of that alone; what nobody built on does not.
func TestBuiltOnUnheard(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob, carol := s.All[0], s.All[1], s.All[2]
	s.team()
	s.Connect(bob, carol)
	s.write(bob, "Team/heard", "heard")
	s.write(bob, "Team/doc", "by Bob")
	s.reads(alice, "Team/heard", "heard")
	s.reads(carol, "Team/doc", "by Bob")
	s.reads(alice, "Team/doc", "by Bob")

	alice.Must("pause")
	s.write(bob, "Team/doc", "by Bob, unheard")
	s.reads(carol, "Team/doc", "by Bob, unheard")
	s.write(carol, "Team/doc", "by Carol")
	s.reads(bob, "Team/doc", "by Carol")
	bob.Must("pause")
	s.write(bob, "Team/after", "after")
	bob.Must("status", "--wait", "--here")
	alice.Must("remove", "Team", "Bob")
	alice.Must("resume")
	s.reads(alice, "Team/doc", "by Carol")
	s.Eventually("Carol hears of the removal", func() error {
		if ms := fromJSON[[]memberOf](carol, "members", "Team"); len(ms) != 2 {
			return fmt.Errorf("%+v", ms)
		}
		return nil
	})
	bob.Must("resume")
	s.role(bob, "Team", "none")
	s.Eventually("what nobody built on is in quarantine", func() error {
		var paths []string // not the table, in which an ID may hold any word
		for _, q := range fromJSON[[]struct{ Paths []string }](alice, "quarantine", "Team") {
			paths = append(paths, q.Paths...)
		}
		if fmt.Sprint(paths) != "[after]" {
			return fmt.Errorf("%q", paths)
		}
		return nil
	})
	type version struct {
		Account, What string
		Lapsed        bool
	}
	for _, h := range []*Home{alice, carol} {
		s.absent(h, "Team/after")
		var got []string
		for _, v := range fromJSON[[]version](h, "log", "Team/doc") {
			if by := map[string]string{account(bob): "Bob", account(carol): "Carol"}[v.Account]; strings.Contains(v.What, "content") {
				got = append(got, fmt.Sprint(by, " ", v.Lapsed))
			}
		}
		if fmt.Sprint(got) != "[Carol false Bob true Bob false]" {
			t.Errorf("the log of what was built on is %q", got)
		}
		if text := h.Must("log", "Team/doc"); strings.Count(text, "lost the right to write") != 1 {
			t.Errorf("the log does not say it once: %s", text)
		}
		if text := h.Must("log", "Team/heard"); strings.Contains(text, "lost the right to write") {
			t.Errorf("what had been heard of is marked: %s", text)
		}
		h.Must("verify")
	}
}
