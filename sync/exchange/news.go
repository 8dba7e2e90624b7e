package exchange

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// A block that a peer lacked is not asked of it again for a while. One that gets content from elsewhere, as a node does that somebody gives
// blocks, or a device between two networks, tells the others, so that they ask.

// newsEvery is how often a peer is told of content, at most.
const newsEvery = time.Second

// came is the content that came to a space since peers were last told.
type came struct {
	mu   sync.Mutex
	due  bool
	from *link // whom all of it came from; nil: several
}

// contentCame notes that a block came from a peer, and has the others told soon.
func (sp *space) contentCame(from *link) {
	c := &sp.came
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due {
		if c.from != from {
			c.from = nil
		}
		return
	}
	c.from = from
	e := sp.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if others := len(sp.links); others == 0 || others == 1 && sp.links[from.r.id] == from {
		return
	}
	c.due = sp.startLocked(func(ctx context.Context) {
		select {
		case <-e.clock.After(newsEvery):
		case <-ctx.Done():
		}
		c.mu.Lock()
		c.due = false
		from := c.from
		c.mu.Unlock()
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, l := range sp.links {
			// A node asks for nothing.
			if l == from || l.r.node != nil || l.r.mesh {
				continue
			}
			if l.r.news == nil {
				l.r.news = make(map[dag.ID]bool)
			}
			l.r.news[sp.id] = true
			l.r.wakeTags()
		}
	})
}

// sendNews tells a peer of content.
func (e *Engine) sendNews(t *stream, r *remote) error {
	e.mu.Lock()
	ids := slices.SortedFunc(maps.Keys(r.news), dag.ID.Compare)
	r.news = nil
	e.mu.Unlock()
	for some := range slices.Chunk(ids, wire.MaxIDs) {
		if err := t.write(&wire.Content{IDs: some}); err != nil {
			return err
		}
	}
	return nil
}

// hearContent has what a peer lacked asked of it again.
func (e *Engine) hearContent(r *remote, m *wire.Content) {
	again := false
	e.mu.Lock()
	for _, id := range m.IDs {
		if sp := e.spaces[id]; sp != nil {
			if l := sp.links[r.id]; l != nil && l.r == r && l.lacks.clear() {
				again = true
			}
		}
	}
	e.mu.Unlock()
	if again {
		e.noteChange()
	}
}
