package server_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/server"
)

// run runs a node until stop, and gives the configuration that it told.
func run(t *testing.T, opt server.Options) (c *network.Config, stop func()) {
	t.Helper()
	opt.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	n, err := server.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan *network.Config, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := n.Run(ctx, func(c *network.Config) error { told <- c; return nil })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	select {
	case c = <-told:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not start")
	}
	return c, stop
}

const loopback = "/ip4/127.0.0.1/tcp/0"

func TestRestartKeepsEverything(t *testing.T) {
	opt := server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback, "/ip4/127.0.0.1/udp/0/quic-v1"}}
	one, stop := run(t, opt)
	if one.Epoch != 1 || len(one.Nodes) != 1 || len(one.Nodes[0].Addresses) != 2 || one.Verify() != nil {
		t.Fatalf("%+v", one)
	}
	if _, err := server.Open(opt); !errors.Is(err, server.ErrInUse) {
		t.Errorf("a second node on the folder: %v", err)
	}
	s, err := server.AskStatus(t.Context(), opt.Dir)
	if err != nil || s.Network != network.Name(one.ID) || s.PeerID != one.Nodes[0].Peer() {
		t.Errorf("status: %+v, %v", s, err)
	}
	stop()
	if _, err := server.AskStatus(t.Context(), opt.Dir); !errors.Is(err, server.ErrNoNode) {
		t.Errorf("status of a node that has ended: %v", err)
	}
	two, stop := run(t, opt)
	if two.Link() != one.Link() {
		t.Errorf("after a restart it tells %s, not %s", two.JSON(), one.JSON())
	}
	b, err := os.ReadFile(filepath.Join(opt.Dir, server.ConfigFile))
	if err != nil || !bytes.Equal(b, one.JSON()) {
		t.Errorf("the file holds %s, %v", b, err)
	}
	for _, name := range []string{"node.key", "network.key"} {
		if st, err := os.Stat(filepath.Join(opt.Dir, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	stop()

	// Elsewhere it is the same node of the same network, in a higher epoch.
	opt.Listen = []string{loopback}
	three, stop := run(t, opt)
	if err := three.Replaces(two); err != nil || three.Nodes[0].Key != two.Nodes[0].Key {
		t.Errorf("%s after %s: %v", three.JSON(), two.JSON(), err)
	}
	stop()
	opt.Announce = []string{"/ip4/203.0.113.5/tcp/7328"}
	four, _ := run(t, opt)
	if err := four.Replaces(three); err != nil || !slices.Equal(four.Nodes[0].Addresses, opt.Announce) {
		t.Errorf("%s: %v", four.JSON(), err)
	}
}

// A port that another process has is an error: devices know the node by it.
func TestPortTaken(t *testing.T) {
	a := server.Options{Dir: filepath.Join(t.TempDir(), "a"), Listen: []string{loopback}}
	c, _ := run(t, a)
	b := server.Options{Dir: filepath.Join(t.TempDir(), "b"), Listen: c.Nodes[0].Addresses}
	n, err := server.Open(b)
	if err == nil {
		err = errors.Join(n.Run(t.Context(), func(*network.Config) error { return nil }), n.Close())
	}
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
}

// What somebody changed in the folder is told, and not run with.
func TestFolderChanged(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"a key cut short": func(dir string) error { return os.Truncate(filepath.Join(dir, "node.key"), 10) },
		"another network's key": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "network.key"), []byte(strings.Repeat("ab", 32)+"\n"), 0o600)
		},
		"an edited configuration": func(dir string) error {
			p := filepath.Join(dir, server.ConfigFile)
			b, err := os.ReadFile(p)
			return errors.Join(err, os.WriteFile(p, bytes.Replace(b, []byte(`"epoch": 1`), []byte(`"epoch": 9`), 1), 0o600))
		},
		"no policy": func(dir string) error { return os.WriteFile(filepath.Join(dir, "policy.json"), []byte("{"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			opt := server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback}}
			_, stop := run(t, opt)
			stop()
			if err := change(opt.Dir); err != nil {
				t.Fatal(err)
			}
			if n, err := server.Open(opt); err == nil {
				t.Error("it is opened", n.Close())
			} else if errors.Is(err, server.ErrInUse) {
				t.Error(err)
			}
			if err := os.RemoveAll(opt.Dir); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	dir := t.TempDir()
	if err := server.ChangePolicy(dir, func(*server.Policy) error { return nil }); err == nil {
		t.Error("a folder that is no node's has a policy")
	}
	if err := os.WriteFile(filepath.Join(dir, "node.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 { // commands at the same time
		wg.Go(func() {
			if err := server.ChangePolicy(dir, func(p *server.Policy) error {
				p.Accounts = append(p.Accounts, string(rune('h'-i)), "a")
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	p, err := server.ReadPolicy(dir)
	if err != nil || strings.Join(p.Accounts, "") != "abcdefgh" {
		t.Errorf("%v, %v", p.Accounts, err)
	}
	if err := server.ChangePolicy(dir, func(p *server.Policy) error { p.Default = 5; return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Error(err)
	}
	if p, err := server.ReadPolicy(dir); err != nil || p.Default != 0 {
		t.Errorf("a change that failed is kept: %+v, %v", p, err)
	}
}
