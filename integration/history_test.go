package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNodeHasHistory: the nodes get what was replaced or deleted before one could be reached, and what is older than the network, so that a new device
// reads it when the one that wrote it is lost; also when a device that never had it has moved the space to another network.
func TestNodeHasHistory(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	node, other := NewNode(t, "--no-relay"), NewNode(t, "--no-relay")
	node.Kill()
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	replaced, deleted := map[string][]byte{}, map[string][]byte{}
	steps := func(when string, seed uint64) {
		t.Helper()
		r, d := "replaced "+when, "deleted "+when
		replaced[r], deleted[d] = noise(seed, 1<<20), noise(seed+1, 200<<10)
		check(t, os.WriteFile(a.Personal(r), replaced[r], 0o644), os.WriteFile(a.Personal(d), deleted[d], 0o644))
		a.Settle()
		tmp := a.Personal("temporary")
		check(t, os.WriteFile(tmp, noise(seed+2, 300<<10), 0o644), os.Rename(tmp, a.Personal(r)), os.Remove(a.Personal(d)))
		a.Settle()
	}
	steps("before the network", 1)
	a.Must("network", "add", node.Link)
	steps("without a node", 10)
	then := time.Now().UTC()
	check(t, os.WriteFile(a.Personal("replaced without a node"), noise(20, 150<<10), 0o644))
	a.Settle()
	a.Remount()
	node.Start()
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s")
	a.Unmount()
	check(t, os.RemoveAll(a.Dir))

	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	b.Sync()
	node.Kill()
	b.Must("network", "add", other.Link)
	b.Must("space", "network", "Personal", "add", other.netID())
	b.eventually("what the network alone has that cannot be reached is told", func() error {
		if out := b.Must("space", "network", "Personal"); !strings.Contains(out, "may be on another network") {
			return errors.New(out)
		}
		return nil
	})
	b.Sync()
	node.Start()
	b.Must("space", "network", "Personal", "add", other.netID(), "--wait", "--timeout", "60s")
	b.Must("space", "network", "Personal", "remove", node.netID())
	b.Unmount()
	node.Kill()

	c := login(t, a, "third")
	c.Must("network", "add", other.Link)
	c.Mount("--no-discovery")
	c.Sync()
	to := filepath.Join(t.TempDir(), "old")
	restored := func(name, version string, want []byte) {
		t.Helper()
		args := []string{"restore", c.Personal(name), "--to", to}
		if version != "" {
			args = append(args, "--version", version)
		}
		c.Must(args...)
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		check(t, os.Remove(to))
	}
	for name, want := range replaced {
		versions := fromJSON[[]pastVersion](c, "log", c.Personal(name))
		restored(name, versions[len(versions)-1].ID, want)
	}
	for name, want := range deleted {
		restored(name, "", want)
		c.wantContent(c.Personal(".anyfs", "trash", name), want)
	}
	c.wantContent(c.Personal(".anyfs", "at", then.Format(time.RFC3339Nano), "replaced without a node"), noise(12, 300<<10))
	c.Must("verify")
}

// TestHistoryLeavesRoom: of a quota that history would use up a part stays for what is current, status says what waits and why, and a prune ends that.
func TestHistoryLeavesRoom(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	node := NewNode(t, "--no-relay")
	node.Kill()
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Must("node", "quota", "--dir", node.Dir, "default", "4M")
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	for i := range 6 {
		check(t, os.WriteFile(a.Personal("f"), noise(uint64(i), 900<<10), 0o644))
		a.Settle()
	}
	node.Start()
	a.eventually("status tells what waits", func() error {
		if out := a.Must("status"); !strings.Contains(out, "old versions wait") {
			return errors.New(out)
		}
		return nil
	})
	if r := a.Run("space", "network", "Personal", "--wait", "--timeout", "2s"); r.Code != 4 || !strings.Contains(r.Stderr, "old versions wait") {
		t.Errorf("a wait for history beyond what a quota has room for: %+v", r)
	}
	type onNetwork struct {
		Contents int `json:"pending_contents"`
		Past     int `json:"pending_old_contents"`
	}
	on := func() onNetwork { return fromJSON[[]onNetwork](a, "space", "network", "Personal")[0] }
	if x := on(); x.Contents != 0 || x.Past == 0 || x.Past >= 5 {
		t.Errorf("%+v", x)
	}
	check(t, os.WriteFile(a.Personal("current"), noise(10, 700<<10), 0o644))
	a.Settle()
	a.eventually("what is current has room", func() error {
		if x := on(); x.Contents > 0 || x.Past == 0 {
			return fmt.Errorf("%+v", x)
		}
		return nil
	})
	a.Must("prune", "Personal")
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s")
}
