package exchange

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

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
