package session_test

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

var spaceID = dag.Sum([]byte("space"))

func author(n int) dag.Author {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	key := ed25519.NewKeyFromSeed(seed[:])
	return dag.Author{Key: key, Account: dag.PublicKey(dag.Sum(seed[:])), Device: dag.PublicKey(key.Public().(ed25519.PublicKey))}
}

// files lets everybody write who names access records that are held.
type files struct{ acl *dag.Graph }

func (f files) Accept(b *dag.Batch, _ []*dag.Change) error {
	var missing []dag.ID
	for _, id := range b.ACL {
		if held, err := f.acl.Has(id); err != nil || !held {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return &dag.MissingError{ACL: missing}
	}
	return nil
}
func (files) Counts(*dag.Batch) dag.Verdict { return dag.Counts }

// replica is one device of the test.
type replica struct {
	t       rapid.TB
	n       int
	graphs  [2]*dag.Graph
	space   *session.Space
	durable [2]map[dag.ID][]byte // what a crash leaves
	order   [2][]dag.ID          // in which it was taken in
	events  bool                 // Step has work
	unsaid  bool
	writes  int
	size    int // of what it writes, at least
	keys    int // drawn
	whole   int // tips that are sent whole; 0: the usual number
	life    int // which it is in: it does not write the same bytes in two
	node    func(dag.PublicKey) bool
	words   []*wire.Statement
	judge   func(files) dag.Authorizer // of files; nil: anyone's count
}

func newReplica(t rapid.TB, n int) *replica {
	return newReplicaWith(t, n, 0)
}

// newReplicaWith is one that sends so many tips whole.
func newReplicaWith(t rapid.TB, n, whole int) *replica {
	r := &replica{t: t, n: n, whole: whole}
	r.durable = [2]map[dag.ID][]byte{{}, {}}
	r.open()
	return r
}

// open opens the graphs with what was durable.
func (r *replica) open() {
	acl, err := dag.Open(spaceID, store.NewMem(), dag.Anyone{}, dag.Options{})
	must(r.t, err)
	var auth dag.Authorizer = files{acl}
	if r.judge != nil {
		auth = r.judge(files{acl})
	}
	fg, err := dag.Open(spaceID, store.NewMem(), auth, dag.Options{})
	must(r.t, err)
	r.graphs = [2]*dag.Graph{acl, fg}
	for kind, g := range r.graphs {
		for _, id := range r.order[kind] {
			if frame := r.durable[kind][id]; frame != nil {
				_, err := g.Ingest(frame)
				must(r.t, err)
			}
		}
		r.order[kind] = nil
		must(r.t, g.FramesSince(nil, func(id dag.ID, _ []byte) error { r.order[kind] = append(r.order[kind], id); return nil }))
		g.Subscribe(func(b *dag.Batch) { r.order[kind] = append(r.order[kind], b.ID()) })
	}
	r.space = session.NewSpace(session.Config{
		ID: spaceID, ACL: acl, Files: fg, Device: author(r.n).Device,
		Durable: r.makeDurable,
		Grown:   func() { _, err := fg.Rejudge(nil); must(r.t, err) },
		Wake:    func() { r.events = true },
		Whole:   r.whole,
		Node:    r.node,
		Words:   r.words,
		Sign:    func(text []byte) [64]byte { return [64]byte(ed25519.Sign(author(r.n).Key, text)) },
		NewKey:  func() wire.Key { r.keys++; return wire.Key{byte(r.n), byte(r.keys), byte(r.keys >> 8)} },
	})
	r.unsaid = true
}

func (r *replica) makeDurable() error {
	for kind, g := range r.graphs {
		for _, id := range r.order[kind] {
			if r.durable[kind][id] == nil {
				frame, err := g.Frame(id)
				if err != nil {
					return err
				}
				r.durable[kind][id] = frame
			}
		}
	}
	return nil
}

func (r *replica) write(kind int) { r.writeAs(kind, r.n) }

// writeAs writes what another device wrote, which is not told of here.
func (r *replica) writeAs(kind, n int) {
	var acl []dag.ID
	if kind == 1 {
		acl = r.graphs[0].Heads()
	}
	b, err := r.graphs[kind].Begin(author(n), acl, dag.ID{})
	must(r.t, err)
	r.writes++
	_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) {
		return append(fmt.Appendf(nil, "%d of %d, %d", r.writes, n, r.life), make([]byte, r.size)...), nil
	})
	must(r.t, err)
	_, err = b.Commit()
	must(r.t, err)
}

func (r *replica) step() {
	r.events = false
	unsettled, err := r.space.Step()
	must(r.t, err)
	r.unsaid = r.unsaid || unsettled
}

func (r *replica) settle() {
	r.unsaid = false
	must(r.t, r.space.Settle())
}

// link is a connection of two replicas: each end's session, and the bytes under way to it.
type link struct {
	t    rapid.TB
	ends [2]*replica
	s    [2]*session.Session
	in   [2][]wire.Message

	frames  map[dag.ID]int // sent over this connection
	bytes   int
	batches int            // bytes of frames among them
	kinds   map[string]int // messages, by type
	record  *[2][]byte     // what each end sent; nil: it is not kept
}

func connect(t rapid.TB, a, b *replica) *link { return join(t, a, b, false) }

// join connects two, of which the first sends the second what comes from others from the start where it is eager.
func join(t rapid.TB, a, b *replica, eager bool) *link {
	l := &link{t: t, ends: [2]*replica{a, b}, frames: map[dag.ID]int{}, kinds: map[string]int{}}
	for i, r := range l.ends {
		l.s[i] = r.space.New(session.Peer{Name: fmt.Sprint(l.ends[1-i].n), Device: author(l.ends[1-i].n).Device, Wake: func() {}, Eager: eager && i == 0})
		r.unsaid = true
	}
	return l
}

func (l *link) close() {
	for _, s := range l.s {
		s.Close()
	}
}

// send moves one message from an end onto the way.
func (l *link) send(end int) bool {
	m, err := l.s[end].Next()
	must(l.t, err)
	if m == nil {
		return false
	}
	r := l.ends[end]
	if f, ok := m.(*wire.Frames); ok {
		for _, p := range f.Frames {
			b, _, err := dag.DecodeFrame(p)
			must(l.t, err)
			l.frames[b.ID()]++
			l.batches += len(p)
			if b.Device == author(r.n).Device && r.durable[f.Graph][b.ID()] == nil {
				l.t.Fatalf("a batch of %d is sent before it is durable", r.n)
			}
		}
	}
	if h, ok := m.(*wire.Heads); ok {
		for _, id := range h.Heads {
			if r.durable[h.Graph][id] == nil {
				l.t.Fatalf("%d tells of a head that is not durable", r.n)
			}
		}
	}
	p := wire.Append(nil, m)
	l.bytes += len(p)
	if l.record != nil {
		l.record[end] = append(l.record[end], p...)
	}
	l.kinds[fmt.Sprintf("%T", m)]++
	m, err = wire.Decode(p[4:])
	must(l.t, err)
	l.in[1-end] = append(l.in[1-end], m)
	return true
}

// receive takes one message off the way.
func (l *link) receive(end int) bool {
	if len(l.in[end]) == 0 {
		return false
	}
	m := l.in[end][0]
	l.in[end] = l.in[end][1:]
	must(l.t, l.s[end].Receive(m))
	return true
}

// settle runs everything until nothing is left to do; it fails when that takes too long.
func settle(t rapid.TB, replicas []*replica, links []*link) {
	for round := 0; ; round++ {
		if round > 100_000 {
			t.Fatal("no end")
		}
		busy := false
		for _, r := range replicas {
			if r.events {
				r.step()
				busy = true
			}
			if r.unsaid {
				r.settle()
				busy = true
			}
		}
		for _, l := range links {
			for end := range 2 {
				busy = l.send(end) || busy
			}
		}
		for _, l := range links {
			for end := range 2 {
				busy = l.receive(end) || busy
			}
		}
		if !busy {
			return
		}
	}
}

func same(t rapid.TB, replicas []*replica) {
	t.Helper()
	for _, r := range replicas[1:] {
		for kind := range r.graphs {
			if a, b := replicas[0].graphs[kind].Heads(), r.graphs[kind].Heads(); !slices.Equal(a, b) {
				n, _, _ := replicas[0].graphs[kind].Counters()
				m, _, _ := r.graphs[kind].Counters()
				t.Fatalf("graph %d: %d has heads %v (%d batches), %d has %v (%d)", kind, replicas[0].n, a, n, r.n, b, m)
			}
			if n, bytes := r.graphs[kind].Waiting(); n > 0 {
				t.Fatalf("graph %d of %d: %d batches wait (%d bytes)", kind, r.n, n, bytes)
			}
		}
	}
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTwoEqualSpaces(t *testing.T) {
	a, b := newReplica(t, 0), newReplica(t, 1)
	for range 50 {
		a.write(0)
		a.write(1)
	}
	all := []*replica{a, b}
	l := connect(t, a, b)
	settle(t, all, []*link{l})
	same(t, all)
	l.close()
	l = connect(t, a, b)
	settle(t, all, []*link{l})
	// One message each way for each graph, and what each states.
	if l.bytes > 4*64+2*256 || len(l.frames) > 0 {
		t.Errorf("a check of two equal spaces takes %d bytes and %d frames", l.bytes, len(l.frames))
	}
	before := l.bytes
	a.write(1)
	settle(t, all, []*link{l})
	same(t, all)
	t.Logf("a check takes %d bytes, a live batch %d", before, l.bytes-before)
	for end := range 2 {
		for kind := range wire.Graphs {
			if st, ok := l.s[end].Status(kind); !ok || !st.Equal {
				t.Errorf("end %d, graph %v: %+v %v", end, kind, st, ok)
			}
		}
	}
}

// Three in a triangle: nobody gets a batch twice when all is up to date.
func TestNoDuplicates(t *testing.T) {
	all := []*replica{newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)}
	links := []*link{connect(t, all[0], all[1]), connect(t, all[1], all[2]), connect(t, all[0], all[2])}
	settle(t, all, links)
	for i := range 300 {
		all[i%3].write(1)
		if i%7 == 0 {
			settle(t, all, links)
		}
	}
	settle(t, all, links)
	same(t, all)
	sent := map[dag.ID]int{}
	for _, l := range links {
		for id, n := range l.frames {
			sent[id] += n
		}
	}
	total := 0
	for _, n := range sent {
		total += n
	}
	// Of two that tell each other of the same at the same time, both may be asked.
	if total > 2*300*102/100 {
		t.Errorf("%d frames were sent for 300 batches to two others each", total)
	}
	t.Logf("%d frames", total)
}

// Whatever is written, cut, crashed and joined again: in the end all hold the same.
func TestConvergence(t *testing.T) {
	faults := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(t, "replicas")
		var all []*replica
		for i := range n {
			// Some probe for each tip that they lack, as it is with many feeds.
			all = append(all, newReplicaWith(t, i, rapid.SampledFrom([]int{0, -1}).Draw(t, "whole")))
		}
		var links []*link
		linked := func(a, b *replica) int {
			return slices.IndexFunc(links, func(l *link) bool {
				return l.ends == [2]*replica{a, b} || l.ends == [2]*replica{b, a}
			})
		}
		cut := func(i int) {
			for end := range 2 {
				if len(links[i].in[end]) > 0 {
					faults["messages lost"] += len(links[i].in[end])
				}
			}
			links[i].close()
			links = slices.Delete(links, i, i+1)
		}
		steps := rapid.IntRange(10, 200).Draw(t, "steps")
		for range steps {
			r := all[rapid.IntRange(0, n-1).Draw(t, "replica")]
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0, 1:
				r.write(rapid.SampledFrom([]int{0, 1, 1, 1}).Draw(t, "graph"))
			case 2:
				o := all[rapid.IntRange(0, n-1).Draw(t, "other")]
				if i := linked(r, o); o == r {
				} else if i < 0 {
					links = append(links, connect(t, r, o))
				} else if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
					cut(i)
				}
			case 3:
				if rapid.IntRange(0, 5).Draw(t, "crash") > 0 {
					break
				}
				// What was not durable is lost, and so is every connection.
				for i := len(links) - 1; i >= 0; i-- {
					if links[i].ends[0] == r || links[i].ends[1] == r {
						cut(i)
					}
				}
				before, _, _ := r.graphs[1].Counters()
				r.space.Close()
				r.open()
				after, _, _ := r.graphs[1].Counters()
				faults["crashes"]++
				faults["batches lost in crashes"] += int(before - after)
				r.life = faults["crashes"] // it does not write the same bytes again
			case 4:
				r.step()
			case 5:
				r.settle()
			default:
				if len(links) == 0 {
					break
				}
				l := links[rapid.IntRange(0, len(links)-1).Draw(t, "link")]
				end := rapid.IntRange(0, 1).Draw(t, "end")
				if rapid.Bool().Draw(t, "send") {
					l.send(end)
				} else {
					l.receive(end)
				}
			}
		}
		// At last they are connected in a line, and no one is cut any more.
		for i := range n - 1 {
			if linked(all[i], all[i+1]) < 0 {
				links = append(links, connect(t, all[i], all[i+1]))
			}
		}
		settle(t, all, links)
		same(t, all)
		for _, l := range links {
			for end := range 2 {
				for kind := range wire.Graphs {
					if st, ok := l.s[end].Status(kind); !ok || st.ToSend+st.ToFetch > 0 && st.Equal {
						t.Fatalf("%+v %v", st, ok)
					}
				}
			}
		}
	})
	t.Log(faults)
	for _, f := range []string{"messages lost", "crashes", "batches lost in crashes"} {
		if faults[f] == 0 {
			t.Errorf("no %s", f)
		}
	}
}

// A device that was restored from a backup has written two branches of one feed.
func TestBranches(t *testing.T) {
	for _, shared := range []int{0, 1, 200} {
		a, b, backup := newReplica(t, 0), newReplica(t, 1), newReplica(t, 0)
		all := []*replica{a, b}
		for range shared {
			a.write(1)
		}
		l := connect(t, a, b)
		m := connect(t, a, backup)
		settle(t, []*replica{a, b, backup}, []*link{l, m})
		l.close()
		m.close()
		backup.life = 1
		for range 30 {
			a.write(1)
			backup.write(1)
		}
		for range 20 {
			backup.write(1)
		}
		l = connect(t, backup, b)
		settle(t, []*replica{backup, b}, []*link{l})
		same(t, []*replica{backup, b})
		l = connect(t, a, b)
		settle(t, all, []*link{l})
		same(t, all)
		total := 0
		for _, n := range l.frames {
			total += n
		}
		if total > 200 {
			t.Errorf("%d batches were sent for 80", total)
		}
	}
}

func TestHostile(t *testing.T) {
	a := newReplica(t, 0)
	a.write(1)
	stranger := newReplica(t, 9)
	for range 5 {
		stranger.write(1)
	}
	s := a.space.New(session.Peer{Name: "hostile", Wake: func() {}})
	defer s.Close()
	for range 2 {
		must(t, s.Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{[]byte("no frame")}}))
	}
	if err := s.Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{[]byte("no frame")}}); !errors.Is(err, session.ErrPeer) {
		t.Errorf("three batches that are none: %v", err)
	}
	for _, m := range []wire.Message{&wire.Hello{}, &wire.End{Graph: wire.Files}} {
		if err := s.Receive(m); !errors.Is(err, session.ErrPeer) {
			t.Errorf("%T: %v", m, err)
		}
	}
	// Batches without their past are kept up to a bound.
	must(t, stranger.graphs[1].FramesSince(nil, func(id dag.ID, frame []byte) error {
		if id != stranger.graphs[1].Heads()[0] {
			return nil
		}
		return s.Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{frame}})
	}))
	m, err := s.Next()
	must(t, err)
	if w, ok := m.(*wire.Want); !ok || len(w.IDs) != 1 {
		t.Errorf("%+v", m)
	}
}
