package spaces_test

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/spaces"
)

// BenchmarkSpaces makes a node of 2,000 spaces of one account, and asks for them: how long it takes to open one that is on the disk, what it
// holds of memory, and what the node's start takes for each.
func BenchmarkSpaces(b *testing.B) {
	const many = 2000
	dir := b.TempDir()
	set, err := spaces.Open(spaces.Options{Dir: dir})
	must(b, err)
	keys := newKeys(b)
	var ids []dag.ID
	for range many {
		sp, err := acl.CreateSpace(keys, store.NewMem(), nil)
		must(b, err)
		var frames [][]byte
		must(b, sp.List().Graph().FramesSince(nil, func(_ dag.ID, f []byte) error { frames = append(frames, f); return nil }))
		r := set.Take(b.Context(), sp.ID(), keys.Identity, frames)
		if r == nil {
			b.Fatal("not taken")
		}
		r.Release()
		ids = append(ids, sp.ID())
	}
	must(b, set.Close())

	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			s, err := spaces.Open(spaces.Options{Dir: dir})
			must(b, err)
			must(b, s.Close())
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/many, "µs/space")
	})
	b.Run("open", func(b *testing.B) {
		s, err := spaces.Open(spaces.Options{Dir: dir})
		must(b, err)
		heap := func() float64 {
			debug.FreeOSMemory()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return float64(m.HeapAlloc + m.StackInuse)
		}
		before, n := heap(), 0
		b.ResetTimer()
		for b.Loop() {
			if s.Space(b.Context(), ids[n%many], keys.Identity) == nil {
				b.Fatal("it is not here")
			}
			n++
		}
		b.StopTimer()
		b.ReportMetric((heap()-before)/1024/float64(min(n, many)), "KiB/space")
		must(b, s.Close())
	})
}
