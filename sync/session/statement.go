package session

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// A device says under its signature what it holds. Whoever hears that and cannot get what it names passes it on: so a peer that keeps
// something back, and a device that lost what it had, show.

const (
	domainStatement = "anyfs/statement/1\x00"
	maxStatements   = 256 // of a peer between two ticks
	maxStated       = 1024
	maxUnknown      = 64 // devices that have written nothing that is held, yet
	missingAfter    = 2  // ticks in which nothing came
)

// statementText is what the signature of a statement is of.
func statementText(space dag.ID, m *wire.Statement) []byte {
	b := append([]byte(domainStatement), space[:]...)
	b = append(b, m.Device[:]...)
	b = binary.BigEndian.AppendUint64(b, m.Counter)
	for _, heads := range []wire.List[dag.ID]{m.ACL, m.Files} {
		b = append(b, byte(len(heads)))
		for _, id := range heads {
			b = append(b, id[:]...)
		}
	}
	return b
}

// stated is the newest statement of a device. Space.mu guards it.
type stated struct {
	counter uint64
	m       *wire.Statement // nil when all that it names is held
	batches uint64          // held at the last tick
	ticks   int             // since then nothing came
	unknown bool            // it has written nothing that is held
	told    bool            // that it is missing, in the log
}

// state says what this device holds durably, to a peer that was not told of as much, and what other devices said that is not to be had
// here. Session.mu is held.
func (s *Session) state() {
	sp := s.sp
	acl, files := &s.sides[wire.ACL].durable, &s.sides[wire.Files].durable
	if sp.cfg.Sign == nil || !acl.known || !files.known || s.closed {
		return
	}
	if n := acl.batches + files.batches; n > 0 && n > s.stated[sp.cfg.Device] {
		m := &wire.Statement{Device: sp.cfg.Device, Counter: n, ACL: someHeads(acl.heads), Files: someHeads(files.heads)}
		m.Signature = sp.cfg.Sign(statementText(sp.cfg.ID, m))
		s.stated[sp.cfg.Device] = n
		s.out = append(s.out, m)
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for _, st := range sp.stated {
		if st.m != nil && !st.unknown {
			s.pass(st.m)
		}
	}
	for device, w := range sp.words {
		if sp.node(device) && !sp.node(s.cfg.Device) {
			s.pass(w.newest)
		}
	}
}

// pass hands a statement of another device on, where the peer has not as much of that. mu is held.
func (s *Session) pass(m *wire.Statement) {
	if m.Device != s.cfg.Device && m.Counter > s.stated[m.Device] && len(s.stated) < maxStated {
		s.stated[m.Device] = m.Counter
		s.out = append(s.out, m)
	}
}

// someHeads are as many heads as a statement names.
func someHeads(heads []dag.ID) wire.List[dag.ID] {
	return slices.Clone(heads[:min(len(heads), wire.MaxHeads)])
}

// hear takes a statement, of the peer or passed on by it.
func (s *Session) hear(m *wire.Statement) error {
	s.mu.Lock()
	s.statements++
	many := s.statements > maxStatements
	s.stated[m.Device] = max(s.stated[m.Device], m.Counter) // it need not be told
	s.mu.Unlock()
	if many {
		return fault("more than %d statements", maxStatements)
	}
	if !ed25519.Verify(m.Device[:], statementText(s.sp.cfg.ID, m), m.Signature[:]) {
		return fault("a statement with a wrong signature")
	}
	node := s.sp.node(m.Device)
	if node {
		s.sp.heardWord(s, m)
	}
	unknown := m.Device != s.cfg.Device && m.Device != s.sp.cfg.Device && !node && !s.sp.writes(m.Device)
	held, err := s.sp.covers(m)
	if err != nil {
		return err
	}
	s.sp.mu.Lock()
	defer s.sp.mu.Unlock()
	st := s.sp.stated[m.Device]
	if st == nil {
		if len(s.sp.stated) >= maxStated || unknown && s.sp.unknown >= maxUnknown {
			return nil
		}
		if st = (&stated{unknown: unknown}); unknown {
			s.sp.unknown++
		}
		s.sp.stated[m.Device] = st
	}
	if m.Counter > st.counter {
		*st = stated{counter: m.Counter, unknown: st.unknown, told: st.told}
		if !held {
			st.m = m
		} else {
			st.told = false
		}
	}
	return nil
}

// writes reports whether a device has written to the space.
func (sp *Space) writes(device dag.PublicKey) bool {
	for _, g := range sp.graphs {
		if slices.ContainsFunc(g.Tips(), func(t dag.Tip) bool { return t.Device == device }) {
			return true
		}
	}
	return false
}

// covers reports whether all that a statement names is held.
func (sp *Space) covers(m *wire.Statement) (bool, error) {
	for kind, heads := range [wire.Graphs]wire.List[dag.ID]{m.ACL, m.Files} {
		for _, id := range heads {
			if held, err := sp.graphs[kind].Has(id); err != nil || !held {
				return false, err
			}
		}
	}
	return true, nil
}

// review looks again at what is not held of what others said, once for all sessions' ticks. What did not come while nothing else came
// either is missing.
func (sp *Space) review(s *Session) {
	sp.mu.Lock()
	first := len(sp.sessions) > 0 && sp.sessions[0] == s
	if first {
		sp.outside = max(0, sp.outside-outsideAgain)
	}
	open := make(map[dag.PublicKey]*wire.Statement)
	for device, st := range sp.stated {
		if st.m != nil {
			open[device] = st.m
		}
	}
	sp.mu.Unlock()
	if !first {
		return
	}
	sp.weigh()
	if len(open) == 0 {
		return
	}
	var batches uint64
	for _, g := range sp.graphs {
		n, _, _ := g.Counters()
		batches += n
	}
	for device, m := range open {
		held, err := sp.covers(m)
		if err != nil {
			return
		}
		writes := sp.writes(device)
		sp.mu.Lock()
		if st := sp.stated[device]; st.m == m {
			if st.unknown && writes {
				st.unknown = false
				sp.unknown--
			}
			switch {
			case st.unknown:
			case held:
				st.m, st.told = nil, false
			case st.batches != batches:
				st.batches, st.ticks = batches, 0
			default:
				st.ticks++
			}
			if st.m != nil && st.ticks >= missingAfter && !st.told {
				st.told = true
				sp.cfg.Log.Warn("a device says that it holds batches which no connected peer gives: they are late, or kept back",
					"space", sp.cfg.ID, "device", device)
			}
		}
		sp.mu.Unlock()
	}
}

// Missing returns the devices that said under their signatures that they hold batches which are not here, though peers are
// connected and nothing comes any more. They are late or kept back: which of these cannot be told.
func (sp *Space) Missing() (devices []dag.PublicKey) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	for device, st := range sp.stated {
		if st.m != nil && st.ticks >= missingAfter {
			devices = append(devices, device)
		}
	}
	slices.SortFunc(devices, func(a, b dag.PublicKey) int { return bytes.Compare(a[:], b[:]) })
	return devices
}
