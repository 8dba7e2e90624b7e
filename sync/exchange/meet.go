package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// Devices that share no local network find each other through the nodes of their spaces. A node tells a device which others, that a space is
// served to as to it, can be reached through the node, and where the node sees it. The device connects to them through the node's relay, and
// the two then try to connect directly (libp2p's DCUtR): their addresses go over their own connection, so the node is told none.

const (
	meetEvery  = 2 * time.Second // between two lists of devices that a node sends to one
	meetAgain  = 5 * time.Second // before a device asks a node again that does not speak of others; doubled each time
	meetMax    = 10 * time.Minute
	maxMeets   = 64               // that a device says in meetsIn, and lists that a node says
	meetsIn    = 30 * time.Second //
	reserveFor = 20 * time.Second // for an answer to who asks for a slot
	slotAgain  = time.Minute      // after a slot was refused
	maxSeenAt  = 8                // nodes whose word on the own address is kept
)

// mapsOfMeeting makes what is remembered of other devices.
func (e *Engine) mapsOfMeeting() {
	e.near, e.nearNodes = make(map[peer.ID]map[dag.ID]bool), make(map[peer.ID]*usedNode)
	e.seen, e.reachable = make(map[peer.ID]ma.Multiaddr), make(map[peer.ID]bool)
	e.lookups, e.allowances = make(map[peer.ID]foundCode), make(map[string]allowance)
}

// takeMeet is the node's side of what a device says of itself, and of a new device's question.
func (e *Engine) takeMeet(ctx context.Context, id peer.ID, t *stream) error {
	m, err := t.read(openTimeout)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.Lookup:
		return e.answerLookup(ctx, id, t, m.Tag)
	case *wire.Meet:
		wait, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		var r *remote
		ok := e.await(wait, func() bool {
			r = e.remotes[id]
			return r != nil && !r.mesh && r.ready()
		})
		if !ok {
			return errors.New("exchange: a device to which nothing is served")
		}
		return e.serveMeet(ctx, t, r, m)
	}
	return unexpected(m)
}

// serveMeet tells a device of the others for as long as the stream lasts. A newer one takes its place.
func (e *Engine) serveMeet(ctx context.Context, t *stream, r *remote, m *wire.Meet) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.ctx, func() { cancel(context.Cause(r.ctx)) })()
	defer t.closeOn(ctx)()
	if old := e.setMeet(r, t, m); old != nil && old != t {
		_ = old.Reset()
	}
	defer e.endMeet(r, t)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		cancel(func() error {
			said, since := 1, e.clock.Now()
			for {
				m, err := t.read(0)
				if err != nil {
					return err
				}
				x, ok := m.(*wire.Meet)
				if !ok {
					return unexpected(m)
				}
				if now := e.clock.Now(); now.Sub(since) > meetsIn {
					said, since = 0, now
				}
				if said++; said > maxMeets {
					return fmt.Errorf("%w: it says more than %d times what it shows", session.ErrPeer, maxMeets)
				}
				e.setMeet(r, t, x)
			}
		}())
	})
	if a := t.Conn().RemoteMultiaddr().String(); len(a) <= wire.MaxSeen {
		if err := t.write(&wire.Seen{Addr: a}); err != nil {
			return err
		}
	}
	var last wire.List[dag.PublicKey]
	for first := true; ; first = false {
		if now := e.presentTo(r); first || !slices.Equal(now, last) {
			last = now
			if err := t.write(&wire.Present{Devices: last}); err != nil {
				break
			}
		}
		select {
		case <-r.meets:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select { // what comes meanwhile goes into one message
		case <-e.clock.After(meetEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	cancel(nil)
	wg.Wait()
	return context.Cause(ctx)
}

// setMeet takes what a device says of itself, on a stream that takes the place of another.
func (e *Engine) setMeet(r *remote, t *stream, m *wire.Meet) (old *stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.remotes[r.id] != r {
		return nil
	}
	old, r.meeting = r.meeting, t
	r.slot, r.shows, r.tag = m.Slot, m.Tag != wire.NoTag, m.Tag
	e.wakeMeets(r)
	r.wakeMeet()
	return old
}

func (e *Engine) endMeet(r *remote, t *stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.meeting == t {
		r.meeting, r.slot, r.shows = nil, false, false
		e.wakeMeets(r)
	}
}

func (r *remote) wakeMeet() {
	select {
	case r.meets <- struct{}{}:
	default:
	}
}

// wakeMeets has it looked again what is told to those who share a space with r. Engine.mu is held.
func (e *Engine) wakeMeets(r *remote) {
	for id := range r.common {
		if sp := e.spaces[id]; sp != nil {
			for _, l := range sp.links {
				l.r.wakeMeet()
			}
		}
	}
}

// presentTo gives the devices that one is told of: first those of its account, then those whose keys are close to its own, which is the same
// choice each time and another one for each device.
func (e *Engine) presentTo(r *remote) wire.List[dag.PublicKey] {
	type both struct{ own, other *link }
	var all []both
	e.mu.Lock()
	for id := range r.common {
		sp := e.spaces[id]
		if sp == nil || sp.links[r.id] == nil || sp.links[r.id].r != r {
			continue
		}
		for pid, l := range sp.links {
			if l.r.slot && pid != r.id {
				all = append(all, both{sp.links[r.id], l})
			}
		}
	}
	e.mu.Unlock()
	distance := func(k dag.PublicKey) (d dag.PublicKey) {
		for i := range d {
			d[i] = k[i] ^ r.key[i]
		}
		return d
	}
	slices.SortFunc(all, func(a, b both) int {
		if x, y := a.other.r.account == r.account, b.other.r.account == r.account; x != y {
			if x {
				return -1
			}
			return 1
		}
		x, y := distance(a.other.r.key), distance(b.other.r.key)
		return bytes.Compare(x[:], y[:])
	})
	var out wire.List[dag.PublicKey]
	for _, x := range all {
		if n := len(out); n > 0 && out[n-1] == x.other.r.key || !x.own.member() || !x.other.member() {
			continue
		}
		if out = append(out, x.other.r.key); len(out) == wire.MaxPresent {
			break
		}
	}
	return out
}

// keepMeeting asks a node about other devices for as long as it is connected.
func (e *Engine) keepMeeting(ctx context.Context, r *remote) {
	if !e.await(ctx, r.ready) {
		return
	}
	for wait := meetAgain; ; wait = min(2*wait, meetMax) {
		began := e.clock.Now()
		err := e.meetAt(ctx, r)
		e.unreach(r.id)
		if ctx.Err() != nil {
			return
		}
		e.log.Debug("a node tells of no other devices", "peer", r.id, "err", err)
		if errors.Is(err, session.ErrPeer) {
			e.failed(r.id, "meet", err)
			return
		}
		if e.clock.Now().Sub(began) > meetMax {
			wait = meetAgain
		}
		select {
		case <-e.clock.After(jitter(wait)):
		case <-ctx.Done():
			return
		}
	}
}

// meetAt asks for a slot, and hears of other devices until the stream ends.
func (e *Engine) meetAt(ctx context.Context, r *remote) error {
	until, err := e.reserve(ctx, r.id)
	if err != nil {
		e.log.Debug("no slot at a node", "peer", r.id, "err", err)
	}
	t, err := e.open(ctx, r.id, protocolMeet)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer t.Reset()
	defer t.closeOn(ctx)()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { cancel(e.sayMeet(ctx, t, r.id, until)) })
	told, since := 0, e.clock.Now()
	for {
		m, err := t.read(0)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause
		}
		if err != nil {
			return err
		}
		if now := e.clock.Now(); now.Sub(since) > meetsIn {
			told, since = 0, now
		}
		if told++; told > maxMeets {
			return fmt.Errorf("%w: more than %d lists of devices", session.ErrPeer, maxMeets)
		}
		switch m := m.(type) {
		case *wire.Seen:
			e.seenAs(r.id, m.Addr)
		case *wire.Present:
			e.reach(r.id, m.Devices)
		default:
			return unexpected(m)
		}
	}
}

// sayMeet tells a node whether this device has a slot there, until zero time: it has none, and the code that it shows; and keeps the slot.
func (e *Engine) sayMeet(ctx context.Context, t *stream, node peer.ID, until time.Time) error {
	var said *wire.Meet
	for {
		now := e.clock.Now()
		wait := slotAgain
		if !until.IsZero() {
			wait = max(until.Sub(now)/2, time.Minute)
		}
		due := e.clock.After(wait)
		for again := false; !again; {
			e.mu.Lock()
			m := &wire.Meet{Slot: !until.IsZero(), Tag: wire.NoTag}
			if e.shown != nil {
				m.Tag = e.shown.Tag()
			}
			changed := e.changed
			e.mu.Unlock()
			if said == nil || *said != *m {
				if err := t.write(m); err != nil {
					return err
				}
				said = m
				e.mu.Lock()
				if e.reachable[node] = m.Slot; !m.Slot {
					delete(e.reachable, node)
				}
				e.mu.Unlock()
			}
			select {
			case <-changed:
			case <-due:
				again = true
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		u, err := e.reserve(ctx, node)
		if err != nil && (until.IsZero() || e.clock.Now().After(until)) {
			u = time.Time{}
		} else if err != nil {
			u = until
		}
		until = u
	}
}

// reserve asks a node for a slot, and returns until when it has it.
func (e *Engine) reserve(ctx context.Context, node peer.ID) (time.Time, error) {
	e.mu.Lock()
	h := e.host
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "a node that is connected"), reserveFor)
	defer cancel()
	s, err := circuit.Reserve(ctx, h, peer.AddrInfo{ID: node})
	if err != nil {
		return time.Time{}, err
	}
	// What counts is how long it is, by the clock of this device: that of the node may be wrong.
	return e.clock.Now().Add(min(time.Until(s.Expiration), slotTTL)), nil
}

// seenAs takes where a node sees this device.
func (e *Engine) seenAs(node peer.ID, addr string) {
	a, err := ma.NewMultiaddr(addr)
	if err != nil || relayed(a) {
		return
	}
	if ip, err := manet.ToIP(a); err != nil || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen[node] == nil && len(e.seen) >= maxSeenAt {
		return
	}
	e.seen[node] = a
}

// reach takes which devices can be reached through a node.
func (e *Engine) reach(node peer.ID, devices []dag.PublicKey) {
	now := make(map[peer.ID]bool, len(devices))
	for _, k := range devices {
		if id, err := peer.Decode(list.PeerID(k)); err == nil && id != e.self {
			now[id] = true
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, d := range e.dials {
		if d.via[node] && !now[id] {
			delete(d.via, node)
			d.kick()
		}
	}
	for id := range now {
		d := e.dials[id]
		if d == nil {
			if e.nodeLocked(id) != nil || e.found() >= maxFound {
				continue
			}
			d = e.newDial(id)
		}
		if !d.via[node] {
			if len(d.via) == 0 {
				d.told = e.clock.Now()
				d.via = make(map[peer.ID]bool)
			}
			d.via[node] = true
			d.wait, d.next = 0, time.Time{}
			d.kick()
		}
		if e.ctx != nil && !d.running {
			e.startDial(d)
		}
	}
}

// unreach takes that nothing can be reached through a node any more.
func (e *Engine) unreach(node peer.ID) {
	e.reach(node, nil)
	e.mu.Lock()
	delete(e.seen, node)
	delete(e.reachable, node)
	e.mu.Unlock()
}

// directPart is an address without its way through a relay: that of the relay then.
func directPart(addr string) string {
	node, _, _ := strings.Cut(addr, "/p2p-circuit")
	return node
}

// maxThrough is how many addresses of this device through relays are given away.
const maxThrough = 6

// Through gives addresses of this device through the nodes at which it can be reached: multiaddrs with /p2p/ID. Where a space is given, of nodes that
// have it.
func (e *Engine) Through(space *dag.ID) (out []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.reachable {
		n := e.nodes[id]
		if n == nil || space != nil && !n.Wants(*space) {
			continue
		}
		for i, a := range n.as.Load().Addrs {
			if i < 2 { // by TCP and by QUIC
				out = append(out, a+"/p2p-circuit/p2p/"+e.self.String())
			}
		}
	}
	slices.Sort(out)
	return out[:min(len(out), maxThrough)]
}

// through gives the addresses of a device through relays. Of two devices the one with the lower ID connects, the other only where nothing came.
// Engine.mu is held.
func (e *Engine) through(d *dial) (out []ma.Multiaddr) {
	if len(d.via) == 0 || e.self > d.id && e.clock.Now().Sub(d.told) < greetDelay || e.relayedPeers() >= maxRelayed || e.metPeers() >= maxMet {
		return nil
	}
	for node := range d.via {
		if a, err := ma.NewMultiaddr("/p2p/" + node.String() + "/p2p-circuit"); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// maxRelayed is how many devices this one speaks with through relays at once: what it has reaches the others of a large space over these.
const maxRelayed = 12

// maxMet is with how many that it met through nodes it speaks, through relays or directly, when it makes no more such connections.
const maxMet = 24

// metPeers counts them. Engine.mu is held.
func (e *Engine) metPeers() (n int) {
	for id, r := range e.remotes {
		if d := e.dials[id]; d != nil && len(d.via) > 0 && r.node == nil && !onLAN(r.addr) {
			n++
		}
	}
	return n
}

// relayedPeers counts them. Engine.mu is held.
func (e *Engine) relayedPeers() (n int) {
	for _, r := range e.remotes {
		if r.relayed {
			n++
		}
	}
	return n
}

// ownAddrs is where another device may try to reach this one: where nodes see it, and the addresses of its interfaces.
func (e *Engine) ownAddrs(h host.Host) (out []ma.Multiaddr) {
	e.mu.Lock()
	for _, a := range e.seen {
		out = append(out, a)
	}
	e.mu.Unlock()
	for _, a := range h.Addrs() {
		if ip, err := manet.ToIP(a); err == nil && !relayed(a) && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	out = ma.Unique(out)
	return out[:min(len(out), maxPunched)]
}
