package exchange

import (
	"context"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// maxAccess bounds the bytes of an access list that is fetched whole: one of 10,000 members takes about 110 MB.
const maxAccess = 128 << 20

var errLongAccess = fmt.Errorf("exchange: an access list of more than %d MiB", maxAccess>>20)

// FetchACL asks the connected peers of this account, and the nodes of its network, for the access list of a space that is known here by its ID alone. The
// frames come in an order in which each follows its past; who has asked judges them. ErrOffline when no peer of the account
// is connected, dag.ErrNotFound when none has the space.
func (e *Engine) FetchACL(ctx context.Context, id dag.ID) ([][]byte, error) {
	e.seek(id)
	return e.askACL(ctx, id, e.account)
}

// AskACL is FetchACL of a space that another account may have begun: its connected devices are asked in the place of this account's, and those
// nodes that are connected anyhow.
func (e *Engine) AskACL(ctx context.Context, id dag.ID, of dag.PublicKey) ([][]byte, error) {
	return e.askACL(ctx, id, of)
}

func (e *Engine) askACL(ctx context.Context, id dag.ID, of dag.PublicKey) ([][]byte, error) {
	var peers []peer.ID
	e.mu.Lock()
	for _, r := range e.remotes {
		if r.ready() && r.node == nil && r.account == of || r.proved && r.node != nil && r.node.Wants(id) {
			peers = append(peers, r.id)
		}
	}
	e.mu.Unlock()
	err := ErrOffline
	for _, p := range peers {
		frames, ferr := e.fetchACL(ctx, p, id)
		if ferr == nil {
			return frames, nil
		}
		e.failed(p, "access", ferr)
		if err = ferr; ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("exchange: access list of %s: %w", id, err)
}

func (e *Engine) fetchACL(ctx context.Context, p peer.ID, id dag.ID) ([][]byte, error) {
	t, err := e.open(ctx, p, protocolAccess)
	if err != nil {
		return nil, err
	}
	defer t.closeOn(ctx)()
	defer t.Reset()
	if err := t.write(&wire.Ask{Space: id}); err != nil {
		return nil, err
	}
	t.in.Limit = wire.MaxBody
	var frames [][]byte
	for {
		m, err := t.read(ioTimeout)
		if err != nil {
			return nil, err
		}
		switch m := m.(type) {
		case *wire.Frames:
			frames = append(frames, m.Frames...)
			if t.in.Bytes > maxAccess {
				return nil, errLongAccess
			}
		case *wire.End:
			return frames, nil
		case *wire.Absent:
			return nil, dag.ErrNotFound
		default:
			return nil, unexpected(m)
		}
	}
}

// takeAccess gives the access list of a space to a device of this account, or of a member's.
func (e *Engine) takeAccess(ctx context.Context, id peer.ID, t *stream) error {
	m, err := t.read(openTimeout)
	if err != nil {
		return err
	}
	if o, ok := m.(*wire.Open); ok && e.opt.Serve != nil {
		return e.takeList(ctx, id, t, o.Space)
	}
	ask, ok := m.(*wire.Ask)
	if !ok {
		return unexpected(m)
	}
	if e.opt.Serve != nil {
		if began := e.clock.Now(); e.serveTo(ctx, id, ask.Space) {
			e.meetPeer(id)
		} else {
			e.waitNo(ctx, began)
		}
	}
	var sp *space
	ended, asks := context.Background(), false
	var key, account dag.PublicKey
	e.mu.Lock()
	if r := e.remotes[id]; r != nil && r.ready() {
		s := e.spaces[ask.Space]
		if s != nil && s.ctx != nil && s.ctx.Err() == nil && (e.opt.Serve == nil && (r.account == e.account || s.r.Member != nil) || r.common[ask.Space]) {
			sp, ended, asks = s, s.ctx, !r.common[ask.Space]
			key, account = r.key, r.account
			sp.running.Add(1)
		}
	}
	e.mu.Unlock()
	if sp != nil && asks && sp.r.Member != nil && !sp.r.Member(account, key) {
		sp.running.Done() // no member's, or a device that was revoked
		sp = nil
	}
	if sp == nil {
		return t.write(&wire.Absent{Graph: wire.ACL, IDs: wire.List[dag.ID]{ask.Space}})
	}
	defer sp.running.Done()
	defer t.closeOn(ended)() // a peer that does not read keeps no space from going
	err = sp.r.ACL.FramesSince(nil, func(_ dag.ID, frame []byte) error {
		return t.write(&wire.Frames{Graph: wire.ACL, Frames: [][]byte{frame}})
	})
	if err != nil {
		return err
	}
	return t.write(&wire.End{Graph: wire.ACL})
}
