package session_test

import (
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// What a peer tells of in a burst is asked for in portions, and whoever is slow to answer is not held to be hostile, nor holds
// that who asks is.
func TestManyAreAskedFor(t *testing.T) {
	a, b, c := newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)
	l := connect(t, b, c)
	settle(t, []*replica{b, c}, []*link{l})
	const n = 4500
	for range n {
		a.write(1)
	}
	must(t, a.graphs[1].FramesSince(nil, func(_ dag.ID, frame []byte) error {
		_, err := b.graphs[1].Ingest(frame)
		return err
	}))
	b.step()
	most := 0
	for round := 0; ; round++ {
		// b says all that it has to say before it hears anything, then c.
		busy := false
		for end := range 2 {
			for i := 0; i < 64 && l.send(end); i++ {
				busy = true
			}
			asked := 0
			for _, m := range l.in[0] {
				if w, ok := m.(*wire.Want); ok {
					asked += len(w.IDs)
				}
			}
			most = max(most, asked)
			for l.receive(1 - end) {
				busy = true
			}
		}
		for _, r := range []*replica{b, c} {
			if r.events {
				r.step()
				busy = true
			}
			if r.unsaid {
				r.settle()
				busy = true
			}
		}
		if !busy {
			break
		}
	}
	same(t, []*replica{a, b, c})
	if most < 1024 || most > 2048 {
		t.Errorf("%d batches were asked for at once", most)
	}
	for id, n := range l.frames {
		if n > 1 {
			t.Errorf("%v was sent %d times", id, n)
		}
	}
}

// What comes before the batches that are asked for is sent once, in the order of the feed, and is no reason to end the session.
func TestManyBefore(t *testing.T) {
	a := newReplica(t, 0)
	for range 2500 {
		a.write(1)
	}
	a.settle()
	feed := a.order[1]
	s := a.space.New(session.Peer{Name: "behind", Wake: func() {}})
	defer s.Close()
	want := &wire.Want{Graph: wire.Files, Back: wire.MaxBack}
	for i := 2499; i > 0; i -= 250 {
		want.IDs = append(want.IDs, feed[i])
	}
	must(t, s.Receive(want))
	must(t, s.Receive(want))
	place := map[dag.ID]int{}
	sent := 0
	for {
		m, err := s.Next()
		must(t, err)
		if m == nil {
			break
		}
		f, ok := m.(*wire.Frames)
		if !ok {
			continue
		}
		for _, p := range f.Frames {
			batch, _, err := dag.DecodeFrame(p)
			must(t, err)
			sent++
			if place[batch.ID()] != 0 {
				t.Fatalf("batch %d was sent twice", batch.Seq)
			}
			place[batch.ID()] = sent
		}
	}
	if sent < 2000 || sent > 2500 {
		t.Errorf("%d batches were sent", sent)
	}
	for _, id := range want.IDs {
		if place[id] == 0 {
			t.Error("one that was asked for was not sent")
		}
	}
	// Who asks for more than any honest peer does is.
	stranger := dag.Sum([]byte("stranger"))
	err := error(nil)
	for i := 0; i < 20 && err == nil; i++ {
		m := &wire.Want{Graph: wire.Files}
		for j := range wire.MaxIDs {
			id := stranger
			id[0], id[1], id[2] = byte(i), byte(j), byte(j>>8)
			m.IDs = append(m.IDs, id)
		}
		err = s.Receive(m)
	}
	if !errors.Is(err, session.ErrPeer) {
		t.Errorf("20,480 batches are asked for: %v", err)
	}
}
