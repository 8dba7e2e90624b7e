package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

// What this device has and no other is known to hold, and when that is nothing.

const (
	deliverEvery = time.Second // between two times that peers are asked what they hold of it, at least
	deliverRest  = 5 * time.Minute
	deliverShare = 50                     // asking may take this part of the time
	deliverMost  = 256                    // contents at a time
	settleEvery  = 20 * time.Millisecond  // while much happens
	settleSlow   = 250 * time.Millisecond // while nothing does
	settleTell   = time.Second            // at least, so that whoever looks sees that something goes on
	settleAlone  = 5 * time.Second        // without progress, until it is said that nobody takes what is left
)

// deliver asks peers, until ctx ends, whether they hold what this device published, as long as there is something of which that is not
// known: often while they take it or there is more of it, and rarely otherwise.
func (n *network) deliver(ctx context.Context) {
	tick := time.NewTicker(deliverEvery)
	defer tick.Stop()
	for wait := deliverEvery; ; {
		began := time.Now()
		left, some := n.deliverOnce(ctx)
		rest := deliverShare * time.Since(began)
		if wait = min(2*wait, deliverRest); some {
			wait = deliverEvery
		}
		for asking := true; asking; {
			select {
			case <-ctx.Done():
				return
			case <-n.asked:
				asking = false
			case <-tick.C:
				now := n.toSend()
				if now != left {
					wait = deliverEvery
				}
				asking = now == 0 || time.Since(began) < max(wait, rest)
			}
		}
	}
}

// toSend is how much there is of which nobody is known to hold it: contents, and spaces with batches.
func (n *network) toSend() (left int) {
	for _, r := range n.h.fs.Replicas() {
		mark, _ := r.HeldUpTo()
		if left += r.ToSend(); r.Mark() > mark {
			left++
		}
	}
	return left
}

// deliverOnce asks about everything once. It returns how much is left, and whether peers hold what was not known.
func (n *network) deliverOnce(ctx context.Context) (left int, some bool) {
	for _, r := range n.h.fs.Replicas() {
		mark := r.Mark()
		counted, all := r.HeldUpTo()
		if equal, whole := n.equal(r.ID); equal && mark > counted || whole && mark > all {
			r.Held(mark, whole)
			some = true
		}
		if r.ToSend() == 0 {
			continue
		}
		held, err := n.deliverSpace(ctx, &r)
		if err != nil && !errors.Is(err, exchange.ErrOffline) && ctx.Err() == nil {
			n.h.log.Warn("what peers hold is not known", "space", r.ID, "err", err)
		}
		some = some || held
	}
	return n.toSend(), some
}

// equal reports whether a peer holds all that counts of a space, durably; whole: with what counts here alone.
func (n *network) equal(id dag.ID) (equal, whole bool) {
	for _, s := range n.engine.Status().Spaces {
		if s.ID == id {
			equal = slices.ContainsFunc(s.Peers, func(p exchange.SpacePeer) bool { return p.Equal })
			whole = slices.ContainsFunc(s.Peers, func(p exchange.SpacePeer) bool { return p.Whole })
		}
	}
	return equal, whole
}

func (n *network) deliverSpace(ctx context.Context, r *fs.Replica) (some bool, err error) {
	for after := uint64(0); ; {
		list, next, err := r.Undelivered(ctx, after, deliverMost)
		if err != nil || len(list) == 0 {
			return some, err
		}
		var ids []block.ID
		for _, d := range list {
			ids = append(ids, d.Blocks...)
		}
		missing, err := n.engine.HeldBlocks(ctx, r.ID, ids)
		if err != nil {
			return some, err
		}
		lacks := make(map[block.ID]bool, len(missing))
		for _, id := range missing {
			lacks[id] = true
		}
		held := slices.DeleteFunc(list, func(d fs.Delivery) bool {
			return slices.ContainsFunc(d.Blocks, func(id block.ID) bool { return lacks[id] })
		})
		if len(held) > 0 {
			r.Delivered(held)
			some = true
		}
		if after = next; after == 0 {
			return some, nil
		}
	}
}

// progress is how much of what wait waits for is left, and for whom it waits where nobody is there.
type progress struct {
	left  int
	alone int // of these, contents that no other device is known to hold
	text  string
	of    []string // what of it there is, by space
}

// waiting is what wait has seen.
type waiting struct {
	n     *network
	equal map[dag.ID]bool // spaces of which a peer held everything, and everything was here, at some moment since the wait began
}

// wait returns when what was done before it is held by a peer, and all that is known of is here. Where no other device is known it
// returns as soon as one would have been found.
func (n *network) wait(ctx context.Context, out sink) error {
	w := &waiting{n: n, equal: map[dag.ID]bool{}}
	most, last, told := 0, -1, ""
	var moved, said time.Time
	for {
		p, err := w.look()
		if err != nil || p.left == 0 {
			return err
		}
		select {
		case n.asked <- struct{}{}:
		default:
		}
		now := time.Now()
		if p.left != last {
			moved = now
		}
		if p.text == "" && p.left == p.alone && now.Sub(moved) > settleAlone {
			p.text = "The devices that are connected have all changes, and do not keep all content: what is on this device alone waits for one that mirrors it."
		}
		if most = max(most, p.left); p.left != last || p.text != told || now.Sub(said) >= settleTell {
			last, told, said = p.left, p.text, now
			if err := out(event{Done: int64(most - p.left), Total: int64(most), Text: p.text, Left: p.of}); err != nil {
				return err
			}
		}
		rest := min(max(settleEvery, now.Sub(moved)/16), settleSlow)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(rest):
		}
	}
}

// look gives what is left; zero when that is nothing.
func (w *waiting) look() (progress, error) {
	replicas := w.n.h.fs.Replicas()
	added, err := w.n.h.readPeers()
	if err != nil {
		return progress{}, err
	}
	st := w.n.engine.Status()
	set, err := w.n.h.readSettings()
	if err != nil {
		return progress{}, err
	}
	// A space is waited for where somebody else is to have it: a node, a device that is known to be in it, or one of this account's that
	// may come to be.
	more := w.n.anyNetwork() || w.n.ownOthers(st.Peers, added, set.Hosts)
	knows := func(r *fs.Replica, s *exchange.SpaceStatus) bool { return more || len(s.Peers) > 0 || r.Shared() }
	var p progress
	here := map[dag.ID]exchange.SpaceStatus{}
	for _, s := range st.Spaces {
		here[s.ID] = s
	}
	known := false
	for i := range replicas {
		r := &replicas[i]
		s := here[r.ID]
		if r.Left() || !knows(r, &s) {
			continue
		}
		known = true
		send, fetch, upload, old := r.ToSend(), r.ToFetch(), 0, 0
		p.alone += send
		p.left += send + fetch
		ids, names := w.n.holdersOf(r.ID)
		for i, id := range ids {
			past, looked := r.PastToUpload(names[i])
			waits, text := w.n.kept.get(pastOf{r.ID, id}, past)
			past -= waits // nobody who is there gives them
			if f, full := w.n.engine.Full(r.ID, id); full {
				p.text = fmt.Sprintf("The quota on %s is used up (%s of %s); 'anyfs status' says more.", netconf.Name(id), formatBytes(int64(f.Used)), formatBytes(int64(f.Limit)))
			} else if past > 0 && text != "" {
				p.text = fmt.Sprintf("On %s %s.", netconf.Name(id), text)
			}
			if w.n.engine.NodeOf(r.ID, id) {
				up, known := r.ToUpload(names[i])
				if !known { // it was named a moment ago, as in a new age, and is to have all
					up++
				}
				if known && !looked {
					past++
				}
				p.alone += up + past
				p.left += up + past
				upload += up
				old += past
			}
		}
		if s.ToFetch == 0 && slices.ContainsFunc(s.Peers, func(x exchange.SpacePeer) bool { return x.Equal }) {
			w.equal[r.ID] = true
		}
		if !w.equal[r.ID] {
			p.left += int(max(1, s.ToSend+s.ToFetch))
		}
		var lacks []string
		for _, x := range []struct {
			n    int
			what string
		}{
			{send, "contents that no other device is known to hold"}, {fetch, "contents to fetch"}, {upload, "contents to give to networks"}, {old, "old versions to give to networks"},
			{int(s.ToSend), "batches to send"}, {int(s.ToFetch), "batches to fetch"},
		} {
			if x.n > 0 {
				lacks = append(lacks, fmt.Sprintf("%d %s", x.n, x.what))
			}
		}
		if !w.equal[r.ID] && len(lacks) == 0 {
			if lacks = []string{"no device that has it is connected"}; len(s.Peers) > 0 {
				lacks = []string{"no connected device is known to hold all changes"}
			}
		}
		if len(lacks) > 0 {
			p.of = append(p.of, cmp.Or(r.Name(), "the list of your spaces")+": "+strings.Join(lacks, ", "))
		}
	}
	if !known {
		if time.Now().Before(w.n.meets) {
			return progress{left: 1, text: "Looking for other devices."}, nil
		}
		return progress{}, nil
	}
	// What the home space names is looked at last: when nothing was left to take in, all of it shows.
	missing, err := w.n.h.fs.Missing()
	if err != nil {
		return progress{}, err
	}
	if p.left += len(missing); len(missing) > 0 {
		p.of = append(p.of, count(len(missing), "space")+" of your other devices to fetch")
	}
	if len(w.n.h.fs.Replicas()) != len(replicas) {
		p.left++ // one came meanwhile
	}
	if p.left == 0 {
		w.n.h.nets.Lock()
		learned, err := w.n.learnHome()
		w.n.h.nets.Unlock()
		if err != nil {
			return progress{}, err
		}
		if learned { // what is done by it may give more to wait for
			p.left++
			w.n.lookAtNetworks()
		}
	}
	switch {
	case p.left == 0:
	case st.Paused:
		p.text = "The exchange is paused; 'anyfs resume' goes on with it."
	case len(st.Peers) == 0:
		p.text = "Waiting for another device: none is connected."
	}
	return p, nil
}

// ownOthers reports whether there are, or may be, other devices of this account: one is connected, or the address of one was added that
// is not known to be another account's.
func (n *network) ownOthers(connected []exchange.PeerStatus, added, hosts []string) bool {
	is := map[string]bool{}
	for _, p := range connected {
		if !p.Node && p.Account == n.h.keys.Identity {
			return true
		}
		is[p.ID] = true
	}
	return slices.ContainsFunc(added, func(addr string) bool {
		id := peerOf(addr)
		return !is[id] && !slices.Contains(hosts, id)
	})
}

// peerOf is the peer ID of an address.
func peerOf(addr string) string {
	_, id, _ := strings.Cut(addr, "/p2p/")
	return id
}
