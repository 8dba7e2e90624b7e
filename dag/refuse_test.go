package dag_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// forge makes a frame from a batch that f has changed, signed by an author.
func forge(b dag.Batch, changes []*dag.Change, a dag.Author, f func(b *dag.Batch, cs []*dag.Change)) []byte {
	cs := make([]*dag.Change, len(changes))
	for i, c := range changes {
		n := *c
		cs[i] = &n
	}
	c, err := dag.DecodeBatch(b.Encode()) // one that does not know its ID
	if err != nil {
		panic(err)
	}
	f(c, cs)
	c.Changes = nil
	bodies := make([][]byte, len(cs))
	for i := range cs {
		cs[i].Clock, cs[i].Device = c.Clock, c.Device
		bodies[i] = cs[i].Encode()
		c.Changes = append(c.Changes, cs[i].ID())
	}
	signBatch(c, a)
	return dag.EncodeFrame(c, bodies)
}

// TestRefuse gives a replica batches that are well formed and break one rule each.
func TestRefuse(t *testing.T) {
	from := newGraph(t)
	first, ids := put(t, from, author(1), "root ", dag.ID{}, dag.ID{})
	other, others := put(t, from, author(2), "other ", dag.ID{}) // names the first
	second, _ := put(t, from, author(1), "second ", ids[0])      // names other
	_, bodies, err := from.Batch(second.ID())
	must(t, err)
	var changes []*dag.Change
	for _, p := range bodies {
		c, err := dag.DecodeChange(p)
		must(t, err)
		changes = append(changes, c)
	}
	// A concurrent batch: held, and in nobody's past.
	lone := newGraph(t)
	send(t, from, lone, first.ID())
	aside, asides := put(t, lone, author(3), "aside ", dag.ID{}, ids[1])

	cases := []struct {
		name string
		want error
		f    func(b *dag.Batch, cs []*dag.Change)
	}{
		{"as it is", nil, func(*dag.Batch, []*dag.Change) {}},
		{"clock too high", dag.ErrInvalid, func(b *dag.Batch, _ []*dag.Change) { b.Clock++ }},
		{"clock too low", dag.ErrInvalid, func(b *dag.Batch, _ []*dag.Change) { b.Clock-- }},
		{"seq left out", dag.ErrInvalid, func(b *dag.Batch, _ []*dag.Change) { b.Seq++ }},
		{"prev of another device", dag.ErrInvalid, func(b *dag.Batch, _ []*dag.Change) {
			b.Prev, b.Deps = other.ID(), nil
		}},
		{"another account in the feed", dag.ErrInvalid, func(b *dag.Batch, _ []*dag.Change) { b.Account[0]++ }},
		{"another space", dag.ErrSpace, func(b *dag.Batch, _ []*dag.Change) { b.Space[0]++ }},
		{"another device's signature", dag.ErrSignature, func(b *dag.Batch, _ []*dag.Change) { b.Device = author(5).Device }},
		{"two changes of an object", dag.ErrInvalid, func(_ *dag.Batch, cs []*dag.Change) { cs[1].Object, cs[1].Parents = cs[0].Object, nil }},
		{"a parent that nobody knows", dag.ErrInvalid, func(_ *dag.Batch, cs []*dag.Change) { cs[0].Parents = []dag.ID{dag.Sum(nil)} }},
		{"a parent of another object", dag.ErrInvalid, func(_ *dag.Batch, cs []*dag.Change) { cs[0].Parents = []dag.ID{others[0]} }},
		{"a parent that is not in the past", dag.ErrInvalid, func(_ *dag.Batch, cs []*dag.Change) {
			cs[0].Object, cs[0].Parents = asides[0], []dag.ID{asides[0]}
		}},
		{"a parent in the batch itself", dag.ErrInvalid, func(b *dag.Batch, cs []*dag.Change) {
			cs[0].Clock, cs[0].Device, cs[0].Object, cs[0].Parents = b.Clock, b.Device, dag.ID{}, nil
			cs[1].Object, cs[1].Parents = cs[0].ID(), []dag.ID{cs[0].ID()}
		}},
	}
	// Two changes, so that cases can use both.
	changes = append(changes, &dag.Change{Object: ids[1], Parents: []dag.ID{ids[1]}, Payload: []byte("more")})
	for _, c := range cases {
		to := newGraph(t)
		send(t, from, to, first.ID())
		send(t, from, to, other.ID())
		send(t, lone, to, aside.ID())
		frame := forge(*second, changes, author(1), c.f)
		res, err := to.Ingest(frame)
		if !errors.Is(err, c.want) || (err == nil) != (res.Status == dag.Accepted) {
			t.Errorf("%s: %+v, %v", c.name, res, err)
		}
		if batches, _, _ := to.Counters(); (batches == 4) != (c.want == nil) {
			t.Errorf("%s: %d batches", c.name, batches)
		}
		must(t, to.Verify(nil))
	}
	to := newGraph(t)
	body := forge(*first, []*dag.Change{{Payload: []byte("x")}}, author(1), func(*dag.Batch, []*dag.Change) {})
	b, enc, err := dag.DecodeFrame(body)
	must(t, err)
	enc[0] = nil
	if _, err := to.Ingest(dag.EncodeFrame(b, enc)); !errors.Is(err, dag.ErrForgotten) {
		t.Errorf("a forgotten body: %v", err)
	}
}

// TestRefuseWaiting: what waited and proves to be invalid is refused when its past comes, with all that waits for it.
func TestRefuseWaiting(t *testing.T) {
	from := newGraph(t)
	first, ids := put(t, from, author(1), "root ", dag.ID{})
	second, _ := put(t, from, author(1), "second ", ids[0])
	_, bodies, err := from.Batch(second.ID())
	must(t, err)
	c, err := dag.DecodeChange(bodies[0])
	must(t, err)
	bad := forge(*second, []*dag.Change{c}, author(1), func(b *dag.Batch, cs []*dag.Change) { b.Clock++ })
	badBatch, _, err := dag.DecodeFrame(bad)
	must(t, err)
	after := forge(*second, nil, author(1), func(b *dag.Batch, _ []*dag.Change) {
		b.Prev, b.Seq, b.Clock = badBatch.ID(), 3, 4
	})
	to := newGraph(t)
	for _, f := range [][]byte{after, bad} {
		if res, err := to.Ingest(f); err != nil || res.Status != dag.Pending || len(res.Missing) != 1 {
			t.Fatal(res, err)
		}
	}
	if n, _ := to.Waiting(); n != 2 {
		t.Fatal(n)
	}
	res := send(t, from, to, first.ID())
	if len(res.Rejected) != 1 || res.Rejected[0].ID != badBatch.ID() || !errors.Is(res.Rejected[0].Err, dag.ErrInvalid) {
		t.Fatalf("%+v", res)
	}
	if n, bytes := to.Waiting(); n != 0 || bytes != 0 {
		t.Fatal(n, bytes)
	}
}

// TestPendingIsBounded: the oldest goes, and can come again.
func TestPendingIsBounded(t *testing.T) {
	from := newGraph(t)
	var frames [][]byte
	b, ids := put(t, from, author(1), "root ", dag.ID{})
	for i := range 200 {
		frame, err := from.Frame(b.ID())
		must(t, err)
		frames = append(frames, frame)
		b, _ = put(t, from, author(1), fmt.Sprint(i), ids[0])
	}
	to, err := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{PendingBytes: 20_000})
	must(t, err)
	for _, f := range slices.Backward(frames[1:]) {
		res, err := to.Ingest(bytes.Clone(f))
		must(t, err)
		if res.Status != dag.Pending {
			t.Fatal(res)
		}
		if n, bytes := to.Waiting(); bytes > 20_000 || n > 60 {
			t.Fatal(n, bytes)
		}
	}
	for _, f := range frames {
		_, err := to.Ingest(bytes.Clone(f))
		must(t, err)
	}
	if n, bytes := to.Waiting(); n != 0 || bytes != 0 {
		t.Fatal(n, bytes)
	}
	if got, want := payloads(t, to, ids[0]), payloads(t, from, ids[0]); !slices.Equal(got, want[:200]) {
		t.Fatal(len(got), len(want))
	}
}

// What waited for others and has no room when they are there is let go of, and can come again.
func TestWaitingThatDoesNotFit(t *testing.T) {
	from := newGraph(t)
	var frames [][]byte
	b, ids := put(t, from, author(1), "root ", dag.ID{})
	for i := range 10 {
		frame, err := from.Frame(b.ID())
		must(t, err)
		frames = append(frames, frame)
		b, _ = put(t, from, author(1), fmt.Sprint(i), ids[0])
	}
	room := 3
	to, err := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{Fits: func(bytes int) bool {
		room--
		return room >= 0 && bytes > 0
	}})
	must(t, err)
	var last dag.Result
	for _, f := range slices.Backward(frames) {
		last, err = to.Ingest(bytes.Clone(f))
		must(t, err)
	}
	if len(last.Released) != 3 || len(last.Rejected) != 1 || !errors.Is(last.Rejected[0].Err, dag.ErrQuota) {
		t.Fatal(last)
	}
	for _, f := range frames[:5] { // nothing waited for these
		_, err = to.Ingest(bytes.Clone(f))
		must(t, err)
	}
	if batches, _, _ := to.Counters(); batches != 5 {
		t.Errorf("it holds %d batches", batches)
	}
	room = 10
	_, err = to.Ingest(bytes.Clone(frames[5]))
	must(t, err)
	if batches, _, _ := to.Counters(); batches != 10 {
		t.Errorf("with room for all it holds %d batches", batches)
	}
}

// gate is an Authorizer that refuses, or lacks records.
type gate struct {
	accept error
	counts dag.Verdict
}

func (g *gate) Accept(*dag.Batch, []*dag.Change) error { return g.accept }
func (g *gate) Counts(*dag.Batch) dag.Verdict          { return g.counts }

func TestAuthorizer(t *testing.T) {
	from := newGraph(t)
	first, ids := put(t, from, author(1), "root ", dag.ID{})
	second, _ := put(t, from, author(1), "second ", ids[0])
	frame, err := from.Frame(first.ID())
	must(t, err)
	auth := &gate{counts: dag.Counts}
	to, err := dag.Open(space, store.NewMem(), auth, dag.Options{QuarantineBytes: len(frame) + 100})
	must(t, err)

	auth.accept = errors.New("a stranger")
	if _, err := to.Ingest(frame); !errors.Is(err, dag.ErrDenied) || !errors.Is(err, auth.accept) {
		t.Fatal(err)
	}
	b, err := to.Begin(author(1), nil, dag.ID{})
	must(t, err)
	_, err = b.Add(dag.ID{}, plain("x"))
	must(t, err)
	if _, err := b.Commit(); !errors.Is(err, dag.ErrDenied) {
		t.Fatal(err)
	}

	auth.accept = &dag.MissingError{ACL: []dag.ID{dag.Sum(nil)}}
	res, err := to.Ingest(frame)
	if err != nil || res.Status != dag.Pending || len(res.MissingACL) != 1 {
		t.Fatal(res, err)
	}
	auth.accept, auth.counts = nil, dag.Quarantine
	j, err := to.Rejudge(nil)
	if err != nil || len(j.Released) != 1 {
		t.Fatal(j, err)
	}
	if q, err := to.Quarantined(); err != nil || len(q) != 1 || len(to.Heads()) != 0 || len(to.Tips()) != 0 || len(to.ObjectHeads(ids[0])) != 0 {
		t.Fatal(q, err, to.Heads(), to.Tips())
	}
	frame, err = from.Frame(second.ID())
	must(t, err)
	if _, err := to.Ingest(frame); !errors.Is(err, dag.ErrQuota) {
		t.Fatal(err)
	}
	auth.counts = dag.Counts
	nobody := func(_, _ dag.PublicKey) bool { return false }
	if j, err = to.Rejudge(nobody); err != nil || len(j.Counted) != 1 {
		t.Fatal("what did not count is asked again, whoever is named:", j, err)
	}
	auth.counts = dag.Quarantine
	if j, err = to.Rejudge(nobody); err != nil || len(j.Quarantined) != 0 {
		t.Fatal("of whom all counts nothing is asked, where it is not named:", j, err)
	}
	if j, err = to.Rejudge(nil); err != nil || len(j.Quarantined) != 1 {
		t.Fatal(j, err)
	}
	auth.counts = dag.Counts
	var told []dag.ID
	cancel := to.Subscribe(func(b *dag.Batch) { told = append(told, b.ID()) })
	if j, err = to.Rejudge(func(account, _ dag.PublicKey) bool { return account == author(1).Account }); err != nil || len(j.Counted) != 1 {
		t.Fatal(j, err)
	}
	send(t, from, to, second.ID())
	if !slices.Equal(told, []dag.ID{first.ID(), second.ID()}) {
		t.Fatal(told)
	}
	cancel()
	put(t, to, author(2), "x", ids[0])
	if len(told) != 2 {
		t.Fatal(told)
	}
}

// TestTwiceLinked: a change that two branches link counts at the first that counts, whatever came when.
func TestTwiceLinked(t *testing.T) {
	a, b := newGraph(t), newGraph(t)
	first, ids := put(t, a, author(1), "root ", dag.ID{}, dag.ID{})
	send(t, a, b, first.ID())
	put(t, b, author(2), "elsewhere ", ids[1])
	x, same := put(t, a, author(1), "x", ids[0])
	y, again := put(t, b, author(1), "x", ids[0])
	if same[0] == again[0] || x.Clock == y.Clock {
		t.Fatal("the clocks should differ, and so the changes")
	}
	c := newGraph(t)
	send(t, a, c, first.ID())
	body, err := a.Change(same[0])
	must(t, err)
	frame := forge(*x, []*dag.Change{body.Change, {Payload: []byte("other root")}}, author(1), func(*dag.Batch, []*dag.Change) {})
	branch, _, err := dag.DecodeFrame(frame)
	must(t, err)
	child, _ := put(t, a, author(3), "child", ids[0]) // names x's change, in x's branch
	frames := map[dag.ID][]byte{branch.ID(): frame}
	for _, id := range []dag.ID{x.ID(), child.ID()} {
		frames[id], err = a.Frame(id)
		must(t, err)
	}
	want := ""
	for _, order := range [][]dag.ID{{x.ID(), branch.ID(), child.ID()}, {branch.ID(), x.ID(), child.ID()}, {x.ID(), child.ID(), branch.ID()}} {
		for _, hidden := range []dag.ID{{}, x.ID(), branch.ID()} {
			auth := &hide{hidden}
			g, err := dag.Open(space, store.NewMem(), auth, dag.Options{})
			must(t, err)
			send(t, a, g, first.ID())
			for _, id := range order {
				res, err := g.Ingest(frames[id])
				must(t, err)
				if res.Status != dag.Accepted {
					t.Fatal(res)
				}
			}
			must(t, g.Verify(nil))
			if got := g.ObjectHeads(ids[0]); len(got) != 1 || got[0] != child.Changes[0] {
				t.Errorf("order %v without %v: heads %v", order, hidden, got)
			}
			auth.id = dag.ID{}
			_, err = g.Rejudge(nil)
			must(t, err)
			must(t, g.Verify(nil))
			got := ""
			must(t, g.Changes(ids[0], func(e dag.Entry) error { got += fmt.Sprintln(e.ID, e.Pos); return nil }))
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("order %v:\n%s\nwant\n%s", order, got, want)
			}
		}
	}
}

// hide keeps one batch in quarantine.
type hide struct{ id dag.ID }

func (h *hide) Accept(*dag.Batch, []*dag.Change) error { return nil }
func (h *hide) Counts(b *dag.Batch) dag.Verdict {
	if b.ID() == h.id {
		return dag.Quarantine
	}
	return dag.Counts
}

// TestQuotaHoldsNobodyUp: who fills the quarantine cannot keep a replica from what a member wrote on top of a batch of his.
func TestQuotaHoldsNobodyUp(t *testing.T) {
	from := newGraph(t)
	first, ids := put(t, from, author(1), "root ", dag.ID{})
	second, _ := put(t, from, author(1), "second ", ids[0])
	third, _ := put(t, from, author(1), "third ", ids[0])
	member, _ := put(t, from, author(2), "on top ", ids[0])
	fourth, _ := put(t, from, author(1), "fourth ", ids[0])
	auth := &bans{after: map[dag.PublicKey]uint64{author(1).Device: 0}, ifNamed: map[dag.PublicKey]bool{author(1).Device: true}}
	to, err := dag.Open(space, store.NewMem(), auth, dag.Options{QuarantineBytes: 100})
	must(t, err)
	refuse := func(id dag.ID) {
		t.Helper()
		frame, err := from.Frame(id)
		must(t, err)
		if _, err := to.Ingest(frame); !errors.Is(err, dag.ErrQuota) {
			t.Fatal(err)
		}
	}
	refuse(first.ID())
	todo := []dag.ID{member.ID()} // asked for from the top down, as a peer does
	for len(todo) > 0 {
		todo = append(todo, send(t, from, to, todo[0]).Missing...)[1:]
	}
	if heads := to.Heads(); len(heads) != 1 || heads[0] != member.ID() {
		t.Fatal(heads)
	}
	for _, id := range []dag.ID{first.ID(), second.ID(), third.ID()} {
		if has, err := to.Has(id); !has || err != nil {
			t.Fatal(id, err)
		}
	}
	refuse(fourth.ID())
}

// TestPendingMemory: what waits takes the memory that it is said to take, also where each batch names 128 others.
func TestPendingMemory(t *testing.T) {
	const limit = 4 << 20
	to, err := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{PendingBytes: limit})
	must(t, err)
	before, a := heapInUse(), author(1)
	for i := range 1500 {
		b := &dag.Batch{Version: 1, Space: space, Account: a.Account, Device: a.Device, Seq: 1, Clock: 2}
		for k := range 64 {
			b.Deps = append(b.Deps, dag.Sum(fmt.Appendf(nil, "%d %d", i, k)))
		}
		slices.SortFunc(b.Deps, dag.ID.Compare)
		b.ACL = b.Deps
		signBatch(b, a)
		res, err := to.Ingest(dag.EncodeFrame(b, nil))
		must(t, err)
		if res.Status != dag.Pending || len(res.Missing) != 64 {
			t.Fatal(res)
		}
	}
	n, bytes := to.Waiting()
	got := heapInUse() - before
	runtime.KeepAlive(to)
	if bytes > limit || n < 100 || got > limit*5/4 {
		t.Errorf("%d batches that count for %d bytes take %d", n, bytes, got)
	}
}
