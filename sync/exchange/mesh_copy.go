package exchange

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// How the nodes of a space copy its blocks: who has them gives them to who lacks them, all at first and now and then, and each as it comes.

const (
	copyAll     = 10 * time.Minute // between two times that another node is asked about all blocks
	copyAgain   = 5 * time.Second  // after copies that failed; doubled each time
	copyAgainTo = time.Minute
	maxFresh    = 4096 // blocks that came and are to be copied; with more, all are asked about
)

// fresh is the blocks that came to a space and that another node is to be given.
type fresh struct {
	mu     sync.Mutex
	ids    []block.ID
	missed bool // there were too many: all are asked about
	wake   chan struct{}
}

func (f *fresh) add(id block.ID) {
	f.mu.Lock()
	if len(f.ids) < maxFresh {
		f.ids = append(f.ids, id)
	} else {
		f.ids, f.missed = nil, true
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take gives what came since the last call; all reports that there was more.
func (f *fresh) take() (ids []block.ID, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids, all = f.ids, f.missed
	f.ids, f.missed = nil, false
	return ids, all
}

// copySoon has a block that a device gave copied to the other nodes that are to have it.
func (sp *space) copySoon(id block.ID) {
	sp.e.mu.Lock()
	defer sp.e.mu.Unlock()
	for _, l := range sp.links {
		if l.r.mesh {
			l.fresh.add(id)
		}
	}
}

// keepCopied gives another node the blocks of the space that it lacks, for as long as it is connected: all at first and now and then, and
// those that come as they come.
func (l *link) keepCopied(ctx context.Context) {
	e := l.sp.e
	wait, all := copyAgain, true
	for {
		var err error
		ids, missed := l.fresh.take()
		all = all || missed
		switch {
		case !e.opt.Mesh.Keeper(l.r.key, l.sp.id):
		case all:
			err = l.copyAll(ctx)
		case len(ids) > 0:
			_, err = l.copyTo(ctx, ids)
		}
		if ctx.Err() != nil {
			return
		}
		next := copyAll
		if all = err != nil; all {
			e.log.Debug("blocks are not copied to a node", "peer", l.r.id, "space", l.sp.id.String(), "err", err)
			next, wait = jitter(wait), min(2*wait, copyAgainTo)
		} else {
			wait = copyAgain
		}
		select {
		case <-l.fresh.wake:
			if err != nil {
				// Who fails is not asked at each block.
				select {
				case <-e.clock.After(time.Second):
				case <-ctx.Done():
				}
			}
		case <-e.clock.After(next):
			all = true
		case <-ctx.Done():
		}
	}
}

// copyAll gives another node all blocks that it lacks.
func (l *link) copyAll(ctx context.Context) error {
	var page []block.ID
	var failed error
	some := func() error {
		_, err := l.copyTo(ctx, page)
		page = page[:0]
		return err
	}
	err := l.sp.r.Blocks.All(ctx, func(id block.ID, _ int64) error {
		if page = append(page, id); len(page) < wire.MaxIDs {
			return nil
		}
		failed = some()
		return failed
	})
	if err == nil && len(page) > 0 {
		err = some()
	}
	return err
}

// copyTo gives another node blocks, those of one space at a time. It fails where it does not hold all of them then.
func (l *link) copyTo(ctx context.Context, ids []block.ID) (lacks []block.ID, err error) {
	select {
	case l.r.copying <- struct{}{}:
		defer func() { <-l.r.copying }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	lacks, err = l.upload(ctx, ids)
	if err == nil && len(lacks) > 0 {
		err = fmt.Errorf("%w: %d of %d", errLacks, len(lacks), len(ids))
	}
	return lacks, err
}
