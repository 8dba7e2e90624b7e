package exchange

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// A node has no keys, so that no tag could prove to it, or by it, that somebody is in a space. A device visits it: it says who it is, and
// which spaces it wants; the node serves those that it holds and of which the device's account is a member by their access lists. Of all
// others it says one and the same: what it does not hold, and what that account may not have. Once a space is common, all goes as between
// devices.

const (
	domainNode  = "anyfs/node/1\x00"
	maxVisited  = 65536           // spaces that a device may want of a node
	offerAgain  = 5 * time.Second // a space that the node did not take is offered again; doubled each time
	offerMax    = 5 * time.Minute
	offerWithin = 2 * time.Minute        // for the whole list to go over
	noAfter     = 300 * time.Millisecond // before a node says no: how long it looked tells nothing
	takeWithin  = 10 * time.Minute       // for a node: from a slow line
	maxConfigs  = 64                     // that a node tells in configsIn
	configsIn   = 30 * time.Second
	maxOffered  = 2 * maxAccess // bytes of the access lists that a node has in memory to judge
)

var errOffers = errors.New("exchange: too much is offered at once")

// ErrRefused says that a node does not take something: the account may not write there, or is beyond its quota.
var ErrRefused = errors.New("exchange: the node does not take it")

// ErrQuota says that a node does not take something since that would be beyond a quota. It is an ErrRefused.
var ErrQuota = fmt.Errorf("%w: it is beyond the quota", ErrRefused)

// denial says of a space that a node did not take when it is offered again.
type denial struct {
	wait  time.Duration
	until time.Time // zero: it is being offered
}

// Node is a node of a network, as a device uses it.
type Node struct {
	Network dag.PublicKey
	Addrs   []string                // multiaddrs with /p2p/ID, all of the same one
	Wants   func(space dag.ID) bool // whether it is to be told of a space; quick, called with locks held
	Files   func(space dag.ID) bool // whether it keeps content of a space, of those that it is told of; quick; nil: of each

	// Placed gives, of a space that the account owns and that its word put on the network, the counter of that word; else 0. Quick; nil: 0.
	Placed func(space dag.ID) uint64

	// Last: it is only reached for where no other node of the network is, for the configuration that it has.
	Last bool
}

// usedNode is a Node as it is now.
type usedNode struct {
	network dag.PublicKey
	near    bool // it is visited because an invitation named it: see Near
	as      atomic.Pointer[Node]
	since   time.Time
}

// Wants reports whether it is to be told of a space.
func (n *usedNode) Wants(space dag.ID) bool { return n.as.Load().Wants(space) }

// keeps reports whether it keeps content of a space.
func (n *usedNode) keeps(space dag.ID) bool {
	as := n.as.Load()
	return as.Wants(space) && (as.Files == nil || as.Files(space))
}

// Server is the spaces of a node. Both calls may take a while. They never say why not: a space that is not there and one that the account may
// not have are the same.
type Server interface {
	// Space gives a space that is here and that account is a member of; nil where there is none.
	Space(ctx context.Context, id dag.ID, account dag.PublicKey) *Replica
	// Take takes a space in by the frames of its access list, where that makes account a member and the node is to have it; else nil.
	Take(ctx context.Context, id dag.ID, account dag.PublicKey, frames [][]byte) *Replica
}

// Inviter is a Server that serves guests too.
type Inviter interface {
	// Invited gives a space that is here and whose access list has an invitation with that key which can be used, where account may use the
	// node; nil else. It may take a while, and never says why not.
	Invited(ctx context.Context, id dag.ID, account, device, key dag.PublicKey) *Replica
}

// SetNodes says which nodes this device uses, in the place of those before. It is connected to those that are to be told of a space of it. A
// node that was used before stays connected, unless it was told of a space that it is not to be told of any more.
func (e *Engine) SetNodes(nodes []Node) error {
	next := make(map[peer.ID]*Node, len(nodes))
	keys := make(map[dag.PublicKey]bool, len(nodes))
	var infos []peer.AddrInfo
	for _, n := range nodes {
		for _, a := range n.Addrs {
			info, err := splitAddr(a)
			if err != nil {
				return err
			}
			if info.ID == e.self {
				continue
			}
			if o := next[info.ID]; o == nil {
				next[info.ID] = &n
			} else if o.Network != n.Network {
				return fmt.Errorf("exchange: the node %s is in two networks", info.ID)
			}
			key, err := deviceOf(info.ID)
			if err != nil {
				return err
			}
			keys[key] = true
			infos = append(infos, *info)
		}
	}
	e.mu.Lock()
	e.keys.Store(&keys)
	before := e.nodes
	e.nodes = make(map[peer.ID]*usedNode, len(next))
	var gone []peer.ID
	for id, n := range next {
		u := before[id]
		if u == nil || u.network != n.Network {
			u = &usedNode{network: n.Network, since: e.clock.Now()}
			gone = append(gone, id) // it may be connected as something else
		}
		u.as.Store(n)
		e.nodes[id] = u
		if r := e.remotes[id]; r != nil && r.node == u {
			if e.toldTooMuch(r) {
				gone = append(gone, id) // there is no message that takes a space back: it is greeted anew
			}
			r.wakeTags()
		}
	}
	for id := range before {
		if next[id] == nil {
			gone = append(gone, id)
			if d := e.dials[id]; d != nil && e.nearNodes[id] == nil {
				d.stop()
				delete(e.dials, id)
			}
		}
	}
	e.full.keep(nodes)
	e.mu.Unlock()
	e.visitOthers(gone, infos)
	e.noteChange()
	return nil
}

// toldTooMuch reports whether a node was told of a space that it is not to be told of. Engine.mu is held.
func (e *Engine) toldTooMuch(r *remote) bool {
	for id := range r.said {
		if !r.node.Wants(id) {
			return true
		}
	}
	return false
}

// lastAfter is how long a node that is the last to be reached for waits for the others.
const lastAfter = 5 * time.Second

// idle reports whether nothing is wanted of a node now. Engine.mu is held.
func (e *Engine) idleNode(id peer.ID) bool {
	n := e.nodeLocked(id)
	if n == nil {
		return false
	}
	for space := range e.guests {
		if n.Wants(space) {
			return false
		}
	}
	for space := range e.spaces {
		if n.Wants(space) {
			return false
		}
	}
	for space := range e.sought {
		if n.Wants(space) {
			return false
		}
	}
	if !n.as.Load().Last {
		return true
	}
	for _, r := range e.remotes {
		if r.node != nil && r.node.network == n.network {
			return true
		}
	}
	return e.clock.Now().Sub(n.since) < lastAfter
}

// kickNodes has it looked again which nodes something is wanted of. Engine.mu is held.
func (e *Engine) kickNodes() {
	for _, d := range e.dials {
		if e.nodeLocked(d.id) != nil {
			d.kick()
		}
	}
}

// maxSought bounds the spaces that are not here and asked for.
const maxSought = 1024

// seek has the nodes reached that have a space which is not here.
func (e *Engine) seek(id dag.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.spaces[id] != nil || e.sought[id] || len(e.nodes) == 0 {
		return
	}
	if len(e.sought) >= maxSought {
		clear(e.sought)
	}
	e.sought[id] = true
	e.kickNodes()
}

func (e *Engine) nodeOf(id peer.ID) *usedNode {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.nodeLocked(id)
}

// visitNode is a device's side: it lasts as long as the node is connected.
func (e *Engine) visitNode(ctx context.Context, n *usedNode, id peer.ID) {
	e.mu.Lock()
	known := e.remotes[id] != nil
	e.mu.Unlock()
	if known {
		return
	}
	t, err := e.open(ctx, id, protocolNode)
	if err == nil {
		defer t.closeOn(ctx)()
		err = e.visitOn(ctx, n, id, t)
		_ = t.Reset()
	}
	e.failed(id, "node", err)
	e.closePeer(id)
}

func (e *Engine) visitOn(ctx context.Context, n *usedNode, id peer.ID, t *stream) error {
	key, err := deviceOf(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRemote(ctx, cancel, id, key, t)
	r.node = n
	if err := e.enter(ctx, r); err != nil {
		return err
	}
	defer e.exit(r)
	defer t.closeOn(ctx)()
	if err := e.greet(t, r); err != nil {
		return err
	}
	p := &wire.Proof{Certificate: e.opt.Certificate.Encode()}
	copy(p.Signature[:], ed25519.Sign(e.opt.Key, visitText(r.toThem, p.Certificate)))
	if err := t.write(p); err != nil {
		return err
	}
	e.mu.Lock()
	r.proved = true // the transport did, by the peer ID that the network's configuration names
	e.uncount(r)
	e.mu.Unlock()
	e.noteChange() // it may be asked for access lists
	t.in.Limit = wire.MaxBody
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := e.sendWants(ctx, t, r); err != nil && ctx.Err() == nil {
			e.log.Debug("a node is not told of spaces", "peer", id, "err", err)
			cancel()
		}
	})
	wg.Go(func() { e.keepMeeting(ctx, r) })
	told, since := 0, e.clock.Now()
	for {
		m, err := t.read(0)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Served:
			if !e.answered(r, m.IDs, true) {
				return fmt.Errorf("%w: it serves what was not asked for", session.ErrPeer)
			}
			e.meet(r)
		case *wire.Absent:
			// It neither has them nor says that it has: they are offered.
			ids := slices.Clone(m.IDs)
			if !e.answered(r, ids, false) {
				return fmt.Errorf("%w: it has not what was not asked for", session.ErrPeer)
			}
			wg.Go(func() { e.offer(ctx, t, r, ids) })
		case *wire.Content:
			e.hearContent(r, m)
		case *wire.Quota:
			e.hearQuota(r, m)
		case *wire.Place:
			e.placed(r, m)
		case *wire.Network:
			if now := e.clock.Now(); now.Sub(since) > configsIn {
				told, since = 0, now
			}
			if told++; told > maxConfigs {
				return fmt.Errorf("%w: more than %d configurations", session.ErrPeer, maxConfigs)
			}
			if e.opt.NewConfig != nil && !n.near {
				e.start(func(context.Context) {
					if err := e.opt.NewConfig(n.network, m.Config); err != nil {
						e.failed(id, "node", fmt.Errorf("%w: %w", session.ErrPeer, err))
					}
				})
			}
		default:
			return unexpected(m)
		}
	}
}

// Where a device and a node are about a space, as remote.said has it.
const (
	wanted    = 1 // an answer is due
	isOffered = 2 // it was absent; until it is wanted again
	isServed  = 3
)

// answered notes what a node says of spaces. It reports false where it was not asked: each answer costs work here.
func (e *Engine) answered(r *remote, ids []dag.ID, serves bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range ids {
		if r.said[id] != wanted {
			return false
		}
		r.said[id] = isOffered
		if serves {
			r.said[id], r.common[id] = isServed, true
		}
	}
	return true
}

// sendWants tells a node of the spaces that it is to have, and of others as they come.
func (e *Engine) sendWants(ctx context.Context, t *stream, r *remote) error {
	for {
		if ms := e.newGuests(r); len(ms) > 0 {
			if err := t.write(ms...); err != nil {
				return err
			}
		}
		var ids []dag.ID
		e.mu.Lock()
		now := e.clock.Now()
		for id := range e.spaces {
			if r.common[id] || !r.node.Wants(id) || len(r.said) >= maxVisited && r.said[id] == 0 {
				continue
			}
			no := r.denied[id]
			if r.said[id] == 0 || !no.until.IsZero() && !now.Before(no.until) {
				r.said[id] = wanted
				r.denied[id] = denial{wait: no.wait}
				ids = append(ids, id)
			}
		}
		e.mu.Unlock()
		slices.SortFunc(ids, dag.ID.Compare)
		if err := e.sendPlaces(t, r, ids); err != nil {
			return err
		}
		if err := t.writeSpaces(ids); err != nil {
			return err
		}
		select {
		case <-r.tags:
		case <-e.clock.After(offerAgain):
		case <-ctx.Done():
			return nil
		}
	}
}

// offer gives a node the access lists of spaces, and asks for them again where it took them.
func (e *Engine) offer(ctx context.Context, t *stream, r *remote, ids []dag.ID) {
	for _, id := range ids {
		err := e.offerOne(ctx, r, id)
		if err == nil {
			e.mu.Lock()
			r.said[id] = wanted
			e.mu.Unlock()
			err = t.write(&wire.Spaces{IDs: wire.List[dag.ID]{id}})
		}
		if err != nil && ctx.Err() == nil {
			e.mu.Lock()
			wait := min(max(2*r.denied[id].wait, offerAgain), offerMax)
			r.denied[id] = denial{wait, e.clock.Now().Add(jitter(wait))}
			e.mu.Unlock()
			if wait == offerAgain {
				e.log.Warn("a node does not take a space", "peer", r.id, "space", id.String(), "err", err)
			}
		}
	}
}

func (e *Engine) offerOne(ctx context.Context, r *remote, id dag.ID) error {
	e.mu.Lock()
	sp := e.spaces[id]
	if sp == nil || sp.ctx == nil || sp.ctx.Err() != nil || !r.node.Wants(id) {
		e.mu.Unlock()
		return dag.ErrNotFound
	}
	sp.running.Add(1)
	ended := sp.ctx
	e.mu.Unlock()
	defer sp.running.Done()
	ctx, cancel := context.WithTimeout(ctx, offerWithin)
	defer cancel()
	t, err := e.open(ctx, r.id, protocolAccess)
	if err != nil {
		return err
	}
	defer t.Reset()
	defer t.closeOn(ctx)()
	defer t.closeOn(ended)()
	if err := t.write(&wire.Open{Space: id}); err != nil {
		return err
	}
	err = sp.r.ACL.FramesSince(nil, func(_ dag.ID, frame []byte) error {
		return t.write(&wire.Frames{Graph: wire.ACL, Frames: [][]byte{frame}})
	})
	if err != nil {
		return err
	}
	if err := t.write(&wire.End{Graph: wire.ACL}); err != nil {
		return err
	}
	m, err := t.read(ioTimeout)
	if err != nil {
		return err
	}
	switch m.(type) {
	case *wire.End:
		return nil
	case *wire.Absent:
		return ErrRefused
	}
	return unexpected(m)
}
