// Package reconcile finds which tips of feeds two peers do not share, where there are too many to send them all.
//
// It is range-based set reconciliation (Meyer, "Range-Based Set Reconciliation", SRDS 2023). An Asker probes ranges with a
// fingerprint of what it holds in each; a Giver says which are equal, names its tips in the small ones that are not, and has the
// others probed in eight parts. At the end the Asker sends the tips that the Giver did not name. Then each side knows which of
// its tips the other has. ../PROTOCOL.md gives the messages.
//
// Places and fingerprints are hashes under a key that the Asker draws for each run, after the tips were made: who makes tips can
// neither choose two sets with one fingerprint nor crowd a range, but with branches of a single feed.
//
// The package does no I/O, starts no goroutine and draws no random number.
package reconcile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sort"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// Fixed by the protocol.
const (
	maxBits = 32 // of a place: a range is not divided further
	fanBits = 3  // by which a range is divided
)

// Ours to tune.
const (
	perRange  = 64      // tips in a range of the first probe, on average
	leaf      = 24      // a range with more is divided, if it can be
	maxFirst  = 9       // bits of a first range: more of them cost more than a further probe
	maxRanges = 1 << 20 // that an Asker probes
)

// ErrPeer is the error of what no peer says that holds to the protocol.
var ErrPeer = errors.New("reconcile: the peer broke the protocol")

// element is a tip at its place.
type element struct {
	place  uint32 // by its feed, so that two tips of one feed are in one range
	digest [16]byte
	tip    dag.Tip
}

func (e *element) short() wire.Short { return wire.Short(e.digest[:8]) }

// set is tips in the order of their places.
type set struct {
	key wire.Key
	all []element
}

func newSet(key wire.Key, tips []dag.Tip) set {
	s := set{key, make([]element, len(tips))}
	b := make([]byte, 0, 128)
	for i := range tips {
		t := &tips[i]
		b = append(append(append(b[:0], "anyfs/feed/1\x00"...), key[:]...), t.Feed[:]...)
		d := dag.Sum(b)
		e := element{place: binary.BigEndian.Uint32(d[:]), tip: *t}
		b = append(append(append(append(b[:0], "anyfs/tip/1\x00"...), key[:]...), t.Feed[:]...), t.Batch[:]...)
		d = dag.Sum(binary.BigEndian.AppendUint64(b, t.Seq))
		copy(e.digest[:], d[:])
		s.all[i] = e
	}
	slices.SortFunc(s.all, func(a, b element) int {
		return cmp.Or(cmp.Compare(a.place, b.place), bytes.Compare(a.digest[:], b.digest[:]))
	})
	return s
}

// span is the places that begin with the first bits of prefix.
type span struct {
	prefix uint32
	bits   uint8
}

// within returns where in the set a span begins and ends.
func (s *set) within(p span) (from, to int) {
	last := p.prefix | uint32(1<<(maxBits-uint64(p.bits))-1)
	from = sort.Search(len(s.all), func(i int) bool { return s.all[i].place >= p.prefix })
	return from, from + sort.Search(len(s.all)-from, func(i int) bool { return s.all[from+i].place > last })
}

// sum is the fingerprint of elements.
func (s *set) sum(all []element) wire.Sum {
	b := make([]byte, 0, 32+len(all)*16)
	b = append(append(b, "anyfs/tips/1\x00"...), s.key[:]...)
	for i := range all {
		b = append(b, all[i].digest[:]...)
	}
	d := dag.Sum(b)
	return wire.Sum(d[:])
}

// firstSpans are all places in 1<<n equal parts.
func firstSpans(n int) []span {
	spans := make([]span, 1<<n)
	for i := range spans {
		spans[i] = span{uint32(uint64(i) << (maxBits - n)), uint8(n)}
	}
	return spans
}

// divide appends the parts of a span.
func divide(to []span, p span) []span {
	for i := range uint32(1 << fanBits) {
		to = append(to, span{p.prefix | i<<(maxBits-fanBits-p.bits), p.bits + fanBits})
	}
	return to
}

func divides(p span) bool { return p.bits+fanBits <= maxBits }

// firstBits is how many bits the spans of a first probe have.
func firstBits(tips int) int {
	return min(max(bits.Len(uint(tips/perRange)), bits.Len(wire.MinSums)-1), maxFirst)
}
