package dag

import (
	"encoding/binary"
	"slices"
)

// object is what the index keeps of one object in one place: its heads, and the newest refs of its log. It is not changed
// once it is in the cache: updates work on a copy.
type object struct {
	num   uint64
	id    ID
	total uint64 // refs in the whole log
	heads []ref  // of the counted changes that no counted change names, in total order
	tail  []ref  // the newest in total order; the others are in TableLogs
}

const (
	tailMax   = 32 // refs of a tail; one more, and the oldest spill into TableLogs
	tailSpill = 24
	logMax    = 64 // refs of a value of TableLogs, beyond which it is split in two
)

// encode leaves out what is said twice: the ID of a root, and the refs of heads that are in the tail.
func (o *object) encode() []byte {
	p := make([]byte, 0, 40+(len(o.tail)+1)*refBytes)
	p = append(p, o.id[:]...)
	p = binary.AppendUvarint(p, o.total)
	p = binary.AppendUvarint(p, uint64(len(o.heads)))
	for i := range o.heads {
		h := &o.heads[i]
		if k := slices.IndexFunc(o.tail, func(r ref) bool { return r.id == h.id && r.at == h.at }); k >= 0 && k < 0xff {
			p = append(p, byte(k))
			continue
		}
		p = h.append(append(p, 0xff))
	}
	if len(o.tail) > 0 && o.tail[0].id == o.id {
		p = append(p, 1)
		p = append(p, o.tail[0].append(nil)[32:]...)
		return appendRefs(p, o.tail[1:])
	}
	p = append(p, 0)
	return appendRefs(p, o.tail)
}

func decodeObject(num uint64, p []byte) (*object, error) {
	d := decoder{b: p}
	o := &object{num: num, id: d.id(), total: d.uvarint()}
	n := d.count(1)
	inTail := make([]byte, n)
	o.heads = make([]ref, n)
	for i := range o.heads {
		if inTail[i] = d.take(1)[0]; inTail[i] == 0xff {
			o.heads[i] = d.ref()
		}
	}
	rest := d.take(1)[0]
	if d.bad {
		return nil, errIndex("object")
	}
	p = d.b
	if rest == 1 {
		p = append(append(make([]byte, 0, len(p)+32), o.id[:]...), p...)
	}
	var err error
	if o.tail, err = decodeRefs(p); err != nil {
		return nil, err
	}
	for i, k := range inTail {
		if k == 0xff {
			continue
		}
		if int(k) >= len(o.tail) {
			return nil, errIndex("heads of an object")
		}
		o.heads[i] = o.tail[k]
	}
	return o, nil
}

// objectOf looks an object up; nil when no change of it is held.
func (g *Graph) objectOf(id ID) (*object, error) {
	if o, ok := g.objects.get(id); ok {
		return o, nil
	}
	var buf [4]Value
	vs, err := g.store.Find(SetObjects, id.Prefix(), buf[:0])
	if err != nil {
		return nil, err
	}
	for _, v := range vs {
		o, err := g.objectByNumber(v.A)
		if err != nil {
			return nil, err
		}
		if o.id == id {
			g.objects.put(id, o, o.bytes())
			return o, nil
		}
	}
	return nil, nil
}

func (g *Graph) objectByNumber(num uint64) (*object, error) {
	p, err := g.store.Get(TableObjects, key64(num))
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errIndex("object of a number")
	}
	return decodeObject(num, p)
}

func (o *object) bytes() int { return 128 + (cap(o.tail)+len(o.heads))*88 }

// with returns o with one more change. Only a change that counts moves the heads: it takes the place of its parents there.
func (g *Graph) with(o *object, r *ref, parents []ID, counts bool, u *Update) (*object, error) {
	n := *o
	n.total++
	twice, err := g.logged(o, r)
	if err != nil {
		return nil, err
	}
	if err = g.addRef(&n, r, u); err != nil {
		return nil, err
	}
	switch {
	case counts && twice: // those that name it may be there as well
		n.heads, err = g.computeHeads(o, g.held, r, parents)
	case counts:
		n.heads = g.moveHeads(o.heads, r, parents)
	}
	return &n, err
}

func (g *Graph) moveHeads(heads []ref, r *ref, parents []ID) []ref {
	out := make([]ref, 0, len(heads)+1)
	for i := range heads {
		if _, named := slices.BinarySearchFunc(parents, heads[i].id, ID.Compare); !named {
			out = append(out, heads[i])
		}
	}
	return g.insert(out, r)
}

// addRef puts r into the log: into the tail, or where it came late into the older part.
func (g *Graph) addRef(o *object, r *ref, u *Update) error {
	older := o.total-1 > uint64(len(o.tail)) // the log had more than its tail
	if older && (len(o.tail) == 0 || g.compare(r, &o.tail[0]) < 0) {
		return g.addLate(o, r, u)
	}
	o.tail = g.insert(o.tail, r)
	if len(o.tail) <= tailMax {
		return nil
	}
	cut := g.cutPoint(o.tail, tailSpill)
	if cut == len(o.tail) {
		return nil
	}
	first := &o.tail[0]
	key := logKey(o.num, first.clock, first.batch)
	if !older {
		key = logKey(o.num, 0, 0) // the first value covers all that may come before it
	}
	u.put(TableLogs, key, encodeRefs(o.tail[:cut]))
	o.tail = append(make([]ref, 0, tailMax+1), o.tail[cut:]...)
	return nil
}

// cutPoint returns the first place from n on where refs can be cut: between two whose keys differ.
func (g *Graph) cutPoint(refs []ref, n int) int {
	for n < len(refs) && refs[n].clock == refs[n-1].clock && refs[n].batch == refs[n-1].batch {
		n++
	}
	return n
}

func (g *Graph) addLate(o *object, r *ref, u *Update) error {
	key, page, err := g.logPage(o.num, r.clock, r.batch)
	if err != nil {
		return err
	}
	if key == nil {
		return errIndex("older part of an object log")
	}
	page = g.insert(page, r)
	if len(page) > logMax {
		if cut := g.cutPoint(page, len(page)/2); cut < len(page) {
			u.put(TableLogs, logKey(o.num, page[cut].clock, page[cut].batch), encodeRefs(page[cut:]))
			page = page[:cut]
		}
	}
	u.put(TableLogs, key, encodeRefs(page))
	return nil
}

// logPage returns the page of the older log that covers a place in the order; a nil key when the log is all tail.
func (g *Graph) logPage(num, clock, batch uint64) (key []byte, page []ref, err error) {
	k, v, err := g.store.Floor(TableLogs, logKey(num, clock, batch))
	if err != nil || k == nil || len(k) != 24 || binary.BigEndian.Uint64(k) != num {
		return nil, nil, err
	}
	page, err = decodeRefs(v)
	return k, page, err
}

// nextPage returns the first page whose key is above a place in the order.
func (g *Graph) nextPage(num, clock, batch uint64) (page []ref, err error) {
	k, v, err := g.store.Ceil(TableLogs, append(logKey(num, clock, batch), 0))
	if err != nil || k == nil || len(k) != 24 || binary.BigEndian.Uint64(k) != num {
		return nil, err
	}
	return decodeRefs(v)
}

// logged reports whether the log has r's change already: another batch of the same clock then linked it.
func (g *Graph) logged(o *object, r *ref) (bool, error) {
	if o.total == 0 || len(o.tail) > 0 && o.tail[len(o.tail)-1].clock < r.clock {
		return false, nil
	}
	_, ok, err := g.refOf(o, r.clock, func(x *ref) bool { return x.id == r.id })
	return ok, err
}

// refOf finds the first ref of a clock in an object's log for which match holds.
func (g *Graph) refOf(o *object, clock uint64, match func(*ref) bool) (ref, bool, error) {
	look := func(refs []ref) (ref, bool) {
		for i := range refs {
			if refs[i].clock == clock && match(&refs[i]) {
				return refs[i], true
			}
		}
		return ref{}, false
	}
	if o.total > uint64(len(o.tail)) && (len(o.tail) == 0 || o.tail[0].clock >= clock) {
		_, page, err := g.logPage(o.num, clock, 0)
		for err == nil && page != nil {
			if r, ok := look(page); ok {
				return r, true, nil
			}
			last := &page[len(page)-1]
			if last.clock > clock {
				break
			}
			page, err = g.nextPage(o.num, last.clock, last.batch)
		}
		if err != nil {
			return ref{}, false, err
		}
	}
	r, ok := look(o.tail)
	return r, ok, nil
}
