package session

import (
	"bytes"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/reconcile"
	"github.com/anyfs/anyfs/sync/wire"
)

// Bounds of what is kept for a peer.
const (
	maxQueue   = 8192      // batches to offer; with more the peer is told the heads and pulls
	maxAsking  = 16 * 1024 // batches asked of the peer that did not come
	maxOffered = 4096      // batches that the peer told of and that are asked of another
	maxFlying  = 2 * 1024  // of these, batches that a Want that was sent names
	maxAnswers = 16 * 1024 // batches that the peer asked for by name and that are not sent yet
	maxBefore  = 4 * 1024  // with this many to send, none is added that only comes before those
	maxPending = 64 << 20  // bytes of batches that name what did not come, while none comes that does not; the graph keeps fewer
	maxStrikes = 3         // refused batches
	chunkBytes = 128 << 10
)

// Peer is what a session knows of the peer.
type Peer struct {
	Name   string        // for the log
	Device dag.PublicKey // the peer's
	Reads  func() bool   // whether the peer may have the files; nil: it may
	Wake   func()        // Next has something; called by any goroutine, and is quick
	Own    bool          // the peer is of this device's account: what counts for that alone counts there too
	Eager  bool          // the peer is sent what came from others from the start, but for long batches, not only once it has asked for some

	// Takes reports whether so many more bytes of batches of files by the peer are to be taken in, and counts them; 0 asks whether any are. What is
	// not taken is no fault of the peer, and is not asked for: another session begins where it is taken again. nil: all are.
	Takes func(bytes int) bool
	// Took hears that a group which Takes counted is through: as many bytes, whatever became of it. nil, or without Takes: nobody is told. It is called with no lock held.
	Took func(bytes int)

	// Member reports whether a device of an account is one of a member: of records of others a peer that may not have the files brings so much. nil: it brings
	// what it likes.
	Member func(account, device dag.PublicKey) bool

	// Preview gives the record of the preview that this device made of the space, nil for none, which a peer that pulls files is told first;
	// Hear takes the peer's, and says whether it is one. nil: the peer is told none, and none of its own is looked at.
	Preview func() []byte
	Hear    func(record []byte) error
}

// Session is the exchange of one space with one peer. Receive is called by one goroutine at a time; all else is safe for
// concurrent use.
type Session struct {
	sp     *Space
	cfg    Peer
	log    *slog.Logger
	poked  atomic.Bool // look again at what is lacking
	asking int         // batches asked of the peer; guarded by Space.mu
	flying int         // of these, named in a Want that was sent; guarded by Space.mu

	// mu is held for moments and reads of the graph, not while batches are taken in. It comes before Space.mu.
	mu         sync.Mutex
	closed     bool
	ingesting  bool
	out        []wire.Message // small ones, which go first
	sides      [wire.Graphs]side
	kept       bool // the peer might not have the files when it was last asked for
	strikes    int
	met        bool                     // it was told what this device states
	stated     map[dag.PublicKey]uint64 // counters of the statements that the peer has
	statements int                      // of the peer, since the last tick
	preview    []byte                   // the one that it was told of last
	previews   int                      // of the peer, since the last tick
	word       *wire.Statement          // what the peer, a node, had said before the session, until it showed that it holds it
	pending    int                      // bytes
	passing    []time.Time              // when the batches were taken in of which Next told the peer, until that is written
	err        error
}

// New returns a session that Space hands events to until Close. Its first messages tell what is held; they come after the
// next Settle.
func (sp *Space) New(p Peer) *Session {
	if p.Reads == nil {
		p.Reads = func() bool { return true }
	}
	s := &Session{sp: sp, cfg: p, stated: make(map[dag.PublicKey]uint64), log: sp.cfg.Log.With("peer", p.Name, "space", sp.cfg.ID)}
	for kind := range s.sides {
		s.sides[kind] = side{s: s, kind: wire.Graph(kind), g: sp.graphs[kind], eager: eager{on: p.Eager, early: p.Eager}}
	}
	if sp.node(p.Device) {
		sp.mu.Lock()
		if w := sp.words[p.Device]; w != nil {
			s.word = w.newest
		}
		sp.mu.Unlock()
	}
	sp.join(s)
	return s
}

// Close ends the session; what it was to bring is asked of others.
func (s *Session) Close() {
	s.mu.Lock()
	s.closed = true
	for i := range s.sides {
		s.sides[i].stopServing()
	}
	s.mu.Unlock()
	s.sp.leave(s)
}

// offer takes what came to count.
func (s *Session) offer(events *[wire.Graphs][]offer) {
	s.mu.Lock()
	for kind := range s.sides {
		d := &s.sides[kind]
		for _, o := range events[kind] {
			// Whether another's batch came from this very peer is known when the group that it came in is through.
			if !o.own && s.ingesting {
				d.inbox = append(d.inbox, o)
			} else {
				d.enqueue(o)
			}
		}
	}
	s.mu.Unlock()
	s.cfg.Wake()
}

// settled takes what is durable now.
func (s *Session) settled(now *[wire.Graphs]frontier) {
	s.mu.Lock()
	for kind := range s.sides {
		if !s.without(wire.Graph(kind)) {
			s.sides[kind].durable = now[kind] // or nothing is told of it
		}
	}
	if !s.met {
		s.met = true
		s.state() // further ones at ticks
	}
	s.mu.Unlock()
	s.cfg.Wake()
}

// Tick is to be called now and then: what came to nothing is tried again, and the peer is told what it may not know.
func (s *Session) Tick() {
	s.mu.Lock()
	for kind := range s.sides {
		d := &s.sides[kind]
		d.stalled, d.headsAsked, d.back, d.runs, d.pulls, d.repeats = false, false, 0, 0, 0, 0
		d.reverse, d.idle = nil, true
		d.owe = true
	}
	s.statements, s.previews = 0, 0
	s.state()
	s.shows()
	s.mu.Unlock()
	s.sp.review(s)
	s.sp.expire(s)
	s.poked.Store(true)
	s.cfg.Wake()
}

// Next returns the next message for the peer, nil when there is none for now. Frames are read when they are asked for.
func (s *Session) Next() (wire.Message, error) {
	poked := s.poked.Swap(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.err != nil {
		return nil, s.err
	}
	if poked {
		s.consider()
	}
	if len(s.out) > 0 {
		m := s.out[0]
		s.out = s.out[1:]
		return m, nil
	}
	reads := s.cfg.Reads()
	if reads && s.kept { // a member again: it was told of nothing since it was none
		s.sides[wire.Files].owe, s.sides[wire.Files].said.known = true, false
	}
	s.kept = !reads
	for kind := range s.sides {
		m, err := s.sides[kind].next(kind == int(wire.ACL) || reads)
		if m != nil || err != nil {
			s.err = err
			return m, err
		}
	}
	return nil, nil
}

// Written says that what Next gave so far was written to the peer. Without Config.Timing there is nothing to say.
func (s *Session) Written() {
	if s.sp.cfg.Timing == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range s.passing {
		s.sp.cfg.Timing.PassedOn(time.Since(at))
	}
	s.passing = s.passing[:0]
}

// Receive takes a message from the peer. An error ends the session; it wraps ErrPeer where that is the peer's fault.
func (s *Session) Receive(m wire.Message) error {
	if s.sp.cfg.NoFiles {
		switch g := graphOf(m); {
		case g == wire.ACL:
		case isFrames(m):
			return fault("files that nobody asked for")
		default:
			return nil
		}
	}
	switch m := m.(type) {
	case *wire.Frames:
		return s.takeIn(m)
	case *wire.Heads:
		return s.with(m.Graph, func(d *side) error { return d.heard(m) })
	case *wire.Pull:
		return s.pull(m)
	case *wire.Statement:
		return s.hear(m)
	case *wire.Preview:
		return s.hearPreview(m)
	case *wire.Probe:
		return s.with(m.Graph, func(d *side) error { return d.probed(m) })
	case *wire.Answer:
		return s.with(m.Graph, func(d *side) error { return d.answered(m) })
	case *wire.End:
		return s.with(m.Graph, func(d *side) error { return d.ended() })
	case *wire.Have:
		return s.with(m.Graph, func(d *side) error { return d.told(m.IDs) })
	case *wire.Want:
		return s.with(m.Graph, func(d *side) error { return d.wanted(m) })
	case *wire.Absent:
		return s.with(m.Graph, func(d *side) error { return d.absent(m.IDs) })
	}
	return fault("%T in a session", m)
}

// without reports whether a graph is not exchanged.
func (s *Session) without(g wire.Graph) bool { return s.sp.cfg.NoFiles && g == wire.Files }

// graphOf is the graph that a message is about. A statement is about both, and counts for the files.
func graphOf(m wire.Message) wire.Graph {
	switch m := m.(type) {
	case *wire.Frames:
		return m.Graph
	case *wire.Heads:
		return m.Graph
	case *wire.Pull:
		return m.Graph
	case *wire.Probe:
		return m.Graph
	case *wire.Answer:
		return m.Graph
	case *wire.End:
		return m.Graph
	case *wire.Have:
		return m.Graph
	case *wire.Want:
		return m.Graph
	case *wire.Absent:
		return m.Graph
	case *wire.Statement, *wire.Preview:
		return wire.Files
	}
	return wire.ACL
}

func isFrames(m wire.Message) bool {
	_, ok := m.(*wire.Frames)
	return ok
}

func (s *Session) with(kind wire.Graph, fn func(*side) error) error {
	s.mu.Lock()
	err := fn(&s.sides[kind])
	if err == nil {
		s.consider()
	}
	s.mu.Unlock()
	s.cfg.Wake()
	return err
}

// consider asks for what is lacking and can be asked for, the access list first.
func (s *Session) consider() {
	if s.closed {
		return
	}
	acl := &s.sides[wire.ACL]
	acl.consider()
	if acl.hears && (acl.stalled || !acl.behind()) && !s.without(wire.Files) && s.takes(wire.Files, 0) {
		s.sides[wire.Files].consider()
	}
}

// takes reports whether so many bytes of batches are to be taken in of the peer.
func (s *Session) takes(kind wire.Graph, bytes int) bool {
	return kind != wire.Files || s.cfg.Takes == nil || s.cfg.Takes(bytes)
}

// Status is how far two peers are with one graph.
type Status struct {
	Equal   bool   // both hold the same, but for what counts here alone and not for the peer, which never says that it holds it
	Whole   bool   // both hold the same
	ToSend  uint64 // batches that the peer is not known to hold durably, without those that do not count for it
	ToFetch uint64 // batches that the peer holds and this device does not
}

// Status tells how far a graph is; false while the peer has not told what it holds.
func (s *Session) Status(kind wire.Graph) (Status, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := &s.sides[kind]
	if !d.hears {
		return Status{}, false
	}
	return d.status(), true
}

// Expects reports whether the peer owes an answer.
func (s *Session) Expects() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sides[wire.ACL].pulling || s.sides[wire.Files].pulling
}

// side is a session's half for one graph. Session.mu guards it.
type side struct {
	s    *Session
	kind wire.Graph
	g    *dag.Graph

	// Towards the peer.
	live      bool    // all that is held was offered but for what stands in queue
	queue     []offer // in the order in which it came to count
	inbox     []offer // comes into the queue when a group is through
	serving   *serving
	overflow  bool                // the queue overflowed while serving: the peer is to pull again
	in        *incoming           // a Pull that is not complete
	giver     *reconcile.Giver    // the peer probes
	reverse   *reconcile.Giver    // what its last probes found, for this side's next Pull
	idle      bool                // it has not probed since the last tick
	runs      int                 // that the peer began since the last tick, or since it was sent a batch
	answers   []dag.ID            // that the peer asked for
	answering map[dag.ID]struct{} // these
	repeats   int                 // of these, named again, since the last tick
	absents   []dag.ID
	eager     eager
	durable   frontier
	said      frontier
	owe       bool // the peer sent something, and waits to hear that it is durable

	// From the peer.
	hears      bool // it told its heads
	heads      wire.Heads
	first      frontier         // the heads that it told first; not known where that was by a digest
	sent       []dag.ID         // the last that it sent or told of, since it told its heads
	blind      bool             // most of these were not here when they were last looked at, and nothing came since
	recent     recent           // batches that it has, beside those
	pulling    bool             // from the first probe, or the Pull, to the End
	twice      []dag.ID         // that it pushed and were here already: it is told so
	asker      *reconcile.Asker // this side probes
	shared     *shared          // what its last probes found, for the peer's Pull
	pulls      int              // since the last tick, or the last batch that was accepted
	progress   int              // batches taken in since the last Pull
	stalled    bool             // it has what this device lacks, and asking again would change nothing
	headsAsked bool
	wants      []want   // to ask for
	offered    []dag.ID // that it told of and that are asked of another
	back       uint64
}

// enqueue offers a batch to the peer, unless it has it.
func (d *side) enqueue(o offer) {
	if d.recent.has(o.id) {
		d.owe = true // it has it and is not told of it: it waits to hear that it is here too
		return
	}
	if !d.live && d.serving == nil {
		return // a peer that is not up to date is told the heads
	}
	if len(d.queue) >= maxQueue {
		d.queue, d.live, d.overflow = nil, false, d.serving != nil
		d.said.known = false
	}
	if !d.live && d.overflow {
		return
	}
	d.queue = append(d.queue, o)
}

// behind says whether the peer holds what this device does not.
func (d *side) behind() bool {
	if len(d.heads.Digest) > 0 {
		return !bytes.Equal(d.heads.Digest, digest(d.g.Heads())) && !d.equalElsewhere()
	}
	return len(d.lacking()) > 0
}

// lacking is the peer's heads that are not held.
func (d *side) lacking() (ids []dag.ID) {
	for _, id := range d.heads.Heads {
		if held, err := d.g.Has(id); err == nil && !held {
			ids = append(ids, id)
		}
	}
	return ids
}

func (d *side) equal() bool {
	mine := d.g.Heads()
	if len(d.heads.Digest) > 0 {
		return bytes.Equal(d.heads.Digest, digest(mine))
	}
	return slices.Equal(mine, d.heads.Heads)
}

// equalElsewhere reports whether a peer that told a digest holds just what counts elsewhere too, where that is not all.
func (d *side) equalElsewhere() bool {
	heads, all, err := d.g.HeadsElsewhere()
	return err == nil && !all && bytes.Equal(d.heads.Digest, digest(heads))
}

// heard takes the peer's heads.
func (d *side) heard(m *wire.Heads) error {
	if !d.hears && len(m.Digest) == 0 {
		d.first = frontier{slices.Clone(m.Heads), m.Batches, true}
	}
	d.hears, d.heads, d.sent = true, *m, nil
	d.stalled, d.headsAsked = false, false
	if d.equal() && d.serving == nil {
		d.live, d.queue = true, nil
		// What is here may have come from another since the peer was told the heads: it waits to hear that.
		d.owe = d.owe || d.said.known && !slices.Equal(d.said.heads, d.g.Heads())
	}
	return nil
}

// consider asks the peer for what it has and this device lacks.
func (d *side) consider() {
	if len(d.offered) > 0 {
		offered := d.offered
		d.offered = nil
		d.want(offered)
	}
	if !d.hears || d.pulling || d.stalled || d.giver != nil && !d.idle || !d.behind() || !d.s.sp.takeTurn(d.kind, d.s) {
		return // where the peer probes, what it finds is this side's too
	}
	if d.pulls++; d.pulls > maxPulls {
		d.stalled = true // whatever it tells, it does not give: until the next tick
		d.s.sp.giveTurn(d.kind, d.s)
		return
	}
	d.pulling, d.progress = true, 0
	d.ask()
}

// want is a batch to ask for, with some that come before it in its feed.
type want struct {
	id   dag.ID
	back uint64
}

// want asks for batches that are not held and that nobody is asked for.
func (d *side) want(ids []dag.ID) {
	for _, id := range ids {
		if held, err := d.g.Has(id); held || err != nil {
			continue
		}
		switch {
		case d.s.sp.ask(d.kind, id, d.s):
			d.wants = append(d.wants, want{id, d.back})
		case len(d.offered) < maxOffered: // beyond that, the peer's heads will tell
			d.offered = append(d.offered, id)
		}
	}
}

// ended takes the end of what a Pull gave.
func (d *side) ended() error {
	if !d.pulling || d.asker != nil {
		return fault("the end of nothing")
	}
	d.pulling = false
	d.s.sp.giveTurn(d.kind, d.s)
	if d.progress > 0 || !d.behind() {
		return nil
	}
	// It has what it believes that this device has: the end of another branch of a feed. Or it has what was refused here.
	if !d.headsAsked {
		d.headsAsked = true
		d.back = max(d.back, 16)
		d.want(d.lacking())
	}
	d.stalled = true
	return nil
}

// told takes what the peer took in from others.
func (d *side) told(ids []dag.ID) error {
	for _, id := range ids {
		if d.recent.has(id) {
			d.eager.wasted() // it had it from another, or it had been sent it
		}
		d.peerHas(id)
	}
	d.want(ids)
	d.owe = true
	return nil
}

// absent takes what the peer could not give.
func (d *side) absent(ids []dag.ID) error {
	d.s.sp.unasked(d.kind, ids, d.s)
	return nil
}

// peerHas notes that the peer has a batch.
func (d *side) peerHas(id dag.ID) {
	if d.recent.has(id) {
		return
	}
	d.recent.add(id)
	if d.sent = append(d.sent, id); len(d.sent) > maxSent {
		d.compactSent()
	}
	if i := slices.IndexFunc(d.queue, func(o offer) bool { return o.id == id }); i >= 0 {
		d.queue = slices.Delete(d.queue, i, i+1)
		d.owe = true
	}
}

// maxSent bounds what is noted of what a peer sent since it told its heads.
const maxSent = 128

// compactSent keeps of what the peer sent the last batch of each device, which has those before it in its past, and what is not here yet.
// Where most is not here, the oldest go without a look until something comes: a peer may tell of what is not, without end.
func (d *side) compactSent() {
	if !d.blind {
		last := make(map[dag.PublicKey]uint64) // clocks
		of := make(map[dag.ID]*dag.Batch)
		for _, id := range d.sent {
			if b, err := d.g.Head(id); err == nil {
				of[id] = b
				last[b.Device] = max(last[b.Device], b.Clock)
			}
		}
		d.blind = 2*len(of) < len(d.sent)
		d.sent = slices.DeleteFunc(d.sent, func(id dag.ID) bool { b := of[id]; return b != nil && b.Clock < last[b.Device] })
	}
	if n := len(d.sent) - maxSent/2; n > 0 {
		d.sent = slices.Delete(d.sent, 0, n)
	}
}

func (d *side) status() Status {
	if d.equal() {
		return Status{Equal: true, Whole: true}
	}
	var st Status
	var lacks, alone uint64
	behind := d.behind()
	if have := slices.Concat(d.heads.Heads, d.sent); len(d.heads.Digest) > 0 && !behind {
		heads, _, _ := d.g.HeadsElsewhere()
		lacks, _ = d.g.CountSince(slices.Concat(heads, have))
		alone = lacks
	} else {
		lacks, _ = d.g.CountSince(have)
		alone, _ = d.g.AloneSince(have)
	}
	if d.s.cfg.Own {
		alone = 0
	}
	st.ToSend = lacks - min(lacks, alone)
	if behind {
		st.ToFetch = 1 // at least
		mine, _, _ := d.g.Counters()
		if theirs := d.heads.Batches + lacks; theirs > mine {
			st.ToFetch = theirs - mine
		}
	}
	st.Whole = lacks+st.ToFetch == 0
	st.Equal = st.ToSend+st.ToFetch == 0
	return st
}

// recent is a set that forgets what was not added for long.
type recent struct{ now, before map[dag.ID]struct{} }

// recentSize is after how many the set forgets.
const recentSize = 4096

func (r *recent) add(id dag.ID) {
	if len(r.now) >= recentSize || r.now == nil {
		r.now, r.before = make(map[dag.ID]struct{}), r.now
	}
	r.now[id] = struct{}{}
}

func (r *recent) has(id dag.ID) bool {
	_, now := r.now[id]
	_, before := r.before[id]
	return now || before
}
