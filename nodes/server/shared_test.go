package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/server"
	"github.com/anyfs/anyfs/nodes/server/etcdtest"
)

// team is two coordinators of one network on one etcd.
type team struct {
	etcd *etcdtest.Server
	opt  [2]server.Options
	stop [2]func()
}

func newTeam(t *testing.T) *team {
	t.Helper()
	m := &team{etcd: etcdtest.Start(t)}
	for i, name := range []string{"one", "two"} {
		m.opt[i] = server.Options{Dir: filepath.Join(t.TempDir(), name), Listen: []string{loopback}, Kind: network.Coordinator, Etcd: []string{m.etcd.URL}}
	}
	first, stop := run(t, m.opt[0])
	m.stop[0] = stop
	// A second one that lacks the network's key makes no other network.
	if _, err := server.Open(m.opt[1]); err == nil || !strings.Contains(err.Error(), "network.key") || !strings.Contains(err.Error(), network.Name(first.ID)) {
		t.Fatalf("a coordinator without the key: %v", err)
	}
	copyKey(t, m.opt[0].Dir, m.opt[1].Dir)
	second, stop := run(t, m.opt[1])
	m.stop[1] = stop
	if second.ID != first.ID || second.Epoch <= first.Epoch || len(second.Nodes) != 2 {
		t.Fatalf("epoch %d after %d, %d nodes", second.Epoch, first.Epoch, len(second.Nodes))
	}
	within(t, "the first hears of the second", func() bool { return len(m.nodes(t, 0)) == 2 })
	return m
}

func copyKey(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, "network.key"))
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "network.key"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *team) nodes(t *testing.T, i int) []server.NodeInfo {
	t.Helper()
	list, err := server.AskNodes(t.Context(), m.opt[i].Dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (m *team) config(t *testing.T, i int) *network.Config {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.opt[i].Dir, server.ConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	c, err := network.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// join has a node join with a token of coordinator i.
func (m *team) join(t *testing.T, i int, name string) (c *network.Config, peer string, stop func()) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	c, stop = run(t, server.Options{Dir: dir, Listen: []string{loopback}, Kind: network.Sync, Network: m.config(t, i), Token: tokenOf(t, m.opt[i].Dir, time.Hour)})
	s, err := server.AskStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return c, s.PeerID, stop
}

// What both change at once is all there, each in an epoch of its own.
func TestCoordinatorsAtOnce(t *testing.T) {
	m := newTeam(t)
	var peers []string
	for i := range 4 {
		_, peer, _ := m.join(t, i%2, "node")
		peers = append(peers, peer)
	}
	within(t, "both know all nodes", func() bool { return len(m.nodes(t, 0)) == 6 && len(m.nodes(t, 1)) == 6 })
	before := m.config(t, 0).Epoch
	var wg sync.WaitGroup
	for i, peer := range peers[:2] {
		wg.Go(func() {
			if err := server.AskDrain(t.Context(), m.opt[i].Dir, peer); err != nil {
				t.Error(err)
			}
		})
	}
	tokens := make(chan string, 20)
	for i := range cap(tokens) {
		wg.Go(func() {
			s, err := server.AskToken(t.Context(), m.opt[i%2].Dir, time.Hour)
			if err != nil {
				t.Error(err)
			}
			tokens <- s
		})
	}
	wg.Wait()
	close(tokens)
	within(t, "both know what both did", func() bool { return m.config(t, 0).Epoch == before+2 && m.config(t, 1).Epoch == before+2 })
	if a, b := m.config(t, 0), m.config(t, 1); a.Link() != b.Link() {
		t.Errorf("they have two configurations of epoch %d", a.Epoch)
	}
	draining := 0
	for _, x := range m.nodes(t, 0) {
		if x.Draining {
			draining++
		}
	}
	if draining != 2 {
		t.Errorf("%d nodes drain", draining)
	}
	// Each of the tokens works once, with whichever coordinator, though they were made at once.
	var last []byte
	for s := range tokens {
		b, err := server.ParseToken(s)
		if err != nil {
			t.Fatal(err)
		}
		last = b
	}
	opt := server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback}, Kind: network.Sync, Network: m.config(t, 1), Token: last}
	run(t, opt)
	opt.Dir = filepath.Join(t.TempDir(), "again")
	if err := refused(t, opt); err == nil {
		t.Error("a token worked twice")
	}
}

// One coordinator is enough: nodes join, and drain, while the other is gone for good.
func TestOneCoordinatorSurvives(t *testing.T) {
	m := newTeam(t)
	s := tokenOf(t, m.opt[0].Dir, time.Hour)
	c := m.config(t, 0)
	m.stop[0]()
	after, _ := run(t, server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback}, Kind: network.Sync, Network: c, Token: s})
	if after.Epoch <= c.Epoch || len(after.Nodes) != 3 {
		t.Errorf("epoch %d after %d, %d nodes", after.Epoch, c.Epoch, len(after.Nodes))
	}
	for _, x := range m.nodes(t, 1) {
		if !x.Self && x.Kinds[0] == "coordinator" {
			if err := server.AskRemove(t.Context(), m.opt[1].Dir, x.PeerID); err != nil {
				t.Error(err)
			}
		}
	}
	if n := len(m.nodes(t, 1)); n != 2 {
		t.Errorf("%d nodes are left", n)
	}
}

// While etcd is away nothing changes, and all that is known holds, for a coordinator that starts then too. When it is back, with what it had or
// without, all goes on.
func TestEtcdAway(t *testing.T) {
	m := newTeam(t)
	_, peer, _ := m.join(t, 0, "node")
	m.join(t, 1, "node")
	within(t, "both know all nodes", func() bool { return len(m.nodes(t, 0)) == 4 && len(m.nodes(t, 1)) == 4 })
	before := m.config(t, 0)
	m.etcd.Stop()
	if _, err := server.AskToken(t.Context(), m.opt[0].Dir, time.Hour); err == nil || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("a token while etcd is away: %v", err)
	}
	m.stop[1]()
	again, stop := run(t, m.opt[1])
	m.stop[1] = stop
	if again.Epoch != before.Epoch || len(again.Nodes) != 4 {
		t.Errorf("epoch %d and %d nodes, not %d", again.Epoch, len(again.Nodes), before.Epoch)
	}
	m.etcd.Start()
	within(t, "a node drains after etcd is back", func() bool { return server.AskDrain(t.Context(), m.opt[1].Dir, peer) == nil })
	within(t, "the other hears of it", func() bool { return m.config(t, 0).Epoch == before.Epoch+1 })

	m.etcd.Stop()
	m.etcd.Wipe()
	m.etcd.Start()
	within(t, "a node is removed after etcd was lost", func() bool { return server.AskRemove(t.Context(), m.opt[0].Dir, peer) == nil })
	within(t, "both know that", func() bool {
		return m.config(t, 0).Epoch > before.Epoch+1 && m.config(t, 0).Epoch == m.config(t, 1).Epoch
	})
	if a, b := m.config(t, 0), m.config(t, 1); a.Link() != b.Link() || len(a.Nodes) != 3 {
		t.Errorf("two configurations of epoch %d, or %d nodes", a.Epoch, len(a.Nodes))
	}
}
