package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

// What is given of the history: after all that is current, and for a while only, so that what has become current meanwhile comes next; so many blocks at a
// time, of which so many are remembered to be there.
const (
	pastFor   = 5 * time.Second
	pastStep  = 32
	pastKnown = 1 << 16
)

// pastRoom is which part of a quota the history leaves to what is current, and to changes: nodes let go of nothing.
const pastRoom = 4

// pastUploads gives networks what only history shows. One goroutine has it.
type pastUploads struct {
	n      *network
	failed map[dag.ID]time.Time // when a space could not be looked through
	after  map[pastOf]uint64    // up to where the list was gone through, where that was not to its end
	waits  map[pastOf]int       // how many contents on the way there another network may be all to have

	current map[netconf.ID]int // contents that are current and the networks lack when all are given that can be; nil between two rounds
}

// moreCurrent reports whether something became current since the round began that a network lacks.
func (p *pastUploads) moreCurrent(id netconf.ID) bool {
	now := p.n.currentFor(id)
	before, ok := p.current[id]
	if ok {
		return now > before
	}
	if p.current == nil {
		p.current = map[netconf.ID]int{}
	}
	p.current[id] = now
	return false
}

// look has each space look for a moment at what networks that are new lack of its history.
func (p *pastUploads) look(ctx context.Context) {
	for _, r := range p.n.h.fs.Replicas() {
		if at, ok := p.failed[r.ID]; ok && time.Since(at) < uploadRest {
			continue
		}
		delete(p.failed, r.ID)
		if _, err := r.LookAtPast(ctx); err != nil && ctx.Err() == nil {
			p.failed[r.ID] = time.Now()
			p.n.h.log.Warn("what of the history the nodes are to have is not known", "space", r.ID, "err", err)
		}
	}
}

// pastOf is a space on a network.
type pastOf struct {
	space dag.ID
	id    netconf.ID
}

// pastKept says of spaces on networks what history does not go there now.
type pastKept struct {
	mu sync.Mutex
	of map[pastOf]keptBack
}

// keptBack is why history does not go to a network, and what.
type keptBack struct {
	quota exchange.Full // is used so far that the rest is left to what is current; with a Limit of 0 it is not
	waits int           // contents that another network may be all to have, which did not give them when all were gone through last
}

// note changes what is known of a space on a network.
func (k *pastKept) note(of pastOf, fn func(*keptBack)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	x := k.of[of]
	if fn(&x); x == (keptBack{}) {
		delete(k.of, of)
		return
	}
	if k.of == nil {
		k.of = map[pastOf]keptBack{}
	}
	k.of[of] = x
}

// get gives how many of some contents that a network lacks this device cannot give now, and why they do not go there; empty where nothing is kept back.
func (k *pastKept) get(of pastOf, past int) (waits int, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	x := k.of[of]
	switch waits = min(x.waits, past); {
	case past == 0:
	case x.quota.Limit > 0:
		text = fmt.Sprintf("old versions wait: %s of %s of the quota are used, and the rest is left to what is current; ask its operator for more, or let go of old "+
			"versions with 'anyfs prune'", formatBytes(int64(x.quota.Used)), formatBytes(int64(x.quota.Limit)))
	case waits > 0:
		text = fmt.Sprintf("%s may be on another network of the space alone, which does not give them now; it has to be reached, or the space taken off it with --force",
			count(waits, "old version"))
	}
	return waits, text
}

// errRest ends a round that goes on later.
var errRest = errors.New("the rest is given later")

// give gives a network what it lacks of the history, for a while.
func (p *pastUploads) give(ctx context.Context, t uploadTo) (some bool, err error) {
	of := pastOf{t.r.ID, t.id}
	if left, _ := t.r.PastToUpload(t.name); left == 0 {
		delete(p.after, of)
		p.n.kept.note(of, func(x *keptBack) { *x = keptBack{} })
		return false, nil
	}
	r := pastRound{t: t, n: p.n, p: p, until: time.Now().Add(pastFor), held: map[block.ID]bool{}}
	for {
		list, next, err := t.r.PastUploads(ctx, t.name, p.after[of], uploadMost)
		if err != nil {
			return some, err
		}
		lacks, err := r.lacksRoots(ctx, list)
		if err != nil {
			return some, err
		}
		for _, d := range list {
			if time.Now().After(r.until) {
				return some, nil
			}
			var whole bool
			if d.Absent {
				whole, err = r.carry(ctx, &d, lacks)
			} else {
				whole, err = r.give(ctx, d.Blocks)
			}
			if errors.Is(err, errWaits) {
				p.after[of] = d.Place()
				p.waits[of]++
				continue
			}
			if errors.Is(err, errRest) {
				return some, nil
			}
			p.after[of] = d.Place()
			if err != nil || !whole { // the next round begins behind it: it is to keep nothing else waiting
				return some, err
			}
			t.r.Uploaded(t.name, []fs.Upload{d})
			some = true
		}
		if p.after[of] = next; next == 0 {
			waits := p.waits[of]
			p.n.kept.note(of, func(x *keptBack) { x.waits = waits })
			delete(p.after, of)
			delete(p.waits, of)
			return some, nil
		}
	}
}

// pastRound is one round for one space and network.
type pastRound struct {
	t     uploadTo
	n     *network
	p     *pastUploads
	until time.Time         // it ends
	held  map[block.ID]bool // some of those that the network has: versions share most of their blocks
}

// errWaits is of a content that another network has, or may have, and does not give now.
var errWaits = errors.New("the network that may have it does not give it now")

// lacksRoots asks about those contents of a list that are not whole here. A network that has the root of one, which is given last, has all of it.
func (r *pastRound) lacksRoots(ctx context.Context, list []fs.Upload) (map[block.ID]bool, error) {
	var roots []block.ID
	for _, d := range list {
		if d.Absent {
			roots = append(roots, d.Blocks[0])
		}
	}
	lacks := map[block.ID]bool{}
	if len(roots) == 0 {
		return lacks, nil
	}
	missing, err := r.n.engine.Lacking(ctx, r.t.r.ID, r.t.id, roots)
	for _, id := range missing {
		lacks[id] = true
	}
	return lacks, err
}

// carry brings a content that is not whole here from the space's other networks to this one. What they do not have is with devices, which give it
// themselves, or with nobody.
func (r *pastRound) carry(ctx context.Context, d *fs.Upload, lacks map[block.ID]bool) (done bool, err error) {
	if !lacks[d.Blocks[0]] {
		return true, nil
	}
	err = r.t.r.PastNodes(ctx, d)
	for step := range slices.Chunk(leavesFirst(d.Blocks), uploadCarry) {
		if err != nil {
			break
		}
		var missing []block.ID
		if missing, err = r.n.engine.Lacking(ctx, r.t.r.ID, r.t.id, step); err != nil || len(missing) == 0 {
			continue
		}
		if err = r.t.r.Carry(ctx, missing); err == nil && slices.ContainsFunc(missing, func(id block.ID) bool { return !r.t.r.Blocks.Has(id) }) {
			err = block.ErrAbsent
		}
		if err == nil {
			done, err = r.give(ctx, missing)
			if err == nil && !done {
				return false, nil
			}
		}
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNoSpace):
		return false, errRest
	case !errors.Is(err, block.ErrAbsent):
		return false, err
	case r.mayBeElsewhere(ctx, d):
		return false, errWaits
	}
	return true, nil
}

// mayBeElsewhere reports whether another network of the space has what is not here of a content, or cannot be asked.
func (r *pastRound) mayBeElsewhere(ctx context.Context, d *fs.Upload) bool {
	absent := slices.DeleteFunc(slices.Clone(d.Blocks), r.t.r.Blocks.Has)
	ids, _ := r.n.holdersOf(r.t.r.ID)
	return slices.ContainsFunc(ids, func(id netconf.ID) bool {
		if id == r.t.id {
			return false
		}
		missing, err := r.n.engine.Lacking(ctx, r.t.r.ID, id, absent)
		return err != nil || len(missing) < len(absent)
	})
}

// leavesFirst gives the blocks of a content so that a network which has its root has all of it.
func leavesFirst(ids []block.ID) []block.ID {
	ids = slices.Clone(ids)
	slices.Reverse(ids)
	return ids
}

// give gives blocks of a content, and reports whether the network has all of them. errRest: nothing more is to be given now.
func (r *pastRound) give(ctx context.Context, ids []block.ID) (whole bool, err error) {
	ids = slices.DeleteFunc(leavesFirst(ids), func(id block.ID) bool { return r.held[id] })
	for step := range slices.Chunk(ids, pastStep) {
		if time.Now().After(r.until) || r.p.moreCurrent(r.t.id) {
			return false, errRest
		}
		missing, err := r.n.engine.Lacking(ctx, r.t.r.ID, r.t.id, step)
		if err == nil && len(missing) > 0 {
			if err = r.room(ctx, missing); err == nil {
				missing, err = r.n.engine.Upload(ctx, r.t.r.ID, r.t.id, missing)
			}
		}
		if err != nil {
			return false, err
		}
		if len(missing) > 0 {
			return false, nil
		}
		if len(r.held) >= pastKnown {
			clear(r.held)
		}
		for _, id := range step {
			r.held[id] = true
		}
	}
	return true, nil
}

// room fails with errRest where the quota of the network has no room for more history.
func (r *pastRound) room(ctx context.Context, ids []block.ID) error {
	of := pastOf{r.t.r.ID, r.t.id}
	f, full := r.n.engine.Full(r.t.r.ID, r.t.id)
	if !full {
		used, limit, err := r.n.engine.Room(ctx, r.t.r.ID, r.t.id)
		if err != nil && !errors.Is(err, exchange.ErrNotSaid) {
			return err
		}
		more := int64(0)
		for _, id := range ids {
			n, _ := r.t.r.Blocks.Size(id)
			more += n
		}
		f, full = exchange.Full{Used: uint64(used), Limit: uint64(limit)}, limit > 0 && used+more > limit-limit/pastRoom
	}
	if !full {
		f = exchange.Full{}
	}
	if r.n.kept.note(of, func(x *keptBack) { x.quota = f }); full {
		return errRest
	}
	return nil
}

// currentFor is how many contents that are current the nodes of a network lack, of all spaces that are on it.
func (n *network) currentFor(id netconf.ID) (sum int) {
	for _, r := range n.h.fs.Replicas() {
		ids, names := n.holdersOf(r.ID)
		if i := slices.Index(ids, id); i >= 0 {
			up, _ := r.ToUpload(names[i])
			sum += up
		}
	}
	return sum
}
