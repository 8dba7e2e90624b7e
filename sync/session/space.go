// Package session exchanges the graphs of a space between two peers.
//
// A Session is one space with one peer: a state machine that takes messages and events (Receive, and what the Space hands
// on) and gives messages (Next). A Space is what all sessions of a space share: its graphs, what is new in them, and who
// is asked for what, so that no batch is asked of two peers at once. ../PROTOCOL.md gives the rules between peers.
//
// The package does no I/O but through the graphs, starts no goroutine and reads no clock.
package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// Config is what a Space is made of.
type Config struct {
	ID         dag.ID
	ACL, Files *dag.Graph
	Device     dag.PublicKey // of this device: what it writes is pushed, what others wrote is told of
	NoFiles    bool          // the files are not exchanged: who keeps content alone has no use for their changes
	Durable    func() error  // makes what both graphs took in durable
	Grown      func()        // the access list has grown; may be nil
	Wake       func()        // Step has work; called by any goroutine that writes to a graph, and is quick
	Log        *slog.Logger  // nil: nothing is logged

	Sign   func(text []byte) [64]byte // by this device, what it states of itself; nil: it states nothing
	Node   func(dag.PublicKey) bool   // whether a device is a node that serves the space, whose statements are kept; called under locks, and is quick; nil: none is
	Words  []*wire.Statement          // of nodes, kept from before: see Space.Words
	Timing *Timing                    // nil: nothing is measured
	Whole  int                        // up to how many tips are sent whole; 0: 256
	NewKey func() wire.Key            // draws the key of a run of probes; nil: from the system's randomness
}

// Timing hears how long the way of changes of others through this process takes. Its functions are called with locks held, and are quick.
type Timing struct {
	TakenIn  func(time.Duration) // a group of batches, from when it was read until it was verified and taken in
	PassedOn func(time.Duration) // a batch, from when it was taken in until a peer was sent it, or told of it
}

// Space is one space on this device, and the sessions in which it is exchanged. It is safe for concurrent use.
type Space struct {
	cfg     Config
	graphs  [wire.Graphs]*dag.Graph
	cancels []func()

	// mu is held for moments, and no lock is taken under it. It comes after Session.mu.
	mu       sync.Mutex
	events   [wire.Graphs][]offer
	unsaid   bool // something arrived since the last Settle
	sessions []*Session
	stated   map[dag.PublicKey]*stated
	unknown  int // of these, devices that have written nothing that is held
	words    map[dag.PublicKey]*word
	outside  int // bytes of records of who is no member that peers brought which are none
	puller   [wire.Graphs]*Session
	asked    [wire.Graphs]map[dag.ID]asking
}

// asking is a batch that is asked of a peer.
type asking struct {
	s      *Session
	flying bool // a Want that was sent names it
	old    bool // since before the session's last tick
}

// offer is a batch that came to count here.
type offer struct {
	id  dag.ID
	own bool
	at  time.Time // when it came to count; zero without Config.Timing
}

// NewSpace returns a space that hears what its graphs take in from now on, until Close.
func NewSpace(cfg Config) *Space {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Grown == nil {
		cfg.Grown = func() {}
	}
	if cfg.Whole == 0 {
		cfg.Whole = wholeTips
	}
	if cfg.NewKey == nil {
		cfg.NewKey = func() (key wire.Key) {
			_, _ = rand.Read(key[:])
			return key
		}
	}
	sp := &Space{cfg: cfg, stated: make(map[dag.PublicKey]*stated), graphs: [wire.Graphs]*dag.Graph{cfg.ACL, cfg.Files}}
	sp.newWords()
	for kind, g := range sp.graphs {
		sp.asked[kind] = make(map[dag.ID]asking)
		sp.cancels = append(sp.cancels, g.Subscribe(func(b *dag.Batch) {
			var now time.Time
			if cfg.Timing != nil {
				now = time.Now()
			}
			sp.mu.Lock()
			sp.events[kind] = append(sp.events[kind], offer{b.ID(), b.Device == cfg.Device, now})
			sp.unsaid = true
			sp.mu.Unlock()
			cfg.Wake()
		}))
	}
	return sp
}

// Close ends the hearing. Sessions are closed by who made them.
func (sp *Space) Close() {
	for _, cancel := range sp.cancels {
		cancel()
	}
}

// Step hands what is new to the sessions. What this device wrote is durable before. It reports whether something is new
// that is not known to be durable, so that Settle is due.
func (sp *Space) Step() (unsettled bool, err error) {
	sp.mu.Lock()
	events := sp.events
	sp.events = [wire.Graphs][]offer{}
	sessions := slices.Clone(sp.sessions)
	unsettled = sp.unsaid
	sp.mu.Unlock()
	for _, e := range events {
		if slices.ContainsFunc(e, func(o offer) bool { return o.own }) {
			if err := sp.cfg.Durable(); err != nil {
				return unsettled, fmt.Errorf("session: make own batches durable: %w", err)
			}
			break
		}
	}
	for _, s := range sessions {
		s.offer(&events)
	}
	return unsettled, nil
}

// Settle makes all durable that the graphs hold, and has the peers told that wait to hear it.
func (sp *Space) Settle() error {
	sp.mu.Lock()
	sp.unsaid = false
	sessions := slices.Clone(sp.sessions)
	sp.mu.Unlock()
	var now [wire.Graphs]frontier
	for kind, g := range sp.graphs {
		now[kind] = frontierOf(g)
	}
	if err := sp.cfg.Durable(); err != nil {
		return fmt.Errorf("session: make batches durable: %w", err)
	}
	for _, s := range sessions {
		s.settled(&now)
	}
	return nil
}

// frontier is the heads of a graph at a moment.
type frontier struct {
	heads   []dag.ID
	batches uint64
	known   bool
}

func frontierOf(g *dag.Graph) frontier {
	n, _, _ := g.Counters()
	return frontier{g.Heads(), n, true}
}

// message is what tells a frontier to a peer.
func (f *frontier) message(kind wire.Graph) *wire.Heads {
	m := &wire.Heads{Graph: kind, Batches: f.batches}
	if len(f.heads) > wire.MaxHeads {
		m.Digest = digest(f.heads)
	} else {
		m.Heads = f.heads
	}
	return m
}

// digest stands for sorted heads.
func digest(heads []dag.ID) []byte {
	b := []byte("anyfs/heads/1\x00")
	for i := range heads {
		b = append(b, heads[i][:]...)
	}
	d := dag.Sum(b)
	return d[:]
}

// takeTurn makes s the one session that pulls a graph, if none does: what several peers have is not sent by each of them.
func (sp *Space) takeTurn(kind wire.Graph, s *Session) bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.puller[kind] == nil {
		sp.puller[kind] = s
	}
	return sp.puller[kind] == s
}

// giveTurn lets others pull.
func (sp *Space) giveTurn(kind wire.Graph, s *Session) {
	sp.mu.Lock()
	given := sp.puller[kind] == s
	if given {
		sp.puller[kind] = nil
	}
	others := slices.Clone(sp.sessions)
	sp.mu.Unlock()
	if given {
		poke(others, s)
	}
}

// ask makes s the one session that asks for a batch, if none does and s does not wait for too many.
func (sp *Space) ask(kind wire.Graph, id dag.ID, s *Session) bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if _, asked := sp.asked[kind][id]; asked || s.asking >= maxAsking {
		return false
	}
	sp.asked[kind][id] = asking{s: s}
	s.asking++
	return true
}

// flies notes that s names a batch in a Want now: not where that is no more to be asked for, nor where it is full, since too
// many are on their way.
func (sp *Space) flies(kind wire.Graph, id dag.ID, s *Session) (asked, full bool) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	a, ok := sp.asked[kind][id]
	if !ok || a.s != s || a.flying {
		return false, false
	}
	if s.flying >= maxFlying {
		return false, true
	}
	a.flying = true
	sp.asked[kind][id] = a
	s.flying++
	return true, false
}

// release ends the asking for a batch. mu is held.
func (sp *Space) release(kind wire.Graph, id dag.ID) {
	if a, ok := sp.asked[kind][id]; ok {
		if a.flying {
			a.s.flying--
		}
		a.s.asking--
		delete(sp.asked[kind], id)
	}
}

// isAsked reports whether s was asked for a batch.
func (sp *Space) isAsked(kind wire.Graph, id dag.ID, s *Session) bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	a, ok := sp.asked[kind][id]
	return ok && a.s == s
}

// answered ends the asking for batches.
func (sp *Space) answered(kind wire.Graph, id dag.ID) {
	sp.mu.Lock()
	sp.release(kind, id)
	sp.mu.Unlock()
}

// unasked lets others ask for what s asked for in vain.
func (sp *Space) unasked(kind wire.Graph, ids []dag.ID, s *Session) {
	sp.mu.Lock()
	for _, id := range ids {
		if sp.asked[kind][id].s == s {
			sp.release(kind, id)
		}
	}
	others := slices.Clone(sp.sessions)
	sp.mu.Unlock()
	poke(others, s)
}

// expire lets others ask for what s was asked for before its last tick and has not given.
func (sp *Space) expire(s *Session) {
	sp.mu.Lock()
	ended := false
	for kind := range sp.asked {
		for id, a := range sp.asked[kind] {
			switch {
			case a.s != s:
			case a.old:
				sp.release(wire.Graph(kind), id)
				ended = true
			default:
				a.old = true
				sp.asked[kind][id] = a
			}
		}
	}
	others := slices.Clone(sp.sessions)
	sp.mu.Unlock()
	if ended {
		poke(others, s)
	}
}

func (sp *Space) join(s *Session) {
	sp.mu.Lock()
	sp.sessions = append(sp.sessions, s)
	sp.mu.Unlock()
}

func (sp *Space) leave(s *Session) {
	sp.mu.Lock()
	sp.sessions = slices.DeleteFunc(sp.sessions, func(o *Session) bool { return o == s })
	others := slices.Clone(sp.sessions)
	for kind := range sp.puller {
		if sp.puller[kind] == s {
			sp.puller[kind] = nil
		}
		for id, a := range sp.asked[kind] {
			if a.s == s {
				sp.release(wire.Graph(kind), id)
			}
		}
	}
	sp.mu.Unlock()
	poke(others, s)
}

// poke has sessions look again at what they lack.
func poke(sessions []*Session, but *Session) {
	for _, s := range sessions {
		if s != but {
			s.poked.Store(true)
			s.cfg.Wake()
		}
	}
}

// ErrPeer is wrapped by errors that are the peer's fault.
var ErrPeer = errors.New("session: the peer broke the protocol")

func fault(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrPeer, fmt.Sprintf(format, args...))
}
