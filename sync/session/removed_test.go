package session_test

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
)

// Who is no member any more is sent nothing of the files from then on, though all that is new was sent to it before and some stands in the queue; a member again, it gets what it missed.
func TestEagerToWhoIsRemoved(t *testing.T) {
	writer, hub, reader := newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)
	all := []*replica{writer, hub, reader}
	reads := true
	l := &link{t: t, ends: [2]*replica{hub, reader}, frames: map[dag.ID]int{}, kinds: map[string]int{}}
	l.s[0] = hub.space.New(session.Peer{Name: "reader", Device: author(2).Device, Wake: func() {}, Reads: func() bool { return reads }, Eager: true})
	l.s[1] = reader.space.New(session.Peer{Name: "hub", Device: author(1).Device, Wake: func() {}})
	hub.unsaid, reader.unsaid = true, true
	up := connect(t, writer, hub)
	links := []*link{up, l}
	settle(t, all, links)
	writer.write(1)
	settle(t, all, links)
	same(t, all)

	for range 10 {
		writer.write(1)
	}
	settle(t, []*replica{writer, hub}, []*link{up}) // they stand in the queue for the reader
	reads = false
	before := len(l.frames)
	for range 10 {
		settle(t, all, links)
		writer.write(1)
	}
	writer.write(0)
	settle(t, all, links)
	if n := len(l.frames) - before; n != 1 { // that of the access list
		t.Errorf("%d batches were sent", n)
	}
	reads = true
	for end := range l.s {
		l.s[end].Tick()
	}
	settle(t, all, links)
	same(t, all)
}
