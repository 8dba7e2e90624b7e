package spaces_test

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/wire"
)

// The owner's word takes a space off a node, and holds across restarts; nobody else's does, nor an older one; what a fellow node passes on counts where nothing
// here says otherwise.
func TestOwnersWord(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, dir, spaces.Options{})
	d, stranger := newDevice(t, n), newKeys(t)
	d.write(t, "sealed")
	d.equal(t)
	id := d.space.ID()
	var frames [][]byte
	must(t, d.space.List().Export(func(f []byte) error { frames = append(frames, append([]byte(nil), f...)); return nil }))
	account, device := d.keys.Identity, dag.PublicKey(d.keys.Author().Device)
	say := func(what string, account, device dag.PublicKey, on bool, counter uint64, mesh bool, wantOn bool, wantCounter uint64) {
		t.Helper()
		a := n.set.Place(t.Context(), &wire.Place{Space: id, On: on, Counter: counter, Certificate: []byte("certificate")}, account, device, mesh)
		if a.On != wantOn || a.Counter != wantCounter {
			t.Errorf("%s: it holds %v, %d", what, a.On, a.Counter)
		}
	}
	served := func(what string, want bool) {
		t.Helper()
		r := n.set.Space(t.Context(), id, account)
		if (r != nil) != want {
			t.Errorf("%s: served %v", what, r != nil)
		}
		if r != nil {
			r.Release()
		}
	}
	other := dag.PublicKey(stranger.Author().Device)
	say("a stranger", stranger.Identity, other, false, 1, false, false, 0)
	say("another device in the owner's name", account, other, false, 1, false, false, 0)
	say("a stranger, by a fellow node", stranger.Identity, other, false, 1, true, false, 0)
	served("after what strangers said", true)
	say("the owner, on", account, device, true, 2, false, true, 2)
	say("an older word", account, device, false, 1, false, true, 2)
	say("both at once", account, device, false, 2, false, true, 2)
	served("on", true)
	say("the owner, off", account, device, false, 3, true, false, 3) // passed on by a fellow node
	served("off", false)
	if n.set.Take(t.Context(), id, account, frames) != nil || n.set.TakeCopy(t.Context(), id, frames) != nil {
		t.Error("a space that its owner took off is taken in")
	}
	d.stop()
	n.e.Forget(id)
	n.set.Retire(id)
	must(t, n.set.Drop(id))
	n.stop()

	n = newNode(t, dir, spaces.Options{})
	if w := n.set.Placed(id); w == nil || w.On || w.Counter != 3 || string(w.Certificate) != "certificate" || !n.set.Off(id) {
		t.Fatalf("after a restart: %+v", w)
	}
	say("an old word, of a space that is not here", account, device, true, 2, false, false, 3)
	say("a stranger, of a space that is not here", stranger.Identity, other, true, 9, false, false, 0)
	if n.set.Take(t.Context(), id, account, frames) != nil {
		t.Error("after a restart it is taken in")
	}
	say("the owner, on again", account, device, true, 4, false, true, 4)
	if n.set.Take(t.Context(), id, account, frames) == nil {
		t.Error("the owner cannot bring it back")
	}
}
