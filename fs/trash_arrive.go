package fs

import (
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// What other devices remove and move goes into the trash as it is folded, whether or not this device ever showed it: a new one lists what
// was deleted before it came, and shows directories as they were. (What this device does is noted when it does it.)

// leaving is a name that an object lost by a change of another device.
type leaving struct {
	kind   trashKind
	object dag.ID
	typ    uint32
	size   int64
	parent dag.ID
	name   string
	time   int64
}

// placedLink is where a live link was.
type placedLink struct {
	id     tree.Ref
	parent dag.ID
	name   string
	time   int64
}

// takesNames reports whether a change may take names from its object.
func takesNames(p *tree.Payload) bool {
	if p == nil {
		return false
	}
	for i := range p.Ops {
		if k := p.Ops[i].Kind; k == tree.OpUnlink || k == tree.OpMove {
			return true
		}
	}
	return false
}

// linksBefore gives where the objects are whose names the changes of a batch by another device may take. Nil: none.
func (s *space) linksBefore(b *dag.Batch, changes []tree.Change) (map[dag.ID][]placedLink, error) {
	if b.Device == dag.PublicKey(s.h.keys.Author().Device) || s.slot == 0 {
		return nil, nil
	}
	var out map[dag.ID][]placedLink
	for i := range changes {
		c := &changes[i]
		if !takesNames(c.Payload) {
			continue
		}
		st, err := s.in.t.State(c.Object)
		if err != nil {
			return nil, err
		}
		var list []placedLink
		if st != nil {
			for _, l := range st.LiveLinks() {
				p := l.Shown()
				list = append(list, placedLink{l.ID, p.Parent, p.Name, p.Time})
			}
		}
		if list != nil {
			if out == nil {
				out = map[dag.ID][]placedLink{}
			}
			out[c.Object] = list
		}
	}
	return out, nil
}

// noteLeft notes which of those names are gone now.
func (s *space) noteLeft(before map[dag.ID][]placedLink, changes []tree.Change) error {
	now := s.h.now()
	for i := range changes {
		was := before[changes[i].Object]
		if was == nil {
			continue
		}
		st, err := s.in.t.State(changes[i].Object)
		if err != nil {
			return err
		}
		if st == nil {
			continue
		}
		live := map[tree.Ref]*tree.Link{}
		for _, l := range st.LiveLinks() {
			live[l.ID] = l
		}
		for _, w := range was {
			x := leaving{object: st.Object, typ: st.Kind.Type(), parent: w.parent, name: w.name}
			if l := live[w.id]; l == nil {
				x.kind = trashRemoved
				if l = linkAt(st, w.id); l != nil {
					x.time = l.Mark.Time
				}
			} else if p := l.Shown(); p.Parent != w.parent {
				x.kind, x.time = trashMoved, p.Time
			} else {
				continue
			}
			if x.time-maxAhead > now {
				x.time = 0 // what a clock wrote that was badly wrong
			}
			x.time = min(max(x.time, w.time), now+maxAhead)
			if st.Kind == tree.KindFile {
				v := st.View()
				x.size = v.Size()
			}
			s.in.left = append(s.in.left, x)
		}
	}
	return nil
}

// recordLeft puts what was noted into the trash, with one record of the journal. Under pubMu.
func (s *space) recordLeft() error {
	left := s.in.left
	if len(left) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil
	}
	r := &arriveRecord{Time: s.h.now()} // without a mark: the batches may not be durable yet, and are folded again then
	next := s.nextIno
	given := map[dag.ID]uint64{}
	number := func(object dag.ID) (uint64, error) {
		if object == s.in.t.Root() {
			return rootDir, nil
		}
		n, err := s.ix.Object(object)
		if err != nil || n != 0 {
			return n, err
		}
		if n = given[object]; n != 0 {
			return n, nil
		}
		if n, err = s.grave(object); err == nil && n == 0 {
			n = next
			next++
			given[object] = n
			r.Graves = append(r.Graves, objectAt{object, n})
		}
		return n, err
	}
	for i := range left {
		x := &left[i]
		dir, err := number(x.parent)
		if err != nil {
			return s.damaged(err)
		}
		ino := uint64(0)
		if x.typ == typeDir {
			ino, err = number(x.object)
		} else {
			ino, err = s.ix.Object(x.object)
		}
		if err != nil {
			return s.damaged(err)
		}
		r.Gone = append(r.Gone, goneAt{x.kind, entryAt{dir, x.name, ino}, x.time, x.object, x.typ, x.size})
	}
	w := s.record(recArrive)
	r.encode(w)
	m, err := s.commit(w, true)
	if err != nil {
		return err
	}
	s.in.left = left[:0]
	return s.applyArrive(m.seq, r, nil)
}

// bury puts what an arrival says into the trash, unless it is there: a tree that is made anew says it again. Under mu.
func (s *space) bury(g *goneAt) error {
	there := false
	at := uint64(trashEnd - max(g.Time, 1))
	err := s.ix.Scan(g.Dir|trashBit, at-1, func(k uint64, e *index.Entry) bool {
		t, ok := parseTrash(g.Dir, k, e)
		there = ok && k == at && t.kind == g.Kind && t.object == g.Object && t.name == g.Name
		at++
		return !there && k == at-1
	})
	if err != nil {
		return s.damaged(err)
	}
	if !there {
		s.noteTrash(g.Kind, &index.Inode{Ino: g.Ino, Mode: g.Typ, Size: g.Size}, g.Object, g.Dir, g.Name, g.Time)
	}
	return nil
}
