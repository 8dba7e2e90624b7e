package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Clocks that are an hour ahead and an hour behind, of devices and of nodes at once, so two hours apart, do no harm: devices and nodes connect and
// exchange, tokens and invitations that expire later than that are good, receipts let content go and come back, a node is drained, and nobody
// doubts a node.
func TestClocksOff(t *testing.T) {
	NeedFUSE(t)
	if runtime.GOARCH != "amd64" {
		without(t, "a processor for which package clock is written")
	}
	t.Parallel()
	binary := overlay(t, "clock", map[string]string{"cmd/anyfs/main_clock.go": "package main\n\nimport _ \"github.com/anyfs/anyfs/integration/clock\"\n"})
	env := func(off string) []string { return []string{"ANYFS_CLOCK=" + off} }
	began := time.Now()
	next := 0
	node := func(kind, off string, flags ...string) *Node {
		t.Helper()
		next++
		return runNode(&Node{t: t, Kind: kind, binary: binary, env: env(off), listen: []string{fmt.Sprintf("/ip4/127.0.0.%d/tcp/0", 20+next)},
			flags: append(flags, "--no-relay")}) // or the devices would find each other by themselves
	}
	coordinator := node("coordinator", "-1h")
	join := func() []string {
		return []string{"--network", coordinator.File(), "--token", coordinator.Admin("token")}
	}
	ahead, behind := node("sync", "1h", join()...), node("sync", "-1h", join()...)
	node("file", "1h", join()...)

	d := &Devices{t: t}
	device := func(off string) *Home {
		h := NewHome(t)
		h.Listen, h.binary, h.env = "/ip4/127.0.0.1/tcp/0", binary, env(off)
		return h
	}
	for i, off := range []string{"1h", "-1h"} {
		h := device(off)
		if i > 0 {
			d.login(h, i)
		}
		h.Mount("--no-discovery")
		h.Must("network", "add", coordinator.File())
		d.All = append(d.All, h)
	}
	a, b := d.All[0], d.All[1]
	large := noise(5, 5<<20)
	check(t, os.WriteFile(a.Personal("both"), []byte("1\n2\n3\n4\n5\n"), 0o644), os.WriteFile(a.Personal("by a"), large, 0o644))
	d.WaitEqual()
	check(t, os.WriteFile(b.Personal("by b"), large[:3<<20], 0o644),
		os.WriteFile(a.Personal("both"), []byte("by a\n2\n3\n4\n5\n"), 0o644), os.WriteFile(b.Personal("both"), []byte("1\n2\n3\n4\nby b\n"), 0o644))
	d.WaitEqual()
	if both := contents(t, a, "both"); !slices.Equal(both, []string{"by a\n2\n3\n4\nby b\n"}) {
		t.Errorf("of two edits there is %q", both)
	}

	// The clocks are what they are said to be, or nothing is shown.
	for i, h := range d.All {
		first, _, _ := bytes.Cut(must(t)(os.ReadFile(filepath.Join(h.Dir, "anyfs.log"))), []byte("\n"))
		var line struct{ Time time.Time }
		check(t, json.Unmarshal(first, &line))
		if off := line.Time.Sub(began) - time.Duration(1-2*i)*time.Hour; off < -time.Minute || off > 5*time.Minute {
			t.Fatalf("device %d began its log at %v, the test began at %v", i, line.Time, began)
		}
	}

	// Two devices that are two hours apart find each other through a node, which gives each a slot of its relay, and connect. The node says by its own
	// clock how long that lasts, which is two hours and more behind theirs.
	relay := runNode(&Node{t: t, Kind: "all", binary: binary, env: env("-3h"), listen: []string{"/ip4/127.0.0.20/tcp/0"}})
	a.Must("network", "add", relay.File())
	a.Must("space", "network", "Personal", "add", relay.netID())
	d.Eventually("the devices are connected with each other", func() error {
		for _, p := range a.SyncStatus().Peers {
			if p.PeerID == b.Status().Device.PeerID && slices.Contains(p.Spaces, "Personal") {
				return nil
			}
		}
		return errors.New("they are not")
	})

	// Receipts.
	b.Must("space", "policy", "Personal", "on-demand")
	b.Sync()
	b.Must("evict", b.Personal("by a"))
	check(t, wantBytes(b.Personal("by a"), large))

	// Invitations: of who is behind for longer than his clock is off, of who is ahead for any time; a guest with a right clock.
	c := device("0s")
	c.Mount("--no-discovery")
	for i, x := range []struct {
		host    *Home
		expires string
	}{{a, "30m"}, {b, "3h"}} {
		name := fmt.Sprint("Shared ", i)
		x.host.Must("space", "create", name)
		check(t, os.WriteFile(filepath.Join(x.host.Mnt, name, "in it"), []byte(name), 0o644))
		x.host.Sync()
		c.Must("join", strings.TrimSpace(x.host.Must("invite", name, "--open", "--expires", x.expires)), "--wait")
		c.eventually("the guest has what is shared", func() error { return wantBytes(filepath.Join(c.Mnt, name, "in it"), []byte(name)) })
	}

	// A node is drained: a new epoch, and its spaces go elsewhere.
	coordinator.Admin("drain", behind.Status().PeerID)
	d.Eventually("the spaces of the node that is drained are elsewhere", func() error {
		if s := behind.Status(); len(s.Spaces) > 0 || !s.Draining {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	check(t, os.WriteFile(b.Personal("after"), []byte("after"), 0o644))
	d.WaitEqual()
	if len(ahead.Status().Spaces) < 4 {
		t.Errorf("the node that is left has %+v", ahead.Status().Spaces)
	}
	for _, h := range d.All {
		h.Must("verify")
		if splits, losses := doubted(t, h); splits+losses > 0 {
			t.Errorf("of honest nodes %d and %d are doubted", splits, losses)
		}
		b, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log"))
		check(t, err)
		if bytes.Contains(b, []byte("broke the protocol")) {
			t.Errorf("somebody is said to have broken the protocol:\n%s", h.logTail())
		}
	}
}

func must(t *testing.T) func(b []byte, err error) []byte {
	return func(b []byte, err error) []byte {
		t.Helper()
		check(t, err)
		return b
	}
}
