package mount

import (
	"runtime"
	"testing"

	"github.com/anyfs/anyfs/fs"
	"pgregory.net/rapid"
)

// TestNodesAgainstMaps holds that the table does what two maps would, and never gives a nodeid twice.
func TestNodesAgainstMaps(t *testing.T) {
	type held struct {
		handle  fs.Ino
		lookups uint64
	}
	rapid.Check(t, func(t *rapid.T) {
		n := newNodes(7)
		byID := map[uint64]*held{}
		byHandle := map[fs.Ino]uint64{}
		ever := map[uint64]bool{rootID: true}
		handle := rapid.OneOf(rapid.Uint64Range(1, 40), rapid.Uint64Range(1<<63, 1<<63+40))
		t.Repeat(map[string]func(*rapid.T){
			"lookup": func(t *rapid.T) {
				h := fs.Ino(handle.Draw(t, "handle"))
				id, fresh := n.lookup(h, 1)
				want, had := byHandle[h]
				switch {
				case h == 7:
					if id != rootID || fresh {
						t.Fatalf("the root is %d, %v", id, fresh)
					}
					return
				case had && (id != want || fresh):
					t.Fatalf("lookup of %d: %d, %v, want %d", h, id, fresh, want)
				case !had && (!fresh || ever[id]):
					t.Fatalf("lookup of %d: %d, %v was there before", h, id, fresh)
				}
				ever[id] = true
				if byID[id] == nil {
					byID[id], byHandle[h] = &held{handle: h}, id
				}
				byID[id].lookups++
			},
			"forget": func(t *rapid.T) {
				if len(byHandle) == 0 {
					t.Skip()
				}
				h := fs.Ino(handle.Draw(t, "handle"))
				id, ok := byHandle[h]
				if !ok {
					t.Skip()
				}
				k := rapid.Uint64Range(1, byID[id].lookups).Draw(t, "lookups")
				byID[id].lookups -= k
				got, gone := n.forget(id, k)
				if got != h || gone != (byID[id].lookups == 0) {
					t.Fatalf("forget of %d: %d, %v", id, got, gone)
				}
				if gone {
					delete(byID, id)
					delete(byHandle, h)
				}
			},
			"": func(t *rapid.T) {
				if n.len() != len(byID) {
					t.Fatalf("%d nodeids, want %d", n.len(), len(byID))
				}
				for id := range ever {
					h, ok := n.handle(id)
					want := byID[id]
					switch {
					case id == rootID:
						if h != 7 {
							t.Fatal("lost the root")
						}
					case ok != (want != nil) || ok && h != want.handle:
						t.Fatalf("handle of %d: %d, %v", id, h, ok)
					}
				}
				for h, want := range byHandle {
					if id, kind, ok := n.find(h); !ok || id != want || kind != 1 {
						t.Fatalf("find of %d: %d, %v", h, id, ok)
					}
				}
			},
		})
	})
}

// TestNodesMemory holds that a nodeid costs some tens of bytes, and the forgotten ones nothing more.
func TestNodesMemory(t *testing.T) {
	const count = 1_000_000
	before := heap()
	n := newNodes(1)
	ids := make([]uint64, 0, count)
	for i := range count {
		id, _ := n.lookup(fs.Ino(i+2), 0)
		ids = append(ids, id)
	}
	each := (heap() - before - 8*count) / count
	t.Logf("%d bytes each", each)
	if each > 50 {
		t.Errorf("a nodeid takes %d bytes", each)
	}
	for _, id := range ids {
		n.forget(id, 1)
	}
	used := heap()
	for i := range count {
		n.lookup(fs.Ino(i+2), 0)
	}
	if more := heap() - used; more > count {
		t.Errorf("the second million takes %d bytes more", more)
	}
	runtime.KeepAlive(n)
	runtime.KeepAlive(ids)
}

func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func BenchmarkNodes(b *testing.B) {
	n := newNodes(1)
	for i := range 1_000_000 {
		n.lookup(fs.Ino(i+2), 0)
	}
	b.Run("lookup and forget", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			id, _ := n.lookup(fs.Ino(2_000_000+i%1000), 0)
			n.forget(id, 1)
		}
	})
	b.Run("handle", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			n.handle(uint64(i%1_000_000 + 2))
		}
	})
}
