package session

import (
	"errors"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// takeIn takes a group of batches into the graph. Meanwhile the session goes on sending.
func (s *Session) takeIn(m *wire.Frames) error {
	out, err := s.outsides(m)
	if err != nil {
		return err
	}
	size := 0
	for _, f := range m.Frames {
		size += len(f)
	}
	if !s.takes(m.Graph, size) {
		return nil
	}
	if m.Graph == wire.Files && s.cfg.Takes != nil && s.cfg.Took != nil {
		defer s.cfg.Took(size)
	}
	if timing := s.sp.cfg.Timing; timing != nil {
		began := time.Now()
		defer func() { timing.TakenIn(time.Since(began)) }()
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.ingesting = true
	d := &s.sides[m.Graph]
	s.mu.Unlock()

	var t taken
	err = d.g.IngestAll(m.Frames, func(r dag.Result, err error) error {
		n := len(m.Frames[0])
		if out != nil {
			out.add(m.Frames[0], r, err)
		}
		m.Frames = m.Frames[1:]
		return t.add(r, n, err)
	})
	if len(out) > 0 {
		s.counted(out)
	}
	if m.Graph == wire.ACL && t.accepted > 0 {
		s.sp.cfg.Grown()
	}

	s.mu.Lock()
	s.ingesting = false
	if err == nil {
		err = d.took(&t)
	}
	for kind := range s.sides {
		d := &s.sides[kind]
		for _, o := range d.inbox {
			d.enqueue(o)
		}
		d.inbox = nil
	}
	if err == nil {
		s.consider()
	}
	s.mu.Unlock()
	s.cfg.Wake()
	return err
}

// taken is what became of a group.
type taken struct {
	ids                 []dag.ID // all but the refused
	accepted            int
	held                []dag.ID // were here already
	waiting             int      // bytes
	missing, missingACL []dag.ID
	refused             []error
}

func (t *taken) add(r dag.Result, bytes int, err error) error {
	switch {
	case err == nil:
	case isFault(err):
		t.refused = append(t.refused, err)
		return nil
	case errors.Is(err, dag.ErrQuota), errors.Is(err, dag.ErrVersion):
		t.ids = append(t.ids, r.ID) // not to be had here for now
		return nil
	default:
		return err
	}
	t.ids = append(t.ids, r.ID)
	switch r.Status {
	case dag.Accepted:
		t.accepted += 1 + len(r.Released)
	case dag.Duplicate:
		t.held = append(t.held, r.ID)
	case dag.Pending:
		t.waiting += bytes
		t.missing = append(t.missing, r.Missing...)
		t.missingACL = append(t.missingACL, r.MissingACL...)
	}
	for _, x := range r.Rejected {
		if isFault(x.Err) {
			t.refused = append(t.refused, x.Err)
		}
	}
	return nil
}

// isFault tells refusals of a batch that nobody accepts: who passes it on did not look at it.
func isFault(err error) bool {
	for _, f := range []error{dag.ErrFormat, dag.ErrInvalid, dag.ErrSignature, dag.ErrSpace, dag.ErrForgotten, dag.ErrDenied} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// took notes what became of a group that the peer sent.
func (d *side) took(t *taken) error {
	s := d.s
	if !d.pulling { // what a Pull gives comes from several at times
		for _, id := range t.held {
			if len(d.twice) < wire.MaxIDs && !s.sp.isAsked(d.kind, id, s) {
				d.twice = append(d.twice, id)
			}
		}
	}
	for _, id := range t.ids {
		s.sp.answered(d.kind, id)
		d.peerHas(id)
	}
	for _, err := range t.refused {
		if s.strikes++; s.strikes == 1 {
			s.log.Info("a peer sent a batch that nobody accepts", "graph", d.kind, "err", err)
		}
		if s.strikes >= maxStrikes {
			return fault("%d batches that nobody accepts, the last: %v", s.strikes, err)
		}
	}
	if t.accepted > 0 || len(t.held) > 0 {
		d.blind = false
		d.owe = true // also of what came from another before: its sender waits to hear. Not of what waits here, or it is sent again
	}
	if t.accepted > 0 {
		d.progress += t.accepted
		d.stalled, d.pulls = false, 0
		s.pending = 0
	}
	s.pending += t.waiting
	if s.pending > maxPending {
		return fault("%d bytes of batches without what they name", s.pending)
	}
	if len(t.missing) > 0 {
		d.want(t.missing)
		d.back = min(max(2*d.back, 8), wire.MaxBack) // one that is missing may be on its way; several in a row are a branch
	} else if t.accepted > 0 {
		d.back = 0
	}
	if len(t.missingACL) > 0 {
		s.sides[wire.ACL].want(t.missingACL)
	}
	return nil
}
