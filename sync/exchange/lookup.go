package exchange

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// A new device that is to be let in by a code has no account yet, so a node serves it nothing. It asks who shows a code with its tag, which is no
// secret, and may then reach these devices through the relay for a while.

const (
	lookupFor   = 2 * time.Minute // for which a new device may reach who shows the code that it looked for
	maxLookups  = 256             // of these
	lookupBurst = 16              // questions of one address at once
	lookupEvery = time.Second     // after which it may ask one more
)

var errLookups = errors.New("exchange: too many codes are looked for")

// answerLookup is the node's side.
func (e *Engine) answerLookup(ctx context.Context, id peer.ID, t *stream, tag uint64) error {
	began := e.clock.Now()
	if !e.allowance("looks at "+addrKey(t.Conn().RemoteMultiaddr()), lookupBurst, lookupEvery) {
		return errLookups
	}
	var out wire.List[dag.PublicKey]
	e.mu.Lock()
	for _, r := range e.remotes {
		if r.slot && r.shows && r.tag == tag && len(out) < wire.MaxPresent {
			out = append(out, r.key)
		}
	}
	for p, x := range e.lookups {
		if !began.Before(x.until) {
			delete(e.lookups, p)
		}
	}
	if len(out) > 0 {
		if len(e.lookups) >= maxLookups {
			e.mu.Unlock()
			return errLookups
		}
		e.lookups[id] = foundCode{tag, began.Add(lookupFor)}
	}
	e.mu.Unlock()
	e.waitNo(ctx, began)
	var ms []wire.Message
	if e.opt.Config != nil {
		ms = append(ms, &wire.Network{Config: e.opt.Config()})
	}
	return t.write(append(ms, &wire.Present{Devices: out})...)
}

// Bounds of who looks for a code.
const (
	maxAsked   = 32              // nodes that are asked
	askedOnce  = 4               // at once
	lookAgain  = 3 * time.Second // after all were asked
	lookWithin = 30 * time.Second
)

// askNodes asks nodes which devices show the code, again and again until ctx ends, and gives each to found with the way to it.
func (a *Asker) askNodes(ctx context.Context, e *Engine, h host.Host, nodes map[peer.ID]*peer.AddrInfo, found func(peer.AddrInfo)) {
	var infos []peer.AddrInfo
	for _, n := range nodes {
		if infos = append(infos, *n); len(infos) == maxAsked {
			break
		}
	}
	for {
		var wg sync.WaitGroup
		turn := make(chan struct{}, askedOnce)
		for _, n := range infos {
			wg.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				devices, err := a.lookup(ctx, e, h, n)
				if err != nil {
					e.log.Debug("a node does not tell who shows a code", "peer", n.ID, "err", err)
				}
				via, err := ma.NewMultiaddr("/p2p/" + n.ID.String() + "/p2p-circuit")
				for i := 0; i < len(devices) && err == nil; i++ {
					if id, err := peer.Decode(list.PeerID(devices[i])); err == nil {
						found(peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{via}})
					}
				}
			})
		}
		wg.Wait()
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return
		}
	}
}

// lookup asks one node.
func (a *Asker) lookup(ctx context.Context, e *Engine, h host.Host, n peer.AddrInfo) ([]dag.PublicKey, error) {
	ctx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, "a node"), lookWithin)
	defer cancel()
	if err := h.Connect(ctx, n); err != nil {
		return nil, err
	}
	t, err := e.open(ctx, n.ID, protocolMeet)
	if err != nil {
		return nil, err
	}
	defer t.Reset()
	defer t.closeOn(ctx)()
	if err := t.write(&wire.Lookup{Tag: a.Code.Tag()}); err != nil {
		return nil, err
	}
	t.in.Limit = wire.MaxBody
	for range 2 {
		m, err := t.read(helloTimeout)
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *wire.Network:
			if a.Config != nil {
				a.Config(m.Config)
			}
		case *wire.Present:
			return m.Devices, nil
		default:
			return nil, unexpected(m)
		}
	}
	return nil, errors.New("exchange: a node that tells a configuration twice")
}
