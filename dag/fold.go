package dag

import (
	"bytes"
	"errors"
	"math"
	"slices"
)

// ErrEmpty is Machine.Open's answer to a payload that does not open or parse: an empty operation, for everybody.
var ErrEmpty = errors.New("dag: an empty operation")

// Machine is what an application says of a kind of object, so that a graph can fold it. S is the state of an object, P what
// a payload says. All replicas must compute the same from the same changes.
//
// A change may carry a snapshot: the state of its object before its own operation. A snapshot is a shortcut, never an
// authority: it is believed when it was made here or has been recomputed, and ignored when it differs.
type Machine[S, P any] struct {
	// Open opens a payload, and returns what it says and the encoded snapshot that it carries (nil: none). ErrEmpty makes
	// it an empty operation; any other error, such as a key that has not come yet, ends the fold.
	Open func(e Entry) (p P, snapshot []byte, err error)

	New    func() S
	Apply  func(s S, e Entry, p P) S // may change s
	Encode func(s S) []byte          // canonical: equal states give equal bytes
	Decode func(snapshot []byte) (S, error)

	// Size is about how many bytes of memory p takes besides the payload; nil: none.
	Size func(p P) int
}

// Trust remembers which snapshots were made here or found right. It is the application's, and best kept on disk: without
// it the first fold after a start goes through all changes.
type Trust interface {
	Trusted(change ID) bool
	Trust(change ID)
}

// TrustMap is a Trust in memory.
type TrustMap map[ID]bool

var _ Trust = TrustMap{}

// Trusted implements Trust.
func (t TrustMap) Trusted(change ID) bool { return t[change] }

// Trust implements Trust.
func (t TrustMap) Trust(change ID) { t[change] = true }

// Cost is what a fold went through: the changes that it applied and the bytes of their payloads.
type Cost struct{ Changes, Bytes int }

// Limits of Cost.Due.
const (
	snapshotEvery = 64 // at least so many changes, on average, from one snapshot to the next
)

// Limits of what a fold keeps of the changes that it walked back over: beyond them it reads them a second time.
const (
	windowChanges = 2048
	windowBytes   = 8 << 20
	maxDoubt      = 16 // snapshots that are recomputed, the newest ones: who lies in each change makes others encode no more
)

// Due decides whether the next change should carry a snapshot of the given size in bytes: with probability 1/N, where N is
// 64, or for a large state so much that snapshots take no more room than the changes between them; and less when the last
// snapshot lies long back. random is any random number.
func (c Cost) Due(snapshotBytes int, random uint64) bool {
	if c.Changes == 0 {
		return false
	}
	n := max(snapshotEvery, snapshotBytes/max(1, c.Bytes/c.Changes))
	for since := c.Changes / 2; since > n && n > 1; since /= 4 {
		n /= 2
	}
	return random%uint64(n) == 0
}

// Joint finds changes that have all that comes before them in the total order among their ancestors, as a walk back from an
// object's heads comes by: those at which its graph is one node wide. Only there is the state before a change that of its
// ancestors, so only there can a fold start from a snapshot.
type Joint struct {
	wanted map[ID]struct{} // heads, or named by what came by, and not yet come by
	lost   bool
}

// NewJoint starts a walk at an object's heads.
func NewJoint(heads []ID) *Joint {
	j := &Joint{wanted: make(map[ID]struct{}, len(heads))}
	for _, id := range heads {
		j.wanted[id] = struct{}{}
	}
	return j
}

// Step takes the next change of Graph.ChangesBack, and reports whether it is such a one: whatever comes before it is named
// by something, and so, in the end, by this change, since nothing else that came by names what is still to come.
func (j *Joint) Step(e Entry) bool {
	_, known := j.wanted[e.ID]
	j.lost = j.lost || !known // it arrived after the heads were read
	joint := len(j.wanted) == 1 && !j.lost
	delete(j.wanted, e.ID)
	for _, p := range e.Change.Parents {
		j.wanted[p] = struct{}{}
	}
	return joint
}

// foldStep is a change on its way through a fold.
type foldStep[P any] struct {
	e        Entry
	p        P
	snapshot []byte
	empty    bool
}

// Fold returns the state of an object: the changes that count, in total order, from the newest snapshot on that is trusted
// and that can be used (see Joint). Snapshots that it comes by are recomputed, and trusted when they are
// right. A nil trust believes none.
func (m *Machine[S, P]) Fold(g *Graph, object ID, trust Trust) (S, Cost, error) {
	return m.FoldTo(g, object, math.MaxUint64, trust)
}

// FoldTo is Fold of the changes whose batches stand at positions up to end in the log of the store (Entry.At): the state as it was
// when the log ended there. What came here by then is closed under what it names, so that what is joint among all changes has its
// past among these.
func (m *Machine[S, P]) FoldTo(g *Graph, object ID, end uint64, trust Trust) (S, Cost, error) {
	f := folder[S, P]{m: m, g: g, object: object, end: end, trust: trust, doubt: make(map[ID]bool), state: m.New()}
	if trust == nil {
		f.trust = TrustMap{}
	}
	err := f.back()
	if err == nil {
		err = f.forward()
	}
	return f.state, f.cost, err
}

type folder[S, P any] struct {
	m      *Machine[S, P]
	g      *Graph
	object ID
	end    uint64 // changes behind this position of the log are left out
	trust  Trust

	window []foldStep[P] // what the walk back came by, newest first, unless that is too much
	bytes  int           // of memory that the window takes, about
	long   bool
	start  ID          // the change that the state is of before, zero: from the first
	doubt  map[ID]bool // snapshots to recompute
	state  S
	cost   Cost
}

var errStop = errors.New("dag: stop")

// back walks to the newest snapshot that can be used.
func (f *folder[S, P]) back() error {
	heads, err := f.g.HeadsOf(f.object)
	if err != nil {
		return err
	}
	j := NewJoint(heads)
	err = f.g.ChangesBack(f.object, func(e Entry) error {
		joint := j.Step(e)
		if e.At > f.end {
			return nil
		}
		s, err := f.open(e)
		if err != nil {
			return err
		}
		f.keep(s)
		if !joint || s.snapshot == nil {
			return nil
		}
		if !f.trust.Trusted(e.ID) {
			if len(f.doubt) < maxDoubt {
				f.doubt[e.ID] = true
			}
			return nil
		}
		state, err := f.m.Decode(s.snapshot)
		if err != nil {
			return nil // found right once, and not readable now: other code. The changes are there
		}
		f.state, f.start = state, e.ID
		return errStop
	})
	if err == errStop {
		err = nil
	}
	return err
}

// keep puts a step into the window, or gives the window up where it is too much.
func (f *folder[S, P]) keep(s foldStep[P]) {
	if f.long {
		return
	}
	f.window = append(f.window, s)
	f.bytes += len(s.e.Change.Payload) + len(s.snapshot)
	if f.m.Size != nil && !s.empty {
		f.bytes += f.m.Size(s.p)
	}
	if len(f.window) > windowChanges || f.bytes > windowBytes {
		f.window, f.long = nil, true
	}
}

func (f *folder[S, P]) open(e Entry) (s foldStep[P], err error) {
	s.e = e
	s.p, s.snapshot, err = f.m.Open(e)
	if errors.Is(err, ErrEmpty) {
		s.empty, s.snapshot, err = true, nil, nil
	}
	return s, err
}

// forward applies what follows.
func (f *folder[S, P]) forward() error {
	if !f.long {
		for _, s := range slices.Backward(f.window) {
			f.apply(s)
		}
		return nil
	}
	again := func(e Entry) error {
		if e.At > f.end {
			return nil
		}
		s, err := f.open(e)
		if err == nil {
			f.apply(s)
		}
		return err
	}
	if f.start.IsZero() {
		return f.g.Changes(f.object, again)
	}
	return f.g.ChangesFrom(f.object, f.start, again)
}

func (f *folder[S, P]) apply(s foldStep[P]) {
	switch {
	case f.doubt[s.e.ID] && bytes.Equal(f.m.Encode(f.state), s.snapshot):
		f.trust.Trust(s.e.ID)
		f.cost = Cost{}
	case s.e.ID == f.start:
		f.cost = Cost{}
	}
	f.cost.Changes++
	f.cost.Bytes += len(s.e.Change.Payload)
	if !s.empty {
		f.state = f.m.Apply(f.state, s.e, s.p)
	}
}
