package fs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
)

// TestStreamGrowsInOrder cuts the power while a large file is written, whose chunks are sealed beside the writer: what is found is
// how the file began, never a later part behind a hole.
func TestStreamGrowsInOrder(t *testing.T) {
	for range 20 { // whether a power loss falls between two chunks is for the scheduler and the space's key to decide
		if cutWhileGrowing(t) > 0 {
			return
		}
	}
	t.Fatal("none had a part: the test proves nothing")
}

// cutWhileGrowing returns how many disks had a part of the file.
func cutWhileGrowing(t *testing.T) (parts int) {
	base := fs.NewTestHome(t)
	w := walker{base.Home, base.Root()}
	must(t, create("f").do(w))
	must(t, base.SyncAll(ctx))
	data := pattern(1, 9<<20)
	var mu sync.Mutex
	var list crashes
	rnd := rand.New(rand.NewPCG(*modelSeed, 11))
	base.Sim().Watch(func() {
		mu.Lock()
		defer mu.Unlock()
		for i, k := range keeps(base.Sim().Unsynced(), rnd) {
			if i > 1 && rnd.IntN(8) > 0 {
				continue
			}
			list.add(crashed{disk: base.Sim().Crash(k.keep), how: k.name})
		}
	})
	a, err := w.find("f")
	must(t, err)
	for off := 0; off < len(data); off += 1 << 20 {
		_, err := base.Write(ctx, a.Ino, data[off:off+1<<20], int64(off), fs.WriteFlags{})
		must(t, err)
		must(t, base.Written())
	}
	must(t, base.SyncAll(ctx))
	base.Sim().Watch(nil)
	list.add(crashed{disk: base.Sim().Crash(func() disk.Keep { return disk.Drop }), how: "at the end", lo: len(data)})
	err = each(len(list), func(i int) error {
		c := &list[i]
		th, err := base.On(c.disk)
		if err != nil {
			return err
		}
		defer th.Abandon()
		got, err := walker{th.Home, th.Root()}.tree()
		if err != nil {
			return fmt.Errorf("%s: %w", c.how, err)
		}
		b := got.files["f"]
		if len(b) < c.lo || len(b) > len(data) || !bytes.Equal(b, data[:len(b)]) {
			return fmt.Errorf("%s: the file holds %d bytes, and differs from what was written at %d", c.how, len(b), firstDifference(b, data))
		}
		if len(b) > 0 && len(b) < len(data) {
			mu.Lock()
			parts++
			mu.Unlock()
		}
		return nil
	})
	t.Logf("seed %d: %d disks after power losses, %d with a part", *modelSeed, len(list), parts)
	must(t, err)
	return parts
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
