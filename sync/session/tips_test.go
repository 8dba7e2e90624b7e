package session_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// copyTo has another hold what a replica holds.
func (r *replica) copyTo(o *replica) {
	for kind, g := range r.graphs {
		var frames [][]byte
		must(r.t, g.FramesSince(nil, func(_ dag.ID, frame []byte) error { frames = append(frames, frame); return nil }))
		must(r.t, o.graphs[kind].IngestAll(frames, func(_ dag.Result, err error) error { return err }))
	}
	o.step()
	r.step()
}

// What is found, and what that costs beside the batches: 100 new ones in 10 feeds; 100 of 10,000 feeds, on one side or on both.
func TestFound(t *testing.T) {
	for _, c := range []struct{ feeds, new, back, most int }{{10, 100, 0, 2 << 10}, {10_000, 100, 0, 40 << 10}, {10_000, 50, 50, 40 << 10}} {
		t.Run(fmt.Sprintf("%d and %d in %d feeds", c.new, c.back, c.feeds), func(t *testing.T) {
			if testing.Short() && c.feeds > 1000 {
				t.Skip("10,000 feeds")
			}
			a, b := newReplica(t, 0), newReplica(t, 1)
			for n := range c.feeds {
				a.writeAs(1, 1000+n)
			}
			a.copyTo(b)
			for i := range c.new {
				a.writeAs(1, 1000+i*7%c.feeds)
			}
			for i := range c.back {
				b.writeAs(1, 1000+5000+i*7)
			}
			all := []*replica{a, b}
			l := connect(t, a, b)
			settle(t, all, []*link{l})
			same(t, all)
			for id, n := range l.frames {
				if n > 1 {
					t.Errorf("%v was sent %d times", id, n)
				}
			}
			if len(l.frames) != c.new+c.back {
				t.Errorf("%d batches were sent, not %d", len(l.frames), c.new+c.back)
			}
			beside := l.bytes - l.batches
			if beside > c.most {
				t.Errorf("%d bytes", beside)
			}
			rounds := max(1, l.kinds["*wire.Probe"]+1) // each probe with its answer, then the Pull with the frames
			if c.feeds <= 256 && l.kinds["*wire.Probe"] > 0 || rounds > 3+min(c.back, 1) {
				t.Errorf("%v", l.kinds)
			}
			t.Logf("%d bytes beside the batches, %v", beside, l.kinds)
		})
	}
}

// A peer that breaks the rules of probes, or asks without end, is left.
func TestHostileTips(t *testing.T) {
	a := newReplicaWith(t, 0, -1)
	for range 3 {
		a.write(1)
	}
	probe := func(key byte, n int) *wire.Probe {
		return &wire.Probe{Graph: wire.Files, Key: wire.Key{key}, Sums: make(wire.List[wire.Sum], n)}
	}
	key := wire.Key{1}
	for name, ms := range map[string][]wire.Message{
		"a probe too long":        {probe(1, 64), probe(1, 64)},
		"a first of one range":    {probe(1, 1)},
		"an answer to nothing":    {&wire.Answer{Graph: wire.Files, Ranges: []byte{0}}},
		"the end of no run":       {&wire.Pull{Graph: wire.Files, Key: key[:]}},
		"an end that knows more":  {probe(1, 64), &wire.Pull{Graph: wire.Files, Key: key[:], Known: []byte{0, 0, 0}}},
		"a key in the middle":     {&wire.Pull{Graph: wire.Files, More: true}, &wire.Pull{Graph: wire.Files, Key: key[:]}},
		"an end while it probes":  {&wire.Heads{Graph: wire.ACL}, &wire.Heads{Graph: wire.Files, Heads: wire.List[dag.ID]{{1}}}, &wire.End{Graph: wire.Files}},
		"a key that is not asked": {&wire.Heads{Graph: wire.ACL}, &wire.Heads{Graph: wire.Files, Heads: wire.List[dag.ID]{{1}}}, &wire.Answer{Graph: wire.Files, Key: key, Ranges: make([]byte, 64)}},
	} {
		s := a.space.New(session.Peer{Name: "hostile", Wake: func() {}})
		var err error
		for i, m := range ms {
			if err = s.Receive(m); err != nil && i < len(ms)-1 {
				t.Errorf("%s: message %d: %v", name, i, err)
			}
		}
		if !errors.Is(err, session.ErrPeer) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
	for name, next := range map[string]func(n int) wire.Message{
		"runs without end":  func(n int) wire.Message { return probe(byte(n), 64) },
		"pulls without end": func(n int) wire.Message { return &wire.Pull{Graph: wire.Files} },
		"a pull without end": func(n int) wire.Message {
			return &wire.Pull{Graph: wire.Files, More: true, Tips: make(wire.List[wire.Tip], wire.MaxTips)}
		},
	} {
		s := a.space.New(session.Peer{Name: "hostile", Wake: func() {}})
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			err = s.Receive(next(n))
		}
		if !errors.Is(err, session.ErrPeer) {
			t.Errorf("%s: %v after %d", name, err, n)
		}
		s.Close()
	}
}

// BenchmarkMillionObjects finds 100 new changes in a space of 1,000,000 objects and 10 feeds.
func BenchmarkMillionObjects(b *testing.B) {
	x, y := newReplica(b, 0), newReplica(b, 1)
	for n := range 1000 {
		bt, err := x.graphs[1].Begin(author(100+n%10), nil, dag.ID{})
		must(b, err)
		for i := range 1000 {
			_, err = bt.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return fmt.Appendf(nil, "%d %d", n, i), nil })
			must(b, err)
		}
		_, err = bt.Commit()
		must(b, err)
		must(b, x.graphs[1].FramesSince(y.graphs[1].Heads(), func(_ dag.ID, f []byte) error {
			_, err := y.graphs[1].Ingest(f)
			return err
		}))
	}
	if _, _, n := x.graphs[1].Counters(); n != 1_000_000 {
		b.Fatalf("%d objects", n)
	}
	x.step()
	y.step()
	for b.Loop() {
		b.StopTimer()
		for i := range 100 {
			x.writeAs(1, 100+i%10)
		}
		x.step()
		b.StartTimer()
		l := connect(b, x, y)
		settle(b, []*replica{x, y}, []*link{l})
		b.StopTimer()
		same(b, []*replica{x, y})
		l.close()
		b.ReportMetric(float64(l.bytes-l.batches), "bytes-beside")
		b.ReportMetric(float64(l.kinds["*wire.Pull"]), "round-trips")
		b.StartTimer()
	}
}
