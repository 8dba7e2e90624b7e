package session

import (
	"errors"
	"iter"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// serving is the answer to a Pull under way: it costs memory for one batch of each feed.
type serving struct {
	next func() (dag.ID, []byte, bool)
	stop func()
	err  error

	durable bool // all of it: it may be sent

	id    dag.ID // read and not sent
	frame []byte
}

// serve begins to give what a holder of some batches lacks.
func serve(g *dag.Graph, have []dag.ID) *serving {
	v := new(serving)
	stopped := errors.New("stopped")
	v.next, v.stop = iter.Pull2(func(yield func(dag.ID, []byte) bool) {
		err := g.FramesSince(have, func(id dag.ID, frame []byte) error {
			if !yield(id, frame) {
				return stopped
			}
			return nil
		})
		if err != stopped {
			v.err = err
		}
	})
	v.advance()
	return v
}

func (v *serving) advance() { v.id, v.frame, _ = v.next() }

func (d *side) stopServing() {
	if d.serving != nil {
		d.serving.stop()
		d.serving = nil
	}
}

// pull takes the peer's tips, and begins to give what it lacks when that is durable.
func (s *Session) pull(m *wire.Pull) error {
	s.mu.Lock()
	d := &s.sides[m.Graph]
	v, err := d.pulled(m)
	if v != nil && err == nil && m.Graph == wire.Files {
		s.tellPreview()
	}
	if err == nil {
		s.consider() // what the peer's probes found may serve this side too
	}
	s.mu.Unlock()
	if v == nil || err != nil {
		s.cfg.Wake()
		return err
	}
	if err := s.sp.cfg.Durable(); err != nil {
		return err
	}
	s.mu.Lock()
	v.durable = true
	s.mu.Unlock()
	s.cfg.Wake()
	return nil
}

// wanted takes what the peer asks for, with what comes before it in its feed. What is to be sent already, or was, is not sent
// for coming before something else.
func (d *side) wanted(m *wire.Want) error {
	d.s.sp.asks(d.s.cfg.Device, m.IDs)
	d.eager.wanted(len(m.IDs))
	for _, id := range m.IDs {
		again := d.toAnswer(id)
		if again {
			d.repeats++ // an honest peer does where the answer takes long
		}
		if len(d.answers) >= maxAnswers || d.repeats > maxAnswers {
			return fault("more than %d batches asked for", maxAnswers)
		}
		if again {
			continue
		}
		at := len(d.answers)
		d.addAnswer(id)
		for n := uint64(0); n < m.Back && len(d.answers) < maxBefore; n++ {
			b, err := d.g.Head(id)
			if err != nil || b.Prev.IsZero() || d.toAnswer(b.Prev) || d.recent.has(b.Prev) {
				break
			}
			id = b.Prev
			d.addAnswer(id)
		}
		slices.Reverse(d.answers[at:])
	}
	return nil
}

func (d *side) toAnswer(id dag.ID) bool {
	_, ok := d.answering[id]
	return ok
}

func (d *side) addAnswer(id dag.ID) {
	if d.answering == nil {
		d.answering = make(map[dag.ID]struct{})
	}
	d.answering[id] = struct{}{}
	d.answers = append(d.answers, id)
}

func (d *side) popAnswer() {
	delete(d.answering, d.answers[0])
	d.answers = d.answers[1:]
}

// wanting returns the next Want, nil where there is nothing to ask for, or the peer has enough to answer.
func (d *side) wanting() wire.Message {
	if len(d.wants) == 0 {
		return nil
	}
	m := &wire.Want{Graph: d.kind}
	for len(d.wants) > 0 && len(m.IDs) < wire.MaxIDs {
		w := d.wants[0]
		if len(m.IDs) > 0 && w.back != m.Back {
			break
		}
		asked, full := d.s.sp.flies(d.kind, w.id, d.s)
		if full {
			break
		}
		d.wants = d.wants[1:]
		if asked { // it did not come meanwhile
			m.Back = w.back
			m.IDs = append(m.IDs, w.id)
		}
	}
	if len(m.IDs) == 0 {
		return nil
	}
	return m
}

// next returns the next message about this graph. Without reads the peer gets no batch of it.
func (d *side) next(reads bool) (wire.Message, error) {
	// What is new goes before the heads that it changes: a peer that hears these first asks for what is on its way.
	if reads && d.live && len(d.queue) > 0 && len(d.answers) == 0 {
		if m, err := d.push(); m != nil || err != nil {
			return m, err
		}
	}
	if len(d.twice) > 0 {
		m := &wire.Have{Graph: d.kind, IDs: d.twice}
		d.twice = nil
		return m, nil
	}
	if m := d.tell(); m != nil {
		return m, nil
	}
	if m := d.wanting(); m != nil {
		return m, nil
	}
	if !reads {
		d.answers, d.answering, d.queue, d.live = nil, nil, nil, false
		if d.serving != nil {
			d.stopServing()
			return &wire.End{Graph: d.kind}, nil
		}
		return nil, nil
	}
	if m, err := d.answer(); m != nil || err != nil {
		return m, err
	}
	if d.serving != nil {
		if !d.serving.durable {
			return nil, nil
		}
		return d.serveNext()
	}
	if d.live && len(d.queue) > 0 {
		return d.push()
	}
	return nil, nil
}

// tell tells the heads to a peer that waits for them, or to which nothing is pushed. A peer that knows but their digest can't tell by what is
// pushed what they are now: it is told whenever they have changed.
func (d *side) tell() wire.Message {
	if !d.durable.known || d.said.known && slices.Equal(d.said.heads, d.durable.heads) {
		return nil
	}
	pushed := d.live && len(d.durable.heads) <= wire.MaxHeads || d.serving != nil
	if d.said.known && !d.owe && pushed {
		return nil
	}
	// The rest of what it sent, or of what was here before it was told anything, is told when it is durable.
	d.owe = (d.owe || !d.said.known) && !slices.Equal(d.durable.heads, d.g.Heads())
	d.said = d.durable
	return d.said.message(d.kind)
}

// group collects frames for one message.
type group struct {
	frames [][]byte
	bytes  int
}

func (p *group) fits(frame []byte) bool {
	return len(p.frames) == 0 || p.bytes+len(frame) <= chunkBytes && len(p.frames) < wire.MaxFrames
}

func (p *group) add(frame []byte) {
	p.frames = append(p.frames, frame)
	p.bytes += len(frame)
}

func (d *side) answer() (wire.Message, error) {
	var p group
	for len(d.answers) > 0 {
		id := d.answers[0]
		frame, err := d.g.Frame(id)
		if errors.Is(err, dag.ErrNotFound) {
			d.absents = append(d.absents, id)
			d.popAnswer()
			continue
		}
		if err != nil {
			return nil, err
		}
		if !p.fits(frame) {
			break
		}
		p.add(frame)
		d.recent.add(id)
		d.popAnswer()
	}
	if len(p.frames) > 0 {
		d.runs = 0
		return &wire.Frames{Graph: d.kind, Frames: p.frames}, nil
	}
	if n := min(len(d.absents), wire.MaxIDs); n > 0 {
		m := &wire.Absent{Graph: d.kind, IDs: d.absents[:n:n]}
		d.absents = d.absents[n:]
		return m, nil
	}
	return nil, nil
}

func (d *side) serveNext() (wire.Message, error) {
	var p group
	v := d.serving
	for v.frame != nil && p.fits(v.frame) {
		p.add(v.frame)
		d.recent.add(v.id)
		v.advance()
	}
	if len(p.frames) > 0 {
		d.runs = 0
		return &wire.Frames{Graph: d.kind, Frames: p.frames}, nil
	}
	d.stopServing()
	d.live, d.overflow = !d.overflow, false
	d.owe = d.owe || !slices.Equal(d.said.heads, d.g.Heads()) // what it had as well was not sent to it
	return &wire.End{Graph: d.kind}, v.err
}

// push offers what is new: own batches whole, and of those from others the IDs, which cost little where the peer has them
// from elsewhere; it has not where it is eager.
func (d *side) push() (wire.Message, error) {
	var p group
	for len(d.queue) > 0 && (d.queue[0].own || d.eager.on) {
		id := d.queue[0].id
		if !d.recent.has(id) {
			frame, err := d.g.Frame(id)
			if err != nil {
				return nil, err
			}
			if !p.fits(frame) || !d.queue[0].own && !d.eager.sends(len(frame)) {
				break
			}
			p.add(frame)
			d.recent.add(id)
			if !d.queue[0].own {
				d.passes(d.queue[0])
			}
		} else {
			d.owe = true
		}
		d.queue = d.queue[1:]
	}
	if len(p.frames) > 0 {
		d.runs = 0
		return &wire.Frames{Graph: d.kind, Frames: p.frames}, nil
	}
	var ids []dag.ID
	for len(d.queue) > 0 && !d.queue[0].own && len(ids) < wire.MaxIDs {
		if id := d.queue[0].id; !d.recent.has(id) {
			ids = append(ids, id)
			d.passes(d.queue[0])
		} else {
			d.owe = true
		}
		d.queue = d.queue[1:]
	}
	if len(ids) > 0 {
		return &wire.Have{Graph: d.kind, IDs: ids}, nil
	}
	if len(d.queue) > 0 {
		return d.push()
	}
	return nil, nil
}

// passes notes that the peer is told of what came from another.
func (d *side) passes(o offer) {
	if d.s.sp.cfg.Timing != nil {
		d.s.passing = append(d.s.passing, o.at)
	}
}
