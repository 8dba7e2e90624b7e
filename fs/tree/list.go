package tree

import (
	"errors"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/dag"
)

// ErrNotDir is returned where a directory was expected.
var ErrNotDir = errors.New("tree: not a directory")

// Lookup returns the entry of a name in the directory that shows dir, whichever of its objects dir is; ok is false when there is none.
//
// It reads the claims of the name, and their objects where there are several or the file has several candidates; the names on
// the way up where any directories of the space are merged.
func (t *Tree) Lookup(dir dag.ID, name string) (n Node, ok bool, err error) {
	class, err := t.Class(dir)
	if err != nil {
		return Node{}, false, err
	}
	ns, err := t.group(class, name)
	if err != nil {
		return Node{}, false, err
	}
	if len(ns) > 0 {
		return ns[0], true, nil
	}
	lost, whole, isCopy := lostName(name)
	if !isCopy {
		return Node{}, false, nil
	}
	if whole {
		ns, err = t.group(class, lost)
	} else {
		ns, err = t.List(dir)
	}
	for _, n := range ns {
		if n.Name == name {
			return n, true, err
		}
	}
	return Node{}, false, err
}

func (t *Tree) group(class []dag.ID, name string) ([]Node, error) {
	claims, err := t.claimsOf(class, name)
	if err != nil {
		return nil, err
	}
	g := group{t, class, name, claims}
	return g.nodes()
}

// List returns the entries of the directory that shows dir, sorted by name. It holds all of them in memory.
func (t *Tree) List(dir dag.ID) ([]Node, error) {
	class, err := t.Class(dir)
	if err != nil {
		return nil, err
	}
	return t.listClass(class)
}

func (t *Tree) listClass(class []dag.ID) ([]Node, error) {
	var claims []Claim
	var order []namedClaim
	for _, dir := range class {
		o, err := t.store.Object(dir)
		if err != nil {
			return nil, err
		}
		var birth dag.Pos
		if dir != t.root {
			if o == nil || o.State.Kind != KindDir {
				continue
			}
			birth = o.State.Birth
		}
		if err := t.store.Children(dir, func(name string, c Claim) bool {
			if birth.Compare(c.Pos) < 0 {
				order = append(order, namedClaim{name, len(claims)})
				claims = append(claims, c)
			}
			return true
		}); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(order, func(a, b namedClaim) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return a.at - b.at
	})
	out := make([]Node, 0, len(order))
	for len(order) > 0 {
		name, n := order[0].name, 1
		for n < len(order) && order[n].name == name {
			n++
		}
		g := group{t: t, class: class, name: name}
		if n == 1 { // as mostly
			at := order[0].at
			g.claims = claims[at : at+1 : at+1]
		} else {
			for _, o := range order[:n] {
				g.claims = append(g.claims, claims[o.at])
			}
		}
		order = order[n:]
		if one, ok := g.one(); ok {
			out = append(out, one)
			continue
		}
		ns, err := g.nodes()
		if err != nil {
			return nil, err
		}
		out = append(out, ns...)
	}
	slices.SortFunc(out, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// namedClaim is a name of a directory, and the place of one of its claims in a list.
type namedClaim struct {
	name string
	at   int
}

// Class returns the directory objects that are shown as one with dir, the oldest first. Where no directories are merged
// it is dir alone, and costs nothing.
func (t *Tree) Class(dir dag.ID) ([]dag.ID, error) {
	if t.merged == 0 || dir == t.root {
		return []dag.ID{dir}, nil
	}
	// The names on the way up, and then all directories on the way down.
	var names []string
	for at := dir; at != t.root; {
		o, err := t.store.Object(at)
		if err != nil {
			return nil, err
		}
		if o == nil || o.Claimed == nil {
			return []dag.ID{dir}, nil // removed, or not placed
		}
		if ok, err := t.valid(o.Claimed.Parent, o.Claimed.Pos); err != nil || !ok {
			return []dag.ID{dir}, err
		}
		names = append(names, o.Claimed.Name)
		at = o.Claimed.Parent
	}
	class := []dag.ID{t.root}
	for i := len(names) - 1; i >= 0; i-- {
		claims, err := t.claimsOf(class, names[i])
		if err != nil {
			return nil, err
		}
		g := group{t, class, names[i], claims}
		n, _, err := g.split()
		if err != nil {
			return nil, err
		}
		if n == nil {
			return []dag.ID{dir}, nil
		}
		class = n.Dirs
	}
	return class, nil
}

// State returns the state of an object, or nil. It is not to be changed.
func (t *Tree) State(id dag.ID) (*State, error) {
	o, err := t.store.Object(id)
	if err != nil || o == nil {
		return nil, err
	}
	return o.State, nil
}

// Path returns the names from the root to the directory that shows dir; ok is false when it is not in the tree.
func (t *Tree) Path(dir dag.ID) (names []string, ok bool, err error) {
	for dir != t.root {
		o, err := t.store.Object(dir)
		if err != nil || o == nil || o.Claimed == nil {
			return nil, false, err
		}
		if ok, err := t.valid(o.Claimed.Parent, o.Claimed.Pos); err != nil || !ok {
			return nil, false, err
		}
		names = append(names, o.Claimed.Name)
		dir = o.Claimed.Parent
	}
	slices.Reverse(names)
	return names, true, nil
}

// Conflicts calls fn for the entries that are conflict copies, with a directory object that they are in, until fn returns
// false. It costs what the conflicts cost, and the size of merged directories.
func (t *Tree) Conflicts(fn func(dir dag.ID, n Node) bool) error {
	type key struct {
		dir  dag.ID // the oldest of its class
		name string
	}
	seen := make(map[key]struct{})
	visit := func(class []dag.ID, name string) (bool, error) {
		k := key{class[0], name}
		if _, twice := seen[k]; twice {
			return true, nil
		}
		seen[k] = struct{}{}
		ns, err := t.group(class, name)
		for _, n := range ns {
			if n.Conflict && !fn(class[0], n) {
				return false, err
			}
		}
		return true, err
	}
	var rivals, merged []DirName
	if err := t.store.Marks(SetRivals, func(dir dag.ID, name string) bool {
		rivals = append(rivals, DirName{dir, name})
		return true
	}); err != nil {
		return err
	}
	if err := t.store.Marks(SetMerged, func(dir dag.ID, name string) bool {
		merged = append(merged, DirName{dir, name})
		return true
	}); err != nil {
		return err
	}
	for _, r := range rivals {
		if r.Dir != t.root {
			if _, ok, err := t.Path(r.Dir); err != nil || !ok {
				if err != nil {
					return err
				}
				continue
			}
		}
		class, err := t.Class(r.Dir)
		if err != nil {
			return err
		}
		if goOn, err := visit(class, r.Name); err != nil || !goOn {
			return err
		}
	}
	// Rivals in different directories of one class stand in no set. They are below merged directories.
	var todo [][]dag.ID
	for _, m := range merged {
		if _, ok, err := t.Path(m.Dir); err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		class, err := t.Class(m.Dir)
		if err != nil {
			return err
		}
		ns, err := t.group(class, m.Name)
		if err != nil {
			return err
		}
		if len(ns) > 0 && len(ns[0].Dirs) > 1 {
			todo = append(todo, ns[0].Dirs)
		}
	}
	for len(todo) > 0 {
		class := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, twice := seen[key{class[0], ""}]; twice {
			continue
		}
		seen[key{class[0], ""}] = struct{}{}
		ns, err := t.listClass(class)
		if err != nil {
			return err
		}
		for _, n := range ns {
			if len(n.Dirs) > 1 {
				todo = append(todo, n.Dirs)
			}
			if n.Conflict {
				if goOn, err := visit(class, n.Lost); err != nil || !goOn {
					return err
				}
			}
		}
	}
	return nil
}

// Group returns the entries that the claims to a name in the directory that shows dir come to: the one that keeps the name first,
// then its conflict copies, each under its own.
func (t *Tree) Group(dir dag.ID, name string) ([]Node, error) {
	class, err := t.Class(dir)
	if err != nil {
		return nil, err
	}
	return t.group(class, name)
}
