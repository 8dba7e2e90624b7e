package kv

import (
	"slices"
	"sync"

	"github.com/tidwall/btree"
)

// Mem is a DB in memory. Nothing of it outlives the process.
type Mem struct {
	update sync.Mutex // held by the one Update; taken before mu

	mu     sync.RWMutex
	state  memState
	closed bool

	// commit, where set, makes an update durable before it is seen. It is called with update held.
	commit func(ops []memOp, next memState) error
}

// memState is one immutable version: its maps are only changed after Copy.
type memState struct {
	buckets map[string]*btree.Map[string, []byte]
	bytes   int64 // of keys and values
}

type memOp struct {
	bucket, key string
	value       []byte // nil: deleted
}

var _ DB = (*Mem)(nil)

// NewMem returns an empty DB in memory.
func NewMem() *Mem { return &Mem{} }

func (m *Mem) snapshot() (memState, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return memState{}, ErrClosed
	}
	return m.state, nil
}

func (m *Mem) View(fn func(Tx) error) error {
	s, err := m.snapshot()
	if err != nil {
		return err
	}
	return fn(&memTx{state: s})
}

func (m *Mem) Update(fn func(Tx) error) error {
	m.update.Lock()
	defer m.update.Unlock()
	s, err := m.snapshot()
	if err != nil {
		return err
	}
	tx := &memTx{state: s, writable: true}
	if err := fn(tx); err != nil {
		return err
	}
	if m.commit != nil && len(tx.ops) > 0 {
		if err := m.commit(tx.ops, tx.state); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.state = tx.state
	m.mu.Unlock()
	return nil
}

func (m *Mem) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state.bytes
}

// Trim does nothing: there is no file whose pages are cached.
func (m *Mem) Trim() {}

func (m *Mem) Buckets() ([]string, error) {
	s, err := m.snapshot()
	var names []string
	for name, b := range s.buckets {
		if b.Len() > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, err
}

// Check finds nothing: there is no file that could be damaged.
func (m *Mem) Check() error { return nil }

func (m *Mem) Close() error {
	m.update.Lock()
	defer m.update.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

type memTx struct {
	state    memState
	writable bool
	own      map[string]bool // buckets that this Tx has copied
	ops      []memOp
}

func (t *memTx) Get(bucket string, key []byte) []byte {
	b := t.state.buckets[bucket]
	if b == nil {
		return nil
	}
	v, _ := b.Get(string(key))
	return v
}

// mutable returns a copy of the bucket that this Tx may change.
func (t *memTx) mutable(bucket string) *btree.Map[string, []byte] {
	if t.own[bucket] {
		return t.state.buckets[bucket]
	}
	if t.own == nil {
		t.own = make(map[string]bool)
		next := make(map[string]*btree.Map[string, []byte], len(t.state.buckets)+1)
		for name, b := range t.state.buckets {
			next[name] = b
		}
		t.state.buckets = next
	}
	b := t.state.buckets[bucket]
	if b == nil {
		b = new(btree.Map[string, []byte])
	} else {
		b = b.IsoCopy()
	}
	t.state.buckets[bucket], t.own[bucket] = b, true
	return b
}

func (t *memTx) Put(bucket string, key, value []byte) error {
	if !t.writable {
		return ErrReadOnly
	}
	if err := checkPair(key, value); err != nil {
		return err
	}
	op := memOp{bucket, string(key), append(make([]byte, 0, len(value)), value...)}
	t.apply(op)
	t.ops = append(t.ops, op)
	return nil
}

func (t *memTx) Delete(bucket string, key []byte) error {
	if !t.writable {
		return ErrReadOnly
	}
	if err := checkPair(key, nil); err != nil {
		return err
	}
	op := memOp{bucket: bucket, key: string(key)}
	t.apply(op)
	t.ops = append(t.ops, op)
	return nil
}

func (t *memTx) Clear(bucket string) error {
	if !t.writable {
		return ErrReadOnly
	}
	if b := t.state.buckets[bucket]; b != nil {
		for _, k := range b.Keys() {
			if err := t.Delete(bucket, []byte(k)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *memTx) apply(op memOp) {
	b := t.mutable(op.bucket)
	var old []byte
	var had bool
	if op.value == nil {
		old, had = b.Delete(op.key)
	} else {
		old, had = b.Set(op.key, op.value)
		t.state.bytes += int64(len(op.key) + len(op.value))
	}
	if had {
		t.state.bytes -= int64(len(op.key) + len(old))
	}
}

func (t *memTx) Scan(bucket string, from []byte, fn func(k, v []byte) bool) error {
	if b := t.state.buckets[bucket]; b != nil {
		b.Ascend(string(from), func(k string, v []byte) bool { return fn([]byte(k), v) })
	}
	return nil
}

func (t *memTx) ScanBack(bucket string, from []byte, fn func(k, v []byte) bool) error {
	if t.writable {
		return ErrUpdate
	}
	b := t.state.buckets[bucket]
	if b == nil {
		return nil
	}
	each := func(k string, v []byte) bool { return fn([]byte(k), v) }
	if from == nil {
		b.Reverse(each)
	} else {
		b.Descend(string(from), each)
	}
	return nil
}
