package wire

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// Quota tells a device that a node takes no more changes and content of a space, as that would be beyond the quota: Used of Limit bytes. With a Limit
// of 0 it takes them again.
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
