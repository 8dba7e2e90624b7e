package session_test

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// Who takes no more files of a peer neither pulls them nor takes those that are pushed, and that is no fault of the peer; the access list goes on. The next
// session, in which they are taken, brings all.
func TestTakesNoMore(t *testing.T) {
	a, b := newReplica(t, 0), newReplica(t, 1)
	for range 10 {
		a.write(0)
		a.write(1)
	}
	l := connect(t, a, b)
	l.s[1].Close()
	asked, refused := 0, 0
	l.s[1] = b.space.New(session.Peer{Name: "0", Device: author(0).Device, Wake: func() {}, Takes: func(bytes int) bool {
		if bytes > 0 {
			refused++
		}
		asked++
		return false
	}})
	settle(t, []*replica{a, b}, []*link{l})
	for range 20 { // pushed, as a does not know
		a.write(1)
		a.write(0)
		settle(t, []*replica{a, b}, []*link{l})
	}
	frame, err := a.graphs[1].Frame(a.graphs[1].Heads()[0])
	must(t, err)
	for range 20 {
		must(t, l.s[1].Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{frame}}))
	}
	if n, _, _ := b.graphs[1].Counters(); n != 0 {
		t.Errorf("it took %d batches of files", n)
	}
	if n, _, _ := b.graphs[0].Counters(); n != 30 {
		t.Errorf("it has %d access records", n)
	}
	if asked == 0 || refused == 0 {
		t.Errorf("asked %d times, refused %d: nothing was tried", asked, refused)
	}
	if st, ok := l.s[0].Status(wire.Files); !ok || st.Equal || st.ToSend == 0 {
		t.Errorf("the peer thinks that all is there: %+v, %v", st, ok)
	}
	l.close()
	l = connect(t, a, b)
	settle(t, []*replica{a, b}, []*link{l})
	same(t, []*replica{a, b})
	equalEnds(t, []*link{l})
}

// What is counted of files is what is kept of them: what was here already, and what nobody accepts, is given back. Else who sends the same again and again
// uses up a quota.
func TestTakesWhatIsKept(t *testing.T) {
	a, b := newReplica(t, 0), newReplica(t, 1)
	for range 10 {
		a.write(0)
		a.write(1)
	}
	counted := 0
	l := connect(t, a, b)
	l.s[1].Close()
	l.s[1] = b.space.New(session.Peer{Name: "0", Device: author(0).Device, Wake: func() {}, Takes: func(bytes int) bool {
		counted += bytes
		return true
	}})
	settle(t, []*replica{a, b}, []*link{l})
	kept := 0
	must(t, b.graphs[1].FramesSince(nil, func(_ dag.ID, frame []byte) error { kept += len(frame); return nil }))
	if kept == 0 || counted != kept {
		t.Errorf("%d bytes are counted and %d kept", counted, kept)
	}
	frame, err := a.graphs[1].Frame(a.graphs[1].Heads()[0])
	must(t, err)
	for range 20 {
		must(t, l.s[1].Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{frame, frame}}))
	}
	must(t, l.s[1].Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{[]byte("no batch"), frame}}))
	if counted != kept {
		t.Errorf("%d bytes are counted and %d kept, after what was here already came again", counted, kept)
	}
	l.s[1].Close()
	must(t, l.s[1].Receive(&wire.Frames{Graph: wire.Files, Frames: [][]byte{frame}}))
	if counted != kept {
		t.Errorf("%d bytes are counted and %d kept, after the end of the session", counted, kept)
	}
}
