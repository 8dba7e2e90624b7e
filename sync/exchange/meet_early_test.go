package exchange_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/exchange"
)

// TestReadBeforeStart: who reads as soon as a folder is mounted, before the exchange runs and anybody is dialed, waits for who has it.
func TestReadBeforeStart(t *testing.T) {
	t.Parallel()
	a := newDevice(t, 1, 1)
	ra := newReplica(t, a, "early")
	a.e.Add(ra.Replica)
	want := random(1, 10_000)
	id, err := ra.Blocks.(*block.Store).Put(want)
	must(t, err)

	b := newDevice(t, 1, 2)
	b.stop()
	b.e, err = exchange.New(exchange.Options{
		Key: b.author.Key, Certificate: b.cert, Peers: []string{a.addr("tcp")}, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	rb := newReplica(t, b, "early")
	b.e.Add(rb.Replica)
	got := make(chan error, 1)
	go func() {
		data, err := rb.Blocks.(*block.Store).Get(t.Context(), id)
		if err == nil && !bytes.Equal(data, want) {
			t.Error("other bytes")
		}
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = b.e.Run(ctx) })
	must(t, <-got)
}
