package server

import (
	"context"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/network"
)

const (
	handoverEvery  = time.Second // between two looks at what is to be handed over
	handoverWithin = 10 * time.Minute
	handoverAll    = time.Minute // between two looks at all spaces where nothing has changed: of 100,000 one takes 0.1 s
)

// handover gives up, until ctx ends, the spaces that are here and that the configuration gives to other nodes: first the devices go to these, then
// they get what they lack, as replicas do from each other, and when all of them hold all of it, it is removed here.
func (n *Node) handover(ctx context.Context) {
	tick := time.NewTicker(handoverEvery)
	defer tick.Stop()
	left := map[dag.ID]bool{} // devices have gone from these
	var seen *view            // by which all were looked at, and none is to be given up
	var at time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.changed:
			seen = nil
		case <-tick.C:
		}
		v := n.view.Load()
		if came := n.came.Swap(false); v == seen && !came && time.Since(at) < handoverAll {
			continue
		}
		seen, at = v, time.Now()
		if v.Node(n.self()) == nil {
			continue // removed: it has nobody to speak to
		}
		waiting := 0
		for _, id := range n.set.Held() {
			off := n.set.Off(id)
			if v.Has(id, n.self()) && !off {
				delete(left, id)
				continue
			}
			n.engine.Leave(id)
			if off {
				if !n.removeSpace(id) {
					seen = nil // again, soon
				}
				continue
			}
			if !left[id] {
				left[id] = true
				waiting++ // what is being taken in comes to an end
				continue
			}
			if n.giveUp(ctx, v, id) {
				delete(left, id)
			} else {
				waiting++
			}
			if ctx.Err() != nil || n.view.Load() != v {
				break
			}
		}
		if n.leaving.Store(int64(waiting)); waiting > 0 {
			seen = nil
		}
	}
}

// giveUp removes a space where all whose it is now hold it.
func (n *Node) giveUp(ctx context.Context, v *view, id dag.ID) bool {
	graphs, blocks := v.Graphs(id), v.Blocks(id)
	if len(graphs) == 0 && n.opt.Kind&network.Sync != 0 || len(blocks) == 0 && n.opt.Kind&network.File != 0 {
		return false // nobody is to have it
	}
	keys := func(list []*network.Node) (out []dag.PublicKey) {
		for _, x := range list {
			out = append(out, x.Key)
		}
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, handoverWithin)
	defer cancel()
	if n.opt.Kind&network.File == 0 {
		blocks = nil // there are none here
	}
	if err := n.engine.HeldBy(ctx, id, keys(graphs), keys(blocks)); err != nil {
		n.opt.Log.Debug("a space is not handed over yet", "space", id.String(), "err", err)
		return false
	}
	if n.view.Load() != v {
		return false // it may be this node's again
	}
	if !n.removeSpace(id) {
		return false
	}
	n.opt.Log.Info("a space was handed over", "space", id.String(), "epoch", v.Config.Epoch)
	return true
}

// removeSpace removes a space that is not to be here.
func (n *Node) removeSpace(id dag.ID) bool {
	n.set.Retire(id)
	n.engine.Forget(id)
	if err := n.set.Drop(id); err != nil {
		n.opt.Log.Error("a space is not removed", "space", id.String(), "err", err)
		return false
	}
	return true
}
