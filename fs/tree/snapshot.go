package tree

import (
	"maps"
	"math"
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
	e.array(18)
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

// DecodeState reads what Encode wrote, and nothing else: it fails with ErrInvalid where encoding the result would give
// other bytes. The state does not alias b.
func DecodeState(b []byte) (*State, error) {
	if len(b) > MaxState {
		return nil, invalid("state of %d bytes", len(b))
	}
	s, err := decodeState(slices.Clone(b))
	if err != nil {
		return nil, err
	}
	if !slices.Equal(s.Encode(), b) {
		return nil, invalid("state is not canonical")
	}
	return s, nil
}

type stateDecoder struct {
	decoder
	origins []origin
	bare    []dag.ID
}

func decodeState(b []byte) (*State, error) {
	d := &stateDecoder{decoder: decoder{b: b}}
	s := &State{}
	d.fixed(18, "state")
	if v := d.uint(math.MaxUint64, "version"); d.err == nil && v != stateVersion {
		return nil, invalid("state of version %d", v)
	}
	s.Object = d.id("object")
	s.Kind = Kind(d.uint(uint64(kindEnd)-1, "kind"))
	flags := d.uint(flagEnd-1, "flags")
	s.Unknown, s.ModeSet = flags&flagUnknown != 0, flags&flagModeSet != 0
	s.Owned, s.MtimeSet = flags&flagOwned != 0, flags&flagMtimeSet != 0
	s.Top, s.Birth = d.pos(), d.pos()
	s.Born, s.Time = d.int("time"), d.int("time")
	s.Mode = uint32(d.uint(0o7777, "mode"))
	d.fixed(2, "owner")
	s.UID, s.GID = uint32(d.uint(math.MaxUint32, "uid")), uint32(d.uint(math.MaxUint32, "gid"))
	s.Mtime = d.int("mtime")
	s.Target = string(d.bytes(MaxTarget, "target"))
	s.Rdev = uint32(d.uint(math.MaxUint32, "rdev"))
	var devices []dag.PublicKey
	for range d.array(MaxState, "devices") {
		devices = append(devices, d.id("device"))
	}
	for range d.array(MaxState, "changes") {
		d.fixed(6, "change")
		o := origin{id: d.id("change"), pos: dag.Pos{Clock: d.uint(math.MaxUint64, "clock"), Batch: d.id("batch")}}
		o.pos.Place = uint32(d.uint(math.MaxUint32, "place"))
		i := d.uint(math.MaxUint32, "device")
		if i >= uint64(len(devices)) {
			d.fail("device")
			break
		}
		o.device, o.time = devices[i], d.int("time")
		d.origins = append(d.origins, o)
	}
	for range d.array(MaxState, "ids") {
		d.bare = append(d.bare, d.id("id"))
	}
	for range d.array(maxLinks, "links") {
		s.Links = append(s.Links, d.link())
	}
	n := d.array(2*maxXattrs, "attributes")
	if n > 0 {
		s.Xattrs = make(map[string][]byte, n/2)
	}
	for range n / 2 {
		name := string(d.bytes(MaxName, "attribute"))
		s.Xattrs[name] = d.bytes(MaxXattr, "attribute")
	}
	for range d.array(MaxState, "values") {
		v := d.value()
		if d.err != nil {
			break
		}
		s.values = append(s.values, &v)
	}
	if d.err == nil {
		s.checkValues(&d.decoder)
	}
	if err := d.done(); err != nil {
		return nil, err
	}
	return s, nil
}

// checkValues makes sure that what refers to other values can be followed: deltas go upwards and fit, patches go downwards.
func (s *State) checkValues(d *decoder) {
	at := make(map[Ref]int, len(s.values))
	for i := range s.values {
		if _, twice := at[s.values[i].Ref]; twice {
			d.fail("a value twice")
			return
		}
		at[s.values[i].Ref] = i
	}
	texts := make(map[Ref]int) // the length of the inline bytes
	for i := len(s.values) - 1; i >= 0; i-- {
		v := s.values[i]
		switch c := v.content; {
		case c != nil && c.IsPatch():
			if j, ok := at[v.over[0]]; ok && j >= i {
				d.fail("a patch over a later value")
			}
		case c != nil && !c.Root.Defined():
			texts[v.Ref] = len(c.Inline)
		case v.delta != nil:
			n, ok := texts[v.delta.next]
			if j := at[v.delta.next]; !ok || j <= i || v.delta.prefix+v.delta.suffix > n {
				d.fail("delta")
				return
			}
			n = v.delta.prefix + v.delta.suffix + len(v.delta.mid)
			if n > MaxInline || int64(n) > v.delta.size {
				d.fail("delta")
				return
			}
			texts[v.Ref] = n
		}
	}
}

func (d *decoder) pos() dag.Pos {
	d.fixed(3, "position")
	p := dag.Pos{Clock: d.uint(math.MaxUint64, "clock"), Batch: d.id("batch")}
	p.Place = uint32(d.uint(math.MaxUint32, "place"))
	return p
}

func (d *stateDecoder) origin() (r Ref, o origin) {
	i, place := d.uint(math.MaxUint32, "change"), d.uint(math.MaxUint32, "place")
	if d.err == nil && i >= uint64(len(d.origins)) {
		d.fail("change")
	}
	if d.err != nil {
		return
	}
	o = d.origins[i]
	return Ref{o.id, uint32(place)}, o
}

func (d *stateDecoder) bareRef() Ref {
	i, place := d.uint(math.MaxUint32, "id"), d.uint(math.MaxUint32, "place")
	if d.err == nil && i >= uint64(len(d.bare)) {
		d.fail("id")
	}
	if d.err != nil {
		return Ref{}
	}
	return Ref{d.bare[i], uint32(place)}
}

func (d *stateDecoder) link() (l Link) {
	d.fixed(4, "link")
	d.fixed(2, "link")
	l.ID = d.bareRef()
	n := d.array(4*maxPlacements, "placements")
	if n == 0 || n%4 != 0 {
		d.fail("placements")
		return l
	}
	for range n / 4 {
		r, o := d.origin()
		p := Placement{Ref: r, Pos: o.pos, Device: o.device, Time: o.time}
		p.Parent, p.Name = d.id("parent"), string(d.bytes(MaxName, "name"))
		l.Values = append(l.Values, p)
	}
	flags := d.uint(linkEnd-1, "link")
	l.Removed, l.Missed = flags&linkRemoved != 0, flags&linkMissed != 0
	if l.Removed {
		d.fixed(2, "mark")
		r, o := d.origin()
		l.Mark = Mark{r, o.pos, o.device, o.time}
	} else if !d.null() {
		d.fail("mark")
	}
	return l
}

func (d *stateDecoder) value() (v value) {
	d.fixed(6, "value")
	form := d.uint(valueEnd-1, "value")
	d.fixed(2, "value")
	if form == valueCandidate {
		var o origin
		v.Ref, o = d.origin()
		v.Pos, v.Device, v.Time = o.pos, o.device, o.time
	} else {
		v.Ref, v.replaced = d.bareRef(), true
	}
	v.Mtime = d.int("mtime")
	n := d.array(MaxState, "over")
	if n%2 != 0 {
		d.fail("over")
	}
	for range n / 2 {
		r := d.bareRef()
		if d.err != nil {
			return v
		}
		v.over = append(v.over, r)
	}
	switch form {
	case valueCandidate, valueContent:
		v.content = d.content()
		if d.err == nil {
			d.err = v.content.check()
		}
		if d.err == nil && v.content.IsPatch() && len(v.over) != 1 {
			d.fail("patch")
		}
	case valueDelta:
		dl := &delta{size: d.size("delta")}
		d.fixed(5, "delta")
		dl.next = d.bareRef()
		dl.prefix, dl.suffix = int(d.uint(MaxInline, "delta")), int(d.uint(MaxInline, "delta"))
		if dl.mid = d.bytes(MaxInline, "delta"); len(dl.mid) == 0 {
			dl.mid = nil
		}
		v.delta = dl
	default:
		for range 2 {
			if !d.null() {
				d.fail("value")
			}
		}
	}
	return v
}
