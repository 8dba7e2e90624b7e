package list

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// files is the graph of a space's files on each replica of a party.
func (p *party) files() map[string]*dag.Graph {
	out := map[string]*dag.Graph{}
	for name, l := range p.lists {
		g, err := dag.Open(p.space, store.NewMem(), l.Files(), dag.Options{})
		if err != nil {
			p.t.Fatal(err)
		}
		out[name] = g
	}
	return out
}

// publish has an actor write a batch of files on a graph, going by heads.
func (p *party) publish(name string, g *dag.Graph, heads []dag.ID, text string) (*dag.Batch, error) {
	b, err := g.Begin(p.who[name].author(), heads, p.space)
	if err != nil {
		return nil, err
	}
	if _, err := b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte(text), nil }); err != nil {
		b.Abort()
		return nil, err
	}
	return b.Commit()
}

func (p *party) relay(from, to *dag.Graph, b *dag.Batch) error {
	p.t.Helper()
	f, err := from.Frame(b.ID())
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = to.Ingest(f)
	return err
}

// state says whether a batch counts on a graph.
func inState(t *testing.T, g *dag.Graph, b *dag.Batch) bool {
	t.Helper()
	held, err := g.Quarantined()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range held {
		if id == b.ID() {
			return false
		}
	}
	has, err := g.Has(b.ID())
	if err != nil {
		t.Fatal(err)
	}
	return has
}

// TestBackdated: a removed writer goes on with its own copy of the list as it was, so that clock, heads and feed are right.
func TestBackdated(t *testing.T) {
	for _, late := range []bool{false, true} {
		p := newParty(t, "wri:writer", "bob:writer")
		g := p.files()
		old := p.lists["wri"].Heads()
		first, err := p.publish("wri", g["wri"], old, "honest")
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"owner", "bob"} {
			if err := p.relay(g["wri"], g[to], first); err != nil {
				t.Fatal(err)
			}
		}
		forged, err := p.publish("wri", g["wri"], old, "backdated")
		if err != nil {
			t.Fatal(err)
		}
		if late { // it comes before the removal does
			if err := p.relay(g["wri"], g["bob"], forged); err != nil {
				t.Fatal(err)
			}
			if !inState(t, g["bob"], forged) {
				t.Fatal("what was allowed does not count")
			}
		}
		p.must("owner", remove(p.who["wri"], next(p.space), first.ID()))
		p.send("owner", "bob")
		if _, err := g["bob"].Rejudge(nil); err != nil {
			t.Fatal(err)
		}
		if !late {
			if err := p.relay(g["wri"], g["bob"], forged); err != nil {
				t.Fatal(err)
			}
		}
		if inState(t, g["bob"], forged) || !inState(t, g["bob"], first) {
			t.Errorf("late %v: the forged batch counts: %v; the honest one: %v", late, inState(t, g["bob"], forged), inState(t, g["bob"], first))
		}
		// What another built on before it heard counts, and with it what it built on.
		if late {
			continue
		}
		q := newParty(t, "wri:writer", "bob:writer")
		h := q.files()
		old = q.lists["wri"].Heads()
		a, err := q.publish("wri", h["wri"], old, "unheard")
		if err != nil {
			t.Fatal(err)
		}
		if err := q.relay(h["wri"], h["bob"], a); err != nil {
			t.Fatal(err)
		}
		b, err := q.publish("bob", h["bob"], old, "on top")
		if err != nil {
			t.Fatal(err)
		}
		q.must("owner", remove(q.who["wri"], next(q.space)))
		if err := q.relay(h["wri"], h["owner"], a); err != nil {
			t.Fatal(err)
		}
		if inState(t, h["owner"], a) {
			t.Error("a batch that the removal does not name counts by itself")
		}
		if err := q.relay(h["bob"], h["owner"], b); err != nil {
			t.Fatal(err)
		}
		if !inState(t, h["owner"], a) || !inState(t, h["owner"], b) {
			t.Error("what a member built on before it heard does not count")
		}
	}
}

// TestRelayed: who passes a change on lends it nothing.
func TestRelayed(t *testing.T) {
	p := newParty(t, "rea:reader", "bob:writer")
	anyone, err := dag.Open(p.space, store.NewMem(), dag.Anyone{}, dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.publish("rea", anyone, p.lists["rea"].Heads(), "by a reader")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.relay(anyone, p.files()["bob"], b); !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
}

// TestSpliced: a record of one space is none of another, though its author is owner of both.
func TestSpliced(t *testing.T) {
	p, o := newParty(t, "wri:writer"), newActor(1, 1)
	other := o.randomRoot()
	other.Seed[0]++
	other.Sign(o.device)
	l := open(t, other.ID(), store.NewMem())
	if _, err := l.Append(o.author(), &Record{Kind: KindRoot, Must: true, Root: p.lists["owner"].root.Encode()}); !errors.Is(err, ErrDenied) {
		t.Error("the root of another space was taken:", err)
	}
	if _, err := l.Append(o.author(), &Record{Kind: KindRoot, Must: true, Root: other.Encode()}); err != nil {
		t.Fatal(err)
	}
	for _, f := range exported(t, p.lists["owner"]) {
		if _, err := l.Graph().Ingest(f); err == nil {
			t.Error("a record of another space was taken")
		}
	}
}

// TestForkedByOwner: the owner tells two members of different things; when they meet, both come to the same.
func TestForkedByOwner(t *testing.T) {
	p := newParty(t, "wri:writer", "bob:writer")
	p.must("owner", remove(p.who["wri"], next(p.space)))
	p.must("owner2", remove(p.who["bob"], next(p.space)))
	p.send("owner", "bob")
	p.send("owner2", "wri")
	p.sync()
	if p.role("wri") != RoleNone || p.role("bob") != RoleNone {
		t.Error(p.role("wri"), p.role("bob"))
	}
}

// TestForeignOwner: a root in the name of an account that did not sign it.
func TestForeignOwner(t *testing.T) {
	mallory, victim := newActor(9, 1), newActor(1, 1)
	root := mallory.randomRoot()
	root.Owner = victim.keys
	root.Sign(mallory.device)
	l := open(t, root.ID(), store.NewMem())
	if _, err := l.Append(mallory.author(), &Record{Kind: KindRoot, Must: true, Root: root.Encode()}); !errors.Is(err, ErrSignature) && !errors.Is(err, ErrDenied) {
		t.Error(err)
	}
	// With a certificate for mallory's device in the victim's name, which the victim did not sign.
	cert := root.Device
	cert.Account = public(victim.account)
	cert.Sign(mallory.account)
	root.Device = cert
	root.Sign(mallory.device)
	l = open(t, root.ID(), store.NewMem())
	author := mallory.author()
	author.Account = public(victim.account)
	if _, err := l.Append(author, &Record{Kind: KindRoot, Must: true, Root: root.Encode()}); !errors.Is(err, ErrSignature) {
		t.Error("with a forged certificate:", err)
	}
}

// TestAdopted: what an admin adopts counts, with what lies in its past, on each replica, whether the record or the batch came first; what
// a removed admin adopts beside its removal does not.
func TestAdopted(t *testing.T) {
	p := newParty(t, "wri:writer", "bob:writer", "adm:admin")
	g := p.files()
	old := p.lists["wri"].Heads()
	var all []*dag.Batch
	for _, text := range []string{"one", "two", "three"} {
		b, err := p.publish("wri", g["wri"], old, text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	if _, err := p.write("wri", adopt(all[0].ID())); !errors.Is(err, ErrDenied) {
		t.Error("a writer adopts:", err)
	}
	p.must("owner", remove(p.who["wri"], next(p.space)))
	p.send("owner", "adm")
	for _, b := range all {
		if err := p.relay(g["wri"], g["owner"], b); err != nil {
			t.Fatal(err)
		}
		if inState(t, g["owner"], b) {
			t.Error("a batch that the removal does not name counts")
		}
	}
	p.must("adm", adopt(all[1].ID()))
	p.sync()
	if _, err := g["owner"].Rejudge(nil); err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if err := p.relay(g["wri"], g["bob"], b); err != nil {
			t.Fatal(err)
		}
	}
	for i, b := range all {
		for _, on := range []string{"owner", "bob"} {
			if got := inState(t, g[on], b); got != (i < 2) {
				t.Errorf("%s: batch %d counts: %v", on, i, got)
			}
		}
	}

	p.must("owner", remove(p.who["adm"], next(p.space)))
	p.must("adm", adopt(all[2].ID()))
	p.sync()
	for _, on := range []string{"owner", "bob"} {
		if _, err := g[on].Rejudge(nil); err != nil {
			t.Fatal(err)
		}
		if inState(t, g[on], all[2]) || !inState(t, g[on], all[0]) {
			t.Error(on, "goes by what a removed admin adopted, or no more by what it adopted before")
		}
	}
}

// TestManyWritesOfTheRemoved: of a thousand batches (with ANYFS_LONG ten thousand) that a removed writer brings to others, signed before the removal and
// kept back, or later with clocks and heads of before, in feeds that go on and in new ones, by either of its devices, with the heads of now too, none
// counts: neither where it comes before the removal is heard of nor after. What was heard from it counts on.
func TestManyWritesOfTheRemoved(t *testing.T) {
	n := 1000
	if os.Getenv("ANYFS_LONG") != "" {
		n = 10_000
	}
	p := newParty(t, "wri:writer", "bob:writer", "late:writer")
	p.second("wri", "wri2")
	p.sync()
	g := p.files()
	old := p.lists["wri"].Heads()
	honest := map[dag.ID]bool{}
	for _, by := range []string{"wri", "bob", "wri2"} {
		b, err := p.publish(by, g[by], old, "honest")
		if err != nil {
			t.Fatal(err)
		}
		honest[b.ID()] = true
		for name, to := range g {
			if name != by {
				if err := p.relay(g[by], to, b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	tips := func(by string) (out []dag.ID) {
		for _, x := range g["owner"].Tips() {
			f, err := g["owner"].Frame(x.Batch)
			if err != nil {
				t.Fatal(err)
			}
			if b, _, err := dag.DecodeFrame(f); err == nil && b.Account == public(p.who[by].account) {
				out = append(out, x.Batch)
			}
		}
		slices.SortFunc(out, dag.ID.Compare)
		return out
	}
	var frames [][]byte
	kinds := map[string]int{}
	forge := func(kind, by string, at *dag.Graph, heads []dag.ID, many int) {
		for i := range many {
			b, err := p.publish(by, at, heads, fmt.Sprint(kind, i))
			if err != nil {
				t.Fatal(err)
			}
			f, err := at.Frame(b.ID())
			if err != nil {
				t.Fatal(err)
			}
			frames = append(frames, bytes.Clone(f))
			kinds[kind]++
		}
	}
	fresh := func() *dag.Graph {
		x, err := dag.Open(p.space, store.NewMem(), dag.Anyone{}, dag.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	forge("signed before", "wri", g["wri"], old, n/5)
	p.must("owner", remove(p.who["wri"], next(p.space), tips("wri")...))
	p.send("owner", "bob")
	forge("backdated", "wri", g["wri"], old, n/5)
	forge("by the other device", "wri2", g["wri2"], old, n/5)
	for range n / 50 {
		forge("in a new feed", "wri", fresh(), old, 10)
	}
	forge("with the heads of now", "wri", fresh(), p.lists["owner"].Heads(), n/5)

	// One hears of the removal last, and took what came before.
	for name, to := range map[string]*dag.Graph{"bob": g["bob"], "owner": g["owner"], "late": g["late"]} {
		for _, f := range frames {
			_, err := to.Ingest(f)
			if err != nil && !errors.Is(err, dag.ErrDenied) && !errors.Is(err, dag.ErrQuota) {
				t.Fatal(name, err)
			}
		}
	}
	if held, err := g["late"].Quarantined(); err != nil || len(held) > 0 {
		t.Fatal("what was not heard of holds something back:", len(held), err)
	}
	p.send("owner", "late")
	for _, name := range []string{"bob", "owner", "late"} {
		if _, err := g[name].Rejudge(nil); err != nil {
			t.Fatal(err)
		}
		counted := 0
		if err := g[name].Batches(func(b *dag.Batch, _ [][]byte) error {
			if counted++; !honest[b.ID()] {
				t.Fatalf("%s: a batch of who was removed counts", name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if counted != len(honest) {
			t.Errorf("%s: %d of %d that were heard of count", name, counted, len(honest))
		}
	}
	t.Logf("%d attempts: %v", len(frames), kinds)
	if len(frames) != n || len(kinds) != 5 {
		t.Errorf("%d attempts of %d kinds", len(frames), len(kinds))
	}
}
