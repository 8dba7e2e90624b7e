package tree

import (
	"bytes"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
)

// payloadVersion is the version of the format of payloads.
const payloadVersion = 1

// Payload is what a change says: what its sealed payload holds in the clear.
type Payload struct {
	Kind     Kind  // in a root; else KindNone
	Time     int64 // Unix nanoseconds, by the clock of the device; decides nothing
	Ops      []Op
	Snapshot []byte // the encoded State of the object before this change; nil where there is none

	// Future is set for a payload of a newer version: it has no operations that this version knows, and the object is
	// read-only for it.
	Future bool
}

// idTable numbers the ids of a payload: 0 is the change itself, then its parents, then those that the payload lists.
type idTable struct {
	parents []dag.ID
	listed  []dag.ID
	index   map[dag.ID]int // of the listed ones, once there are many
}

func (t *idTable) find(id dag.ID) (int, bool) {
	if id.IsZero() {
		return 0, true
	}
	for i := range t.parents {
		if t.parents[i] == id {
			return 1 + i, true
		}
	}
	if t.index != nil {
		i, ok := t.index[id]
		return i, ok
	}
	for i := range t.listed {
		if t.listed[i] == id {
			return 1 + len(t.parents) + i, true
		}
	}
	return 0, false
}

func (t *idTable) add(id dag.ID) {
	if _, ok := t.find(id); ok {
		return
	}
	t.listed = append(t.listed, id)
	n := len(t.parents) + len(t.listed)
	if t.index == nil && len(t.listed) > 16 {
		t.index = make(map[dag.ID]int, 64)
		for i, id := range t.listed {
			t.index[id] = 1 + len(t.parents) + i
		}
	} else if t.index != nil {
		t.index[id] = n
	}
}

// forRefs calls fn for the refs of an operation in the order of the encoding.
func (o *Op) forRefs(fn func(*Ref)) {
	switch o.Kind {
	case OpMove, OpUnlink:
		fn(&o.Link)
	}
	for i := range o.Over {
		fn(&o.Over[i])
	}
	for i := range o.Contents {
		fn(&o.Contents[i])
	}
}

// Encode returns the canonical bytes of the payload of a change that has the given parents. A ref to another operation
// of the same change has a zero Change. It fails with ErrInvalid for what DecodePayload would refuse.
func (p *Payload) Encode(parents []dag.ID) ([]byte, error) {
	if p.Kind >= kindEnd || p.Future || len(p.Ops) > MaxOps {
		return nil, invalid("payload of kind %d with %d operations", p.Kind, len(p.Ops))
	}
	ids := idTable{parents: parents}
	size := 64 + len(p.Snapshot)
	for i := range p.Ops {
		o := &p.Ops[i]
		if !o.Kind.known() {
			d := decoder{b: o.Raw}
			if k := d.unknownOp(); d.done() != nil || k != o.Kind {
				return nil, invalid("operation %d: kind %d", i, o.Kind)
			}
			size += len(o.Raw)
			continue
		}
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
		o.forRefs(func(r *Ref) { ids.add(r.Change) })
		size += 64 + len(o.Name) + len(o.Value) + len(o.Target) + 4*(len(o.Over)+len(o.Contents))
		if c := o.Content; c != nil {
			size += 64 + len(c.Inline) + 12*len(c.Layout)
			for i := range c.Patch {
				size += 16 + len(c.Patch[i].Bytes)
			}
		}
	}
	e := &encoder{make([]byte, 0, size+34*len(ids.listed))}
	n := 5
	if p.Snapshot != nil {
		n++
	}
	e.array(n)
	e.uint(payloadVersion)
	e.uint(uint64(p.Kind))
	e.int(p.Time)
	e.array(len(ids.listed))
	for i := range ids.listed {
		e.bytes(ids.listed[i][:])
	}
	e.array(len(p.Ops))
	for i := range p.Ops {
		e.op(&p.Ops[i], &ids)
	}
	if p.Snapshot != nil {
		e.bytes(p.Snapshot)
	}
	if len(e.b) > MaxPayload {
		return nil, invalid("%d bytes", len(e.b))
	}
	return e.b, nil
}

func (e *encoder) ref(r Ref, ids *idTable) {
	i, _ := ids.find(r.Change)
	e.uint(uint64(i))
	e.uint(uint64(r.Place))
}

func (e *encoder) refs(rs []Ref, ids *idTable) {
	e.array(2 * len(rs))
	for _, r := range rs {
		e.ref(r, ids)
	}
}

// fields is how many items stand behind the code of an operation of each kind.
func (k OpKind) fields() int {
	switch k {
	case OpMove:
		return 5
	case OpUnlink, OpContent:
		return 4
	case OpLink, OpOwner, OpXattr:
		return 2
	}
	return 1
}

func (e *encoder) op(o *Op, ids *idTable) {
	if !o.Kind.known() {
		e.b = append(e.b, o.Raw...)
		return
	}
	e.array(1 + o.Kind.fields())
	e.uint(uint64(o.Kind))
	switch o.Kind {
	case OpLink:
		e.bytes(o.Parent[:])
		e.str(o.Name)
	case OpMove:
		e.ref(o.Link, ids)
		e.refs(o.Over, ids)
		e.bytes(o.Parent[:])
		e.str(o.Name)
	case OpUnlink:
		e.ref(o.Link, ids)
		e.refs(o.Over, ids)
		e.refs(o.Contents, ids)
	case OpContent:
		e.refs(o.Over, ids)
		e.int(o.Mtime)
		e.content(o.Content)
	case OpDrop:
		e.refs(o.Over, ids)
	case OpMode:
		e.uint(uint64(o.Mode))
	case OpMtime:
		e.int(o.Mtime)
	case OpOwner:
		e.uint(uint64(o.UID))
		e.uint(uint64(o.GID))
	case OpTarget:
		e.str(o.Target)
	case OpRdev:
		e.uint(uint64(o.Rdev))
	case OpXattr:
		e.str(o.Name)
		if o.Remove {
			e.null()
		} else {
			e.bytes(o.Value)
		}
	}
}

// content is three items: OpContent counts the last two of its fields as size and body.
func (e *encoder) content(c *Content) {
	e.uint(uint64(c.Size))
	switch {
	case c.Root.Defined():
		n := 2
		if !c.Epoch.IsZero() {
			n++
		}
		e.array(n)
		e.bytes(c.Root.Bytes())
		if len(c.Layout) > 0 {
			e.array(2 * len(c.Layout))
			end := int64(0)
			for _, l := range c.Layout {
				e.uint(uint64(l.Off - end))
				e.uint(uint64(l.Len))
				end = l.Off + l.Len
			}
		} else {
			e.bytes(c.LayoutBlock[:])
		}
		if !c.Epoch.IsZero() {
			e.bytes(c.Epoch[:])
		}
	case c.Patch != nil:
		// A patch is told from blocks by the head: one item, an array.
		e.array(1)
		e.array(3 * len(c.Patch))
		end := int64(0)
		for i := range c.Patch {
			p := &c.Patch[i]
			e.uint(uint64(p.Off - end))
			e.bytes(p.Bytes)
			e.uint(uint64(p.Len - int64(len(p.Bytes))))
			end = p.Off + p.Len
		}
	default:
		e.bytes(c.Inline)
	}
}

// DecodePayload reads the payload of the change self, which has the given parents. All refs of the result are whole ids, also those to
// self. It takes the canonical encoding only, and fails with ErrInvalid for anything else. Byte slices alias b.
func DecodePayload(b []byte, self dag.ID, parents []dag.ID) (*Payload, error) {
	if len(b) > MaxPayload {
		return nil, invalid("%d bytes", len(b))
	}
	d := &decoder{b: b}
	n := d.array(math.MaxInt32, "payload")
	version := d.uint(math.MaxUint64, "version")
	if d.err == nil && version > payloadVersion {
		for range n - 1 {
			d.skip(maxDepth)
		}
		if err := d.done(); err != nil {
			return nil, err
		}
		return &Payload{Future: true}, nil
	}
	if n != 5 && n != 6 || version != payloadVersion {
		d.fail("payload")
	}
	p := &Payload{Kind: Kind(d.uint(uint64(kindEnd)-1, "kind")), Time: d.int("time")}
	ids := make([]dag.ID, 1+len(parents), 1+len(parents)+8)
	ids[0] = self
	copy(ids[1:], parents)
	for range d.array(MaxPayload/34, "ids") {
		ids = append(ids, d.id("id"))
	}
	r := refReader{d: d, ids: ids, next: 1 + len(parents)}
	if ops := d.array(MaxOps, "operations"); ops > 0 {
		p.Ops = make([]Op, ops)
	}
	for i := range p.Ops {
		r.op(&p.Ops[i])
		if d.err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, d.err)
		}
	}
	if n == 6 {
		p.Snapshot = d.bytes(MaxPayload, "snapshot")
	}
	if d.err == nil && r.next != len(ids) {
		d.fail("an id that nothing refers to")
	}
	if err := d.done(); err != nil {
		return nil, err
	}
	if err := distinct(ids[1:], len(parents)); err != nil {
		return nil, err
	}
	return p, nil
}

// distinct fails when one of the listed ids, which follow the given number of parents, is zero or stands twice.
func distinct(ids []dag.ID, parents int) error {
	if len(ids) == parents {
		return nil
	}
	seen := make(map[dag.ID]struct{}, len(ids))
	for i, id := range ids {
		if _, dup := seen[id]; i >= parents && (dup || id.IsZero()) {
			return invalid("an id listed twice")
		}
		seen[id] = struct{}{}
	}
	return nil
}

// maxDepth bounds the nesting of what newer versions may put into a payload.
const maxDepth = 16

// unknownOp passes over an operation and returns its kind.
func (d *decoder) unknownOp() OpKind {
	n := d.array(math.MaxInt32, "operation")
	k := OpKind(d.uint(math.MaxUint16, "kind"))
	for i := 1; i < n && d.err == nil; i++ {
		d.skip(maxDepth)
	}
	if n == 0 {
		d.fail("operation without a kind")
	}
	return k
}

type refReader struct {
	d    *decoder
	ids  []dag.ID
	next int // the listed id that comes next: they stand in the order of their first use
}

func (r *refReader) ref() Ref {
	i := int(r.d.uint(uint64(len(r.ids)), "ref"))
	place := uint32(r.d.uint(MaxOps, "place"))
	if r.d.err != nil {
		return Ref{}
	}
	if i > r.next || i >= len(r.ids) {
		r.d.fail("an id out of order")
		return Ref{}
	}
	if i == r.next {
		r.next++
	}
	return Ref{r.ids[i], place}
}

func (r *refReader) refs() []Ref {
	n := r.d.array(2*MaxOps, "refs")
	if n%2 != 0 {
		r.d.fail("refs")
	}
	if n == 0 || r.d.err != nil {
		return nil
	}
	rs := make([]Ref, n/2)
	for i := range rs {
		rs[i] = r.ref()
	}
	return rs
}

func (r *refReader) op(o *Op) {
	d := r.d
	start := d.b
	n := d.array(math.MaxInt32, "operation")
	o.Kind = OpKind(d.uint(math.MaxUint16, "kind"))
	if !o.Kind.known() {
		d.b = start
		if o.Kind = d.unknownOp(); d.err == nil {
			o.Raw = start[: len(start)-len(d.b) : len(start)-len(d.b)]
			if o.Kind.known() {
				d.fail("operation")
			}
		}
		return
	}
	if want := 1 + o.Kind.fields(); n != want {
		d.fail("operation")
		return
	}
	switch o.Kind {
	case OpLink:
		o.Parent, o.Name = d.id("parent"), string(d.bytes(MaxName, "name"))
	case OpMove:
		o.Link, o.Over = r.ref(), r.refs()
		o.Parent, o.Name = d.id("parent"), string(d.bytes(MaxName, "name"))
	case OpUnlink:
		o.Link, o.Over, o.Contents = r.ref(), r.refs(), r.refs()
	case OpContent:
		o.Over, o.Mtime, o.Content = r.refs(), d.int("mtime"), d.content()
	case OpDrop:
		o.Over = r.refs()
	case OpMode:
		o.Mode = uint32(d.uint(0o7777, "mode"))
	case OpMtime:
		o.Mtime = d.int("mtime")
	case OpOwner:
		o.UID, o.GID = uint32(d.uint(math.MaxUint32, "uid")), uint32(d.uint(math.MaxUint32, "gid"))
	case OpTarget:
		o.Target = string(d.bytes(MaxTarget, "target"))
	case OpRdev:
		o.Rdev = uint32(d.uint(math.MaxUint32, "rdev"))
	case OpXattr:
		o.Name = string(d.bytes(MaxName, "attribute"))
		if o.Remove = d.null(); !o.Remove {
			o.Value = d.bytes(MaxXattr, "attribute")
		}
	}
	if d.err == nil {
		d.err = o.check()
	}
}

func (d *decoder) content() *Content {
	c := &Content{Size: d.size("size")}
	if len(d.b) > 0 && d.b[0]>>5 == majorBytes {
		if c.Inline = d.bytes(MaxInline, "content"); len(c.Inline) == 0 {
			c.Inline = nil
		}
		return c
	}
	n := d.array(3, "content")
	switch n {
	case 1:
		edits := d.array(3*MaxEdits, "patch")
		if edits%3 != 0 {
			d.fail("patch")
			return c
		}
		c.Patch = make([]Edit, edits/3)
		end := int64(0)
		for i := range c.Patch {
			p := &c.Patch[i]
			p.Off = d.after(end)
			p.Bytes = d.bytes(MaxPatch, "patch")
			p.Len = d.size("patch")
			if p.Len > math.MaxInt64-int64(len(p.Bytes)) {
				d.fail("patch")
				return c
			}
			p.Len += int64(len(p.Bytes))
			if end = p.Off + p.Len; end < 0 {
				d.fail("patch")
				return c
			}
		}
	case 2, 3:
		root, err := cid.Cast(bytes.Clone(d.bytes(64, "root")))
		if err != nil {
			d.fail("root")
			return c
		}
		c.Root = root
		if len(d.b) > 0 && d.b[0]>>5 == majorBytes {
			c.LayoutBlock = d.id("layout")
		} else {
			d.layout(c)
		}
		if n == 3 {
			if c.Epoch = d.id("epoch"); c.Epoch.IsZero() {
				d.fail("epoch")
			}
		}
	default:
		d.fail("content")
	}
	return c
}

func (d *decoder) after(end int64) int64 {
	gap := d.size("offset")
	if gap > math.MaxInt64-end {
		d.fail("offset")
		return end
	}
	return end + gap
}

func (d *decoder) layout(c *Content) {
	n := d.array(MaxPayload, "layout")
	if n%2 != 0 {
		d.fail("layout")
		return
	}
	c.Layout = make([]Chunk, n/2)
	end := int64(0)
	for i := range c.Layout {
		l := &c.Layout[i]
		l.Off, l.Len = d.after(end), d.size("layout")
		if end = l.Off + l.Len; end < 0 {
			d.fail("layout")
			return
		}
	}
}
