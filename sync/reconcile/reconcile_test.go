package reconcile_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/reconcile"
	"github.com/anyfs/anyfs/sync/wire"
)

// run is what two sides found out, and what it cost.
type run struct {
	asker    *reconcile.Asker
	giver    *reconcile.Giver
	messages int // without the Asker's last, in which the rest goes
	bytes    int
}

// over sends a message as it goes over a stream.
func (r *run) over(t rapid.TB, m wire.Message) wire.Message {
	p := wire.Append(nil, m)
	r.messages++
	r.bytes += len(p)
	back, err := wire.Decode(p[4:])
	must(t, err)
	return back
}

func reconciled(t rapid.TB, key wire.Key, mine, theirs []dag.Tip) *run {
	r := &run{asker: reconcile.NewAsker(key, mine), giver: reconcile.NewGiver(key, theirs)}
	for !r.asker.Done() {
		a, err := r.giver.Probe(r.over(t, r.asker.Probe(wire.Files)).(*wire.Probe))
		must(t, err)
		must(t, r.asker.Answer(r.over(t, a).(*wire.Answer)))
		if r.messages > 40 {
			t.Fatal("no end")
		}
	}
	must(t, r.giver.Known(r.asker.Known()))
	return r
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tip(feed, batch uint64) dag.Tip {
	return dag.Tip{
		Feed:  dag.Sum(binary.BigEndian.AppendUint64([]byte("feed"), feed)),
		Batch: dag.Sum(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, feed), batch)),
		Seq:   batch,
	}
}

// check holds a run against the difference of the sets.
func check(t rapid.TB, r *run, mine, theirs []dag.Tip) {
	t.Helper()
	both := func(a, b []dag.Tip) (shared []dag.ID, only []dag.Tip) {
		in := make(map[dag.Tip]bool)
		for _, x := range b {
			in[x] = true
		}
		for _, x := range a {
			if in[x] {
				shared = append(shared, x.Batch)
			} else {
				only = append(only, x)
			}
		}
		return shared, only
	}
	same := func(what string, got, want []dag.ID) {
		slices.SortFunc(got, dag.ID.Compare)
		slices.SortFunc(want, dag.ID.Compare)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: %d tips, not %d", what, len(got), len(want))
		}
	}
	// The rest may hold more than the difference, where a range had too many tips to name; never less. So shared tips may be fewer.
	open := len(r.giver.Rest())+len(r.giver.Shared()) == len(theirs) && len(r.asker.Rest())+len(r.asker.Shared()) == len(mine)
	if !open {
		t.Fatal("tips are lost, or told twice")
	}
	shared, mineOnly := both(mine, theirs)
	_, theirsOnly := both(theirs, mine)
	if !crowded(mine, theirs) {
		same("shared, for the asker", r.asker.Shared(), shared)
		same("shared, for the giver", r.giver.Shared(), shared)
		return
	}
	for what, x := range map[string]struct{ told, only []dag.Tip }{"asker": {r.asker.Rest(), mineOnly}, "giver": {r.giver.Rest(), theirsOnly}} {
		for _, o := range x.only {
			if !slices.Contains(x.told, o) {
				t.Fatalf("%s: a tip that the other lacks is not told", what)
			}
		}
	}
}

// crowded says whether a feed has more tips than are named in one range.
func crowded(sets ...[]dag.Tip) bool {
	for _, s := range sets {
		n := make(map[dag.ID]int)
		for _, t := range s {
			if n[t.Feed]++; n[t.Feed] > wire.MaxNamed/2 {
				return true
			}
		}
	}
	return false
}

func TestDifference(t *testing.T) {
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		feeds := rapid.SampledFrom([]int{0, 1, 20, 300, 3000}).Draw(t, "feeds")
		rate := rapid.SampledFrom([]int{0, 1, 10, 100}).Draw(t, "differing, percent")
		branches := rapid.SampledFrom([]int{1, 1, 2, 40, 400}).Draw(t, "branches of the first feed")
		var mine, theirs []dag.Tip
		add := func(feed, branch uint64) {
			x := tip(feed, 1000+branch)
			if rnd.IntN(100) >= rate {
				mine, theirs = append(mine, x), append(theirs, x)
				return
			}
			switch rnd.IntN(4) {
			case 0:
				mine = append(mine, x)
			case 1:
				theirs = append(theirs, x)
			default:
				mine, theirs = append(mine, x), append(theirs, tip(feed, 5000+branch))
			}
		}
		for f := range uint64(feeds) {
			add(f, 0)
		}
		for b := 1; b < branches; b++ {
			add(0, uint64(b))
		}
		var key wire.Key
		binary.BigEndian.PutUint64(key[:], rnd.Uint64())
		r := reconciled(t, key, mine, theirs)
		check(t, r, mine, theirs)
		seen["messages"] = max(seen["messages"], r.messages)
		if len(mine) != len(theirs) || rate > 0 {
			seen["differing"]++
		}
	})
	t.Log(seen)
	if seen["differing"] == 0 {
		t.Error("no two sets that differ")
	}
}

// differing are two sets of feeds, in `apart` of which one side or the other is ahead.
func differing(feeds, apart int) (mine, theirs []dag.Tip) {
	for f := range uint64(feeds) {
		x := tip(f, 7)
		mine, theirs = append(mine, x), append(theirs, x)
	}
	for i := range apart {
		theirs[i*feeds/apart] = tip(uint64(i*feeds/apart), 8)
	}
	return mine, theirs
}

// What it costs to find 100 of 10,000, with the tips that are sent at the end: at most 40 KiB and three round trips, the third of
// which brings the batches.
func TestCost(t *testing.T) {
	for _, c := range []struct{ feeds, apart, messages, bytes int }{
		{300, 1, 4, 1500}, {10_000, 1, 4, 5 << 10}, {10_000, 100, 4, 40 << 10}, {100_000, 100, 8, 60 << 10},
	} {
		mine, theirs := differing(c.feeds, c.apart)
		worst := 0
		for n := range byte(5) {
			r := reconciled(t, wire.Key{n}, mine, theirs)
			check(t, r, mine, theirs)
			if r.messages > c.messages {
				t.Errorf("%d of %d: %d messages", c.apart, c.feeds, r.messages)
			}
			p := &wire.Pull{Key: make([]byte, 16), Known: r.asker.Known()}
			for _, x := range slices.Concat(r.asker.Rest(), r.giver.Rest()) { // both ways
				p.Tips = append(p.Tips, wire.Tip{Feed: x.Feed, Batch: x.Batch, Seq: x.Seq})
			}
			r.over(t, p)
			worst = max(worst, r.bytes)
		}
		t.Logf("%d of %d: %d bytes", c.apart, c.feeds, worst)
		if worst > c.bytes {
			t.Errorf("%d of %d: %d bytes", c.apart, c.feeds, worst)
		}
	}
}

func TestHostile(t *testing.T) {
	mine, theirs := differing(1000, 10)
	key := wire.Key{1}
	for name, m := range map[string]*wire.Probe{
		"no power of two": {Key: key, Sums: make(wire.List[wire.Sum], 65)},
		"few ranges":      {Key: key, Sums: make(wire.List[wire.Sum], 32)},
		"another key":     {Key: wire.Key{2}, Sums: make(wire.List[wire.Sum], 64)},
	} {
		if _, err := reconcile.NewGiver(key, theirs).Probe(m); !errors.Is(err, reconcile.ErrPeer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g := reconcile.NewGiver(key, theirs)
	if err := g.Known(nil); !errors.Is(err, reconcile.ErrPeer) {
		t.Errorf("what is known before anything was named: %v", err)
	}
	for name, change := range map[string]func(*wire.Answer){
		"too few ranges":  func(m *wire.Answer) { m.Ranges = m.Ranges[1:] },
		"too many ranges": func(m *wire.Answer) { m.Ranges = append(m.Ranges, 0) },
		"a tip too few":   func(m *wire.Answer) { m.IDs = m.IDs[1:] },
		"a tip too many":  func(m *wire.Answer) { m.IDs = append(m.IDs, wire.Short{}) },
		"another key":     func(m *wire.Answer) { m.Key[3]++ },
	} {
		a := reconcile.NewAsker(key, mine)
		m, err := reconcile.NewGiver(key, theirs).Probe(a.Probe(wire.Files))
		must(t, err)
		change(m)
		if err := a.Answer(m); !errors.Is(err, reconcile.ErrPeer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Whoever says of all that it is to be divided is stopped.
	a := reconcile.NewAsker(key, mine)
	for i := 0; ; i++ {
		m := a.Probe(wire.Files)
		if m == nil || i > 1000 {
			t.Fatal("it was not stopped")
		}
		answer := &wire.Answer{Key: key, Ranges: make([]byte, len(m.Sums))}
		for i := range answer.Ranges {
			answer.Ranges[i] = wire.RangeDivide
		}
		if err := a.Answer(answer); err != nil {
			break
		}
	}
	// Whoever names the same tip again and again gets what it does not have nonetheless.
	a = reconcile.NewAsker(key, mine)
	m := a.Probe(wire.Files)
	must(t, a.Answer(&wire.Answer{Key: key, Ranges: append(make([]byte, len(m.Sums)-1), wire.RangeNamed+9), IDs: make(wire.List[wire.Short], 9)}))
	if !a.Done() || len(a.Known()) != 2 || len(a.Rest()) == 0 {
		t.Errorf("%v", a.Known())
	}
}

// Two sets of tips that are equal but for which batches their feeds end in have no fingerprint in common under another key.
func TestKeys(t *testing.T) {
	mine, _ := differing(100, 1)
	one := reconcile.NewAsker(wire.Key{1}, mine).Probe(wire.Files)
	two := reconcile.NewAsker(wire.Key{2}, mine).Probe(wire.Files)
	for _, s := range one.Sums {
		if slices.Contains(two.Sums, s) {
			t.Error("a fingerprint does not depend on the key")
		}
	}
}

// FuzzMessages lets each side take whatever decodes, in any order.
func FuzzMessages(f *testing.F) {
	mine, theirs := differing(400, 50)
	a := reconcile.NewAsker(wire.Key{}, mine)
	p := a.Probe(wire.Files)
	answer, err := reconcile.NewGiver(wire.Key{}, theirs).Probe(p)
	must(f, err)
	f.Add(wire.Append(wire.Append(nil, p), answer))
	f.Add(wire.Append(nil, &wire.Answer{Ranges: []byte{1, 2, 3}}))
	f.Fuzz(func(t *testing.T, p []byte) {
		a := reconcile.NewAsker(wire.Key{}, mine)
		g := reconcile.NewGiver(wire.Key{}, theirs)
		a.Probe(wire.Files)
		for len(p) > 4 {
			n := min(int(binary.BigEndian.Uint16(p[2:4])), len(p)-4)
			m, err := wire.Decode(p[4 : 4+n])
			p = p[4+n:]
			if err != nil {
				continue
			}
			switch m := m.(type) {
			case *wire.Probe:
				_, err = g.Probe(m)
			case *wire.Answer:
				if err = a.Answer(m); err == nil {
					a.Probe(wire.Files)
				}
			case *wire.Pull:
				err = g.Known(m.Known)
			}
			if err != nil && !errors.Is(err, reconcile.ErrPeer) {
				t.Fatal(err)
			}
		}
		if n := len(a.Rest()) + len(a.Shared()); n != len(mine) {
			t.Errorf("%d tips", n)
		}
		if n := len(g.Rest()) + len(g.Shared()); n != len(theirs) {
			t.Errorf("%d tips", n)
		}
	})
}

func BenchmarkReconcile(b *testing.B) {
	for name, c := range map[string]struct{ feeds, apart int }{"100of10000": {10_000, 100}, "all of 10000": {10_000, 10_000}, "1of100000": {100_000, 1}} {
		b.Run(name, func(b *testing.B) {
			mine, theirs := differing(c.feeds, c.apart)
			var r *run
			for b.Loop() {
				r = reconciled(b, wire.Key{1}, mine, theirs)
			}
			b.ReportMetric(float64(r.bytes), "wire-bytes")
			b.ReportMetric(float64(r.messages), "messages")
		})
	}
}
