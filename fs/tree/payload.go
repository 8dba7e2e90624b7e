package tree

import (
	"fmt"

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

// What a payload takes in memory, in bytes.
const (
	opMemory      = 232
	contentMemory = 160
	refMemory     = 36
	chunkMemory   = 16
	editMemory    = 40
)

// Memory is about how many bytes of memory the payload takes beside its encoding, which its byte slices share.
func (p *Payload) Memory() int {
	n := opMemory * len(p.Ops)
	for i := range p.Ops {
		o := &p.Ops[i]
		n += refMemory * (len(o.Over) + len(o.Contents))
		if c := o.Content; c != nil {
			n += contentMemory + chunkMemory*len(c.Layout) + editMemory*len(c.Patch)
		}
	}
	return n
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
	size, refs := 64+len(p.Snapshot), 0
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
		if refs += len(o.Over) + len(o.Contents); refs > MaxRefs {
			return nil, invalid("%d refs", refs)
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

// content writes two items: the size, and a body that is bytes (inline) or an array of one (a patch), two or three (blocks).
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
