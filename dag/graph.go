// Package dag holds the signed change graph of one space.
//
// A change is immutable: object, parents, clock, device, sealed payload; a batch signs many. FORMAT.md gives the bytes.
// A graph is a set of batches closed under what they name. Heads of an object are the changes no other change names.
// Graphs that hold the same set have the same heads and order, whatever order they arrived in.
// The package does no I/O of its own, starts no goroutine and reads no clock.
package dag

import "errors"

var errNotYet = errors.New("dag: not built")

// Options tune a graph; the zero value is good.
type Options struct {
	PendingBytes    int // of batches that wait for what they name; default 16 MiB
	QuarantineBytes int // of batches in quarantine taken from others; default 64 MiB
}

// Graph holds the batches of one space. It is safe for concurrent use.
type Graph struct{}

// Open returns the graph that st holds.
func Open(space ID, st Store, auth Authorizer, opt Options) (*Graph, error) { return nil, errNotYet }

// Status says what became of a batch.
type Status uint8

// The outcomes of Ingest.
const (
	Accepted Status = iota + 1
	Duplicate
	Pending
)

// Result says what became of an ingested frame.
type Result struct {
	Status  Status
	ID      ID
	Missing []ID // Pending: what it waits for, and is to be asked for
}

// Store keeps the batches of one graph.
type Store interface{ Sync() error }

// Builder makes one batch.
type Builder struct{}

func (g *Graph) Begin(a Author, acl []ID, epoch ID) (*Builder, error) { return nil, errNotYet }
func (b *Builder) Clock() uint64                                      { return 0 }
func (b *Builder) Add(object ID, seal func(h Header) ([]byte, error)) (ID, error) {
	return ID{}, errNotYet
}
func (b *Builder) Len() (changes, bytes int)                             { return 0, 0 }
func (b *Builder) Commit() (*Batch, error)                               { return nil, errNotYet }
func (b *Builder) Abort()                                                {}
func (g *Graph) Ingest(frame []byte) (Result, error)                     { return Result{}, errNotYet }
func (g *Graph) Heads() []ID                                             { return nil }
func (g *Graph) Tips() []Tip                                             { return nil }
func (g *Graph) ObjectHeads(object ID) []ID                              { return nil }
func (g *Graph) Changes(object ID, fn func(Entry) error) error           { return errNotYet }
func (g *Graph) ChangesFrom(object, from ID, fn func(Entry) error) error { return errNotYet }
func (g *Graph) ChangesBack(object ID, fn func(Entry) error) error       { return errNotYet }
func (g *Graph) Change(id ID) (Entry, error)                             { return Entry{}, errNotYet }
func (g *Graph) Objects(fn func(ID) error) error                         { return errNotYet }
func (g *Graph) Batches(fn func(b *Batch, bodies [][]byte) error) error  { return errNotYet }
func (g *Graph) Batch(id ID) (*Batch, [][]byte, error)                   { return nil, nil, errNotYet }
func (g *Graph) Subscribe(fn func(*Batch)) (cancel func())               { return func() {} }
func (g *Graph) Quarantined() []ID                                       { return nil }
