package list

import (
	"maps"

	"github.com/anyfs/anyfs/dag"
)

// maxAdopted bounds the batches that one record adopts.
const maxAdopted = 1000

// Adopt makes batches of files count whose authors might not write them by the whole list, and with them what lies in their past.
type Adopt struct{ Batches []dag.ID }

// Adopted says whether a standing record adopts a batch.
func (s *State) Adopted(batch dag.ID) bool { return s.adopted[batch] }

// noteAdopted takes a standing record's batches. A set that another state has too is replaced, not changed.
func (s *State) noteAdopted(a *Adopt) {
	if s.shared {
		s.adopted, s.shared = maps.Clone(s.adopted), false
	}
	if s.adopted == nil {
		s.adopted = make(map[dag.ID]bool, len(a.Batches))
	}
	for _, id := range a.Batches {
		s.adopted[id] = true
	}
}
