package exchange

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// Domains of what is bound to a connection.
const (
	domainTags  = "anyfs/tags/1\x00"
	domainHello = "anyfs/hello/1\x00"
)

// Bounds of handshakes.
const (
	maxHellos   = 64   // under way at once
	maxPeerTags = 4096 // of one peer
	firstTags   = 3072 // that are sent to one at first: the others are for what comes later
	greetDelay  = 5 * time.Second
	banTime     = 15 * time.Minute
)

var (
	errNothing = errors.New("exchange: no space in common")
	errBye     = errors.New("exchange: the peer said bye")
	errCrossed = errors.New("exchange: the peer was greeted at the same time")
	errBanned  = errors.New("exchange: the peer broke the protocol before")
	errTags    = errors.New("exchange: a connection has room for no more tags")
)

// remote is a peer with which a handshake is under way or done.
type remote struct {
	id   peer.ID
	key  dag.PublicKey
	addr ma.Multiaddr

	version uint64        // of the protocol, in which both go on; set by greet
	relayed bool          // it is connected through a relay
	meets   chan struct{} // a node: it may have to be told of other devices

	giving  atomic.Int32  // blocks that it gives to this node at the moment
	keeping chan struct{} // full while so many of these are hashed and written

	entry *entry       // the handshake's stream, where the peer opened it
	conn  network.Conn // the handshake's

	ctx     context.Context // ends with the handshake's stream
	cancel  context.CancelFunc
	ended   chan struct{}
	tags    chan struct{} // tags may have to be sent
	copying chan struct{} // full while blocks are copied to a node: some of one space at a time
	offers  chan struct{} // full while the peer gives an access list to this node

	toThem, toUs []byte // transcripts

	// Of sendTags alone.
	tagged map[wire.Tag]struct{} // that were sent, without those that prove nothing
	filled int                   // of all that were sent

	// What follows is guarded by Engine.mu.
	after   *remote // has its place
	theirs  map[wire.Tag]struct{}
	said    map[dag.ID]int // how many of a space's tags were sent
	common  map[dag.ID]bool
	account dag.PublicKey
	proved  bool
	counted bool                     // in Engine.guard
	invited map[dag.ID]dag.PublicKey // spaces to which it proved an invitation, with the key of that
	unknown map[dag.ID]bool          // spaces of which it proved an invitation that is none
	asked   map[*Guest]bool          // invitations that were proved to it
	guested bool                     // counted among the guests

	// As the device says to this node.
	meeting *stream // on which it does
	slot    bool    // it can be reached through the relay
	shows   bool    // a code
	tag     uint64  // of that

	node    *usedNode                   // it is a node that this device uses; nil: it is a device, or another node
	mesh    bool                        // this is a node and so is it, of the same network
	news    map[dag.ID]bool             // spaces of which content came that the peer is to be told of
	sealed  []sealedBlock               // of which the device is to be told; at most maxSealed
	denied  map[dag.ID]denial           // spaces that the node did not take
	places  []*wire.Place               // that the node is to be told
	placing map[dag.ID]chan *wire.Place // those to whom its answer goes
	gone    map[dag.ID]bool             // spaces that this node gave up, of which another is to be told
	over    map[dag.ID]bool             // spaces of which this node took something no more for a quota, of which the device is to be told
}

// newRemote begins what is known of a peer.
func newRemote(ctx context.Context, cancel context.CancelFunc, id peer.ID, key dag.PublicKey, t *stream) *remote {
	return &remote{
		id: id, key: key, addr: t.Conn().RemoteMultiaddr(), entry: t.entry, conn: t.Conn(), ctx: ctx, cancel: cancel, ended: make(chan struct{}), tags: make(chan struct{}, 1),
		relayed: relayed(t.Conn().RemoteMultiaddr()), keeping: make(chan struct{}, maxGiving), meets: make(chan struct{}, 1),
		offers: make(chan struct{}, 1), copying: make(chan struct{}, 1),
		theirs: make(map[wire.Tag]struct{}), said: make(map[dag.ID]int), common: make(map[dag.ID]bool), denied: make(map[dag.ID]denial), gone: make(map[dag.ID]bool),
		invited: make(map[dag.ID]dag.PublicKey), unknown: make(map[dag.ID]bool), asked: make(map[*Guest]bool),
	}
}

// ready says whether the peer and this device have a space in common and the peer has said who it is.
func (r *remote) ready() bool { return r.proved && len(r.common) > 0 }

func (r *remote) wakeTags() {
	select {
	case r.tags <- struct{}{}:
	default:
	}
}

// begins says whether this end is to greet a peer that has connected: the one with the lower ID does, the other if nothing comes. One that was
// greeted through a relay is greeted anew when there is a direct connection.
func (e *Engine) begins(ctx context.Context, id peer.ID) bool {
	e.mu.Lock()
	h := e.host
	e.mu.Unlock()
	direct := hasDirect(h, id)
	known := func() bool { return e.remotes[id] != nil && !(direct && e.remotes[id].relayed) }
	if e.self > id {
		wait, cancel := context.WithTimeout(ctx, greetDelay)
		greeted := e.await(wait, known)
		cancel()
		if greeted || ctx.Err() != nil {
			return false
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return !known() && h.Network().Connectedness(id) != network.NotConnected
}

// connected greets a peer that has connected.
func (e *Engine) connected(ctx context.Context, id peer.ID) {
	if err := e.refusal(id); err != nil {
		e.closePeer(id)
		return
	}
	if e.opt.Serve != nil {
		if e.opt.Mesh != nil {
			e.greetNode(ctx, id)
		}
		return // who wants something of a node says so
	}
	if n := e.nodeOf(id); n != nil {
		e.visitNode(ctx, n, id)
		return
	}
	if e.needless(id) || !e.begins(ctx, id) {
		return
	}
	t, err := e.open(ctx, id, protocolHello)
	if err != nil {
		e.failed(id, "hello", err)
		if !e.spares(ctx, id) {
			e.closePeer(id)
		}
		return
	}
	defer t.closeOn(ctx)()
	if err := e.hello(ctx, id, t); err != nil {
		_ = t.Reset()
		e.failed(id, "hello", err)
		return
	}
	_ = t.Close()
}

func (e *Engine) takeHello(ctx context.Context, id peer.ID, t *stream) error {
	return e.hello(ctx, id, t)
}

// refusal says why nothing is exchanged with a peer.
func (e *Engine) refusal(id peer.ID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if until, ok := e.banned[id]; ok {
		if e.clock.Now().Before(until) {
			return errBanned
		}
		delete(e.banned, id)
	}
	if e.paused {
		return errors.New("exchange: paused")
	}
	return nil
}

// failed judges an error of a stream: a peer that broke the protocol is left alone for a while.
func (e *Engine) failed(id peer.ID, what string, err error) {
	if !breach(err) {
		e.log.Debug("a stream ended", "peer", id, "what", what, "err", err)
		return
	}
	e.ban(id, what, err)
	e.closePeer(id)
}

// breach reports whether an error is the peer's doing, and nothing that happens to an honest one.
func breach(err error) bool {
	return errors.Is(err, session.ErrPeer) || errors.Is(err, wire.ErrFormat) || errors.Is(err, wire.ErrTooLong)
}

// ban leaves a peer alone for a while. It comes before the connection is closed: a peer that is back at once finds it.
func (e *Engine) ban(id peer.ID, what string, err error) {
	e.mu.Lock()
	now := e.clock.Now()
	tell := e.tells(id, now)
	if len(e.banned) > 4096 {
		clear(e.banned)
	}
	e.banned[id] = now.Add(banTime)
	e.mu.Unlock()
	if tell {
		e.log.Warn("a peer broke the protocol", "peer", id, "what", what, "err", err)
	}
}

// needless closes the connections to a device through relays where there is a direct one that is in use, or where there are enough of them.
// It reports whether that is all.
func (e *Engine) needless(id peer.ID) bool {
	e.mu.Lock()
	h, r, n := e.host, e.remotes[id], e.relayedPeers()
	if e.shown != nil {
		n = 0 // it may be a new device that is let in
	}
	e.mu.Unlock()
	direct := hasDirect(h, id)
	if r != nil && !r.relayed && direct || r == nil && !direct && n >= maxRelayed {
		closeRelayed(h, id)
		return true
	}
	return false
}

// lost looks at what a connection that has ended leaves.
func (e *Engine) lost(is network.Connectedness, id peer.ID) {
	e.mu.Lock()
	r := e.remotes[id]
	e.mu.Unlock()
	if is == network.Connected || is == network.Limited && r != nil && r.relayed {
		return // the handshake's stream ends by itself where it was on that connection
	}
	e.disconnected(id)
}

func (e *Engine) disconnected(id peer.ID) {
	e.mu.Lock()
	r := e.remotes[id]
	d := e.dials[id]
	if d != nil {
		d.seen = e.clock.Now() // until now
		d.directWait = 0
		if r != nil && r.relayed && r.ready() {
			d.wait, d.next = 0, time.Time{}
		}
	}
	e.mu.Unlock()
	if r != nil {
		r.cancel()
	}
	if d != nil {
		d.kick()
	}
}

// receive keeps a peer for as long as talk lasts, which gets a context that ends with the peer. A peer that broke the protocol is banned
// when it returns.
func (e *Engine) receive(ctx context.Context, id peer.ID, t *stream, what string, talk func(context.Context, *remote) error) (err error) {
	if err := e.refusal(id); err != nil {
		return err
	}
	key, err := deviceOf(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRemote(ctx, cancel, id, key, t)
	if err := e.enter(ctx, r); err != nil {
		return err
	}
	defer e.exit(r)
	defer func() {
		if breach(err) {
			e.ban(id, what, err)
		}
	}()
	defer t.closeOn(ctx)()
	return talk(ctx, r)
}

// hello does the handshake and keeps the peer until the stream ends.
func (e *Engine) hello(ctx context.Context, id peer.ID, t *stream) error {
	return e.receive(ctx, id, t, "hello", func(ctx context.Context, r *remote) error { return e.talk(ctx, t, r) })
}

func (e *Engine) talk(ctx context.Context, t *stream, r *remote) error {
	cancel := r.cancel
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { e.endUnproved(ctx, r) })
	if err := e.greet(t, r); err != nil {
		return err
	}
	var outErr error
	wg.Go(func() {
		if outErr = e.sendTags(ctx, t, r); outErr != nil {
			cancel()
		}
	})
	err := e.hear(ctx, t, r)
	cancel()
	wg.Wait()
	if outErr != nil && !breach(err) && (err == nil || ctx.Err() != nil) { // a fault stays one, whatever the end of the stream did to what was being sent
		err = outErr
	}
	return err
}

// firstGreets says whether the one of both ends that is to greet opened the handshake's stream: where both did, on one connection, each end keeps that.
func (e *Engine) firstGreets(r *remote) bool { return (r.entry == nil) == (e.self < r.id) }

// enter makes r the remote of its peer, in the place of one before.
func (e *Engine) enter(ctx context.Context, r *remote) error {
	for {
		e.mu.Lock()
		old := e.remotes[r.id]
		if old == nil {
			defer e.mu.Unlock()
			if err := e.count(r); err != nil {
				return err
			}
			e.remotes[r.id] = r
			close(e.changed)
			e.changed = make(chan struct{})
			return nil
		}
		if old.conn == r.conn && e.firstGreets(old) && !e.firstGreets(r) && old.ctx.Err() == nil {
			e.mu.Unlock()
			return errCrossed
		}
		old.after = r
		e.mu.Unlock()
		old.cancel()
		select {
		case <-old.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (e *Engine) exit(r *remote) {
	e.mu.Lock()
	delete(e.remotes, r.id)
	if r.slot {
		r.slot, r.shows = false, false
		e.wakeMeets(r)
	}
	h, after := e.host, r.after
	e.uncount(r)
	if r.guested {
		e.guard.guests--
	}
	e.mu.Unlock()
	close(r.ended)
	e.noteChange()
	if r.relayed && hasDirect(h, r.id) {
		closeRelayed(h, r.id) // the other one takes its place
		return
	}
	if after != nil { // both may have greeted: it goes on, perhaps on the same connection
		if after.conn != r.conn {
			_ = r.conn.Close()
		}
		return
	}
	e.closePeer(r.id) // a connection is of no use without it
}

// greet exchanges the first messages, which bind all that follows to this connection.
func (e *Engine) greet(t *stream, r *remote) error {
	ours := wire.Hello{Version: wire.Version}
	_, _ = rand.Read(ours.Nonce[:])
	if err := t.write(&ours); err != nil {
		return err
	}
	m, err := t.read(helloTimeout)
	if err != nil {
		return err
	}
	theirs, ok := m.(*wire.Hello)
	if !ok {
		return unexpected(m)
	}
	// Who speaks a later version too speaks the lower one from here on, or ends it.
	if r.version = min(ours.Version, theirs.Version); r.version < wire.MinVersion {
		e.useless(r.id)
		t.bye(wire.ByeVersion)
		return fmt.Errorf("exchange: the peer speaks version %d", theirs.Version)
	}
	r.toThem = transcript(e.key, r.key, ours.Nonce, theirs.Nonce)
	r.toUs = transcript(r.key, e.key, theirs.Nonce, ours.Nonce)
	return nil
}

// transcript is what the tags that one peer sends to another are bound to.
func transcript(from, to dag.PublicKey, fromNonce, toNonce [32]byte) []byte {
	return slices.Concat([]byte(domainTags), from[:], to[:], fromNonce[:], toNonce[:])
}

func unexpected(m wire.Message) error {
	return fmt.Errorf("%w: %T out of place", session.ErrPeer, m)
}

// hear takes the peer's messages until the stream ends.
func (e *Engine) hear(ctx context.Context, t *stream, r *remote) error {
	for first := true; ; {
		var wait time.Duration
		if e.unproved(r) {
			wait = helloTimeout
		}
		m, err := t.read(wait)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Tags:
			if err := e.hearTags(r, m); err != nil {
				return err
			}
			if first && !e.shares(r) && !e.isGuest(r) {
				e.useless(r.id)
				t.bye(wire.ByeNothing)
				return errNothing
			}
			first = false
		case *wire.Guest:
			if err := e.hearGuest(r, m); err != nil {
				return err
			}
		case *wire.Proof:
			if err := e.hearProof(r, m); err != nil {
				return err
			}
		case *wire.Content:
			e.hearContent(r, m)
		case *wire.Sealed:
			e.hearSealed(r, m)
		case *wire.Bye:
			if m.Reason == wire.ByeNothing {
				e.useless(r.id)
				e.turnedAway(r)
			}
			return fmt.Errorf("%w: reason %d", errBye, m.Reason)
		default:
			return unexpected(m)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

func (e *Engine) unproved(r *remote) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !r.ready() && !e.guestsLocked(r)
}

func (e *Engine) shares(r *remote) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(r.common) > 0
}

func (e *Engine) hearTags(r *remote, m *wire.Tags) error {
	e.mu.Lock()
	if len(r.theirs)+len(m.Tags) > maxPeerTags {
		e.mu.Unlock()
		return fmt.Errorf("%w: more than %d tags", session.ErrPeer, maxPeerTags)
	}
	for _, t := range m.Tags {
		r.theirs[t] = struct{}{}
	}
	e.mu.Unlock()
	e.match(r)
	return nil
}

// match finds the spaces that the peer has proved to be in.
func (e *Engine) match(r *remote) {
	e.mu.Lock()
	var todo []*space
	for id, sp := range e.spaces {
		if !r.common[id] && sp.r.Tags != nil {
			todo = append(todo, sp)
		}
	}
	e.mu.Unlock()
	for _, sp := range todo {
		tags := sp.r.Tags(r.toUs)
		e.mu.Lock()
		for _, t := range tags {
			if _, ok := r.theirs[t]; ok && e.spaces[sp.id] == sp {
				r.common[sp.id] = true
			}
		}
		e.mu.Unlock()
	}
	r.wakeTags()
	e.meet(r)
}

// meet begins what a peer that is ready shares.
func (e *Engine) meet(r *remote) {
	e.mu.Lock()
	if r.ready() && e.remotes[r.id] == r {
		e.uncount(r)
		e.guard.known(r.entry)
		for id := range r.common {
			if sp := e.spaces[id]; sp != nil {
				e.joinLocked(sp, r)
			}
		}
	}
	e.mu.Unlock()
	e.noteChange()
}

// meetPeer is meet, where the peer is still there.
func (e *Engine) meetPeer(id peer.ID) {
	e.mu.Lock()
	r := e.remotes[id]
	e.mu.Unlock()
	if r != nil {
		e.meet(r)
	}
}

// hearProof takes who the peer is.
func (e *Engine) hearProof(r *remote, m *wire.Proof) error {
	cert, err := list.DecodeCertificate(m.Certificate)
	if err == nil {
		err = cert.Verify()
	}
	if err == nil && cert.Device != r.key {
		err = errors.New("another device's certificate")
	}
	if err == nil && !ed25519.Verify(cert.Device[:], proofText(r.toUs, m.Certificate), m.Signature[:]) {
		err = errors.New("a wrong signature")
	}
	if err != nil {
		return fmt.Errorf("%w: proof: %w", session.ErrPeer, err)
	}
	e.mu.Lock()
	if r.proved {
		e.mu.Unlock()
		return fmt.Errorf("%w: a second proof", session.ErrPeer)
	}
	r.account, r.proved = cert.Account, true
	e.mu.Unlock()
	e.meet(r)
	return nil
}

// proofText is what a Proof's signature is of.
func proofText(transcript, certificate []byte) []byte {
	h := dag.Sum(slices.Concat(transcript, certificate))
	return append([]byte(domainHello), h[:]...)
}

// sendTags sends the tags of all spaces, and of others as they come; after a match, who this device is.
func (e *Engine) sendTags(ctx context.Context, t *stream, r *remote) error {
	proved, first := false, true
	for {
		if ms := e.newGuests(r); len(ms) > 0 {
			if err := t.write(ms...); err != nil {
				return err
			}
		}
		ms, err := e.newTags(r, first)
		if err != nil {
			return err
		}
		if len(ms) > 0 {
			if err := t.write(ms...); err != nil {
				return err
			}
			if !first {
				e.match(r) // its tags may have been waiting for this
			}
			first = false
		}
		if !proved && e.shares(r) {
			p := &wire.Proof{Certificate: e.opt.Certificate.Encode()}
			copy(p.Signature[:], ed25519.Sign(e.opt.Key, proofText(r.toThem, p.Certificate)))
			if err := t.write(p); err != nil {
				return err
			}
			proved = true
		}
		if err := e.sendNews(t, r); err != nil {
			return err
		}
		if err := e.sendSealed(t, r); err != nil {
			return err
		}
		select {
		case <-r.tags:
		case <-ctx.Done():
			return nil
		}
	}
}

// newTags is the tags that were not sent yet. Each message has some that prove nothing, up to a power of two. A peer takes so many on a connection: where there are more
// spaces or keys at first, each space has as many as there is room for, and where more come later errTags says that it is to be greeted anew.
func (e *Engine) newTags(r *remote, first bool) ([]wire.Message, error) {
	e.mu.Lock()
	var todo []*space
	for id, sp := range e.spaces {
		if !r.common[id] || r.said[id] == 0 {
			todo = append(todo, sp)
		}
	}
	e.mu.Unlock()
	if r.tagged == nil {
		r.tagged = make(map[wire.Tag]struct{})
	}
	var fresh [][]wire.Tag
	for _, sp := range todo {
		all := sp.r.Tags(r.toThem)
		e.mu.Lock()
		some := r.said[sp.id] < len(all)
		r.said[sp.id] = max(r.said[sp.id], len(all))
		e.mu.Unlock()
		var mine []wire.Tag
		for _, t := range all {
			if _, sent := r.tagged[t]; some && !sent {
				mine = append(mine, t)
			}
		}
		if len(mine) > 0 {
			fresh = append(fresh, mine)
		}
	}
	tags := level(fresh, firstTags)
	if len(tags) == 0 && !first {
		return nil, nil
	}
	for _, t := range tags {
		r.tagged[t] = struct{}{}
	}
	mrand.Shuffle(len(tags), func(i, j int) { tags[i], tags[j] = tags[j], tags[i] })
	var out []wire.Message
	for {
		n := wire.MinTags
		for n < len(tags) && n < wire.MaxTags {
			n *= 2
		}
		if r.filled += n; r.filled > maxPeerTags {
			return nil, errTags
		}
		m := &wire.Tags{Tags: make([]wire.Tag, n)}
		for i := range m.Tags {
			_, _ = rand.Read(m.Tags[i][:])
		}
		k := min(n, len(tags))
		for i, at := range mrand.Perm(n)[:k] {
			m.Tags[at] = tags[i]
		}
		tags = tags[k:]
		if out = append(out, m); len(tags) == 0 {
			return out, nil
		}
	}
}

// level takes at most so many of several lists, of each the first ones: of all as many, where they have them.
func level(lists [][]wire.Tag, most int) (out []wire.Tag) {
	for i := 0; len(out) < most; i++ {
		before := len(out)
		for _, l := range lists {
			if i < len(l) && len(out) < most {
				out = append(out, l[i])
			}
		}
		if len(out) == before {
			break
		}
	}
	return out
}
