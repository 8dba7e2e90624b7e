package fs

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// readHook is a disk that calls a function, once it is set, before the next read of a block.
type readHook struct {
	disk.FS
	fn *atomic.Pointer[func()]
}

func (d readHook) Open(name string) (disk.File, error)   { return d.file(name, d.FS.Open) }
func (d readHook) Create(name string) (disk.File, error) { return d.file(name, d.FS.Create) }

func (d readHook) file(name string, open func(string) (disk.File, error)) (disk.File, error) {
	f, err := open(name)
	if err == nil && strings.Contains(name, "/blocks/") {
		f = hookedFile{f, d.fn}
	}
	return f, err
}

type hookedFile struct {
	disk.File
	fn *atomic.Pointer[func()]
}

func (f hookedFile) ReadAt(p []byte, off int64) (int, error) {
	if fn := f.fn.Swap(nil); fn != nil {
		(*fn)()
	}
	return f.File.ReadAt(p, off)
}

// TestCopyOfWhatIsPublishedMeanwhile: the journal's files that a copy reads from may be given up while it runs.
func TestCopyOfWhatIsPublishedMeanwhile(t *testing.T) {
	ctx := context.Background()
	th := newTestHome(t)
	th.must(th.Close())
	var hook atomic.Pointer[func()]
	th.openInline(readHook{th.sim, &hook}, 256<<10)
	want := random(1, 30<<10) // too short for a reference
	src := th.create(th.root, "src", want)
	th.flush()
	th.write(src, random(2, 4<<10), 20<<10)
	copy(want[20<<10:], random(2, 4<<10))
	dst := th.create(th.root, "dst", nil)
	publish := func() {
		for i := range 4 {
			th.create(th.root, "more"+string(rune('a'+i)), random(3, 120<<10)[:60<<10])
			th.create(th.root, "most"+string(rune('a'+i)), random(3, 120<<10)[60<<10:])
		}
		th.must(th.Flush(ctx))
		th.must(th.checkpoint(ctx))
	}
	hook.Store(&publish)
	k, err := th.CopyRange(ctx, src, 0, dst, 0, int64(len(want)))
	if err != nil || k != int64(len(want)) || hook.Load() != nil {
		t.Fatalf("%d of %d bytes were copied: %v", k, len(want), err)
	}
	th.wantContent(th.root, "dst", want)
}
