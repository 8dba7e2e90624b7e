package exchange

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/sync/wire"
)

// How a new node asks a coordinator to be taken into its network.

const (
	maxJoins   = 16 // requests to join at once
	joinWithin = 30 * time.Second
)

// ErrNotAdmitted says that a coordinator does not take a node in.
var ErrNotAdmitted = errors.New("exchange: the coordinator does not take the node in")

// Join asks a coordinator at addr, a multiaddr with /p2p/ID, to take this node in, and returns the configuration. ErrNotAdmitted is final.
// The engine runs.
func (e *Engine) Join(ctx context.Context, addr string, m *wire.Join) ([]byte, error) {
	info, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	h := e.host
	e.mu.Unlock()
	if h == nil {
		return nil, ErrOffline
	}
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "a coordinator"), joinWithin)
	defer cancel()
	if err := h.Connect(ctx, *info); err != nil {
		return nil, fmt.Errorf("exchange: reach the coordinator at %s: %w", addr, err)
	}
	t, err := e.open(ctx, info.ID, protocolJoin)
	if err != nil {
		return nil, fmt.Errorf("exchange: speak to the coordinator at %s: %w", addr, err)
	}
	defer t.Reset()
	defer t.closeOn(ctx)()
	if err := t.write(m); err != nil {
		return nil, err
	}
	t.in.Limit = wire.MaxBody
	a, err := t.read(joinWithin)
	if err != nil {
		return nil, err
	}
	switch a := a.(type) {
	case *wire.Network:
		return a.Config, nil
	case *wire.Bye:
		return nil, fmt.Errorf("%w: its token was used, has expired, or is not this coordinator's", ErrNotAdmitted)
	}
	return nil, unexpected(a)
}

// takeJoin is the coordinator's side.
func (e *Engine) takeJoin(ctx context.Context, id peer.ID, t *stream) error {
	select {
	case e.joins <- struct{}{}:
		defer func() { <-e.joins }()
	default:
		return errHellos
	}
	key, err := deviceOf(id)
	if err != nil {
		return err
	}
	began := e.clock.Now()
	m, err := t.read(helloTimeout)
	if err != nil {
		return err
	}
	j, ok := m.(*wire.Join)
	if !ok {
		return unexpected(m)
	}
	config, err := e.opt.Admit(ctx, key, j)
	if err != nil {
		e.log.Warn("a node is not taken in", "peer", id, "addr", t.Conn().RemoteMultiaddr().String(), "err", err)
		e.waitNo(ctx, began)
		t.bye(wire.ByeRefused)
		return nil
	}
	return t.write(&wire.Network{Config: config})
}
