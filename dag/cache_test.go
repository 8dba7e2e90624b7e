package dag

import "testing"

func TestCacheAges(t *testing.T) {
	c := newCache[int, string](10_000)
	c.put(1, "asked for again", 10)
	c.put(2, "asked for once", 10)
	for range 3 {
		c.age()
		if v, ok := c.get(1); !ok || v != "asked for again" {
			t.Fatalf("%q, %v", v, ok)
		}
	}
	if v, ok := c.get(2); ok {
		t.Errorf("%q is there after two ages", v)
	}
	if c.bytes != 10+cacheEntry {
		t.Errorf("%d bytes", c.bytes)
	}
}
