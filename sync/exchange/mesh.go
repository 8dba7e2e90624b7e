package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// The nodes of a network know each other by its configuration, and the transport proves who is who. Each tells each which of the spaces that
// it holds the other is to have; the other takes the access lists of those that it lacks. Then the space is common, and all goes as between
// devices, but that blocks are copied by who has them.

// Mesh is what a node knows of the other nodes of its network. All calls but Take are quick, and are made with locks held but for Space.
type Mesh interface {
	// Peer reports whether a node is of the network.
	Peer(node dag.PublicKey) bool
	// Owner reports whether a node is to have a space.
	Owner(node dag.PublicKey, space dag.ID) bool
	// Keeper reports whether a node is to have the content of a space.
	Keeper(node dag.PublicKey, space dag.ID) bool
	// Hear takes a configuration, which proves nothing yet.
	Hear(config []byte)
	// Held gives the spaces that are here, in order.
	Held() []dag.ID
	// Space gives a space that is here; nil where it is not. It may take a while.
	Space(id dag.ID) *Replica
	// Take takes a space in by the frames of its access list, where this node is to have it; else nil.
	Take(ctx context.Context, id dag.ID, frames [][]byte) *Replica
}

const (
	meshAgain = 5 * time.Second // what another node did not take is told of again; doubled each time
	meshMax   = time.Minute     // at most
	meshGone  = time.Second     // what another node gave up
	meshLook  = 2 * time.Second // between two looks at what another node is to be told
	meshRest  = 500             // times what a look took are between two at least; a twenty-fifth where something has changed
	meshChunk = 1024            // spaces that are looked at without letting others go on
)

var errNoNode = errors.New("exchange: it is no node of this network")

// SetMesh says at which addresses the other nodes of the network are, in the place of those before: multiaddrs with /p2p/ID.
func (e *Engine) SetMesh(addrs []string) error {
	next := map[peer.ID]bool{}
	var infos []peer.AddrInfo
	for _, a := range addrs {
		info, err := splitAddr(a)
		if err != nil {
			return err
		}
		if info.ID != e.self {
			next[info.ID] = true
			infos = append(infos, *info)
		}
	}
	var gone []peer.ID
	e.mu.Lock()
	for id, d := range e.dials {
		if !next[id] {
			d.stop()
			delete(e.dials, id)
			gone = append(gone, id)
		}
	}
	for _, r := range e.remotes {
		r.wakeTags()
	}
	h := e.host
	e.mu.Unlock()
	for _, id := range gone {
		e.closePeer(id)
	}
	for _, info := range infos {
		e.want(info, true)
		// One that is connected already was not known as a node until now.
		if h != nil && h.Network().Connectedness(info.ID) == network.Connected {
			e.start(func(ctx context.Context) { e.connected(ctx, info.ID) })
		}
	}
	return nil
}

// greetNode greets another node that has connected, or was connected to.
func (e *Engine) greetNode(ctx context.Context, id peer.ID) {
	key, err := deviceOf(id)
	if err != nil || !e.opt.Mesh.Peer(key) {
		return
	}
	if !e.begins(ctx, id) {
		return
	}
	t, err := e.open(ctx, id, protocolMesh)
	if err == nil {
		defer t.closeOn(ctx)()
		err = e.takeMesh(ctx, id, t)
		_ = t.Reset()
	}
	e.failed(id, "mesh", err)
	e.closePeer(id)
}

// takeMesh is either side.
func (e *Engine) takeMesh(ctx context.Context, id peer.ID, t *stream) error {
	return e.receive(ctx, id, t, "mesh", func(ctx context.Context, r *remote) error { return e.mesh(ctx, t, r) })
}

func (e *Engine) mesh(ctx context.Context, t *stream, r *remote) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer r.cancel()
	wg.Go(func() {
		select {
		case <-e.clock.After(helloWithin):
			e.mu.Lock()
			defer e.mu.Unlock()
			if !r.proved {
				r.cancel()
			}
		case <-ctx.Done():
		}
	})
	if err := e.greet(t, r); err != nil {
		return err
	}
	// The configurations go first: who has the newer one says who is a node.
	t.in.Limit = wire.MaxBody
	var sent []byte
	if err := e.sendConfig(t, &sent); err != nil {
		return err
	}
	m, err := t.read(helloTimeout)
	if err != nil {
		return err
	}
	c, ok := m.(*wire.Network)
	if !ok {
		return unexpected(m)
	}
	e.opt.Mesh.Hear(c.Config)
	if !e.opt.Mesh.Peer(r.key) {
		t.bye(wire.ByeRefused)
		return errNoNode
	}
	e.mu.Lock()
	r.proved, r.mesh = true, true
	e.uncount(r)
	e.guard.known(r.entry)
	if d := e.dials[r.id]; d != nil {
		d.wait = 0
	}
	e.mu.Unlock()
	e.noteChange()

	told := make(chan []dag.ID, 64)
	wg.Go(func() {
		if err := e.sendMesh(ctx, t, r, &sent); err != nil && ctx.Err() == nil {
			e.log.Debug("a node is not told of spaces", "peer", r.id, "err", err)
		}
		r.cancel()
	})
	wg.Go(func() {
		if err := e.takeTold(ctx, t, r, told); err != nil && ctx.Err() == nil {
			e.log.Debug("a node's spaces are not taken", "peer", r.id, "err", err)
		}
		r.cancel()
	})
	for {
		m, err := t.read(0)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.Network:
			e.opt.Mesh.Hear(m.Config)
			e.mu.Lock()
			clear(r.denied) // what was not its before may be now
			e.mu.Unlock()
			r.wakeTags()
			if !e.opt.Mesh.Peer(r.key) {
				t.bye(wire.ByeRefused)
				return errNoNode
			}
		case *wire.Spaces:
			select {
			case told <- m.IDs:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case *wire.Place:
			if err := e.hearPlace(ctx, t, r, m); err != nil {
				return err
			}
		case *wire.Served:
			e.meshServed(r, m.IDs)
		case *wire.Absent:
			e.mu.Lock()
			for _, id := range m.IDs {
				if r.said[id] == 0 && !r.common[id] {
					continue // of which nothing was said: what a node tells without end takes no memory
				}
				wait := meshGone // it gave the space up, which it may be to have again
				if r.said[id] == wanted {
					wait = min(max(2*r.denied[id].wait, meshAgain), meshMax)
				}
				e.unshare(r, id)
				r.denied[id] = denial{wait, e.clock.Now().Add(jitter(wait))}
				r.said[id] = isOffered
			}
			e.mu.Unlock()
		case *wire.Bye:
			return fmt.Errorf("%w: reason %d", errBye, m.Reason)
		default:
			return unexpected(m)
		}
	}
}

// sendMesh tells another node of the configuration as it changes, and of the spaces here that it is to have. To look through a hundred thousand of them for each of many nodes
// takes its time: the longer, the longer until the next look.
func (e *Engine) sendMesh(ctx context.Context, t *stream, r *remote, sent *[]byte) error {
	var due, rest time.Time
	for woken := true; ; {
		if err := e.sendConfig(t, sent); err != nil {
			return err
		}
		now, wait := e.clock.Now(), meshLook
		switch {
		case !now.Before(due), woken && !now.Before(rest):
			gone, ids := e.meshNews(r, now)
			took := e.clock.Now().Sub(now)
			due, rest, woken = now.Add(max(meshLook, meshRest*took)), now.Add(meshRest/25*took), false
			for some := range slices.Chunk(gone, wire.MaxIDs) {
				if err := t.write(&wire.Absent{Graph: wire.ACL, IDs: some}); err != nil {
					return err
				}
			}
			if err := t.writeSpaces(ids); err != nil {
				return err
			}
		case woken:
			wait = min(meshLook, rest.Sub(now))
		}
		select {
		case <-r.tags:
			woken = true
		case <-e.clock.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// meshNews gives the spaces that another node is to hear are not given here any more, and those that it is to have.
func (e *Engine) meshNews(r *remote, now time.Time) (gone, ids wire.List[dag.ID]) {
	e.mu.Lock()
	for id := range r.gone {
		if !r.common[id] {
			gone = append(gone, id)
		}
	}
	clear(r.gone)
	e.mu.Unlock()
	for some := range slices.Chunk(e.opt.Mesh.Held(), meshChunk) {
		e.mu.Lock()
		for _, id := range some {
			if r.common[id] || !e.opt.Mesh.Owner(r.key, id) {
				continue
			}
			if no := r.denied[id]; r.said[id] == 0 || r.said[id] == isOffered && !now.Before(no.until) || r.said[id] == isServed {
				r.said[id] = wanted
				ids = append(ids, id)
			}
		}
		e.mu.Unlock()
	}
	return gone, ids
}

// SpaceCame has the other nodes told of a space that came to this one.
func (e *Engine) SpaceCame() { e.retag() }

// meshServed begins what another node has too now.
func (e *Engine) meshServed(r *remote, ids []dag.ID) {
	for _, id := range ids {
		// It may have been given up here since it was told of: then the other has to hear that.
		common := e.common(r, e.opt.Mesh.Space(id))
		e.mu.Lock()
		delete(r.denied, id)
		if r.said[id] = isServed; !common {
			if delete(r.said, id); len(r.gone) < maxVisited {
				r.gone[id] = true
			}
			r.wakeTags()
		}
		e.mu.Unlock()
	}
	e.meet(r)
}

// takeTold takes the spaces that another node tells of.
func (e *Engine) takeTold(ctx context.Context, t *stream, r *remote, told <-chan []dag.ID) error {
	for {
		var ids []dag.ID
		select {
		case ids = <-told:
		case <-ctx.Done():
			return nil
		}
		var yes, no wire.List[dag.ID]
		for _, id := range ids {
			if ctx.Err() != nil {
				return nil
			}
			if e.opt.Placer != nil {
				if off := e.opt.Placer.Placed(id); off != nil && !off.On { // the other has not heard of it
					if err := t.write(off); err != nil {
						return err
					}
				}
			}
			if e.common(r, e.takeFrom(ctx, r, id)) {
				yes = append(yes, id)
			} else {
				no = append(no, id)
			}
		}
		if err := t.write(served(yes, no)...); err != nil {
			return err
		}
		e.meet(r)
	}
}

// takeFrom gives a space that another node has, which is here or is to be; nil where it is not.
func (e *Engine) takeFrom(ctx context.Context, r *remote, id dag.ID) *Replica {
	if !e.opt.Mesh.Owner(e.key, id) {
		return nil
	}
	if have := e.opt.Mesh.Space(id); have != nil {
		return have
	}
	ctx, cancel := context.WithTimeout(ctx, takeWithin)
	defer cancel()
	frames, err := e.fetchACL(ctx, r.id, id)
	if err != nil {
		e.log.Debug("the access list of a space does not come from a node", "peer", r.id, "space", id.String(), "err", err)
		return nil
	}
	return e.opt.Mesh.Take(ctx, id, frames)
}

// meshSpace gives a space that another node is to have.
func (e *Engine) meshSpace(_ context.Context, r *remote, id dag.ID) *Replica {
	if !e.opt.Mesh.Owner(r.key, id) {
		return nil
	}
	return e.opt.Mesh.Space(id)
}

// notCommon has another node told that a space is not in common, of which it opened a stream: it tells of the space anew.
func (e *Engine) notCommon(id peer.ID, space dag.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.remotes[id]; r != nil && r.mesh && !r.common[space] && len(r.gone) < maxVisited {
		r.gone[space] = true
		r.wakeTags()
	}
}

// Mesh gives the other nodes of the network that are connected.
func (e *Engine) Mesh() map[dag.PublicKey]bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[dag.PublicKey]bool{}
	for _, r := range e.remotes {
		if r.mesh {
			out[r.key] = true
		}
	}
	return out
}
