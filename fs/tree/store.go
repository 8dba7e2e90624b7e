package tree

import (
	"cmp"

	"github.com/anyfs/anyfs/dag"
)

// Store keeps what a Tree knows between its operations. MemStore is one in memory; an index on disk can be another.
//
// What a method returns may be shared and is never written to; what it is given may be kept, and is not written to by the Tree
// afterwards. A Tree uses its Store from one goroutine at a time.
type Store interface {
	// Object returns what is known of an object, or nil.
	Object(id dag.ID) (*Object, error)
	// SetObject replaces that; nil removes it.
	SetObject(id dag.ID, o *Object) error
	// History calls fn for all counted changes of an object in total order, also those that are just being applied.
	History(id dag.ID, fn func(Stamp, *Payload) error) error

	// Claims returns the claims to a name in a directory object, in any order.
	Claims(dir dag.ID, name string) ([]Claim, error)
	// Children calls fn for all claims in a directory object, those to one name one after the other, until fn returns false.
	// fn does not change the store.
	Children(dir dag.ID, fn func(name string, c Claim) bool) error
	// SetClaim adds a claim, or replaces the one of the same object and link to that name in that directory.
	SetClaim(dir dag.ID, name string, c Claim) error
	// DeleteClaim removes the claim of an object's link.
	DeleteClaim(dir dag.ID, name string, object dag.ID, link Ref) error

	// Moves calls fn for the directory moves at or after from in total order, until fn returns false. fn does not change the
	// store. The zero Order is before all moves.
	Moves(from Order, fn func(*Move) bool) error
	// SetMove adds a move, or replaces the one at its place.
	SetMove(m *Move) error
	// DeleteMove removes a move.
	DeleteMove(at Order) error

	// SetMark puts a pair of a directory object and a name into one of the Tree's sets, or takes it out.
	SetMark(set Set, dir dag.ID, name string, on bool) error
	// Marked reports whether a pair is in a set.
	Marked(set Set, dir dag.ID, name string) (bool, error)
	// Marks calls fn for the members of a set in any order, until fn returns false.
	Marks(set Set, fn func(dir dag.ID, name string) bool) error

	// Device returns the name of a device as it was sealed when it came into the space, or "" when it is not known.
	Device(key dag.PublicKey) string
}

// Object is what a Tree knows of an object.
type Object struct {
	State *State
	// Of a directory: its place by the log of moves, nil while it has none; and the place at which the store holds its claim, nil
	// while it has none because the directory is removed and empty.
	Place, Claimed *Placement
}

// Claim is a live link's hold on a name in a directory object.
type Claim struct {
	Object dag.ID
	Kind   Kind
	Link   Ref
	// The placement that the claim is by.
	Place  Ref
	Pos    dag.Pos
	Device dag.PublicKey
	Time   int64
	// Split: the object has several candidates for its content, and shows losers beside this link.
	Split bool
}

// order is where the claim's placement stands in the total order.
func (c *Claim) order() Order { return Order{c.Pos, c.Place.Place} }

// Order is the place of an operation in the total order.
type Order struct {
	Pos dag.Pos
	Op  uint32
}

// Compare orders operations by their changes, then by their place in the change.
func (o Order) Compare(p Order) int {
	if c := o.Pos.Compare(p.Pos); c != 0 {
		return c
	}
	return cmp.Compare(o.Op, p.Op)
}

// Move is one entry of a space's log of directory moves.
type Move struct {
	Object dag.ID
	To     Placement
	// From is the place that the directory had before, nil for none. Skipped: the move would have made a cycle, and has no
	// effect.
	From    *Placement
	Skipped bool
}

// Order is the move's place in the log.
func (m *Move) Order() Order { return m.To.order() }

func (p *Placement) order() Order { return Order{p.Pos, p.Ref.Place} }

// Set is one of the sets of names that a Tree keeps in its Store.
type Set uint8

// The sets.
const (
	// SetMerged has the names that more than one directory in one directory object claims.
	SetMerged Set = iota
	// SetRivals has the names with more than one claim in one directory object, and those of files with several candidates.
	SetRivals
	// SetLimbo has the directories (and the empty name) that something was placed in while they were not known.
	SetLimbo
	// SetDealt has what is left of conflict copies that a person has dealt with (Tree.Dealt).
	SetDealt
)
