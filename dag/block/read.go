package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
)

// Fetcher gets blocks from elsewhere. It returns ErrAbsent when nobody has the block. What it returns is verified by who
// asks, unless it is a Verifier, and is theirs. It must be safe for concurrent use; one block is asked for once at a time.
type Fetcher interface {
	Fetch(ctx context.Context, id ID) ([]byte, error)
}

// Urger is a Fetcher that gets some blocks before others. Both methods are quick.
type Urger interface {
	Urgent(ctx context.Context) bool // whether somebody waits for what is fetched with ctx
	Urge(id ID)                      // somebody waits for what was asked for without that
}

// Verifier is a Fetcher that returns only bytes of which it has found that they are the block's.
type Verifier interface {
	Fetcher
	Verifies()
}

// SetFetcher replaces the Fetcher; nil: absent blocks are absent.
func (s *Store) SetFetcher(f Fetcher) {
	s.fetching.Lock()
	defer s.fetching.Unlock()
	s.fetching.by = f
}

// Get returns a block's bytes, which are the caller's, verified against id.
//
// A block that is absent, or damaged on the disk, is asked of the Fetcher and kept. Errors match ErrAbsent, ErrCorrupt,
// what the Fetcher returned, ctx's cause, or the disk's error.
func (s *Store) Get(ctx context.Context, id ID) ([]byte, error) {
	data, err := s.GetLocal(id)
	if errors.Is(err, ErrAbsent) || errors.Is(err, ErrCorrupt) {
		return s.fetch(ctx, id, err)
	}
	return data, err
}

// GetLocal is Get without asking the Fetcher.
func (s *Store) GetLocal(id ID) ([]byte, error) { return s.GetBuffer(id, nil) }

// GetBuffer is GetLocal into buf where its capacity is enough: 1 MiB of new memory costs more than reading and hashing.
func (s *Store) GetBuffer(id ID, buf []byte) ([]byte, error) {
	data, _, err := s.getVerified(id, buf)
	return data, err
}

// getVerified is GetBuffer, and says where the block was.
func (s *Store) getVerified(id ID, buf []byte) ([]byte, located, error) {
	for {
		at, err := s.locate(id)
		if err != nil {
			return nil, at, err
		}
		data, err := s.readPlace(at.g, id, at.p, buf)
		if err == nil {
			return data, at, nil
		}
		// Only what is still where it was found is damaged: evicted bytes are zeros, and a compacted file is gone.
		if s.holdsAt(id, at) {
			if errors.Is(err, ErrCorrupt) {
				s.setBad(id, at.p)
			}
			return nil, at, err
		}
	}
}

// located is where a block was at a moment of Store.moves.
type located struct {
	p     place
	g     *segment
	moves uint64
}

func (s *Store) locate(id ID) (located, error) {
	moves := s.moves.Load()
	p, ok, err := s.lookup(id)
	if err != nil {
		return located{}, err
	}
	if !ok {
		return located{}, fmt.Errorf("%w: %s", ErrAbsent, id)
	}
	s.mu.RLock()
	g, closed := s.segments[p.seg], s.closed
	s.mu.RUnlock()
	if closed {
		return located{}, ErrClosed
	}
	if g == nil && s.moves.Load() == moves {
		return located{}, fmt.Errorf("%w: %s: %s is missing", ErrCorrupt, id, s.segmentName(p.seg))
	}
	if g == nil {
		return s.locate(id) // it was moved and its segment removed meanwhile
	}
	return located{p, g, moves}, nil
}

// holdsAt reports whether what was read at a place was the block's: whether it lay there until after the read.
func (s *Store) holdsAt(id ID, at located) bool {
	if s.moves.Load() == at.moves {
		return true
	}
	p, ok, err := s.lookup(id)
	return err == nil && ok && p == at.p
}

func (s *Store) setBad(id ID, p place) {
	s.lately.drop(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.bad) < 1<<16 { // of more the disk is beyond repair by single blocks
		s.bad[id] = p
	}
}

// readPlace reads and verifies the block at p of g, into buf where it fits.
func (s *Store) readPlace(g *segment, id ID, p place, buf []byte) ([]byte, error) {
	data, err := s.readBytes(g, id, p, buf)
	if err == nil && Sum(data) != id {
		return nil, fmt.Errorf("%w: %s: other bytes in %s at %d", ErrCorrupt, id, s.segmentName(p.seg), p.off)
	}
	return data, err
}

// readBytes is readPlace, but that it does not verify what it reads.
func (s *Store) readBytes(g *segment, id ID, p place, buf []byte) ([]byte, error) {
	data := slices.Grow(buf[:0], int(p.n))[:p.n]
	if err := s.readAt(g, data, int64(p.off)+recordHeader); err != nil {
		if missing(err) {
			return nil, fmt.Errorf("%w: %s: %s ends before it, at %d, or is missing", ErrCorrupt, id, s.segmentName(p.seg), p.off)
		}
		return nil, fmt.Errorf("block: read %s: %w", id, err)
	}
	return data, nil
}

// missing reports whether a read failed because the file is too short or not there.
func missing(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, iofs.ErrNotExist)
}

// readAt fills p from g's file; a file that ends before gives io.EOF or io.ErrUnexpectedEOF.
func (s *Store) readAt(g *segment, p []byte, off int64) error {
	f, err := s.files.acquire(s, g)
	if err != nil {
		return err
	}
	defer s.files.release(g)
	return readFull(f, p, off)
}

// Reader returns a reader of parts of a block, and its length. An absent block is fetched first.
//
// What it reads is not verified against the ID: it is for who authenticates what is read. It holds no file open and need
// not be closed. It follows the block when it is moved; once it is evicted reads fail with ErrAbsent. It is safe for
// concurrent use.
func (s *Store) Reader(ctx context.Context, id ID) (io.ReaderAt, int64, error) {
	at, err := s.locate(id)
	if errors.Is(err, ErrAbsent) || errors.Is(err, ErrCorrupt) {
		data, err := s.fetch(ctx, id, err)
		if err != nil {
			return nil, 0, err
		}
		return bytes.NewReader(data), int64(len(data)), nil
	}
	if err != nil {
		return nil, 0, err
	}
	return &reader{s: s, id: id, at: at}, int64(at.p.n), nil
}

type reader struct {
	s  *Store
	id ID
	at located
}

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	at := r.at
	for {
		n, err := r.s.readBlockAt(at, p, off)
		if r.s.moves.Load() == at.moves || r.s.holdsAt(r.id, at) {
			return n, err
		}
		if at, err = r.s.locate(r.id); err != nil {
			return 0, err
		}
	}
}

// Ahead has the system bring in n bytes of the block from off on, and does not wait for them: reads of two places of a block
// take the disk's time once. It is a hint, and fails silently.
func (r *reader) Ahead(off, n int64) {
	n = min(n, int64(r.at.p.n)-off)
	if off < 0 || n <= 0 {
		return
	}
	if f, err := r.s.files.acquire(r.s, r.at.g); err == nil {
		f.Ahead(int64(r.at.p.off)+recordHeader+off, n)
		r.s.files.release(r.at.g)
	}
}

func (s *Store) readBlockAt(at located, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("block: read at a negative offset")
	}
	var end error
	if rest := int64(at.p.n) - off; rest <= 0 {
		return 0, io.EOF
	} else if int64(len(p)) > rest {
		p, end = p[:rest], io.EOF
	}
	if err := s.readAt(at.g, p, int64(at.p.off)+recordHeader+off); err != nil {
		if missing(err) {
			return 0, fmt.Errorf("%w: %s ends before a block does or is missing", ErrCorrupt, s.segmentName(at.p.seg))
		}
		return 0, fmt.Errorf("block: read: %w", err)
	}
	return len(p), end
}

// flight is one fetch of a block, shared by all who want it.
type flight struct {
	waiters int           // beside who fetches; under fetching
	urgent  bool          // who fetches is
	done    chan struct{} // closed when the rest is set
	data    []byte        // for the waiters to copy; nil if there are none
	err     error
}

// fetch asks the Fetcher for a block that is not here because of why, and keeps it. With nobody to ask it returns why.
func (s *Store) fetch(ctx context.Context, id ID, why error) ([]byte, error) {
	for {
		s.fetching.Lock()
		by := s.fetching.by
		if by == nil {
			s.fetching.Unlock()
			return nil, why
		}
		u, _ := by.(Urger)
		urgent := u != nil && u.Urgent(ctx)
		f := s.fetching.flights[id]
		if f == nil {
			f = &flight{urgent: urgent, done: make(chan struct{})}
			s.fetching.flights[id] = f
			s.fetching.Unlock()
			data, err := s.fetchVerified(ctx, by, id)
			s.fetching.Lock()
			delete(s.fetching.flights, id)
			if f.err = err; f.waiters > 0 {
				f.data = bytes.Clone(data) // data is the caller's, to change as he likes
			}
			s.fetching.Unlock()
			close(f.done)
			return data, err
		}
		f.waiters++
		s.fetching.Unlock()
		if urgent && !f.urgent {
			u.Urge(id)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if f.err == nil {
			return bytes.Clone(f.data), nil // each has bytes of its own
		}
		// Who asked gave up: that is no answer for those who did not.
		gaveUp := errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)
		// Nor is what was found without haste, where less is tried.
		if !gaveUp && (f.urgent || !urgent) {
			return nil, f.err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Store) fetchVerified(ctx context.Context, by Fetcher, id ID) ([]byte, error) {
	// A fetch may have ended between the caller's look for the block and this one.
	if data, err := s.GetLocal(id); err == nil {
		return data, nil
	}
	data, err := by.Fetch(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("block: fetch %s: %w", id, err)
	}
	if _, verified := by.(Verifier); !verified && Sum(data) != id {
		return nil, fmt.Errorf("block: fetch %s: %w: other bytes came", id, ErrCorrupt)
	}
	// A disk that takes no more does not keep a reader from what is there already.
	_ = s.PutHashed(id, data)
	return data, nil
}
