package kv

import (
	"runtime/debug"
	"sync"

	"go.etcd.io/bbolt"
)

// Beginning a transaction of bbolt takes about as long as a read in it, and most Views read one value. So reading transactions are kept
// from one View to the next, as long as no Update comes between. None is kept while one runs: an open one holds back the pages that the
// update gives up, and a map that has to grow.

// maxIdle bounds the reading transactions that nobody uses. Ours to tune.
const maxIdle = 4

// readers are the reading transactions of a Bolt that are open and unused.
type readers struct {
	mu    sync.Mutex
	idle  []*boltTx
	epoch uint64 // changes when an update begins, and when it ends
	held  int    // updates that run or wait, and Close: nothing is kept
}

// take gives a transaction that sees the last Update that returned, nil where none is kept, and the epoch to give it back with.
func (r *readers) take() (*boltTx, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.idle)
	if n == 0 {
		return nil, r.epoch
	}
	t := r.idle[n-1]
	r.idle = r.idle[:n-1]
	return t, r.epoch
}

// keep takes a transaction back that was taken, or begun, in an epoch. It is false where it is to be ended.
func (r *readers) keep(t *boltTx, epoch uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held > 0 || r.epoch != epoch || len(r.idle) >= maxIdle {
		return false
	}
	r.idle = append(r.idle, t)
	return true
}

// hold ends what is kept, and has nothing kept until release is called.
func (r *readers) hold() (release func()) {
	r.mu.Lock()
	idle := r.idle
	r.idle = nil
	r.epoch++
	r.held++
	r.mu.Unlock()
	for _, t := range idle {
		t.end()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.epoch++
		r.held--
	}
}

// end ends a reading transaction.
func (t *boltTx) end() { _ = t.tx.Rollback() } // it fails only where it was ended

func (b *Bolt) view(fn func(Tx) error) (err error) {
	t, epoch := b.readers.take()
	if t == nil {
		var tx *bbolt.Tx
		if err := guarded(func() (err error) { tx, err = b.db.Begin(false); return err }); err != nil {
			return err
		}
		t = &boltTx{tx: tx}
	}
	whole := false // neither a panic nor damage came by
	defer func() {
		b.reads.Add(t.reads)
		t.reads, t.touches = 0, 0
		if !whole || !b.readers.keep(t, epoch) {
			t.end()
		}
	}()
	t.faults, t.inBolt = debug.SetPanicOnFault(true), true
	defer t.guard(&err)
	err = t.run(t.tx, fn)
	whole = t.damage == nil
	return err
}
