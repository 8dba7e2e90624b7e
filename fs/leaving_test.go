package fs

import (
	"syscall"
	"testing"
)

// TestDeletionThatWasCutShort: at whatever operation of the disk the deletion of a space ends, the next start has the space whole, or
// not at all, and reports nothing.
func TestDeletionThatWasCutShort(t *testing.T) {
	whole, gone := 0, 0
	for n := int64(1); ; n++ {
		th := newTestHome(t)
		_, err := th.CreateSpace("Work")
		th.must(err)
		root, err := th.SpaceRoot("Work")
		th.must(err)
		th.must(th.checkpoint(t.Context()))
		th.create(root, "f", []byte("not in a checkpoint"))
		th.create(th.root, "g", []byte("beside"))
		th.sim.FailAt(n, syscall.EIO)
		_ = th.DeleteSpace("Work")
		landed := th.sim.Landed()
		th.sim.FailAt(0, nil)
		after := TestHome{th}.Killed()
		st, err := after.Status()
		th.must(err)
		if len(st.Errors) > 0 {
			t.Errorf("operation %d: %+v", n, st.Errors)
		}
		if root, err := after.SpaceRoot("Work"); err == nil {
			after.wantContent(root, "f", []byte("not in a checkpoint"))
			whole++
		} else {
			gone++
		}
		after.Abandon()
		if landed == 0 {
			break
		}
	}
	if whole == 0 || gone < 2 {
		t.Errorf("%d times the space was there, and %d times it was not: the test proves nothing", whole, gone)
	}
}
