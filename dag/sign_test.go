package dag_test

import (
	"crypto/ed25519"

	"github.com/anyfs/anyfs/dag"
)

func signBatch(b *dag.Batch, a dag.Author) {
	copy(b.Signature[:], ed25519.Sign(a.Key, b.SigningBytes()))
}
