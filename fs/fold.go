package fs

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// machine is how a graph folds the objects of a space.
func (s *space) machine(object dag.ID) *dag.Machine[*tree.State, *tree.Payload] {
	return &dag.Machine[*tree.State, *tree.Payload]{
		Open: func(e dag.Entry) (*tree.Payload, []byte, error) {
			p, err := s.open(&e)
			switch {
			case errors.Is(err, seal.ErrNoKey):
				return nil, nil, err // it may come
			case err != nil:
				return nil, nil, fmt.Errorf("%w: %w", dag.ErrEmpty, err)
			}
			return p, p.Snapshot, nil
		},
		New: func() *tree.State {
			if object == tree.RootObject(s.id) {
				return tree.NewRootState(s.id)
			}
			return tree.NewState(object)
		},
		Apply: func(st *tree.State, e dag.Entry, p *tree.Payload) *tree.State {
			// Entries come in total order: Apply can't refuse one.
			if err := st.Apply(tree.Stamp{ID: e.ID, Pos: e.Pos, Device: e.Change.Device}, p); err != nil {
				s.h.report(fmt.Sprintf("space %s: fold", s.id), err)
			}
			return st
		},
		Encode: (*tree.State).Encode,
		Decode: tree.DecodeState,
		Size:   (*tree.Payload).Memory,
	}
}

// trust keeps in the index which snapshots this device made or found right.
type trust struct{ s *space }

var _ dag.Trust = trust{}

func trustKey(id dag.ID) string { return "trust " + hex.EncodeToString(id[:12]) }

// Trusted implements dag.Trust.
func (t trust) Trusted(change dag.ID) bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	v, err := t.s.ix.Value(trustKey(change))
	return err == nil && v != nil
}

// Trust implements dag.Trust.
func (t trust) Trust(change dag.ID) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.ix.SetValue(trustKey(change), []byte{1})
}

// heldTrust is trust for who holds mu.
type heldTrust struct{ trust }

// Trusted implements dag.Trust.
func (t heldTrust) Trusted(change dag.ID) bool {
	v, err := t.s.ix.Value(trustKey(change))
	return err == nil && v != nil
}

// Trust implements dag.Trust.
func (t heldTrust) Trust(change dag.ID) { t.s.ix.SetValue(trustKey(change), []byte{1}) }

// stateOf folds an object, from the newest snapshot that is trusted on, and says what it cost.
func (s *space) stateOf(object dag.ID) (*tree.State, dag.Cost, error) {
	return s.machine(object).Fold(s.graph, object, trust{s})
}

// maxSnapshot is the longest state that is put into a change.
const maxSnapshot = 256 << 10

// coin is one in how many changes of an object considers a snapshot at all: considering one means folding the object.
const coin = 16

// snapshot gives the state of an object, when the next change is to carry it. heads are the parents of that change.
func (s *space) snapshot(object dag.ID, heads []dag.ID) []byte {
	if object.IsZero() || len(heads) != 1 {
		return nil
	}
	var b [8]byte
	if _, err := io.ReadFull(s.h.opt.Rand, b[:]); err != nil {
		return nil
	}
	random := binary.LittleEndian.Uint64(b[:])
	if random%coin != 0 {
		return nil
	}
	st, cost, err := s.stateOf(object)
	if err != nil || cost.Changes < coin {
		return nil
	}
	enc := st.Encode()
	if len(enc) > maxSnapshot || random/coin%uint64(max(1, spacing(len(enc), cost)/coin)) != 0 {
		return nil
	}
	return enc
}

// spacing is how many changes should lie between two snapshots on average: 64, or for a large state so many that snapshots take
// no more room than the changes between them; and fewer when the last one lies long back.
func spacing(snapshotBytes int, c dag.Cost) int {
	n := max(64, snapshotBytes/max(1, c.Bytes/c.Changes))
	for since := c.Changes / 2; since > n && n > coin; since /= 4 {
		n /= 2
	}
	return n
}
