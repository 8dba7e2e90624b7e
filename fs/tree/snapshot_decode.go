package tree

import (
	"math"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

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
	d.fixed(19, "state")
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

// checkValues makes sure that what refers to other values can be followed: deltas go upwards and fit. What a patch lies over
// is looked for below it alone: a ref to a later value leads nowhere.
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
