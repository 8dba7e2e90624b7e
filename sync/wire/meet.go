package wire

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// Limits of what a device and a node tell each other of other devices.
const (
	MaxPresent = 64             // devices of one message
	MaxSeen    = 256            // bytes of an address
	NoTag      = MaxPairTag + 1 // in the place of a code's tag: no code is shown
)

// Meet tells a node whether the sender can be reached through it, and the tag of the code that it shows; NoTag where it shows none. It may be
// said again.
type Meet struct {
	_    struct{} `cbor:",toarray"`
	T    head[Meet]
	Slot bool
	Tag  uint64
}

// Seen tells a device the address that it has as the node sees it: a multiaddr without /p2p.
type Seen struct {
	_    struct{} `cbor:",toarray"`
	T    head[Seen]
	Addr string
}

// Present names devices that can be reached through the node, in the place of those that it named before: those with which the receiver has a
// space in common, or that show the code which it looks for.
type Present struct {
	_       struct{} `cbor:",toarray"`
	T       head[Present]
	Devices List[dag.PublicKey]
}

// Lookup asks a node which devices show a code with a tag.
type Lookup struct {
	_   struct{} `cbor:",toarray"`
	T   head[Lookup]
	Tag uint64
}

func (Meet) kind() Kind    { return KindMeet }
func (Seen) kind() Kind    { return KindSeen }
func (Present) kind() Kind { return KindPresent }
func (Lookup) kind() Kind  { return KindLookup }

func (m *Meet) check() error {
	if m.Tag > NoTag {
		return fmt.Errorf("tag %d", m.Tag)
	}
	return nil
}

func (m *Seen) check() error {
	if len(m.Addr) == 0 || len(m.Addr) > MaxSeen {
		return fmt.Errorf("an address of %d bytes", len(m.Addr))
	}
	return nil
}

func (m *Present) check() error {
	if len(m.Devices) > MaxPresent {
		return fmt.Errorf("%d devices", len(m.Devices))
	}
	return nil
}

func (m *Lookup) check() error {
	if m.Tag > MaxPairTag {
		return fmt.Errorf("tag %d", m.Tag)
	}
	return nil
}
