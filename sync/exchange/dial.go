package exchange

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	dialTimeout = 10 * time.Second
	dialMin     = time.Second
	dialMax     = 5 * time.Minute
	dialNodeMax = 20 * time.Second // of a node: it is there again soon
	uselessWait = 2 * time.Second  // before a peer without a space in common is dialled again; doubled each time
	forgetAfter = 10 * time.Minute // a peer that was found on the local network, and is seen no more
	maxFound    = 256              // peers found there
)

// dial is a peer that is kept connected.
type dial struct {
	id     peer.ID
	kicked chan struct{} // try now

	// Guarded by Engine.mu.
	addrs   []ma.Multiaddr
	static  bool
	seen    time.Time // where it was found
	running bool
	stop    context.CancelFunc
	wait    time.Duration // the last one between two attempts
	next    time.Time     // not before

	via        map[peer.ID]bool // nodes through which it can be reached
	told       time.Time        // when the first of them was
	directWait time.Duration    // as wait and next, while it is connected through a relay
	directNext time.Time
}

func (d *dial) kick() {
	select {
	case d.kicked <- struct{}{}:
	default:
	}
}

// jitter spreads a wait between three quarters and five quarters of it.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// AddPeer keeps this device connected to a peer, which its multiaddr with /p2p/ID names.
func (e *Engine) AddPeer(addr string) error {
	info, err := splitAddr(addr)
	if err != nil {
		return err
	}
	if info.ID != e.self {
		e.want(*info, true)
	}
	return nil
}

// RemovePeer ends that, and the connection. Peers that are found on the local network, or through a node, come back.
func (e *Engine) RemovePeer(addr string) error {
	info, err := splitAddr(addr)
	if err != nil {
		return err
	}
	e.mu.Lock()
	if d := e.dials[info.ID]; d != nil {
		d.stop()
		delete(e.dials, info.ID)
		if len(d.via) > 0 {
			n := e.newDial(info.ID)
			if n.via, n.told = d.via, d.told; e.ctx != nil {
				e.startDial(n)
			}
		}
	}
	e.mu.Unlock()
	e.closePeer(info.ID)
	return nil
}

// discovered keeps this device connected to a peer of the local network.
func (e *Engine) discovered(info peer.AddrInfo) { e.want(info, false) }

func (e *Engine) want(info peer.AddrInfo, static bool) {
	e.mu.Lock()
	d := e.dials[info.ID]
	if d == nil {
		if !static && e.found() >= maxFound {
			e.mu.Unlock()
			return
		}
		d = e.newDial(info.ID)
	}
	delete(e.missing, info.ID)
	d.static = d.static || static
	d.seen = e.clock.Now()
	news := false
	for _, a := range info.Addrs {
		if !slices.ContainsFunc(d.addrs, a.Equal) {
			d.addrs, news = append(d.addrs, a), true
		}
	}
	if n := len(d.addrs); n > 64 {
		d.addrs = slices.Clone(d.addrs[n-64:])
	}
	if e.ctx != nil && !d.running {
		e.startDial(d)
	}
	if news {
		d.wait, d.next = 0, time.Time{}
		d.kick()
	}
	e.mu.Unlock()
}

// newDial begins to know of a peer. Engine.mu is held.
func (e *Engine) newDial(id peer.ID) *dial {
	d := &dial{id: id, kicked: make(chan struct{}, 1), stop: func() {}, seen: e.clock.Now()}
	e.dials[id] = d
	return d
}

// found counts the peers that were found, on the local network or through nodes. Engine.mu is held.
func (e *Engine) found() (n int) {
	for _, d := range e.dials {
		if !d.static {
			n++
		}
	}
	return n
}

// startDial begins to keep a peer connected. Engine.mu is held.
func (e *Engine) startDial(d *dial) {
	ctx, stop := context.WithCancel(e.ctx)
	d.stop = stop
	d.running = e.startLocked(func(context.Context) {
		defer stop()
		e.keepConnected(ctx, d)
		e.mu.Lock()
		d.running = false
		if e.dials[d.id] == d && !d.static {
			delete(e.dials, d.id)
			if len(e.missing) < maxFound && len(d.addrs) > 0 {
				e.missing[d.id] = struct{}{}
			}
		}
		e.mu.Unlock()
	})
}

// useless notes that a peer shares nothing: it is dialled rarely, and at once when that may have changed.
func (e *Engine) useless(id peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.dials[id]; d != nil {
		e.postpone(d, uselessWait)
	}
}

// postpone doubles the wait before the next attempt; it is `least` at least. Engine.mu is held.
func (e *Engine) postpone(d *dial, least time.Duration) {
	most := dialMax
	if e.opt.Serve != nil || e.nodeLocked(d.id) != nil {
		most = dialNodeMax
	}
	d.wait = min(max(2*d.wait, least), most)
	d.next = e.clock.Now().Add(jitter(d.wait))
}

// dialNow has all peers dialled without waiting. Engine.mu is held.
func (e *Engine) dialNow() {
	for _, d := range e.dials {
		d.wait, d.next = 0, time.Time{}
		d.directWait, d.directNext = 0, time.Time{}
		d.kick()
	}
}

func (e *Engine) keepConnected(ctx context.Context, d *dial) {
	for {
		banned := errors.Is(e.refusal(d.id), errBanned)
		e.mu.Lock()
		h, paused, now := e.host, e.paused, e.clock.Now()
		info := peer.AddrInfo{ID: d.id, Addrs: slices.Clone(d.addrs)}
		if slices.ContainsFunc(info.Addrs, relayed) && e.relayedPeers() >= maxRelayed {
			info.Addrs = slices.DeleteFunc(info.Addrs, relayed)
		}
		gone := !d.static && len(d.via) == 0 && (now.Sub(d.seen) > forgetAfter || len(d.addrs) == 0)
		early, earlyDirect := d.next.Sub(now), d.directNext.Sub(now)
		via := e.through(d)
		wait := greetDelay - now.Sub(d.told) // for the other to connect
		idle := e.idleNode(d.id)
		last := idle && e.nodeLocked(d.id).as.Load().Last
		if r := e.remotes[d.id]; r != nil && r.ready() {
			d.wait = 0
		}
		e.mu.Unlock()
		var retry <-chan time.Time
		switch {
		case h.Network().Connectedness(d.id) == network.Connected:
			retry = e.clock.After(dialMax) // disconnected kicks
		case h.Network().Connectedness(d.id) == network.Limited && !paused:
			if earlyDirect <= 0 {
				e.direct(ctx, h, d, info)
				continue
			}
			retry = e.clock.After(earlyDirect)
		case gone:
			return
		case paused, banned:
			retry = e.clock.After(time.Minute)
		case idle:
			if retry = e.clock.After(dialMax); last { // what is wanted kicks
				retry = e.clock.After(lastAfter)
			}
		case early > 0:
			retry = e.clock.After(early)
		case len(via) == 0 && len(info.Addrs) == 0:
			if retry = e.clock.After(dialMax); wait > 0 {
				retry = e.clock.After(wait)
			}
		default:
			e.dial(ctx, h, d, info, via)
			continue
		}
		select {
		case <-d.kicked:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

// dial tries once, and says when to try again if that fails or the connection is lost at once. The relays via are tried with the addresses.
func (e *Engine) dial(ctx context.Context, h host.Host, d *dial, info peer.AddrInfo, via []ma.Multiaddr) {
	e.mu.Lock()
	e.postpone(d, dialMin)
	e.mu.Unlock()
	info.Addrs = append(info.Addrs, via...)
	h.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	// When to try again is said here: an address that has just failed is tried all the same when the network has changed.
	if s, ok := h.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(info.ID)
	}
	if !slices.ContainsFunc(info.Addrs, relayed) {
		ctx = network.WithForceDirectDial(ctx, "a device")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := h.Connect(ctx, info); err != nil {
		e.log.Debug("a peer cannot be reached", "peer", d.id, "err", err)
	}
}
