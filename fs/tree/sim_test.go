package tree

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// This file simulates replicas of one space: they make plans on their own trees, publish them in batches, and give one another
// the batches in any order that has a past before its future.

var simSpace = dag.Sum([]byte("a space"))

// markOf finds the marks of a conflict copy in what is told of a file: one comes when the copy becomes a file of its own, and one when
// that is moved, and no person sees them.
var markOf = regexp.MustCompile(` ?` + regexp.QuoteMeta(ConflictXattr) + `(\.dealt\.[0-9a-f]*)?="(\\.|[^"\\])*"`)

func shown(what string) string { return markOf.ReplaceAllString(what, "") }

// chooser makes all decisions of a simulation: a number below n, from a seed or from rapid.
type chooser func(n int) int

type simChange struct {
	object  dag.ID
	id      dag.ID
	parents []dag.ID
	payload []byte
}

type simBatch struct {
	id      dag.ID
	clock   uint64
	deps    []dag.ID
	device  dag.PublicKey
	changes []simChange
}

type replica struct {
	t       testing.TB
	device  dag.PublicKey
	store   *MemStore
	tree    *Tree
	held    map[dag.ID]*simBatch
	order   []*simBatch // as they were applied
	waiting []*simBatch
	out     []*simBatch     // published, and not on the way to the others yet
	heads   map[dag.ID]bool // of the graph of batches
	objects map[dag.ID][]dag.ID
	clock   uint64
	merges  bool
	watch   bool // compare what each Apply says to have changed with what changed
}

func simDevices(n int) map[dag.PublicKey]string {
	names := map[dag.PublicKey]string{}
	for i := range n {
		names[dag.PublicKey{byte(i + 1)}] = fmt.Sprintf("device %d", i)
	}
	return names
}

func newReplica(t testing.TB, i int, names map[dag.PublicKey]string) *replica {
	r := &replica{
		t: t, device: dag.PublicKey{byte(i + 1)}, store: NewMemStore(names), held: map[dag.ID]*simBatch{},
		heads: map[dag.ID]bool{}, objects: map[dag.ID][]dag.ID{},
	}
	var err error
	if r.tree, err = NewTree(simSpace, r.store); err != nil {
		t.Fatal(err)
	}
	return r
}

// publish makes a batch of a plan and applies it.
func (r *replica) publish(p *Plan, time int64) *simBatch {
	r.t.Helper()
	if p == nil || len(p.Drafts) == 0 {
		return nil
	}
	b := &simBatch{clock: r.clock + 1, device: r.device}
	for h := range r.heads {
		b.deps = append(b.deps, h)
	}
	slices.SortFunc(b.deps, dag.ID.Compare)
	h := binary.BigEndian.AppendUint64(append([]byte("batch"), r.device[:]...), b.clock)
	for _, d := range b.deps {
		h = append(h, d[:]...)
	}
	for i, d := range p.Drafts {
		c := simChange{object: d.Object, parents: slices.Clone(r.objects[d.Object])}
		slices.SortFunc(c.parents, dag.ID.Compare)
		pl := Payload{Kind: d.Kind, Time: time, Ops: d.Ops}
		var err error
		if c.payload, err = pl.Encode(c.parents); err != nil {
			r.t.Fatalf("encode %+v: %v", pl, err)
		}
		enc := binary.BigEndian.AppendUint32(slices.Clone(h), uint32(i))
		c.id = dag.Sum(append(append(enc, c.object[:]...), c.payload...))
		if c.object.IsZero() {
			c.object = c.id
		}
		b.changes = append(b.changes, c)
	}
	for _, c := range b.changes {
		h = append(h, c.id[:]...)
	}
	b.id = dag.Sum(h)
	r.apply(b)
	r.out = append(r.out, b)
	return b
}

// receive takes a batch in, or holds it until its past is here.
func (r *replica) receive(b *simBatch) {
	r.t.Helper()
	r.waiting = append(r.waiting, b)
	for progress := true; progress; {
		progress = false
		for i, w := range r.waiting {
			if slices.ContainsFunc(w.deps, func(d dag.ID) bool { return r.held[d] == nil }) {
				continue
			}
			r.waiting = slices.Delete(r.waiting, i, i+1)
			r.apply(w)
			progress = true
			break
		}
	}
}

func (b *simBatch) decode(t testing.TB) []Change {
	t.Helper()
	var cs []Change
	for i, c := range b.changes {
		p, err := DecodePayload(c.payload, c.id, c.parents)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		if again, err := p.encodeAs(c.id, c.parents); err != nil || string(again) != string(c.payload) {
			t.Fatalf("a payload encodes to other bytes (%v)", err)
		}
		cs = append(cs, Change{c.object, Stamp{c.id, dag.Pos{Clock: b.clock, Batch: b.id, Place: uint32(i)}, b.device}, p})
	}
	return cs
}

// encodeAs encodes a decoded payload again: its own refs lose their id first.
func (p *Payload) encodeAs(self dag.ID, parents []dag.ID) ([]byte, error) {
	q := *p
	q.Ops = slices.Clone(p.Ops)
	for i := range q.Ops {
		o := &q.Ops[i]
		o.Over, o.Contents = slices.Clone(o.Over), slices.Clone(o.Contents)
		o.forRefs(func(r *Ref) {
			if r.Change == self {
				r.Change = dag.ID{}
			}
		})
	}
	return q.Encode(parents)
}

func (r *replica) apply(b *simBatch) {
	r.t.Helper()
	cs := b.decode(r.t)
	for _, c := range cs {
		r.store.AddChange(c.Object, c.At, c.Payload)
	}
	var before map[string]seenEntry
	if r.watch {
		before = r.see()
	}
	d, err := r.tree.Apply(cs...)
	if err != nil {
		r.t.Fatalf("apply: %v", err)
	}
	if r.watch {
		r.checkDelta(d, before, r.see())
	}
	r.merges = r.merges || len(d.Merges) > 0
	if r.held[b.id] != nil {
		return
	}
	r.held[b.id] = b
	r.order = append(r.order, b)
	r.clock = max(r.clock, b.clock)
	for _, d := range b.deps {
		delete(r.heads, d)
	}
	r.heads[b.id] = true
	for _, c := range b.changes {
		heads := slices.DeleteFunc(slices.Clone(r.objects[c.object]), func(id dag.ID) bool { return slices.Contains(c.parents, id) })
		r.objects[c.object] = append(heads, c.id)
	}
}

func (r *replica) changes() []Change {
	var cs []Change
	for _, b := range r.order {
		cs = append(cs, b.decode(r.t)...)
	}
	return cs
}

// spot is an entry of a replica's visible tree.
type spot struct {
	dir  dag.ID
	path string
	Node
}

func (r *replica) spots() []spot {
	var out []spot
	var list func(dir dag.ID, path string)
	list = func(dir dag.ID, path string) {
		nodes, err := r.tree.List(dir)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, n := range nodes {
			s := spot{dir, path + "/" + n.Name, n}
			out = append(out, s)
			if n.Kind == KindDir {
				list(n.Object, s.path)
			}
		}
	}
	list(r.tree.Root(), "")
	return out
}

func isWithin(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// script says what the replicas of a simulation do.
type script struct {
	choose chooser
	values int   // how many contents were made
	time   int64 // of the last operation
	kinds  []int // the operations to choose from; nil: all
	names  []string
	log    []string
}

var simNames = []string{"a", "b", "c", "d.txt"}

// content makes new content for a file that shows the given: mostly a line added or replaced, so that some of it merges.
func (s *script) content(v *View) *Content {
	s.values++
	line := fmt.Sprintf("line %d\n", s.values)
	var text string
	if v != nil && v.Merged {
		text = string(v.Text)
	} else if v != nil && len(v.Behind) > 0 && !v.Main.Base.Root.Defined() && !v.Main.Missing {
		text = string(v.Main.Base.Inline)
	}
	switch s.choose(8) {
	case 0:
		text = line
	case 1:
		ls := strings.SplitAfter(text, "\n")
		ls[0] = line
		text = strings.Join(ls, "")
	case 2:
		id := block.Sum([]byte(line))
		return &Content{Size: 1 << 20, Root: id.CID(), Layout: []Chunk{{int64(s.choose(2)) << 18, 3 << 18}}}
	case 3:
		if s.choose(2) == 0 {
			text = "the same for all\n"
			break
		}
		text = "a\nb\nc\nd\ne\nf\ng\n"
	default:
		ls := strings.SplitAfter(text, "\n")
		ls = slices.Insert(ls, s.choose(len(ls)), line)
		text = strings.Join(ls, "")
	}
	return &Content{Size: int64(len(text)), Inline: []byte(text)}
}

// patch makes a patch over what a file shows: some bytes put behind it or into it, zeros, or an end cut off.
func (s *script) patch(v *View) *Content {
	s.values++
	size, text := v.Size(), []byte(fmt.Sprintf("%02d\n", s.values%100))
	into := int64(0) // where an edit within goes
	if size > 3 {
		into = int64(s.choose(int(min(size-3, 64))))
	}
	switch what := s.choose(6); {
	case what == 0 && size > 3:
		return &Content{Size: size - 3, Patch: []Edit{}}
	case what == 1 && size > 3:
		return &Content{Size: size, Patch: []Edit{{into, 3, text}}}
	case what == 2 && size > 3:
		return &Content{Size: size + 1, Patch: []Edit{{into, 3, text[:1]}, {size, 1, nil}}}
	}
	return &Content{Size: size + 3, Patch: []Edit{{size, 3, text}}}
}

// act lets a replica do one random operation. It may come to nothing.
func (s *script) act(r *replica) *simBatch {
	r.t.Helper()
	s.time += int64(1 + s.choose(3)*int(1e9)*3600*20)
	spots := r.spots()
	var dirs, files []spot
	dirs = append(dirs, spot{r.tree.Root(), "", Node{Kind: KindDir, Object: r.tree.Root()}})
	for _, e := range spots {
		if e.Kind == KindDir {
			dirs = append(dirs, e)
		} else {
			files = append(files, e)
		}
	}
	pick := func(of []spot) *spot {
		if len(of) == 0 {
			return nil
		}
		return &of[s.choose(len(of))]
	}
	names := s.names
	if names == nil {
		names = simNames
	}
	dir, name := pick(dirs).Object, names[s.choose(len(names))]
	var p *Plan
	var err error
	say := ""
	before := walkTree(r.t, r.tree)
	want := wanted{}
	do := s.choose(18)
	if s.kinds != nil {
		do = s.kinds[do%len(s.kinds)]
	}
	switch do {
	case 0, 1:
		say = "create " + name
		want.fresh = true
		p, err = r.tree.PlanCreate(dir, name, KindFile, Op{Kind: OpMode, Mode: 0o644}, Op{Kind: OpContent, Mtime: s.time, Content: s.content(nil)})
	case 2, 3:
		say = "mkdir " + name
		want.fresh = true
		p, err = r.tree.PlanCreate(dir, name, KindDir, Op{Kind: OpMode, Mode: 0o755})
	case 4, 5, 6:
		if e := pick(files); e != nil && e.Kind == KindFile {
			say = "write " + e.path
			want.path = e.path
			p, err = r.tree.PlanWrite(e.dir, e.Name, s.time, func(over []Ref) *Content {
				st, _ := r.tree.State(e.Object)
				v := st.View()
				if e.Loser == ContentLoser {
					v = View{Main: *st.valueByRef(r.t, e.Content), Behind: []Ref{e.Content}}
				}
				if len(over) == 1 && s.choose(3) == 0 {
					want.patched = true
					return s.patch(&v)
				}
				c := s.content(&v)
				want.content = (&nValue{op: nOp{Op: Op{Content: c}}, size: c.Size}).filled().show()
				return c
			})
		}
	case 7, 8, 9:
		e, to := pick(spots), pick(dirs)
		if e == nil {
			break
		}
		over, ok, _ := r.tree.Lookup(to.Object, name)
		if e.Kind == KindDir && isWithin(to.path, e.path) {
			break
		}
		if ok && (over.Kind == KindDir) != (e.Kind == KindDir) {
			break
		}
		if ok && over.Kind == KindDir && slices.ContainsFunc(spots, func(f spot) bool {
			return f.path != to.path+"/"+name && isWithin(f.path, to.path+"/"+name)
		}) {
			break
		}
		say = "rename " + e.path + " to " + to.path + "/" + name
		want.path, want.to = e.path, to.path+"/"+name
		p, err = r.tree.PlanRename(e.dir, e.Name, to.Object, name)
	case 10, 11:
		if e := pick(files); e != nil {
			say = "unlink " + e.path
			want.path, want.gone = e.path, true
			p, err = r.tree.PlanRemove(e.dir, e.Name)
		}
	case 12:
		// rm -r, from the bottom up.
		if e := pick(dirs); e.path != "" {
			say = "rm -r " + e.path
			var below []spot
			for _, f := range spots {
				if isWithin(f.path, e.path) {
					below = append(below, f)
				}
			}
			for i := len(below) - 1; i > 0; i-- {
				if q, err := r.tree.PlanRemove(below[i].dir, below[i].Name); err == nil {
					r.publish(q, s.time)
				}
			}
			before = nil
			if p, err = r.tree.PlanRemove(e.dir, e.Name); err == ErrNotExist {
				return nil // it was removed already, and lived by what was in it
			}
		}
	case 13:
		if e := pick(files); e != nil {
			say = "link " + e.path + " to " + name
			want.fresh = true
			p, err = r.tree.PlanLink(e.dir, e.Name, dir, name)
		}
	case 14:
		say = "symlink " + name
		want.fresh = true
		p, err = r.tree.PlanCreate(dir, name, KindSymlink, Op{Kind: OpTarget, Target: fmt.Sprint("to", s.choose(2))})
	case 15:
		if e := pick(spots); e != nil {
			say = "set " + e.path
			want.path = e.path
			ops := []Op{
				{Kind: OpMode, Mode: uint32(s.choose(8))}, {Kind: OpXattr, Name: "user.x", Value: []byte{byte(s.choose(4))}},
				{Kind: OpXattr, Name: "user.x", Remove: true}, {Kind: OpMtime, Mtime: s.time}, {Kind: OpOwner, UID: 1, GID: uint32(s.choose(2))},
			}
			p, err = r.tree.PlanSet(e.dir, e.Name, ops[s.choose(len(ops))])
		}
	case 16:
		// A save by rename.
		if e := pick(files); e != nil && e.Kind == KindFile {
			say = "save " + e.path
			st, _ := r.tree.State(e.Object)
			v := st.View()
			tmp, err2 := r.tree.PlanCreate(dir, ".tmp", KindFile, Op{Kind: OpContent, Mtime: s.time, Content: s.content(&v)})
			if err2 != nil {
				break
			}
			b := r.publish(tmp, s.time)
			want.path = e.path
			p, err = r.tree.PlanSave(b.changes[0].object, e.dir, e.Name, v.Behind)
		}
	case 17:
		if s.choose(2) == 0 {
			// Swap two entries.
			e, f := pick(spots), pick(spots)
			if e != nil && !isWithin(e.path, f.path) && !isWithin(f.path, e.path) {
				say = "exchange " + e.path + " and " + f.path
				want.path, want.to, want.swap = e.path, f.path, true
				p, err = r.tree.PlanExchange(e.dir, e.Name, f.dir, f.Name)
			}
			break
		}
		// Bring something removed back.
		var gone []*State
		for _, id := range sortedIDs(r.store.objects) {
			if st := r.store.objects[id].State; st.Kind != KindDir && len(st.Links) > 0 && len(st.LiveLinks()) == 0 {
				gone = append(gone, st)
			}
		}
		if len(gone) > 0 {
			st := gone[s.choose(len(gone))]
			say = "restore " + name
			want.fresh = true
			p, err = r.tree.PlanRestore(st.Object, st.Links[0].ID, dir, name)
		}
	}
	if err == ErrExist {
		return nil
	}
	if err != nil {
		r.t.Fatalf("%s: %v", say, err)
	}
	b := r.publish(p, s.time)
	if b != nil && before != nil {
		want.check(r, say, before)
	}
	if b != nil {
		s.log = append(s.log, fmt.Sprintf("%s: %s", r.store.names[r.device], say))
	}
	return b
}

func sortedIDs[V any](m map[dag.ID]V) []dag.ID {
	var ids []dag.ID
	for id := range m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, dag.ID.Compare)
	return ids
}

// wanted is what a local operation is for: everything else that people see stays as it is.
type wanted struct {
	fresh    bool   // one entry more
	path, to string // the entry that is touched, and where it goes
	gone     bool
	swap     bool
	content  string // of the entry afterwards, unless empty
	patched  bool
}

func (w wanted) check(r *replica, say string, before []nEntry) {
	r.t.Helper()
	after := walkTree(r.t, r.tree)
	now := map[string]nEntry{}
	for _, e := range after {
		now[e.path] = e
	}
	touched := map[dag.ID]bool{} // another name of the same file changes with it
	for _, e := range before {
		if w.path != "" && (e.path == w.path || e.path == w.to) {
			touched[e.object] = true
		}
	}
	count := len(before)
	for _, e := range before {
		path := e.path
		switch {
		case w.path != "" && isWithin(path, w.path) && (w.gone || w.to != ""):
			if w.gone {
				count--
				continue
			}
			path = w.to + strings.TrimPrefix(path, w.path)
		case w.to != "" && isWithin(path, w.to) && w.swap:
			path = w.path + strings.TrimPrefix(path, w.to)
		case w.to != "" && isWithin(path, w.to):
			count--
			continue
		}
		f, ok := now[path]
		if !ok {
			r.t.Fatalf("%s: %q is gone\nbefore\n%safter\n%s", say, path, dump(before), dump(after))
		}
		if e.path == w.path && w.content != "" {
			if f.content != w.content {
				r.t.Fatalf("%s: the content is %s, want %s", say, f.content, w.content)
			}
			continue
		}
		if shown(f.what) != shown(e.what) && (!touched[e.object] || w.to != "" && !w.swap && e.path == w.path) {
			r.t.Fatalf("%s: %q was\n%s\nand is\n%s", say, e.path, e.what, f.what)
		}
	}
	if w.fresh {
		count++
	}
	if w.path == w.to && w.path != "" {
		count++
	}
	if len(after) != count {
		r.t.Fatalf("%s: %d entries, want %d\nbefore\n%safter\n%s", say, len(after), count, dump(before), dump(after))
	}
}

// seenEntry is an entry, what it shows, and the directories that it is in.
type seenEntry struct {
	class []dag.ID
	up    string
	node  Node
	what  string
}

func (r *replica) see() map[string]seenEntry {
	out := map[string]seenEntry{}
	var list func(class []dag.ID, path string)
	list = func(class []dag.ID, path string) {
		nodes, err := r.tree.List(class[0])
		if err != nil {
			r.t.Fatal(err)
		}
		for _, n := range nodes {
			out[path+"/"+n.Name] = seenEntry{class, path, n, entryOf(r.t, r.tree, n).what}
			if n.Kind == KindDir {
				list(n.Dirs, path+"/"+n.Name)
			}
		}
	}
	list([]dag.ID{r.tree.Root()}, "")
	return out
}

// checkDelta looks for a change of the tree that the delta does not tell.
func (r *replica) checkDelta(d *Delta, before, after map[string]seenEntry) {
	r.t.Helper()
	told := map[DirName]bool{}
	for _, n := range d.Names {
		told[n] = true
	}
	merged := map[DirName]bool{}
	for _, n := range d.Merges {
		merged[n] = true
	}
	in := func(set map[DirName]bool, es ...seenEntry) bool {
		for _, e := range es {
			for _, dir := range e.class {
				if set[DirName{dir, e.node.Name}] || e.node.Conflict && set[DirName{dir, e.node.Lost}] {
					return true
				}
			}
		}
		return false
	}
	// newDirs: the path or a directory above it shows other directory objects than before, and the delta says so.
	var newDirs func(path string) bool
	newDirs = func(path string) bool {
		b, ok := before[path]
		a, ok2 := after[path]
		if path == "" {
			return false
		}
		if ok && ok2 && slices.Equal(a.node.Dirs, b.node.Dirs) {
			return newDirs(a.up)
		}
		up := a.up
		if !ok2 {
			up = b.up
		}
		if ok && ok2 && a.node.Object == b.node.Object && !in(merged, a, b) && !newDirs(up) {
			r.t.Fatalf("%q shows other directories, and the delta does not say so: %+v", path, d)
		}
		return true
	}
	for path, a := range after {
		b, ok := before[path]
		if ok && a.what == b.what && a.node.Object == b.node.Object && slices.Equal(a.node.Dirs, b.node.Dirs) && a.node.Conflict == b.node.Conflict {
			continue
		}
		if !in(told, a) && !(ok && in(told, b)) && !newDirs(a.up) {
			r.t.Fatalf("%q changed, and the delta does not say so: %+v", path, d)
		}
		newDirs(path)
	}
	for path, b := range before {
		if _, ok := after[path]; !ok && !in(told, b) && !newDirs(b.up) {
			r.t.Fatalf("%q went, and the delta does not say so: %+v", path, d)
		}
	}
}
