package exchange

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

// A node passes on what two devices say to each other that cannot connect directly (libp2p's circuit relay, version 2). The connection that
// they make over it is theirs: it is secured from end to end, so the node learns who speaks with whom, when and how much, and nothing else.
// Who may is asked each time: a device holds a slot while a space is served to it, and is reached by those who share one with it, by who has an
// invitation to one, and by a new device that looks for the code which it shows.

// RelayLimits bound what a node passes on. A zero field is the default.
type RelayLimits struct {
	Slots     int           // devices that can be reached through it; 4,096
	SlotsAddr int           // of one IP address; 64
	Peer      int           // connections of one device at once; 16
	All       int           // connections at once; 1,024
	Time      time.Duration // that one lasts; 1 h
	Bytes     int64         // that one carries, each way; 256 MiB
	Burst     int           // connections that an account, or an address of who has none, may begin at once; 64
	Every     time.Duration // after which it may begin one more; 2 s
	Rate      int64         // bytes per second of all together, both ways; 0 is no bound
}

func (l RelayLimits) withDefaults() RelayLimits {
	or := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	or(&l.Slots, 4096)
	or(&l.SlotsAddr, 64)
	or(&l.Peer, 16)
	or(&l.All, 1024)
	or(&l.Burst, 64)
	if l.Time == 0 {
		l.Time = time.Hour
	}
	if l.Bytes == 0 {
		l.Bytes = 256 << 20
	}
	if l.Every == 0 {
		l.Every = 2 * time.Second
	}
	return l
}

const (
	slotTTL = time.Hour // a slot is asked for again before

	// slotStated is for how long a node says that a slot lasts: a device whose clock is ahead takes none that has ended by its clock. It ends with the
	// connection.
	slotStated   = 25 * time.Hour
	relayBuffer  = 16 << 10 // bytes in memory for each direction of a connection
	maxAllowance = 1 << 16  // accounts and addresses whose connections and questions are counted
	allowanceFor = 5 * time.Minute
)

// relayed reports whether an address leads through a relay.
func relayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// startRelay has the host pass on what devices say to each other.
func (e *Engine) startRelay(h host.Host) (stop func(), err error) {
	if e.opt.Serve == nil || e.opt.Relay == nil {
		return func() {}, nil
	}
	l := e.opt.Relay.withDefaults()
	e.passed.rate.quit = e.quit
	e.passed.rate.set(l.Rate)
	r, err := relay.New(h, relay.WithACL(gate{e, l}), relay.WithMetricsTracer(&e.passed), relay.WithResources(relay.Resources{
		Limit:          &relay.RelayLimit{Duration: l.Time, Data: l.Bytes},
		ReservationTTL: slotStated, MaxReservations: l.Slots, MaxCircuits: l.Peer, BufferSize: relayBuffer,
		MaxReservationsPerIP: l.SlotsAddr, MaxReservationsPerASN: l.Slots,
	}), relay.WithReservationAddressFilter(func(ma.Multiaddr) bool { return false })) // devices know where the node is
	if err != nil {
		return nil, fmt.Errorf("exchange: relay: %w", err)
	}
	return func() { _ = r.Close() }, nil
}

// gate says who may use the relay. What it refuses, it refuses alike: nobody learns whether a device is there.
type gate struct {
	e *Engine
	l RelayLimits
}

// AllowReserve lets a device be reached while a space is served to it, of which it is a member still. So it is one of an account that may use
// the network.
func (g gate) AllowReserve(id peer.ID, _ ma.Multiaddr) bool {
	e := g.e
	var served []*space
	e.mu.Lock()
	r := e.remotes[id]
	if r == nil || r.mesh || !r.ready() {
		e.mu.Unlock()
		return false
	}
	for space := range r.common {
		if sp := e.spaces[space]; sp != nil {
			served = append(served, sp)
		}
	}
	account := r.account
	e.mu.Unlock()
	return slices.ContainsFunc(served, func(sp *space) bool { return sp.r.Member == nil || sp.r.Member(account, r.key) })
}

// AllowConnect lets a device reach another.
func (g gate) AllowConnect(src peer.ID, addr ma.Multiaddr, dest peer.ID) bool {
	if g.e.passed.open.Load() >= int64(g.l.All) || !g.e.mayReach(src, dest) {
		return false
	}
	key := "at " + addrKey(addr)
	g.e.mu.Lock()
	if r := g.e.remotes[src]; r != nil && r.proved {
		key = "of " + string(r.account[:])
	}
	g.e.mu.Unlock()
	return g.e.allowance(key, g.l.Burst, g.l.Every)
}

// mayReach reports whether one device may connect to another through this node.
func (e *Engine) mayReach(src, dest peer.ID) bool {
	type both struct{ from, to *link } // from is nil for who proved an invitation
	var common []both
	e.mu.Lock()
	from, to := e.remotes[src], e.remotes[dest]
	if to == nil || !to.slot {
		e.mu.Unlock()
		return false
	}
	if found, ok := e.lookups[src]; ok && to.shows && to.tag == found.tag && e.clock.Now().Before(found.until) {
		e.mu.Unlock()
		return true
	}
	if from != nil && from.proved && !from.mesh {
		for id := range to.common {
			sp := e.spaces[id]
			if sp == nil {
				continue
			}
			a, b := sp.links[src], sp.links[dest]
			if _, guest := from.invited[id]; guest && b != nil && b.r == to {
				common = append(common, both{nil, b})
			}
			if a != nil && b != nil && a.r == from && b.r == to {
				common = append(common, both{a, b})
			}
		}
	}
	e.mu.Unlock()
	for _, x := range common {
		if (x.from == nil || x.from.member()) && x.to.member() {
			return true
		}
	}
	return false
}

// allowance is how often somebody may do something.
type allowance struct {
	left float64
	at   time.Time
}

// allowance reports whether who key stands for may do a thing once more: burst times at once, and once more after each time `every`.
func (e *Engine) allowance(key string, burst int, every time.Duration) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.clock.Now()
	a, ok := e.allowances[key]
	if !ok {
		a.left = float64(burst)
		if len(e.allowances) >= maxAllowance {
			for k, x := range e.allowances {
				if now.Sub(x.at) > allowanceFor { // it is as if it were not there
					delete(e.allowances, k)
				}
			}
			if len(e.allowances) >= maxAllowance {
				return false
			}
		}
	} else {
		a.left = min(float64(burst), a.left+float64(now.Sub(a.at))/float64(every))
	}
	if ok = a.left >= 1; ok {
		a.left--
	}
	a.at = now
	e.allowances[key] = a
	return ok
}

// passed counts what a node passes on.
type passed struct {
	rate                      bucket
	slots, open, all, refused atomic.Int64
	bytes                     atomic.Uint64
}

// RelayStatus is what a node passes on.
type RelayStatus struct {
	Slots       int64  // devices that can be reached through it
	Connections int64  // between two devices
	Passed      int64  // connections since the start
	Refused     int64  // of these that were asked for
	Bytes       uint64 // that went over them
}

// RelayStatus returns what this node passes on.
func (e *Engine) RelayStatus() RelayStatus {
	p := &e.passed
	return RelayStatus{p.slots.Load(), p.open.Load(), p.all.Load(), p.refused.Load(), p.bytes.Load()}
}

var _ relay.MetricsTracer = (*passed)(nil)

// RelayStatus implements relay.MetricsTracer, as all that follows.
func (*passed) RelayStatus(bool) {}

func (p *passed) ConnectionOpened() {
	p.open.Add(1)
	p.all.Add(1)
}

func (p *passed) ConnectionClosed(time.Duration) { p.open.Add(-1) }

func (p *passed) ConnectionRequestHandled(s pbv2.Status) {
	if s != pbv2.Status_OK {
		p.refused.Add(1)
	}
}

func (p *passed) ReservationAllowed(renewed bool) {
	if !renewed {
		p.slots.Add(1)
	}
}

func (p *passed) ReservationClosed(n int) { p.slots.Add(-int64(n)) }

func (*passed) ReservationRequestHandled(pbv2.Status) {}

// BytesTransferred is called between two pieces of a connection, which waits for it.
func (p *passed) BytesTransferred(n int) {
	p.bytes.Add(uint64(n))
	p.rate.take(n)
}

// foundCode is a code that a new device looked for.
type foundCode struct {
	tag   uint64
	until time.Time
}
