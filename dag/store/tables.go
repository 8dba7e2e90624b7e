package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
)

// Buckets of a store: one for each table, one for the sets, one for what the store itself keeps.
var tableNames = [dag.Tables]string{
	dag.TableMeta:       ".meta",
	dag.TableObjects:    ".objects",
	dag.TableLogs:       ".logs",
	dag.TableChains:     ".chains",
	dag.TableFeeds:      ".feeds",
	dag.TablePasts:      ".pasts",
	dag.TableQuarantine: ".quarantine",
}

const (
	bucketRuns  = ".runs"
	bucketStore = ".store"
)

func (s *Store) bucket(t dag.Table) string { return s.name + tableNames[t] }

// ad binds a value to its place.
func ad(bucket string, key []byte) []byte {
	p := append(make([]byte, 0, len(bucket)+1+len(key)), bucket...)
	return append(append(p, 0), key...)
}

func (s *Store) open(bucket string, key, sealed []byte) ([]byte, error) {
	return s.openIn(nil, bucket, key, sealed)
}

// openIn is open, whose bytes it appends to dst.
func (s *Store) openIn(dst []byte, bucket string, key, sealed []byte) ([]byte, error) {
	p, err := s.seal.OpenLocal(dst, sealed, ad(bucket, key))
	if err != nil {
		return nil, fmt.Errorf("%w: value in %s: %w", dag.ErrIndex, bucket, err)
	}
	return p, nil
}

// load reads and opens one value; nil when there is none.
func (s *Store) load(bucket string, key []byte) (v []byte, err error) {
	viewErr := s.db.View(func(tx kv.Tx) error {
		if p := tx.Get(bucket, key); p != nil {
			v, err = s.open(bucket, key, p)
		}
		return err
	})
	return v, viewErr
}

// Get implements dag.Store.
func (s *Store) Get(t dag.Table, key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k := string(key)
	v, ok := s.cur.tables[t].Get(k)
	if !ok && s.frozen != nil {
		v, ok = s.frozen.tables[t].Get(k)
	}
	if ok {
		return v.bytes(), nil
	}
	return s.load(s.bucket(t), key)
}

// Floor implements dag.Store.
func (s *Store) Floor(t dag.Table, key []byte) (k, v []byte, err error) {
	return s.near(t, key, false)
}

// Ceil implements dag.Store.
func (s *Store) Ceil(t dag.Table, key []byte) (k, v []byte, err error) {
	return s.near(t, key, true)
}

// near finds the nearest pair in one direction in all layers; of equal keys the newest layer's counts.
func (s *Store) near(t dag.Table, key []byte, up bool) (k, v []byte, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	from, beyond := string(key), false // beyond: only keys further than from
	for {
		best, val, found := "", value{}, false
		better := func(k string) bool { return !found || k != best && (k < best) == up }
		for _, layer := range []*overlay{&s.cur, s.frozen} {
			if layer == nil {
				continue
			}
			if fk, fv, ok := layer.near(t, from, up, beyond); ok && better(fk) {
				best, val, found = fk, fv, true
			}
		}
		dk, dv, err := s.nearInDB(t, []byte(from), up, beyond)
		if err != nil {
			return nil, nil, err
		}
		if dk != nil && better(string(dk)) {
			v, err := s.open(s.bucket(t), dk, dv)
			return dk, v, err
		}
		if !found {
			return nil, nil, nil
		}
		if p := val.bytes(); p != nil {
			return []byte(best), p, nil
		}
		from, beyond = best, true
	}
}

func (o *overlay) near(t dag.Table, from string, up, beyond bool) (k string, v value, ok bool) {
	visit := func(fk string, fv value) bool {
		if beyond && fk == from {
			return true
		}
		k, v, ok = fk, fv, true
		return false
	}
	if up {
		o.tables[t].Ascend(from, visit)
	} else {
		o.tables[t].Descend(from, visit)
	}
	return k, v, ok
}

func (s *Store) nearInDB(t dag.Table, from []byte, up, beyond bool) (k, v []byte, err error) {
	visit := func(fk, fv []byte) bool {
		if beyond && bytes.Equal(fk, from) {
			return true
		}
		k, v = bytes.Clone(fk), bytes.Clone(fv)
		return false
	}
	err = s.db.View(func(tx kv.Tx) error {
		if up {
			return tx.Scan(s.bucket(t), from, visit)
		}
		return tx.ScanBack(s.bucket(t), from, visit)
	})
	return k, v, err
}

// loadIndex reads what the last checkpoint left.
func (s *Store) loadIndex() error {
	bucket := s.name + bucketStore
	p, err := s.load(bucket, []byte("log"))
	if err != nil {
		return err
	}
	if p != nil {
		if len(p) != 16 {
			return fmt.Errorf("%w: state of the log", dag.ErrIndex)
		}
		s.state = logState{binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])}
	}
	return s.loadRuns()
}

func (st logState) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, st.end), st.last)
}

// Buckets lists those of the DB that a store of this name uses.
func Buckets(name string) []string {
	out := []string{name + bucketRuns, name + bucketStore}
	for _, t := range tableNames {
		out = append(out, name+t)
	}
	return out
}

// VerifyIndex opens all that the checkpoint holds of the index, and calls report, with an error that matches dag.ErrIndex, for
// what does not open. It goes beside other work; ctx ends it.
func (s *Store) VerifyIndex(ctx context.Context, report func(error)) error {
	for _, bucket := range Buckets(s.name) {
		if err := kv.Each(ctx, s.db, bucket, func(k, v []byte) {
			if _, err := s.open(bucket, k, v); err != nil {
				report(fmt.Errorf("%w, key %x", err, k))
			}
		}); err != nil {
			return err
		}
	}
	return nil
}
