package block

import "sync"

// A block that is given away is hashed by who gets it, who believes nothing else. Who gives it hashes it too, so as not to give what the disk has damaged,
// and needs not where it has put or hashed the same bytes a short while ago.

const (
	maxLately = 128      // places in each of the two generations: 3 KiB a store
	minLately = 32 << 10 // bytes of a block whose place is kept: a shorter one is hashed in some µs
)

// lately are the places of the blocks that were put or hashed last, in two generations: when the young one is full, or Age is called, it becomes the old one,
// and what was in that is forgotten. A place says nothing of the bytes once its block was evicted or moved: then it is dropped.
type lately struct {
	min        uint32     // minLately, but in tests
	mu         sync.Mutex // below Store.mu
	young, old []place
}

func (l *lately) add(p place) {
	if p.n < l.min {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.young) >= maxLately {
		l.young, l.old = l.old[:0], l.young
	}
	l.young = append(l.young, p)
}

func (l *lately) has(p place) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, places := range [][]place{l.young, l.old} {
		for i := len(places) - 1; i >= 0; i-- { // most are asked for soon after they came
			if places[i] == p {
				return true
			}
		}
	}
	return false
}

func (l *lately) drop(p place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, places := range [][]place{l.young, l.old} {
		for i := range places {
			if places[i] == p {
				places[i] = place{}
			}
		}
	}
}

// Age forgets which blocks were put or hashed before it was last called. Who calls it now and then bounds by that how long GetToGive believes the disk.
func (s *Store) Age() {
	s.lately.mu.Lock()
	defer s.lately.mu.Unlock()
	s.lately.young, s.lately.old = nil, s.lately.young
}

// Doubt has each block hashed before it is given away again: somebody may have found one to be damaged.
func (s *Store) Doubt() {
	s.lately.mu.Lock()
	defer s.lately.mu.Unlock()
	s.lately.young, s.lately.old = nil, nil
}

// GetToGive is GetBuffer for who gives the block to somebody that hashes it, and believes nothing else: where it was put, or read whole by this method, since
// the last call of Age but one and not since Doubt, it lies where it lay then, and is among the last 128 such blocks at least, what the disk gives is not
// hashed again. So bytes that the disk has damaged since may be returned. It is not for who keeps, shows or vouches for what it gets.
func (s *Store) GetToGive(id ID, buf []byte) ([]byte, error) {
	at, err := s.locate(id)
	if err != nil {
		return nil, err
	}
	if s.lately.has(at.p) {
		data, err := s.readBytes(at.g, id, at.p, buf)
		// The place is looked for again after the read: who evicts, moves or doubts comes before who gives the space back.
		if err == nil && s.holdsAt(id, at) && s.lately.has(at.p) {
			return data, nil
		}
		// Whatever is wrong is said by who looks closer.
	}
	data, at, err := s.getVerified(id, buf)
	if err == nil {
		s.mu.RLock()
		if s.moves.Load() == at.moves { // else it may have left the place meanwhile
			s.lately.add(at.p)
		}
		s.mu.RUnlock()
	}
	return data, err
}
