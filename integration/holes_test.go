package integration

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// TestSparseWrites writes stamped blocks into files at random places, with and without fsync and with pauses in which the
// publisher works, and looks that every block holds its last stamp and every hole is zero.
func TestSparseWrites(t *testing.T) {
	seed := envNumber("ANYFS_SEED", 1)
	h := Mounted(t)
	files := 120
	if Long() {
		files = 2000
	}
	type history struct {
		want  []uint64
		trace string
	}
	all := map[string]*history{}
	look := func(when, path string) {
		t.Helper()
		b, err := os.ReadFile(path)
		check(t, err)
		got := make([]uint64, blockCount)
		for i := range got {
			if i*blockBytes < len(b) {
				got[i] = binary.LittleEndian.Uint64(b[i*blockBytes:])
			}
		}
		if f := all[path]; !slices.Equal(got, f.want) {
			t.Fatalf("%s (seed %d): after %s\n got %v\nwant %v", when, seed, f.trace, got, f.want)
		}
	}
	for n := range files {
		rnd := rand.New(rand.NewPCG(seed, uint64(n)))
		path := h.Personal(fmt.Sprintf("f%d", n))
		hist := &history{want: make([]uint64, blockCount)}
		all[path] = hist
		check(t, create(path))
		for range 1 + rnd.IntN(6) {
			i := rnd.IntN(blockCount)
			hist.want[i]++
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			check(t, err, second(f.WriteAt(stampBlock(hist.want[i]), int64(i)*blockBytes)))
			synced := rnd.IntN(2) == 0
			if synced {
				check(t, f.Sync())
			}
			check(t, f.Close())
			pause := time.Duration(rnd.IntN(3)) * 10 * time.Millisecond
			time.Sleep(pause)
			hist.trace += fmt.Sprintf("block %d, synced %v, pause %v; ", i, synced, pause)
		}
		look("fresh", path)
	}
	h.Settle()
	h.Remount()
	for path := range all {
		look("after the remount", path)
	}
}
