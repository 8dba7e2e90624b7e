package spaces_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/nodes/spaces"
)

// A space that nobody uses is closed, and opened again by who comes; nothing is lost however these fall together.
func TestIdleSpacesAreClosed(t *testing.T) {
	dir := t.TempDir()
	opt := spaces.Options{CloseAfter: 20 * time.Millisecond}
	n := newNode(t, dir, opt)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.set.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	closed := func() {
		t.Helper()
		eventually(t, "all spaces are closed", func() bool { return n.set.Totals().Open == 0 })
	}
	var devices []*device
	for range 4 {
		devices = append(devices, newDevice(t, n))
	}
	apart := func(d *device) { must(t, d.e.SetNodes(nil)) }
	rnd := rand.New(rand.NewPCG(1, 2))
	opened := 0
	for round := range 6 {
		for _, d := range devices {
			d.use(t, n)
			for range 1 + rnd.IntN(5) {
				d.write(t, "sealed")
			}
		}
		for _, d := range devices {
			d.equal(t)
			opened += min(1, n.set.Totals().Open)
			apart(d)
			if rnd.IntN(2) == 0 {
				time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond) // others come while it is being closed
			}
		}
		if round%2 == 1 {
			closed()
		}
	}
	if opened == 0 {
		t.Error("nothing was ever open")
	}
	closed()
	for _, d := range devices {
		r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
		if r == nil || !slices.Equal(r.Files.Heads(), d.files.Heads()) {
			t.Fatal("something is missing")
		}
		if n.set.Totals().Open == 0 {
			t.Error("a space in use is closed")
		}
		r.Release()
	}
	closed()
}
