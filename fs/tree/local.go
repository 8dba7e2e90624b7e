package tree

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/dag"
)

// Errors of plans. What POSIX asks beyond them (kinds, emptiness, permissions) is checked by the caller.
var (
	ErrNotExist = errors.New("tree: no such entry")
	ErrExist    = errors.New("tree: the entry exists")
	ErrUnknown  = errors.New("tree: the object has operations of a later version, and is read-only for this one")
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (t *Tree) planner() *planner {
	return &planner{t, &Plan{}, make(map[dag.ID][]Ref), make(map[DirName]bool)}
}

// PlanCreate makes an object under a name that nothing has. ops give its attributes and content.
func (t *Tree) PlanCreate(dir dag.ID, name string, kind Kind, ops ...Op) (*Plan, error) {
	w := t.planner()
	class, _, at, err := w.find(dir, name)
	if err != nil {
		return nil, err
	}
	if at >= 0 {
		return nil, ErrExist
	}
	d := w.plan.add(&Draft{Kind: kind})
	d.op(Op{Kind: OpLink, Parent: class[0], Name: name})
	d.Ops = append(d.Ops, ops...)
	return w.plan, nil
}

// PlanRemove removes an entry: unlink and rmdir. Of a merged directory it removes all.
func (t *Tree) PlanRemove(dir dag.ID, name string) (*Plan, error) {
	w := t.planner()
	class, nodes, at, err := w.find(dir, name)
	if err != nil {
		return nil, err
	}
	if at < 0 {
		return nil, ErrNotExist
	}
	if err := w.revive(class); err != nil {
		return nil, err
	}
	if err := w.settle(class, nodes, at); err != nil {
		return nil, err
	}
	if err := w.removeNode(&nodes[at]); err != nil {
		return nil, err
	}
	return w.plan, nil
}

// PlanRename moves an entry to another name, over what is there. Of a merged directory it moves all. Renaming an entry to
// itself is an empty plan.
func (t *Tree) PlanRename(dir dag.ID, name string, newDir dag.ID, newName string) (*Plan, error) {
	w := t.planner()
	class, nodes, at, err := w.find(dir, name)
	if err != nil {
		return nil, err
	}
	if at < 0 {
		return nil, ErrNotExist
	}
	newClass, others, over, err := w.find(newDir, newName)
	if err != nil {
		return nil, err
	}
	if over >= 0 && at == over && sameGroup(class, nodes, newClass, others) {
		return w.plan, nil
	}
	if err := w.revive(class); err != nil {
		return nil, err
	}
	n := &nodes[at]
	switch {
	case over < 0:
		err = w.settle(class, nodes, at)
	case sameGroup(class, nodes, newClass, others):
		if o := &others[over]; n.Loser == ContentLoser && o.Object == n.Object && !o.Conflict {
			return w.plan, w.prefer(class, nodes, at, over)
		}
		if err = w.settle(class, nodes, at, over); err == nil {
			err = w.removeNode(&others[over])
		}
	default:
		if err = w.settle(class, nodes, at); err == nil {
			err = w.settle(newClass, others, over)
		}
		if err == nil {
			err = w.removeNode(&others[over])
		}
	}
	if err == nil {
		err = w.move(n, newClass[0], newName)
	}
	return w.plan, err
}

func sameGroup(class []dag.ID, nodes []Node, newClass []dag.ID, others []Node) bool {
	return class[0] == newClass[0] && nodes[0].Name == others[0].Name
}

// prefer puts a losing content value in the place of the one that its own file shows.
func (w *planner) prefer(class []dag.ID, nodes []Node, at, over int) error {
	if err := w.settle(class, nodes, at, over); err != nil {
		return err
	}
	s, err := w.state(nodes[at].Object)
	if err != nil {
		return err
	}
	if err := w.settleNames(s); err != nil {
		return err
	}
	v, err := w.value(s, nodes[at].Content)
	if err != nil {
		return err
	}
	view := s.View()
	behind := append(append(slices.Clone(view.Behind), v.Ref), view.Equals[v.Ref]...)
	w.plan.of(s.Object).content(v, behind...)
	return nil
}

// move places what an entry stands for.
func (w *planner) move(n *Node, parent dag.ID, name string) error {
	s, err := w.state(n.Object)
	if err != nil {
		return err
	}
	if n.Kind == KindDir {
		for _, dir := range n.Dirs {
			if s, err = w.state(dir); err != nil {
				return err
			}
			w.plan.of(dir).op(s.Move(s.Links[0].ID, parent, name))
		}
		return nil
	}
	if n.Loser == ContentLoser {
		_, _, err = w.extract(s, n, parent, name)
		return err
	}
	w.plan.of(n.Object).op(s.Move(n.Link, parent, name))
	return w.deal(n)
}

// PlanExchange swaps two entries.
func (t *Tree) PlanExchange(dir dag.ID, name string, newDir dag.ID, newName string) (*Plan, error) {
	w := t.planner()
	class, nodes, at, err := w.find(dir, name)
	if err != nil {
		return nil, err
	}
	newClass, others, over, err := w.find(newDir, newName)
	if err != nil {
		return nil, err
	}
	if at < 0 || over < 0 {
		return nil, ErrNotExist
	}
	for _, c := range [][]dag.ID{class, newClass} {
		if err := w.revive(c); err != nil {
			return nil, err
		}
	}
	if sameGroup(class, nodes, newClass, others) {
		if at == over {
			return w.plan, nil
		}
		err = w.settle(class, nodes, at, over)
	} else if err = w.settle(class, nodes, at); err == nil {
		err = w.settle(newClass, others, over)
	}
	if err == nil {
		err = w.move(&nodes[at], newClass[0], newName)
	}
	if err == nil {
		err = w.move(&others[over], class[0], name)
	}
	return w.plan, err
}

// PlanLink gives the file of an entry one more name, which nothing has.
func (t *Tree) PlanLink(dir dag.ID, name string, newDir dag.ID, newName string) (*Plan, error) {
	w := t.planner()
	newClass, _, over, err := w.find(newDir, newName)
	if err != nil {
		return nil, err
	}
	if over >= 0 {
		return nil, ErrExist
	}
	d, _, err := w.own(dir, name)
	if err != nil {
		return nil, err
	}
	d.op(Op{Kind: OpLink, Parent: newClass[0], Name: newName})
	return w.plan, nil
}

// PlanSet changes attributes of the file or directory of an entry. Of merged directories it changes all.
func (t *Tree) PlanSet(dir dag.ID, name string, ops ...Op) (*Plan, error) {
	w := t.planner()
	n, ok, err := t.Lookup(dir, name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, ErrNotExist
	}
	if n.Kind == KindDir {
		for _, d := range n.Dirs {
			if _, err := w.state(d); err != nil {
				return nil, err
			}
			w.plan.of(d).ops(ops...)
		}
		return w.plan, nil
	}
	if n.Loser != ContentLoser {
		if _, err := w.state(n.Object); err != nil {
			return nil, err
		}
		w.plan.of(n.Object).ops(ops...)
		return w.plan, nil
	}
	d, _, err := w.own(dir, name)
	if err != nil {
		return nil, err
	}
	d.Ops = append(d.Ops, ops...)
	return w.plan, nil
}

// own settles the group of a file and returns the draft of the object that the entry then is, with the content values that a
// write to it replaces.
func (w *planner) own(dir dag.ID, name string) (*Draft, []Ref, error) {
	class, nodes, at, err := w.find(dir, name)
	if err != nil {
		return nil, nil, err
	}
	if at < 0 {
		return nil, nil, ErrNotExist
	}
	n := &nodes[at]
	if err := w.settle(class, nodes, at); err != nil {
		return nil, nil, err
	}
	s, err := w.state(n.Object)
	if err != nil {
		return nil, nil, err
	}
	if n.Loser == ContentLoser {
		d, at, err := w.extract(s, n, class[0], n.Name)
		return d, []Ref{at}, err
	}
	if err := w.settleNames(s); err != nil {
		return nil, nil, err
	}
	d := w.plan.of(n.Object)
	if l := s.linkAt(n.Link); n.Loser == LinkLoser || l.Removed {
		// One that was removed, and is back for its content, is in use again.
		d.op(s.Move(n.Link, l.Shown().Parent, n.Name))
	}
	v := s.View()
	over := v.Behind
	if v.Merged {
		over = []Ref{d.op(Op{Kind: OpContent, Over: v.Behind, Mtime: v.Mtime, Content: &Content{Size: v.Size(), Inline: v.Text}})}
	}
	return d, over, nil
}

// PlanWrite replaces the content of a file. make is given the values that the new one replaces, and returns it; a patch is
// possible only over exactly one. A virtual merge is published first, as a value of its own.
func (t *Tree) PlanWrite(dir dag.ID, name string, mtime int64, make func(over []Ref) *Content) (*Plan, error) {
	w := t.planner()
	d, over, err := w.own(dir, name)
	if err != nil {
		return nil, err
	}
	d.op(Op{Kind: OpContent, Over: over, Mtime: mtime, Content: make(over)})
	return w.plan, nil
}

// PlanSave lets the file of an entry take over content, mode and attributes of the file temp, which was renamed over it (an
// editor's save). seen are the values of the entry's file that were shown when temp was made: what came in since is merged
// or stays as a conflict. The link of temp, if it was published, is marked removed.
func (t *Tree) PlanSave(temp dag.ID, dir dag.ID, name string, seen []Ref) (*Plan, error) {
	w := t.planner()
	from, err := w.state(temp)
	if err != nil {
		return nil, err
	}
	d, over, err := w.own(dir, name)
	if err != nil {
		return nil, err
	}
	to, err := w.t.store.Object(d.Object)
	if err != nil {
		return nil, err
	}
	if to != nil {
		if v := to.State.View(); !v.Merged || !sameRefs(v.Behind, seen) {
			if v.Merged { // not what the editor saw: the candidates stay
				d.Ops = slices.DeleteFunc(d.Ops, func(o Op) bool { return o.Kind == OpContent })
			}
			over = seen
		}
	}
	v := from.View()
	value := &v.Main // an empty one where the file has no content yet
	if len(v.Behind) > 0 {
		if value, err = w.value(from, v.Main.Ref); err != nil {
			return nil, err
		}
	}
	if v.Merged {
		d.op(Op{Kind: OpContent, Over: over, Mtime: v.Mtime, Content: &Content{Size: v.Size(), Inline: v.Text}})
	} else {
		d.content(value, over...)
	}
	if from.ModeSet && (to == nil || !to.State.ModeSet || to.State.Mode != from.Mode) {
		d.op(Op{Kind: OpMode, Mode: from.Mode})
	}
	if to != nil {
		for _, x := range sortedKeys(to.State.Xattrs) {
			if _, keep := from.Xattrs[x]; !keep && !strings.HasPrefix(x, DealtPrefix) {
				d.op(Op{Kind: OpXattr, Name: x, Remove: true})
			}
		}
	}
	for _, x := range sortedKeys(from.Xattrs) {
		d.op(Op{Kind: OpXattr, Name: x, Value: from.Xattrs[x]})
	}
	for _, l := range from.LiveLinks() {
		w.unlink(from, l.ID)
	}
	return w.plan, nil
}

func sameRefs(a, b []Ref) bool {
	if len(a) != len(b) {
		return false
	}
	for _, r := range a {
		if !slices.Contains(b, r) {
			return false
		}
	}
	return true
}

// PlanRestore places a removed link of an object anew: it has a name again.
func (t *Tree) PlanRestore(object dag.ID, link Ref, dir dag.ID, name string) (*Plan, error) {
	w := t.planner()
	class, _, at, err := w.find(dir, name)
	if err != nil {
		return nil, err
	}
	if at >= 0 {
		return nil, ErrExist
	}
	s, err := w.state(object)
	if err != nil {
		return nil, err
	}
	if s.linkAt(link) == nil {
		return nil, ErrNotExist
	}
	w.plan.of(object).op(s.Move(link, class[0], name))
	return w.plan, nil
}
