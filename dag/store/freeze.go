package store

import (
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
)

// Freeze starts a checkpoint: what was indexed so far goes into the DB with write, which runs in one transaction of the
// owner (with those of other stores, if it likes), and what comes from now on into the next. Reads see everything all the
// while. done says how the transaction ended, and must be called: no other checkpoint starts before.
//
// write first makes the log durable up to there, if Sync has not done so.
func (s *Store) Freeze() (write func(kv.Tx) error, done func(ok bool)) {
	s.ckpt.Lock()
	s.mu.Lock()
	cur, state := s.cur, s.indexed
	s.frozen, s.cur = &cur, newOverlay()
	plan := s.planRuns()
	s.mu.Unlock()

	write = func(tx kv.Tx) error {
		if cur.empty() && state == s.state {
			return nil
		}
		if err := s.log.sync(); err != nil {
			return err
		}
		if err := s.writeTables(tx, &cur); err != nil {
			return err
		}
		if err := s.writeRuns(tx, &cur, plan); err != nil {
			return err
		}
		bucket, key := s.name+bucketStore, []byte("log")
		return tx.Put(bucket, key, s.seal.SealLocal(nil, state.encode(), ad(bucket, key)))
	}
	done = func(ok bool) {
		s.mu.Lock()
		if ok {
			s.state = state
			s.adopt(plan)
		} else {
			cur.absorb(&s.cur)
			s.cur = cur
		}
		s.frozen = nil
		s.mu.Unlock()
		s.ckpt.Unlock()
	}
	return write, done
}

func (s *Store) writeTables(tx kv.Tx, o *overlay) (err error) {
	var buf []byte
	for t := range o.tables {
		bucket := s.bucket(dag.Table(t))
		o.tables[t].Scan(func(k string, v value) bool {
			key, p := []byte(k), v.bytes()
			if p == nil {
				err = tx.Delete(bucket, key)
				return err == nil
			}
			buf = s.seal.SealLocal(buf[:0], p, ad(bucket, key))
			err = tx.Put(bucket, key, buf)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
