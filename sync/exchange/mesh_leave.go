package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// How a node gives a space up: the devices first, and the other nodes when they have shown that they hold all of it.

var errLacks = errors.New("exchange: the node lacks something")

// Leave ends the exchange of a space with all devices: it is not this node's any more. Other nodes have it still, until Forget.
func (e *Engine) Leave(id dag.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.remotes {
		if !r.mesh && r.common[id] {
			e.unshare(r, id)
		}
	}
}

// unshare ends a space with a peer. Engine.mu is held.
func (e *Engine) unshare(r *remote, id dag.ID) {
	delete(r.common, id)
	delete(r.said, id)
	if sp := e.spaces[id]; sp != nil {
		if l := sp.links[r.id]; l != nil && l.r == r {
			l.stop()
		}
	}
}

// Forget ends the exchange of a space with everybody, and waits for what uses its graphs: the caller may remove it then.
func (e *Engine) Forget(id dag.ID) {
	e.mu.Lock()
	sp := e.spaces[id]
	delete(e.spaces, id)
	for _, r := range e.remotes {
		if r.mesh && r.common[id] {
			r.gone[id] = true
			r.wakeTags()
		}
		delete(r.common, id)
		delete(r.said, id)
	}
	if sp != nil {
		for _, l := range sp.links {
			l.stop()
		}
		sp.cancel()
	}
	e.mu.Unlock()
	if sp == nil {
		return
	}
	sp.end()
	e.noteChange()
}

// HeldBy returns nil if each of these nodes holds all of a space that is here, durably: the access list, with graphs the changes of files, with
// content the blocks. They are asked now. Otherwise it says what is lacking.
func (e *Engine) HeldBy(ctx context.Context, id dag.ID, graphs, content []dag.PublicKey) error {
	e.mu.Lock()
	sp := e.spaces[id]
	links := map[dag.PublicKey]*link{}
	if sp != nil {
		for _, l := range sp.links {
			if l.r.mesh && l.r.common[id] {
				links[l.r.key] = l
			}
		}
	}
	e.mu.Unlock()
	if sp == nil {
		return fmt.Errorf("%w: no node has been told of the space", ErrOffline)
	}
	for _, node := range slices.Concat(graphs, content) {
		l := links[node]
		if l == nil {
			return fmt.Errorf("%w: %x", ErrOffline, node[:4])
		}
		err := l.heldBatches(ctx, wire.ACL, sp.r.ACL)
		if err == nil && !sp.r.NoFiles && slices.Contains(graphs, node) {
			err = l.heldBatches(ctx, wire.Files, sp.r.Files)
		}
		if err != nil {
			return fmt.Errorf("%w: %x", err, node[:4])
		}
	}
	for _, node := range content {
		if err := links[node].copyAll(ctx); err != nil {
			return err
		}
	}
	return nil
}

// heldBatches returns nil if another node holds all of a graph, durably. Who holds a batch holds its past.
func (l *link) heldBatches(ctx context.Context, kind wire.Graph, g *dag.Graph) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	k, err := l.conn(false)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(g.Heads(), wire.MaxIDs) {
		n, w, err := k.ask(func(n uint64) wire.Message { return &wire.HasBatches{Request: n, Graph: kind, IDs: some} }, nil)
		if err != nil {
			return err
		}
		select {
		case <-w.done:
		case <-l.sp.e.clock.After(ioTimeout):
			err = errStalled
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		k.forget(n)
		w.mu.Lock()
		bits := w.bits
		err = errors.Join(err, w.err)
		w.mu.Unlock()
		if err != nil {
			return err
		}
		for i := range some {
			if i/8 >= len(bits) || bits[i/8]&(1<<(i%8)) == 0 {
				return errLacks
			}
		}
	}
	return nil
}

// holdsBatches answers another node.
func (l *link) holdsBatches(m *wire.HasBatches) *wire.HeldBlocks {
	a := &wire.HeldBlocks{Request: m.Request, Bits: make([]byte, (len(m.IDs)+7)/8)}
	g := l.sp.r.ACL
	if m.Graph == wire.Files {
		g = l.sp.r.Files
	}
	// What is not durable may be gone tomorrow.
	has := make([]bool, len(m.IDs))
	for i, id := range m.IDs {
		held, err := g.Has(id)
		has[i] = held && err == nil
	}
	if m.Graph == wire.Files && l.sp.r.NoFiles || l.sp.r.Durable() != nil {
		return a
	}
	for i := range has {
		if has[i] {
			a.Bits[i/8] |= 1 << (i % 8)
		}
	}
	return a
}
