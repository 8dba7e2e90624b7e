package spaces_test

import (
	"bytes"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/spaces"
)

// Of the account of 32 zeros, which is no account's but a point of order four, anybody can sign: a node, which has no account, must not take who
// says that he is of it for a device of its own.
func TestAccountOfZeros(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{})
	k := newKeys(t)
	s := strangerAs(t, n, k, forged(t, k.Device.PublicKey()))
	if m, err := s.visit.Read(); err == nil {
		t.Errorf("it is answered %T", m)
	}
}

// forged is a certificate of the account of 32 zeros.
func forged(t testing.TB, device dag.PublicKey) *list.Certificate {
	c := &list.Certificate{Device: device, HPKE: bytes.Repeat([]byte{1}, list.HPKEBytes)}
	for c.Serial = 1; c.Serial < 1000; c.Serial++ {
		// R is the neutral element and s is 0: right where the hash is 0 modulo four.
		c.Signature = [64]byte{1}
		if c.Verify() == nil {
			return c
		}
	}
	t.Fatal("none verifies")
	return nil
}
