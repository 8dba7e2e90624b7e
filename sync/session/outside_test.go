package session_test

import (
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// TestRecordsOfWhoIsNoMember: a peer that is no member, as one that was removed, brings of the access list what members wrote, and of itself and its like so much and no more, over
// however many sessions; after a while a little more.
func TestRecordsOfWhoIsNoMember(t *testing.T) {
	members, others, to := newReplica(t, 0), newReplica(t, 2), newReplica(t, 1)
	write := func(a dag.Author, bytes int) []byte {
		from := others
		if a.Account == author(1).Account {
			from = members
		}
		b, err := from.graphs[wire.ACL].Begin(a, nil, dag.ID{})
		must(t, err)
		_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return make([]byte, bytes), nil })
		must(t, err)
		done, err := b.Commit()
		must(t, err)
		frame, err := from.graphs[wire.ACL].Frame(done.ID())
		must(t, err)
		return frame
	}
	peer := func(reads bool) *session.Session {
		return to.space.New(session.Peer{
			Name: "0", Device: author(0).Device, Wake: func() {}, Reads: func() bool { return reads },
			Member: func(account, device dag.PublicKey) bool {
				return account == author(1).Account && device == author(1).Device
			},
		})
	}
	give := func(s *session.Session, frame []byte) error {
		return s.Receive(&wire.Frames{Graph: wire.ACL, Frames: [][]byte{frame}})
	}
	held := func() uint64 { n, _, _ := to.graphs[wire.ACL].Counters(); return n }

	s := peer(false)
	for range 20 { // a member wrote it
		must(t, give(s, write(author(1), 1<<19)))
	}
	late := write(author(1), 10) // a member's, which comes when there is room for no others
	taken, err := 0, error(nil)
	for i := 0; i < 40 && err == nil; i++ {
		if i%3 == 0 {
			s.Close()
			s = peer(false)
		}
		if err = give(s, write(author(2+i%2), 1<<19)); err == nil {
			taken++
		}
	}
	if !errors.Is(err, session.ErrPeer) || taken != 16 || held() != 20+16 {
		t.Fatalf("%d of who is no member were taken, %d are held: %v", taken, held(), err)
	}
	s.Close()
	s = peer(false)
	if err := give(s, write(author(2), 10)); !errors.Is(err, session.ErrPeer) {
		t.Error("a new session takes more:", err)
	}
	s.Close()
	s = peer(false)
	before := held()
	must(t, give(s, late))
	if held() != before+1 {
		t.Error("what members wrote is not taken any more")
	}
	s.Close()
	member := peer(true)
	must(t, give(member, write(author(2), 10))) // as it took it
	for range 8 {
		member.Tick()
	}
	member.Close()
	s = peer(false)
	must(t, give(s, write(author(2), 10)))
}
