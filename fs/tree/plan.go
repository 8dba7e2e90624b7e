package tree

import (
	"math"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/dag"
)

// Draft is a change to make: of Object, or the root of a new object of the given kind.
type Draft struct {
	Object dag.ID // zero: a new object
	Kind   Kind   // of a new object
	Ops    []Op
}

// Plan is what one operation of a person comes to: changes that are published together in one batch, in this order, at most
// one for each object. Refs to operations of the same change have a zero Change. A plan holds for the tree that it was made
// on, so nothing may come in between.
type Plan struct{ Drafts []*Draft }

// of returns the draft of an object.
func (p *Plan) of(object dag.ID) *Draft {
	for _, d := range p.Drafts {
		if d.Object == object {
			return d
		}
	}
	return p.add(&Draft{Object: object})
}

func (p *Plan) add(d *Draft) *Draft {
	p.Drafts = append(p.Drafts, d)
	return d
}

func (d *Draft) op(o Op) Ref {
	d.Ops = append(d.Ops, o)
	return Ref{Place: uint32(len(d.Ops) - 1)}
}

func (d *Draft) ops(ops ...Op) { d.Ops = append(d.Ops, ops...) }

// Move returns the operation that puts a link elsewhere, replacing all placements that the state knows.
func (s *State) Move(link Ref, parent dag.ID, name string) Op {
	return Op{Kind: OpMove, Link: link, Over: s.placements(link), Parent: parent, Name: name}
}

// Unlink returns the operations that mark a link removed against everything that the state knows. With the last live link go
// those that are removed already but for content that their marks missed: else one of them would come back. before are
// the links that the same change has removed already.
func (s *State) Unlink(link Ref, before ...Ref) []Op {
	mark := func(l Ref) Op {
		return Op{Kind: OpUnlink, Link: l, Over: s.placements(l), Contents: s.Candidates()}
	}
	gone := append(slices.Clone(before), link)
	out := []Op{mark(link)}
	for _, l := range s.LiveLinks() {
		if !slices.Contains(gone, l.ID) {
			return out
		}
	}
	for i := range s.Links {
		if l := &s.Links[i]; l.Removed && l.Missed && !slices.Contains(gone, l.ID) {
			out = append(out, mark(l.ID))
		}
	}
	return out
}

func (s *State) placements(link Ref) []Ref {
	l := s.linkAt(link)
	if l == nil {
		return nil
	}
	out := make([]Ref, len(l.Values))
	for i := range l.Values {
		out[i] = l.Values[i].Ref
	}
	return out
}

// Candidates returns the refs of the content values that nothing replaced, in total order.
func (s *State) Candidates() []Ref {
	var out []Ref
	for i := range s.values {
		if !s.values[i].replaced {
			out = append(out, s.values[i].Ref)
		}
	}
	return out
}

// Merge returns the operation that replaces all candidates by the merge of their texts, which was made elsewhere because they
// are too large to be merged here (View.Base). Every device that makes it makes the same.
func (s *State) Merge(merged *Content) Op {
	o := Op{Kind: OpContent, Mtime: math.MinInt64, Content: merged}
	for _, v := range s.values {
		if !v.replaced {
			o.Over = append(o.Over, v.Ref)
			o.Mtime = max(o.Mtime, v.Mtime)
		}
	}
	o.Mtime++
	return o
}

// planner makes one plan.
type planner struct {
	t        *Tree
	plan     *Plan
	unlinked map[dag.ID][]Ref
	settled  map[DirName]bool
}

// state returns the state of an object that is to be changed.
func (w *planner) state(id dag.ID) (*State, error) {
	o, err := w.t.store.Object(id)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, ErrNotExist
	}
	if o.State.Unknown {
		return nil, ErrUnknown
	}
	return o.State, nil
}

// find returns the node of a name and all nodes of its group, the class they are in, and an index of the node.
func (w *planner) find(dir dag.ID, name string) (class []dag.ID, nodes []Node, at int, err error) {
	if class, err = w.t.Class(dir); err != nil {
		return
	}
	n, ok, err := w.t.Lookup(dir, name)
	if err != nil {
		return
	}
	if !ok {
		return class, nil, -1, nil
	}
	lost := n.Name
	if n.Conflict {
		lost = n.Lost
	}
	if nodes, err = w.t.group(class, lost); err != nil {
		return
	}
	at = slices.IndexFunc(nodes, func(m Node) bool { return m.Name == name })
	return
}

// settle ends the conflict of a group: what is hidden behind an equal file is taken away, and every conflict copy but those
// at the given places gets the name that it shows.
func (w *planner) settle(class []dag.ID, nodes []Node, except ...int) error {
	key := DirName{class[0], nodes[0].Name}
	if w.settled[key] {
		return nil
	}
	w.settled[key] = true
	for i := range nodes {
		n := &nodes[i]
		for _, tw := range n.Twins {
			if err := w.remove(tw); err != nil {
				return err
			}
		}
		if !n.Conflict || slices.Contains(except, i) {
			continue
		}
		if err := w.publish(class, &nodes[0], n); err != nil {
			return err
		}
	}
	return nil
}

// revive takes the mark from the removed directories of a class, which are shown for what is in them: they are in use
// again, and would go with the last entry otherwise.
func (w *planner) revive(class []dag.ID) error {
	for _, dir := range class {
		if dir == w.t.root {
			continue
		}
		o, err := w.t.store.Object(dir)
		if err != nil {
			return err
		}
		if o == nil || len(o.State.Links) == 0 || !o.State.Links[0].Removed || o.Place == nil {
			continue
		}
		w.plan.of(dir).op(o.State.Move(o.State.Links[0].ID, o.Place.Parent, o.Place.Name))
	}
	return nil
}

// settleNames ends the conflicts at all names of a file whose content is about to change: what equals it will not any more.
func (w *planner) settleNames(s *State) error {
	for _, l := range s.LiveLinks() {
		p := l.Shown()
		class, err := w.t.Class(p.Parent)
		if err != nil {
			return err
		}
		nodes, err := w.t.group(class, p.Name)
		if err == nil && len(nodes) > 0 {
			err = w.settle(class, nodes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// publish makes the name that a conflict copy shows its own, and marks it as the copy that it is. Of a losing content value it makes
// an object. keeps is what has the name that was lost.
func (w *planner) publish(class []dag.ID, keeps, n *Node) error {
	s, err := w.state(n.Object)
	if err != nil {
		return err
	}
	c := Conflict{Of: keeps.Object, Lost: n.Lost, Name: n.Name}
	mark := Op{Kind: OpXattr, Name: ConflictXattr, Value: c.Value()}
	if n.Loser == LinkLoser {
		w.plan.of(n.Object).ops(s.Move(n.Link, s.linkAt(n.Link).Shown().Parent, n.Name), mark)
		return nil
	}
	d, _, err := w.extract(s, n, class[0], n.Name)
	if err == nil {
		d.op(mark)
	}
	return err
}

// extract makes an object of a losing content value, which is dropped from the first one. It returns the draft of the new
// object and the ref of its content.
func (w *planner) extract(s *State, n *Node, dir dag.ID, name string) (*Draft, Ref, error) {
	v, err := w.value(s, n.Content)
	if err != nil {
		return nil, Ref{}, err
	}
	w.drop(s, n.Content)
	d := w.plan.add(&Draft{Kind: KindFile})
	d.op(Op{Kind: OpLink, Parent: dir, Name: name})
	s.attributes(d)
	return d, d.content(v), nil
}

// attributes repeats the attributes of a file for another that takes over from it.
func (s *State) attributes(d *Draft) {
	if s.ModeSet {
		d.op(Op{Kind: OpMode, Mode: s.Mode})
	}
	if s.Owned {
		d.op(Op{Kind: OpOwner, UID: s.UID, GID: s.GID})
	}
	for _, name := range sortedKeys(s.Xattrs) {
		if strings.HasPrefix(name, DealtPrefix) {
			continue // nobody has dealt with the other
		}
		d.op(Op{Kind: OpXattr, Name: name, Value: s.Xattrs[name]})
	}
}

// content repeats a value: its base, and the patches over it one over the other.
func (d *Draft) content(v *ContentValue, over ...Ref) Ref {
	base := v.Base
	at := d.op(Op{Kind: OpContent, Over: over, Mtime: v.Mtime, Content: &base})
	for i, edits := range v.Patches {
		at = d.op(Op{Kind: OpContent, Over: []Ref{at}, Mtime: v.Mtime, Content: &Content{Size: v.Sizes[i], Patch: edits}})
	}
	return at
}

// drop takes a losing value and those equal to it away.
func (w *planner) drop(s *State, value Ref) {
	over := []Ref{value}
	v := s.View()
	over = append(over, v.Equals[value]...)
	w.plan.of(s.Object).op(Op{Kind: OpDrop, Over: over})
}

// value returns a content value, from the history where the state has let go of what it lies over.
func (w *planner) value(s *State, r Ref) (*ContentValue, error) {
	i := s.indexOf(r)
	if i < 0 {
		return nil, ErrNotExist
	}
	c := s.contentValue(i)
	if !c.Missing {
		return &c, nil
	}
	return w.t.Complete(s.Object, c)
}

// remove takes away what a twin stands for.
func (w *planner) remove(tw Twin) error {
	s, err := w.state(tw.Object)
	if err != nil {
		return err
	}
	if tw.Loser == ContentLoser {
		w.drop(s, tw.Content)
	} else {
		w.unlink(s, tw.Link)
	}
	return nil
}

// unlink marks a link removed, knowing which of the object's links the plan has removed already.
func (w *planner) unlink(s *State, link Ref) {
	w.plan.of(s.Object).ops(s.Unlink(link, w.unlinked[s.Object]...)...)
	w.unlinked[s.Object] = append(w.unlinked[s.Object], link)
}

// removeNode takes away what an entry stands for.
func (w *planner) removeNode(n *Node) error {
	if n.Kind == KindDir {
		for _, dir := range n.Dirs {
			s, err := w.state(dir)
			if err != nil {
				return err
			}
			w.unlink(s, s.Links[0].ID)
		}
		return nil
	}
	tw := Twin{Object: n.Object, Link: n.Link}
	if n.Loser == ContentLoser {
		tw.Loser, tw.Content = ContentLoser, n.Content
	}
	if err := w.remove(tw); err != nil {
		return err
	}
	return w.deal(n)
}

// deal notes that a person has dealt with an entry, where it is a conflict copy, removing or moving it.
func (w *planner) deal(n *Node) error {
	if n.Loser == ContentLoser {
		return nil // it is no file of its own yet
	}
	s, err := w.state(n.Object)
	if err != nil {
		return err
	}
	d := w.plan.of(n.Object)
	if o, ok := s.Deal(d.Ops); ok {
		d.op(o)
	}
	return nil
}

// Complete fills in what the patches of a Missing value lie over, from the history of its object. It goes through that twice:
// contents are held in memory only where they are needed.
func (t *Tree) Complete(object dag.ID, v ContentValue) (*ContentValue, error) {
	each := func(fn func(Ref, *Op)) error {
		return t.store.History(object, func(at Stamp, p *Payload) error {
			if p == nil {
				return nil
			}
			for i := range p.Ops {
				if p.Ops[i].Kind == OpContent {
					fn(Ref{at.ID, uint32(i)}, &p.Ops[i])
				}
			}
			return nil
		})
	}
	type lower struct {
		over  Ref
		patch bool
	}
	under := make(map[Ref]lower) // what each patch lies over
	if err := each(func(r Ref, o *Op) {
		if under[r] = (lower{}); o.Content.IsPatch() {
			under[r] = lower{o.Over[0], true}
		}
	}); err != nil {
		return nil, err
	}
	var way []Ref // from what v names to the whole content
	for r, patch := v.BaseRef, true; patch; {
		l, ok := under[r]
		if way = append(way, r); !ok || len(way) > maxChain+1 {
			return nil, ErrNotExist
		}
		r, patch = l.over, l.patch
	}
	contents := make(map[Ref]*Content, len(way))
	for _, r := range way {
		contents[r] = nil
	}
	if err := each(func(r Ref, o *Op) {
		if _, needed := contents[r]; needed {
			contents[r] = o.Content
		}
	}); err != nil {
		return nil, err
	}
	var patches [][]Edit
	var sizes []int64
	for _, r := range slices.Backward(way) {
		c := contents[r]
		switch {
		case c == nil:
			return nil, ErrNotExist
		case !c.IsPatch():
			v.Base, v.BaseRef, v.Missing = *c, r, false
		default:
			patches, sizes = append(patches, c.Patch), append(sizes, c.Size)
		}
	}
	v.Patches, v.Sizes = append(patches, v.Patches...), append(sizes, v.Sizes...)
	for !v.Base.Root.Defined() && len(v.Patches) > 0 && v.Sizes[0] <= MaxInline {
		v.Base = *patchInline(v.Base.Inline, v.Base.Size, &Content{Size: v.Sizes[0], Patch: v.Patches[0]})
		v.Patches, v.Sizes = v.Patches[1:], v.Sizes[1:]
	}
	v.Size = v.Base.Size
	if n := len(v.Sizes); n > 0 {
		v.Size = v.Sizes[n-1]
	}
	return &v, nil
}
