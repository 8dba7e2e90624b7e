package fs

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// quarantinePaths is how many paths of a batch are told.
const quarantinePaths = 16

// Quarantined is a batch that is held here and shows nowhere: its author had lost the right to write it by the whole access list.
type Quarantined struct {
	ID      dag.ID
	Account dag.PublicKey
	Device  string    // the device's name; empty where that is not known
	Time    time.Time // by the clock of that device; zero where its key is not here
	Changes int
	Paths   []string // what it changes, from the space's folder, as far as that is known; at most 16
}

// Quarantined are the batches of a space in quarantine, in the order in which they came.
func (h *Home) Quarantined(name string) ([]Quarantined, error) {
	s, err := h.shared(name)
	if err != nil {
		return nil, err
	}
	ids, err := s.graph.Quarantined()
	if err != nil {
		return nil, s.damaged(err)
	}
	out := make([]Quarantined, 0, len(ids))
	made := map[dag.ID]string{} // where these batches themselves put what is not in the tree
	for _, id := range ids {
		b, bodies, err := s.graph.Batch(id)
		if err != nil {
			return nil, s.damaged(err)
		}
		q := Quarantined{ID: id, Account: b.Account, Changes: len(b.Changes)}
		q.Device, _ = s.acl.DeviceName(b.Device)
		for i := range bodies {
			s.quarantinedChange(&q, made, b, b.Changes[i], bodies[i])
		}
		slices.Sort(q.Paths)
		q.Paths = slices.Compact(q.Paths)
		out = append(out, q)
	}
	return out, nil
}

// quarantinedChange adds to q when and where a change was made.
func (s *space) quarantinedChange(q *Quarantined, made map[dag.ID]string, b *dag.Batch, id dag.ID, body []byte) {
	c, err := dag.DecodeChange(body)
	if err != nil {
		return
	}
	p, err := s.open(&dag.Entry{ID: id, Change: c, Batch: b})
	if err != nil {
		return
	}
	if t := time.Unix(0, p.Time); t.After(q.Time) {
		q.Time = t
	}
	object := c.Object
	if object.IsZero() {
		object = id
	}
	at := ""
	for i := range p.Ops {
		if op := &p.Ops[i]; op.Kind == tree.OpLink || op.Kind == tree.OpMove {
			up, ok := made[op.Parent]
			if !ok {
				up = s.objectPath("", op.Parent)
			}
			at = path.Join(up, op.Name)
			made[object] = at
		}
	}
	if at == "" {
		at = made[object]
	}
	if at == "" {
		at = s.objectPath("", object)
	}
	if at = strings.TrimPrefix(at, "/"); at != "" && len(q.Paths) < quarantinePaths {
		q.Paths = append(q.Paths, at)
	}
}

// Adopt makes batches that are in quarantine count, for all members, with what lies in their past; it takes an admin. It returns how many
// of them count now.
func (h *Home) Adopt(name string, batches []dag.ID) (int, error) {
	s, err := h.shared(name)
	if err != nil {
		return 0, err
	}
	before, err := s.graph.Quarantined()
	if err != nil {
		return 0, s.damaged(err)
	}
	for _, id := range batches {
		if !slices.Contains(before, id) {
			return 0, fmt.Errorf("batch %s is not in quarantine: %w", id, ErrNotExist)
		}
	}
	batches = slices.Clone(batches)
	slices.SortFunc(batches, dag.ID.Compare)
	for some := range slices.Chunk(slices.Compact(batches), acl.MaxAdopted) {
		if err := s.acl.Adopt(some); err != nil {
			return 0, err
		}
	}
	if err := s.recorded(nil); err != nil {
		return 0, err
	}
	after, err := s.graph.Quarantined()
	return max(0, len(before)-len(after)), err
}

// lapses remembers of the last batch that was asked for whether it has lapsed: many changes of one batch come together.
type lapses struct {
	batch dag.ID
	yes   bool
}

// hasLapsed says of a batch that counts whether it does so only because of what others built on it: its author had lost the right to write, and who took
// that away did not have the batch.
func (s *space) hasLapsed(b *dag.Batch, last *lapses) bool {
	if id := b.ID(); last.batch != id {
		*last = lapses{id, s.judgedLapsed(b)}
	}
	return last.yes
}

func (s *space) judgedLapsed(b *dag.Batch) bool {
	granted, ended := s.acl.List().Ends(b)
	return !granted || slices.ContainsFunc(ended, func(tips []dag.ID) bool {
		return !slices.ContainsFunc(tips, func(tip dag.ID) bool {
			had, err := s.graph.InPast(b.ID(), tip)
			return err == nil && had // a tip that is not here is of a branch that this device has not heard of
		})
	})
}
