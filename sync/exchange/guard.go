package exchange

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Bounds of what peers can take that have proved nothing, so that they leave room for those that have.
const (
	helloWithin     = 20 * time.Second // for a whole handshake
	maxAddrHellos   = 16               // handshakes under way with one address
	maxStranger     = 64               // streams of a peer
	maxStrangers    = 1024             // streams of all of them
	maxKnownStreams = 1024             // streams of a peer that has proved a space
	maxTold         = 4096             // addresses in the memory of what was logged
)

var errHellos = errors.New("exchange: too many handshakes at once")

// connLimits bound the connections from one address, and how fast they come. A link that flaps each second stays below them, and so does
// a local network, whose devices share an IPv6 prefix.
func connLimits() []rcmgr.Option {
	return []rcmgr.Option{
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: 16}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 128, ConnCount: 16}, {PrefixLength: 64, ConnCount: 96}, {PrefixLength: 48, ConnCount: 128}},
		),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: []rate.PrefixLimit{
				{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
			},
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: rate.Limit{RPS: 4, Burst: 64}}},
				IPv6SubnetLimits: []rate.SubnetLimit{
					{PrefixLength: 128, Limit: rate.Limit{RPS: 4, Burst: 64}}, {PrefixLength: 64, Limit: rate.Limit{RPS: 16, Burst: 256}},
				},
				GracePeriod: time.Minute,
			},
		}),
	}
}

// addrKey is the address of a peer as it is counted: without the port, of IPv6 the first half.
func addrKey(a ma.Multiaddr) string {
	ip, err := manet.ToIP(a)
	if err != nil {
		return ""
	}
	n, ok := netip.AddrFromSlice(ip)
	if !ok {
		return ""
	}
	if n = n.Unmap(); n.Is6() && !n.IsLinkLocalUnicast() {
		p, _ := n.Prefix(64)
		return p.String()
	}
	return n.String()
}

// guard counts what peers take.
type guard struct {
	streams   map[peer.ID]int
	strangers int                  // streams of those that had proved nothing when they opened them
	hellos    int                  // handshakes under way
	guests    int                  // peers that proved an invitation and no space
	addrs     map[string]int       // of these, by address
	told      map[string]time.Time // addresses of strangers whose fault was logged
}

func newGuard() guard {
	return guard{streams: make(map[peer.ID]int), addrs: make(map[string]int), told: make(map[string]time.Time)}
}

// entry is a stream of a peer as it is counted. Engine.mu guards it.
type entry struct {
	id       peer.ID
	stranger bool
}

// enterStream takes a stream of a peer in, unless it has too many; nil then. leaveStream ends it.
func (e *Engine) enterStream(id peer.ID) *entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := &e.guard
	r := e.remotes[id]
	x := &entry{id, r == nil || !r.ready()}
	limit := maxKnownStreams
	if x.stranger {
		limit = maxStranger
	}
	if g.streams[id] >= limit || x.stranger && g.strangers >= maxStrangers {
		return nil
	}
	g.streams[id]++
	if x.stranger {
		g.strangers++
	}
	return x
}

func (e *Engine) leaveStream(x *entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := &e.guard
	if g.streams[x.id]--; g.streams[x.id] == 0 {
		delete(g.streams, x.id)
	}
	g.known(x)
}

// known takes a stream out of those of strangers: it lasts, and its peer has proved a space. Engine.mu is held.
func (g *guard) known(x *entry) {
	if x != nil && x.stranger {
		x.stranger = false
		g.strangers--
	}
}

// count takes r among the handshakes under way. Engine.mu is held.
func (e *Engine) count(r *remote) error {
	a := addrKey(r.addr)
	if e.guard.hellos >= maxHellos || e.guard.addrs[a] >= maxAddrHellos {
		return errHellos
	}
	e.guard.hellos++
	e.guard.addrs[a]++
	r.counted = true
	return nil
}

// uncount takes r out of the handshakes under way. Engine.mu is held.
func (e *Engine) uncount(r *remote) {
	if !r.counted {
		return
	}
	r.counted = false
	e.guard.hellos--
	a := addrKey(r.addr)
	if e.guard.addrs[a]--; e.guard.addrs[a] == 0 {
		delete(e.guard.addrs, a)
	}
}

// endUnproved ends a handshake that takes too long, however it is drawn out.
func (e *Engine) endUnproved(ctx context.Context, r *remote) {
	select {
	case <-e.clock.After(helloWithin):
		if e.unproved(r) {
			r.cancel()
		}
	case <-ctx.Done():
	}
}

// tells reports whether a fault of a peer is worth a line in the log: once for each ban; of strangers, who have as many IDs as they like, once
// for each address in that time. Engine.mu is held.
func (e *Engine) tells(id peer.ID, now time.Time) bool {
	if until, banned := e.banned[id]; banned && now.Before(until) {
		return false
	}
	r := e.remotes[id]
	if r != nil && r.ready() {
		return true
	}
	var a string
	if r != nil {
		a = addrKey(r.addr)
	} else if e.host != nil {
		for _, c := range e.host.Network().ConnsToPeer(id) {
			a = addrKey(c.RemoteMultiaddr())
		}
	}
	if at, ok := e.guard.told[a]; ok && now.Sub(at) < banTime {
		return false
	}
	if len(e.guard.told) >= maxTold {
		clear(e.guard.told)
	}
	e.guard.told[a] = now
	return true
}
