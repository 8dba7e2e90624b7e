package dag

import (
	"errors"
	"fmt"
)

// Status says what became of a batch.
type Status uint8

// The outcomes of Ingest.
const (
	Refused   Status = iota // it comes with an error
	Accepted                // it is in the graph, counted or in quarantine
	Duplicate               // it was there before, or waits already
	Pending                 // it waits for what it names
)

// Result says what became of an ingested frame, and of those that had waited for it.
type Result struct {
	Status  Status
	ID      ID
	Verdict Verdict // of an accepted one, when it came

	// Pending: the batches that it waits for, and the access records; they are to be asked for. What itself waits is not
	// among them.
	Missing, MissingACL []ID

	Released []ID        // batches that had waited, and were accepted now
	Rejected []Rejection // batches that had waited, and were refused now
}

// Rejection names a refused batch and why.
type Rejection struct {
	ID  ID
	Err error
}

// Ingest takes in a batch from elsewhere, whole or not at all, and whatever waited for it. The graph keeps frame.
//
// A refused frame gives an error that matches ErrFormat, ErrVersion, ErrSpace, ErrInvalid, ErrSignature, ErrForgotten or
// ErrDenied: whoever made it is at fault, and nobody accepts it. ErrQuota refuses for now: a batch for the quarantine, which is
// full, that no waiting batch names. Other errors are the store's.
// What was accepted is durable after the store's Sync.
func (g *Graph) Ingest(frame []byte) (Result, error) {
	var res Result
	err := g.IngestAll([][]byte{frame}, func(r Result, err error) error {
		res = r
		return err
	})
	return res, err
}

// IngestAll is Ingest for frames that came together: their signatures are verified first. fn is told of each in turn; an
// error that it returns ends it, and is returned.
func (g *Graph) IngestAll(frames [][]byte, fn func(Result, error) error) error {
	if g.opt.Room != nil {
		g.opt.Room()
	}
	arrivals := make([]arrival, len(frames))
	for i := range frames {
		arrivals[i] = g.receive(frames[i])
	}
	verifyAll(arrivals)
	for i := range arrivals {
		a := &arrivals[i]
		if a.err == nil && a.res.Status != Duplicate {
			if a.err = a.f.checkAlone(); a.err == nil {
				a.err = g.takeIn(a.f, &a.res)
				g.events.deliver()
			}
		}
		if err := fn(a.res, a.err); err != nil {
			return err
		}
	}
	return nil
}

// arrival is a frame on its way in.
type arrival struct {
	f   *parsed
	res Result
	err error
}

// receive finds what can be found before the signature is verified.
func (g *Graph) receive(frame []byte) (a arrival) {
	if a.f, a.err = parseFrame(frame); a.err != nil {
		return a
	}
	a.res.ID = a.f.id
	switch {
	case a.f.batch.Space != g.space:
		a.err = fmt.Errorf("%w: %s", ErrSpace, a.f.batch.Space)
	case a.f.forgotten > 0:
		a.err = fmt.Errorf("%w: a batch is taken whole", ErrForgotten)
	default:
		var held bool
		if held, a.err = g.Has(a.f.id); held {
			a.res.Status = Duplicate
		}
	}
	return a
}

// verifyAll verifies the signatures of those that got so far. Here is the place for verifying many at once.
func verifyAll(arrivals []arrival) {
	for i := range arrivals {
		a := &arrivals[i]
		if a.err == nil && a.res.Status != Duplicate && !a.f.batch.Verify() {
			a.err = ErrSignature
		}
	}
}

// takeIn takes in a verified frame and what waited for it.
func (g *Graph) takeIn(f *parsed, res *Result) error {
	g.write.Lock()
	defer g.write.Unlock()
	if _, waits := g.pending.byID[f.id]; waits {
		res.Status = Duplicate
		return nil
	}
	if _, ok, err := g.find(f.id); ok || err != nil {
		res.Status = Duplicate
		return err
	}
	var err error
	if res.Status, res.Verdict, err = g.takeOne(f, res); err != nil {
		if isRefusal(err) {
			g.pending.refused(f.id)
		}
		return err
	}
	if res.Status == Accepted {
		return g.release(g.pending.arrived(f.id), res)
	}
	return nil
}

// release takes in batches that need wait no longer, and those that waited for them. It stops at an error of the store.
func (g *Graph) release(ready []*parsed, res *Result) error {
	for len(ready) > 0 {
		f := ready[0]
		ready = ready[1:]
		if g.opt.Fits != nil && !g.opt.Fits(len(f.raw)) {
			res.Rejected = append(res.Rejected, Rejection{f.id, ErrQuota})
			continue
		}
		var ignored Result
		status, _, err := g.takeOne(f, &ignored)
		switch {
		case err != nil && isRefusal(err):
			g.pending.refused(f.id)
			res.Rejected = append(res.Rejected, Rejection{f.id, err})
		case errors.Is(err, ErrQuota):
			res.Rejected = append(res.Rejected, Rejection{f.id, err})
		case err != nil:
			return err
		case status == Accepted:
			res.Released = append(res.Released, f.id)
			ready = append(ready, g.pending.arrived(f.id)...)
		}
	}
	return nil
}

// isRefusal tells faults of a batch from troubles of ours.
func isRefusal(err error) bool { return errors.Is(err, ErrInvalid) || errors.Is(err, ErrDenied) }

// takeOne takes in one batch, or makes it wait.
func (g *Graph) takeOne(f *parsed, res *Result) (Status, Verdict, error) {
	s, missing, err := g.check(f)
	if err != nil {
		return Refused, Quarantine, err
	}
	if len(missing) > 0 {
		g.pending.add(f, missing, false)
		for _, id := range missing {
			if _, waits := g.pending.byID[id]; !waits {
				res.Missing = append(res.Missing, id)
			}
		}
		return Pending, Quarantine, nil
	}
	if err := g.auth.Accept(f.batch, f.changes()); err != nil {
		var m *MissingError
		if errors.As(err, &m) {
			g.pending.add(f, nil, true)
			res.MissingACL = m.ACL
			return Pending, Quarantine, nil
		}
		return Refused, Quarantine, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	verdict := g.auth.Counts(f.batch)
	full := g.counters.quarantineBytes+uint64(len(f.raw)) > uint64(g.opt.QuarantineBytes)
	if verdict != Counts && full && len(g.pending.waitFor[f.id]) == 0 {
		return Refused, Quarantine, ErrQuota
	}
	if err := g.apply(s, verdict, Record{}); err != nil {
		return Refused, Quarantine, err
	}
	if verdict == Counts {
		err = g.raise(s.past)
	}
	return Accepted, verdict, err
}

// Waiting returns how many batches wait for others, and the bytes that they take.
func (g *Graph) Waiting() (batches, bytes int) {
	g.write.Lock()
	defer g.write.Unlock()
	return len(g.pending.byID), g.pending.bytes
}
