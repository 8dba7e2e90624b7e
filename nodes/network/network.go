// Package network is what the nodes and the clients of a network know of it: its signed configuration.
//
// A network is one provider's nodes. Its ID is the public key that signs its configurations; of two configurations the one with the higher
// epoch holds. A configuration names the nodes with their kinds, addresses and capacities, and says into how many partitions spaces fall
// and on how many nodes each is; who serves a space follows from that alone, by the same table for everybody. It comes as a file (JSON) or
// as a link. ../NODES.md gives the bytes.
//
// The package does no I/O.
package network

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/canon"
)

// What is wrong with a configuration. Errors wrap one of these and say more.
var (
	ErrFormat    = errors.New("network: no network configuration")
	ErrVersion   = errors.New("network: made by a later version of anyfs")
	ErrSignature = errors.New("network: wrong signature")
	ErrEpoch     = errors.New("network: an epoch that is not higher")
	ErrOther     = errors.New("network: another network's configuration")
)

// Version is the version of configurations.
const Version = 1

// Limits fixed by the format.
const (
	MaxBytes      = 1 << 20 // of an encoding
	MaxNodes      = 4096
	MaxAddrs      = 16 // of a node
	MaxAddr       = 256
	MinPartitions = 10
	MaxPartitions = 1 << 20
	MaxReplicas   = 16
	MaxCapacity   = 1000
)

// What a configuration has unless its operator says otherwise.
const (
	DefaultPartitions  = 3000
	DefaultReplication = 3
)

// domain is what a configuration's signature begins with.
const domain = "anyfs/network/1\x00"

// ID names a network: the key that signs its configurations.
type ID = dag.PublicKey

// Kind is what a node does; a node may do several.
type Kind uint64

// The kinds. They are bits.
const (
	Coordinator Kind = 1 << iota
	Sync
	File
	Draining // it gives away what it has, and is given nothing; beside another kind
	kinds    // above all of them
)

var kindNames = []struct {
	k    Kind
	name string
}{{Coordinator, "coordinator"}, {Sync, "sync"}, {File, "file"}, {Draining, "draining"}}

// Names are those of the kinds that are set.
func (k Kind) Names() (out []string) {
	for _, n := range kindNames {
		if k&n.k != 0 {
			out = append(out, n.name)
		}
	}
	return out
}

// ParseKind reads one of the names.
func ParseKind(s string) (Kind, error) {
	for _, n := range kindNames {
		if n.name == s {
			return n.k, nil
		}
	}
	return 0, fmt.Errorf("%w: no kind of node %q", ErrFormat, s)
}

// Node is a node of a network.
type Node struct {
	Key       dag.PublicKey `cbor:"key"`   // its peer's
	Kinds     Kind          `cbor:"kinds"` // at least one
	Addresses []string      `cbor:"addrs"` // multiaddrs without /p2p, sorted
	Capacity  uint64        `cbor:"capacity"`
}

// Peer is the node's libp2p peer ID.
func (n *Node) Peer() string { return list.PeerID(n.Key) }

// Multiaddrs are the addresses with /p2p/ID.
func (n *Node) Multiaddrs() []string {
	out := make([]string, len(n.Addresses))
	for i, a := range n.Addresses {
		out[i] = a + "/p2p/" + n.Peer()
	}
	return out
}

// Config is the configuration of a network in one epoch.
type Config struct {
	Version     uint64   `cbor:"v"`
	ID          ID       `cbor:"id"`
	Signature   [64]byte `cbor:"sig"`
	Epoch       uint64   `cbor:"epoch"`      // from 1
	Nodes       []Node   `cbor:"nodes"`      // by key, ascending
	Partitions  uint64   `cbor:"partitions"` // 10 at least
	Replication uint64   `cbor:"replicas"`   // 1 at least
}

var encMode, decMode = canon.Modes(cbor.DecOptions{
	MaxNestedLevels: 5, MaxArrayElements: MaxNodes, MaxMapPairs: 16,
	DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
})

// anyMode reads the version of a configuration that has what this version does not know.
var _, anyMode = canon.Modes(cbor.DecOptions{MaxNestedLevels: 8, MaxArrayElements: MaxNodes, MaxMapPairs: 64, DupMapKey: cbor.DupMapKeyEnforcedAPF})

// text is what is signed.
func (c *Config) text() []byte {
	unsigned := *c
	unsigned.Signature = [64]byte{}
	b, err := encMode.Marshal(&unsigned)
	if err != nil {
		panic("network: encode: " + err.Error())
	}
	h := dag.Sum(b)
	return append([]byte(domain), h[:]...)
}

// Sign makes c a configuration of the network that the key names: it sorts what is to be sorted, and sets ID, version and signature.
func (c *Config) Sign(key ed25519.PrivateKey) error {
	c.Version, c.ID = Version, ID(key.Public().(ed25519.PublicKey))
	c.sort()
	if err := c.check(); err != nil {
		return err
	}
	copy(c.Signature[:], ed25519.Sign(key, c.text()))
	// Else nobody, this node included, would read it.
	if n := len(c.Encode()); n > MaxBytes {
		return fmt.Errorf("%w: %d nodes and their addresses take %d bytes of %d; let nodes go, or have them announce fewer addresses", ErrFormat, len(c.Nodes), n, MaxBytes)
	}
	return nil
}

func (c *Config) sort() {
	slices.SortFunc(c.Nodes, func(a, b Node) int { return dag.ID(a.Key).Compare(dag.ID(b.Key)) })
	for i := range c.Nodes {
		slices.Sort(c.Nodes[i].Addresses)
	}
}

// Verify returns ErrFormat or ErrVersion unless all is within its bounds, and ErrSignature unless the network's key signed it.
func (c *Config) Verify() error {
	if err := c.check(); err != nil {
		return err
	}
	if !ed25519.Verify(c.ID[:], c.text(), c.Signature[:]) {
		return fmt.Errorf("%w on the configuration of network %s", ErrSignature, Name(c.ID))
	}
	return nil
}

func (c *Config) check() error {
	if c.Version != Version {
		return fmt.Errorf("%w: version %d", ErrVersion, c.Version)
	}
	switch {
	case c.Epoch == 0:
		return fmt.Errorf("%w: epoch 0", ErrFormat)
	case len(c.Nodes) == 0 || len(c.Nodes) > MaxNodes:
		return fmt.Errorf("%w: %d nodes", ErrFormat, len(c.Nodes))
	case c.Partitions < MinPartitions || c.Partitions > MaxPartitions:
		return fmt.Errorf("%w: %d partitions", ErrFormat, c.Partitions)
	case c.Replication == 0 || c.Replication > MaxReplicas:
		return fmt.Errorf("%w: replication %d", ErrFormat, c.Replication)
	}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if i > 0 && dag.ID(c.Nodes[i-1].Key).Compare(dag.ID(n.Key)) >= 0 {
			return fmt.Errorf("%w: nodes not in order", ErrFormat)
		}
		if n.Kinds&^Draining == 0 || n.Kinds >= kinds || n.Capacity == 0 || n.Capacity > MaxCapacity {
			return fmt.Errorf("%w: node %s has kinds %d, capacity %d", ErrFormat, n.Peer(), n.Kinds, n.Capacity)
		}
		if err := CheckAddresses(n.Addresses); err != nil {
			return fmt.Errorf("%w: node %s: %w", ErrFormat, n.Peer(), err)
		}
	}
	return nil
}

// CheckAddresses says what keeps these, sorted and each once, from being the addresses of a node.
func CheckAddresses(addrs []string) error {
	if len(addrs) == 0 || len(addrs) > MaxAddrs {
		return fmt.Errorf("%d addresses; a node has 1 to %d", len(addrs), MaxAddrs)
	}
	for k, a := range addrs {
		if k > 0 && addrs[k-1] >= a {
			return errors.New("addresses not in order")
		}
		if err := checkAddr(a); err != nil {
			return err
		}
	}
	return nil
}

func checkAddr(s string) error {
	if len(s) > MaxAddr {
		return fmt.Errorf("an address of %d bytes; at most %d", len(s), MaxAddr)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("address %q is not UTF-8", s) // no text, and so not to be read back
	}
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return fmt.Errorf("address %q: %w", s, err)
	}
	if a.String() != s {
		return fmt.Errorf("address %q is written %q", s, a)
	}
	for _, p := range a.Protocols() {
		if p.Code == ma.P_P2P {
			return fmt.Errorf("address %q names a peer", s)
		}
	}
	return nil
}

// Encode returns the canonical encoding.
func (c *Config) Encode() []byte {
	b, err := encMode.Marshal(c)
	if err != nil {
		panic("network: encode: " + err.Error())
	}
	return b
}

// Decode reads what Encode wrote, refuses every other byte string, and verifies it.
func Decode(b []byte) (*Config, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	}
	c := new(Config)
	if err := decMode.Unmarshal(b, c); err != nil {
		var any struct {
			Version uint64 `cbor:"v"`
		}
		if anyMode.Unmarshal(b, &any) == nil && any.Version > Version {
			return nil, fmt.Errorf("%w: version %d", ErrVersion, any.Version)
		}
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := c.Verify(); err != nil {
		return nil, err
	}
	if !slices.Equal(c.Encode(), b) {
		return nil, fmt.Errorf("%w: not canonical", ErrFormat)
	}
	return c, nil
}

// Replaces returns nil if c may take the place of old: it is of the same network and of a higher epoch. Both are verified.
func (c *Config) Replaces(old *Config) error {
	if c.ID != old.ID {
		return fmt.Errorf("%w: %s, not %s", ErrOther, Name(c.ID), Name(old.ID))
	}
	if c.Epoch <= old.Epoch {
		return fmt.Errorf("%w: %d after %d", ErrEpoch, c.Epoch, old.Epoch)
	}
	return nil
}

// Name is the ID as people see it, as an account's identity is printed.
func Name(id ID) string { return list.FormatIdentity(id) }

// ParseName reads what Name wrote.
func ParseName(s string) (ID, error) {
	id, err := list.ParseIdentity(s)
	if err != nil {
		return id, fmt.Errorf("%w: %q names no network", ErrFormat, s)
	}
	return id, nil
}
