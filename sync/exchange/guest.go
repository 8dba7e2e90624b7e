package exchange

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// A guest is in no space of the peer's yet, and proves an invitation to one: it may see the access list and add its request.

const domainGuest = "anyfs/guest/1\x00"

// Bounds of guests.
const (
	maxGuests      = 128       // peers that are guests and nothing else
	maxNodeGuests  = 1024      // of a node
	maxInvitations = 8         // that one peer proves on a connection
	maxGuestFrames = 8         // that one writes on a stream
	maxGuestBytes  = 128 << 10 // of them

	proveAgain = 2 * time.Second // after a visit ended
)

// Guest is an invitation that this device has.
type Guest struct {
	Space dag.ID
	Key   ed25519.PrivateKey // of the invitation
	Peers []string           // addresses with /p2p/ID, of those it is proved to, and to the nodes through which these lead; AddPeer keeps them connected

	// Take takes frames of the access list. last: the peer has no more for now. An error is the peer's fault.
	Take func(frames [][]byte, last bool) error
	// Answer gives the frames that this device has written; asked after each Take with last.
	Answer func() [][]byte
	// Refused is called when a peer does not know the invitation, or no longer.
	Refused func()

	peers []peer.ID
	nodes []peer.ID // through which the peers are reached: it is proved to them too
}

// provedTo reports whether the invitation is proved to a peer.
func (g *Guest) provedTo(id peer.ID) bool {
	return slices.Contains(g.peers, id) || slices.Contains(g.nodes, id)
}

// Seek begins to prove an invitation to its peers, until Unseek.
func (e *Engine) Seek(g *Guest) error {
	var through []string
	for _, a := range g.Peers {
		info, err := splitAddr(a)
		if err != nil {
			return err
		}
		g.peers = append(g.peers, info.ID)
		if strings.Contains(a, "/p2p-circuit") {
			through = append(through, a)
			if node, err := splitAddr(directPart(a)); err == nil {
				g.nodes = append(g.nodes, node.ID)
			}
		}
	}
	if err := e.Near(g.Space, through); err != nil {
		return err
	}
	e.mu.Lock()
	e.guests[g.Space] = g
	for _, r := range e.remotes {
		r.wakeTags()
	}
	e.dialNow()
	e.mu.Unlock()
	return nil
}

// Unseek ends it. Nodes that the invitation named are visited for the space on, until Near says otherwise.
func (e *Engine) Unseek(space dag.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.guests, space)
}

// isGuest says whether one of the two is a guest of the other.
func (e *Engine) isGuest(r *remote) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.guestsLocked(r)
}

func (e *Engine) guestsLocked(r *remote) bool {
	if len(r.invited) > 0 {
		return true
	}
	for _, g := range e.guests {
		if g.provedTo(r.id) {
			return true
		}
	}
	return false
}

// guestText is what a Guest's signature is of.
func guestText(transcript []byte, space dag.ID) []byte {
	h := dag.Sum(slices.Concat(transcript, space[:]))
	return append([]byte(domainGuest), h[:]...)
}

// newGuests is the invitations that the peer was not proved yet. For each of them a visit begins.
func (e *Engine) newGuests(r *remote) (out []wire.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, g := range e.guests {
		if r.asked[g] || !g.provedTo(r.id) || len(out) >= maxInvitations {
			continue
		}
		r.asked[g] = true
		m := &wire.Guest{Space: id, Key: dag.PublicKey(g.Key.Public().(ed25519.PublicKey))}
		copy(m.Signature[:], ed25519.Sign(g.Key, guestText(r.toThem, id)))
		out = append(out, m)
		e.startLocked(func(context.Context) {
			if err := e.visit(r.ctx, r, g); err != nil && r.ctx.Err() == nil {
				e.failed(r.id, "guest", err)
			}
			e.proveLater(r, g)
		})
	}
	return out
}

// turnedAway tells the guests that a peer has nothing for them.
func (e *Engine) turnedAway(r *remote) {
	e.mu.Lock()
	var refused []*Guest
	for g := range r.asked {
		if e.guests[g.Space] == g && g.Refused != nil {
			refused = append(refused, g)
		}
	}
	e.mu.Unlock()
	for _, g := range refused {
		g.Refused()
	}
}

// refused tells a guest that a peer has nothing for it.
func (e *Engine) refused(g *Guest) {
	e.mu.Lock()
	seeks := e.guests[g.Space] == g
	e.mu.Unlock()
	if seeks && g.Refused != nil {
		g.Refused()
	}
}

// proveLater has an invitation proved to a peer again in a while, where its visit ended and the peer is still there: it may be about to
// open its spaces.
func (e *Engine) proveLater(r *remote, g *Guest) {
	select {
	case <-e.clock.After(proveAgain):
	case <-r.ctx.Done():
		return
	}
	e.mu.Lock()
	delete(r.asked, g)
	r.wakeTags()
	e.mu.Unlock()
}

// hearGuest takes an invitation that the peer proves. One that is not known is passed over.
func (e *Engine) hearGuest(r *remote, m *wire.Guest) error {
	e.mu.Lock()
	sp, many := e.spaces[m.Space], len(r.invited) >= maxInvitations
	e.mu.Unlock()
	if many {
		return fmt.Errorf("%w: more than %d invitations", session.ErrPeer, maxInvitations)
	}
	if sp == nil || sp.r.Invited == nil || !sp.r.Invited(m.Key, r.key) {
		e.mu.Lock()
		if len(r.unknown) < maxInvitations {
			r.unknown[m.Space] = true
		}
		e.mu.Unlock()
		e.noteChange()
		return nil
	}
	if !ed25519.Verify(m.Key[:], guestText(r.toUs, m.Space), m.Signature[:]) {
		return fmt.Errorf("%w: a wrong signature of an invitation", session.ErrPeer)
	}
	e.mu.Lock()
	if !r.guested && !r.ready() {
		limit := maxGuests
		if e.opt.Serve != nil {
			limit = maxNodeGuests
		}
		if e.guard.guests >= limit {
			e.mu.Unlock()
			return errHellos
		}
		e.guard.guests++
		r.guested = true
		e.uncount(r)
	}
	r.invited[m.Space] = m.Key
	delete(r.unknown, m.Space)
	e.mu.Unlock()
	e.noteChange()
	return nil
}

// hearGuestOf is hearGuest of a node. What it does not know, and what the account may not have, it passes over alike.
func (e *Engine) hearGuestOf(ctx context.Context, r *remote, m *wire.Guest) error {
	if !ed25519.Verify(m.Key[:], guestText(r.toUs, m.Space), m.Signature[:]) {
		return fmt.Errorf("%w: a wrong signature of an invitation", session.ErrPeer)
	}
	inviter, ok := e.opt.Serve.(Inviter)
	if !ok {
		return nil
	}
	replica := inviter.Invited(ctx, m.Space, r.account, r.key, m.Key)
	if replica == nil {
		return nil // though the space may be open here for others
	}
	e.mu.Lock()
	_, unused := e.hold(replica)
	e.mu.Unlock()
	if unused {
		replica.release()
	}
	return e.hearGuest(r, m)
}

// visit holds a stream on which the peer tells the access list of a space.
func (e *Engine) visit(ctx context.Context, r *remote, g *Guest) error {
	t, err := e.open(ctx, r.id, protocolGuest)
	if err != nil {
		return err
	}
	defer t.closeOn(ctx)()
	defer t.Reset()
	if err := t.write(&wire.Ask{Space: g.Space}); err != nil {
		return err
	}
	t.in.Limit = wire.MaxBody
	sent := 0
	for {
		m, err := t.read(0)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Frames:
			if t.in.Bytes > maxAccess {
				return errLongAccess
			}
			if err := g.Take(m.Frames, false); err != nil {
				return fmt.Errorf("%w: %w", session.ErrPeer, err)
			}
		case *wire.End:
			if err := g.Take(nil, true); err != nil {
				return fmt.Errorf("%w: %w", session.ErrPeer, err)
			}
			if out := g.Answer(); len(out) > sent {
				if err := t.write(&wire.Frames{Graph: wire.ACL, Frames: out[sent:]}); err != nil {
					return err
				}
				sent = len(out)
			}
		case *wire.Absent:
			_ = t.Reset()
			if r.node == nil { // a node that knows nothing of it may yet hear of it
				e.refused(g)
			}
			return nil
		default:
			return unexpected(m)
		}
	}
}

// takeGuest tells the access list of a space to a peer that proved an invitation, as it grows, and takes what it writes.
func (e *Engine) takeGuest(ctx context.Context, id peer.ID, t *stream) error {
	m, err := t.read(openTimeout)
	if err != nil {
		return err
	}
	ask, ok := m.(*wire.Ask)
	if !ok {
		return unexpected(m)
	}
	wait, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var sp *space
	var r *remote
	var key dag.PublicKey
	e.await(wait, func() bool {
		if r = e.remotes[id]; r == nil {
			return false
		}
		proved := false
		if key, proved = r.invited[ask.Space]; !proved {
			return e.turnsAway(r, ask.Space)
		}
		if s := e.spaces[ask.Space]; s != nil && s.ctx != nil && s.ctx.Err() == nil {
			sp = s
			sp.running.Add(1)
			return true
		}
		return false
	})
	if sp == nil {
		return t.write(&wire.Absent{Graph: wire.ACL, IDs: wire.List[dag.ID]{ask.Space}})
	}
	defer sp.running.Done()
	ctx, stop := context.WithCancelCause(sp.ctx)
	defer stop(nil)
	defer context.AfterFunc(r.ctx, func() { stop(context.Cause(r.ctx)) })()
	defer t.closeOn(ctx)()
	t.in.Limit = maxGuestBytes
	var wg sync.WaitGroup
	wg.Go(func() { stop(sp.hearGuest(r, t, key)) })
	err = sp.tellGuest(ctx, t, key, r.key)
	if err == nil { // it was told the end, and goes when it has read that
		select {
		case <-ctx.Done():
		case <-sp.e.clock.After(openTimeout):
		}
	}
	stop(err)
	wg.Wait()
	return context.Cause(ctx)
}

// turnsAway says whether a guest is told at once that its invitation to a space is none, in place of waiting for its proof. It is told as fast of a
// space that is not here, so that it learns no more by it. A device that began to run a moment ago may be about to open its spaces.
func (e *Engine) turnsAway(r *remote, space dag.ID) bool {
	return r.unknown[space] && e.clock.Now().Sub(e.began) > openTimeout
}

// tellGuest sends the access list, and what comes to it, until ctx ends or the invitation does: the record that ended it is the last that is
// told.
func (sp *space) tellGuest(ctx context.Context, t *stream, key, device dag.PublicKey) error {
	grown := make(chan struct{}, 1)
	defer sp.r.ACL.Subscribe(func(*dag.Batch) {
		select {
		case grown <- struct{}{}:
		default:
		}
	})()
	var have []dag.ID
	for {
		live := sp.r.Invited(key, device)
		if !live && have == nil { // it ended on a connection on which it was proved before
			return t.write(&wire.Absent{Graph: wire.ACL, IDs: wire.List[dag.ID]{sp.id}})
		}
		tips := sp.r.ACL.Tips()
		if err := sp.r.Durable(); err != nil {
			return err
		}
		err := sp.r.ACL.FramesSince(have, func(_ dag.ID, frame []byte) error {
			return t.write(&wire.Frames{Graph: wire.ACL, Frames: [][]byte{frame}})
		})
		if err != nil {
			return err
		}
		if err := t.write(&wire.End{Graph: wire.ACL}); err != nil {
			return err
		}
		if !live {
			return t.write(&wire.Absent{Graph: wire.ACL, IDs: wire.List[dag.ID]{sp.id}})
		}
		have = have[:0]
		for _, tip := range tips {
			have = append(have, tip.Batch)
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// hearGuest takes the few records that a guest writes. They are judged like everybody's; others than by the guest's own device are
// not taken, nor is anything once the invitation with that key shows the list no more.
func (sp *space) hearGuest(r *remote, t *stream, key dag.PublicKey) error {
	taken := 0
	for {
		m, err := t.read(0)
		if err != nil {
			return err
		}
		f, ok := m.(*wire.Frames)
		if !ok || f.Graph != wire.ACL {
			return unexpected(m)
		}
		if taken += len(f.Frames); taken > maxGuestFrames || t.in.Bytes > maxGuestBytes {
			return fmt.Errorf("%w: a guest that writes much", session.ErrPeer)
		}
		for _, frame := range f.Frames {
			if !sp.r.Invited(key, r.key) {
				break // it is told so
			}
			b, _, err := dag.DecodeFrame(frame)
			if err != nil {
				return fmt.Errorf("%w: %w", session.ErrPeer, err)
			}
			if b.Device != r.key {
				return fmt.Errorf("%w: a guest with the record of another device", session.ErrPeer)
			}
			if _, err := sp.r.ACL.Ingest(frame); err != nil {
				return fmt.Errorf("exchange: the record of a guest: %w", err)
			}
		}
		if sp.r.Grown != nil {
			sp.r.Grown()
		}
	}
}
