package tree

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/merge"
)

// This file is the definition of the tree, written down as plainly as possible: a function from a set of changes to what
// people see. It shares with the package the payloads, the line merge and the names of conflict copies, and nothing else.

// nOp is one operation of one object at its place in the order.
type nOp struct {
	Op
	ref    Ref
	at     Order
	device dag.PublicKey
	time   int64
}

type nPlace struct {
	op     nOp // the link or move
	parent dag.ID
	name   string
}

type nLink struct {
	id      Ref
	shown   nPlace
	removed bool
	missed  bool
}

// nValue is a content value with its whole history.
type nValue struct {
	op   nOp
	over []*nValue
	// what it holds
	blocks  string // the root, or empty
	text    []byte
	size    int64
	patches []string // over blocks
}

type nObject struct {
	id         dag.ID
	kind       Kind
	birth      dag.Pos
	ops        []nOp
	links      []*nLink
	candidates []*nValue
	place      *nPlace // of a directory
	mode       string
	owner      string
	mtime      *int64
	target     string
	rdev       uint32
	xattrs     map[string]string
}

type naive struct {
	root    dag.ID
	device  func(dag.PublicKey) string
	objects map[dag.ID]*nObject
}

// resolveNaive folds a set of changes, given in any order and without duplicates.
func resolveNaive(space dag.ID, changes []Change, device func(dag.PublicKey) string) *naive {
	n := &naive{root: RootObject(space), device: device, objects: map[dag.ID]*nObject{}}
	changes = slices.Clone(changes)
	sort.Slice(changes, func(i, j int) bool { return changes[i].At.Pos.Compare(changes[j].At.Pos) < 0 })
	n.objects[n.root] = &nObject{id: n.root, kind: KindDir, xattrs: map[string]string{}}
	for _, c := range changes {
		o := n.objects[c.Object]
		if o == nil {
			if c.At.ID != c.Object || c.Payload == nil {
				continue
			}
			o = &nObject{id: c.Object, kind: c.Payload.Kind, birth: c.At.Pos, xattrs: map[string]string{}}
			n.objects[c.Object] = o
		}
		if c.Payload == nil {
			continue
		}
		for i, op := range c.Payload.Ops {
			o.ops = append(o.ops, nOp{op, Ref{c.At.ID, uint32(i)}, Order{c.At.Pos, uint32(i)}, c.At.Device, c.Payload.Time})
		}
	}
	for _, o := range n.objects {
		o.fold()
	}
	n.placeDirectories()
	return n
}

func (o *nObject) fold() {
	contents := o.foldContents()
	for _, op := range o.ops {
		switch op.Kind {
		case OpMode:
			o.mode = fmt.Sprintf("%o", op.Mode)
		case OpOwner:
			o.owner = fmt.Sprint(op.UID, ":", op.GID)
		case OpMtime:
			o.mtime = &op.Mtime
		case OpContent:
			if o.kind == KindFile {
				o.mtime = nil
			}
		case OpTarget:
			if o.kind == KindSymlink {
				o.target = op.Target
			}
		case OpRdev:
			if o.kind == KindChar || o.kind == KindBlock {
				o.rdev = op.Rdev
			}
		case OpXattr:
			delete(o.xattrs, op.Name)
			if !op.Remove {
				o.xattrs[op.Name] = string(op.Value)
			}
		case OpLink:
			if o.kind != KindDir || o.birth != (dag.Pos{}) && op.ref.Change == o.id && len(o.links) == 0 {
				o.links = append(o.links, o.foldLink(op, contents))
			}
		}
	}
}

// foldLink works out one link from the definition: a placement is replaced when a later move of the link names it; a mark
// counts when it named all that was not replaced when it came, and no move came after it.
func (o *nObject) foldLink(made nOp, contents func(Order) []*nValue) *nLink {
	l := &nLink{id: made.ref}
	var places, marks []nOp
	places = append(places, made)
	for _, op := range o.ops {
		if op.at.Compare(made.at) > 0 && op.Link == made.ref {
			switch op.Kind {
			case OpMove:
				places = append(places, op)
			case OpUnlink:
				marks = append(marks, op)
			}
		}
	}
	last := places[len(places)-1]
	l.shown = nPlace{last, last.Parent, last.Name}
	allMissed := true
	for _, m := range marks {
		if last.at.Compare(m.at) > 0 {
			continue
		}
		counts := true
		for i, p := range places {
			replaced := false
			for _, q := range places[i+1:] {
				replaced = replaced || slices.Contains(q.Over, p.ref)
			}
			counts = counts && (replaced || slices.Contains(m.Over, p.ref))
		}
		if !counts {
			continue
		}
		l.removed = true
		missed := false
		for _, v := range contents(m.at) {
			missed = missed || !slices.Contains(m.Contents, v.op.ref)
		}
		for _, op := range o.ops {
			missed = missed || op.Kind == OpContent && o.kind == KindFile && op.at.Compare(m.at) > 0
		}
		allMissed = allMissed && missed
	}
	l.missed = l.removed && allMissed
	return l
}

// foldContents works out the candidates, and returns what they were before any operation.
func (o *nObject) foldContents() func(Order) []*nValue {
	type moment struct {
		after Order
		then  []*nValue
	}
	moments := []moment{{}}
	if o.kind != KindFile {
		return func(Order) []*nValue { return nil }
	}
	all := map[Ref]*nValue{}
	var now []*nValue
	for _, op := range o.ops {
		switch op.Kind {
		case OpContent:
			v := &nValue{op: op, size: op.Content.Size}
			for _, r := range op.Over {
				if w := all[r]; w != nil {
					v.over = append(v.over, w)
				}
			}
			v.fill()
			all[op.ref] = v
			now = slices.DeleteFunc(slices.Clone(now), func(w *nValue) bool { return slices.Contains(v.over, w) })
			now = append(now, v)
		case OpDrop:
			kept := slices.Clone(now)
			for _, v := range now {
				if slices.Contains(op.Over, v.op.ref) && len(kept) > 1 {
					kept = slices.DeleteFunc(kept, func(w *nValue) bool { return w == v })
				}
			}
			now = kept
		default:
			continue
		}
		moments = append(moments, moment{op.at, now})
	}
	o.candidates = now
	return func(at Order) []*nValue {
		for i := len(moments) - 1; i > 0; i-- {
			if moments[i].after.Compare(at) < 0 {
				return moments[i].then
			}
		}
		return nil
	}
}

func (v *nValue) fill() {
	c := v.op.Content
	switch {
	case c.Root.Defined():
		v.blocks = blocksName(c)
	case c.Patch == nil:
		v.text = slices.Clone(c.Inline)
	case len(v.over) == 0:
		v.blocks = "missing"
	default:
		base := v.over[0]
		v.blocks, v.patches = base.blocks, slices.Clone(base.patches)
		if v.blocks != "" {
			v.patches = append(v.patches, fmt.Sprint(c.Size, c.Patch))
			return
		}
		text := make([]byte, c.Size)
		copy(text, base.text)
		for _, e := range c.Patch {
			clear(text[e.Off : e.Off+e.Len])
			copy(text[e.Off:], e.Bytes)
		}
		v.text = text
	}
}

func (v *nValue) filled() *nValue { v.fill(); return v }

// show is the content as one string.
func (v *nValue) show() string {
	if v.blocks == "missing" {
		return fmt.Sprint(v.size, "missing")
	}
	if v.blocks != "" {
		return fmt.Sprint(v.size, v.blocks, v.patches)
	}
	return fmt.Sprintf("%d %q", v.size, strings.TrimRight(string(v.text), "\x00"))
}

func (v *nValue) comparable() bool { return len(v.patches) == 0 && v.blocks != "missing" }

func (v *nValue) isText() bool { return v.blocks == "" && int64(len(v.text)) == v.size }

// replaced returns all values that v replaced, directly or not.
func (v *nValue) replaced(into map[*nValue]bool) map[*nValue]bool {
	for _, w := range v.over {
		if !into[w] {
			into[w] = true
			w.replaced(into)
		}
	}
	return into
}

// baseOf returns what a merge of the values starts from. Of the values that all of them replaced, those that none of these
// replaced count: the one there is, or the merge of several, or where they do not merge, the highest.
func baseOf(values []*nValue) ([]byte, bool) {
	common := values[0].replaced(map[*nValue]bool{})
	for _, v := range values[1:] {
		other := v.replaced(map[*nValue]bool{})
		for w := range common {
			if !other[w] {
				delete(common, w)
			}
		}
	}
	if len(common) == 0 {
		return nil, false
	}
	var tops []*nValue
	for w := range common {
		top := true
		for x := range common {
			top = top && !x.replaced(map[*nValue]bool{})[w]
		}
		if top {
			tops = append(tops, w)
		}
	}
	sort.Slice(tops, func(i, j int) bool { return tops[i].op.at.Compare(tops[j].op.at) < 0 })
	highest := tops[len(tops)-1]
	if len(tops) > 1 {
		base, ok := baseOf(tops)
		var texts [][]byte
		for _, v := range tops {
			ok = ok && v.isText()
			texts = append(texts, v.text)
		}
		if ok {
			if merged, ok := merge.Fold(base, texts...); ok {
				return merged, true
			}
		}
	}
	return highest.text, highest.isText()
}

// placeDirectories replays the placements of all directories in total order.
func (n *naive) placeDirectories() {
	type move struct {
		o  *nObject
		op nOp
	}
	var moves []move
	for _, o := range n.objects {
		if o.kind != KindDir || len(o.links) == 0 {
			continue
		}
		for _, op := range o.ops {
			if op.ref == o.links[0].id || op.Kind == OpMove && op.Link == o.links[0].id && op.at.Compare(Order{o.birth, o.links[0].id.Place}) > 0 {
				moves = append(moves, move{o, op})
			}
		}
	}
	sort.Slice(moves, func(i, j int) bool { return moves[i].op.at.Compare(moves[j].op.at) < 0 })
	for _, m := range moves {
		p := &nPlace{m.op, m.op.Parent, m.op.Name}
		cycle := false
		for at := p; at != nil && n.valid(at); {
			if at.parent == m.o.id {
				cycle = true
				break
			}
			at = n.objects[at.parent].place
		}
		if !cycle {
			m.o.place = p
		}
	}
}

// valid: the parent is a directory that was there before.
func (n *naive) valid(p *nPlace) bool {
	o := n.objects[p.parent]
	return o != nil && o.kind == KindDir && o.birth.Compare(p.op.at.Pos) < 0
}

// live returns the live links of a file or other object: those without a mark, or the highest whose mark missed something.
func (o *nObject) live() []*nLink {
	var live []*nLink
	var back *nLink
	for _, l := range o.links {
		if !l.removed {
			live = append(live, l)
		} else if l.missed && (back == nil || l.shown.op.at.Compare(back.shown.op.at) > 0) {
			back = l
		}
	}
	if len(live) == 0 && back != nil {
		live = []*nLink{back}
	}
	return live
}

func (n *naive) liveDir(o *nObject) bool {
	if len(o.links) == 0 {
		return o.id == n.root
	}
	if !o.links[0].removed {
		return true
	}
	for _, c := range n.objects {
		if c.kind == KindDir {
			if c.place != nil && c.place.parent == o.id && n.valid(c.place) && n.liveDir(c) {
				return true
			}
			continue
		}
		for _, l := range c.live() {
			if l.shown.parent == o.id && n.valid(&l.shown) {
				return true
			}
		}
	}
	return false
}

// nShown is what an object of kind file shows, and what it loses.
type nShown struct {
	main   *nValue
	text   *string // merged
	mtime  int64
	losers []*nValue
	behind []Ref
}

func (o *nObject) resolve() (s nShown) {
	if len(o.candidates) == 0 {
		return
	}
	var distinct []*nValue // the highest of equal ones, in total order
	for i, v := range o.candidates {
		equal := false
		for _, w := range o.candidates[i+1:] {
			equal = equal || v.comparable() && w.comparable() && v.show() == w.show()
		}
		if !equal {
			distinct = append(distinct, v)
		}
	}
	s.main = o.candidates[len(o.candidates)-1]
	s.mtime = s.main.op.Mtime
	for _, v := range o.candidates {
		if v == s.main || v.comparable() && s.main.comparable() && v.show() == s.main.show() {
			s.behind = append(s.behind, v.op.ref)
		}
	}
	if len(distinct) > 1 {
		texts, ok := [][]byte{}, true
		for _, v := range distinct {
			ok = ok && v.isText()
			texts = append(texts, v.text)
		}
		base, has := baseOf(o.candidates)
		ok = ok && has
		if ok {
			if merged, ok := merge.Fold(base, texts...); ok {
				t := string(merged)
				s.text, s.behind = &t, nil
				for _, v := range o.candidates {
					s.mtime = max(s.mtime, v.op.Mtime)
					s.behind = append(s.behind, v.op.ref)
				}
				s.mtime++
			}
		}
		if s.text == nil {
			s.losers = distinct[:len(distinct)-1]
		}
	}
	if o.mtime != nil {
		s.mtime = *o.mtime
	}
	return s
}

// nEntry is one line of what people see.
type nEntry struct {
	path     string
	what     string // kind, attributes and content
	object   dag.ID
	conflict bool
	behind   []Ref // the content values that the entry stands for
	content  string
}

// walk lists the visible tree, depth first, names sorted.
func (n *naive) walk() []nEntry {
	var out []nEntry
	n.list([]dag.ID{n.root}, "", &out)
	return out
}

type nFile struct {
	o    *nObject
	l    *nLink
	dir  dag.ID
	made Order
}

func (n *naive) list(class []dag.ID, path string, out *[]nEntry) {
	dirs := map[string][]*nObject{}
	files := map[string][]nFile{}
	real := map[string]bool{}
	for _, o := range n.objects {
		if o.kind == KindDir {
			if o.place != nil && slices.Contains(class, o.place.parent) && n.valid(o.place) && n.liveDir(o) {
				dirs[o.place.name] = append(dirs[o.place.name], o)
				real[o.place.name] = true
			}
			continue
		}
		for _, l := range o.live() {
			if slices.Contains(class, l.shown.parent) && n.valid(&l.shown) {
				files[l.shown.name] = append(files[l.shown.name], nFile{o, l, l.shown.parent, l.shown.op.at})
				real[l.shown.name] = true
			}
		}
	}
	entries := map[string]nEntry{}
	below := map[string][]dag.ID{}
	for name := range real {
		if ds := dirs[name]; len(ds) > 0 {
			sort.Slice(ds, func(i, j int) bool { return ds[i].birth.Compare(ds[j].birth) < 0 })
			for _, d := range ds {
				below[name] = append(below[name], d.id)
			}
			entries[name] = nEntry{object: ds[0].id, what: ds[0].describe("", 0)}
		}
		n.listFiles(name, files[name], len(dirs[name]) > 0, real, entries)
	}
	for _, name := range sortedKeys(entries) {
		e := entries[name]
		e.path = path + "/" + name
		*out = append(*out, e)
		if below[name] != nil {
			n.list(below[name], e.path, out)
		}
	}
}

// nItem is a file, or a losing content value of one, that wants a name.
type nItem struct {
	made   Order
	order  Order
	key    string // equal ones are shown once
	lose   loser
	entry  nEntry
	isMain bool
}

func (n *naive) listFiles(name string, files []nFile, taken bool, real map[string]bool, entries map[string]nEntry) {
	var items []nItem
	for _, f := range files {
		p := f.l.shown.op
		s := f.o.resolve()
		content, key := "", fmt.Sprint(f.o.kind, f.o.target, f.o.rdev)
		switch {
		case f.o.kind != KindFile:
		case s.text != nil:
			content = fmt.Sprintf("%d %q", len(*s.text), strings.TrimRight(*s.text, "\x00"))
			key += content
		case s.main != nil:
			content = s.main.show()
			if key += content; !s.main.comparable() {
				key = fmt.Sprint("only itself", s.main.op.ref)
			}
		default:
			content = (&nValue{}).show()
			key += content
		}
		if len(s.behind) == 0 && f.o.mtime != nil {
			s.mtime = *f.o.mtime
		}
		items = append(items, nItem{
			made: f.made, order: p.at, key: key, isMain: true,
			lose:  loser{name, n.device(p.device), p.time, f.o.id, p.ref.Change, p.ref.Place},
			entry: nEntry{object: f.o.id, what: f.o.describe(content, s.mtime), behind: s.behind, content: content},
		})
		if f.l != f.o.live()[0] {
			continue
		}
		for _, v := range s.losers {
			it := nItem{
				order: v.op.at, key: fmt.Sprint(f.o.kind, f.o.target, f.o.rdev) + v.show(),
				lose:  loser{name, n.device(v.op.device), v.op.time, f.o.id, v.op.ref.Change, v.op.ref.Place},
				entry: nEntry{object: f.o.id, what: f.o.describe(v.show(), v.op.Mtime), content: v.show(), behind: []Ref{v.op.ref}},
			}
			if !v.comparable() {
				it.key = fmt.Sprint("only itself", v.op.ref)
			}
			items = append(items, it)
		}
	}
	sort.SliceStable(items, func(i, j int) bool { return items[i].order.Compare(items[j].order) > 0 })
	if !taken && len(items) > 0 {
		i := slices.IndexFunc(items, func(it nItem) bool { return it.isMain })
		top := items[i]
		items = append([]nItem{top}, slices.Delete(items, i, i+1)...)
	}
	shown := map[string]bool{}
	for _, it := range items {
		if shown[it.key] {
			continue
		}
		shown[it.key] = true
		if !taken {
			taken = true
			entries[name] = it.entry
			continue
		}
		it.entry.conflict = true
		for k := 4; ; k++ {
			c := it.lose.copyName(k)
			if _, used := entries[c]; !used && !real[c] {
				entries[c] = it.entry
				break
			}
		}
	}
}

func (o *nObject) describe(content string, mtime int64) string {
	var xs []string
	for _, x := range sortedKeys(o.xattrs) {
		xs = append(xs, fmt.Sprintf("%s=%q", x, o.xattrs[x]))
	}
	return fmt.Sprintf("%d mode %s owner %s mtime %d target %q rdev %d %v content %s",
		o.kind, o.mode, o.owner, mtime, o.target, o.rdev, xs, content)
}
