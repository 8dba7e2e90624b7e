// Package store keeps the batches of a graph: a log of frames in append-only segment files, and the graph's index of them.
//
// The index lies in a kv.DB, which is a checkpoint: what was indexed since lives in an overlay in memory until Freeze hands
// it to a transaction of the owner. After a crash the log is scanned from the checkpoint on, a torn tail is cut, and
// dag.Open indexes the rest again. Mem is the store in memory. STORE.md gives the bytes.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// Sealer encrypts the values of the index. ad is bound to the result: a value moved elsewhere does not open.
type Sealer interface {
	SealLocal(dst, plaintext, ad []byte) []byte
	OpenLocal(dst, sealed, ad []byte) ([]byte, error)
}

// Plain is the Sealer of nodes, whose index holds nothing that is not public: it adds a checksum (CRC-32C).
type Plain struct{}

var _ Sealer = Plain{}

// SealLocal appends the plaintext and its checksum to dst.
func (Plain) SealLocal(dst, plaintext, ad []byte) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, plaintext...), plainSum(plaintext, ad))
}

// OpenLocal appends the plaintext to dst.
func (Plain) OpenLocal(dst, sealed, ad []byte) ([]byte, error) {
	n := len(sealed) - 4
	if n < 0 || binary.LittleEndian.Uint32(sealed[n:]) != plainSum(sealed[:n], ad) {
		return nil, errors.New("store: wrong checksum")
	}
	return append(dst, sealed[:n]...), nil
}

func plainSum(plaintext, ad []byte) uint32 {
	return crc32.Update(crc32.Checksum(ad, castagnoli), castagnoli, plaintext)
}

// Options say where a store lies.
type Options struct {
	Disk disk.FS
	Dir  string // of the segment files; made where it is missing
	DB   kv.DB
	Name string // prefix of the segment files and of the buckets: several stores may share Dir and DB
	Seal Sealer
}

// Store is a dag.Store on disk. It is safe for concurrent use; one goroutine appends at a time.
type Store struct {
	name string
	db   kv.DB
	seal Sealer
	log  *log

	ckpt sync.Mutex // held from Freeze to done; before mu

	mu      sync.RWMutex // guards what follows
	cur     overlay      // since the last Freeze
	frozen  *overlay     // on its way into the DB; not changed
	runs    [dag.Sets][]*run
	next    uint32   // number of the next run
	drop    []runKey // merged into others, still in the DB
	indexed logState // what cur covers
	state   logState // of the last checkpoint
}

var _ dag.Store = (*Store)(nil)

// logState says how far an index covers the log: the position behind the last record, and of that record.
type logState struct{ end, last uint64 }

// Open opens or makes a store. It scans the log from the last checkpoint on and cuts a torn tail.
//
// An error that matches dag.ErrCorrupt says that what a checkpoint covers is not there.
func Open(o Options) (*Store, error) {
	if o.Seal == nil {
		return nil, errors.New("store: open: no sealer")
	}
	s := &Store{name: o.Name, db: o.DB, seal: o.Seal, cur: newOverlay()}
	if err := s.loadIndex(); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", o.Name, err)
	}
	l, err := openLog(o.Disk, o.Dir, o.Name, s.state)
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", o.Name, err)
	}
	s.log = l
	s.indexed = s.state
	return s, nil
}

// Close gives the segment files up. It makes nothing durable.
func (s *Store) Close() error { return s.log.close() }

// Next implements dag.Store.
func (s *Store) Next(n int) uint64 { return s.log.place(n) }

// Append implements dag.Store.
func (s *Store) Append(rec dag.Record, u *dag.Update) error {
	end, err := s.log.append(rec)
	if err != nil {
		return err
	}
	rec.End = end
	return s.Index(rec, u)
}

// Index implements dag.Store.
func (s *Store) Index(rec dag.Record, u *dag.Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cur.apply(u)
	if rec.At != 0 {
		s.indexed = logState{rec.End, rec.At}
	}
	return nil
}

// Indexed implements dag.Store.
func (s *Store) Indexed() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.indexed.end
}

// Walk implements dag.Store.
func (s *Store) Walk(from uint64, fn func(dag.Record) error) error { return s.log.walk(from, fn) }

// Read implements dag.Store.
func (s *Store) Read(at uint64) (dag.Record, error) { return s.log.read(at) }

// ReadHead implements dag.Store.
func (s *Store) ReadHead(at uint64) (dag.Record, error) { return s.log.readHead(at) }

// ReadSpans implements dag.Store.
func (s *Store) ReadSpans(spans []dag.Span) error { return s.log.readSpans(spans) }

// Sync makes all that was appended durable. A failure is final: the store must be opened again.
func (s *Store) Sync() error { return s.log.sync() }

// Dirty returns about how many bytes of memory a checkpoint would free.
func (s *Store) Dirty() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.cur.size
	if s.frozen != nil {
		n += s.frozen.size
	}
	return n
}

// Bytes returns the length of the log.
func (s *Store) Bytes() int64 { return s.log.bytes() }

// Mark is a place between two records of the log.
type Mark uint64

// Mark returns the end of the log. What was appended before it is there after a crash if Sync came in between, or the
// machine kept running.
func (s *Store) Mark() Mark { return Mark(s.log.position()) }

// Rollback cuts off what was appended after a mark, but never what a checkpoint covers. It is for recovery: it comes
// between Open and dag.Open, and fails when a graph has indexed more, or when the log ends before the mark.
func (s *Store) Rollback(to Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.indexed != s.state || uint64(to) > s.log.position() {
		return fmt.Errorf("store: rollback to %d: indexed to %d, end %d", to, s.indexed.end, s.log.position())
	}
	return s.log.cut(s.state, max(uint64(to), s.state.end, segmentHead))
}
