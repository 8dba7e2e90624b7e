package server_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/server"
)

// within waits for something.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// tokenOf has a coordinator make a token.
func tokenOf(t *testing.T, dir string, within time.Duration) []byte {
	t.Helper()
	s, err := server.AskToken(t.Context(), dir, within)
	if err != nil {
		t.Fatal(err)
	}
	b, err := server.ParseToken(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused runs a node that is not taken in, and gives why.
func refused(t *testing.T, opt server.Options) error {
	t.Helper()
	n, err := server.Open(opt)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = n.Run(ctx, func(*network.Config) error { return errors.New("it was taken in") })
	if cerr := n.Close(); cerr != nil {
		t.Error(cerr)
	}
	return err
}

func coordinator(t *testing.T) (server.Options, *network.Config, func()) {
	t.Helper()
	opt := server.Options{Dir: filepath.Join(t.TempDir(), "coordinator"), Listen: []string{loopback}, Kind: network.Coordinator}
	c, stop := run(t, opt)
	return opt, c, stop
}

func member(t *testing.T, kind network.Kind, c *network.Config, token []byte) server.Options {
	t.Helper()
	return server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback}, Kind: kind, Network: c, Token: token}
}

// A token takes one node in, within its time, and is in no file.
func TestTokens(t *testing.T) {
	at, c, _ := coordinator(t)
	good := tokenOf(t, at.Dir, time.Hour)
	b, err := os.ReadFile(filepath.Join(at.Dir, "tokens.json"))
	if err != nil || !strings.Contains(string(b), "hash") {
		t.Fatalf("%s, %v", b, err)
	}
	err = filepath.WalkDir(at.Dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var f []byte
			if f, err = os.ReadFile(p); strings.Contains(string(f), string(good)) {
				t.Errorf("%s has the token", p)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	short := tokenOf(t, at.Dir, 50*time.Millisecond)
	time.Sleep(100 * time.Millisecond)
	wrong := slices.Clone(good)
	wrong[0]++
	for name, token := range map[string][]byte{"wrong": wrong, "expired": short, "cut": good[:31]} {
		if err := refused(t, member(t, network.Sync, c, token)); err == nil || !strings.Contains(err.Error(), "does not take the node in") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := refused(t, member(t, network.Sync, c, nil)); err == nil || !strings.Contains(err.Error(), "--token") {
		t.Errorf("none: %v", err)
	}
	first := member(t, network.Sync, c, good)
	two, stop := run(t, first)
	if err := two.Replaces(c); err != nil || len(two.Nodes) != 2 {
		t.Fatalf("%s: %v", two.JSON(), err)
	}
	if err := refused(t, member(t, network.File, c, good)); err == nil || !strings.Contains(err.Error(), "does not take the node in") {
		t.Errorf("a second time: %v", err)
	}
	if list, err := server.AskNodes(t.Context(), at.Dir); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	// Its own token is not asked for again, and where it moves to is told to all.
	stop()
	first.Token, first.Network, first.Announce = nil, nil, []string{"/ip4/203.0.113.5/tcp/7328"}
	_, _ = run(t, first)
	within(t, "the coordinator does not know where the node is", func() bool {
		list, err := server.AskNodes(t.Context(), at.Dir)
		return err == nil && slices.ContainsFunc(list, func(x server.NodeInfo) bool { return slices.Equal(x.Addresses, first.Announce) })
	})
	if _, err := server.AskToken(t.Context(), first.Dir, time.Hour); !errors.Is(err, server.ErrNoCoordinator) {
		t.Errorf("a sync node makes a token: %v", err)
	}
	if err := server.AskRemove(t.Context(), first.Dir, list0(two)); !errors.Is(err, server.ErrNoCoordinator) {
		t.Errorf("a sync node removes: %v", err)
	}
}

// What an operator announces that no node may have is said, before anybody is asked.
func TestAnnouncedAddresses(t *testing.T) {
	at, c, _ := coordinator(t)
	token := tokenOf(t, at.Dir, time.Hour)
	var many []string
	for n := range network.MaxAddrs + 1 {
		many = append(many, fmt.Sprintf("/ip4/203.0.113.%d/tcp/7328", n))
	}
	for name, announce := range map[string][]string{"many": many, "long": {"/dns4/" + strings.Repeat("a", network.MaxAddr) + "/tcp/7328"}, "none": {"example.org:7328"}} {
		opt := member(t, network.Sync, c, token)
		opt.Announce = announce
		if err := refused(t, opt); err == nil || !strings.Contains(err.Error(), "--announce") {
			t.Errorf("%s: %v", name, err)
		}
		if err := start(t, server.Options{Dir: t.TempDir(), Listen: []string{loopback}, Kind: network.Coordinator, Announce: announce}); err == nil || !strings.Contains(err.Error(), "--announce") {
			t.Errorf("%s, of a coordinator: %v", name, err)
		}
	}
}

func list0(c *network.Config) string { return c.Nodes[0].Peer() }

// A new epoch comes to every node, also from one that is no coordinator; one that was removed is spoken to by nobody.
func TestEpochsReachNodes(t *testing.T) {
	at, c, stop := coordinator(t)
	var members []server.Options
	for _, kind := range []network.Kind{network.Sync, network.Sync, network.File} {
		m := member(t, kind, c, tokenOf(t, at.Dir, time.Hour))
		_, _ = run(t, m)
		members = append(members, m)
	}
	epochs := func(want uint64, nodes int, of ...server.Options) func() bool {
		return func() bool {
			for _, m := range of {
				if s, err := server.AskStatus(t.Context(), m.Dir); err != nil || s.Epoch != want || s.Nodes != nodes {
					return false
				}
			}
			return true
		}
	}
	within(t, "all are connected", epochs(4, 3, append(members, at)...))
	gone, err := server.AskStatus(t.Context(), members[1].Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.AskDrain(t.Context(), at.Dir, gone.PeerID); err != nil {
		t.Fatal(err)
	}
	within(t, "draining is told", func() bool {
		s, err := server.AskStatus(t.Context(), members[1].Dir)
		return err == nil && s.Draining && s.Epoch == 5
	})
	other, err := server.AskStatus(t.Context(), members[0].Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.AskDrain(t.Context(), at.Dir, other.PeerID); err == nil || !strings.Contains(err.Error(), "last sync node") {
		t.Errorf("the last one is drained: %v", err)
	}
	if err := server.AskRemove(t.Context(), at.Dir, "12D3"); !errors.Is(err, server.ErrUnknownNode) {
		t.Errorf("which one?: %v", err)
	}
	if err := server.AskRemove(t.Context(), at.Dir, gone.PeerID); err != nil {
		t.Fatal(err)
	}
	within(t, "it is gone for the others", epochs(6, 2, members[0], members[2], at))
	within(t, "nobody speaks to it", epochs(6, 0, members[1]))
	stop() // the coordinator

	// A node that was away has the epoch from another.
	b, err := os.ReadFile(filepath.Join(members[0].Dir, server.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	now, err := network.Parse(b)
	if err != nil || now.Epoch != 6 || now.Verify() != nil {
		t.Fatalf("%s, %v", b, err)
	}
	within(t, "the rest go on without the coordinator", epochs(6, 1, members[0], members[2]))
}
