package tree

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// replay puts the new moves into the log: those above them in the order are undone, and redone with them (Kleppmann et al.,
// "A highly-available move operation for replicated trees", 2021).
func (u *update) replay() error {
	if len(u.moves) == 0 && !u.redoAll {
		return nil
	}
	t := u.t
	slices.SortFunc(u.moves, func(a, b *Move) int { return a.Order().Compare(b.Order()) })
	var from Order
	if !u.redoAll {
		from = u.moves[0].Order()
	}
	var log []*Move
	if err := t.store.Moves(from, func(m *Move) bool { log = append(log, m); return true }); err != nil {
		return err
	}
	p := places{t: t, at: make(map[dag.ID]*Placement)}
	for i := len(log) - 1; i >= 0; i-- {
		p.at[log[i].Object] = log[i].From
	}
	for i, j := 0, 0; i < len(log) || j < len(u.moves); {
		var m, was *Move
		c := -1
		if i == len(log) {
			c = 1
		} else if j < len(u.moves) {
			c = log[i].Order().Compare(u.moves[j].Order())
		}
		if c <= 0 {
			m, was = log[i], log[i]
			i++
		} else {
			m = u.moves[j]
		}
		if c >= 0 {
			j++
		}
		if _, drop := u.dropped[m.Order()]; drop {
			if err := t.store.DeleteMove(m.Order()); err != nil {
				return err
			}
			continue
		}
		if err := p.redo(m, was); err != nil {
			return err
		}
	}
	for id, place := range p.at {
		o, err := t.store.Object(id)
		if err != nil {
			return err
		}
		if o == nil || o.State.Kind != KindDir || samePlace(o.Place, place) {
			continue
		}
		next := *o
		next.Place = place
		if err := t.store.SetObject(id, &next); err != nil {
			return err
		}
		u.queue = append(u.queue, id)
	}
	return nil
}

func samePlace(a, b *Placement) bool {
	return a == b || a != nil && b != nil && a.Ref == b.Ref
}

// places is the map from directories to their places during a replay, over that of the store.
type places struct {
	t  *Tree
	at map[dag.ID]*Placement
}

func (p *places) of(id dag.ID) (*Placement, error) {
	if place, ok := p.at[id]; ok {
		return place, nil
	}
	o, err := p.t.store.Object(id)
	if err != nil || o == nil {
		return nil, err
	}
	return o.Place, nil
}

// redo judges a move at its place in the order. was is the move as the store has it, or nil.
func (p *places) redo(m, was *Move) error {
	from, err := p.of(m.Object)
	if err != nil {
		return err
	}
	cycle, err := p.cycle(m)
	if err != nil {
		return err
	}
	if !cycle {
		p.at[m.Object] = &m.To
	}
	if was != nil && was.Skipped == cycle && samePlace(was.From, from) {
		return nil
	}
	return p.t.store.SetMove(&Move{Object: m.Object, To: m.To, From: from, Skipped: cycle})
}

// cycle reports whether a move would put a directory below itself. Places in what is no directory yet lead nowhere.
func (p *places) cycle(m *Move) (bool, error) {
	for at := &m.To; at != nil; {
		ok, err := p.t.valid(at.Parent, at.Pos)
		if err != nil || !ok {
			return false, err
		}
		if at.Parent == m.Object {
			return true, nil
		}
		if at, err = p.of(at.Parent); err != nil {
			return false, err
		}
	}
	return false, nil
}

// valid reports whether something could be placed in dir at pos: dir is a directory that was made before.
func (t *Tree) valid(dir dag.ID, pos dag.Pos) (bool, error) {
	if dir == t.root {
		return true, nil
	}
	o, err := t.store.Object(dir)
	if err != nil || o == nil {
		return false, err
	}
	return o.State.Kind == KindDir && o.State.Birth.Compare(pos) < 0, nil
}
