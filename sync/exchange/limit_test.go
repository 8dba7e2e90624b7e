package exchange_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/exchange"
)

// TestLimits: a large block takes as long as the limit says, in both directions; a small change overtakes it; peers of the local network
// are free unless it is said otherwise.
func TestLimits(t *testing.T) {
	const size, perSecond = 2 << 20, 1 << 20
	for _, x := range []struct {
		name string
		a, b exchange.Limits
		slow bool
	}{
		{"up", exchange.Limits{Up: perSecond, LAN: true}, exchange.Limits{}, true},
		{"down", exchange.Limits{}, exchange.Limits{Down: perSecond, LAN: true}, true},
		{"the local network is free", exchange.Limits{Up: perSecond}, exchange.Limits{Down: perSecond}, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			a := newDevice(t, 1, 1)
			b := newDevice(t, 1, 2, a.addr("/tcp/"))
			ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
			a.e.Add(ra.Replica)
			b.e.Add(rb.Replica)
			eventually(t, func() bool { return equal(ra, rb) && len(b.e.Status().Peers) == 1 })
			a.e.SetLimits(x.a)
			b.e.SetLimits(x.b)
			id, err := ra.Blocks.(*block.Store).Put(bytes.Repeat([]byte("x"), size))
			must(t, err)
			began := time.Now()
			fetched := make(chan time.Duration, 1)
			go func() {
				if _, err := rb.Blocks.(*block.Store).Get(t.Context(), id); err != nil {
					t.Error(err)
				}
				fetched <- time.Since(began)
			}()
			time.Sleep(200 * time.Millisecond)
			wrote := time.Now()
			ra.write(t, ra.Files, []byte("small"))
			eventually(t, func() bool { return equal(ra, rb) })
			small, large := time.Since(wrote), <-fetched
			t.Logf("%d KiB at %d KiB/s took %v, a small change meanwhile %v", size>>10, perSecond>>10, large, small)
			if least := 1500 * time.Millisecond; x.slow != (large > least) {
				t.Errorf("%d KiB took %v", size>>10, large)
			}
			if x.slow && small > large/3 {
				t.Errorf("a small change took %v, beside a block that took %v", small, large)
			}
			if !x.slow {
				return
			}
			// Without a limit it is free again.
			a.e.SetLimits(exchange.Limits{})
			b.e.SetLimits(exchange.Limits{})
			id, err = ra.Blocks.(*block.Store).Put(bytes.Repeat([]byte("y"), size))
			must(t, err)
			began = time.Now()
			_, err = rb.Blocks.(*block.Store).Get(t.Context(), id)
			must(t, err)
			if took := time.Since(began); took > large/2 {
				t.Errorf("without a limit it took %v", took)
			}
		})
	}
}

// TestResumeDials: a device that was paused for long is connected again at once, also with a peer that had connected by itself.
func TestResumeDials(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
	a.e.Add(ra.Replica)
	b.e.Add(rb.Replica)
	eventually(t, func() bool { return len(a.e.Status().Peers) == 1 && len(b.e.Status().Peers) == 1 })
	a.e.Pause()
	eventually(t, func() bool { return len(b.e.Status().Peers) == 0 })
	must(t, b.e.RemovePeer(a.addr("/tcp/"))) // b dials no more
	ra.write(t, ra.Files, []byte("x"))
	a.e.Resume()
	eventually(t, func() bool { return equal(ra, rb) })
}
