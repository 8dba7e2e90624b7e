package fs

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"
)

func TestCacheAges(t *testing.T) {
	c := newCache[int, string](1000)
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
	if c.sum != 10 || c.order.Len() != 1 {
		t.Errorf("%d of %d entries", c.sum, c.order.Len())
	}
}

func (c *cache[K, V]) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.items)
}

// What was asked for once goes from memory, and comes back when it is asked for again.
func TestMemoryAges(t *testing.T) {
	d := newDevices(t, 2)
	h, other := d.all[0], d.all[1]
	want := map[string][]byte{}
	for i := range 200 {
		name := fmt.Sprint("file ", i)
		want[name] = bytes.Repeat([]byte(name), 1+i%2*500)
		h.create(h.root, name, want[name])
	}
	d.settle()
	s := must2(other.namedSpace(PersonalName))
	read := func() {
		t.Helper()
		for name, w := range want {
			if got := other.read(other.look(other.root, name)); !bytes.Equal(got, w) {
				t.Fatalf("%s: %d bytes", name, len(got))
			}
		}
	}
	read()
	other.must(other.checkpoint(context.Background()))
	read()
	inMemory := func() (objects, contents int) {
		s.pubMu.Lock()
		defer s.pubMu.Unlock()
		return len(s.in.st.cache) + len(s.in.st.older) + len(s.in.st.placed),
			other.manifests.count() + other.layouts.count() + other.inlines.count() + other.heads.count()
	}
	if objects, contents := inMemory(); objects < 100 || contents < 50 {
		t.Fatalf("%d objects and %d contents are in memory: nothing is shown", objects, contents)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // a space at work is passed over
		other.age()
		objects, contents := inMemory()
		if objects+contents == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d objects and %d contents are in memory", objects, contents)
		}
	}
	read()
	other.must(other.Rename(other.root, "file 1", other.root, "file 2", 0))
	delete(want, "file 1")
	want["file 2"] = bytes.Repeat([]byte("file 1"), 501)
	d.settle()
	read()
	d.same()
}
