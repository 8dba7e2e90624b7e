package list

import (
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// Space is the ID of the space.
func (l *List) Space() dag.ID { return l.space }

// Graph is the graph of the records, for exchange with others.
func (l *List) Graph() *dag.Graph { return l.graph }

// Root returns the space's root, nil while no record has come. It must not be changed.
func (l *List) Root() *Root {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.root
}

// Heads are the batches that a batch of files names as the access list it went by: sorted, at most dag.MaxACLHeads.
// The slice must not be changed.
func (l *List) Heads() []dag.ID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.heads
}

// Records is how many records the newest state is made of. It never falls.
func (l *List) Records() int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.order)
}

// State is the newest state; nil while no record has come. It does not change any more: each new record makes another.
func (l *List) State() *State {
	l.rlock()
	defer l.mu.RUnlock()
	l.lent.Store(true)
	return l.state
}

// Watch calls fn after each new record, with no lock of the list held, until cancel is called; several in the order in
// which they came. The graph of the files is to be judged anew then.
func (l *List) Watch(fn func()) (cancel func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watches++
	id := l.watches
	l.watchers[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watchers, id)
	}
}

// Append signs a record and adds it. The first record of a list carries the root; in others
// it is left out.
func (l *List) Append(a dag.Author, rec *Record) (dag.ID, error) {
	b, err := l.graph.Begin(a, nil, dag.ID{})
	if err != nil {
		return dag.ID{}, err
	}
	first := *rec
	if b.Clock() > 1 {
		first.Root = nil
	}
	payload := first.Encode()
	id, err := b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return payload, nil })
	if err != nil {
		b.Abort()
		return dag.ID{}, err
	}
	batch, err := b.Commit()
	if err != nil {
		return dag.ID{}, fmt.Errorf("acl: append a record: %w", err)
	}
	l.applied(batch) // where another writer is about to deliver it, that comes too late for who asked
	return id, nil
}
