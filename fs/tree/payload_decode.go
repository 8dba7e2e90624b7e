package tree

import (
	"bytes"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
)

// DecodePayload reads the payload of the change self, which has the given parents. All refs of the result are whole ids, also
// those to self. It takes the canonical encoding only, and fails with ErrInvalid for anything else. Byte slices alias b.
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
	var few [8]dag.ID // as mostly: on the stack
	ids := append(append(few[:0], self), parents...)
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
	d     *decoder
	ids   []dag.ID
	next  int // the listed id that comes next: they stand in the order of their first use
	count int // of the refs in lists so far
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
	n := r.d.array(2*MaxRefs, "refs")
	if r.count += n / 2; n%2 != 0 || r.count > MaxRefs {
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
