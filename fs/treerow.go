package fs

import (
	"encoding/binary"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// The keys and values of the rows of a treeStore.

// keyBytes is as much as a key takes whose parts are gathered without an allocation, and nameBytes what is hashed for one.
const (
	keyBytes  = 96
	nameBytes = 33 + 255
)

// appendName appends a name of a directory as it is in keys: 32 bytes that say nothing of the name.
func (t *treeStore) appendName(k []byte, dir dag.ID, name string) []byte {
	var buf [nameBytes]byte
	b := append(append(append(buf[:0], 0), dir[:]...), name...)
	lo := t.hash.Hash64(b)
	b[0] = 1
	hi := t.hash.Hash64(b)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(append(k, dir[:16]...), lo), hi)
}

// claimsKey is what the keys of all claims to a name begin with.
func (t *treeStore) claimsKey(dir dag.ID, name string) string {
	var buf [keyBytes]byte
	return string(t.appendName(append(buf[:0], rowClaim...), dir, name))
}

func (t *treeStore) claimKey(dir dag.ID, name string, object dag.ID, link tree.Ref) string {
	var buf [keyBytes]byte
	k := append(t.appendName(append(buf[:0], rowClaim...), dir, name), object[:16]...)
	if link.Change != object || link.Place != 0 { // most objects have one link, made by the first operation of the root
		k = append(binary.BigEndian.AppendUint32(k, link.Place), link.Change[:16]...)
	}
	return string(k)
}

func (t *treeStore) markKey(set tree.Set, dir dag.ID, name string) string {
	var buf [keyBytes]byte
	return string(t.appendName(append(append(buf[:0], rowMark...), byte(set)), dir, name))
}

func (t *treeStore) laterKey(n tree.DirName) string {
	var buf [keyBytes]byte
	return string(t.appendName(append(buf[:0], rowLater...), n.Dir, n.Name))
}

func placeKey(object dag.ID) string { return rowPlace + string(object[:16]) }

func unbornKey(object dag.ID) string { return rowUnborn + string(object[:16]) }

func heldKey(at uint64) string { return rowHeld + string(binary.BigEndian.AppendUint64(nil, at)) }

func moveKey(o tree.Order) string {
	k := binary.BigEndian.AppendUint64([]byte(rowMove), o.Pos.Clock)
	k = append(k, o.Pos.Batch[:]...)
	return string(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(k, o.Pos.Place), o.Op))
}

// device gives a device's number, which it gets where it has none.
func (t *treeStore) device(key dag.PublicKey) uint64 {
	n, known := t.numbers[key]
	if !known {
		n = uint64(len(t.devices))
		t.numbers[key] = n
		t.devices = append(t.devices, key)
		t.rows.Set(t.deviceKey(n), append([]byte{}, key[:]...))
	}
	return n
}

func (t *treeStore) deviceOf(r *reader) dag.PublicKey {
	n := r.uint()
	if n >= uint64(len(t.devices)) {
		r.fail()
		return dag.PublicKey{}
	}
	return t.devices[n]
}

// refOf writes a reference, in short where it is to the root of the object.
func (w *writer) refOf(v tree.Ref, object dag.ID) {
	if v.Change == object {
		w.uint(uint64(v.Place) << 1)
		return
	}
	w.uint(uint64(v.Place)<<1 | 1)
	w.id(v.Change)
}

func (r *reader) refOf(object dag.ID) tree.Ref {
	n := r.uint()
	v := tree.Ref{Change: object, Place: uint32(n >> 1)}
	if n&1 != 0 {
		v.Change = r.id()
	}
	return v
}

func (w *writer) pos(p dag.Pos) {
	w.uint(p.Clock)
	w.id(p.Batch)
	w.uint(uint64(p.Place))
}

func (r *reader) pos() dag.Pos {
	return dag.Pos{Clock: r.uint(), Batch: r.id(), Place: uint32(r.uint())}
}

func (t *treeStore) encodeClaim(name string, c *tree.Claim) []byte {
	w := &writer{b: make([]byte, 0, 96+len(name))}
	w.str(name)
	w.id(c.Object)
	kind := uint64(c.Kind) << 1
	if c.Split {
		kind |= 1
	}
	w.uint(kind)
	w.refOf(c.Link, c.Object)
	w.refOf(c.Place, c.Object)
	w.pos(c.Pos)
	w.uint(t.device(c.Device))
	w.int(c.Time)
	return w.b
}

func (t *treeStore) decodeClaim(b []byte) (name string, c tree.Claim, err error) {
	r := &reader{b: b}
	name, c.Object = r.str(), r.id()
	kind := r.uint()
	c.Kind, c.Split = tree.Kind(kind>>1), kind&1 != 0
	c.Link, c.Place, c.Pos = r.refOf(c.Object), r.refOf(c.Object), r.pos()
	c.Device, c.Time = t.deviceOf(r), r.int()
	if r.end() != nil {
		err = fmt.Errorf("%w: a claim of the tree", index.ErrCorrupt)
	}
	return name, c, err
}

func (t *treeStore) placement(w *writer, p *tree.Placement) {
	w.ref(p.Ref)
	w.pos(p.Pos)
	w.uint(t.device(p.Device))
	w.int(p.Time)
	w.id(p.Parent)
	w.str(p.Name)
}

func (t *treeStore) placementOf(r *reader) *tree.Placement {
	return &tree.Placement{
		Ref: r.ref(), Pos: r.pos(), Device: t.deviceOf(r), Time: r.int(), Parent: r.id(), Name: r.str(),
	}
}

// What the row of a directory's places holds: place and claim, most often the same.
const (
	placesNone = iota
	placesUnclaimed
	placesSame
	placesTwo
	placesClaimed
)

func (t *treeStore) encodePlaces(place, claimed *tree.Placement) []byte {
	w := &writer{}
	switch {
	case place == nil && claimed == nil:
		return nil
	case claimed == nil:
		w.uint(placesUnclaimed)
		t.placement(w, place)
	case place == nil:
		w.uint(placesClaimed)
		t.placement(w, claimed)
	case place.Ref == claimed.Ref:
		w.uint(placesSame)
		t.placement(w, place)
	default:
		w.uint(placesTwo)
		t.placement(w, place)
		t.placement(w, claimed)
	}
	return w.b
}

// places reads what SetObject wrote.
func (t *treeStore) places(object dag.ID) (place, claimed *tree.Placement, err error) {
	b, err := t.rows.Get(placeKey(object))
	if b == nil || err != nil {
		return nil, nil, err
	}
	r := &reader{b: b}
	switch r.uint() {
	case placesUnclaimed:
		place = t.placementOf(r)
	case placesClaimed:
		claimed = t.placementOf(r)
	case placesSame:
		place = t.placementOf(r)
		claimed = place
	case placesTwo:
		place, claimed = t.placementOf(r), t.placementOf(r)
	default:
		r.fail()
	}
	if r.end() != nil {
		err = fmt.Errorf("%w: a place of the tree", index.ErrCorrupt)
	}
	return place, claimed, err
}

func (t *treeStore) encodeMove(m *tree.Move) []byte {
	w := &writer{}
	w.id(m.Object)
	w.bool(m.Skipped)
	t.placement(w, &m.To)
	if w.bool(m.From != nil); m.From != nil {
		t.placement(w, m.From)
	}
	return w.b
}

func (t *treeStore) decodeMove(b []byte) (*tree.Move, error) {
	r := &reader{b: b}
	m := &tree.Move{Object: r.id(), Skipped: r.bool(), To: *t.placementOf(r)}
	if r.bool() {
		m.From = t.placementOf(r)
	}
	if r.end() != nil {
		return nil, fmt.Errorf("%w: a move of the tree", index.ErrCorrupt)
	}
	return m, nil
}
