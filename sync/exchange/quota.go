package exchange

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// A node takes no changes and content beyond a quota. It tells the device that brought something of it, and again once there is room: so the device
// knows why what it gives is not held, and need not try at short intervals.

// quotaEvery is between two times that a node looks whether there is room again.
const quotaEvery = time.Second

var errRoom = errors.New("exchange: there is room for more")

// overQuota has the device told that something of a space was not taken.
func (l *link) overQuota() {
	e := l.sp.e
	e.mu.Lock()
	if l.r.over == nil {
		l.r.over = make(map[dag.ID]bool)
	}
	l.r.over[l.sp.id] = true
	e.mu.Unlock()
	l.r.wakeTags()
}

// takes says whether changes of files that the peer gives are taken in; nil: all are. What other nodes give was within the quota there. After what was not, what comes
// is not taken either while that has no room, though it be smaller: it names what was passed over.
func (l *link) takes() func(bytes int) bool {
	fn := l.sp.r.Takes
	if fn == nil || l.sp.r.Quota == nil || l.r.mesh {
		return nil
	}
	if _, _, full := l.sp.r.Quota(); full {
		l.overQuota()
	}
	var passed atomic.Bool
	return func(bytes int) bool {
		ok := !(passed.Load() && !fn(0)) && fn(bytes)
		if bytes > 0 {
			passed.Store(!ok)
		}
		if !ok && bytes > 0 { // else a lock of the session is held, and the device has been told
			l.overQuota()
		}
		return ok
	}
}

// sendQuotas tells a device which spaces are at their quota, where it was not told, and which are not any more. told is what it was told.
func (e *Engine) sendQuotas(t *stream, r *remote, told map[dag.ID]wire.Quota) error {
	e.mu.Lock()
	look := map[dag.ID]*link{}
	for id := range r.over {
		look[id] = nil
	}
	for id := range told {
		look[id] = nil
	}
	clear(r.over)
	for id := range look {
		if sp := e.spaces[id]; sp != nil && sp.r.Quota != nil && r.common[id] {
			look[id] = sp.links[r.id]
		}
	}
	e.mu.Unlock()
	for id, l := range look {
		q := wire.Quota{Space: id}
		if l != nil {
			if used, limit, full := l.sp.r.Quota(); full && limit > 0 {
				q.Used, q.Limit = uint64(max(used, 0)), uint64(limit)
			}
		}
		before, was := told[id]
		if q == before || q.Limit == 0 && !was {
			continue
		}
		if err := t.write(&q); err != nil {
			return err
		}
		if q.Limit > 0 {
			told[id] = q
			continue
		}
		delete(told, id)
		if l == nil {
			continue
		}
		// What was passed over meanwhile is found by what both hold.
		if end := l.end.Load(); end != nil {
			(*end)(errRoom)
		}
	}
	return nil
}

// Full says of a space at its quota how many bytes of how many are used.
type Full struct{ Used, Limit uint64 }

// fullSpaces is what nodes told of quotas. Engine.mu guards it.
type fullSpaces map[fullKey]Full

type fullKey struct {
	network dag.PublicKey
	space   dag.ID
}

// maxFull bounds it.
const maxFull = 65536

// keep forgets what was told by networks that are not used any more.
func (f fullSpaces) keep(nodes []Node) {
	used := map[dag.PublicKey]bool{}
	for i := range nodes {
		used[nodes[i].Network] = true
	}
	for k := range f {
		if !used[k.network] {
			delete(f, k)
		}
	}
}

// hearQuota notes what a node says. It stays until a node of the network says otherwise.
func (e *Engine) hearQuota(r *remote, m *wire.Quota) {
	k := fullKey{r.node.network, m.Space}
	e.mu.Lock()
	before, was := e.full[k]
	now := Full{m.Used, m.Limit}
	switch {
	case m.Limit == 0:
		delete(e.full, k)
	case e.spaces[m.Space] != nil && (was || len(e.full) < maxFull):
		if e.full == nil {
			e.full = make(fullSpaces)
		}
		e.full[k] = now
	}
	if was != (m.Limit > 0) {
		e.quotas++
	}
	e.mu.Unlock()
	if before != now {
		e.log.Info("a node told of a quota", "peer", r.id, "space", m.Space.String(), "used", m.Used, "limit", m.Limit)
		e.noteChange()
	}
}

// Full says whether a network takes no more changes and content of a space, for a quota.
func (e *Engine) Full(space dag.ID, network dag.PublicKey) (Full, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f, full := e.full[fullKey{network, space}]
	return f, full
}

// Quotas is how often a space came to be at a quota, or was no more.
func (e *Engine) Quotas() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.quotas
}
