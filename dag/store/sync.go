package store

import (
	"fmt"
	"sync"
)

// syncs is the state of making a log durable. Callers that come while one syncs wait, and share the next sync.
type syncs struct {
	one sync.Mutex // held by who syncs

	mu     sync.Mutex // guards what follows; after one
	synced uint64     // position up to which the log is durable
	small  bool       // the last sync had little to write
	err    error      // the first failure, which is final
}

// mode returns whether syncs are small, and the failure if there was one.
func (s *syncs) mode() (small bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.small, s.err
}

func (s *syncs) reset(end uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced = end
}

const smallSync = 32 << 10

// sync implements Store.Sync.
func (l *log) sync() error {
	end := l.position()
	s := &l.syncs
	s.one.Lock()
	defer s.one.Unlock()
	s.mu.Lock()
	synced, err := s.synced, s.err
	s.mu.Unlock()
	if err != nil || synced >= end {
		return err
	}
	end = l.position() // what came while waiting is synced too
	for n := synced >> segmentBits; n <= end>>segmentBits; n++ {
		f, err := l.file(n << segmentBits)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.err = fmt.Errorf("store: sync failed, open again: %w", err)
			return s.err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.synced, s.small = end, end-synced < smallSync
	return nil
}
