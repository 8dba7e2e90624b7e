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
	"github.com/anyfs/anyfs/dag/block"
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
	meshAgain   = 5 * time.Second  // what another node did not take is told of again; doubled each time
	meshMax     = time.Minute      // at most
	meshGone    = time.Second      // what another node gave up
	meshLook    = 2 * time.Second  // between two looks at what another node is to be told
	copyAll     = 10 * time.Minute // between two times that another node is asked about all blocks
	copyAgain   = 5 * time.Second  // after copies that failed; doubled each time
	copyAgainTo = time.Minute
	maxFresh    = 4096 // blocks that came and are to be copied; with more, all are asked about
	maxJoins    = 16   // requests to join at once
	joinWithin  = 30 * time.Second
)

var (
	// ErrNotAdmitted says that a coordinator does not take a node in.
	ErrNotAdmitted = errors.New("exchange: the coordinator does not take the node in")

	errNoNode = errors.New("exchange: it is no node of this network")
)

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

// sendMesh tells another node of the configuration as it changes, and of the spaces here that it is to have.
func (e *Engine) sendMesh(ctx context.Context, t *stream, r *remote, sent *[]byte) error {
	for {
		if err := e.sendConfig(t, sent); err != nil {
			return err
		}
		var ids, gone wire.List[dag.ID]
		held := e.opt.Mesh.Held()
		e.mu.Lock()
		for id := range r.gone {
			if !r.common[id] {
				gone = append(gone, id)
			}
		}
		clear(r.gone)
		now := e.clock.Now()
		for _, id := range held {
			if r.common[id] || !e.opt.Mesh.Owner(r.key, id) {
				continue
			}
			if no := r.denied[id]; r.said[id] == 0 || r.said[id] == isOffered && !now.Before(no.until) || r.said[id] == isServed {
				r.said[id] = wanted
				ids = append(ids, id)
			}
		}
		e.mu.Unlock()
		for some := range slices.Chunk(gone, wire.MaxIDs) {
			if err := t.write(&wire.Absent{Graph: wire.ACL, IDs: some}); err != nil {
				return err
			}
		}
		for some := range slices.Chunk(ids, wire.MaxIDs) {
			if err := t.write(&wire.Spaces{IDs: some}); err != nil {
				return err
			}
		}
		select {
		case <-r.tags:
		case <-e.clock.After(meshLook):
		case <-ctx.Done():
			return nil
		}
	}
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
			if e.common(r, e.takeFrom(ctx, r, id)) {
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
			out = append(out, &wire.Absent{Graph: wire.ACL, IDs: no})
		}
		if err := t.write(out...); err != nil {
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

// fresh is the blocks that came to a space and that another node is to be given.
type fresh struct {
	mu     sync.Mutex
	ids    []block.ID
	missed bool // there were too many: all are asked about
	wake   chan struct{}
}

func (f *fresh) add(id block.ID) {
	f.mu.Lock()
	if len(f.ids) < maxFresh {
		f.ids = append(f.ids, id)
	} else {
		f.ids, f.missed = nil, true
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take gives what came since the last call; all reports that there was more.
func (f *fresh) take() (ids []block.ID, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids, all = f.ids, f.missed
	f.ids, f.missed = nil, false
	return ids, all
}

// copySoon has a block that a device gave copied to the other nodes that are to have it.
func (sp *space) copySoon(id block.ID) {
	sp.e.mu.Lock()
	defer sp.e.mu.Unlock()
	for _, l := range sp.links {
		if l.r.mesh {
			l.fresh.add(id)
		}
	}
}

// keepCopied gives another node the blocks of the space that it lacks, for as long as it is connected: all at first and now and then, and
// those that come as they come.
func (l *link) keepCopied(ctx context.Context) {
	e := l.sp.e
	wait, all := copyAgain, true
	for {
		var err error
		ids, missed := l.fresh.take()
		all = all || missed
		switch {
		case !e.opt.Mesh.Keeper(l.r.key, l.sp.id):
		case all:
			err = l.copyAll(ctx)
		case len(ids) > 0:
			_, err = l.copyTo(ctx, ids)
		}
		if ctx.Err() != nil {
			return
		}
		next := copyAll
		if all = err != nil; all {
			e.log.Debug("blocks are not copied to a node", "peer", l.r.id, "space", l.sp.id.String(), "err", err)
			next, wait = jitter(wait), min(2*wait, copyAgainTo)
		} else {
			wait = copyAgain
		}
		select {
		case <-l.fresh.wake:
			if err != nil {
				// Who fails is not asked at each block.
				select {
				case <-e.clock.After(time.Second):
				case <-ctx.Done():
				}
			}
		case <-e.clock.After(next):
			all = true
		case <-ctx.Done():
		}
	}
}

// copyAll gives another node all blocks that it lacks.
func (l *link) copyAll(ctx context.Context) error {
	var page []block.ID
	var failed error
	some := func() error {
		_, err := l.copyTo(ctx, page)
		page = page[:0]
		return err
	}
	err := l.sp.r.Blocks.All(ctx, func(id block.ID, _ int64) error {
		if page = append(page, id); len(page) < wire.MaxIDs {
			return nil
		}
		failed = some()
		return failed
	})
	if err == nil && len(page) > 0 {
		err = some()
	}
	return err
}

var errLacks = errors.New("exchange: the node lacks something")

// copyTo gives another node blocks, those of one space at a time. It fails where it does not hold all of them then.
func (l *link) copyTo(ctx context.Context, ids []block.ID) (lacks []block.ID, err error) {
	select {
	case l.r.copying <- struct{}{}:
		defer func() { <-l.r.copying }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	lacks, err = l.upload(ctx, ids)
	if err == nil && len(lacks) > 0 {
		err = fmt.Errorf("%w: %d of %d", errLacks, len(lacks), len(ids))
	}
	return lacks, err
}

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
	sp.running.Wait()
	sp.session.Close()
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
