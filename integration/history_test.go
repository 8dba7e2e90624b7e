package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestNodeHasHistory: the nodes get what was replaced or deleted before one could be reached, and what is older than the network, so that a new device
// reads it when the one that wrote it is lost.
func TestNodeHasHistory(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	node := NewNode(t, "--no-relay")
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
	to := filepath.Join(t.TempDir(), "old")
	restored := func(name, version string, want []byte) {
		t.Helper()
		args := []string{"restore", b.Personal(name), "--to", to}
		if version != "" {
			args = append(args, "--version", version)
		}
		b.Must(args...)
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		check(t, os.Remove(to))
	}
	for name, want := range replaced {
		versions := fromJSON[[]pastVersion](b, "log", b.Personal(name))
		restored(name, versions[len(versions)-1].ID, want)
	}
	for name, want := range deleted {
		restored(name, "", want)
		b.wantContent(b.Personal(".anyfs", "trash", name), want)
	}
	b.wantContent(b.Personal(".anyfs", "at", then.Format(time.RFC3339Nano), "replaced without a node"), noise(12, 300<<10))
	b.Must("verify")
}
