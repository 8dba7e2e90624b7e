package tree

import (
	"errors"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Unsettled calls fn for the names with a conflict that a publication can end: where there are conflict copies, files hidden behind
// equal ones, or a file whose candidates are merged for who reads it. It costs what they cost.
func (t *Tree) Unsettled(fn func(DirName) error) error {
	var rivals []DirName
	if err := t.store.Marks(SetRivals, func(dir dag.ID, name string) bool {
		rivals = append(rivals, DirName{dir, name})
		return true
	}); err != nil {
		return err
	}
	slices.SortFunc(rivals, func(a, b DirName) int {
		if c := a.Dir.Compare(b.Dir); c != 0 || a.Name == b.Name {
			return c
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	for _, r := range rivals {
		if r.Dir != t.root {
			if _, ok, err := t.Path(r.Dir); err != nil || !ok {
				if err != nil {
					return err
				}
				continue
			}
		}
		due, err := t.unsettled(r)
		if err == nil && due {
			err = fn(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) unsettled(r DirName) (bool, error) {
	nodes, err := t.Group(r.Dir, r.Name)
	if err != nil {
		return false, err
	}
	for i := range nodes {
		n := &nodes[i]
		if n.Conflict || len(n.Twins) > 0 {
			return true, nil
		}
		if n.Kind != KindFile {
			continue
		}
		s, err := t.State(n.Object)
		if err != nil {
			return false, err
		}
		if v := s.View(); v.Merged {
			return true, nil
		}
	}
	return false, nil
}

// PlanSettle ends the conflict at a name: a conflict copy gets the name that it shows for its own, of a losing content value it makes
// a file, what is hidden behind an equal file is taken away, and a merge is written down. Who looks at the tree sees no difference.
// Devices that do it at once make the same files, which are shown once.
func (t *Tree) PlanSettle(at DirName) (*Plan, error) {
	class, err := t.Class(at.Dir)
	if err != nil {
		return nil, err
	}
	nodes, err := t.group(class, at.Name)
	if err != nil || len(nodes) == 0 {
		return &Plan{}, err
	}
	w := t.planner()
	if err := w.settle(class, nodes); err != nil {
		return nil, err
	}
	for i := range nodes {
		n := &nodes[i]
		if n.Kind != KindFile || n.Loser == ContentLoser {
			continue
		}
		s, err := w.state(n.Object)
		if err != nil {
			return nil, err
		}
		if v := s.View(); v.Merged {
			w.plan.of(n.Object).op(s.Merge(&Content{Size: int64(len(v.Text)), Inline: v.Text}))
		}
	}
	return w.plan, nil
}

// PlanEnds ends the conflicts that a publication can end (PlanSettle, Dealt), as many as go into one batch of about most changes: it is
// empty when none is left. waits says of an object that something of it is to be published before: what it is in conflict with is left
// as it is until then. So is what a later version of the format changed, or lies over what is gone.
func (t *Tree) PlanEnds(most int, waits func(object dag.ID) (bool, error)) (*Plan, error) {
	all := &Plan{}
	touched := map[dag.ID]bool{}
	// add takes a plan that stands for the given objects beside those that it changes.
	add := func(p *Plan, objects ...dag.ID) error {
		for _, d := range p.Drafts {
			if !d.Object.IsZero() {
				objects = append(objects, d.Object)
			}
		}
		for _, id := range objects {
			if touched[id] {
				return nil // with the next batch
			}
			if wait, err := waits(id); err != nil || wait {
				return err
			}
		}
		for _, d := range p.Drafts {
			touched[d.Object] = !d.Object.IsZero()
		}
		if all.Drafts = append(all.Drafts, p.Drafts...); len(all.Drafts) >= most {
			return errFound
		}
		return nil
	}
	stays := func(err error) bool { return errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotExist) }
	deal := dealer{t, map[dag.ID]dag.ID{}}
	err := t.Dealt(func(object dag.ID) error {
		p, err := deal.plan(object)
		if stays(err) {
			return nil
		}
		if err != nil || len(p.Drafts) == 0 {
			return err
		}
		return add(p)
	})
	if err == nil {
		err = t.Unsettled(func(at DirName) error {
			p, err := t.PlanSettle(at)
			if stays(err) {
				return nil
			}
			if err != nil || len(p.Drafts) == 0 {
				return err
			}
			nodes, err := t.Group(at.Dir, at.Name)
			if err != nil {
				return err
			}
			var rivals []dag.ID
			for i := range nodes {
				rivals = append(rivals, nodes[i].Object)
				for _, tw := range nodes[i].Twins {
					rivals = append(rivals, tw.Object)
				}
			}
			return add(p, rivals...)
		})
	}
	if errors.Is(err, errFound) {
		err = nil
	}
	return all, err
}
