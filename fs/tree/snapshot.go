package tree

import (
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// stateVersion is the version of the format of encoded states.
const stateVersion = 1

// MaxState is the length in bytes of the longest encoded state that DecodeState takes.
const MaxState = 64 << 20

// Flags of an encoded state.
const (
	flagUnknown = 1 << iota
	flagModeSet
	flagOwned
	flagMtimeSet
	flagEnd
)

// Flags of a link, and the forms of a value.
const (
	linkRemoved = 1 << iota
	linkMissed
	linkEnd
)

const (
	valueCandidate = iota // what is shown
	valueContent          // replaced, with its content
	valueDelta            // replaced, with a delta
	valueBare             // replaced, without
	valueEnd
)

// table numbers what an encoding refers to often, in the order of first use.
type table[T comparable] struct {
	list  []T
	index map[T]uint64
}

func (t *table[T]) at(v T) uint64 {
	i, ok := t.index[v]
	if !ok {
		if t.index == nil {
			t.index = make(map[T]uint64)
		}
		i = uint64(len(t.list))
		t.index[v] = i
		t.list = append(t.list, v)
	}
	return i
}

// origin is what placements, marks and candidates of one change share.
type origin struct {
	id     dag.ID
	pos    dag.Pos
	device dag.PublicKey
	time   int64
}

type stateEncoder struct {
	encoder
	devices table[dag.PublicKey]
	origins table[origin]
	bare    table[dag.ID]
}

// Encode returns the canonical bytes of the state. Equal states, however they came about, give equal bytes: they are the
// snapshot, and what is hashed to compare replicas.
func (s *State) Encode() []byte {
	// The body comes first, since it fills the tables that stand before it.
	e := &stateEncoder{}
	e.array(len(s.Links))
	for i := range s.Links {
		e.link(&s.Links[i])
	}
	e.array(2 * len(s.Xattrs))
	for _, n := range slices.Sorted(maps.Keys(s.Xattrs)) {
		e.str(n)
		e.bytes(s.Xattrs[n])
	}
	e.array(len(s.values))
	for i := range s.values {
		e.value(s.values[i])
	}
	body := e.b
	e.b = make([]byte, 0, 256+len(body)+120*len(e.origins.list)+34*len(e.bare.list))
	for _, o := range e.origins.list { // before the devices are written
		e.devices.at(o.device)
	}
	e.array(19)
	e.uint(stateVersion)
	e.bytes(s.Object[:])
	e.uint(uint64(s.Kind))
	flags := uint64(0)
	for i, set := range []bool{s.Unknown, s.ModeSet, s.Owned, s.MtimeSet} {
		if set {
			flags |= 1 << i
		}
	}
	e.uint(flags)
	e.pos(s.Top)
	e.pos(s.Birth)
	e.int(s.Born)
	e.int(s.Time)
	e.uint(uint64(s.Mode))
	e.array(2)
	e.uint(uint64(s.UID))
	e.uint(uint64(s.GID))
	e.int(s.Mtime)
	e.str(s.Target)
	e.uint(uint64(s.Rdev))
	e.array(len(e.devices.list))
	for i := range e.devices.list {
		e.bytes(e.devices.list[i][:])
	}
	e.array(len(e.origins.list))
	for _, o := range e.origins.list {
		e.array(6)
		e.bytes(o.id[:])
		e.uint(o.pos.Clock)
		e.bytes(o.pos.Batch[:])
		e.uint(uint64(o.pos.Place))
		e.uint(e.devices.at(o.device))
		e.int(o.time)
	}
	e.array(len(e.bare.list))
	for i := range e.bare.list {
		e.bytes(e.bare.list[i][:])
	}
	e.b = append(e.b, body...)
	return e.b
}

func (e *encoder) pos(p dag.Pos) {
	e.array(3)
	e.uint(p.Clock)
	e.bytes(p.Batch[:])
	e.uint(uint64(p.Place))
}

func (e *stateEncoder) origin(r Ref, pos dag.Pos, device dag.PublicKey, time int64) {
	e.uint(e.origins.at(origin{r.Change, pos, device, time}))
	e.uint(uint64(r.Place))
}

func (e *stateEncoder) bareRef(r Ref) {
	e.uint(e.bare.at(r.Change))
	e.uint(uint64(r.Place))
}

func (e *stateEncoder) link(l *Link) {
	e.array(4)
	e.array(2)
	e.bareRef(l.ID)
	e.array(4 * len(l.Values))
	for i := range l.Values {
		v := &l.Values[i]
		e.origin(v.Ref, v.Pos, v.Device, v.Time)
		e.bytes(v.Parent[:])
		e.str(v.Name)
	}
	flags := uint64(0)
	if l.Removed {
		flags |= linkRemoved
	}
	if l.Missed {
		flags |= linkMissed
	}
	e.uint(flags)
	if l.Removed {
		e.array(2)
		e.origin(l.Mark.Ref, l.Mark.Pos, l.Mark.Device, l.Mark.Time)
	} else {
		e.null()
	}
}

func (e *stateEncoder) value(v *value) {
	e.array(6)
	form := uint64(valueCandidate)
	switch {
	case !v.replaced:
	case v.content != nil:
		form = valueContent
	case v.delta != nil:
		form = valueDelta
	default:
		form = valueBare
	}
	e.uint(form)
	e.array(2)
	if form == valueCandidate {
		e.origin(v.Ref, v.Pos, v.Device, v.Time)
	} else {
		e.bareRef(v.Ref)
	}
	e.int(v.Mtime)
	e.array(2 * len(v.over))
	for _, r := range v.over {
		e.bareRef(r)
	}
	switch form {
	case valueCandidate, valueContent:
		e.content(v.content)
	case valueDelta:
		d := v.delta
		e.uint(uint64(d.size))
		e.array(5)
		e.bareRef(d.next)
		e.uint(uint64(d.prefix))
		e.uint(uint64(d.suffix))
		e.bytes(d.mid)
	default:
		e.null()
		e.null()
	}
}
