package network

import (
	"encoding/hex"
	"fmt"

	"github.com/anyproto/go-chash"

	"github.com/anyfs/anyfs/dag"
)

// Placement says which nodes of one kind have what, by the consistent hashing of go-chash. It is a function of the configuration: all nodes
// and clients of an epoch come to the same. It is safe for concurrent use.
type Placement struct {
	table chash.CHash
	nodes map[string]*Node
}

// member is a node in the table.
type member struct{ n *Node }

func (m member) Id() string        { return hex.EncodeToString(m.n.Key[:]) } //nolint:revive // go-chash's name
func (m member) Capacity() float64 { return float64(m.n.Capacity) }

// Place distributes the nodes of a kind that are not draining over the partitions. There is none where the configuration has no such node.
func (c *Config) Place(k Kind) (*Placement, error) {
	p := &Placement{nodes: make(map[string]*Node)}
	var members []chash.Member
	for i := range c.Nodes {
		if n := &c.Nodes[i]; n.Kinds&k != 0 && n.Kinds&Draining == 0 {
			m := member{n}
			members = append(members, m)
			p.nodes[m.Id()] = n
		}
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("%w: no node of kind %v", ErrFormat, k.Names())
	}
	var err error
	p.table, err = chash.New(chash.Config{PartitionCount: c.Partitions, ReplicationFactor: int(c.Replication)})
	if err == nil {
		err = p.table.AddMembers(members...)
	}
	if err != nil {
		return nil, fmt.Errorf("network: place %d nodes: %w", len(members), err)
	}
	return p, nil
}

// Of gives the nodes of a space, as many as the replication says or as there are; the first is the one to ask first.
func (p *Placement) Of(space dag.ID) []*Node {
	members := p.table.GetMembers(hex.EncodeToString(space[:]))
	out := make([]*Node, len(members))
	for i, m := range members {
		out[i] = p.nodes[m.Id()]
	}
	return out
}

// Has reports whether a node is among those of a space.
func (p *Placement) Has(space dag.ID, node dag.PublicKey) bool {
	for _, n := range p.Of(space) {
		if n.Key == node {
			return true
		}
	}
	return false
}

// Table says which nodes have what in one epoch. It is safe for concurrent use.
type Table struct {
	Config *Config
	graphs *Placement // nil: no node has any
	blocks *Placement
}

// Table gives that of the configuration.
func (c *Config) Table() (*Table, error) {
	t := &Table{Config: c}
	for kind, p := range map[Kind]**Placement{Sync: &t.graphs, File: &t.blocks} {
		some := false
		for i := range c.Nodes {
			some = some || c.Nodes[i].Kinds&kind != 0 && c.Nodes[i].Kinds&Draining == 0
		}
		if !some {
			continue
		}
		var err error
		if *p, err = c.Place(kind); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Node gives a node of the configuration; nil: it is none.
func (t *Table) Node(key dag.PublicKey) *Node {
	for i := range t.Config.Nodes {
		if t.Config.Nodes[i].Key == key {
			return &t.Config.Nodes[i]
		}
	}
	return nil
}

// Graphs gives the nodes that are to have the changes of a space, Blocks those that are to have its content. All of them have its access list.
func (t *Table) Graphs(space dag.ID) []*Node { return t.graphs.of(space) }

// Blocks see Graphs.
func (t *Table) Blocks(space dag.ID) []*Node { return t.blocks.of(space) }

func (p *Placement) of(space dag.ID) []*Node {
	if p == nil {
		return nil
	}
	return p.Of(space)
}

// HasBlocks reports whether a node is to have the content of a space.
func (t *Table) HasBlocks(space dag.ID, node dag.PublicKey) bool {
	return t.blocks != nil && t.blocks.Has(space, node)
}

// Has reports whether a node is to have anything of a space.
func (t *Table) Has(space dag.ID, node dag.PublicKey) bool {
	return t.graphs != nil && t.graphs.Has(space, node) || t.HasBlocks(space, node)
}
