package exchange

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

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
