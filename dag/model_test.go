package dag_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// model is the slow oracle: all batches that exist, and what a replica that holds a set of them must show.
type model struct {
	batches map[dag.ID]*dag.Batch
	changes map[dag.ID][]*dag.Change
	frames  map[dag.ID][]byte
	order   []dag.ID // as they were made
	pasts   map[dag.ID]map[dag.ID]bool
}

func newModel() *model {
	return &model{batches: map[dag.ID]*dag.Batch{}, changes: map[dag.ID][]*dag.Change{}, frames: map[dag.ID][]byte{},
		pasts: map[dag.ID]map[dag.ID]bool{}}
}

func (m *model) add(t rapid.TB, g *dag.Graph, b *dag.Batch) {
	id := b.ID()
	if m.batches[id] != nil {
		return // one device in two places made the same batch twice
	}
	got, bodies, err := g.Batch(id)
	must(t, err)
	for _, p := range bodies {
		c, err := dag.DecodeChange(p)
		must(t, err)
		m.changes[id] = append(m.changes[id], c)
	}
	m.batches[id] = got
	m.frames[id] = dag.EncodeFrame(got, bodies)
	m.order = append(m.order, id)
	past := map[dag.ID]bool{id: true}
	for _, n := range append([]dag.ID{got.Prev}, got.Deps...) {
		if !n.IsZero() {
			for p := range m.pasts[n] {
				past[p] = true
			}
			past[n] = true
		}
	}
	m.pasts[id] = past
}

// view is what a replica must show.
type view struct {
	held, counted map[dag.ID]bool
	frontier      []dag.ID
	order         []dag.ID // counted, in total order
	logs          map[dag.ID][]entry
	heads         map[dag.ID][]dag.ID
}

type entry struct {
	id  dag.ID
	pos dag.Pos
}

// view computes a replica's view from the batches it was given, in whatever order.
func (m *model) view(given map[dag.ID]bool, verdict func(*dag.Batch) dag.Verdict) *view {
	v := &view{held: map[dag.ID]bool{}, counted: map[dag.ID]bool{}, logs: map[dag.ID][]entry{}, heads: map[dag.ID][]dag.ID{}}
	for id := range given {
		whole := true
		for p := range m.pasts[id] {
			whole = whole && given[p]
		}
		if whole {
			v.held[id] = true
		}
	}
	for id := range v.held {
		if verdict(m.batches[id]) != dag.Counts {
			continue
		}
		v.counted[id] = true
		for p := range m.pasts[id] {
			if verdict(m.batches[p]) == dag.CountsIfNamed {
				v.counted[p] = true
			}
		}
	}
	for id := range v.counted {
		v.order = append(v.order, id)
		head := true
		for o := range v.counted {
			head = head && (o == id || !m.pasts[o][id])
		}
		if head {
			v.frontier = append(v.frontier, id)
		}
	}
	slices.SortFunc(v.frontier, dag.ID.Compare)
	slices.SortFunc(v.order, func(a, b dag.ID) int {
		return dag.Pos{Clock: m.batches[a].Clock, Batch: a}.Compare(dag.Pos{Clock: m.batches[b].Clock, Batch: b})
	})
	m.objects(v)
	return v
}

func (m *model) objects(v *view) {
	named, seen := map[dag.ID]bool{}, map[dag.ID]bool{}
	for _, id := range v.order {
		for i, c := range m.changes[id] {
			cid := m.batches[id].Changes[i]
			object := c.Object
			if object.IsZero() {
				object = cid
			}
			if seen[cid] {
				continue // counts at the first
			}
			seen[cid] = true
			v.logs[object] = append(v.logs[object], entry{cid, dag.Pos{Clock: c.Clock, Batch: id, Place: uint32(i)}})
			for _, p := range c.Parents {
				named[p] = true
			}
		}
	}
	for object, log := range v.logs {
		for _, e := range log {
			if !named[e.id] {
				v.heads[object] = append(v.heads[object], e.id)
			}
		}
		slices.SortFunc(v.heads[object], dag.ID.Compare)
	}
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// check compares a graph with the view that it must show.
func (m *model) check(t *rapid.T, g *dag.Graph, v *view) {
	if got := g.Heads(); !slices.Equal(got, v.frontier) {
		t.Fatalf("frontier %v, want %v", got, v.frontier)
	}
	var order []dag.ID
	must(t, g.Batches(func(b *dag.Batch, bodies [][]byte) error {
		order = append(order, b.ID())
		if !bytes.Equal(dag.EncodeFrame(b, bodies), m.frames[b.ID()]) {
			return errors.New("another frame")
		}
		head, err := g.Head(b.ID())
		if err != nil {
			return err
		}
		b.Changes = nil
		if got := dag.EncodeFrame(head, nil); head.ID() != order[len(order)-1] || !bytes.Equal(got, dag.EncodeFrame(b, nil)) {
			return errors.New("another head")
		}
		return nil
	}))
	if !slices.Equal(order, v.order) {
		t.Fatalf("order of %d batches, want %d:\n%v\n%v", len(order), len(v.order), order, v.order)
	}
	objects := 0
	must(t, g.Objects(func(id dag.ID) error {
		objects++
		if v.logs[id] == nil {
			return fmt.Errorf("unknown object %v", id)
		}
		return nil
	}))
	if objects != len(v.logs) {
		t.Fatalf("%d objects, want %d", objects, len(v.logs))
	}
	for id, log := range v.logs {
		m.checkObject(t, g, id, log, v.heads[id])
	}
	for id := range m.batches {
		has, err := g.Has(id)
		must(t, err)
		if has != v.held[id] {
			t.Fatalf("holds %v: %v", id, has)
		}
	}
	m.checkTips(t, g, v)
}

func (m *model) checkObject(t *rapid.T, g *dag.Graph, id dag.ID, want []entry, heads []dag.ID) {
	heard, err := g.HeadsOf(id)
	must(t, err)
	if !slices.Equal(heard, heads) {
		t.Fatalf("heads of %v: %v, want %v", id, heard, heads)
	}
	collect := func(walk func(fn func(dag.Entry) error) error) (got []entry) {
		must(t, walk(func(e dag.Entry) error {
			if e.Change.ID() != e.ID || e.Batch.Clock != e.Pos.Clock || e.Batch.ID() != e.Pos.Batch {
				return fmt.Errorf("entry %v does not fit", e.ID)
			}
			got = append(got, entry{e.ID, e.Pos})
			return nil
		}))
		return got
	}
	if got := collect(func(fn func(dag.Entry) error) error { return g.Changes(id, fn) }); !slices.Equal(got, want) {
		t.Fatalf("log of %v:\n%v\nwant\n%v", id, got, want)
	}
	back := collect(func(fn func(dag.Entry) error) error { return g.ChangesBack(id, fn) })
	slices.Reverse(back)
	if !slices.Equal(back, want) {
		t.Fatalf("log of %v, backwards:\n%v\nwant\n%v", id, back, want)
	}
	i := rapid.IntRange(0, len(want)-1).Draw(t, "from")
	if got := collect(func(fn func(dag.Entry) error) error { return g.ChangesFrom(id, want[i].id, fn) }); !slices.Equal(got, want[i:]) {
		t.Fatalf("log of %v from %d:\n%v\nwant\n%v", id, i, got, want[i:])
	}
	e, err := g.Change(want[i].id)
	must(t, err)
	if e.Pos != want[i].pos {
		t.Fatalf("change at %v, want %v", e.Pos, want[i].pos)
	}
}

// checkTips: each is of a batch that is shown, and all that are last in their feed are among them.
func (m *model) checkTips(t *rapid.T, g *dag.Graph, v *view) {
	shown, last := map[dag.ID]bool{}, map[dag.ID]bool{}
	for id := range v.counted {
		for p := range m.pasts[id] {
			shown[p], last[p] = true, true
		}
	}
	for id := range shown {
		delete(last, m.batches[id].Prev)
	}
	for _, tip := range g.Tips() {
		if b := m.batches[tip.Batch]; !shown[tip.Batch] || b.Seq != tip.Seq || b.Clock != tip.Clock || b.Device != tip.Device {
			t.Fatalf("tip %+v", tip)
		}
		delete(last, tip.Batch)
	}
	if len(last) > 0 {
		t.Fatalf("%d tips are missing", len(last))
	}
	have := map[dag.ID]bool{}
	var from []dag.ID
	for id := range shown {
		if m.order[len(m.order)/2] == id {
			from = append(from, id)
			have = m.pasts[id]
		}
	}
	must(t, g.FramesSince(from, func(id dag.ID, frame []byte) error {
		if !shown[id] || have[id] || !bytes.Equal(frame, m.frames[id]) {
			return fmt.Errorf("frame %v given", id)
		}
		delete(shown, id)
		return nil
	}))
	for id := range have {
		delete(shown, id)
	}
	if len(shown) > 0 {
		t.Fatalf("%d frames were not given", len(shown))
	}
}

// replica is a graph with what it was given.
type replica struct {
	st    dag.Store
	g     *dag.Graph
	auth  *bans
	given map[dag.ID]bool
}

// bans is an Authorizer that ends feeds: by device, the clock after which its batches count no more, and whether what is
// named counts nevertheless.
type bans struct {
	after   map[dag.PublicKey]uint64
	ifNamed map[dag.PublicKey]bool
}

func (b *bans) Accept(*dag.Batch, []*dag.Change) error { return nil }

func (b *bans) Counts(x *dag.Batch) dag.Verdict {
	switch clock, ended := b.after[x.Device]; {
	case !ended || x.Clock <= clock:
		return dag.Counts
	case b.ifNamed[x.Device]:
		return dag.CountsIfNamed
	}
	return dag.Quarantine
}

// machine is a few replicas that write, and give each other batches in any order.
type machine struct {
	m        *model
	replicas []*replica
	objects  []dag.ID
	bans     bool
	n        int
}

func (x *machine) author(rt *rapid.T, r int) dag.Author {
	if rapid.IntRange(0, 9).Draw(rt, "clone") == 0 {
		return author(0) // a device that was restored from a backup, or lies: its feed branches
	}
	return author(r)
}

func (x *machine) write(rt *rapid.T) {
	r := rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "writer")
	for range rapid.SampledFrom([]int{1, 1, 1, 2, 50}).Draw(rt, "batches") {
		x.writeOne(rt, r, x.author(rt, r))
	}
}

func (x *machine) writeOne(rt *rapid.T, r int, a dag.Author) {
	rep := x.replicas[r]
	b, err := rep.g.Begin(a, nil, dag.ID{})
	must(rt, err)
	defer b.Abort()
	n := 0
	for _, o := range x.objects {
		if n < 3 && rapid.IntRange(0, len(x.objects)).Draw(rt, "pick") <= 1 {
			x.n++
			_, err := b.Add(o, plain(fmt.Sprint(x.n/3))) // some payloads are equal
			must(rt, err)
			n++
		}
	}
	if n == 0 || len(x.objects) < 6 && rapid.IntRange(0, 3).Draw(rt, "root") == 0 {
		x.n++
		id, err := b.Add(dag.ID{}, plain(fmt.Sprint("root", x.n)))
		must(rt, err)
		if len(x.objects) < 6 {
			x.objects = append(x.objects, id)
		}
	}
	batch, err := b.Commit()
	if errors.Is(err, dag.ErrDenied) {
		return
	}
	must(rt, err)
	x.m.add(rt, rep.g, batch)
	rep.given[batch.ID()] = true
}

func (x *machine) deliver(rt *rapid.T) {
	if len(x.m.order) == 0 {
		return
	}
	rep := x.replicas[rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "to")]
	for range rapid.SampledFrom([]int{1, 3, 30}).Draw(rt, "many") {
		id := x.m.order[rapid.IntRange(0, len(x.m.order)-1).Draw(rt, "batch")]
		res, err := rep.g.Ingest(bytes.Clone(x.m.frames[id]))
		must(rt, err)
		if (res.Status == dag.Duplicate) != rep.given[id] {
			rt.Fatalf("given before: %v, %+v", rep.given[id], res)
		}
		rep.given[id] = true
		for _, miss := range res.Missing {
			if rep.given[miss] || !x.m.pasts[id][miss] {
				rt.Fatal("asks for a batch that it has, or need not")
			}
		}
	}
}

// heal gives a replica all that it lacks.
func (x *machine) heal(rt *rapid.T) {
	rep := x.replicas[rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "to")]
	for _, id := range rapid.Permutation(x.m.order).Draw(rt, "order") {
		_, err := rep.g.Ingest(bytes.Clone(x.m.frames[id]))
		must(rt, err)
		rep.given[id] = true
	}
}

func (x *machine) ban(rt *rapid.T) {
	if !x.bans {
		return
	}
	rep := x.replicas[rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "who")]
	d := author(rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "device")).Device
	if rapid.IntRange(0, 3).Draw(rt, "lift") == 0 {
		delete(rep.auth.after, d)
	} else {
		rep.auth.after[d] = rapid.Uint64Range(0, 30).Draw(rt, "clock")
		rep.auth.ifNamed[d] = rapid.Bool().Draw(rt, "named")
	}
	affects := func(_, device dag.PublicKey) bool { return device == d }
	if rapid.Bool().Draw(rt, "all") {
		affects = nil
	}
	_, err := rep.g.Rejudge(affects)
	must(rt, err)
}

func (x *machine) reopen(rt *rapid.T) {
	rep := x.replicas[rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "which")]
	g, err := dag.Open(space, rep.st, rep.auth, dag.Options{})
	must(rt, err)
	rep.g = g
	for id := range rep.given { // what was waiting is lost
		if has, _ := g.Has(id); !has {
			delete(rep.given, id)
		}
	}
}

// check checks a replica now and then: it costs more than all else.
func (x *machine) check(rt *rapid.T) {
	if rapid.IntRange(0, 5).Draw(rt, "check") == 0 {
		x.checkReplica(rt, x.replicas[rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "checked")])
	}
}

func (x *machine) checkReplica(rt *rapid.T, rep *replica) {
	x.m.check(rt, rep.g, x.m.view(rep.given, rep.auth.Counts))
}

func run(rt *rapid.T, withBans bool) {
	x := &machine{m: newModel(), bans: withBans, objects: []dag.ID{dag.Sum([]byte("fixed"))}}
	for range rapid.IntRange(2, 4).Draw(rt, "replicas") {
		rep := &replica{st: store.NewMem(), given: map[dag.ID]bool{},
			auth: &bans{after: map[dag.PublicKey]uint64{}, ifNamed: map[dag.PublicKey]bool{}}}
		g, err := dag.Open(space, rep.st, rep.auth, dag.Options{CacheBytes: rapid.SampledFrom([]int{1, 1 << 14, 0}).Draw(rt, "cache")})
		must(rt, err)
		rep.g = g
		x.replicas = append(x.replicas, rep)
	}
	rt.Repeat(map[string]func(*rapid.T){
		"write":   x.write,
		"deliver": x.deliver,
		"heal":    x.heal,
		"ban":     x.ban,
		"reopen":  x.reopen,
		"age":     func(rt *rapid.T) { x.replicas[rapid.IntRange(0, len(x.replicas)-1).Draw(rt, "which")].g.Age() },
		"":        x.check,
	})
	for _, rep := range x.replicas {
		x.checkReplica(rt, rep)
		must(rt, rep.g.Verify(nil))
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { run(rt, false) })
}

func TestModelQuarantine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { run(rt, true) })
}
