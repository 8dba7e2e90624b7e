package session

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/reconcile"
	"github.com/anyfs/anyfs/sync/wire"
)

// Two sides find what to send by the tips of the feeds. Up to wholeTips they are sent whole. Of more it is first found out, by probes,
// which ones the other has too; what was found so serves the other direction as well.

const (
	wholeTips = 256     // tips that are sent whole
	moreTips  = 1 << 16 // tips of a peer that are held here, beside two for each of this device's: an honest one has fewer
	pullTips  = 1 << 20 // tips of a Pull
	maxPulls  = 64      // Pulls between two ticks that brought nothing
	maxRuns   = 256     // Pulls and first probes of a peer between two ticks, since it was sent a batch: an honest one is far below
)

// shared is what a run of probes found that both have. It is kept for the Pull that may come back.
type shared struct {
	key wire.Key
	ids []dag.ID
}

// incoming is a Pull of the peer that is not complete.
type incoming struct {
	have  map[dag.ID]struct{} // batches that the peer holds, and all in their past
	ahead map[dag.ID]uint64   // of feeds in which it is ahead: how far it is
	limit int
	tips  int
}

// ask begins to ask for what follows the tips.
func (d *side) ask() {
	if d.reverse != nil {
		key := d.reverse.Key()
		d.outPull(key[:], nil, d.reverse.Rest())
		d.reverse = nil
		return
	}
	tips := d.g.Tips()
	if len(tips) <= d.s.sp.cfg.Whole {
		d.outPull(nil, nil, tips)
		return
	}
	d.asker = reconcile.NewAsker(d.s.sp.cfg.NewKey(), tips)
	d.s.out = append(d.s.out, d.asker.Probe(d.kind))
}

// outPull sends the last of a run of probes, or tips whole.
func (d *side) outPull(key, known []byte, tips []dag.Tip) {
	for {
		n := min(len(tips), wire.MaxTips)
		m := &wire.Pull{Graph: d.kind, More: n < len(tips), Key: key, Known: known}
		for _, t := range tips[:n] {
			m.Tips = append(m.Tips, wire.Tip{Feed: t.Feed, Batch: t.Batch, Seq: t.Seq})
		}
		d.s.out = append(d.s.out, m)
		key, known = nil, nil
		if tips = tips[n:]; len(tips) == 0 {
			return
		}
	}
}

// probed answers a probe.
func (d *side) probed(m *wire.Probe) error {
	if d.s.closed {
		return nil
	}
	if d.giver == nil || d.giver.Key() != m.Key {
		if d.asker != nil && !d.asker.Started() {
			// Both have begun at once. The lower key goes on, and serves both.
			key := d.asker.Key()
			if slices.Compare(key[:], m.Key[:]) <= 0 {
				return nil
			}
			d.asker, d.pulling = nil, false
			d.s.sp.giveTurn(d.kind, d.s)
		}
		if err := d.run(); err != nil {
			return err
		}
		var tips []dag.Tip
		if d.kind == wire.ACL || d.s.cfg.Reads() {
			tips = d.g.Tips()
		}
		d.giver, d.reverse = reconcile.NewGiver(m.Key, tips), nil
	}
	d.idle = false
	a, err := d.giver.Probe(m)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	d.s.out = append(d.s.out, a)
	return nil
}

// run counts what costs more than it takes to send.
func (d *side) run() error {
	if d.runs++; d.runs > maxRuns {
		return fault("%d questions for all that it lacks", d.runs)
	}
	return nil
}

// answered takes the answer to a probe, and goes on with the next or with the Pull.
func (d *side) answered(m *wire.Answer) error {
	if d.asker == nil {
		return fault("an answer to no probe")
	}
	if err := d.asker.Answer(m); err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if p := d.asker.Probe(d.kind); p != nil {
		d.s.out = append(d.s.out, p)
		return nil
	}
	key := d.asker.Key()
	d.shared = &shared{key, d.asker.Shared()}
	d.outPull(key[:], d.asker.Known(), d.asker.Rest())
	d.asker = nil
	return nil
}

// pulled takes the peer's tips, and returns what is to be given when they are complete.
func (d *side) pulled(m *wire.Pull) (*serving, error) {
	if d.s.closed {
		return nil, nil
	}
	if d.in == nil {
		if err := d.run(); err != nil {
			return nil, err
		}
		d.in = &incoming{have: make(map[dag.ID]struct{}), ahead: make(map[dag.ID]uint64), limit: moreTips + 2*len(d.g.Tips())}
		if err := d.beginPull(m); err != nil {
			return nil, err
		}
	} else if len(m.Key) > 0 {
		return nil, fault("a key in the middle of a Pull")
	}
	if err := d.in.add(d.g, m.Tips); err != nil {
		return nil, err
	}
	if m.More {
		return nil, nil
	}
	in := d.in
	d.in = nil
	more, err := d.g.FeedsAt(in.ahead)
	if err != nil {
		return nil, err
	}
	d.stopServing()
	d.live, d.queue, d.overflow = false, nil, false
	d.serving = serve(d.g, slices.AppendSeq(more, maps.Keys(in.have)))
	return d.serving, nil
}

// beginPull takes what a run of probes found out.
func (d *side) beginPull(m *wire.Pull) error {
	if len(m.Key) == 0 {
		return nil
	}
	var ids []dag.ID
	switch key := wire.Key(m.Key); {
	case d.giver != nil && d.giver.Key() == key:
		if err := d.giver.Known(m.Known); err != nil {
			return fmt.Errorf("%w: %w", ErrPeer, err)
		}
		ids = d.giver.Shared()
		if d.kind == wire.ACL || d.s.cfg.Reads() {
			d.reverse = d.giver
		}
		d.giver = nil
	case d.shared != nil && d.shared.key == key && len(m.Known) == 0:
		ids = d.shared.ids
		d.shared = nil
	default:
		return fault("the end of a run of probes that is not under way")
	}
	for _, id := range ids {
		d.in.have[id] = struct{}{}
	}
	return nil
}

// add takes tips of the peer. A tip that is not known here lies ahead of what is here of its feed, so the peer holds what is here up
// to its seq, unless the feed has branches. Then the peer asks for what it lacks.
func (in *incoming) add(g *dag.Graph, tips []wire.Tip) error {
	if in.tips += len(tips); in.tips > pullTips {
		return fault("more than %d tips", pullTips)
	}
	for _, t := range tips {
		held, err := g.Has(t.Batch)
		if err != nil {
			return err
		}
		if held {
			if in.have[t.Batch] = struct{}{}; len(in.have) > in.limit {
				return fault("more than %d tips that are held here", in.limit)
			}
			continue
		}
		// Of a feed of which nothing is here, nothing is to be given.
		if held, err = g.Has(t.Feed); err != nil {
			return err
		}
		if held {
			in.ahead[t.Feed] = max(in.ahead[t.Feed], t.Seq)
		}
	}
	return nil
}
