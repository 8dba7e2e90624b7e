package fs

import (
	"context"
	"slices"
	"testing"
)

// crossed gives each of two devices what the other had published, at once: each ends the conflicts of that before it hears how the other did.
func (d *devices) crossed(a, b *testHome) {
	d.t.Helper()
	ctx := context.Background()
	sa, sb := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	a.must(sa.publishAll(ctx))
	b.must(sb.publishAll(ctx))
	toB, toA := sa.lackedBy(d.t, sb), sb.lackedBy(d.t, sa)
	sb.takes(d.t, toB)
	sa.takes(d.t, toA)
	a.must(sa.arrive(ctx))
	b.must(sb.arrive(ctx))
}

// TestCopyRemovedBeforeItsTwin: two devices end a conflict by equal copies, which show as one. Who removes the copy before the other device's has come
// gets that in its place (TREE.md, section 12), on all devices alike; removed once more it stays away.
func TestCopyRemovedBeforeItsTwin(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.create(a.dir0(a.root, "case"), "f", []byte("first\n"))
	d.settle()
	a.write(a.in("case/f"), []byte("by a\n"), 0)
	b.write(b.in("case/f"), []byte("by b\n"), 0)
	d.crossed(a, b)
	d.same()
	removeAll := func() []string {
		names := a.list(a.in("case"))
		for _, n := range names {
			a.must(a.Unlink(a.in("case"), n))
		}
		a.must(a.Rmdir(a.root, "case"))
		return names
	}
	names := removeAll()
	if len(names) != 2 {
		t.Fatalf("there is %q, and no conflict copy", names)
	}
	d.settle()
	d.same()
	if left := a.list(a.in("case")); len(left) != 1 || left[0] == "f" || !slices.Contains(names, left[0]) {
		t.Fatalf("of %q there is %q again", names, left)
	}
	removeAll()
	d.settle()
	d.same()
	if left := a.list(a.root); len(left) != 0 {
		t.Errorf("%q came back a second time", left)
	}
}
