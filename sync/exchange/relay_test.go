package exchange_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/pair"
	"github.com/anyfs/anyfs/sync/wire"
)

// lists is a node that serves access lists alone, so that files and blocks go from device to device or not at all.
type lists struct {
	t       testing.TB
	e       *exchange.Engine
	stop    func()
	addr    string
	members map[dag.PublicKey]bool

	mu     sync.Mutex
	spaces map[dag.ID]*replica
}

func (n *lists) Space(_ context.Context, id dag.ID, account dag.PublicKey) *exchange.Replica {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.spaces[id]; r != nil && n.members[account] {
		return r.Replica
	}
	return nil
}

func (*lists) Take(context.Context, dag.ID, dag.PublicKey, [][]byte) *exchange.Replica { return nil }

// newLists starts a node with a space for the accounts of devices.
func newLists(t testing.TB, limits *exchange.RelayLimits, space string, members ...*device) *lists {
	n := &lists{t: t, members: map[dag.PublicKey]bool{}, spaces: map[dag.ID]*replica{}, addr: "/ip4/127.0.0.1/tcp/0"}
	for _, d := range members {
		n.members[d.author.Account] = true
	}
	r := newReplica(t, nil, space)
	r.Tags, r.NoFiles = nil, true
	r.Member = func(account, _ dag.PublicKey) bool { return n.members[account] }
	n.spaces[r.ID] = r
	n.start(limits)
	return n
}

func (n *lists) start(limits *exchange.RelayLimits) {
	e, err := exchange.New(exchange.Options{
		Key: key('n'), Serve: n, Listen: []string{n.addr}, Relay: limits, Config: func() []byte { return []byte("a configuration") },
		Log: slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", "node"),
	})
	must(n.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(ctx) })
	n.e, n.stop = e, sync.OnceFunc(func() { cancel(); wg.Wait() })
	n.t.Cleanup(n.stop)
	eventually(n.t, func() bool { return len(e.Status().Listen) > 0 })
	n.addr, _, _ = strings.Cut(e.Status().Listen[0], "/p2p/")
}

func (n *lists) use(ds ...*device) {
	for _, d := range ds {
		must(n.t, d.e.SetNodes([]exchange.Node{{
			Network: public(key('w')), Addrs: []string{n.addr + "/p2p/" + n.e.Status().ID},
			Wants: func(dag.ID) bool { return true }, Files: func(dag.ID) bool { return false },
		}}))
	}
}

// apart is a device that nobody can connect to.
func apart(t testing.TB, account, n byte) *device {
	d := newDevice(t, account, n)
	d.stop()
	d.listen = []string{}
	d.start(t)
	return d
}

// withPeer gives what a device says of another.
func (d *device) withPeer(other *device) *exchange.PeerStatus {
	for _, p := range d.e.Status().Peers {
		if p.Device == other.author.Device {
			return &p
		}
	}
	return nil
}

// Devices that nobody can connect to exchange through the relay of a node that holds nothing but the access list; more than one connection over it
// carries, and after the node was away.
func TestRelay(t *testing.T) {
	a, b := apart(t, 1, 1), apart(t, 2, 2)
	limits := &exchange.RelayLimits{Bytes: 2 << 20}
	n := newLists(t, limits, "one", a, b)
	ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
	for _, r := range []*replica{ra, rb} {
		for i := range 50 {
			r.write(t, r.Files, fmt.Append(nil, i))
		}
		r.d.e.Add(r.Replica)
	}
	began := time.Now()
	n.use(a, b)
	eventually(t, func() bool { return equal(ra, rb) })
	t.Logf("equal within %v", time.Since(began))
	for _, x := range [][2]*device{{a, b}, {b, a}} {
		if p := x[0].withPeer(x[1]); p == nil || !p.Relayed || p.LAN || p.Node || !strings.Contains(p.Addr, "/p2p-circuit") {
			t.Errorf("%+v", p)
		}
	}
	// 8 MiB in blocks of 512 KiB, where a connection carries 2 MiB.
	for i := range 16 {
		data := bytes.Repeat([]byte{byte(i)}, 512<<10)
		id, err := ra.Blocks.(*block.Store).Put(data)
		must(t, err)
		var got []byte
		eventually(t, func() bool {
			got, err = rb.Blocks.(*block.Store).Get(t.Context(), id)
			return err == nil
		})
		if !bytes.Equal(got, data) {
			t.Fatal("another block")
		}
	}
	if s := n.e.RelayStatus(); s.Bytes < 8<<20 || s.Passed < 4 || s.Slots != 2 {
		t.Errorf("%+v", s)
	}
	n.stop()
	ra.write(t, ra.Files, []byte("while the node is away"))
	eventually(t, func() bool { return a.withPeer(b) == nil && b.withPeer(a) == nil })
	n.start(limits)
	eventually(t, func() bool { return equal(ra, rb) })
	if a.withPeer(b) == nil {
		t.Error("it is not known through whom")
	}
	for _, d := range []*device{a, b} {
		if w := d.log.warnings.Load(); w > 0 {
			t.Errorf("%d warnings", w)
		}
	}
}

// What a relay passes on in a second has a bound, and all comes nevertheless.
func TestRelayRate(t *testing.T) {
	a, b := apart(t, 1, 1), apart(t, 2, 2)
	const rate = 1 << 20
	n := newLists(t, &exchange.RelayLimits{Rate: rate}, "one", a, b)
	ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
	a.e.Add(ra.Replica)
	b.e.Add(rb.Replica)
	n.use(a, b)
	eventually(t, func() bool { return a.withPeer(b) != nil })
	data := bytes.Repeat([]byte("x"), 3*rate)
	id, err := ra.Blocks.(*block.Store).Put(data)
	must(t, err)
	began, before := time.Now(), n.e.RelayStatus().Bytes
	eventually(t, func() bool {
		got, err := rb.Blocks.(*block.Store).Get(t.Context(), id)
		return err == nil && bytes.Equal(got, data)
	})
	passed, took := n.e.RelayStatus().Bytes-before, time.Since(began)
	if max := rate*took.Seconds() + rate/4; float64(passed) > max || passed < 3*rate {
		t.Errorf("%d bytes within %v", passed, took)
	}
}

// Of two devices that are connected through a relay and can connect directly, the direct connection takes the place of the other.
func TestRelayGivesWay(t *testing.T) {
	a, b := apart(t, 1, 1), apart(t, 2, 2)
	n := newLists(t, &exchange.RelayLimits{}, "one", a, b)
	ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
	a.e.Add(ra.Replica)
	b.e.Add(rb.Replica)
	n.use(a, b)
	eventually(t, func() bool { p := a.withPeer(b); return p != nil && p.Relayed })
	ra.write(t, ra.Files, []byte("over the relay"))
	eventually(t, func() bool { return equal(ra, rb) })
	// A third can be connected to, and nobody was told how: that goes over the relay.
	passed := n.e.RelayStatus().Passed
	c := newDevice(t, 1, 3)
	rc := newReplica(t, c, "one")
	c.e.Add(rc.Replica)
	n.use(c)
	eventually(t, func() bool { p := a.withPeer(c); return p != nil && !p.Relayed })
	eventually(t, func() bool { p := c.withPeer(b); return p != nil && !p.Relayed })
	if now := n.e.RelayStatus().Passed; now < passed+2 {
		t.Errorf("%d connections over the relay, then %d", passed, now)
	}
	if p := a.withPeer(b); p == nil || !p.Relayed {
		t.Errorf("%+v", p)
	}
	rc.write(t, rc.Files, []byte("directly"))
	eventually(t, func() bool { return equal(ra, rb, rc) })
	eventually(t, func() bool { return n.e.RelayStatus().Connections == 1 })
	// And the way back, when it cannot be connected to any more.
	c.stop()
	c.listen = []string{}
	c.start(t)
	c.e.Add(rc.Replica)
	n.use(c)
	rc.write(t, rc.Files, []byte("again over the relay"))
	eventually(t, func() bool { return equal(ra, rb, rc) })
	eventually(t, func() bool { p := a.withPeer(c); return p != nil && p.Relayed })
}

// relayClient is a libp2p host of no member, connected with a node.
func relayClient(t *testing.T, n *lists, k ed25519.PrivateKey) (host.Host, peer.ID) {
	priv, err := crypto.UnmarshalEd25519PrivateKey(k)
	must(t, err)
	h, err := libp2p.New(libp2p.Identity(priv), libp2p.NoListenAddrs, libp2p.EnableRelay())
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	a, err := peer.AddrInfoFromString(n.addr + "/p2p/" + n.e.Status().ID)
	must(t, err)
	must(t, h.Connect(t.Context(), *a))
	return h, a.ID
}

// Who is no member gets no slot, reaches nobody, and hears the same of a device that is there and of one that is not.
func TestRelayRefusesStrangers(t *testing.T) {
	a := apart(t, 1, 1)
	n := newLists(t, &exchange.RelayLimits{}, "one", a)
	ra := newReplica(t, a, "one")
	a.e.Add(ra.Replica)
	n.use(a)
	eventually(t, func() bool { return n.e.RelayStatus().Slots == 1 })

	h, node := relayClient(t, n, key('x'))
	var refused circuit.ReservationError
	if _, err := circuit.Reserve(t.Context(), h, peer.AddrInfo{ID: node}); !errors.As(err, &refused) || !strings.Contains(err.Error(), "PERMISSION_DENIED") {
		t.Errorf("a slot for a stranger: %v", err)
	}
	gone, err := peer.Decode("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
	must(t, err)
	me, err := peer.Decode(a.e.Status().ID)
	must(t, err)
	for _, to := range []peer.ID{me, gone} {
		via := ma.StringCast("/p2p/" + node.String() + "/p2p-circuit")
		ctx := network.WithAllowLimitedConn(t.Context(), "test")
		if err := h.Connect(ctx, peer.AddrInfo{ID: to, Addrs: []ma.Multiaddr{via}}); err == nil || !strings.Contains(err.Error(), "PERMISSION_DENIED") {
			t.Errorf("a connection to %s: %v", to, err)
		}
	}
	// A member of another space of the node is a stranger here.
	c := apart(t, 3, 3)
	other := newReplica(t, nil, "two")
	other.Tags, other.NoFiles = nil, true
	other.Member = func(account, _ dag.PublicKey) bool { return account == c.author.Account }
	n.mu.Lock()
	n.spaces[other.ID] = other
	n.members[c.author.Account] = true // the node's server asks that, and each space its own Member
	n.mu.Unlock()
	rc := newReplica(t, c, "two")
	c.e.Add(rc.Replica)
	n.use(c)
	eventually(t, func() bool { return n.e.RelayStatus().Slots == 2 })
	time.Sleep(3 * time.Second) // another list would have come
	if c.withPeer(a) != nil || a.withPeer(c) != nil || n.e.RelayStatus().Passed != 0 {
		t.Errorf("%+v, %+v", c.withPeer(a), n.e.RelayStatus())
	}
}

// Slots, connections at once and connections in a time have bounds.
func TestRelayLimits(t *testing.T) {
	a, b, c := apart(t, 1, 1), apart(t, 2, 2), apart(t, 3, 3)
	n := newLists(t, &exchange.RelayLimits{Slots: 2, All: 1, Burst: 2, Every: time.Hour}, "one", a, b, c)
	for _, d := range []*device{a, b, c} {
		d.e.Add(newReplica(t, d, "one").Replica)
		n.use(d)
		time.Sleep(200 * time.Millisecond)
	}
	eventually(t, func() bool { return n.e.RelayStatus().Passed > 0 })
	time.Sleep(8 * time.Second) // more attempts than are allowed
	if s := n.e.RelayStatus(); s.Slots > 2 || s.Connections > 1 || s.Passed > 6 {
		t.Errorf("%+v", s)
	}
}

// A stranger may look for a code, as often as its address is let, and then reaches who shows it, and nobody else; nobody shows one here but a.
func TestLookup(t *testing.T) {
	a, b := apart(t, 1, 1), apart(t, 1, 2)
	n := newLists(t, &exchange.RelayLimits{}, "one", a, b)
	for _, d := range []*device{a, b} {
		d.e.Add(newReplica(t, d, "one").Replica)
	}
	n.use(a, b)
	eventually(t, func() bool { return n.e.RelayStatus().Slots == 2 && a.withPeer(b) != nil })
	code, err := pair.NewCode(rand.Reader)
	must(t, err)
	offer := pair.NewOffer(code, time.Now)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = a.e.Offer(t.Context(), offer, func(dag.PublicKey, []byte) ([]byte, error) { return nil, errors.New("no") }, func(int) error { return nil })
	})
	defer wg.Wait()
	defer offer.Close()

	h, node := relayClient(t, n, key('x'))
	look := func(tag uint64) (*wire.Present, error) {
		s, err := h.NewStream(t.Context(), node, wire.ProtocolMeet)
		must(t, err)
		defer s.Reset()
		_, err = s.Write(wire.Append(nil, &wire.Lookup{Tag: tag}))
		must(t, err)
		r := wire.NewReader(s)
		r.Limit = wire.MaxBody
		m, err := r.Read()
		if err != nil {
			return nil, err
		}
		if _, ok := m.(*wire.Network); !ok {
			t.Errorf("%T", m)
		}
		if m, err = r.Read(); err != nil {
			return nil, err
		}
		return m.(*wire.Present), nil
	}
	reach := func(d *device) error {
		id, err := peer.Decode(d.e.Status().ID)
		must(t, err)
		via := ma.StringCast("/p2p/" + node.String() + "/p2p-circuit")
		return h.Connect(network.WithAllowLimitedConn(t.Context(), "test"), peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{via}})
	}
	if err := reach(a); err == nil {
		t.Fatal("it is reached before the code was looked for")
	}
	if p, err := look((code.Tag() + 1) % 1000); err != nil || len(p.Devices) > 0 {
		t.Errorf("another code: %+v, %v", p, err)
	}
	if err := reach(a); err == nil {
		t.Fatal("it is reached by another code")
	}
	var p *wire.Present
	eventually(t, func() bool {
		time.Sleep(200 * time.Millisecond)
		p, err = look(code.Tag())
		return err == nil && len(p.Devices) > 0
	})
	if len(p.Devices) != 1 || p.Devices[0] != a.author.Device {
		t.Errorf("%x", p.Devices)
	}
	if err := reach(b); err == nil {
		t.Error("one that shows no code is reached")
	}
	// What libp2p remembers of an address that failed it does not try again.
	h2, _ := relayClient(t, n, key('y'))
	h, p = h2, nil
	if p, err = look(code.Tag()); err != nil || len(p.Devices) != 1 {
		t.Fatal(p, err)
	}
	must(t, reach(a))
	refused := 0
	for range 24 {
		if _, err := look(1); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("an address asks without end")
	}
	offer.Close()
	wg.Wait()
	h3, _ := relayClient(t, n, key('z'))
	h = h3
	if err := reach(a); err == nil {
		t.Error("it is reached when no code is shown any more")
	}
}

// BenchmarkRelay fetches blocks of 1 MiB, eight at a time, directly and through a relay, each over the loopback interface.
func BenchmarkRelay(b *testing.B) {
	for _, through := range []bool{false, true} {
		b.Run(fmt.Sprintf("relay=%v", through), func(b *testing.B) {
			x, y := apart(b, 1, 1), apart(b, 2, 2)
			rx, ry := newReplica(b, x, "one"), newReplica(b, y, "one")
			if !through {
				x.stop()
				x.listen = []string{"/ip4/127.0.0.1/tcp/0"}
				x.start(b)
				must(b, y.e.AddPeer(x.addr("/tcp/")))
			} else {
				newLists(b, &exchange.RelayLimits{Bytes: 1 << 40}, "one", x, y).use(x, y)
			}
			x.e.Add(rx.Replica)
			y.e.Add(ry.Replica)
			eventually(b, func() bool { p := y.withPeer(x); return p != nil && p.Relayed == through })
			ids := make(chan block.ID, b.N)
			for i := range b.N {
				id, err := rx.Blocks.(*block.Store).Put(append(bytes.Repeat([]byte("x"), 1<<20-8), fmt.Sprintf("%8d", i)...))
				must(b, err)
				ids <- id
			}
			close(ids)
			b.SetBytes(1 << 20)
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for id := range ids {
						if _, err := ry.Blocks.(*block.Store).Get(b.Context(), id); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
