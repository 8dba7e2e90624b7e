package session_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// equalEnds fails unless both ends of each link know that the other holds what they do, without a tick.
func equalEnds(t *testing.T, links []*link) {
	t.Helper()
	for i, l := range links {
		for end := range 2 {
			for kind := range wire.Graphs {
				if st, ok := l.s[end].Status(kind); !ok || !st.Equal {
					t.Errorf("link %d, end %d, graph %v: %+v %v", i, end, kind, st, ok)
				}
			}
		}
	}
}

// A batch that came by way of another before its writer sent it is acknowledged to its writer all the same.
func TestAcknowledgedThoughItCameFromAnother(t *testing.T) {
	all := []*replica{newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)}
	links := []*link{connect(t, all[0], all[1]), connect(t, all[1], all[2]), connect(t, all[0], all[2])}
	settle(t, all, links)
	for range 3 {
		all[0].write(1)
		all[0].step()
		for links[2].send(0) { // on its way to the third
		}
		late := links[2].in[1]
		links[2].in[1] = nil
		settle(t, all, links[:2])
		links[2].in[1] = late
		for links[2].receive(1) {
		}
		settle(t, all, links)
		same(t, all)
		equalEnds(t, links)
	}
}

// A graph with more heads than are named is acknowledged as others are.
func TestAcknowledgedByDigest(t *testing.T) {
	a, b, c := newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)
	for i := range wire.MaxHeads + 8 {
		// Each on its own: none names another.
		x := newReplica(t, 100+i)
		x.write(0)
		must(t, x.graphs[0].FramesSince(nil, func(_ dag.ID, frame []byte) error {
			_, err := a.graphs[0].Ingest(frame)
			return err
		}))
	}
	all := []*replica{a, b, c}
	links := []*link{connect(t, a, b), connect(t, b, c)}
	settle(t, all, links)
	for i := range 3 {
		x := newReplica(t, 200+i)
		x.write(0)
		must(t, x.graphs[0].FramesSince(nil, func(_ dag.ID, frame []byte) error {
			_, err := a.graphs[0].Ingest(frame)
			return err
		}))
		settle(t, all, links)
	}
	same(t, all)
	equalEnds(t, links)
}

// Who keeps no files neither gets them nor tells of them, and takes none that are sent all the same.
func TestNoFiles(t *testing.T) {
	a, b := newReplica(t, 0), newReplica(t, 1)
	for range 20 {
		a.write(0)
		a.write(1)
	}
	b.space.Close()
	b.space = session.NewSpace(session.Config{ID: spaceID, ACL: b.graphs[0], Files: b.graphs[1], Device: author(1).Device, Durable: b.makeDurable, NoFiles: true, Wake: func() { b.events = true }})
	l := connect(t, a, b)
	settle(t, []*replica{a, b}, []*link{l})
	a.write(1)
	a.write(0)
	settle(t, []*replica{a, b}, []*link{l})
	if n, _, _ := b.graphs[0].Counters(); n != 21 {
		t.Errorf("it has %d access records", n)
	}
	if n, _, _ := b.graphs[1].Counters(); n != 0 {
		t.Errorf("it has %d batches of files", n)
	}
	if st, ok := l.s[0].Status(wire.ACL); !ok || !st.Equal {
		t.Errorf("the access list: %+v %v", st, ok)
	}
	if _, ok := l.s[0].Status(wire.Files); ok {
		t.Error("it tells of files")
	}
	frame, err := a.graphs[1].Frame(a.graphs[1].Heads()[0])
	must(t, err)
	if err := l.s[1].Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{frame}}); err == nil {
		t.Error("it takes files")
	}
}

// TestBothKnow: whatever the order of events, when nothing is left to do each end of each connection knows that the other holds what it does,
// without a tick.
func TestBothKnow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(rt, "replicas")
		var all []*replica
		for i := range n {
			all = append(all, newReplica(t, i))
		}
		var links []*link
		linked := map[[2]int]bool{}
		connects := func(i, j int) {
			if i > j {
				i, j = j, i
			}
			if i != j && !linked[[2]int{i, j}] {
				linked[[2]int{i, j}] = true
				links = append(links, connect(t, all[i], all[j]))
			}
		}
		for range rapid.IntRange(5, 120).Draw(rt, "steps") {
			r := all[rapid.IntRange(0, n-1).Draw(rt, "replica")]
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				for range rapid.SampledFrom([]int{1, 1, 2, 30}).Draw(rt, "writes") {
					r.write(rapid.IntRange(0, 1).Draw(rt, "graph"))
				}
			case 1:
				connects(rapid.IntRange(0, n-1).Draw(rt, "one"), rapid.IntRange(0, n-1).Draw(rt, "other"))
			case 2:
				if r.events {
					r.step()
				}
			case 3:
				if r.unsaid {
					r.settle()
				}
			default:
				if len(links) == 0 {
					continue
				}
				l := rapid.SampledFrom(links).Draw(rt, "link")
				end := rapid.IntRange(0, 1).Draw(rt, "end")
				if rapid.Bool().Draw(rt, "send") {
					l.send(end)
				} else {
					l.receive(end)
				}
			}
		}
		for i := 1; i < n; i++ {
			connects(i-1, i)
		}
		settle(t, all, links)
		same(t, all)
		for i, l := range links {
			for end := range 2 {
				for kind := range wire.Graphs {
					if st, ok := l.s[end].Status(kind); !ok || !st.Equal {
						rt.Fatalf("link %d, end %d, graph %v: %+v %v", i, end, kind, st, ok)
					}
				}
			}
		}
	})
}
