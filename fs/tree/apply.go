package tree

import (
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Tree is the visible tree of a space, kept up to date in a Store.
//
// After an error of the Store, what the Store holds is unfinished: the caller takes it back to before the operation, or
// builds it anew.
type Tree struct {
	root   dag.ID
	store  Store
	merged int // members of SetMerged
}

// Change is one change with its opened payload, nil where that does not open or parse.
type Change struct {
	Object  dag.ID
	At      Stamp
	Payload *Payload
}

// Delta says what an operation may have changed in the visible tree. Nothing is listed twice, and order means nothing.
type Delta struct {
	// Names lists directory objects and names in them whose entries may have changed, or the attributes or content behind
	// them, or those of the conflict copies of the name (Node.Lost).
	Names []DirName
	// Merges lists names whose set of directories may have changed while there were or are several: all that is below may
	// have changed.
	Merges []DirName
	// Objects lists the objects whose state changed.
	Objects []dag.ID
}

// DirName is a name in a directory object.
type DirName struct {
	Dir  dag.ID
	Name string
}

// NewTree returns the tree of a space over what the store holds. It reads the set SetMerged once.
func NewTree(space dag.ID, store Store) (*Tree, error) {
	t := &Tree{root: RootObject(space), store: store}
	err := store.Marks(SetMerged, func(dag.ID, string) bool { t.merged++; return true })
	return t, err
}

// Root returns the id of the root directory.
func (t *Tree) Root() dag.ID { return t.root }

// Apply adds changes, such as those of one batch or of many. Their histories (Store.History) hold them already. Changes may
// come in any order that has a change after those in its past; again is no harm.
//
// For each object that is changed it reads and writes Object once, and History only if a change is not the highest of its
// object. For each name that an object gains or loses it reads the claims of that name, writes one, and reads the
// directory's Object; it goes on upwards only from a removed directory that becomes empty or stops being so, and
// lists Children of removed directories only. For a directory move it reads the moves above it in the order (usually none) and
// the objects on the way up from the new place, and writes the moves whose effect changed.
func (t *Tree) Apply(changes ...Change) (*Delta, error) {
	u := newUpdate(t, len(changes))
	groups, order := byObject(changes)
	for _, id := range order {
		if err := u.fold(id, groups[id]); err != nil {
			return nil, err
		}
	}
	return u.finish(order)
}

// Retract takes changes out again, with everything that has them in its past. Their histories hold them no more. It costs a
// fold of their objects, and all moves where a directory or a move is among them.
func (t *Tree) Retract(changes ...Change) (*Delta, error) {
	u := newUpdate(t, len(changes))
	groups, order := byObject(changes)
	for _, id := range order {
		if err := u.unfold(id, groups[id]); err != nil {
			return nil, err
		}
	}
	return u.finish(order)
}

func byObject(changes []Change) (map[dag.ID][]Change, []dag.ID) {
	groups := make(map[dag.ID][]Change, len(changes))
	order := make([]dag.ID, 0, len(changes))
	for i := range changes {
		id := changes[i].Object
		if g := groups[id]; g != nil {
			groups[id] = append(g, changes[i])
			continue
		}
		order = append(order, id)
		groups[id] = changes[i : i+1 : i+1] // most have one, which needs no slice of its own
	}
	return groups, order
}

// update is one operation under way. States come first, then the log of moves, then claims: validity of a claim depends
// on the state of its directory.
type update struct {
	t       *Tree
	old     map[dag.ID]*Object // the changed objects as they were
	moves   []*Move            // to insert, in any order
	dropped map[Order]struct{} // moves to take out
	redoAll bool
	queue   []dag.ID // directories whose liveness or place is to be looked at
	names   map[DirName]struct{}
	merges  map[DirName]struct{}
}

// newUpdate begins an operation of so many changes.
func newUpdate(t *Tree, changes int) *update {
	return &update{
		t: t, old: make(map[dag.ID]*Object, changes), dropped: make(map[Order]struct{}), names: make(map[DirName]struct{}, changes),
		merges: make(map[DirName]struct{}),
	}
}

func (t *Tree) newState(id dag.ID) *State {
	if id == t.root {
		return &State{Object: id, Kind: KindDir}
	}
	return NewState(id)
}

// refold folds an object from its history. It takes up no snapshot that a change carries: any writer can put what he likes
// into one, and into a change that comes before all others.
func (t *Tree) refold(id dag.ID) (*State, error) {
	s := t.newState(id)
	err := t.store.History(id, func(at Stamp, p *Payload) error { return s.Apply(at, p) })
	return s, err
}

func (u *update) fold(id dag.ID, changes []Change) error {
	t := u.t
	old, err := t.store.Object(id)
	if err != nil {
		return err
	}
	u.old[id] = old
	next := &Object{}
	if old != nil {
		*next = *old
		next.State = old.State.Clone()
	} else {
		next.State = t.newState(id)
	}
	slices.SortFunc(changes, func(a, b Change) int { return a.At.Pos.Compare(b.At.Pos) })
	if changes[0].At.Pos.Compare(next.State.Top) > 0 {
		for i := range changes {
			if i > 0 && changes[i].At.Pos == changes[i-1].At.Pos {
				continue
			}
			if err := next.State.Apply(changes[i].At, changes[i].Payload); err != nil {
				return err
			}
		}
	} else if next.State, err = t.refold(id); err != nil {
		return err
	}
	if next.State.Kind == KindDir && id != t.root {
		if next.Place == nil && (old == nil || old.State.Kind != KindDir) {
			if err := u.arrive(id, next, changes, old == nil); err != nil {
				return err
			}
		} else {
			for i := range changes {
				u.findMoves(id, next.State, &changes[i])
			}
		}
	}
	return t.store.SetObject(id, next)
}

// arrive gives a directory that was not known its first place, and finds the moves of it that are there already. all says that
// changes are all that there is of it.
func (u *update) arrive(id dag.ID, o *Object, changes []Change, all bool) error {
	visit := func(c *Change) {
		if c.At.ID == id && c.Payload != nil {
			for i := range c.Payload.Ops {
				if op := &c.Payload.Ops[i]; op.Kind == OpLink {
					o.Place = &Placement{Ref{id, uint32(i)}, c.At.Pos, c.At.Device, c.Payload.Time, op.Parent, op.Name}
					break
				}
			}
		}
		u.findMoves(id, o.State, c)
	}
	if all {
		for i := range changes {
			visit(&changes[i])
		}
	} else if err := u.t.store.History(id, func(at Stamp, p *Payload) error {
		visit(&Change{id, at, p})
		return nil
	}); err != nil {
		return err
	}
	return u.known(id)
}

// known looks whether something was placed in a directory before it was known: then all moves are judged again.
func (u *update) known(id dag.ID) error {
	marked, err := u.t.store.Marked(SetLimbo, id, "")
	if err != nil || !marked {
		return err
	}
	u.redoAll = true
	u.queue = append(u.queue, id)
	return u.t.store.SetMark(SetLimbo, id, "", false)
}

// findMoves lists what a change of a directory moves.
func (u *update) findMoves(id dag.ID, s *State, c *Change) {
	if c.Payload == nil || len(s.Links) == 0 || c.At.Pos.Compare(s.Birth) < 0 {
		return
	}
	for i := range c.Payload.Ops {
		if o := &c.Payload.Ops[i]; o.Kind == OpMove && o.Link == s.Links[0].ID {
			if c.At.ID == id && uint32(i) < s.Links[0].ID.Place {
				continue // before the link was there
			}
			u.moves = append(u.moves, &Move{Object: id, To: Placement{
				Ref{c.At.ID, uint32(i)}, c.At.Pos, c.At.Device, c.Payload.Time, o.Parent, o.Name,
			}})
		}
	}
}

func (u *update) unfold(id dag.ID, changes []Change) error {
	t := u.t
	old, err := t.store.Object(id)
	if err != nil || old == nil {
		return err
	}
	u.old[id] = old
	next := &Object{}
	*next = *old
	if next.State, err = t.refold(id); err != nil {
		return err
	}
	if old.State.Kind == KindDir && id != t.root {
		n := len(u.moves)
		for i := range changes {
			u.findMoves(id, old.State, &changes[i])
		}
		for _, m := range u.moves[n:] {
			u.dropped[m.Order()] = struct{}{}
			u.redoAll = true
		}
		u.moves = u.moves[:n]
		if next.State.Kind != KindDir {
			next.Place = nil
			u.redoAll = true
			u.queue = append(u.queue, id)
			if err := t.store.SetMark(SetLimbo, id, "", true); err != nil {
				return err
			}
		}
	}
	return t.store.SetObject(id, next)
}

// finish works out moves and claims of the folded objects.
func (u *update) finish(order []dag.ID) (*Delta, error) {
	if err := u.limbo(order); err != nil {
		return nil, err
	}
	if err := u.replay(); err != nil {
		return nil, err
	}
	d := &Delta{}
	for _, id := range order {
		if u.old[id] == nil {
			if now, err := u.t.store.Object(id); err != nil || now == nil {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		d.Objects = append(d.Objects, id)
		if err := u.claim(id); err != nil {
			return nil, err
		}
	}
	if err := u.settle(); err != nil {
		return nil, err
	}
	if err := u.forget(order); err != nil {
		return nil, err
	}
	d.Names = slices.Collect(maps.Keys(u.names))
	d.Merges = slices.Collect(maps.Keys(u.merges))
	return d, nil
}

// limbo marks the unknown directories in which the operation places something.
func (u *update) limbo(order []dag.ID) error {
	mark := func(dir dag.ID) error {
		if dir == u.t.root {
			return nil
		}
		if o, err := u.t.store.Object(dir); err != nil || o != nil && o.State.Kind != KindNone {
			return err
		}
		return u.t.store.SetMark(SetLimbo, dir, "", true)
	}
	for _, id := range order {
		o, err := u.t.store.Object(id)
		if err != nil {
			return err
		}
		if o != nil && o.Place != nil {
			if err := mark(o.Place.Parent); err != nil {
				return err
			}
		}
	}
	for _, m := range u.moves {
		if err := mark(m.To.Parent); err != nil {
			return err
		}
	}
	return nil
}

// forget removes the records of objects of which no change is left.
func (u *update) forget(order []dag.ID) error {
	for _, id := range order {
		o, err := u.t.store.Object(id)
		if err != nil {
			return err
		}
		if o != nil && o.State.Top == (dag.Pos{}) {
			if err := u.t.store.SetObject(id, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
