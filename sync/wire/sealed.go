package wire

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// MaxSealed is how many blocks a Sealed names at most.
const MaxSealed = 64

// Sealed names blocks of a space that the sender has sealed for what it is going to publish.
type Sealed struct {
	_     struct{} `cbor:",toarray"`
	T     head[Sealed]
	Space dag.ID
	IDs   List[block.ID]
}

func (Sealed) kind() Kind { return KindSealed }

func (m *Sealed) check() error {
	if len(m.IDs) == 0 || len(m.IDs) > MaxSealed {
		return fmt.Errorf("%d blocks", len(m.IDs))
	}
	return nil
}
