package tree

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Node is an entry of a directory as people see it.
type Node struct {
	Name   string
	Kind   Kind
	Object dag.ID // of merged directories, the oldest; it gives the attributes
	Link   Ref    // the object's link that the entry is for; of a losing content value, the object's first
	// Dirs are all directory objects that the entry stands for, the oldest first; nil for anything else.
	Dirs []dag.ID
	// Conflict: the entry is a conflict copy. Content then names the losing content value, if it is not the object itself
	// that lost its name; Loser says which of the two it is.
	Conflict bool
	Loser    Loser
	Content  Ref
	// Lost is the name that a conflict copy has lost.
	Lost string
	// Twins are the files with the same name and content that are shown by this entry too.
	Twins []Twin
}

// Loser says what a conflict copy is.
type Loser uint8

// The sorts of conflict copies.
const (
	NotLoser Loser = iota
	LinkLoser
	ContentLoser
)

// Twin is a file, or a losing content value of one, that is hidden behind an equal one.
type Twin struct {
	Object  dag.ID
	Link    Ref
	Loser   Loser // ContentLoser: Content names the value
	Content Ref
}

// item is something that wants a name.
type item struct {
	Twin
	kind  Kind
	at    Order // of the losing change: the placement's, or the content value's
	loser loser
	// What it holds, to compare with others.
	value  ContentValue
	text   []byte // where merged
	merged bool
	target string
	rdev   uint32
}

// group is everything that claims one name in one merged directory.
type group struct {
	t      *Tree
	class  []dag.ID
	name   string
	claims []Claim
}

// claimsOf gathers the valid claims to a name in the directories of a class.
func (t *Tree) claimsOf(class []dag.ID, name string) ([]Claim, error) {
	var out []Claim
	for _, dir := range class {
		cs, err := t.store.Claims(dir, name)
		if err != nil {
			return nil, err
		}
		for i := range cs {
			ok, err := t.valid(dir, cs[i].Pos)
			if err != nil {
				return nil, err
			}
			if ok {
				out = append(out, cs[i])
			}
		}
	}
	return out, nil
}

// nodes returns the entries that a group comes to, the one that keeps the name first.
func (g *group) nodes() ([]Node, error) {
	if len(g.claims) == 0 {
		return nil, nil
	}
	if n, ok := g.one(); ok {
		return []Node{n}, nil
	}
	dir, files, err := g.split()
	if err != nil {
		return nil, err
	}
	var out []Node
	if dir != nil {
		out = append(out, *dir)
	}
	items, err := g.items(files)
	if err != nil {
		return nil, err
	}
	if dir == nil {
		// The highest link keeps the name, whatever candidates of it or others are higher.
		i := slices.IndexFunc(items, func(it item) bool { return it.Loser == NotLoser })
		top := items[i]
		items = slices.Insert(slices.Delete(items, i, i+1), 0, top)
	}
	return g.assign(out, items)
}

// one returns the entry of a group that has one claim, which nothing rivals; ok is false for any other.
func (g *group) one() (n Node, ok bool) {
	if len(g.claims) != 1 || g.claims[0].Split {
		return Node{}, false
	}
	c := &g.claims[0]
	n = Node{Name: g.name, Kind: c.Kind, Object: c.Object, Link: c.Link}
	if c.Kind == KindDir {
		n.Dirs = []dag.ID{c.Object}
	}
	return n, true
}

// split makes the node of the directories, and returns the claims of the others.
func (g *group) split() (dir *Node, files []Claim, err error) {
	var dirs []*State
	for i := range g.claims {
		c := &g.claims[i]
		if c.Kind != KindDir {
			files = append(files, *c)
			continue
		}
		o, err := g.t.store.Object(c.Object)
		if err != nil {
			return nil, nil, err
		}
		dirs = append(dirs, o.State)
	}
	if len(dirs) > 0 {
		slices.SortFunc(dirs, func(a, b *State) int { return a.Birth.Compare(b.Birth) })
		dir = &Node{Name: g.name, Kind: KindDir, Object: dirs[0].Object, Link: dirs[0].Links[0].ID}
		for _, s := range dirs {
			dir.Dirs = append(dir.Dirs, s.Object)
		}
	}
	return dir, files, nil
}

// items returns what the claims of files come to, the highest losing change first.
func (g *group) items(files []Claim) ([]item, error) {
	var items []item
	for _, c := range files {
		o, err := g.t.store.Object(c.Object)
		if err != nil {
			return nil, err
		}
		it := item{
			Twin: Twin{Object: c.Object, Link: c.Link}, kind: c.Kind, at: c.order(),
			loser:  loser{g.name, g.t.store.Device(c.Device), c.Time, c.Object, c.Place.Change, c.Place.Place},
			target: o.State.Target, rdev: o.State.Rdev,
		}
		var v View
		if c.Kind == KindFile {
			v = o.State.View()
			it.value, it.text, it.merged = v.Main, v.Text, v.Merged
		}
		items = append(items, it)
		if !c.Split {
			continue
		}
		for i := range v.Losers {
			l := &v.Losers[i]
			items = append(items, item{
				Twin: Twin{c.Object, c.Link, ContentLoser, l.Ref}, kind: KindFile, at: Order{l.Pos, l.Ref.Place},
				loser: loser{g.name, g.t.store.Device(l.Device), l.Time, c.Object, l.Ref.Change, l.Ref.Place},
				value: *l,
			})
		}
	}
	slices.SortStableFunc(items, func(a, b item) int { return b.at.Compare(a.at) })
	return items, nil
}

func (a *item) same(b *item) bool {
	switch {
	case a.kind != b.kind || a.target != b.target || a.rdev != b.rdev:
		return false
	case a.kind != KindFile:
		return true
	case a.merged || b.merged:
		x, ok := a.bytes()
		y, ok2 := b.bytes()
		return ok && ok2 && string(x) == string(y)
	}
	return SameContent(&a.value, &b.value)
}

func (a *item) bytes() ([]byte, bool) {
	if a.merged {
		return a.text, true
	}
	return a.value.text()
}

// assign appends the nodes of the items: the first keeps the name when nothing has it, equal ones go behind one another, the
// rest get names of their own.
func (g *group) assign(out []Node, items []item) ([]Node, error) {
	first := len(out)
	shown := make([]*item, 0, len(items))
	used := make(map[string]struct{})
next:
	for i := range items {
		it := &items[i]
		for j, s := range shown {
			if s.same(it) {
				out[first+j].Twins = append(out[first+j].Twins, it.Twin)
				continue next
			}
		}
		n := Node{Name: g.name, Kind: it.kind, Object: it.Object, Link: it.Link}
		if len(out) > 0 {
			name, err := g.free(&it.loser, used)
			if err != nil {
				return nil, err
			}
			n.Name, n.Conflict, n.Loser, n.Content, n.Lost = name, true, LinkLoser, it.Content, g.name
			if it.Twin.Loser == ContentLoser {
				n.Loser = ContentLoser
			}
			used[name] = struct{}{}
		}
		shown = append(shown, it)
		out = append(out, n)
	}
	return out, nil
}

// free finds the shortest name for a conflict copy that nothing claims and no other copy of the group has.
func (g *group) free(l *loser, used map[string]struct{}) (string, error) {
	for k := copyLetters; ; k++ {
		name := l.copyName(k)
		if _, taken := used[name]; taken {
			continue
		}
		claims, err := g.t.claimsOf(g.class, name)
		if err != nil {
			return "", err
		}
		if len(claims) == 0 {
			return name, nil
		}
	}
}
