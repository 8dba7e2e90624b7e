package fs

import (
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

type payload = tree.Payload

// open decrypts and parses the payload of a change.
func (s *space) open(e *dag.Entry) (*tree.Payload, error) {
	plain, err := s.keys.OpenChange(dag.Header{
		Space: s.id, Object: e.Change.Object, Parents: e.Change.Parents,
		Epoch: e.Batch.Epoch, Clock: e.Change.Clock, Device: e.Change.Device,
	}, e.Change.Payload)
	if err != nil {
		return nil, err
	}
	return tree.DecodePayload(plain, e.ID, e.Change.Parents)
}

// contentAt gives the content of the operation at a place, or nil.
func contentAt(p *tree.Payload, place uint32) *tree.Content {
	if int(place) >= len(p.Ops) {
		return nil
	}
	return p.Ops[place].Content
}
