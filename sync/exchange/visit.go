package exchange

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// The node's side of a device's visit: which spaces it serves to whom, and the access lists that come to it.

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
		told := map[dag.ID]wire.Quota{}
		for e.sendConfig(t, &sent) == nil && e.sendNews(t, r) == nil && e.sendQuotas(t, r, told) == nil {
			var again <-chan time.Time
			if len(told) > 0 {
				again = e.clock.After(quotaEvery)
			}
			select {
			case <-r.tags:
			case <-again:
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
		switch m := m.(type) {
		case *wire.Spaces:
			err = e.answerSpaces(ctx, t, r, m.IDs)
		case *wire.Guest:
			err = e.hearGuestOf(ctx, r, m)
		case *wire.Place:
			err = e.takePlace(ctx, t, r, m)
		default:
			err = unexpected(m)
		}
		if err != nil {
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
		proved, ready := r.proved, r.ready() // a guest comes again, so that others get a turn
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
	if len(no) > 0 {
		e.waitNo(ctx, began)
	}
	if err := t.write(served(yes, no)...); err != nil {
		return err
	}
	e.meet(r)
	return nil
}

// served says which spaces are in common from now on, and which are not.
func served(yes, no wire.List[dag.ID]) (out []wire.Message) {
	if len(yes) > 0 {
		out = append(out, &wire.Served{IDs: yes})
	}
	if len(no) > 0 {
		out = append(out, &wire.Absent{Graph: wire.ACL, IDs: no})
	}
	return out
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
	held, unused := e.hold(replica)
	if unused {
		defer replica.release()
	}
	if !held {
		e.mu.Unlock()
		return false
	}
	full := len(r.common) >= maxVisited
	if !full && e.remotes[r.id] == r {
		r.common[replica.ID] = true
	}
	e.mu.Unlock()
	return !full
}

// hold begins to exchange a space of a node, unless it is exchanged by another replica of it, which leaves this one unused, or has gone. Engine.mu is
// held.
func (e *Engine) hold(replica *Replica) (held, unused bool) {
	if e.spaces[replica.ID] != nil {
		return true, true
	}
	if replica.Gone != nil && replica.Gone() {
		return false, true
	}
	sp := e.newSpace(replica)
	e.spaces[replica.ID] = sp
	if e.ctx != nil {
		e.startSpace(sp)
	}
	return true, false
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
				return fmt.Errorf("%w: %w", session.ErrPeer, errLongAccess)
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
