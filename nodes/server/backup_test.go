package server_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/anyfs/anyfs/nodes/backup"
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/server"
)

var quiet = slog.New(slog.DiscardHandler)

// A coordinator that is restored from a backup knows of nodes that joined or were removed since, before it changes anything, and no epoch is used twice.
func TestRestoredCoordinator(t *testing.T) {
	opt, c, stop := coordinator(t)
	one := filepath.Join(t.TempDir(), "one")
	first, _ := run(t, server.Options{Dir: one, Listen: []string{loopback}, Kind: network.Sync, Network: c, Token: tokenOf(t, opt.Dir, server.DefaultTokenFor)})
	file := filepath.Join(t.TempDir(), "backup")
	spent := tokenOf(t, opt.Dir, server.DefaultTokenFor)
	if _, err := server.Backup(t.Context(), opt.Dir, file, quiet); err != nil {
		t.Fatal(err)
	}
	// What the backup does not know: a node that joined with a token of then.
	two := filepath.Join(t.TempDir(), "two")
	last, _ := run(t, server.Options{Dir: two, Listen: []string{loopback}, Kind: network.Sync, Network: c, Token: spent})
	if last.Epoch <= first.Epoch || len(last.Nodes) != 3 {
		t.Fatalf("epoch %d after %d, %d nodes", last.Epoch, first.Epoch, len(last.Nodes))
	}
	stop()

	again := filepath.Join(t.TempDir(), "again")
	if _, err := server.Restore(t.Context(), again, file, nil, quiet); err != nil {
		t.Fatal(err)
	}
	restored, _ := run(t, server.Options{Dir: again, Listen: opt.Listen, Kind: network.Coordinator})
	if restored.ID != c.ID {
		t.Fatal("it is another network")
	}
	within(t, "the coordinator hears of the node that joined after the backup", func() bool {
		s, err := server.AskStatus(t.Context(), again)
		return err == nil && s.Epoch > last.Epoch && s.Nodes == 2
	})
	nodes, err := server.AskNodes(t.Context(), again)
	if err != nil || len(nodes) != 3 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
	// The token of then is spent.
	if err := refused(t, server.Options{Dir: filepath.Join(t.TempDir(), "three"), Listen: []string{loopback}, Kind: network.Sync, Network: last, Token: spent}); err == nil {
		t.Error("a token worked twice, the second time on the restored coordinator")
	}
	s, err := server.AskStatus(t.Context(), again)
	if err != nil || s.Epoch < network.AgeEpochs {
		t.Errorf("epoch %d, %v: no new age", s.Epoch, err)
	}
}

// What the others know is waited for, and where they are gone for good the operator says so.
func TestRestoredCoordinatorAlone(t *testing.T) {
	opt, c, stop := coordinator(t)
	_, end := run(t, server.Options{Dir: filepath.Join(t.TempDir(), "one"), Listen: []string{loopback}, Kind: network.Sync, Network: c, Token: tokenOf(t, opt.Dir, server.DefaultTokenFor)})
	file := filepath.Join(t.TempDir(), "backup")
	nodes, err := server.AskNodes(t.Context(), opt.Dir)
	if err == nil {
		_, err = server.Backup(t.Context(), opt.Dir, file, quiet)
	}
	if err != nil {
		t.Fatal(err)
	}
	end()
	stop()
	again := filepath.Join(t.TempDir(), "again")
	if _, err := server.Restore(t.Context(), again, file, nil, quiet); err != nil {
		t.Fatal(err)
	}
	run(t, server.Options{Dir: again, Listen: opt.Listen, Kind: network.Coordinator})
	var gone string
	for _, x := range nodes {
		if !x.Self {
			gone = x.PeerID
		}
	}
	if err := server.AskRemove(t.Context(), again, gone); err == nil {
		t.Error("it makes a configuration before it has heard of the newest")
	}
	if err := os.Remove(filepath.Join(again, "restored")); err != nil {
		t.Fatal(err)
	}
	if err := server.AskRemove(t.Context(), again, gone); err != nil {
		t.Error(err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	opt := server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback}}
	_, stop := run(t, opt)
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := server.Backup(t.Context(), opt.Dir, file, quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Restore(t.Context(), opt.Dir, file, nil, quiet); !errors.Is(err, server.ErrNotEmpty) {
		t.Errorf("over a node: %v", err)
	}
	other := server.Options{Dir: filepath.Join(t.TempDir(), "other"), Listen: []string{loopback}}
	run(t, other)
	if _, err := server.Backup(t.Context(), other.Dir, file, quiet); err == nil {
		t.Error("the backup of a node into that of another")
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("something else that matters"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Backup(t.Context(), opt.Dir, text, quiet); !errors.Is(err, backup.ErrForm) {
		t.Errorf("into a file that is no backup: %v", err)
	}
	if b, _ := os.ReadFile(text); string(b) != "something else that matters" {
		t.Error("a file that is no backup was overwritten")
	}
	stop()
	// A folder whose restore was cut off is no node's, and can be restored again.
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new")
	bad := append([]byte(nil), whole...)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(text, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Restore(t.Context(), dir, text, nil, quiet); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a damaged backup: %v", err)
	}
	if _, err := server.Open(server.Options{Dir: dir, Listen: []string{loopback}}); err == nil {
		t.Error("a node starts on what was not restored")
	}
	// The node need not run to be backed up.
	r, err := server.Backup(t.Context(), opt.Dir, file, quiet)
	if err != nil || r.Whole {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := server.Restore(t.Context(), dir, file, nil, quiet); err != nil {
		t.Fatal(err)
	}
	run(t, server.Options{Dir: dir, Listen: []string{loopback}})
}
