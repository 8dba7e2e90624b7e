package session

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// An access list takes what whoever once was a member writes from before its end: rules look at a record's own past alone. Who was removed still hears of the list,
// and brings what it wrote before it heard of that; what it brings beyond this would stay on all disks for good.

const (
	maxOutside   = 8 << 20 // bytes of records of who is no member, of peers that are none, of all together
	outsideAgain = 4 << 10 // of them as many are forgotten at each tick
)

// outside is who wrote the records of a group, with their bytes.
type outside map[outsider]int

type outsider struct{ account, device dag.PublicKey }

// add counts a record that is kept.
func (o outside) add(frame []byte, r dag.Result, err error) {
	if err != nil || r.Status != dag.Accepted && r.Status != dag.Pending {
		return
	}
	if b, _, err := dag.DecodeFrame(frame); err == nil {
		o[outsider{b.Account, b.Device}] += len(frame)
	}
}

// outsides begins to count the records of a group; nil where the peer brings what it likes. Once there were too many, one more is the peer's fault.
func (s *Session) outsides(m *wire.Frames) (outside, error) {
	if m.Graph != wire.ACL || s.cfg.Member == nil || s.cfg.Reads() {
		return nil, nil
	}
	s.sp.mu.Lock()
	full := s.sp.outside >= maxOutside
	s.sp.mu.Unlock()
	if full && slices.ContainsFunc(m.Frames, s.fromOutside) {
		return nil, fault("more than %d bytes of records of who is no member", maxOutside)
	}
	return outside{}, nil
}

// fromOutside reports whether a record is by nobody who is a member, and is not here yet.
func (s *Session) fromOutside(frame []byte) bool {
	b, _, err := dag.DecodeFrame(frame)
	if err != nil || s.cfg.Member(b.Account, b.Device) {
		return false
	}
	held, err := s.sp.graphs[wire.ACL].Has(b.ID())
	return err == nil && !held
}

// counted adds what of a group is by nobody who is a member.
func (s *Session) counted(o outside) {
	bytes := 0
	for of, n := range o {
		if !s.cfg.Member(of.account, of.device) {
			bytes += n
		}
	}
	s.sp.mu.Lock()
	defer s.sp.mu.Unlock()
	s.sp.outside += bytes
}
