package integration

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/network"
)

// grow gives the network of a node that is stopped so many nodes more, which nobody can reach and which hold nothing.
func (n *Node) grow(more int) {
	n.t.Helper()
	seed, err := os.ReadFile(filepath.Join(n.Dir, "network.key"))
	check(n.t, err)
	key, err := hex.DecodeString(strings.TrimSpace(string(seed)))
	check(n.t, err)
	file, err := os.ReadFile(n.File())
	check(n.t, err)
	c, err := network.Parse(file)
	check(n.t, err)
	for i := range more {
		c.Nodes = append(c.Nodes, network.Node{
			Key: dag.PublicKey(dag.Sum(fmt.Append(nil, "node ", i))), Kinds: network.Sync | network.Draining, Capacity: 1,
			Addresses: []string{fmt.Sprintf("/ip4/127.0.99.%d/tcp/1", 1+i%250)},
		})
	}
	c.Epoch++
	check(n.t, c.Sign(ed25519.NewKeyFromSeed(key)))
	check(n.t, os.WriteFile(n.File(), c.JSON(), 0o600))
}

// A network of so many nodes that its configuration has no room in the home space is known to a device that comes by another, and to the members of a space
// that is shared: they are told where to ask for it.
func TestNetworkOfManyNodes(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t, "--no-relay")
	node.Stop()
	node.grow(300)
	node.Start()
	d := &Devices{t: t}
	var homes []*Home
	for i := range 3 {
		h := NewHome(t)
		h.Listen = "/ip4/127.0.0.1/tcp/0"
		if i == 1 {
			d.login(h, i)
		}
		h.Mount("--no-discovery")
		homes, d.All = append(homes, h), append(d.All, h)
	}
	a, b, c := homes[0], homes[1], homes[2]
	a.Must("network", "add", node.File())
	check(t, os.WriteFile(a.Personal("file"), []byte("content"), 0o644))
	a.Sync()
	knows := func(h *Home) {
		t.Helper()
		h.eventually("the network is known and its node connected", func() error {
			var list []struct {
				ID    string     `json:"id"`
				Nodes []struct{} `json:"nodes"`
			}
			check(t, json.Unmarshal([]byte(h.Must("network", "list", "--json")), &list))
			if len(list) != 1 || list[0].ID != node.netID() || len(list[0].Nodes) != 301 {
				return fmt.Errorf("%d networks: %.300s", len(list), h.Must("network", "list"))
			}
			if s := h.SyncStatus(); len(s.Peers) == 0 {
				return fmt.Errorf("no node is connected")
			}
			return nil
		})
	}
	d.Connect(a, b)
	knows(b)
	a.Must("space", "create", "Team")
	a.Sync()
	c.Must("join", strings.TrimSpace(a.Must("invite", "Team", "--open")), "--wait")
	knows(c)
	for _, h := range []*Home{b, c} {
		h.eventually("the space is there", func() error { _, err := os.Stat(filepath.Join(h.Mnt, "Team")); return err })
	}
	// The node alone is left between them.
	a.Unmount()
	check(t, os.WriteFile(b.Personal("second"), []byte("more"), 0o644), os.WriteFile(filepath.Join(b.Mnt, "Team", "by b"), noise(1, 200<<10), 0o644))
	b.Sync()
	b.Unmount()
	c.eventually("what b wrote is there", func() error { return wantBytes(filepath.Join(c.Mnt, "Team", "by b"), noise(1, 200<<10)) })
}
