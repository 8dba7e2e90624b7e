package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

const (
	uploadEvery = 200 * time.Millisecond // between two looks at what the nodes are to have
	uploadRest  = time.Minute            // what could not be given is tried again after this time at most, and doubled waits before
	uploadMost  = 64                     // contents at a time
)

// uploadCarry is how many blocks that are not here are fetched at a time for a network that lacks them.
const uploadCarry = 32

// uploadTo is a network that a space is on.
type uploadTo struct {
	r    *fs.Replica
	id   netconf.ID
	name string
}

// toUpload is how much is to be given, and what it may hang on. Where that changes, it is tried again at once.
type toUpload struct {
	left   int    // contents, of networks of which a node is connected
	fetch  int    // what comes may be what the nodes lack
	reach  int    // networks of spaces of which a node is connected: one may have what another lacks
	quotas uint64 // how often a network came to take no more, or more
}

// uploads gives the networks of each space of which a node is connected and that lack something, and says how much is left. Each space is told which ones
// it is on.
func (n *network) uploads() (to []uploadTo, now toUpload) {
	now.quotas = n.engine.Quotas()
	for _, r := range n.h.fs.Replicas() {
		ids, names := n.holdersOf(r.ID)
		if err := r.UploadTo(names); err != nil {
			n.h.log.Error("what the nodes are to have is not known", "space", r.ID, "err", err)
			continue
		}
		for i, id := range ids {
			if !n.engine.NodeOf(r.ID, id) {
				continue
			}
			now.reach++
			up, _ := r.ToUpload(names[i])
			past, _ := r.PastToUpload(names[i])
			if up+past > 0 {
				to = append(to, uploadTo{&r, id, names[i]})
				now.left += up + past
				now.fetch += r.ToFetch()
			}
		}
	}
	return to, now
}

// upload gives the nodes of each space the content that they lack, until ctx ends: what is current of all spaces, then what only history shows.
func (n *network) upload(ctx context.Context) {
	tick := time.NewTicker(uploadEvery)
	defer tick.Stop()
	var last toUpload
	next, wait := time.Now(), uploadEvery
	past := pastUploads{n: n, after: map[pastOf]uint64{}, failed: map[dag.ID]time.Time{}, waits: map[pastOf]int{}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		past.look(ctx)
		to, now := n.uploads()
		if now.left == 0 || now == last && time.Now().Before(next) {
			continue
		}
		some := false
		for _, give := range []func(context.Context, uploadTo) (bool, error){n.uploadSpace, past.give} {
			for _, t := range to {
				if ctx.Err() != nil {
					return
				}
				given, err := give(ctx, t)
				if err != nil && !errors.Is(err, exchange.ErrOffline) && ctx.Err() == nil {
					n.h.log.Warn("content is not given to the nodes", "space", t.r.ID, "network", t.name, "err", err)
				}
				some = some || given
			}
		}
		past.current = nil
		if wait = min(2*wait, uploadRest); some {
			wait = uploadEvery
		}
		_, after := n.uploads()
		last, next = now, time.Now().Add(wait)
		last.left = after.left
	}
}

func (n *network) uploadSpace(ctx context.Context, t uploadTo) (some bool, err error) {
	for after := uint64(0); ; {
		list, next, err := t.r.Uploads(ctx, t.name, after, uploadMost)
		if err != nil {
			return some, err
		}
		var ids []block.ID
		carry := map[block.ID]bool{}
		for _, d := range list {
			ids = append(ids, d.Blocks...)
			if d.Carry {
				for _, id := range d.Blocks {
					carry[id] = true
				}
			}
		}
		lacks := map[block.ID]bool{}
		if len(ids) > 0 {
			missing, err := n.engine.Upload(ctx, t.r.ID, t.id, leavesFirst(ids))
			if err != nil {
				return some, err
			}
			// What the space's other networks may be all to have goes through this device.
			var fetch []block.ID
			for _, id := range missing {
				lacks[id] = true
				if carry[id] && !t.r.Blocks.Has(id) {
					fetch = append(fetch, id)
				}
			}
			for step := range slices.Chunk(fetch, uploadCarry) {
				if err := t.r.Carry(ctx, step); err != nil {
					return some, err
				}
				still, err := n.engine.Upload(ctx, t.r.ID, t.id, step)
				if err != nil {
					return some, err
				}
				for _, id := range step {
					if !slices.Contains(still, id) {
						delete(lacks, id)
					}
				}
			}
		}
		held := slices.DeleteFunc(list, func(d fs.Upload) bool {
			return slices.ContainsFunc(d.Blocks, func(id block.ID) bool { return lacks[id] })
		})
		if len(held) > 0 {
			t.r.Uploaded(t.name, held)
			some = true
		}
		if after = next; after == 0 {
			return some, nil
		}
	}
}
