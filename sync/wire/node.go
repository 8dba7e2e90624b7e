package wire

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// Spaces tells a node which spaces a device wants of it.
type Spaces struct {
	_   struct{} `cbor:",toarray"`
	T   head[Spaces]
	IDs List[dag.ID]
}

// Served names spaces, of those that the device wants, that the node serves to it. Absent names the others.
type Served struct {
	_   struct{} `cbor:",toarray"`
	T   head[Served]
	IDs List[dag.ID]
}

// PutBlock gives a node bytes of a block: those that follow the last PutBlock of the request. Left is what follows these.
type PutBlock struct {
	_       struct{} `cbor:",toarray"`
	T       head[PutBlock]
	Request uint64
	ID      block.ID
	Left    uint64
	Data    []byte
}

// Content names spaces of which content has come to the sender that it did not publish: what it lacked it may have now.
type Content struct {
	_   struct{} `cbor:",toarray"`
	T   head[Content]
	IDs List[dag.ID]
}

func (Content) kind() Kind { return KindContent }

func (m *Content) check() error { return checkIDs(ACL, len(m.IDs)) }

// Network tells a device the configuration of the node's network, as the network signed it.
type Network struct {
	_      struct{} `cbor:",toarray"`
	T      head[Network]
	Config []byte
}

// MaxConfig is the length in bytes of the longest configuration.
const MaxConfig = 1 << 20

func (Network) kind() Kind { return KindNetwork }

func (m *Network) check() error {
	if len(m.Config) == 0 || len(m.Config) > MaxConfig {
		return fmt.Errorf("a configuration of %d bytes", len(m.Config))
	}
	return nil
}

func (Spaces) kind() Kind   { return KindSpaces }
func (Served) kind() Kind   { return KindServed }
func (PutBlock) kind() Kind { return KindPutBlock }

func (m *Spaces) check() error { return checkIDs(ACL, len(m.IDs)) }
func (m *Served) check() error { return checkIDs(ACL, len(m.IDs)) }

func (m *PutBlock) check() error {
	if len(m.Data) > MaxPart || m.Left > block.MaxSize || m.Left > 0 && len(m.Data) == 0 {
		return fmt.Errorf("%d bytes, %d left", len(m.Data), m.Left)
	}
	return nil
}

// Join asks a coordinator to take the sender into the network, or, without a token, to take its addresses over where it is in it.
type Join struct {
	_        struct{} `cbor:",toarray"`
	T        head[Join]
	Token    []byte
	Kinds    uint64
	Capacity uint64
	Addrs    []string
}

// Limits of Join.
const (
	MaxToken     = 64  // bytes
	MaxJoinAddrs = 16  // addresses
	MaxJoinAddr  = 256 // bytes of one
)

func (Join) kind() Kind { return KindJoin }

func (m *Join) check() error {
	if len(m.Token) > MaxToken || len(m.Addrs) == 0 || len(m.Addrs) > MaxJoinAddrs {
		return fmt.Errorf("a token of %d bytes, %d addresses", len(m.Token), len(m.Addrs))
	}
	for _, a := range m.Addrs {
		if len(a) > MaxJoinAddr {
			return fmt.Errorf("an address of %d bytes", len(a))
		}
	}
	return nil
}

// HasBatches asks a node which batches of a graph it holds durably, each with its past; another node of its network does. HeldBlocks answers.
type HasBatches struct {
	_       struct{} `cbor:",toarray"`
	T       head[HasBatches]
	Request uint64
	Graph   Graph
	IDs     List[dag.ID]
}

func (HasBatches) kind() Kind { return KindHasBatches }

func (m *HasBatches) check() error { return checkIDs(m.Graph, len(m.IDs)) }
