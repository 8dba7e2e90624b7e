package index

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag/kv"
)

// TestEntries: names of directories are there or not as a map says, before, while and after checkpoints are written that end well or
// fail.
func TestEntries(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		db := kv.NewMem()
		x := Open(db, testSealer{})
		type at struct {
			dir  uint64
			name string
		}
		want := map[at]uint64{}
		var done func(bool)
		spots := rapid.Custom(func(rt *rapid.T) at {
			return at{rapid.Uint64Range(1, 5).Draw(rt, "dir"), fmt.Sprint(rapid.IntRange(0, 9).Draw(rt, "name"))}
		})
		hash := func(k at) uint64 { return uint64(k.name[0]) % 4 } // several stand in one chain
		ino := uint64(0)
		rt.Repeat(map[string]func(*rapid.T){
			"change": func(rt *rapid.T) {
				k := spots.Draw(rt, "at")
				e, place, err := x.Lookup(k.dir, hash(k), k.name)
				switch {
				case err != nil:
					rt.Fatal(err)
				case e != nil:
					x.RemoveEntry(k.dir, place, e)
					delete(want, k)
				default:
					ino++
					want[k] = ino
					if err := x.AddEntry(k.dir, hash(k), Entry{Name: k.name, Ino: ino}); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"freeze": func(rt *rapid.T) {
				if done != nil {
					return
				}
				var write func(kv.Tx) error
				write, done = x.Freeze()
				if rapid.Bool().Draw(rt, "fails") {
					done(false)
					done = nil
				} else if err := db.Update(write); err != nil {
					rt.Fatal(err)
				}
			},
			"done": func(*rapid.T) {
				if done != nil {
					done(true)
					done = nil
				}
			},
			"age": func(*rapid.T) { x.Age() },
			"": func(rt *rapid.T) {
				k := spots.Draw(rt, "looked up")
				e, _, err := x.Lookup(k.dir, hash(k), k.name)
				if err != nil || (e != nil) != (want[k] != 0) || e != nil && e.Ino != want[k] {
					rt.Fatalf("%v is %v, want inode %d: %v", k, e, want[k], err)
				}
			},
		})
	})
}
