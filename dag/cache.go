package dag

import "sync"

// cache holds values up to a total of bytes, in two generations: what the younger one held when it became full is kept
// until it is full again. It is safe for concurrent use.
type cache[K comparable, V any] struct {
	mu         sync.Mutex
	limit      int // of each generation
	bytes      int
	young, old map[K]sized[V]
}

type sized[V any] struct {
	v     V
	bytes int
}

func newCache[K comparable, V any](bytes int) *cache[K, V] {
	return &cache[K, V]{limit: bytes / 2, young: make(map[K]sized[V])}
}

const cacheEntry = 64 // bytes that an entry costs besides its value

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.young[k]
	if ok {
		return e.v, true
	}
	e, ok = c.old[k]
	if ok {
		c.putLocked(k, e)
	}
	return e.v, ok
}

// put adds or replaces a value of about the given size in bytes.
func (c *cache[K, V]) put(k K, v V, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(k, sized[V]{v, bytes + cacheEntry})
}

// age keeps what was asked for since the age before last, and no more.
func (c *cache[K, V]) age() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.old, c.young, c.bytes = c.young, make(map[K]sized[V]), 0
}

func (c *cache[K, V]) putLocked(k K, e sized[V]) {
	if c.bytes+e.bytes > c.limit && len(c.young) > 0 {
		c.old, c.young, c.bytes = c.young, make(map[K]sized[V]), 0
	}
	c.young[k] = e
	c.bytes += e.bytes
}
