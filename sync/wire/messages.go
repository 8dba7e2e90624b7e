package wire

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// Kind is the type of a message: the first item of its array.
type Kind uint8

// The kinds of messages.
const (
	KindHello Kind = iota + 1
	KindTags
	KindProof
	KindBye
	KindOpen
	KindHeads
	KindPull
	KindFrames
	KindEnd
	KindHave
	KindWant
	KindAbsent
	KindAsk
	KindGetBlock
	KindPart
	KindHasBlocks
	KindHeldBlocks
	KindProbe
	KindAnswer
	KindStatement
	KindRely
	KindWithdraw
	KindRelease
	KindGuest
	KindSealed
	KindPreview
	kinds
)

// The kinds of messages that came later. All but Content go to or from a node alone.
const (
	KindSpaces Kind = iota + 32
	KindServed
	KindPutBlock
	KindNetwork
	KindContent
	KindJoin
	KindHasBatches
	nodeKinds
)

// The kinds of messages about what a network keeps of a space, between a device and a node.
const (
	KindQuota Kind = iota + 56
	KindPlace
	keepKinds
)

// The kinds of messages of a pairing.
const (
	KindPairHello Kind = iota + 40
	KindPairShare
	KindPairConfirm
	KindPairBox
	KindPairRefused
	pairKinds
)

// The kinds of messages by which devices find each other through a node.
const (
	KindMeet Kind = iota + 48
	KindSeen
	KindPresent
	KindLookup
	meetKinds
)

func (k Kind) new() Message {
	switch k {
	case KindHello:
		return &Hello{}
	case KindTags:
		return &Tags{}
	case KindProof:
		return &Proof{}
	case KindQuota:
		return &Quota{}
	case KindPlace:
		return &Place{}
	case KindBye:
		return &Bye{}
	case KindOpen:
		return &Open{}
	case KindHeads:
		return &Heads{}
	case KindPull:
		return &Pull{}
	case KindFrames:
		return &Frames{}
	case KindEnd:
		return &End{}
	case KindHave:
		return &Have{}
	case KindWant:
		return &Want{}
	case KindAbsent:
		return &Absent{}
	case KindAsk:
		return &Ask{}
	case KindGetBlock:
		return &GetBlock{}
	case KindPart:
		return &Part{}
	case KindHasBlocks:
		return &HasBlocks{}
	case KindHeldBlocks:
		return &HeldBlocks{}
	case KindProbe:
		return &Probe{}
	case KindAnswer:
		return &Answer{}
	case KindStatement:
		return &Statement{}
	case KindRely:
		return &Rely{}
	case KindWithdraw:
		return &Withdraw{}
	case KindRelease:
		return &Release{}
	case KindGuest:
		return &Guest{}
	case KindSealed:
		return &Sealed{}
	case KindPreview:
		return &Preview{}
	case KindSpaces:
		return &Spaces{}
	case KindServed:
		return &Served{}
	case KindPutBlock:
		return &PutBlock{}
	case KindNetwork:
		return &Network{}
	case KindContent:
		return &Content{}
	case KindPairHello:
		return &PairHello{}
	case KindPairShare:
		return &PairShare{}
	case KindPairConfirm:
		return &PairConfirm{}
	case KindPairBox:
		return &PairBox{}
	case KindPairRefused:
		return &PairRefused{}
	case KindJoin:
		return &Join{}
	case KindHasBatches:
		return &HasBatches{}
	case KindMeet:
		return &Meet{}
	case KindSeen:
		return &Seen{}
	case KindPresent:
		return &Present{}
	case KindLookup:
		return &Lookup{}
	}
	return nil
}

// head is the type of a message as its first item. The zero value encodes as the type of the message that holds it.
type head[T kinded] struct{}

type kinded interface{ kind() Kind }

// MarshalCBOR writes the kind.
func (head[T]) MarshalCBOR() ([]byte, error) {
	var m T
	return m.kind().append(nil), nil
}

// UnmarshalCBOR takes nothing but the kind.
func (head[T]) UnmarshalCBOR(p []byte) error {
	var m T
	if !bytes.Equal(p, m.kind().append(nil)) {
		return errors.New("another kind")
	}
	return nil
}

// append appends the number of a kind as CBOR writes it.
func (k Kind) append(b []byte) []byte {
	if k < 24 {
		return append(b, byte(k))
	}
	return append(b, 0x18, byte(k))
}

// Graph names one of the two graphs of a space.
type Graph uint8

// The graphs. The access list goes before the files.
const (
	ACL Graph = iota
	Files
	Graphs // how many there are
)

// String is the name of a graph in logs.
func (g Graph) String() string {
	if g == ACL {
		return "acl"
	}
	return "files"
}

func (g Graph) check() error {
	if g >= Graphs {
		return fmt.Errorf("graph %d", g)
	}
	return nil
}

// Hello begins a connection. Each side sends one without waiting for the other's.
type Hello struct {
	_       struct{} `cbor:",toarray"`
	T       head[Hello]
	Version uint64
	Nonce   [32]byte
}

// Tags prove spaces that the sender is in, among others that prove nothing, in no order. More can follow at any time.
type Tags struct {
	_    struct{} `cbor:",toarray"`
	T    head[Tags]
	Tags List[Tag]
}

// Tag proves being in a space, to who is in it.
type Tag [32]byte

// Proof says after a common space is proved whose device the sender is.
type Proof struct {
	_           struct{} `cbor:",toarray"`
	T           head[Proof]
	Certificate []byte
	Signature   [64]byte
}

// Reason says why a peer says Bye.
type Reason uint64

// The reasons.
const (
	ByeNothing Reason = iota + 1 // no space in common
	ByeVersion                   // another version of the protocol
	ByePaused                    // the peer rests
	ByeFault                     // the other broke the protocol
	ByeRefused                   // a node may not join, or is none of the network
)

// Bye is the last message of a connection.
type Bye struct {
	_      struct{} `cbor:",toarray"`
	T      head[Bye]
	Reason Reason
}

// Open is the first message of a stream: the space that it is about.
type Open struct {
	_     struct{} `cbor:",toarray"`
	T     head[Open]
	Space dag.ID
}

// Heads tells the frontier of a graph as the sender holds it durably, and how many batches it holds. Of more than MaxHeads
// it tells the digest of the sorted IDs alone.
type Heads struct {
	_       struct{} `cbor:",toarray"`
	T       head[Heads]
	Graph   Graph
	Batches uint64
	Digest  []byte // of all heads; empty where they are named
	Heads   List[dag.ID]
}

// Pull asks for all that a holder of these tips lacks. More says that further tips follow in another Pull. With a Key it is the end
// of a run of probes under that key: Known has a bit for each tip that the receiver named, set where the sender holds it, and Tips
// are those that the receiver did not name. Key and Known are the first Pull's.
type Pull struct {
	_     struct{} `cbor:",toarray"`
	T     head[Pull]
	Graph Graph
	More  bool
	Key   []byte // 16 bytes, or none
	Known []byte
	Tips  List[Tip]
}

// Tip is the last batch of a feed, or of a branch of one.
type Tip struct {
	Feed, Batch dag.ID
	Seq         uint64
}

// Statement is what a device says under its signature: how many batches of both graphs it holds durably, which only grows, and heads of
// each, up to MaxHeads. Others pass it on.
type Statement struct {
	_         struct{} `cbor:",toarray"`
	T         head[Statement]
	Device    dag.PublicKey
	Counter   uint64
	ACL       List[dag.ID]
	Files     List[dag.ID]
	Signature [64]byte
}

// Key is what a run of probes is under: its sender drew it.
type Key [16]byte

// Sum is the fingerprint of the tips in a range.
type Sum [12]byte

// Short is the start of a tip's digest under the key of a run.
type Short [8]byte

// Probe asks whether the peer holds the same tips in each of some ranges. The first of a run has all ranges of one size; each
// further one has those that the answers said to divide, in their order.
type Probe struct {
	_     struct{} `cbor:",toarray"`
	T     head[Probe]
	Graph Graph
	Key   Key
	Sums  List[Sum]
}

// What an Answer says of a range. RangeNamed and higher: it differs, and the tips that the sender holds in it are named, as many as
// the number is higher.
const (
	RangeEqual  byte = iota // the same
	RangeDivide             // it differs, and is to be probed in its parts
	RangeOpen               // it differs, and has too many to name: the receiver sends all of its own
	RangeNamed
)

// MaxNamed is how many tips are named in one range.
const MaxNamed = 255 - int(RangeNamed)

// Answer answers a Probe.
type Answer struct {
	_      struct{} `cbor:",toarray"`
	T      head[Answer]
	Graph  Graph
	Key    Key
	Ranges []byte
	IDs    List[Short]
}

// Frames carries batches, those of a batch's past before it where the receiver lacks them.
type Frames struct {
	_      struct{} `cbor:",toarray"`
	T      head[Frames]
	Graph  Graph
	Frames [][]byte
}

// End follows the last frame that answers a Pull.
type End struct {
	_     struct{} `cbor:",toarray"`
	T     head[End]
	Graph Graph
}

// Have tells of batches that the sender took in from others.
type Have struct {
	_     struct{} `cbor:",toarray"`
	T     head[Have]
	Graph Graph
	IDs   List[dag.ID]
}

// Want asks for batches, and for up to Back of those before each in its feed.
type Want struct {
	_     struct{} `cbor:",toarray"`
	T     head[Want]
	Graph Graph
	Back  uint64
	IDs   List[dag.ID]
}

// Absent names batches that were asked for and are not held.
type Absent struct {
	_     struct{} `cbor:",toarray"`
	T     head[Absent]
	Graph Graph
	IDs   List[dag.ID]
}

// Ask asks for the access list of a space that the sender knows by its ID alone. Frames and End answer it, or Absent.
type Ask struct {
	_     struct{} `cbor:",toarray"`
	T     head[Ask]
	Space dag.ID
}

// GetBlock asks for a block from an offset on.
type GetBlock struct {
	_       struct{} `cbor:",toarray"`
	T       head[GetBlock]
	Request uint64
	ID      block.ID
	Offset  uint64
}

// Part is a piece of a block. Left is how much of it follows. A Part without Data, with Left zero and Absent set says that the
// block is not here.
type Part struct {
	_       struct{} `cbor:",toarray"`
	T       head[Part]
	Request uint64
	Absent  bool
	Left    uint64
	Data    []byte
}

// HasBlocks asks which of the blocks the peer holds durably.
type HasBlocks struct {
	_       struct{} `cbor:",toarray"`
	T       head[HasBlocks]
	Request uint64
	IDs     List[block.ID]
}

// HeldBlocks answers HasBlocks, Rely, Withdraw and Release: bit i (of byte i/8, from the lowest on) stands for the i-th.
type HeldBlocks struct {
	_       struct{} `cbor:",toarray"`
	T       head[HeldBlocks]
	Request uint64
	Bits    []byte
}

// Rely asks for receipts: that the peer holds the blocks durably, and keeps each until the sender releases it.
type Rely struct {
	_       struct{} `cbor:",toarray"`
	T       head[Rely]
	Request uint64
	IDs     List[block.ID]
}

// Withdraw asks the peer to do without the receipts that the sender gave it.
type Withdraw struct {
	_       struct{} `cbor:",toarray"`
	T       head[Withdraw]
	Request uint64
	IDs     List[block.ID]
}

// Release gives receipts of the peer back: the sender does not rely on them any more.
type Release struct {
	_       struct{} `cbor:",toarray"`
	T       head[Release]
	Request uint64
	IDs     List[block.ID]
}

func (Hello) kind() Kind      { return KindHello }
func (Tags) kind() Kind       { return KindTags }
func (Proof) kind() Kind      { return KindProof }
func (Bye) kind() Kind        { return KindBye }
func (Open) kind() Kind       { return KindOpen }
func (Heads) kind() Kind      { return KindHeads }
func (Pull) kind() Kind       { return KindPull }
func (Frames) kind() Kind     { return KindFrames }
func (End) kind() Kind        { return KindEnd }
func (Have) kind() Kind       { return KindHave }
func (Want) kind() Kind       { return KindWant }
func (Absent) kind() Kind     { return KindAbsent }
func (Ask) kind() Kind        { return KindAsk }
func (GetBlock) kind() Kind   { return KindGetBlock }
func (Part) kind() Kind       { return KindPart }
func (HasBlocks) kind() Kind  { return KindHasBlocks }
func (HeldBlocks) kind() Kind { return KindHeldBlocks }
func (Probe) kind() Kind      { return KindProbe }
func (Answer) kind() Kind     { return KindAnswer }
func (Statement) kind() Kind  { return KindStatement }
func (Rely) kind() Kind       { return KindRely }
func (Withdraw) kind() Kind   { return KindWithdraw }
func (Release) kind() Kind    { return KindRelease }

func (m *Hello) check() error { return nil }

func (m *Tags) check() error {
	n := len(m.Tags)
	if n < MinTags || n > MaxTags || n&(n-1) != 0 {
		return fmt.Errorf("%d tags", n)
	}
	return nil
}

func (m *Proof) check() error {
	if len(m.Certificate) == 0 || len(m.Certificate) > MaxCert {
		return fmt.Errorf("a certificate of %d bytes", len(m.Certificate))
	}
	return nil
}

func (m *Bye) check() error {
	if m.Reason == 0 || m.Reason > 1<<16 {
		return fmt.Errorf("reason %d", m.Reason)
	}
	return nil
}

func (m *Open) check() error { return nil }

func (m *Heads) check() error {
	if len(m.Digest) != 0 && len(m.Digest) != 32 || len(m.Heads) > MaxHeads || len(m.Digest) > 0 && len(m.Heads) > 0 {
		return fmt.Errorf("%d heads and a digest of %d bytes", len(m.Heads), len(m.Digest))
	}
	for i := 1; i < len(m.Heads); i++ {
		if m.Heads[i-1].Compare(m.Heads[i]) >= 0 {
			return errors.New("heads not sorted")
		}
	}
	return m.Graph.check()
}

func (m *Pull) check() error {
	if len(m.Tips) > MaxTips {
		return fmt.Errorf("%d tips", len(m.Tips))
	}
	if len(m.Key) != 0 && len(m.Key) != len(Key{}) || len(m.Key) == 0 && len(m.Known) > 0 || len(m.Known) > MaxShorts {
		return fmt.Errorf("a key of %d bytes, %d of what is known", len(m.Key), len(m.Known))
	}
	return m.Graph.check()
}

func (m *Statement) check() error {
	if len(m.ACL) > MaxHeads || len(m.Files) > MaxHeads {
		return fmt.Errorf("%d and %d heads", len(m.ACL), len(m.Files))
	}
	return nil
}

func (m *Probe) check() error {
	if len(m.Sums) == 0 || len(m.Sums) > MaxSums {
		return fmt.Errorf("%d ranges", len(m.Sums))
	}
	return m.Graph.check()
}

func (m *Answer) check() error {
	if len(m.Ranges) == 0 || len(m.Ranges) > MaxSums || len(m.IDs) > MaxShorts {
		return fmt.Errorf("%d ranges, %d tips", len(m.Ranges), len(m.IDs))
	}
	return m.Graph.check()
}

func (m *Frames) check() error {
	if len(m.Frames) == 0 || len(m.Frames) > MaxFrames {
		return fmt.Errorf("%d frames", len(m.Frames))
	}
	for _, f := range m.Frames {
		if len(f) == 0 || len(f) > dag.MaxFrame {
			return fmt.Errorf("a frame of %d bytes", len(f))
		}
	}
	return m.Graph.check()
}

func (m *End) check() error { return m.Graph.check() }

func (m *Have) check() error   { return checkIDs(m.Graph, len(m.IDs)) }
func (m *Absent) check() error { return checkIDs(m.Graph, len(m.IDs)) }

func (m *Want) check() error {
	if m.Back > MaxBack {
		return fmt.Errorf("%d back", m.Back)
	}
	return checkIDs(m.Graph, len(m.IDs))
}

func checkIDs(g Graph, n int) error {
	if n == 0 || n > MaxIDs {
		return fmt.Errorf("%d ids", n)
	}
	return g.check()
}

func (m *Ask) check() error { return nil }

func (m *GetBlock) check() error {
	if m.Offset > block.MaxSize {
		return fmt.Errorf("offset %d", m.Offset)
	}
	return nil
}

func (m *Part) check() error {
	if len(m.Data) > MaxPart || m.Left > block.MaxSize || m.Absent && (m.Left > 0 || len(m.Data) > 0) ||
		m.Left > 0 && len(m.Data) == 0 {
		return fmt.Errorf("%d bytes, %d left", len(m.Data), m.Left)
	}
	return nil
}

func (m *HasBlocks) check() error { return checkBlocks(len(m.IDs)) }
func (m *Rely) check() error      { return checkBlocks(len(m.IDs)) }
func (m *Withdraw) check() error  { return checkBlocks(len(m.IDs)) }
func (m *Release) check() error   { return checkBlocks(len(m.IDs)) }

func checkBlocks(n int) error {
	if n == 0 || n > MaxIDs {
		return fmt.Errorf("%d ids", n)
	}
	return nil
}

func (m *HeldBlocks) check() error {
	if len(m.Bits) == 0 || len(m.Bits) > MaxIDs/8 {
		return fmt.Errorf("%d bytes", len(m.Bits))
	}
	return nil
}
