package exchange

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// Status is what the engine is doing.
type Status struct {
	ID     string   // the peer id of this device
	Listen []string // multiaddrs with /p2p/ID; none before Run
	Paused bool
	Peers  []PeerStatus  // connected and proved, by ID
	Spaces []SpaceStatus // by ID
}

// PeerStatus is a connected peer.
type PeerStatus struct {
	ID      string
	Device  dag.PublicKey
	Account dag.PublicKey
	Addr    string
	LAN     bool
	Relayed bool          // it is connected through the relay of a node, whose address Addr is
	Node    bool          // it is a node; to a node: another one of its network
	Network dag.PublicKey // of a node
	Spaces  []dag.ID      // in common

	// Bytes of messages that went over all connections with the peer since the engine was made.
	Sent, Received uint64
}

// SpaceStatus is how far a space is.
type SpaceStatus struct {
	ID    dag.ID
	Peers []SpacePeer // that may have it
	// ToSend is how many batches the peer that holds the most is not known to hold durably. It is 0 without a peer. What counts for this
	// account alone is sent to the others too, who do not say whether they hold it: it is among these for peers of this account only.
	ToSend uint64
	// ToFetch is how many batches, at least, peers hold that are not here.
	ToFetch uint64
	// Missing is the devices that state, under their signatures, that they hold batches which no connected peer gives: they are late, or
	// kept back.
	Missing []dag.PublicKey
	// Doubts is the nodes that did not keep their word.
	Doubts []session.Doubt
	// Fetching is how many blocks are asked for now.
	Fetching int
}

// SpacePeer is how far a space is with one peer.
type SpacePeer struct {
	ID              string
	Known           bool // the peer has told what it holds
	Equal           bool // both hold the same, durably, but for what counts for this account alone and not for the peer
	Whole           bool // both hold the same, durably
	ToSend, ToFetch uint64
}

// Status returns what the engine is doing.
func (e *Engine) Status() Status {
	e.mu.Lock()
	st := Status{ID: e.self.String(), Paused: e.paused}
	running, h := e.ctx != nil, e.host
	type pair struct {
		id peer.ID
		l  *link
		s  *session.Session
	}
	sessions := make(map[*space][]pair)
	for _, sp := range e.spaces {
		sessions[sp] = nil
		for id, l := range sp.links {
			sessions[sp] = append(sessions[sp], pair{id, l, l.session.Load()})
		}
	}
	for _, r := range e.remotes {
		if r.ready() {
			p := PeerStatus{
				ID: r.id.String(), Device: r.key, Account: r.account, Addr: r.addr.String(), LAN: onLAN(r.addr), Relayed: r.relayed,
				Spaces: slices.SortedFunc(maps.Keys(r.common), dag.ID.Compare),
			}
			p.Node = r.mesh
			if r.node != nil {
				p.Node, p.Network = true, r.node.network
			}
			if t := e.traffic[r.id]; t != nil {
				p.Sent, p.Received = t.sent.Load(), t.received.Load()
			}
			st.Peers = append(st.Peers, p)
		}
	}
	e.mu.Unlock()
	type outsider struct {
		peer  string
		space dag.ID
	}
	outsiders := make(map[outsider]bool)
	for sp, pairs := range sessions {
		for _, p := range pairs {
			if !p.l.member() {
				outsiders[outsider{p.id.String(), sp.id}] = true
			}
		}
	}
	if running {
		st.Listen = addresses(h.Addrs(), e.self)
	}
	slices.SortFunc(st.Peers, func(a, b PeerStatus) int { return strings.Compare(a.ID, b.ID) })
	for i := range st.Peers {
		st.Peers[i].Spaces = slices.DeleteFunc(st.Peers[i].Spaces, func(id dag.ID) bool { return outsiders[outsider{st.Peers[i].ID, id}] })
	}
	for sp, pairs := range sessions {
		x := SpaceStatus{ID: sp.id, Missing: sp.session.Missing(), Doubts: sp.session.Doubts(), Fetching: int(sp.fetching.Load())}
		for _, p := range pairs {
			if outsiders[outsider{p.id.String(), sp.id}] {
				continue // it hears of the access list alone
			}
			y := SpacePeer{ID: p.id.String()}
			if p.s != nil {
				a, aok := p.s.Status(wire.ACL)
				f, fok := p.s.Status(wire.Files)
				y.Known = aok && fok
				y.Equal, y.Whole = y.Known && a.Equal && f.Equal, y.Known && a.Whole && f.Whole
				y.ToSend, y.ToFetch = a.ToSend+f.ToSend, a.ToFetch+f.ToFetch
			}
			x.Peers = append(x.Peers, y)
		}
		slices.SortFunc(x.Peers, func(a, b SpacePeer) int { return strings.Compare(a.ID, b.ID) })
		first := true
		for _, y := range x.Peers {
			if y.Known {
				if first || y.ToSend < x.ToSend {
					x.ToSend = y.ToSend
				}
				x.ToFetch, first = max(x.ToFetch, y.ToFetch), false
			}
		}
		st.Spaces = append(st.Spaces, x)
	}
	slices.SortFunc(st.Spaces, func(a, b SpaceStatus) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return st
}

func addresses(addrs []ma.Multiaddr, id peer.ID) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String()+"/p2p/"+id.String())
	}
	slices.Sort(out)
	return out
}
