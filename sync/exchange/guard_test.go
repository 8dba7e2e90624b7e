package exchange

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
)

// TestStreamsOfStrangers: a peer that has proved nothing has so many streams and no more, all of them together too, and what one gives back another can have. One that proved a
// space has its own bound, and takes no room from those that have not.
func TestStreamsOfStrangers(t *testing.T) {
	e := &Engine{remotes: map[peer.ID]*remote{}, guard: newGuard()}
	id := func(n int) peer.ID { return peer.ID(fmt.Sprint("peer ", n)) }
	take := func(n, most int) (got []*entry) {
		t.Helper()
		for len(got) < 4*maxKnownStreams {
			x := e.enterStream(id(n))
			if x == nil {
				break
			}
			got = append(got, x)
		}
		if len(got) != most {
			t.Errorf("peer %d has %d streams, want %d", n, len(got), most)
		}
		return got
	}
	first := take(0, maxStranger)
	for n := 1; n < maxStrangers/maxStranger; n++ {
		take(n, maxStranger)
	}
	take(1000, 0) // there is no room
	e.remotes[id(2000)] = &remote{proved: true, common: map[dag.ID]bool{{1}: true}}
	known := take(2000, maxKnownStreams) // for who is known there is
	for _, x := range known {
		e.leaveStream(x)
	}
	take(1000, 0)
	e.leaveStream(first[0])
	take(1000, 1)
	e.mu.Lock()
	e.guard.known(first[1]) // it proved a space: its stream is no stranger's
	e.mu.Unlock()
	take(1001, 1)
	for _, x := range first[1:] {
		e.leaveStream(x)
	}
	take(1002, maxStranger-2)
	if n := e.guard.streams[id(0)]; n != 0 {
		t.Errorf("%d streams are counted of who has none", n)
	}
}
