package wire

import "github.com/anyfs/anyfs/dag"

// Guest proves an invitation to a space, before the sender is in it: Key is the invitation's, and signs for this connection.
type Guest struct {
	_         struct{} `cbor:",toarray"`
	T         head[Guest]
	Space     dag.ID
	Key       dag.PublicKey
	Signature [64]byte
}

func (Guest) kind() Kind { return KindGuest }

func (m *Guest) check() error { return nil }
