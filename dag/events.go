package dag

import "sync"

// events brings batches to subscribers in the order in which they came to count. Whoever changed the graph delivers, after
// it has let go of the locks; while one delivers, others leave what they have to it.
type events struct {
	mu    sync.Mutex
	queue []*Batch
	busy  bool
	subs  map[int]func(*Batch)
	next  int
}

func (e *events) add(b *Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.subs) > 0 {
		e.queue = append(e.queue, b)
	}
}

func (e *events) deliver() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy {
		return
	}
	e.busy = true
	for len(e.queue) > 0 {
		queue := e.queue
		e.queue = nil
		subs := make([]func(*Batch), 0, len(e.subs))
		for _, fn := range e.subs {
			subs = append(subs, fn)
		}
		e.mu.Unlock()
		for _, b := range queue {
			for _, fn := range subs {
				fn(b)
			}
		}
		e.mu.Lock()
	}
	e.busy = false
}

// Subscribe calls fn for each batch when it begins to count, one at a time, from the goroutine of a writer to the graph
// that holds no lock of the graph. fn may use the graph, and should be quick: what other writers do meanwhile waits in
// memory. A batch comes after its past, but for what counts only because it is named: that comes after what names it.
// After cancel returns, fn may still be called for batches that were on their way.
func (g *Graph) Subscribe(fn func(*Batch)) (cancel func()) {
	e := &g.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.subs == nil {
		e.subs = make(map[int]func(*Batch))
	}
	n := e.next
	e.next++
	e.subs[n] = fn
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, n)
	}
}
