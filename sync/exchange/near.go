package exchange

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
)

// An invitation names nodes of the space, which may be none of a network that this device uses. It visits them for that space alone: as a guest, who
// proves the invitation, and afterwards as a member, so that it finds the others there. It gives them no content.

// maxNear is how many nodes are visited so.
const maxNear = 64

// Near has this device visit nodes for a space, whatever else they are used for: multiaddrs with /p2p/ID, or addresses through them. It replaces
// what was said of the space before; none ends it. Those beyond the bound are passed over.
func (e *Engine) Near(space dag.ID, addrs []string) error {
	var infos []peer.AddrInfo
	for _, a := range addrs {
		info, err := splitAddr(directPart(a))
		if err != nil {
			return err
		}
		infos = append(infos, *info)
	}
	e.mu.Lock()
	gone := e.nearLocked(space, &infos)
	e.mu.Unlock()
	e.visitOthers(gone, infos)
	return nil
}

// visitOthers ends the connections to nodes that are visited for nothing any more, and begins those to others.
func (e *Engine) visitOthers(gone []peer.ID, infos []peer.AddrInfo) {
	for _, id := range gone {
		e.closePeer(id)
	}
	for _, info := range infos {
		e.want(info, true)
	}
	e.mu.Lock()
	e.kickNodes()
	e.mu.Unlock()
}

// nearLocked notes which nodes are visited for a space, and gives those that are visited for nothing any more. It leaves out of infos what is beyond
// the bound. Engine.mu is held.
func (e *Engine) nearLocked(space dag.ID, infos *[]peer.AddrInfo) (gone []peer.ID) {
	for id, spaces := range e.near {
		delete(spaces, space)
		if len(spaces) == 0 && !slices.ContainsFunc(*infos, func(i peer.AddrInfo) bool { return i.ID == id }) {
			delete(e.near, id)
			delete(e.nearNodes, id)
			if d := e.dials[id]; d != nil && e.nodes[id] == nil {
				d.stop()
				delete(e.dials, id)
				gone = append(gone, id)
			}
		}
	}
	*infos = slices.DeleteFunc(*infos, func(i peer.AddrInfo) bool {
		if e.near[i.ID] == nil {
			if i.ID == e.self || len(e.near) >= maxNear {
				return true
			}
			e.near[i.ID] = make(map[dag.ID]bool)
		}
		e.near[i.ID][space] = true
		return false
	})
	for id, spaces := range e.near {
		var all []dag.ID
		for s := range spaces {
			all = append(all, s)
		}
		u := e.nearNodes[id]
		if u == nil {
			u = &usedNode{near: true, since: e.clock.Now()}
			e.nearNodes[id] = u
		}
		u.as.Store(&Node{Wants: func(s dag.ID) bool { return slices.Contains(all, s) }, Files: func(dag.ID) bool { return false }})
		if r := e.remotes[id]; r != nil {
			r.wakeTags()
		}
	}
	return gone
}

// nodeLocked gives what a peer is to this device as a node; nil: it is none. Engine.mu is held.
func (e *Engine) nodeLocked(id peer.ID) *usedNode {
	if n := e.nodes[id]; n != nil {
		return n
	}
	return e.nearNodes[id]
}
