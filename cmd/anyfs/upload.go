package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/sync/exchange"
)

const (
	uploadEvery = 200 * time.Millisecond // between two looks at what the nodes are to have
	uploadRest  = time.Minute            // what could not be given is tried again after this time at most, and doubled waits before
	uploadMost  = 64                     // contents at a time
)

// upload gives the nodes of each space the content that they lack, until ctx ends.
func (n *network) upload(ctx context.Context) {
	tick := time.NewTicker(uploadEvery)
	defer tick.Stop()
	last, fetched, wait := 0, 0, uploadEvery
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		left, fetch := 0, 0
		for _, r := range n.h.fs.Replicas() {
			if err := r.UploadTo(n.networkOf()); err != nil {
				n.h.log.Error("what the nodes are to have is not known", "space", r.ID, "err", err)
				continue
			}
			if n.engine.NodeOf(r.ID) {
				if up := r.ToUpload(); up > 0 {
					left += up
					fetch += r.ToFetch() // what comes may be what the nodes lack
				}
			}
		}
		if left == 0 || left == last && fetch == fetched && time.Now().Before(next) {
			continue
		}
		some := false
		fetched = fetch
		for _, r := range n.h.fs.Replicas() {
			if ctx.Err() == nil && r.ToUpload() > 0 && n.engine.NodeOf(r.ID) {
				given, err := n.uploadSpace(ctx, &r)
				if err != nil && !errors.Is(err, exchange.ErrOffline) && ctx.Err() == nil {
					n.h.log.Warn("content is not given to the nodes", "space", r.ID, "err", err)
				}
				some = some || given
			}
		}
		if wait = min(2*wait, uploadRest); some {
			wait = uploadEvery
		}
		last, next = 0, time.Now().Add(wait)
		for _, r := range n.h.fs.Replicas() {
			if n.engine.NodeOf(r.ID) {
				last += r.ToUpload()
			}
		}
	}
}

func (n *network) uploadSpace(ctx context.Context, r *fs.Replica) (some bool, err error) {
	for after := uint64(0); ; {
		list, next, err := r.Uploads(ctx, after, uploadMost)
		if err != nil {
			return some, err
		}
		var ids []block.ID
		for _, d := range list {
			ids = append(ids, d.Blocks...)
		}
		lacks := map[block.ID]bool{}
		if len(ids) > 0 {
			missing, err := n.engine.Upload(ctx, r.ID, ids)
			if err != nil {
				return some, err
			}
			for _, id := range missing {
				lacks[id] = true
			}
		}
		held := slices.DeleteFunc(list, func(d fs.Upload) bool {
			return slices.ContainsFunc(d.Blocks, func(id block.ID) bool { return lacks[id] })
		})
		if len(held) > 0 {
			r.Uploaded(held)
			some = true
		}
		if after = next; after == 0 {
			return some, nil
		}
	}
}
