package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// second makes another device of a home's account, mounted and connected with it.
func (s *sharing) second(h *Home, name string) *Home {
	s.t.Helper()
	words := filepath.Join(s.t.TempDir(), "phrase")
	check(s.t, os.WriteFile(words, []byte(h.Phrase+"\n"), 0o600))
	n := NewHome(s.t)
	n.Listen = "/ip4/127.0.0.1/tcp/0"
	n.Must("login", "--phrase-file", words, "--device-name", name)
	n.Mount("--no-discovery")
	s.All = append(s.All, n)
	s.Connect(h, n)
	return n
}

// absent checks that a file is not on a mount.
func (s *sharing) absent(h *Home, path string) {
	s.t.Helper()
	if _, err := os.Stat(filepath.Join(h.Mnt, path)); !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("%s is there: %v", path, err)
	}
}

type deviceOf struct {
	PeerID  string `json:"peer_id"`
	Name    string
	Self    bool
	Revoked bool
}

// TestRevokeDevice: a laptop is stolen. What it had sent stays, what it had not goes nowhere and is not lost on it, and nothing that is
// written later comes to it, from its own account or from another.
func TestRevokeDevice(t *testing.T) {
	s := newSharing(t, 2)
	alice, bob := s.All[0], s.All[1]
	laptop := s.second(alice, "laptop")
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/plan", "plan")
	link := strings.TrimSpace(alice.Must("invite", "Team"))
	s.join(alice, bob, "Team", link, "Team", "Bob")
	alice.Must("approve", "Team", "Bob")
	s.Connect(bob, laptop)
	s.reads(laptop, "Team/plan", "plan")
	s.write(laptop, "Team/sent", "sent")
	s.reads(bob, "Team/sent", "sent")
	s.reads(alice, "Team/sent", "sent")

	// It is out of reach while it is revoked, and its work goes on.
	laptop.Must("pause")
	s.write(laptop, "Team/unsent", "unsent")
	s.write(laptop, "Team/plan", "plan by the laptop")
	laptop.Must("status", "--wait", "--here")
	ds := fromJSON[[]deviceOf](alice, "device", "list")
	if len(ds) != 2 {
		t.Fatalf("%+v", ds)
	}
	self := ds[0]
	if !self.Self {
		self = ds[1]
	}
	if r := alice.Run("device", "revoke", self.PeerID); r.Code != 2 || !strings.Contains(r.Stderr, "the device that you are on") {
		t.Errorf("this device: %+v", r)
	}
	if r := alice.Run("device", "revoke", "nobody"); r.Code != 3 {
		t.Errorf("no device: %+v", r)
	}
	got := fromJSON[struct {
		PeerID string `json:"peer_id"`
		Spaces []struct{ Name, Error string }
	}](alice, "device", "revoke", "laptop")
	if len(got.Spaces) != 3 || got.PeerID == self.PeerID { // the home space, Personal, Team
		t.Errorf("revoked: %+v", got)
	}
	for _, x := range got.Spaces {
		if x.Error != "" {
			t.Errorf("%+v", x)
		}
	}
	s.write(alice, "Team/secret", "secret")
	s.write(alice, "Personal/diary", "diary")
	check(t, os.Mkdir(filepath.Join(alice.Mnt, "Later"), 0o755))
	s.reads(bob, "Team/secret", "secret")

	laptop.Must("resume")
	s.Eventually("the laptop says what happened to it", func() error {
		r := laptop.Run("status")
		if !strings.Contains(r.Stdout, "THIS DEVICE WAS REVOKED") {
			return fmt.Errorf("%s", r.Stdout)
		}
		for _, x := range laptop.SyncStatus().Spaces {
			if x.State != "revoked" {
				return fmt.Errorf("%+v", x)
			}
		}
		return nil
	})
	s.readOnly(laptop, "Team", "plan")
	s.reads(laptop, "Team/unsent", "unsent")
	s.reads(laptop, "Team/plan", "plan by the laptop")
	if err := os.Mkdir(filepath.Join(laptop.Mnt, "New"), 0o755); err == nil {
		t.Error("a revoked device makes a space")
	}
	if r := laptop.Run("device", "revoke", self.PeerID); r.Code != 1 || !strings.Contains(r.Stderr, "revoked itself") {
		t.Errorf("a revoked device revokes: %+v", r)
	}
	out := filepath.Join(t.TempDir(), "team.car")
	laptop.Must("export", "Team", out)
	if st, err := os.Stat(out); err != nil || st.Size() == 0 {
		t.Errorf("nothing can be exported: %v", err)
	}

	// The others go on, and have no part of that.
	s.write(bob, "Team/bob", "bob")
	s.reads(alice, "Team/bob", "bob")
	s.write(alice, "Team/secret", "secret 2")
	s.reads(bob, "Team/secret", "secret 2")
	for _, h := range []*Home{alice, bob} {
		s.reads(h, "Team/plan", "plan")
		s.reads(h, "Team/sent", "sent")
		s.absent(h, "Team/unsent")
	}
	for _, p := range []string{"Team/secret", "Team/bob", "Personal/diary", "Later"} {
		s.absent(laptop, p)
	}
	for _, h := range []*Home{alice, laptop, bob} {
		h.Must("verify")
		h.Unmount()
		h.Mount("--no-discovery")
	}
	s.reads(laptop, "Team/unsent", "unsent")
	s.absent(laptop, "Team/secret")
	for _, d := range fromJSON[[]deviceOf](alice, "device", "list") {
		if d.Revoked == d.Self {
			t.Errorf("%+v", d)
		}
	}

	// A device that turns up is set up anew, and spaces made since know of the revocation.
	again := s.second(alice, "laptop again")
	s.reads(again, "Team/secret", "secret 2")
	s.write(again, "Team/again", "again")
	s.reads(alice, "Team/again", "again")
	if r := again.Run("device", "revoke", "laptop"); r.Code != 0 {
		t.Errorf("revoked again: %+v", r)
	}
}

// TestRevokeDeviceByNode: two devices that meet at a node alone. The node takes the revocation, gives the device nothing that came after it, and
// keeps nothing that the device offers.
func TestRevokeDeviceByNode(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	s := newSharing(t, 1)
	desk := s.All[0]
	desk.Must("network", "add", node.File())
	words := filepath.Join(t.TempDir(), "phrase")
	check(t, os.WriteFile(words, []byte(desk.Phrase+"\n"), 0o600))
	laptop := NewHome(t)
	laptop.Listen = "/ip4/127.0.0.1/tcp/0"
	laptop.Must("login", "--phrase-file", words, "--device-name", "laptop")
	laptop.Mount("--no-discovery")
	s.All = append(s.All, laptop)
	laptop.Must("network", "add", node.File())
	s.write(desk, "Personal/before", strings.Repeat("before", 20_000))
	s.reads(laptop, "Personal/before", strings.Repeat("before", 20_000))
	s.write(laptop, "Personal/sent", "sent")
	s.reads(desk, "Personal/sent", "sent")

	laptop.Must("pause")
	s.write(laptop, "Personal/unsent", strings.Repeat("unsent", 20_000))
	laptop.Must("status", "--wait", "--here")
	desk.Must("device", "revoke", "laptop")
	s.write(desk, "Personal/secret", strings.Repeat("secret", 20_000))
	desk.Sync()
	desk.Unmount() // the node alone is left
	laptop.Must("resume")
	s.Eventually("the laptop says what happened to it", func() error {
		for _, x := range laptop.SyncStatus().Spaces {
			if x.State != "revoked" {
				return fmt.Errorf("%+v", x)
			}
		}
		return nil
	})
	laptop.Unmount()
	laptop.Mount("--no-discovery")
	s.reads(laptop, "Personal/unsent", strings.Repeat("unsent", 20_000))
	s.absent(laptop, "Personal/secret")
	desk.Mount("--no-discovery")
	s.write(desk, "Personal/after", "after")
	desk.Sync()
	s.absent(desk, "Personal/unsent")
	s.absent(laptop, "Personal/after")
	desk.Must("verify")
	laptop.Must("verify")
}
