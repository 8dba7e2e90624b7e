package kv

import (
	"path/filepath"
	"testing"
)

// TestSettles: what OpenBolt finds is durable when it returns, what OpenBoltOf finds when an Update has ended.
func TestSettles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	open := func(open func() (*Bolt, error), fresh, settled bool) *Bolt {
		t.Helper()
		b, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if b.Fresh() != fresh {
			t.Errorf("fresh: %v", b.Fresh())
		}
		if b.settled != settled {
			t.Errorf("settled: %v", b.settled)
		}
		return b
	}
	one := func() (*Bolt, error) { return OpenBolt(path) }
	many := func() (*Bolt, error) { return OpenBoltOf(path, 1<<20) }
	put := func(tx Tx) error { return tx.Put("b", []byte("k"), []byte("v")) }

	b := open(many, true, false)
	if err := b.View(func(Tx) error { return nil }); err != nil || b.settled {
		t.Error("reading took the disk's time", err)
	}
	if err := b.Update(put); err != nil || !b.settled || b.Fresh() {
		t.Errorf("after an update: %v, settled %v, fresh %v", err, b.settled, b.Fresh())
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, how := range []struct {
		open    func() (*Bolt, error)
		settled bool
	}{{many, false}, {one, true}} {
		if err := open(how.open, false, how.settled).Close(); err != nil {
			t.Fatal(err)
		}
	}
}
