package exchange

import (
	"context"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// remote is a peer with which a handshake is under way or done.
type remote struct {
	id   peer.ID
	key  dag.PublicKey
	addr ma.Multiaddr

	version uint64        // of the protocol, in which both go on; set by greet
	relayed bool          // it is connected through a relay
	meets   chan struct{} // a node: it may have to be told of other devices

	giving  atomic.Int32  // blocks that it gives to this node at the moment
	keeping chan struct{} // full while so many of these are hashed and written

	entry *entry       // the handshake's stream, where the peer opened it
	conn  network.Conn // the handshake's

	ctx     context.Context // ends with the handshake's stream
	cancel  context.CancelFunc
	ended   chan struct{}
	tags    chan struct{} // tags may have to be sent
	copying chan struct{} // full while blocks are copied to a node: some of one space at a time
	offers  chan struct{} // full while the peer gives an access list to this node

	toThem, toUs []byte // transcripts

	// Of sendTags alone.
	tagged map[wire.Tag]struct{} // that were sent, without those that prove nothing
	filled int                   // of all that were sent

	// What follows is guarded by Engine.mu.
	after   *remote // has its place
	theirs  map[wire.Tag]struct{}
	said    map[dag.ID]int // how many of a space's tags were sent
	common  map[dag.ID]bool
	account dag.PublicKey
	proved  bool
	counted bool                     // in Engine.guard
	invited map[dag.ID]dag.PublicKey // spaces to which it proved an invitation, with the key of that
	unknown map[dag.ID]bool          // spaces of which it proved an invitation that is none
	asked   map[*Guest]bool          // invitations that were proved to it
	guested bool                     // counted among the guests

	// As the device says to this node.
	meeting *stream // on which it does
	slot    bool    // it can be reached through the relay
	shows   bool    // a code
	tag     uint64  // of that

	node    *usedNode                   // it is a node that this device uses; nil: it is a device, or another node
	mesh    bool                        // this is a node and so is it, of the same network
	news    map[dag.ID]bool             // spaces of which content came that the peer is to be told of
	sealed  []sealedBlock               // of which the device is to be told; at most maxSealed
	denied  map[dag.ID]denial           // spaces that the node did not take
	places  []*wire.Place               // that the node is to be told
	placing map[dag.ID]chan *wire.Place // those to whom its answer goes
	gone    map[dag.ID]bool             // spaces that this node gave up, of which another is to be told
	over    map[dag.ID]bool             // spaces of which this node took something no more for a quota, of which the device is to be told
}

// newRemote begins what is known of a peer.
func newRemote(ctx context.Context, cancel context.CancelFunc, id peer.ID, key dag.PublicKey, t *stream) *remote {
	return &remote{
		id: id, key: key, addr: t.Conn().RemoteMultiaddr(), entry: t.entry, conn: t.Conn(), ctx: ctx, cancel: cancel, ended: make(chan struct{}), tags: make(chan struct{}, 1),
		relayed: relayed(t.Conn().RemoteMultiaddr()), keeping: make(chan struct{}, maxGiving), meets: make(chan struct{}, 1),
		offers: make(chan struct{}, 1), copying: make(chan struct{}, 1),
		theirs: make(map[wire.Tag]struct{}), said: make(map[dag.ID]int), common: make(map[dag.ID]bool), denied: make(map[dag.ID]denial), gone: make(map[dag.ID]bool),
		invited: make(map[dag.ID]dag.PublicKey), unknown: make(map[dag.ID]bool), asked: make(map[*Guest]bool),
	}
}

// ready says whether the peer and this device have a space in common and the peer has said who it is.
func (r *remote) ready() bool { return r.proved && len(r.common) > 0 }

func (r *remote) wakeTags() {
	select {
	case r.tags <- struct{}{}:
	default:
	}
}

// receive keeps a peer for as long as talk lasts, which gets a context that ends with the peer. A peer that broke the protocol is banned
// when it returns.
func (e *Engine) receive(ctx context.Context, id peer.ID, t *stream, what string, talk func(context.Context, *remote) error) (err error) {
	if err := e.refusal(id); err != nil {
		return err
	}
	key, err := deviceOf(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newRemote(ctx, cancel, id, key, t)
	if err := e.enter(ctx, r); err != nil {
		return err
	}
	defer e.exit(r)
	defer func() {
		if breach(err) {
			e.ban(id, what, err)
		}
	}()
	defer t.closeOn(ctx)()
	return talk(ctx, r)
}

// firstGreets says whether the one of both ends that is to greet opened the handshake's stream: where both did, on one connection, each end keeps that.
func (e *Engine) firstGreets(r *remote) bool { return (r.entry == nil) == (e.self < r.id) }

// enter makes r the remote of its peer, in the place of one before.
func (e *Engine) enter(ctx context.Context, r *remote) error {
	for {
		e.mu.Lock()
		old := e.remotes[r.id]
		if old == nil {
			defer e.mu.Unlock()
			if err := e.count(r); err != nil {
				return err
			}
			e.remotes[r.id] = r
			close(e.changed)
			e.changed = make(chan struct{})
			return nil
		}
		if old.conn == r.conn && e.firstGreets(old) && !e.firstGreets(r) && old.ctx.Err() == nil {
			e.mu.Unlock()
			return errCrossed
		}
		old.after = r
		e.mu.Unlock()
		old.cancel()
		select {
		case <-old.ended:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (e *Engine) exit(r *remote) {
	e.mu.Lock()
	delete(e.remotes, r.id)
	if r.slot {
		r.slot, r.shows = false, false
		e.wakeMeets(r)
	}
	h, after := e.host, r.after
	e.uncount(r)
	if r.guested {
		e.guard.guests--
	}
	e.mu.Unlock()
	close(r.ended)
	e.noteChange()
	if r.relayed && hasDirect(h, r.id) {
		closeRelayed(h, r.id) // the other one takes its place
		return
	}
	if after != nil { // both may have greeted: it goes on, perhaps on the same connection
		if after.conn != r.conn {
			_ = r.conn.Close()
		}
		return
	}
	e.closePeer(r.id) // a connection is of no use without it
}
