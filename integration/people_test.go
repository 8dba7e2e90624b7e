package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// people are three accounts on a network on which all that is sent is looked through, with a node or without.
type people struct {
	*sharing
	wire *capture
	node *Node // nil: none
}

// The space of the team, on all mounts, and what its members are called: neither is to be seen by others.
const (
	teamSpace = "PLANTEDspacename"
	bobsName  = "Bob of the team"
)

func newPeople(t testing.TB, withNode bool) *people {
	t.Helper()
	NeedFUSE(t)
	hosts := 4
	if withNode {
		hosts++
	}
	l := NewLAN(t, hosts)
	p := &people{sharing: &sharing{&Devices{t: t}, t}, wire: &capture{seen: map[string]int{}, last: map[string][]byte{}}}
	p.wire.also("a member's name", bobsName)
	l.Capture(p.wire.see)
	if withNode {
		p.node = NewNodeOn(t, l.Hosts[4])
	}
	for _, host := range l.Hosts[:3] {
		p.All = append(p.All, p.mounted(host, func(*Home) {}))
	}
	return p
}

// mounted is a home on a host.
func (p *people) mounted(host *Host, login func(*Home)) *Home {
	p.t.Helper()
	h := NewHome(p.t)
	h.Host, h.Listen = host, fmt.Sprintf("/ip4/%s/tcp/7327", host.Addr)
	login(h)
	h.Mount("--no-discovery")
	if p.node != nil {
		h.Must("network", "add", p.node.Link)
	}
	return h
}

// holds waits until the space has exactly these files on a mount, with these contents.
func (p *people) holds(h *Home, want map[string]string) {
	p.t.Helper()
	p.Eventually("the space holds what it should", func() error {
		got := map[string]string{}
		all, err := os.ReadDir(filepath.Join(h.Mnt, teamSpace))
		if err != nil {
			return err
		}
		for _, e := range all {
			b, err := os.ReadFile(filepath.Join(h.Mnt, teamSpace, e.Name()))
			if err != nil {
				return err
			}
			got[e.Name()] = string(b)
		}
		if len(got) != len(want) {
			return fmt.Errorf("%q, want %q", got, want)
		}
		for name, text := range want {
			if got[name] != text {
				return fmt.Errorf("%s is %q, want %q", name, got[name], text)
			}
		}
		return nil
	})
}

// clean looks through all that went over the wire and all that the node has for what nobody else is to see.
func (p *people) clean(step string) {
	p.t.Helper()
	found, seen := p.wire.result()
	for _, f := range found {
		p.t.Errorf("%s: %s", step, f)
	}
	if seen["TCP"] < 10_000 {
		p.t.Errorf("%s: only %d bytes of TCP were seen", step, seen["TCP"])
	}
	if p.node == nil {
		return
	}
	files := 0
	look := func(where string, b []byte) {
		files++
		if m := heldBy(b); m != "" {
			p.t.Errorf("%s: %s of the node holds %s", step, where, m)
		}
	}
	p.node.Disk(func(name string, b []byte) { look(name, append(b, name...)) })
	if files < 5 {
		p.t.Errorf("%s: the node has %d files", step, files)
	}
}

// heldBy is found, for members' names too.
func heldBy(b []byte) string {
	if bytes.Contains(b, []byte(bobsName)) {
		return "a member's name"
	}
	return found(b)
}

// cut keeps a home off the network while fn runs, where there is a node that has what it wrote.
func (p *people) cut(h *Home, fn func()) {
	p.t.Helper()
	if p.node != nil {
		h.Must("status", "--wait")
		h.Host.Set(Cable{Down: true})
		defer h.Host.Set(Cable{})
	}
	fn()
}

// TestThreePeople: invited, let in, both edit, a conflict, made a reader, removed, invited again, and a device revoked. After each step each one
// lists, reads and writes what it may and no more, and neither on the wire nor on a node's disk is anything of it.
func TestThreePeople(t *testing.T) {
	for _, withNode := range []bool{false, true} {
		t.Run(map[bool]string{false: "without nodes", true: "with a node"}[withNode], func(t *testing.T) {
			threePeople(t, newPeople(t, withNode))
		})
	}
}

func threePeople(t *testing.T, p *people) {
	alice, bob, carol := p.All[0], p.All[1], p.All[2]
	in := func(name string) string { return teamSpace + "/" + name }
	want := map[string]string{"PLANTEDfilename": "PLANTEDcontent by alice"}
	everyone := func(hs ...*Home) {
		t.Helper()
		for _, h := range hs {
			p.holds(h, want)
		}
	}
	writes := func(h *Home, name, text string) {
		t.Helper()
		p.write(h, in(name), text)
		want[name] = text
	}
	invite := func(guest *Home, name string, flags ...string) {
		t.Helper()
		link := strings.TrimSpace(alice.Must(append([]string{"invite", teamSpace}, flags...)...))
		p.join(alice, guest, teamSpace, link, teamSpace, name)
	}

	// Invited: who only asks sees nothing.
	check(t, os.Mkdir(filepath.Join(alice.Mnt, teamSpace), 0o755))
	p.write(alice, in("PLANTEDfilename"), want["PLANTEDfilename"])
	invite(bob, bobsName)
	invite(carol, "Carol", "--role", "reader")
	for _, h := range []*Home{bob, carol} {
		p.absent(h, teamSpace)
	}
	alice.Must("approve", teamSpace, bobsName)
	everyone(alice, bob)
	p.absent(carol, teamSpace)
	alice.Must("approve", teamSpace, "Carol")
	everyone(carol)
	p.readOnly(carol, teamSpace, "PLANTEDfilename")
	p.Connect(bob, carol)
	p.clean("let in")

	// Both edit.
	writes(bob, "PLANTEDrenamed", "PLANTEDoverwritten by bob")
	p.cut(bob, func() { everyone(alice, carol) })
	writes(alice, "PLANTEDfilename", "PLANTEDcontent by alice again")
	everyone(alice, bob, carol)
	p.clean("both edit")

	// A conflict: both are kept, everywhere alike.
	for _, h := range []*Home{alice, bob} {
		h.Must("pause")
	}
	p.write(alice, in("PLANTEDrenamed"), "PLANTEDcontent one")
	p.write(bob, in("PLANTEDrenamed"), "PLANTEDcontent two")
	for _, h := range []*Home{alice, bob} {
		h.Must("status", "--wait", "--here")
	}
	for _, h := range []*Home{alice, bob} {
		h.Must("resume")
	}
	p.Eventually("both are kept", func() error {
		all, err := os.ReadDir(filepath.Join(carol.Mnt, teamSpace))
		if err == nil && len(all) != 3 {
			err = fmt.Errorf("%d files", len(all))
		}
		if err != nil {
			return err
		}
		var texts []string
		for _, e := range all {
			b, err := os.ReadFile(filepath.Join(carol.Mnt, teamSpace, e.Name()))
			if err != nil {
				return err
			}
			want[e.Name()] = string(b)
			texts = append(texts, string(b))
		}
		if slices.Sort(texts); !slices.Equal(texts, []string{"PLANTEDcontent by alice again", "PLANTEDcontent one", "PLANTEDcontent two"}) {
			return fmt.Errorf("%q", texts)
		}
		return nil
	})
	everyone(alice, bob, carol)
	writes(bob, "PLANTEDrenamed", "PLANTEDcontent of both") // and it goes on
	everyone(alice, bob, carol)
	p.clean("a conflict")

	// A reader.
	alice.Must("role", teamSpace, bobsName, "reader")
	p.role(bob, teamSpace, "reader")
	p.readOnly(bob, teamSpace, "PLANTEDfilename")
	writes(alice, "PLANTEDdeleted", "PLANTEDcontent for readers")
	everyone(alice, bob, carol)
	p.clean("a reader")

	// Removed.
	before := map[string]string{}
	for name, text := range want {
		before[name] = text
	}
	alice.Must("remove", teamSpace, bobsName)
	p.role(bob, teamSpace, "none")
	writes(alice, "PLANTEDsynced", "PLANTEDcontent after the removal")
	p.cut(alice, func() {
		everyone(carol)
		p.holds(bob, before)
	})
	p.readOnly(bob, teamSpace, "PLANTEDfilename")
	p.clean("removed")

	// In again.
	invite(bob, bobsName)
	p.holds(bob, before)
	alice.Must("approve", teamSpace, bobsName)
	began := time.Now()
	p.role(bob, teamSpace, "writer")
	everyone(bob)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("what was written while he was out came %v after he was in again", took)
	}
	writes(bob, "PLANTEDtarget", "PLANTEDcontent by bob, again")
	everyone(alice, carol)
	p.clean("in again")

	// A device of Bob's, and then no more.
	words := filepath.Join(t.TempDir(), "phrase")
	check(t, os.WriteFile(words, []byte(bob.Phrase+"\n"), 0o600))
	laptop := p.mounted(alice.Host.lan.Hosts[3], func(h *Home) { h.Must("login", "--phrase-file", words, "--device-name", "laptop") })
	p.All = append(p.All, laptop)
	p.Connect(bob, laptop)
	everyone(laptop)
	writes(laptop, "PLANTEDxattrname", "PLANTEDcontent by the laptop")
	everyone(alice, bob, carol)
	bob.Must("device", "revoke", "laptop")
	p.Eventually("the laptop hears of it", func() error {
		if s := laptop.Run("status"); !strings.Contains(s.Stdout+s.Stderr, "revoked") {
			return errors.New(s.Stdout)
		}
		return nil
	})
	before = map[string]string{}
	for name, text := range want {
		before[name] = text
	}
	writes(alice, "PLANTEDunsynced", "PLANTEDcontent after the laptop")
	everyone(alice, bob, carol)
	p.holds(laptop, before)
	p.readOnly(laptop, teamSpace, "PLANTEDfilename")
	p.clean("revoked")
	for _, h := range p.All {
		h.Must("verify")
	}

	// And what is sent in the clear is found.
	alice.Host.SendUDP(t, bob.Host, "in the clear: "+bobsName)
	p.Eventually("what is sent in the clear is found", func() error {
		if found, _ := p.wire.result(); !slices.ContainsFunc(found, has("a member's name")) {
			return fmt.Errorf("found: %q", found)
		}
		return nil
	})
}
