package exchange

import (
	"bytes"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// FuzzMeet: whatever nodes say of other devices and of where they see this one, what is remembered of it stays within its bounds, and is
// forgotten with them.
func FuzzMeet(f *testing.F) {
	add := func(ms ...wire.Message) {
		var b []byte
		for _, m := range ms {
			b = wire.Append(b, m)
		}
		f.Add(b)
	}
	some := make(wire.List[dag.PublicKey], wire.MaxPresent)
	for i := range some {
		some[i] = dag.PublicKey(dag.Sum([]byte{byte(i)}))
	}
	add(&wire.Seen{Addr: "/ip4/11.77.0.2/udp/7327/quic-v1"}, &wire.Present{Devices: some}, &wire.Present{Devices: some[:1]}, &wire.Present{})
	add(&wire.Seen{Addr: "/ip4/127.0.0.1/tcp/1"}, &wire.Seen{Addr: "/p2p-circuit"}, &wire.Seen{Addr: "\x00"}, &wire.Meet{Slot: true, Tag: 7}, &wire.Lookup{Tag: 8})
	f.Fuzz(func(t *testing.T, p []byte) {
		e := &Engine{clock: systemClock{}, self: "self", dials: map[peer.ID]*dial{}, remotes: map[peer.ID]*remote{}}
		e.mapsOfMeeting()
		nodes := []peer.ID{"one", "two", "three"}
		in := wire.NewReader(bytes.NewReader(p))
		for i := 0; ; i++ {
			m, err := in.Read()
			if err != nil {
				break
			}
			switch m := m.(type) {
			case *wire.Seen:
				e.seenAs(nodes[i%3], m.Addr)
			case *wire.Present:
				e.reach(nodes[i%3], m.Devices)
			}
		}
		if len(e.dials) > maxFound || len(e.seen) > maxSeenAt {
			t.Errorf("%d devices, %d addresses", len(e.dials), len(e.seen))
		}
		for _, n := range nodes {
			e.unreach(n)
		}
		for _, d := range e.dials {
			if len(d.via) > 0 {
				t.Errorf("a device through %v", d.via)
			}
		}
		if len(e.seen) > 0 {
			t.Error(e.seen)
		}
	})
}
