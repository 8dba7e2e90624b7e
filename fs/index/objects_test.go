package index

import (
	"encoding/binary"
	"errors"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
)

func objectID(n int) [32]byte { return dag.Sum(binary.AppendUvarint(nil, uint64(n))) }

// TestObjects holds the objects of an index against a map, with checkpoints that succeed, fail, and are under way, restarts, and some
// that were stored before there were generations.
func TestObjects(t *testing.T) {
	full := 0
	rapid.Check(t, func(rt *rapid.T) {
		db := kv.NewMem()
		open := func() *Index {
			x := Open(db, testSealer{})
			x.perGen = 20
			return x
		}
		want := map[int]uint64{}
		if err := db.Update(func(tx kv.Tx) error {
			for n := range rapid.IntRange(0, 5).Draw(rt, "old") {
				id := objectID(n)
				v := testSealer{}.SealLocal(nil, binary.BigEndian.AppendUint64(nil, uint64(n+1)), appendAD(nil, bucketObjects, id[:16]))
				if err := tx.Put(bucketObjects, id[:16], v); err != nil {
					return err
				}
				want[n] = uint64(n + 1)
			}
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
		x := open()
		stored := maps.Clone(want)
		var done func(bool)
		var frozen map[int]uint64          // what the checkpoint under way will hold
		if rapid.Bool().Draw(rt, "full") { // generations, before the rest: by chance few runs come to that
			for round := range 3 {
				for n := range 30 {
					x.SetObject(objectID(30*round+n), 1)
					want[30*round+n] = 1
				}
				write, done := x.Freeze()
				if err := db.Update(write); err != nil {
					rt.Fatal(err)
				}
				done(true)
			}
			stored = maps.Clone(want)
			full = max(full, len(x.gens.of))
		}
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				for range rapid.SampledFrom([]int{1, 5, 50}).Draw(rt, "n") {
					n, ino := rapid.IntRange(0, 300).Draw(rt, "object"), rapid.Uint64Range(0, 9).Draw(rt, "ino")
					x.SetObject(objectID(n), ino)
					if want[n] = ino; ino == 0 {
						delete(want, n)
					}
				}
			},
			"age": func(*rapid.T) { x.Age() },
			"freeze": func(rt *rapid.T) {
				if done != nil {
					return
				}
				var write func(kv.Tx) error
				write, done = x.Freeze()
				frozen = maps.Clone(want)
				fails := rapid.Bool().Draw(rt, "fails")
				err := db.Update(func(tx kv.Tx) error {
					if err := write(tx); err != nil || !fails {
						return err
					}
					return errFails
				})
				if fails && errors.Is(err, errFails) {
					done(false)
					done = nil
				} else if err != nil {
					rt.Fatal(err)
				}
			},
			"done": func(*rapid.T) {
				if done != nil {
					done(true)
					done, stored = nil, frozen
				}
			},
			"restart": func(*rapid.T) {
				if done != nil {
					done, stored = nil, frozen
				}
				full = max(full, len(x.gens.of))
				x, want = open(), maps.Clone(stored)
			},
			"": func(rt *rapid.T) {
				for n := range 300 {
					if ino, err := x.Object(objectID(n)); err != nil || ino != want[n] {
						rt.Fatalf("object %d has %d, %v, want %d", n, ino, err, want[n])
					}
				}
			},
		})
	})
	if full < 2 {
		t.Error("no generation became full")
	}
}

var errFails = errors.New("it fails")

// TestObjectsDamaged: a filter or an inode's number that is not what was stored is an error, and no answer.
func TestObjectsDamaged(t *testing.T) {
	for _, damaged := range [][]byte{genKey(nil, 1, nil), genKey(nil, 1, func() []byte { id := objectID(7); return id[:16] }())} {
		db := kv.NewMem()
		x := Open(db, testSealer{})
		x.perGen = 20
		for n := range 30 {
			x.SetObject(objectID(n), 1)
		}
		write, done := x.Freeze()
		if err := db.Update(write); err != nil {
			t.Fatal(err)
		}
		done(true)
		if err := db.Update(func(tx kv.Tx) error { return tx.Put(bucketGens, damaged, []byte("damaged")) }); err != nil {
			t.Fatal(err)
		}
		if ino, err := Open(db, testSealer{}).Object(objectID(7)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("key %x damaged: %d, %v", damaged, ino, err)
		}
	}
}
