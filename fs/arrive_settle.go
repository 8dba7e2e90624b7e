package fs

import (
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// Conflicts that came with others' changes are ended before they show: what the tree would show as a conflict copy, or as the merge
// of several texts, is published so, and becomes files like any other. Each device that can write does it; what two do at once is the
// same, and shows once. So is what comes of a conflict copy that a person has dealt with when only another device's equal one was known.

// maxSettled bounds the changes of one batch that ends conflicts.
const maxSettled = dag.MaxChanges / 2

// settleConflicts publishes the ends of conflicts, which come into the tree like everything else. It reports whether there were any.
// Under pubMu.
func (s *space) settleConflicts() (bool, error) {
	if s.acl.Writable() != nil {
		return false, nil
	}
	var names map[dag.ID]bool
	plan, err := s.in.t.PlanEnds(maxSettled, func(object dag.ID) (bool, error) {
		if names == nil {
			var err error
			s.mu.Lock()
			names, err = s.unpublishedNames()
			s.mu.Unlock()
			if err != nil {
				return false, err
			}
		}
		return names[object], nil
	})
	if err != nil || len(plan.Drafts) == 0 {
		return false, err
	}
	if err := s.commitDrafts(plan.Drafts); err != nil {
		return false, fmt.Errorf("end conflicts: %w", err)
	}
	return true, nil
}

// commitDrafts publishes drafts as one batch, as far as they fit.
func (s *space) commitDrafts(drafts []*tree.Draft) error {
	b, err := s.graph.Begin(s.h.keys.Author(), s.acl.Heads(), s.acl.Epoch())
	if err != nil {
		return err
	}
	now := s.h.now()
	var snapshots []dag.ID
	for _, d := range drafts {
		p := &tree.Payload{Kind: d.Kind, Time: now, Ops: d.Ops}
		id, err := b.Add(d.Object, func(h dag.Header) ([]byte, error) { return s.seal(h, p) })
		if errors.Is(err, dag.ErrBatchFull) {
			break
		}
		if err != nil {
			b.Abort()
			return err
		}
		if p.Snapshot != nil {
			snapshots = append(snapshots, id)
		}
	}
	if _, err := b.Commit(); err != nil {
		return err
	}
	for _, id := range snapshots {
		trust{s}.Trust(id)
	}
	return nil
}
