package wire

import "fmt"

// The messages of a pairing (PROTOCOL.md, section 10).

// Limits of a pairing.
const (
	MaxPairTag = 999      // the highest tag of a code
	MaxPairBox = 20 << 10 // bytes of a box
)

// PairHello begins a pairing: the asker names the tag of the code, the giver repeats it. The nonces are of this connection.
type PairHello struct {
	_       struct{} `cbor:",toarray"`
	T       head[PairHello]
	Version uint64
	Tag     uint64
	Nonce   [32]byte
}

// PairShare is a share of the key agreement: an element of ristretto255.
type PairShare struct {
	_     struct{} `cbor:",toarray"`
	T     head[PairShare]
	Share [32]byte
}

// PairConfirm proves that the sender has the key that both agreed on.
type PairConfirm struct {
	_   struct{} `cbor:",toarray"`
	T   head[PairConfirm]
	MAC [32]byte
}

// PairBox is a piece of what a side says, sealed under the key that both agreed on. More: another piece follows.
type PairBox struct {
	_      struct{} `cbor:",toarray"`
	T      head[PairBox]
	More   bool
	Sealed []byte
}

// PairReason says why a pairing is refused.
type PairReason uint64

// The reasons.
const (
	PairNoCode  PairReason = iota + 1 // no code with that tag is shown here
	PairSpent                         // it was, and has been used, tried too often, or is too old
	PairWrong                         // the code is another one
	PairVersion                       // another version of the protocol
	PairFailed                        // the giver can't give what was asked for
	pairReasons
)

// PairRefused ends a pairing. Left is how many more attempts there are with the code.
type PairRefused struct {
	_      struct{} `cbor:",toarray"`
	T      head[PairRefused]
	Reason PairReason
	Left   uint64
}

func (PairHello) kind() Kind   { return KindPairHello }
func (PairShare) kind() Kind   { return KindPairShare }
func (PairConfirm) kind() Kind { return KindPairConfirm }
func (PairBox) kind() Kind     { return KindPairBox }
func (PairRefused) kind() Kind { return KindPairRefused }

func (m *PairHello) check() error {
	if m.Tag > MaxPairTag {
		return fmt.Errorf("tag %d", m.Tag)
	}
	return nil
}

func (m *PairShare) check() error   { return nil }
func (m *PairConfirm) check() error { return nil }

func (m *PairBox) check() error {
	if len(m.Sealed) < 16 || len(m.Sealed) > MaxPairBox {
		return fmt.Errorf("a box of %d bytes", len(m.Sealed))
	}
	return nil
}

func (m *PairRefused) check() error {
	if m.Reason == 0 || m.Reason >= pairReasons || m.Left > 255 {
		return fmt.Errorf("reason %d, %d left", m.Reason, m.Left)
	}
	return nil
}
