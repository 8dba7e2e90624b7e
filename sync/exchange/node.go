package exchange

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/acl/list"
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
	maxOffered  = 4 * maxAccess // bytes of the access lists that a node has in memory to judge
)

var errOffers = errors.New("exchange: too much is offered at once")

// ErrRefused says that a node does not take something: the account may not write there, or is beyond its quota.
var ErrRefused = errors.New("exchange: the node does not take it")

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

	// Last: it is only reached for where no other node of the network is, for the configuration that it has.
	Last bool
}

// usedNode is a Node as it is now.
type usedNode struct {
	network dag.PublicKey
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

// SetNodes says which nodes this device uses, in the place of those before. It is connected to those that are to be told of a space of it. A
// node that was used before stays connected, unless it was told of a space that it is not to be told of any more.
func (e *Engine) SetNodes(nodes []Node) error {
	next := make(map[peer.ID]*Node, len(nodes))
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
			infos = append(infos, *info)
		}
	}
	e.mu.Lock()
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
			if d := e.dials[id]; d != nil {
				d.stop()
				delete(e.dials, id)
			}
		}
	}
	e.mu.Unlock()
	for _, id := range gone {
		e.closePeer(id)
	}
	for _, info := range infos {
		e.want(info, true)
	}
	e.mu.Lock()
	e.kickNodes()
	e.mu.Unlock()
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
	n := e.nodes[id]
	if n == nil {
		return false
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
	for id := range e.nodes {
		if d := e.dials[id]; d != nil {
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
	return e.nodes[id]
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
		case *wire.Network:
			if now := e.clock.Now(); now.Sub(since) > configsIn {
				told, since = 0, now
			}
			if told++; told > maxConfigs {
				return fmt.Errorf("%w: more than %d configurations", session.ErrPeer, maxConfigs)
			}
			if e.opt.NewConfig != nil {
				e.start(func(context.Context) { e.opt.NewConfig(n.network, m.Config) })
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
		for some := range slices.Chunk(ids, wire.MaxIDs) {
			if err := t.write(&wire.Spaces{IDs: some}); err != nil {
				return err
			}
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

// visitText is what a device's Proof to a node signs.
func visitText(transcript, certificate []byte) []byte {
	h := proofText(transcript, certificate)
	return append([]byte(domainNode), h[len(domainHello):]...)
}

// takeVisit is the node's side.
func (e *Engine) takeVisit(ctx context.Context, id peer.ID, t *stream) error {
	return e.receive(ctx, id, t, "node", func(ctx context.Context, r *remote) error { return e.serveVisit(ctx, t, r) })
}

func (e *Engine) serveVisit(ctx context.Context, t *stream, r *remote) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer r.cancel()
	wg.Go(func() { e.endVisit(ctx, r) })
	if err := e.greet(t, r); err != nil {
		return err
	}
	m, err := t.read(helloTimeout)
	if err != nil {
		return err
	}
	p, ok := m.(*wire.Proof)
	if !ok {
		return unexpected(m)
	}
	cert, err := list.DecodeCertificate(p.Certificate)
	if err == nil {
		err = cert.Verify()
	}
	if err == nil && (cert.Device != r.key || !ed25519.Verify(r.key[:], visitText(r.toUs, p.Certificate), p.Signature[:])) {
		err = errors.New("not this device's")
	}
	if err == nil && cert.Account == (dag.PublicKey{}) {
		err = errors.New("of the account of zeros, as which anybody can sign")
	}
	if err != nil {
		return fmt.Errorf("%w: proof: %w", session.ErrPeer, err)
	}
	e.mu.Lock()
	r.account, r.proved = cert.Account, true
	e.uncount(r) // who has no space yet stays for as long as it takes to bring one
	e.mu.Unlock()
	var sent []byte
	if err := e.sendConfig(t, &sent); err != nil {
		return err
	}
	wg.Go(func() {
		for e.sendConfig(t, &sent) == nil && e.sendNews(t, r) == nil {
			select {
			case <-r.tags:
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		m, err := t.read(0)
		if err != nil {
			return err
		}
		s, ok := m.(*wire.Spaces)
		if !ok {
			return unexpected(m)
		}
		if err := e.answerSpaces(ctx, t, r, s.IDs); err != nil {
			return err
		}
	}
}

// sendConfig tells who has come the configuration, unless it is the one that was sent.
func (e *Engine) sendConfig(t *stream, sent *[]byte) error {
	if e.opt.Config == nil {
		return nil
	}
	c := e.opt.Config()
	if bytes.Equal(c, *sent) {
		return nil
	}
	*sent = c
	return t.write(&wire.Network{Config: c})
}

// ConfigChanged has those who are connected to this node told of the configuration that Options.Config gives now.
func (e *Engine) ConfigChanged() { e.retag() }

// Drop ends the connections with devices of accounts that fn does not let stay. A node's alone; they may come back, and are asked about anew.
func (e *Engine) Drop(stays func(account dag.PublicKey) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.remotes {
		if r.proved && !r.mesh && !stays(r.account) {
			r.cancel()
		}
	}
}

// endVisit ends the connection of who does not say in time who he is, or to whom nothing is served.
func (e *Engine) endVisit(ctx context.Context, r *remote) {
	for _, within := range []time.Duration{helloWithin, takeWithin} {
		select {
		case <-e.clock.After(within):
		case <-ctx.Done():
			return
		}
		e.mu.Lock()
		proved, ready := r.proved, r.ready()
		e.mu.Unlock()
		if !proved || !ready && within == takeWithin {
			r.cancel()
		}
	}
}

// answerSpaces says which spaces are served to a device.
func (e *Engine) answerSpaces(ctx context.Context, t *stream, r *remote, ids []dag.ID) error {
	var yes, no wire.List[dag.ID]
	began := e.clock.Now()
	for _, id := range ids {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e.serveTo(ctx, r.id, id) {
			yes = append(yes, id)
		} else {
			no = append(no, id)
		}
	}
	var out []wire.Message
	if len(yes) > 0 {
		out = append(out, &wire.Served{IDs: yes})
	}
	if len(no) > 0 {
		e.waitNo(ctx, began)
		out = append(out, &wire.Absent{Graph: wire.ACL, IDs: no})
	}
	if err := t.write(out...); err != nil {
		return err
	}
	e.meet(r)
	return nil
}

// waitNo waits before a no, so that all take as long.
func (e *Engine) waitNo(ctx context.Context, began time.Time) {
	select {
	case <-e.clock.After(noAfter - e.clock.Now().Sub(began)):
	case <-ctx.Done():
	}
}

// serveTo makes a space common with a device, where its account is a member.
func (e *Engine) serveTo(ctx context.Context, id peer.ID, space dag.ID) bool {
	e.mu.Lock()
	r := e.remotes[id]
	e.mu.Unlock()
	if r == nil || !r.proved {
		return false
	}
	if r.mesh {
		return e.common(r, e.meshSpace(ctx, r, space))
	}
	return e.common(r, e.opt.Serve.Space(ctx, space, r.account))
}

// common makes a space common with a device; nil is none. The caller has them meet: that looks at all that is common.
func (e *Engine) common(r *remote, replica *Replica) bool {
	if replica == nil {
		return false
	}
	e.mu.Lock()
	sp := e.spaces[replica.ID]
	if sp == nil && replica.Gone != nil && replica.Gone() {
		e.mu.Unlock()
		return false
	}
	if sp == nil {
		sp = e.newSpace(replica)
		e.spaces[replica.ID] = sp
		if e.ctx != nil {
			e.startSpace(sp)
		}
	}
	full := len(r.common) >= maxVisited
	if !full && e.remotes[r.id] == r {
		r.common[replica.ID] = true
	}
	e.mu.Unlock()
	return !full
}

// offers are the access lists that are coming to a node, and those that it judges.
type offers struct {
	mu  sync.Mutex
	of  map[*remote]*offered
	all uint64
}

// offered is one of them.
type offered struct {
	bytes uint64
	stop  context.CancelCauseFunc
}

// enter takes a peer's list in, when none of it is coming any more; stop ends it.
func (o *offers) enter(ctx context.Context, r *remote, stop context.CancelCauseFunc) error {
	select {
	case r.offers <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = make(map[*remote]*offered)
	}
	o.of[r] = &offered{stop: stop}
	return nil
}

// grow counts what a list takes. Where all together take too much, the longest ends: most are short, and come through whatever others do.
func (o *offers) grow(r *remote, to uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.of[r]
	if x == nil {
		return
	}
	o.all += to - x.bytes
	x.bytes = to
	for o.all > maxOffered {
		var longest *remote
		for p, y := range o.of {
			if longest == nil || y.bytes > o.of[longest].bytes {
				longest = p
			}
		}
		y := o.of[longest]
		o.all -= y.bytes
		y.bytes = 0
		y.stop(errOffers)
	}
}

func (o *offers) exit(r *remote) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all -= o.of[r].bytes
	delete(o.of, r)
	<-r.offers
}

// takeList takes a space that a device offers. Whatever is wrong, the answer is the same.
func (e *Engine) takeList(ctx context.Context, id peer.ID, t *stream, space dag.ID) error {
	e.mu.Lock()
	r := e.remotes[id]
	proved := r != nil && r.proved && !r.mesh
	e.mu.Unlock()
	if !proved {
		return errors.New("exchange: a list of who has not said who it is")
	}
	ctx, cancel := context.WithTimeout(ctx, takeWithin)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if err := e.offers.enter(ctx, r, stop); err != nil {
		return err
	}
	defer e.offers.exit(r)
	defer t.closeOn(ctx)()
	t.in.Limit = wire.MaxBody
	var frames [][]byte
	for {
		m, err := t.read(ioTimeout)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Frames:
			frames = append(frames, m.Frames...)
			e.offers.grow(r, t.in.Bytes)
			if t.in.Bytes > maxAccess {
				return fmt.Errorf("%w: an access list of more than 64 MiB", session.ErrPeer)
			}
			continue
		case *wire.End:
		default:
			return unexpected(m)
		}
		break
	}
	began := e.clock.Now()
	if e.common(r, e.opt.Serve.Take(ctx, space, r.account, frames)) {
		e.meet(r)
		return t.write(&wire.End{Graph: wire.ACL})
	}
	e.waitNo(ctx, began)
	return t.write(&wire.Absent{Graph: wire.ACL, IDs: wire.List[dag.ID]{space}})
}
