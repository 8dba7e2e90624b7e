package store

import (
	"fmt"
	"sync"

	"github.com/anyfs/anyfs/dag"
)

// Mem is a store in memory.
type Mem struct {
	mu      sync.RWMutex
	records []dag.Record // At is the place in it, from 1
	indexed uint64
	index   overlay
}

var _ dag.Store = (*Mem)(nil)

// NewMem returns an empty store in memory.
func NewMem() *Mem { return &Mem{indexed: 1, index: newOverlay()} }

// Next implements dag.Store.
func (m *Mem) Next(int) uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return uint64(len(m.records)) + 1
}

// Append implements dag.Store.
func (m *Mem) Append(rec dag.Record, u *dag.Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rec.At != uint64(len(m.records))+1 {
		return fmt.Errorf("store: append at %d, the end is %d", rec.At, len(m.records)+1)
	}
	rec.End = rec.At + 1
	m.records = append(m.records, rec)
	m.indexed = rec.End
	m.index.apply(u)
	return nil
}

// Index implements dag.Store.
func (m *Mem) Index(rec dag.Record, u *dag.Update) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index.apply(u)
	m.indexed = max(m.indexed, rec.End)
	return nil
}

// Indexed implements dag.Store.
func (m *Mem) Indexed() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.indexed
}

// Walk implements dag.Store.
func (m *Mem) Walk(from uint64, fn func(dag.Record) error) error {
	for at := max(from, 1); ; at++ {
		m.mu.RLock()
		end := at > uint64(len(m.records))
		m.mu.RUnlock()
		if end {
			return nil
		}
		rec, err := m.Read(at)
		if err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
}

// Read implements dag.Store.
func (m *Mem) Read(at uint64) (dag.Record, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if at == 0 || at > uint64(len(m.records)) {
		return dag.Record{}, fmt.Errorf("%w: no record at %d", dag.ErrCorrupt, at)
	}
	return m.records[at-1], nil
}

// ReadHead implements dag.Store.
func (m *Mem) ReadHead(at uint64) (dag.Record, error) {
	rec, err := m.Read(at)
	if err == nil {
		rec.Frame = rec.Frame[:rec.Head]
	}
	return rec, err
}

// ReadSpans implements dag.Store.
func (m *Mem) ReadSpans(spans []dag.Span) error {
	for i := range spans {
		s := &spans[i]
		rec, err := m.Read(s.At)
		if err != nil {
			return err
		}
		if uint64(s.Off)+uint64(s.Len) > uint64(len(rec.Frame)) {
			return fmt.Errorf("%w: span outside the record at %d", dag.ErrCorrupt, s.At)
		}
		s.Data = rec.Frame[s.Off : s.Off+s.Len : s.Off+s.Len]
		if s.Head {
			s.ID = rec.ID
			s.Data = nil
			if int(s.Len) >= rec.Head {
				s.Data = rec.Frame[:rec.Head:rec.Head]
			}
		}
	}
	return nil
}

// Get implements dag.Store.
func (m *Mem) Get(t dag.Table, key []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, _ := m.index.tables[t].Get(string(key))
	return v.bytes(), nil
}

// Floor implements dag.Store.
func (m *Mem) Floor(t dag.Table, key []byte) (k, v []byte, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.index.tables[t].Descend(string(key), func(fk string, fv value) bool {
		if fv.size > 0 {
			k, v = []byte(fk), fv.bytes()
		}
		return k == nil
	})
	return k, v, nil
}

// Ceil implements dag.Store.
func (m *Mem) Ceil(t dag.Table, key []byte) (k, v []byte, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.index.tables[t].Ascend(string(key), func(fk string, fv value) bool {
		if fv.size > 0 {
			k, v = []byte(fk), fv.bytes()
		}
		return k == nil
	})
	return k, v, nil
}

// Find implements dag.Store.
func (m *Mem) Find(s dag.Set, prefix uint64, dst []dag.Value) ([]dag.Value, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.index.sets[s].find(prefix, dst), nil
}

// Sync implements dag.Store: nothing here is ever durable.
func (m *Mem) Sync() error { return nil }
