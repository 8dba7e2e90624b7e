package tree

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/dag"
)

// Two devices that end one conflict at once make the same conflict copy twice: a link has two placements of one name (of a file that
// lost its name), or there are two objects of one name and content, twins (of a losing content). Who removes or moves the copy may
// know of one only. He says in the same change that he dealt with it (DealtPrefix), and what else there is of that copy goes the same
// way when it comes: a device publishes that like the end of a conflict. So the fold knows nothing of it, and every version shows the
// same tree.
//
// What was changed since it was made is no twin, and stays.

// DealtPrefix begins the names of the attributes of a conflict copy that a person has removed, renamed, moved or written to: one for each
// name by which it was a copy. No person can give such a name.
const DealtPrefix = ".conflict.dealt."

const (
	dealtVersion = 1
	maxDealt     = 8  // attributes of an object that count
	maxTwins     = 64 // objects that count as copies by one name: each device that ends a conflict makes one
)

// dealtXattr returns the name and the value of the attribute for a name of a copy.
func dealtXattr(copyName string) (name string, value []byte) {
	sum := dag.Sum([]byte("anyfs/tree/dealt/1" + copyName))
	var e encoder
	e.array(2)
	e.uint(dealtVersion)
	e.str(copyName)
	return DealtPrefix + hex.EncodeToString(sum[:8]), e.b
}

// dealtNames returns the names of copies that a person has dealt with, sorted by their attributes.
func (s *State) dealtNames() (out []string) {
	if s.Kind == KindDir || len(s.Links) == 0 || len(s.Xattrs) == 0 {
		return nil
	}
	for _, x := range sortedKeys(s.Xattrs) {
		if !strings.HasPrefix(x, DealtPrefix) {
			continue
		}
		d := decoder{b: s.Xattrs[x]}
		d.fixed(2, "dealt")
		d.uint(dealtVersion, "version")
		name := string(d.bytes(MaxName, "name"))
		if d.done() == nil && s.dealt(name) {
			if out = append(out, name); len(out) == maxDealt {
				break
			}
		}
	}
	return out
}

// dealt reports whether a person has dealt with the copy of that name.
func (s *State) dealt(copyName string) bool {
	name, value := dealtXattr(copyName)
	v, ok := s.Xattrs[name]
	return ok && bytes.Equal(v, value)
}

// copyName returns the name that the mark of a conflict copy gives it, whatever it is called now.
func (s *State) copyName() (string, bool) {
	v, ok := s.Xattrs[ConflictXattr]
	if !ok || s.Kind == KindDir || len(s.Links) == 0 {
		return "", false
	}
	c, ok := ParseConflict(v)
	return c.Name, ok
}

// Deal returns the operation that goes with a person's operations on an object when they remove or move a link by which it is a
// conflict copy, or write to one that was made as a file of its own. ok is false when they don't.
func (s *State) Deal(ops []Op) (o Op, ok bool) {
	name, is := s.copyName()
	if !is || s.dealt(name) {
		return Op{}, false
	}
	x, value := dealtXattr(name)
	for i := range ops {
		switch o := &ops[i]; o.Kind {
		case OpXattr:
			if o.Name == x {
				return Op{}, false
			}
		case OpMove, OpUnlink:
			l := s.linkAt(o.Link)
			ok = ok || l != nil && l.Shown().Name == name
		case OpContent:
			ok = ok || s.untouched(name) != nil
		}
	}
	return Op{Kind: OpXattr, Name: x, Value: value}, ok
}

// untouched returns the link of a copy that was made as an object, where both are as they were made; else nil.
func (s *State) untouched(name string) *Link {
	if s.Kind != KindFile {
		return nil
	}
	for _, v := range s.values {
		if !v.replaced && v.Ref.Change != s.Object {
			return nil
		}
	}
	for _, l := range s.LiveLinks() {
		if len(l.Values) == 1 && l.ID.Change == s.Object && l.Values[0].Ref == l.ID && l.Values[0].Name == name {
			return l
		}
	}
	return nil
}

// doubled returns the links of a copy that a person dealt with which have several placements, one of them by the copy's name.
func (s *State) doubled() (out []*Link) {
	names := s.dealtNames()
	if names == nil {
		return nil
	}
	for _, l := range s.LiveLinks() {
		if len(l.Values) > 1 && slices.ContainsFunc(l.Values, func(p Placement) bool { return slices.Contains(names, p.Name) }) {
			out = append(out, l)
		}
	}
	return out
}

// Twins are listed as claims, to the empty name in an object that there is not, which the copies' name gives. Split is set in those of
// objects that a person dealt with, and the kind is that of a file in those of copies that are as they were made.

func twinsOf(name string) dag.ID { return dag.Sum([]byte("anyfs/tree/twins/1" + name)) }

// The names of the members of SetDealt.
const (
	dealtTwins = "-" // of a list of twins, in which some are to go
	dealtLink  = ""  // of an object that has a doubled link
)

// twinClaims returns the claims of an object in lists of twins.
func twinClaims(o *Object) (out []placedClaim) {
	if o == nil {
		return nil
	}
	s := o.State
	dealt := s.dealtNames()
	name, ok := s.copyName()
	if dealt == nil && !ok {
		return nil
	}
	c := claimBy(s, Ref{Change: s.Object}, s.Links[0].Shown())
	c.Kind = KindNone
	c.Split = true
	for _, was := range dealt {
		out = append(out, placedClaim{dir: twinsOf(was), c: c})
	}
	if ok && !slices.Contains(dealt, name) {
		if c.Split = false; s.untouched(name) != nil {
			c.Kind = KindFile
		}
		out = append(out, placedClaim{dir: twinsOf(name), c: c})
	}
	return out
}

// twins keeps the lists of twins that an object is in, and SetDealt.
func (u *update) twins(id dag.ID, now *Object) error {
	st := u.t.store
	old := u.old[id]
	if old != nil && old.State.doubled() != nil || now.State.doubled() != nil {
		ops, err := u.t.once(now.State)
		if err == nil {
			err = st.SetMark(SetDealt, id, dealtLink, len(ops) > 0)
		}
		if err != nil {
			return err
		}
	}
	before, after := twinClaims(old), twinClaims(now)
	if slices.Equal(before, after) {
		return nil
	}
	for _, c := range before {
		if err := st.DeleteClaim(c.dir, "", c.c.Object, c.c.Link); err != nil {
			return err
		}
	}
	for _, c := range after {
		if err := st.SetClaim(c.dir, "", c.c); err != nil {
			return err
		}
	}
	for _, c := range append(before, after...) {
		if slices.Contains(before, c) && slices.Contains(after, c) {
			continue
		}
		if err := u.judgeTwins(c.dir); err != nil {
			return err
		}
	}
	return nil
}

func (u *update) judgeTwins(twins dag.ID) error {
	claims, err := u.t.store.Claims(twins, "")
	if err != nil {
		return err
	}
	dealt, left := false, false
	for i := range claims {
		dealt = dealt || claims[i].Split
		left = left || claims[i].Kind == KindFile
	}
	return u.t.store.SetMark(SetDealt, twins, dealtTwins, dealt && left && len(claims) <= maxTwins)
}

// Twins returns the objects that have the mark of the same conflict copy as one that has it: itself, and others, removed ones too; itself
// alone where there are more than of any that devices make.
func (t *Tree) Twins(object dag.ID) ([]dag.ID, error) {
	s, err := t.State(object)
	if err != nil || s == nil {
		return nil, err
	}
	name, ok := s.copyName()
	if !ok {
		return nil, nil
	}
	claims, err := t.store.Claims(twinsOf(name), "")
	if len(claims) > maxTwins {
		return []dag.ID{object}, err
	}
	var out []dag.ID
	for i := range claims {
		out = append(out, claims[i].Object)
	}
	return out, err
}

// Dealt calls fn for the objects that may be what is left of a conflict copy which a person has dealt with.
func (t *Tree) Dealt(fn func(object dag.ID) error) error {
	var marks []DirName
	if err := t.store.Marks(SetDealt, func(dir dag.ID, name string) bool {
		marks = append(marks, DirName{dir, name})
		return true
	}); err != nil {
		return err
	}
	slices.SortFunc(marks, func(a, b DirName) int { return a.Dir.Compare(b.Dir) })
	for _, m := range marks {
		if m.Name == dealtLink {
			if err := fn(m.Dir); err != nil {
				return err
			}
			continue
		}
		claims, err := t.store.Claims(m.Dir, "")
		if err != nil {
			return err
		}
		claims = slices.Clone(claims)
		slices.SortFunc(claims, func(a, b Claim) int { return a.Object.Compare(b.Object) })
		for i := range claims {
			if claims[i].Kind != KindFile {
				continue
			}
			if err := fn(claims[i].Object); err != nil {
				return err
			}
		}
	}
	return nil
}

// dealer plans what becomes of what is left of conflict copies. It looks at the beginning of each object once.
type dealer struct {
	t    *Tree
	made map[dag.ID]dag.ID
}

// plan has what is left of a conflict copy go the way of the one that a person has dealt with: a twin is removed, and of a doubled link
// the second placement counts no more. The plan is empty where something is not as the device made it that ended the conflict.
func (d *dealer) plan(object dag.ID) (*Plan, error) {
	t := d.t
	w := t.planner()
	s, err := w.state(object)
	if err != nil {
		return nil, err
	}
	ops, err := t.once(s)
	if err != nil {
		return nil, err
	}
	if len(ops) > 0 {
		w.plan.of(object).ops(ops...)
		return w.plan, nil
	}
	name, ok := s.copyName()
	if !ok || s.dealt(name) {
		return w.plan, nil
	}
	l := s.untouched(name)
	if l == nil {
		return w.plan, nil
	}
	mine, err := d.madeCopy(object)
	if err != nil || mine.IsZero() {
		return w.plan, err
	}
	claims, err := t.store.Claims(twinsOf(name), "")
	if err != nil {
		return nil, err
	}
	for i := range claims {
		if !claims[i].Split || claims[i].Object == object {
			continue
		}
		other, err := d.madeCopy(claims[i].Object)
		if err != nil {
			return nil, err
		}
		if mine == other {
			w.unlink(s, l.ID)
			break
		}
	}
	return w.plan, nil
}

// madeCopy returns a hash of what a device made as a conflict copy by an object: where it put it, the copy's name and the lost one, and the
// contents, one patch over the other, with their times. (Which object kept the name may be seen differently.) It is zero for what was made
// otherwise. Only the end of a conflict makes an object by a change that sets the mark last, behind the content. The name alone does not
// tell: it has 20 bits of a hash, and copies in many folders may have one.
func (d *dealer) madeCopy(object dag.ID) (dag.ID, error) {
	if sum, ok := d.made[object]; ok {
		return sum, nil
	}
	var sum dag.ID
	err := d.t.store.History(object, func(at Stamp, p *Payload) error {
		if at.ID != object {
			return nil
		}
		if p == nil || len(p.Ops) < 3 || p.Ops[0].Kind != OpLink {
			return errFound
		}
		last := len(p.Ops) - 1
		mark := &p.Ops[last]
		if mark.Kind != OpXattr || mark.Name != ConflictXattr {
			return errFound
		}
		c, ok := ParseConflict(mark.Value)
		if !ok || c.Name != p.Ops[0].Name {
			return errFound
		}
		var e encoder
		e.bytes(p.Ops[0].Parent[:])
		e.str(c.Lost)
		e.str(c.Name)
		i := last
		for ; i > 1 && p.Ops[i-1].Kind == OpContent; i-- {
			e.int(p.Ops[i-1].Mtime)
			e.content(p.Ops[i-1].Content)
		}
		if i < last {
			sum = dag.Sum(e.b)
		}
		return errFound
	})
	if err != nil && !errors.Is(err, errFound) {
		return sum, err
	}
	d.made[object] = sum
	return sum, nil
}

// errFound ends a walk through a history.
var errFound = errors.New("tree: found")

// once returns the operations that put doubled links where they would be if the copy's name had been given to them once.
func (t *Tree) once(s *State) (ops []Op, err error) {
	links := s.doubled()
	if links == nil {
		return nil, nil
	}
	once, err := t.foldOnce(s.Object)
	if err != nil {
		return nil, err
	}
	live := once.LiveLinks()
	var gone []Ref
	for _, l := range links {
		if once.linkAt(l.ID) == nil {
			continue // it was forgotten
		}
		i := slices.IndexFunc(live, func(k *Link) bool { return k.ID == l.ID })
		if i < 0 {
			ops = append(ops, s.Unlink(l.ID, gone...)...)
			gone = append(gone, l.ID)
			continue
		}
		if p, now := live[i].Shown(), l.Shown(); p.Parent != now.Parent || p.Name != now.Name {
			ops = append(ops, s.Move(l.ID, p.Parent, p.Name))
		}
	}
	return ops, nil
}

// placedCopy says what a device that ended a conflict did to a link: of the placement that lost it made one by the copy's name.
type placedCopy struct {
	link, lost Ref
	parent     dag.ID
	name       string
}

// foldOnce folds an object as if of the placements by which several devices gave a link the same copy's name there were the first only,
// and all that replaced or removed one of them had done that to the first.
func (t *Tree) foldOnce(id dag.ID) (*State, error) {
	s := t.newState(id)
	first, same := map[placedCopy]Ref{}, map[Ref]Ref{}
	err := t.store.History(id, func(at Stamp, p *Payload) error {
		if p == nil {
			return s.Apply(at, nil)
		}
		q := *p
		q.Ops = slices.Clone(p.Ops)
		name := ""
		for i := range q.Ops {
			if o := &q.Ops[i]; o.Kind == OpXattr && o.Name == ConflictXattr {
				if c, ok := ParseConflict(o.Value); ok {
					name = c.Name
				}
			}
		}
		for i := range q.Ops {
			o := &q.Ops[i]
			if o.Kind != OpMove && o.Kind != OpUnlink {
				continue
			}
			if o.Kind == OpMove && name != "" && o.Name == name && len(o.Over) > 0 {
				r := Ref{at.ID, uint32(i)}
				key := placedCopy{o.Link, o.Over[len(o.Over)-1], o.Parent, name}
				if f, again := first[key]; again {
					same[r] = f
					*o = Op{} // nothing, in its place
					continue
				}
				first[key] = r
			}
			o.Over = slices.Clone(o.Over)
			for k, r := range o.Over {
				if f, ok := same[r]; ok {
					o.Over[k] = f
				}
			}
		}
		return s.Apply(at, &q)
	})
	return s, err
}
