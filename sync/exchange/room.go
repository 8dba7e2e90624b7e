package exchange

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// A device that has content of history to give asks how much of the quota is used: what is current, and changes, are to find room later.

// ErrNotSaid is returned where a node is of a version that does not say how much of a quota is used.
var ErrNotSaid = errors.New("exchange: the node does not say how much of a quota is used")

// Room asks a node of a space and network how many bytes are used of the quota of which least is left; a limit of 0: none holds. ErrOffline when no node
// that keeps content is connected.
func (e *Engine) Room(ctx context.Context, id dag.ID, network dag.PublicKey) (used, limit int64, err error) {
	err = ErrOffline
	for _, l := range e.nodeLinks(id, network) {
		if used, limit, err = l.room(ctx); err == nil {
			break
		}
	}
	return used, limit, err
}

func (l *link) room(ctx context.Context) (used, limit int64, err error) {
	if !l.sp.e.saysRoom(l.r.id) {
		return 0, 0, ErrNotSaid
	}
	t, err := l.sp.e.open(ctx, l.r.id, protocolRoom)
	if err != nil {
		return 0, 0, err
	}
	defer t.closeOn(ctx)()
	defer t.Reset()
	if err := t.write(&wire.Open{Space: l.sp.id}); err != nil {
		return 0, 0, err
	}
	m, err := t.read(ioTimeout)
	if err != nil {
		return 0, 0, err
	}
	q, ok := m.(*wire.Quota)
	if !ok || q.Space != l.sp.id {
		err := unexpected(m)
		l.sp.e.failed(l.r.id, "room", err)
		return 0, 0, err
	}
	return int64(q.Used), int64(q.Limit), nil
}

// saysRoom reports whether a connected node is of a version that can be asked.
func (e *Engine) saysRoom(id peer.ID) bool {
	e.mu.Lock()
	h := e.host
	e.mu.Unlock()
	known, err := h.Peerstore().SupportsProtocols(id, protocolRoom)
	return err != nil || len(known) > 0
}

// takeRoom is the node's side.
func (e *Engine) takeRoom(ctx context.Context, id peer.ID, t *stream) error {
	l, err := e.openedLink(ctx, id, t)
	if err != nil {
		return err
	}
	defer l.sp.running.Done()
	defer t.closeOn(l.ctx)()
	q := &wire.Quota{Space: l.sp.id}
	if fn := l.sp.r.Room; fn != nil && !l.r.mesh && l.member() {
		if used, limit := fn(l.r.account); limit > 0 {
			q.Used, q.Limit = uint64(max(used, 0)), uint64(limit)
		}
	}
	if err := t.write(q); err != nil {
		return err
	}
	return t.CloseWrite()
}

// Lacking returns those of the blocks that no node of a space and network holds durably, in no order. ErrOffline when none that keeps content is connected.
func (e *Engine) Lacking(ctx context.Context, id dag.ID, network dag.PublicKey, blocks []block.ID) (missing []block.ID, err error) {
	missing, err = blocks, ErrOffline
	for _, l := range e.nodeLinks(id, network) {
		rest, lerr := l.heldBlocks(ctx, missing)
		if lerr != nil {
			err = lerr
			continue
		}
		if missing, err = rest, nil; len(rest) == 0 {
			break
		}
	}
	return missing, err
}
