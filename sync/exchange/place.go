package exchange

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// A space leaves a network by the word of its owner, which nodes keep and pass on: so a node that was away, or a device that has not heard of it, does not
// bring it back.

const (
	domainPlace = "anyfs/place/1\x00"
	placeWithin = 10 * time.Second // for a node to answer
)

// Placer keeps what owners say of spaces on a node. It is safe for concurrent use.
type Placer interface {
	// Place takes a word whose signature holds, of a device of account; of a fellow node where mesh is set. It gives what holds then, with a counter of 0
	// where the account has no say. What it says is durable.
	Place(ctx context.Context, m *wire.Place, account, device dag.PublicKey, mesh bool) *wire.Place
	// Placed gives the newest word about a space; nil where there is none.
	Placed(space dag.ID) *wire.Place
}

// placeText is what a Place signs.
func placeText(network dag.PublicKey, m *wire.Place) []byte {
	b := append([]byte(domainPlace), network[:]...)
	b = append(b, m.Space[:]...)
	if m.On {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, m.Counter)
}

// newPlace is the word of this device.
func (e *Engine) newPlace(network dag.PublicKey, space dag.ID, on bool, counter uint64) *wire.Place {
	m := &wire.Place{Space: space, On: on, Counter: counter, Certificate: e.opt.Certificate.Encode()}
	copy(m.Signature[:], ed25519.Sign(e.opt.Key, placeText(network, m)))
	return m
}

// checkPlace proves by whom a word is.
func checkPlace(network dag.PublicKey, m *wire.Place) (*list.Certificate, error) {
	cert, err := list.DecodeCertificate(m.Certificate)
	if err == nil {
		err = cert.Verify()
	}
	if err == nil && (m.Counter == 0 || cert.Account == (dag.PublicKey{}) || !ed25519.Verify(cert.Device[:], placeText(network, m), m.Signature[:])) {
		err = errors.New("it is not signed so")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the word of an owner: %w", session.ErrPeer, err)
	}
	return cert, nil
}

// takePlace is a node's side: it answers the device.
func (e *Engine) takePlace(ctx context.Context, t *stream, r *remote, m *wire.Place) error {
	if e.opt.Placer == nil {
		return unexpected(m)
	}
	began := e.clock.Now()
	cert, err := checkPlace(e.opt.Network(), m)
	if err != nil {
		return err
	}
	if cert.Device != r.key || cert.Account != r.account {
		return fmt.Errorf("%w: the word of another device", session.ErrPeer)
	}
	a := e.opt.Placer.Place(ctx, m, cert.Account, cert.Device, false)
	if a.Counter == 0 {
		e.waitNo(ctx, began)
	}
	return t.write(&wire.Place{Space: m.Space, On: a.On, Counter: a.Counter})
}

// hearPlace takes a word that a fellow node passes on.
func (e *Engine) hearPlace(ctx context.Context, t *stream, r *remote, m *wire.Place) error {
	if e.opt.Placer == nil {
		return unexpected(m)
	}
	cert, err := checkPlace(e.opt.Network(), m)
	if err != nil {
		return err
	}
	e.opt.Placer.Place(ctx, m, cert.Account, cert.Device, true)
	e.mu.Lock()
	delete(r.denied, m.Space)
	e.mu.Unlock()
	if now := e.opt.Placer.Placed(m.Space); now != nil && (now.Counter > m.Counter || now.Counter == m.Counter && now.On && !m.On) {
		return t.write(now) // the other has not heard of it
	}
	return nil
}

// Place tells the nodes of a network that are connected, by this account's word as the owner of a space, whether it is to be on the network, and waits for
// their answers. told is how many took it, of asked.
func (e *Engine) Place(ctx context.Context, space dag.ID, network dag.PublicKey, on bool, counter uint64) (told, asked int) {
	m := e.newPlace(network, space, on, counter)
	var waits []chan *wire.Place
	e.mu.Lock()
	for _, r := range e.remotes {
		if r.node == nil || r.node.network != network || !r.proved || r.node.as.Load().Last {
			continue
		}
		if !r.common[space] && !r.node.Wants(space) {
			continue
		}
		done := make(chan *wire.Place, 1)
		if r.placing == nil {
			r.placing = make(map[dag.ID]chan *wire.Place)
		}
		r.placing[space] = done
		r.places = append(r.places, m)
		waits = append(waits, done)
		r.wakeTags()
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, placeWithin)
	defer cancel()
	for _, done := range waits {
		select {
		case a := <-done:
			if a.Counter == counter && a.On == on {
				told++
			}
		case <-ctx.Done():
		}
	}
	return told, len(waits)
}

// sendPlaces tells a node what is to be told of spaces. Before it is asked for spaces that left its network once, it is told that they are back.
func (e *Engine) sendPlaces(t *stream, r *remote, ids []dag.ID) error {
	e.mu.Lock()
	out := r.places
	r.places = nil
	e.mu.Unlock()
	if fn := r.node.as.Load().Placed; fn != nil {
		for _, id := range ids {
			if counter := fn(id); counter > 0 {
				out = append(out, e.newPlace(r.node.network, id, true, counter))
			}
		}
	}
	for _, m := range out {
		if err := t.write(m); err != nil {
			return err
		}
	}
	return nil
}

// placed takes a node's answer.
func (e *Engine) placed(r *remote, m *wire.Place) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if done := r.placing[m.Space]; done != nil {
		delete(r.placing, m.Space)
		done <- m
	}
}
