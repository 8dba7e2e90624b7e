package dag_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestParallel reads, subscribes and ingests beside writers: what a reader sees is always whole.
func TestParallel(t *testing.T) {
	g, h := newGraph(t), newGraph(t)
	_, ids := put(t, g, author(0), "root ", dag.ID{}, dag.ID{}, dag.ID{})
	var mu sync.Mutex
	var frames [][]byte
	last := map[dag.PublicKey]uint64{}
	g.Subscribe(func(b *dag.Batch) {
		mu.Lock()
		defer mu.Unlock()
		if b.Seq != last[b.Device]+1 && b.Device != author(0).Device {
			t.Errorf("told of seq %d after %d", b.Seq, last[b.Device])
		}
		last[b.Device] = b.Seq
		f, err := g.Frame(b.ID())
		if err != nil {
			t.Error(err)
		}
		frames = append(frames, f)
	})
	const writers, each = 3, 150
	var wg, readers sync.WaitGroup
	done := make(chan struct{})
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				put(t, g, author(w+1), "x", ids[i%3])
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, id := range ids {
					if err := readAll(g, id); err != nil {
						t.Error(err)
					}
				}
				if err := g.Batches(func(*dag.Batch, [][]byte) error { return nil }); err != nil {
					t.Error(err)
				}
				g.Tips()
			}
		})
	}
	wg.Wait()
	close(done)
	readers.Wait()
	must(t, g.Verify(nil))
	if b, _, _ := g.Counters(); b != writers*each+1 || len(frames) != writers*each {
		t.Fatal(b, len(frames))
	}
	// The other replica gets them from three sides at once.
	e, err := g.Change(ids[0])
	must(t, err)
	first, err := g.Frame(e.Pos.Batch)
	must(t, err)
	frames = append(frames, first)
	for k := range 3 {
		wg.Go(func() {
			for i := range frames {
				if _, err := h.Ingest(append([]byte(nil), frames[(i*7+k*100)%len(frames)]...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if h.Heads()[0] != g.Heads()[0] {
		t.Fatal(h.Heads(), g.Heads())
	}
	must(t, h.Verify(nil))
}

// readAll reads an object both ways: in order, and with all that its changes name.
func readAll(g *dag.Graph, object dag.ID) error {
	seen := map[dag.ID]bool{}
	var last dag.Pos
	if err := g.Changes(object, func(e dag.Entry) error {
		if e.Pos.Compare(last) <= 0 {
			return errors.New("out of order")
		}
		last = e.Pos
		for _, p := range e.Change.Parents {
			if !seen[p] {
				return errors.New("a parent came after its child")
			}
		}
		seen[e.ID] = true
		return nil
	}); err != nil {
		return err
	}
	n := 0
	if err := g.ChangesBack(object, func(dag.Entry) error { n++; return nil }); err != nil {
		return err
	}
	if n < len(seen) {
		return errors.New("fewer backwards")
	}
	return nil
}
