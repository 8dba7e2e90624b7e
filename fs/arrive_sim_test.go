package fs

import (
	"context"
	"testing"
)

// threeOf makes devices with f1, d1/f3 and d2/f5, as the simulator (integration/sim) does.
func threeOf(t *testing.T, n int) (*devices, []*testHome) {
	t.Helper()
	d := newDevices(t, n)
	a := d.all[0]
	a.create(a.root, "f1", []byte("f1\n"))
	a.create(a.dir0(a.root, "d1"), "f3", []byte("f3\n"))
	a.create(a.dir0(a.root, "d2"), "f5", []byte("f5\n"))
	d.settle()
	return d, d.all
}

func (h *testHome) publishes() {
	h.t.Helper()
	h.must(h.Flush(context.Background()))
}

// What follows was found by the simulator.

func TestDirectoryRenamedOverAnEmptyOne(t *testing.T) {
	d, h := threeOf(t, 2)
	a, b := h[0], h[1]
	a.must(a.Rename(a.in("d1"), "f3", a.root, "f1", 0))
	b.create(b.in("d1"), ".tmp", []byte("saved\n"))
	b.must(b.Rename(b.in("d1"), ".tmp", b.in("d1"), "f3", 0))
	a.must(a.Rename(a.root, "d2", a.root, "d1", 0))
	a.publishes()
	d.settle()
	d.same()
}

func TestDirectoriesRenamedOverEachOther(t *testing.T) {
	for first := range 3 {
		for second := range 3 {
			for _, early := range []bool{false, true} {
				d, h := threeOf(t, 3)
				a, b, c := h[0], h[1], h[2]
				b.must(b.Rename(b.in("d1"), "f3", b.in("d2"), "f5", 0))
				c.create(c.in("d1"), "f4", []byte("f4\n"))
				a.must(a.Unlink(a.in("d2"), "f5"))
				a.must(a.Rename(a.root, "d1", a.root, "d2", 0))
				c.publishes()
				if early {
					a.publishes()
					b.publishes()
				}
				b.must(b.Rename(b.root, "d2", b.root, "d1", 0))
				if first != second {
					d.send(h[first], h[second])
				}
				d.settle()
				d.same()
			}
		}
	}
}

func TestMergedDirectoryWithSomethingUnpublished(t *testing.T) {
	d, h := threeOf(t, 2)
	a, b := h[0], h[1]
	a.must(a.Rename(a.in("d1"), "f3", a.in("d2"), "f6", 0))
	a.must(a.Rename(a.root, "d2", a.root, "d1", 0))
	b.must(b.Unlink(b.in("d1"), "f3"))
	b.create(b.in("d1"), "f3", []byte("anew\n"))
	b.publishes()
	b.must(b.Rename(b.in("d1"), "f3", b.in("d2"), "f5", 0))
	d.send(a, b)
	d.settle()
	d.same()
}

func TestMergedDirectoryWithAFileBeingWritten(t *testing.T) {
	d, h := threeOf(t, 2)
	a, b := h[0], h[1]
	a.must(a.Unlink(a.in("d1"), "f3"))
	a.must(a.Rename(a.root, "d2", a.root, "d1", 0))
	a.publishes()
	b.create(b.in("d1"), "f4", []byte("f4\n"))
	b.publishes()
	b.write(b.in("d2/f5"), []byte("more\n"), 0)
	d.send(a, b)
	d.settle()
	d.same()
}

func TestRenamedOverADirectoryInUse(t *testing.T) {
	d, h := threeOf(t, 2)
	a, b := h[0], h[1]
	a.must(a.Rename(a.in("d2"), "f5", a.in("d1"), "f4", 0))
	a.must(a.Rename(a.root, "d1", a.root, "d2", 0))
	must2(b.Link(b.in("d1/f3"), b.in("d2"), "f6"))
	b.publishes()
	mode := uint32(0o602)
	must2(b.Setattr(context.Background(), b.in("d2/f6"), SetAttr{Mode: &mode}))
	d.send(a, b)
	d.settle()
	d.same()
}

// TestPublishWithoutTheBlock: content of one block that is not here can be given to another file, and be added to.
func TestPublishWithoutTheBlock(t *testing.T) {
	d, h := threeOf(t, 2)
	a, b := h[0], h[1]
	big := random(1, 20<<10)
	a.create(a.root, "big", big)
	d.settle()
	f := b.in("big")
	b.must(b.Rename(b.root, "big", b.in("d1"), "f3", 0))
	b.write(f, []byte("and more"), int64(len(big)))
	b.publishes()
	d.sendBlocks(b, a)
	d.settle()
	a.wantContent(a.in("d1"), "f3", append(big, "and more"...))
}
