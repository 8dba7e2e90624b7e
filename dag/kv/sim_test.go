package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// TestSimDB: after crashes and failing operations the DB holds the updates that returned nil, and of those that failed
// none or the first.
func TestSimDB(t *testing.T) {
	landed := int64(0)
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		d := disk.NewSim(rand.New(rand.NewPCG(seed, 4)))
		acked, sent := uint64(0), uint64(0)
		open := func() DB {
			db, err := NewSimDB(d, "x.db")
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			n := uint64(0)
			err = db.View(func(tx Tx) error {
				if v := tx.Get("n", []byte("n")); v != nil {
					n = binary.BigEndian.Uint64(v)
				}
				keys := uint64(0)
				tx.Scan("all", nil, func(k, v []byte) bool { keys++; return true })
				if keys != n {
					t.Fatalf("seed %d: %d of %d keys: half an update", seed, keys, n)
				}
				return nil
			})
			if err != nil || n != acked && n != sent {
				t.Fatalf("seed %d: holds %d, want %d or %d, %v", seed, n, acked, sent, err)
			}
			acked, sent = n, n
			return db
		}
		db := open()
		for range 40 {
			next := acked + 1
			err := db.Update(func(tx Tx) error {
				var v [8]byte
				binary.BigEndian.PutUint64(v[:], next)
				return errors.Join(tx.Put("n", []byte("n"), v[:]), tx.Put("all", fmt.Appendf(nil, "%08d", next), make([]byte, rnd.IntN(2000))))
			})
			switch {
			case err == nil:
				acked, sent = next, next
			case errors.Is(err, ErrBroken):
				sent = next
				if err := db.Update(func(Tx) error { return nil }); err != nil && !errors.Is(err, ErrBroken) {
					t.Fatal(err)
				}
			}
			if broken := errors.Is(err, ErrBroken); broken || rnd.IntN(8) == 0 {
				landed += d.Landed()
				d.FailAt(0, nil)
				if broken || rnd.IntN(2) == 0 {
					d = d.CrashClone(rnd)
				} else {
					db.Close()
				}
				db = open()
			}
			if rnd.IntN(6) == 0 {
				d.FailAt(1+rnd.Int64N(4), []error{syscall.EIO, syscall.ENOSPC, io.ErrShortWrite}[rnd.IntN(3)])
			}
		}
		landed += d.Landed()
	}
	if landed == 0 {
		t.Error("no fault landed")
	}
}

func TestSimDBCompacts(t *testing.T) {
	d := disk.NewSim(nil)
	db, err := NewSimDB(d, "x.db")
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if err := db.Update(func(tx Tx) error { return tx.Put("b", []byte("k"), make([]byte, 10_000)) }); err != nil {
			t.Fatal(err)
		}
	}
	if db.Size() > 2*logCompact {
		t.Errorf("%d bytes for one key", db.Size())
	}
	db.Close()
	if db, err = NewSimDB(d, "x.db"); err != nil {
		t.Fatal(err)
	}
	db.View(func(tx Tx) error {
		if len(tx.Get("b", []byte("k"))) != 10_000 {
			t.Error("the key is lost")
		}
		return nil
	})
}

// FuzzCommit: what is taken for a commit does what its encoding does.
func FuzzCommit(f *testing.F) {
	f.Add(encodeCommit([]memOp{{"b", "k", []byte("v")}, {"b", "gone", nil}, {"c", "empty", []byte{}}}))
	f.Add([]byte{})
	f.Add(make([]byte, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		ops, n, ok := decodeCommit(b)
		if !ok {
			return
		}
		again, m, ok := decodeCommit(encodeCommit(ops))
		if !ok || n > len(b) || m == 0 || len(again) != len(ops) {
			t.Fatal("another commit")
		}
		for i := range ops {
			if again[i].bucket != ops[i].bucket || again[i].key != ops[i].key || string(again[i].value) != string(ops[i].value) {
				t.Fatalf("operation %d differs", i)
			}
		}
	})
}

// TestOpenedIsDurable: what a DB shows after it was opened is not taken back by a power loss, also where the process before ended
// because a sync had failed.
func TestOpenedIsDurable(t *testing.T) {
	d := disk.NewSim(nil)
	has := func(d *disk.Sim, key string) (found bool) {
		db, err := NewSimDB(d, "x.db")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.View(func(tx Tx) error { found = tx.Get("b", []byte(key)) != nil; return nil }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	db, err := NewSimDB(d, "x.db")
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) error {
		return db.Update(func(tx Tx) error { return tx.Put("b", []byte(key), []byte("value")) })
	}
	if err := put("one"); err != nil {
		t.Fatal(err)
	}
	lost := 0
	for range 20 {
		d := d.Fork()
		if db, err = NewSimDB(d, "x.db"); err != nil {
			t.Fatal(err)
		}
		d.FailSyncAt(1, syscall.EIO)
		if err := put("two"); !errors.Is(err, ErrBroken) {
			t.Fatal(err)
		}
		power := func(d *disk.Sim) *disk.Sim { return d.Crash(func() disk.Keep { return disk.Drop }) }
		if !has(power(d), "two") {
			lost++
		}
		if killed := d.Fork(); has(killed, "two") && !has(power(killed), "two") {
			t.Fatal("what was seen is gone")
		}
	}
	if lost == 0 {
		t.Error("no failed sync lost anything: the test proves nothing")
	}
}
