package spaces_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/spaces"
)

// What a node of many spaces needs: little on the disk beside what is in them, as good as nothing in memory for those that nobody asks for, little for
// those in use, and no descriptor, memory or write to the disk of one that was read and is not used any more.
func TestManySpaces(t *testing.T) {
	many := 2000
	const use = 500
	if testing.Short() {
		many = 1000
	}
	dir := t.TempDir()
	set, err := spaces.Open(spaces.Options{Dir: dir})
	must(t, err)
	keys := newKeys(t)
	ids := make([]dag.ID, many)
	var next atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < many; i = int(next.Add(1)) - 1 {
				sp, err := acl.CreateSpace(keys, store.NewMem(), nil)
				if err != nil {
					t.Error(err)
					return
				}
				var frames [][]byte
				_ = sp.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil })
				r := set.Take(t.Context(), sp.ID(), keys.Identity, frames)
				if r == nil {
					t.Error("not taken")
					return
				}
				for range 2 {
					b, err := r.Files.Begin(keys.Author(), r.ACL.Heads(), sp.Epoch())
					if err == nil {
						_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return make([]byte, 500), nil })
					}
					if err == nil {
						_, err = b.Commit()
					}
					if err == nil {
						err = r.Durable()
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
				data := append(make([]byte, 2000), sp.ID().String()...)
				if err := r.Upload(keys.Identity, block.Sum(data), data); err != nil {
					t.Error(err)
				}
				r.Release()
				ids[i] = sp.ID()
			}
		})
	}
	wg.Wait()
	must(t, set.Close())
	if t.Failed() {
		return
	}
	var onDisk int64
	content := func() (sum dag.ID) {
		onDisk = 0
		h := blake3.New()
		must(t, filepath.WalkDir(filepath.Join(dir, "spaces"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			i, err := d.Info()
			if err != nil {
				return err
			}
			onDisk += i.Sys().(*syscall.Stat_t).Blocks * 512
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(h, io.LimitReader(f, 64<<10))
			return err
		}))
		return dag.ID(h.Sum(nil))
	}
	wrote := content()
	if each := onDisk / int64(many); each > 64<<10 {
		t.Errorf("a space of some KiB takes %d KiB of the disk", each>>10)
	}

	look := func() (heap, files int) {
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return int(m.HeapAlloc + m.StackInuse), len(fds)
	}
	set = nil
	heap0, files0 := look()
	set, err = spaces.Open(spaces.Options{Dir: dir, CloseAfter: 50 * time.Millisecond})
	must(t, err)
	heap1, files1 := look()
	if each := (heap1 - heap0) / many; each > 1<<10 || files1 > files0+8 {
		t.Errorf("unused, a space takes %d bytes; there are %d descriptors more", each, files1-files0)
	}
	var release []func()
	for _, id := range ids[:use] {
		r := set.Space(t.Context(), id, keys.Identity)
		if r == nil {
			t.Fatal("a space is gone")
		}
		if batches, _, _ := r.Files.Counters(); batches != 2 {
			t.Fatalf("a space has %d batches", batches)
		}
		release = append(release, r.Release)
	}
	heap2, files2 := look()
	t.Logf("on the disk %d KiB each; unused %d bytes of memory each, in use %d KiB and %d descriptors", onDisk/int64(many)>>10, (heap1-heap0)/many, (heap2-heap1)/use>>10, (files2-files1)/use)
	if each := (heap2 - heap1) / use; each > 48<<10 || files2-files1 > 4*use+8 {
		t.Errorf("in use, a space takes %d KiB; %d have %d descriptors", each>>10, use, files2-files1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { _ = set.Run(ctx) })
	for _, r := range release {
		r()
	}
	eventually(t, "all are closed", func() bool { return set.Totals().Open == 0 })
	heap3, files3 := look()
	if heap3 > heap1+use*4<<10 || files3 > files1+8 {
		t.Errorf("%d bytes of memory and %d descriptors are held of %d spaces that nobody uses any more", heap3-heap1, files3-files1, use)
	}
	cancel()
	wg.Wait()
	must(t, set.Close())
	if content() != wrote {
		t.Error("spaces that were only read were written to")
	}
}
