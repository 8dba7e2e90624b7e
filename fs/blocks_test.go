package fs

import (
	"context"
	"testing"
)

// TestBlocksOfManyChunks has stat tell what a file takes that has holes, and more chunks than its content operation lists.
func TestBlocksOfManyChunks(t *testing.T) {
	for _, pieces := range []int{3, inlineLayout, 3 * inlineLayout} {
		th := newTestHome(t)
		const piece, stride = 64 << 10, 1 << 20
		data := map[int]bool{}
		ino := th.create(th.root, "f", nil)
		want := func(when string) {
			t.Helper()
			a, err := th.Getattr(ino)
			th.must(err)
			if b, err := th.Lookup(th.root, "f"); err != nil || b != a {
				t.Fatalf("%s: %+v by the name, %+v: %v", when, b, a, err)
			}
			if got := a.Blocks * 512; got != int64(len(data)*piece) {
				t.Fatalf("%d pieces, %s: %d bytes, of %d pieces", pieces, when, got, len(data))
			}
		}
		put := func(i int) {
			th.write(ino, random(uint64(i), piece), int64(i)*stride)
			data[i] = true
		}
		punch := func(i int) {
			th.must(th.Fallocate(context.Background(), ino, FallocPunchHole|FallocKeepSize, int64(i)*stride, piece))
			delete(data, i)
		}
		every := func(when string) {
			t.Helper()
			want(when)
			th.flush()
			want(when + ", published")
			th.reopen()
			ino = th.look(th.root, "f")
			want(when + ", opened again")
		}
		for i := range pieces {
			put(2 * i)
		}
		every("written")
		punch(0)
		put(1)
		put(2 * (pieces - 1)) // as it was
		every("changed")
		th.trunc(ino, stride*int64(pieces))
		for i := range data {
			if i >= pieces {
				delete(data, i)
			}
		}
		every("cut")
		th.trunc(ino, 1<<40)
		every("grown")
		put(1 << 18)
		every("written far behind")
		th.kill()
		want("killed")
	}
}
