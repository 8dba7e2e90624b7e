package dag

import "crypto/ed25519"

// Limits fixed by the format. A reader refuses what exceeds them before it allocates.
const (
	Version     = 1       // of changes and batches
	MaxParents  = 64      // of a change
	MaxDeps     = 64      // of a batch
	MaxACLHeads = 64      // of a batch
	MaxChanges  = 1000    // of a batch
	MaxBytes    = 1 << 20 // of the encoded changes of a batch together
	MaxFrame    = MaxBytes + maxHead + 8
	MaxClock    = 1<<48 - 1
)

// Change is one node of an object's graph. Its ID is the hash of its canonical encoding.
//
// Parents are sorted, distinct, and changes of the same object. Slices of a decoded change alias its encoding.
type Change struct {
	Object  ID // zero in a root, whose own ID is the object's
	Parents []ID
	Clock   uint64
	Device  PublicKey
	Payload []byte // sealed
}

// Batch is what a device published at one moment, under one signature. Its ID is the hash of its canonical encoding.
//
// Seq counts from 1 in a feed; Prev is the feed's batch before this one (zero in the first). Deps are the other batches of
// the frontier that the device had applied, ACL the heads of the access list it went by; both sorted. Clock is exactly 1 +
// the highest clock of Prev and Deps. Epoch names the read key of the payloads; it is zero where nothing is sealed.
type Batch struct {
	Version         uint64
	Space           ID
	Account, Device PublicKey
	Seq             uint64
	Prev            ID
	Deps            []ID
	Clock           uint64
	ACL             []ID
	Epoch           ID
	Changes         []ID // in the order of their places
	Signature       [64]byte

	id ID // set by a graph: its batches are not to be changed
}

// Header is what a payload is sealed under: nothing sealed for one header opens under another.
type Header struct {
	Space, Object ID // Object is zero in a root
	Parents       []ID
	Epoch         ID
	Clock         uint64
	Device        PublicKey
}

// Entry is a change at its place in the total order. The receiver may keep it, and changes nothing of it.
//
// Batch lacks its Changes: they take reading the whole batch, which Graph.Batch does. At is the position of the batch in the log of
// this replica's store, in the order of arrival: see Graph.Since.
type Entry struct {
	ID     ID
	Pos    Pos
	At     uint64
	Change *Change
	Batch  *Batch
}

// Author signs batches: the device that writes, and the account it writes for.
type Author struct {
	Account, Device PublicKey
	Key             ed25519.PrivateKey // of Device
}

// Verdict says whether an accepted batch is part of the state.
type Verdict uint8

// The verdicts.
const (
	// Quarantine: no part of state, frontier or deps; kept apart.
	Quarantine Verdict = iota
	// Counts: part of the state.
	Counts
	// CountsIfNamed: part of the state if it lies in the past of a batch whose verdict is Counts, else in quarantine.
	CountsIfNamed
)

// Authorizer judges batches. It is called by whoever writes to the graph: it may call what reads the graph, and nothing
// that writes to it.
type Authorizer interface {
	// Accept says whether the author could write b by the access records of b's own past; asked once for each batch.
	// A *MissingError makes the batch wait for records; any other error refuses it for ever. Changes are in the order of
	// b.Changes.
	Accept(b *Batch, changes []*Change) error
	// Counts judges by the whole access list; asked again by Graph.Rejudge when that has grown. b may lack its Changes
	// (it knows its ID nevertheless).
	Counts(b *Batch) Verdict
}

// Anyone is an Authorizer that lets everybody write.
type Anyone struct{}

var _ Authorizer = Anyone{}

// Accept accepts.
func (Anyone) Accept(*Batch, []*Change) error { return nil }

// Counts counts.
func (Anyone) Counts(*Batch) Verdict { return Counts }

// Tip is the last batch of a feed, or of a branch of it.
type Tip struct {
	Feed   ID // the feed's first batch
	Device PublicKey
	Seq    uint64
	Batch  ID
	Clock  uint64
}
