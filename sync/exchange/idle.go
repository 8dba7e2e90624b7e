package exchange

import (
	"context"
	"maps"
	"time"

	"github.com/anyfs/anyfs/dag"
)

// A node has more spaces than are in use at a time: one that nobody has in common with it any more is given back.

// idleAfter is what Options.IdleAfter is by itself.
const idleAfter = 2 * time.Minute

func (r *Replica) release() {
	if r.Release != nil {
		r.Release()
	}
}

// end waits for what uses a space's graphs, once it is cancelled and nobody finds it any more, and gives them back.
func (sp *space) end() {
	sp.running.Wait()
	sp.session.Close()
	sp.r.release()
}

// restIdle gives idle spaces back until ctx ends.
func (e *Engine) restIdle(ctx context.Context) {
	for {
		select {
		case <-e.clock.After(e.opt.IdleAfter / 4):
			e.restNow()
		case <-ctx.Done():
			return
		}
	}
}

// restNow gives those spaces back that were idle at an earlier look, so long ago, and still are.
func (e *Engine) restNow() {
	now := e.clock.Now()
	var idle []*space
	e.mu.Lock()
	used := make(map[dag.ID]bool)
	for _, r := range e.remotes {
		maps.Copy(used, r.common)
		for id := range r.invited {
			used[id] = true
		}
	}
	for id, sp := range e.spaces {
		switch {
		case used[id] || len(sp.links) > 0:
			sp.idle = time.Time{}
		case sp.idle.IsZero():
			sp.idle = now
		case now.Sub(sp.idle) >= e.opt.IdleAfter:
			delete(e.spaces, id)
			sp.cancel()
			idle = append(idle, sp)
		}
	}
	e.mu.Unlock()
	for _, sp := range idle {
		sp.end()
	}
}
