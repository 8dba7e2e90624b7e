package block

import (
	"fmt"
	"sync"

	"github.com/anyfs/anyfs/dag/kv"
)

// The store's buckets: of places by ID, and of marks by segment number (big-endian). Values are sealed, with bucket and
// key as associated data.
const (
	bucketBlocks   = "blocks"
	bucketSegments = "blocks.segments"
)

// Buckets lists the store's buckets.
func Buckets() []string { return []string{bucketBlocks, bucketSegments} }

// overlay is what the index in the DB does not say yet, and a cache of what it says.
//
// A place is looked for in fresh, frozen, the cache and the DB, in this order; in the first two the zero place says that
// the block is gone. Store.mu guards it, but for the cache, which has a lock of its own below it.
type overlay struct {
	fresh  map[ID]place
	frozen map[ID]place // being written by a checkpoint; nil when none is under way

	// Evicted since the last freeze, and gone in fresh: where the blocks lay, so that a Put may take them back.
	dead map[ID]place
	// Given up for other reasons since the last freeze: replaced by a copy.
	stale []place
	// The places that may be punched when the checkpoint under way has ended.
	doomed []place

	freezing bool
	thawed   sync.Cond // a freeze has ended; on Store.mu
	// epoch counts the checkpoints that ended. While it stands, what the DB said holds for all that the overlay does not
	// know.
	epoch uint64

	cache placeCache
}

func (o *overlay) init(mu sync.Locker, cacheEntries int) {
	o.thawed.L = mu
	o.fresh, o.dead = map[ID]place{}, map[ID]place{}
	o.cache.limit = max(cacheEntries/2, 1)
}

// getLocked returns what the overlay knows of a block; known is false when that is for the DB to say.
func (o *overlay) getLocked(id ID) (p place, known bool) {
	if p, known = o.fresh[id]; known {
		return p, true
	}
	p, known = o.frozen[id]
	return p, known
}

// lookup returns where a block lies, and whether it is here. The error says that the index's entry does not read.
func (s *Store) lookup(id ID) (place, bool, error) {
	s.mu.RLock()
	p, known := s.overlay.getLocked(id)
	moves := s.moves.Load()
	s.mu.RUnlock()
	if known {
		return p, p != place{}, nil
	}
	if p, ok := s.overlay.cache.get(id); ok {
		return p, true, nil
	}
	err := s.opt.DB.View(func(tx kv.Tx) (err error) {
		p, known, err = s.getIndexed(tx, id)
		return err
	})
	if err != nil || !known {
		return place{}, false, err
	}
	s.mu.RLock()
	if s.moves.Load() == moves { // else the entry may have been replaced since it was read
		s.overlay.cache.put(id, p)
	}
	s.mu.RUnlock()
	return p, true, nil
}

func (s *Store) getIndexed(tx kv.Tx, id ID) (place, bool, error) {
	v := tx.Get(bucketBlocks, id[:])
	if v == nil {
		return place{}, false, nil
	}
	p, err := s.openPlace(id, v)
	return p, err == nil, err
}

func (s *Store) openPlace(id ID, v []byte) (place, error) {
	b, err := s.opt.Seal.OpenLocal(nil, v, placeAD(id))
	if err != nil {
		return place{}, fmt.Errorf("%w: entry of %s: %w", ErrIndex, id, err)
	}
	p, err := decodePlace(b)
	if err != nil {
		return place{}, fmt.Errorf("%w: entry of %s: %w", ErrIndex, id, err)
	}
	return p, nil
}

func (s *Store) putIndexed(tx kv.Tx, id ID, p place) error {
	var b [placeLen]byte
	return tx.Put(bucketBlocks, id[:], s.opt.Seal.SealLocal(nil, p.append(b[:0]), placeAD(id)))
}

func placeAD(id ID) []byte { return append([]byte(bucketBlocks), id[:]...) }

func marksAD(key []byte) []byte { return append([]byte(bucketSegments), key...) }

// isAtLocked reports whether a block lies at p still, for who looked it up in this epoch of the overlay; sure is false
// when that was an earlier one.
func (s *Store) isAtLocked(id ID, p place, epoch uint64) (at, sure bool) {
	now, known := s.overlay.getLocked(id)
	return now == p || !known, known || s.overlay.epoch == epoch
}

// setLocked makes p the place of a block that lay at old (zero: nowhere), or says that it is gone.
func (s *Store) setLocked(id ID, p, old place) {
	s.overlay.fresh[id] = p
	if old != (place{}) {
		s.moves.Add(1)
		s.overlay.cache.drop(id)
		s.lately.drop(old)
		s.countLocked(old, -1)
	}
	if p != (place{}) {
		s.countLocked(p, 1)
		delete(s.bad, id)
		if d, ok := s.overlay.dead[id]; ok {
			delete(s.overlay.dead, id)
			if d != p {
				s.overlay.stale = append(s.overlay.stale, d)
			}
		}
	}
}

func (s *Store) countLocked(p place, by int64) {
	if g := s.segments[p.seg]; g != nil {
		g.live += by * p.size()
		g.blocks += by
		g.changed = true
	}
}

// placeCache keeps the places looked up last, in two generations: when the young one is full it becomes the old one,
// and what was in the old one is forgotten.
type placeCache struct {
	limit int

	mu         sync.Mutex
	young, old map[ID]place
}

func (c *placeCache) get(id ID) (place, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.young[id]; ok {
		return p, true
	}
	p, ok := c.old[id]
	if ok {
		c.putLocked(id, p)
	}
	return p, ok
}

func (c *placeCache) put(id ID, p place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(id, p)
}

func (c *placeCache) putLocked(id ID, p place) {
	if len(c.young) >= c.limit {
		c.young, c.old = nil, c.young
	}
	if c.young == nil {
		c.young = make(map[ID]place)
	}
	c.young[id] = p
}

func (c *placeCache) drop(id ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, id)
	delete(c.old, id)
}
