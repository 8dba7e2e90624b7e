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
	in := &s.in
	var drafts []*tree.Draft
	touched := map[dag.ID]bool{}
	var waits map[dag.ID]bool // what has lost a name here, or moved, and that is not published: what it is in conflict with goes by that
	take := func(plan *tree.Plan, err error) error {
		if errors.Is(err, tree.ErrUnknown) || errors.Is(err, tree.ErrNotExist) {
			return nil // of a later version, or what a value lay over is gone: it stays as it is shown
		}
		if err != nil {
			return err
		}
		if len(plan.Drafts) > 0 && waits == nil {
			s.mu.Lock()
			waits, err = s.unpublishedNames()
			s.mu.Unlock()
			if err != nil {
				return err
			}
		}
		for _, d := range plan.Drafts {
			if touched[d.Object] || waits[d.Object] {
				return nil // with the next batch
			}
		}
		for _, d := range plan.Drafts {
			touched[d.Object] = !d.Object.IsZero()
		}
		if drafts = append(drafts, plan.Drafts...); len(drafts) >= maxSettled {
			return errEnough
		}
		return nil
	}
	err := in.t.Dealt(func(object dag.ID) error { return take(in.t.PlanDealt(object)) })
	if err == nil {
		err = in.t.Unsettled(func(at tree.DirName) error { return take(in.t.PlanSettle(at)) })
	}
	if err != nil && !errors.Is(err, errEnough) || len(drafts) == 0 {
		return false, err
	}
	if err := s.commitDrafts(drafts); err != nil {
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
