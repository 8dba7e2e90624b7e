package wire

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// Quota tells a device that a node takes no more changes and content of a space, as that would be beyond the quota: Used of Limit bytes. With a Limit
// of 0 it takes them again. On a stream of its own (ProtocolRoom) it answers how much is used of what; a Limit of 0 is none there.
type Quota struct {
	_     struct{} `cbor:",toarray"`
	T     head[Quota]
	Space dag.ID
	Used  uint64
	Limit uint64
}

func (Quota) kind() Kind { return KindQuota }

func (m *Quota) check() error {
	if m.Limit == 0 && m.Used != 0 || m.Used > 1<<62 || m.Limit > 1<<62 {
		return fmt.Errorf("%d of %d bytes", m.Used, m.Limit)
	}
	return nil
}

// Place is the word of a space's owner, by one of its devices, on whether the space is to be on a network. Of two about one space the one with the higher
// counter holds, and of equal counters the one that says yes. To a device it answers what it said: with what holds at the node then, and a counter of 0
// where the node does not say.
type Place struct {
	_           struct{} `cbor:",toarray"`
	T           head[Place]
	Space       dag.ID
	On          bool
	Counter     uint64
	Certificate []byte // of the device; empty in an answer
	Signature   [64]byte
}

func (Place) kind() Kind { return KindPlace }

func (m *Place) check() error {
	if len(m.Certificate) > MaxCert {
		return fmt.Errorf("a certificate of %d bytes", len(m.Certificate))
	}
	return nil
}
