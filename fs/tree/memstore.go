package tree

import (
	"maps"
	"slices"
	"sort"

	"github.com/anyfs/anyfs/dag"
)

// MemStore is a Store in memory. Its zero value is not usable; NewMemStore makes one.
type MemStore struct {
	objects map[dag.ID]*Object
	history map[dag.ID][]memChange // in total order
	claims  map[dag.ID]map[string][]Claim
	moves   []*Move // in total order
	marks   map[memMark]struct{}
	names   map[dag.PublicKey]string
}

type memChange struct {
	at Stamp
	p  *Payload
}

type memMark struct {
	set  Set
	dir  dag.ID
	name string
}

var _ Store = (*MemStore)(nil)

// NewMemStore returns an empty store that knows devices by the given names.
func NewMemStore(devices map[dag.PublicKey]string) *MemStore {
	return &MemStore{
		objects: make(map[dag.ID]*Object), history: make(map[dag.ID][]memChange),
		claims: make(map[dag.ID]map[string][]Claim), marks: make(map[memMark]struct{}), names: devices,
	}
}

// AddChange puts a change into the history, before it is applied to the Tree. It returns false when it is there already.
func (m *MemStore) AddChange(object dag.ID, at Stamp, p *Payload) bool {
	h := m.history[object]
	i := sort.Search(len(h), func(i int) bool { return h[i].at.Pos.Compare(at.Pos) >= 0 })
	if i < len(h) && h[i].at.Pos == at.Pos {
		return false
	}
	m.history[object] = slices.Insert(h, i, memChange{at, p})
	return true
}

// RemoveChange takes a change out of the history, before it is retracted from the Tree.
func (m *MemStore) RemoveChange(object dag.ID, at Stamp) {
	h := slices.DeleteFunc(m.history[object], func(c memChange) bool { return c.at.ID == at.ID })
	if m.history[object] = h; len(h) == 0 {
		delete(m.history, object)
	}
}

// Object implements Store.
func (m *MemStore) Object(id dag.ID) (*Object, error) { return m.objects[id], nil }

// SetObject implements Store.
func (m *MemStore) SetObject(id dag.ID, o *Object) error {
	if m.objects[id] = o; o == nil {
		delete(m.objects, id)
	}
	return nil
}

// History implements Store.
func (m *MemStore) History(id dag.ID, fn func(Stamp, *Payload) error) error {
	for _, c := range m.history[id] {
		if err := fn(c.at, c.p); err != nil {
			return err
		}
	}
	return nil
}

// Claims implements Store.
func (m *MemStore) Claims(dir dag.ID, name string) ([]Claim, error) { return m.claims[dir][name], nil }

// Children implements Store. Names come sorted.
func (m *MemStore) Children(dir dag.ID, fn func(name string, c Claim) bool) error {
	for _, name := range slices.Sorted(maps.Keys(m.claims[dir])) {
		for _, c := range m.claims[dir][name] {
			if !fn(name, c) {
				return nil
			}
		}
	}
	return nil
}

func (m *MemStore) without(dir dag.ID, name string, object dag.ID, link Ref) []Claim {
	var out []Claim
	for _, c := range m.claims[dir][name] {
		if c.Object != object || c.Link != link {
			out = append(out, c)
		}
	}
	return out
}

// SetClaim implements Store.
func (m *MemStore) SetClaim(dir dag.ID, name string, c Claim) error {
	if m.claims[dir] == nil {
		m.claims[dir] = make(map[string][]Claim)
	}
	m.claims[dir][name] = append(m.without(dir, name, c.Object, c.Link), c)
	return nil
}

// DeleteClaim implements Store.
func (m *MemStore) DeleteClaim(dir dag.ID, name string, object dag.ID, link Ref) error {
	left := m.without(dir, name, object, link)
	if len(left) > 0 {
		m.claims[dir][name] = left
		return nil
	}
	delete(m.claims[dir], name)
	if len(m.claims[dir]) == 0 {
		delete(m.claims, dir)
	}
	return nil
}

func (m *MemStore) moveAt(at Order) (int, bool) {
	i := sort.Search(len(m.moves), func(i int) bool { return m.moves[i].Order().Compare(at) >= 0 })
	return i, i < len(m.moves) && m.moves[i].Order() == at
}

// Moves implements Store.
func (m *MemStore) Moves(from Order, fn func(*Move) bool) error {
	i, _ := m.moveAt(from)
	for ; i < len(m.moves); i++ {
		if !fn(m.moves[i]) {
			return nil
		}
	}
	return nil
}

// SetMove implements Store.
func (m *MemStore) SetMove(v *Move) error {
	i, ok := m.moveAt(v.Order())
	if ok {
		m.moves[i] = v
	} else {
		m.moves = slices.Insert(m.moves, i, v)
	}
	return nil
}

// DeleteMove implements Store.
func (m *MemStore) DeleteMove(at Order) error {
	if i, ok := m.moveAt(at); ok {
		m.moves = slices.Delete(m.moves, i, i+1)
	}
	return nil
}

// SetMark implements Store.
func (m *MemStore) SetMark(set Set, dir dag.ID, name string, on bool) error {
	if on {
		m.marks[memMark{set, dir, name}] = struct{}{}
	} else {
		delete(m.marks, memMark{set, dir, name})
	}
	return nil
}

// Marked implements Store.
func (m *MemStore) Marked(set Set, dir dag.ID, name string) (bool, error) {
	_, ok := m.marks[memMark{set, dir, name}]
	return ok, nil
}

// Marks implements Store.
func (m *MemStore) Marks(set Set, fn func(dir dag.ID, name string) bool) error {
	for k := range m.marks {
		if k.set == set && !fn(k.dir, k.name) {
			return nil
		}
	}
	return nil
}

// Device implements Store.
func (m *MemStore) Device(key dag.PublicKey) string { return m.names[key] }
