package network

import (
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/canon"
)

// Bounds of a contact: with them it has at most 10 KiB.
const (
	contactNodes = 8
	contactAddrs = 4
)

// Contact is where a network's configuration is asked for, for a place in which that has no room: a network of a thousand nodes has one of 150 KB. It is
// not signed and proves nothing: what the nodes in it give is a configuration that is.
type Contact struct {
	Version uint64        `cbor:"v"`
	ID      ID            `cbor:"id"`
	Epoch   uint64        `cbor:"contact"` // of the configuration that it was made from
	Nodes   []ContactNode `cbor:"nodes"`   // by key, ascending
}

// ContactNode is a node in a Contact.
type ContactNode struct {
	Key       dag.PublicKey `cbor:"key"`
	Addresses []string      `cbor:"addrs"` // multiaddrs without /p2p, sorted
}

var contactEnc, contactDec = canon.Modes(cbor.DecOptions{
	MaxNestedLevels: 5, MaxArrayElements: 16, MaxMapPairs: 16,
	DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
})

// Multiaddrs are the addresses with /p2p/ID.
func (n *ContactNode) Multiaddrs() []string {
	node := Node{Key: n.Key, Addresses: n.Addresses}
	return node.Multiaddrs()
}

// Contact makes the contact of a configuration: the same one wherever it is made. Coordinators come first, as they hear of a new epoch before the others.
func (c *Config) Contact() *Contact {
	nodes := slices.Clone(c.Nodes)
	slices.SortStableFunc(nodes, func(a, b Node) int { return int(b.Kinds&Coordinator) - int(a.Kinds&Coordinator) })
	x := &Contact{Version: Version, ID: c.ID, Epoch: c.Epoch}
	for _, n := range nodes[:min(len(nodes), contactNodes)] {
		x.Nodes = append(x.Nodes, ContactNode{n.Key, n.Addresses[:min(len(n.Addresses), contactAddrs)]})
	}
	slices.SortFunc(x.Nodes, func(a, b ContactNode) int { return dag.ID(a.Key).Compare(dag.ID(b.Key)) })
	return x
}

// Encode returns the canonical encoding.
func (x *Contact) Encode() []byte {
	b, err := contactEnc.Marshal(x)
	if err != nil {
		panic("network: encode: " + err.Error())
	}
	return b
}

// DecodeContact reads what Contact.Encode wrote, and refuses every other byte string.
func DecodeContact(b []byte) (*Contact, error) {
	x := new(Contact)
	if err := contactDec.Unmarshal(b, x); err != nil {
		return nil, fmt.Errorf("%w: a contact: %w", ErrFormat, err)
	}
	switch {
	case x.Version != Version:
		return nil, fmt.Errorf("%w: a contact of version %d", ErrVersion, x.Version)
	case x.Epoch == 0 || len(x.Nodes) == 0 || len(x.Nodes) > contactNodes:
		return nil, fmt.Errorf("%w: a contact of epoch %d with %d nodes", ErrFormat, x.Epoch, len(x.Nodes))
	}
	for i := range x.Nodes {
		n := &x.Nodes[i]
		if i > 0 && dag.ID(x.Nodes[i-1].Key).Compare(dag.ID(n.Key)) >= 0 || len(n.Addresses) == 0 || len(n.Addresses) > contactAddrs || !slices.IsSorted(n.Addresses) {
			return nil, fmt.Errorf("%w: node %s of a contact", ErrFormat, list.PeerID(n.Key))
		}
		for _, a := range n.Addresses {
			if err := checkAddr(a); err != nil {
				return nil, fmt.Errorf("%w: node %s of a contact: %w", ErrFormat, list.PeerID(n.Key), err)
			}
		}
	}
	if !slices.Equal(x.Encode(), b) {
		return nil, fmt.Errorf("%w: a contact that is not canonical", ErrFormat)
	}
	return x, nil
}
