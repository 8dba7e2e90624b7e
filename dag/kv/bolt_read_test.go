package kv_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/anyfs/anyfs/dag/kv"
)

// count reads the number that the tests below keep in a database.
func count(tx kv.Tx) uint64 {
	if v := tx.Get("b", []byte("count")); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// TestViewsAreFresh: a View sees the last Update that returned before it began, and the same to its end, however many others there are,
// within each other too.
func TestViewsAreFresh(t *testing.T) {
	db := openBolt(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	var done atomic.Uint64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for done.Load() < 50 {
				least := done.Load()
				must(t, db.View(func(tx kv.Tx) error {
					outer := count(tx)
					if outer < least {
						t.Errorf("a view sees update %d, and %d had returned", outer, least)
					}
					must(t, db.View(func(in kv.Tx) error {
						if inner := count(in); inner < outer {
							t.Errorf("a view within one of update %d sees %d", outer, inner)
						}
						return nil
					}))
					if again := count(tx); again != outer {
						t.Errorf("a view of update %d sees %d later", outer, again)
					}
					return nil
				}))
			}
		})
	}
	for i := range uint64(50) {
		must(t, db.Update(func(tx kv.Tx) error { return tx.Put("b", []byte("count"), binary.BigEndian.AppendUint64(nil, i+1)) }))
		done.Store(i + 1)
	}
	wg.Wait()
}

// TestViewsHoldNothing: views that have ended keep no update from growing the map, and no page from being used again, and the database
// closes.
func TestViewsHoldNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := kv.OpenBoltOf(path, 1<<20)
	must(t, err)
	look := func() {
		must(t, db.View(func(tx kv.Tx) error {
			tx.Get("b", []byte("count"))
			return tx.Scan("b", nil, func(_, _ []byte) bool { return true })
		}))
	}
	for i := range byte(8) { // 8 MiB of map
		look()
		must(t, db.Update(func(tx kv.Tx) error { return tx.Put("b", []byte{i}, make([]byte, 1<<20)) }))
	}
	look()
	size := db.Size()
	for i := range byte(24) {
		look()
		must(t, db.Update(func(tx kv.Tx) error { return tx.Put("b", []byte{0}, make([]byte, 1<<20-int(i))) }))
	}
	if now := db.Size(); now > size+4<<20 {
		t.Errorf("%d bytes of pages became %d", size, now)
	}
	look()
	must(t, db.Close())
	if err := db.View(func(kv.Tx) error { return nil }); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("a view of a closed database gives %v", err)
	}
}

// TestViewAfterPanic: a function of a View that panics, or fails, leaves no other View worse.
func TestViewAfterPanic(t *testing.T) {
	db := openBolt(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	must(t, db.Update(func(tx kv.Tx) error {
		return errors.Join(tx.Put("b", []byte("a"), []byte("1")), tx.Put("b", []byte("b"), nil))
	}))
	failed := errors.New("failed")
	for range 10 {
		func() {
			defer func() { _ = recover() }()
			_ = db.View(func(tx kv.Tx) error {
				return tx.Scan("b", nil, func(_, _ []byte) bool { panic("the caller's") })
			})
		}()
		if err := db.View(func(kv.Tx) error { return failed }); err != failed {
			t.Fatal(err)
		}
		must(t, db.View(func(tx kv.Tx) error {
			n := 0
			err := tx.Scan("b", nil, func(k, v []byte) bool {
				n++
				if string(tx.Get("b", []byte("a"))) != "1" || tx.Get("b", []byte("b")) == nil || tx.Get("b", []byte("aa")) != nil || tx.Get("b", []byte("c")) != nil {
					t.Error("within a scan other values are read")
				}
				inner := 0
				must(t, tx.ScanBack("b", nil, func(_, _ []byte) bool { inner++; return true }))
				if inner != 2 {
					t.Errorf("a scan within another sees %d keys", inner)
				}
				return true
			})
			if n != 2 {
				t.Errorf("a scan sees %d keys", n)
			}
			return err
		}))
	}
}
