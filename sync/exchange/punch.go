package exchange

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"
)

// Two devices that are connected through a relay connect directly where they can: at the addresses that each has, or by sending at one moment
// from both sides, which opens the way through most routers (libp2p's DCUtR). The direct connection then takes the place of the other.

const (
	maxPunched  = 16               // addresses that are tried
	punchReady  = 10 * time.Second // for the handshake, before addresses are told
	directAgain = 15 * time.Second // before a direct connection is tried again; doubled each time, up to dialMax
)

// startPunching has the host try to connect directly to who is connected through a relay.
func (e *Engine) startPunching(h host.Host) (stop func(), err error) {
	ids, ok := h.(interface{ IDService() identify.IDService })
	if !ok || e.opt.Serve != nil {
		return func() {}, nil
	}
	s, err := holepunch.NewService(h, ids.IDService(), func() []ma.Multiaddr { return e.ownAddrs(h) }, holepunch.WithAddrFilter(proved{e}))
	if err != nil {
		return nil, fmt.Errorf("exchange: hole punching: %w", err)
	}
	e.mu.Lock()
	e.puncher = s
	e.mu.Unlock()
	return func() { _ = s.Close() }, nil
}

// proved has addresses told to, and taken from, those alone who have proved a space in common.
type proved struct{ e *Engine }

// FilterLocal waits for the handshake, which goes on at the same time.
func (p proved) FilterLocal(id peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	ctx, cancel := context.WithTimeout(context.Background(), punchReady)
	defer cancel()
	e := p.e
	ok := e.await(ctx, func() bool {
		r := e.remotes[id]
		return r != nil && r.ready() || e.ctx == nil
	})
	if !ok || !p.ready(id) {
		return nil
	}
	return addrs
}

// FilterRemote implements holepunch.AddrFilter.
func (p proved) FilterRemote(id peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	if !p.ready(id) {
		return nil
	}
	return addrs[:min(len(addrs), maxPunched)]
}

func (p proved) ready(id peer.ID) bool {
	p.e.mu.Lock()
	defer p.e.mu.Unlock()
	r := p.e.remotes[id]
	return r != nil && r.ready()
}

// direct tries again to connect directly to a device that is connected through a relay.
func (e *Engine) direct(ctx context.Context, h host.Host, d *dial, info peer.AddrInfo) {
	e.mu.Lock()
	d.directWait = min(max(2*d.directWait, directAgain), dialMax)
	d.directNext = e.clock.Now().Add(jitter(d.directWait))
	s := e.puncher
	e.mu.Unlock()
	h.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	dctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "instead of a relay"), dialTimeout)
	err := h.Connect(dctx, info)
	cancel()
	if err == nil || s == nil || ctx.Err() != nil {
		return
	}
	for _, c := range h.Network().ConnsToPeer(d.id) {
		if c.Stat().Direction == network.DirInbound && relayed(c.RemoteMultiaddr()) {
			if len(e.ownAddrs(h)) == 0 {
				return
			}
			// Where the service ends before it has had an address, this call never does: then it is left behind.
			done := make(chan error, 1)
			go func() { done <- s.DirectConnect(d.id) }()
			select {
			case err := <-done:
				if err != nil {
					e.log.Debug("no direct connection", "peer", d.id, "err", err)
				}
			case <-ctx.Done():
			}
			return
		}
	}
}

// closeRelayed ends the connections to a peer through relays.
func closeRelayed(h host.Host, id peer.ID) {
	for _, c := range h.Network().ConnsToPeer(id) {
		if relayed(c.RemoteMultiaddr()) {
			_ = c.Close()
		}
	}
}

// hasDirect reports whether there is a direct connection to a peer.
func hasDirect(h host.Host, id peer.ID) bool {
	for _, c := range h.Network().ConnsToPeer(id) {
		if !relayed(c.RemoteMultiaddr()) && !c.IsClosed() {
			return true
		}
	}
	return false
}
