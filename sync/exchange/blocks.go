package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/session"
)

const (
	absentAfter = 4 * time.Second        // without a byte of a block that somebody reads: nobody has it
	meetWithin  = 3 * time.Second        // of these, for a peer of the space to connect
	hedgeAfter  = 500 * time.Millisecond // without a byte of it another peer is asked too
	hedgeSlow   = 3 * time.Second        // and without its end, unless bytes keep coming
	hedgeRate   = 16 << 10               // bytes in that time at least
	hedgeLate   = 15 * time.Second       // whatever comes: who gives a block by drops keeps nobody waiting; then a third after as long
	hedgeAhead  = 20 * time.Second       // for a block that is fetched ahead
	aheadRate   = 128 << 10              // bytes in that time at least over the stream on which it is due, or a second peer is asked
	maxCopies   = 3                      // peers at once for one block
	maxLate     = 4096                   // answers due on a stream for which nobody waits any more, before it is opened anew
	stallBlock  = 4 * time.Second        // without a byte over a stream on which answers are due
	minMoved    = 1 << 10                // bytes in that time: fewer are none
	avoidFor    = 15 * time.Second       // a peer that has stalled, for what is fetched ahead
	lackFor     = time.Minute            // a peer that lacks a block, for the same, unless it tells of new content
	silentFor   = time.Second            // a block that nobody gave to who waited, to those who waited with him
	maxAhead    = 32                     // blocks fetched ahead from one peer at once
	maxLacks    = 1 << 16                // blocks that a peer is known to lack
	maxParts    = 16 << 20               // bytes of blocks of a space that came in part
)

var errStalled = errors.New("exchange: the peer has stalled")

// class is how soon a block is needed.
type class int

const (
	reading class = iota // somebody waits
	pinned               // it is to be here
	ahead                // it may be needed
)

type classKey struct{}

// Prefetch marks what is fetched with ctx as not needed now: it leaves the way to what somebody reads, and to what is Pinned.
func Prefetch(ctx context.Context) context.Context { return context.WithValue(ctx, classKey{}, ahead) }

// Pinned marks what is fetched with ctx as not needed now, but before what is merely fetched ahead.
func Pinned(ctx context.Context) context.Context { return context.WithValue(ctx, classKey{}, pinned) }

func classOf(ctx context.Context) class {
	c, _ := ctx.Value(classKey{}).(class)
	return c
}

// slots are places for questions, given to who is pinned first.
type slots struct {
	mu    sync.Mutex
	free  int
	queue [ahead + 1][]chan struct{}
}

func (s *slots) acquire(ctx context.Context, c class) error {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	s.queue[c] = append(s.queue[c], turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.queue[c], turn); i >= 0 {
		s.queue[c] = slices.Delete(s.queue[c], i, i+1)
	} else {
		s.releaseLocked() // its turn came just now
	}
	return context.Cause(ctx)
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked()
}

func (s *slots) releaseLocked() {
	for c := range s.queue {
		if len(s.queue[c]) > 0 {
			close(s.queue[c][0])
			s.queue[c] = s.queue[c][1:]
			return
		}
	}
	s.free++
}

// lacks is what was asked for and not to be had, and when.
type lacks struct {
	mu sync.Mutex
	at map[block.ID]time.Time
}

func (l *lacks) add(id block.ID, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil || len(l.at) >= maxLacks {
		l.at = make(map[block.ID]time.Time)
	}
	l.at[id] = now
}

func (l *lacks) has(id block.ID, now time.Time, within time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.at[id]
	return ok && now.Sub(at) < within
}

// clear forgets it all: the peer told of new content. It reports whether there was anything.
func (l *lacks) clear() (some bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	some = len(l.at) > 0
	l.at = nil
	return some
}

// parts are the starts of blocks whose rest did not come: it is asked for when the block is wanted again.
type parts struct {
	mu    sync.Mutex
	of    map[block.ID][]byte
	bytes int
}

func (p *parts) keep(id block.ID, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = make(map[block.ID][]byte)
	}
	if len(data) <= len(p.of[id]) {
		return
	}
	p.bytes += len(data) - len(p.of[id])
	p.of[id] = data
	for other, b := range p.of {
		if p.bytes <= maxParts {
			break
		}
		if other != id {
			p.bytes -= len(b)
			delete(p.of, other)
		}
	}
}

func (p *parts) take(id block.ID) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	data := p.of[id]
	p.bytes -= len(data)
	delete(p.of, id)
	return data
}

var (
	_ block.Verifier = (*space)(nil)
	_ block.Urger    = (*space)(nil)
)

// Fetch asks the peers of the space for a block, one after the other, a second at the same time where the first is slow; block.ErrAbsent
// when none has it. Where somebody reads that takes five seconds at most. What is fetched ahead (Prefetch, Pinned) is asked only of
// peers that are connected, may have it, and have not stalled; many can be asked for at a time.
func (sp *space) Fetch(ctx context.Context, id block.ID) ([]byte, error) {
	sp.fetching.Add(1)
	defer sp.fetching.Add(-1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &fetch{sp: sp, id: id, results: make(chan attempt), begun: make(chan struct{}, 1), urged: make(chan struct{}, 1),
		before: make(map[*link]since)}
	if f.class = classOf(ctx); f.class == reading && sp.silent.has(id, sp.e.clock.Now(), silentFor) {
		// Who asks again, after he waited with another, does not wait twice.
		return nil, fmt.Errorf("%w: no peer of the space gives it", block.ErrAbsent)
	}
	sp.fetches.Store(id, f)
	defer sp.fetches.CompareAndDelete(id, f)
	f.part = sp.parts.take(id)
	data, err := f.run(ctx)
	if err != nil && len(f.part) > 0 {
		sp.parts.keep(id, f.part)
	}
	f.over.Store(err == nil)
	return data, err
}

// Urgent reports whether somebody waits for what is fetched with ctx.
func (sp *space) Urgent(ctx context.Context) bool { return classOf(ctx) == reading }

// Verifies says that Fetch returns verified bytes: it has to know whose fault others are.
func (sp *space) Verifies() {}

// Urge tells that somebody waits for a block that is being fetched ahead.
func (sp *space) Urge(id block.ID) {
	if f, ok := sp.fetches.Load(id); ok {
		select {
		case f.(*fetch).urged <- struct{}{}:
		default:
		}
	}
}

// fetch is a block on its way.
type fetch struct {
	sp      *space
	id      block.ID
	class   class
	tried   []*link
	active  int
	results chan attempt
	begun   chan struct{}
	urged   chan struct{}
	began   bool            // some of it came
	over    atomic.Bool     // it came
	part    []byte          // what came of it
	before  map[*link]since // by who was asked
}

func (f *fetch) run(ctx context.Context) ([]byte, error) {
	clock := f.sp.e.clock
	var limit <-chan time.Time
	var moved uint64 // on the streams of who was asked, when limit began
	if f.class == reading {
		limit = clock.After(absentAfter)
	}
	if !f.ask(ctx) {
		if f.class != reading || !f.meet(ctx) {
			return nil, fmt.Errorf("%w: %w", block.ErrAbsent, ErrOffline)
		}
		f.ask(ctx)
	}
	hedge := f.hedge(false)
	began, seen := clock.Now(), uint64(0) // for hedge: since when, and what had come when it was set
	for f.active > 0 {
		select {
		case <-f.begun:
			limit, f.began = nil, true
			if f.active == 1 && f.class == reading {
				hedge = f.hedge(true)
			}
		case <-f.urged:
			if f.class == reading {
				continue
			}
			f.class = reading
			if began, seen = clock.Now(), f.moved(); !f.began {
				limit = clock.After(absentAfter)
				f.tried = nil // on the stream for what is read
				clear(f.before)
				moved, seen = 0, 0
				f.ask(ctx)
			}
			hedge = f.hedge(f.began)
		case a := <-f.results:
			f.active--
			if a.err == nil {
				if block.Sum(a.data) == f.id {
					f.sp.contentCame(a.l)
					if now := clock.Now(); f.class == reading && now.Sub(began) >= hedgeLate {
						for _, l := range f.tried { // the next who reads does not wait as long for the same peer
							if l != a.l && !l.lacks.has(f.id, now, lackFor) {
								l.stalled.Store(now.UnixNano())
							}
						}
					}
					return a.data, nil
				}
				if a.resumed {
					// The fault may lie with who gave the start: it is asked for all of it.
					f.tried = slices.DeleteFunc(f.tried, func(l *link) bool { return l == a.l })
				} else {
					f.sp.e.failed(a.l.r.id, "blocks", fmt.Errorf("%w: it gave other bytes for a block", session.ErrPeer))
				}
				a.data = nil
			}
			absent := errors.Is(a.err, block.ErrAbsent)
			if absent {
				a.l.lacks.add(f.id, clock.Now())
			}
			// What it gave before it failed need not come again.
			if f.part = nil; f.active == 0 && (absent || a.err != nil) {
				f.part = a.data
			}
			f.ask(ctx)
			hedge = f.hedge(false)
		case <-hedge:
			hedge = nil
			// On a slow line a block takes its time, and a second one beside it would take as much again.
			now, reads := f.moved(), f.class == reading
			if reads && f.active == 1 && now >= seen+hedgeRate && clock.Now().Sub(began) < hedgeLate || !reads && now >= seen+aheadRate {
				seen, hedge = now, f.hedge(true)
				continue
			}
			if f.active < maxCopies {
				part := f.part
				f.part = nil // it comes from the first
				if f.ask(ctx) {
					seen, hedge = now, clock.After(hedgeLate)
				}
				f.part = part
			}
		case <-limit:
			if now := f.moved(); now >= moved+minMoved {
				moved, limit = now, clock.After(absentAfter) // it comes, or what was asked for before it
				continue
			}
			f.sp.silent.add(f.id, clock.Now())
			return nil, fmt.Errorf("%w: no peer of the space gives it", block.ErrAbsent)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, fmt.Errorf("%w: no peer of the space has it", block.ErrAbsent)
}

// since is what had come over a stream when a block was asked for on it.
type since struct {
	moved *atomic.Uint64
	was   uint64
}

// moved counts what came over the streams on which the block was asked for, since it was.
func (f *fetch) moved() (n uint64) {
	for _, s := range f.before {
		n += s.moved.Load() - s.was
	}
	return n
}

// hedge says when a second peer is asked.
func (f *fetch) hedge(begun bool) <-chan time.Time {
	switch {
	case f.class != reading:
		return f.sp.e.clock.After(hedgeAhead) // two would send what one can
	case begun:
		return f.sp.e.clock.After(hedgeSlow)
	}
	return f.sp.e.clock.After(hedgeAfter)
}

// meet waits for a peer of the space, where one is looked for. Just after the start, who is to be dialed may not be known yet.
func (f *fetch) meet(ctx context.Context) bool {
	e := f.sp.e
	e.mu.Lock()
	starts := e.began.IsZero() || e.clock.Now().Sub(e.began) < meetWithin
	looked := starts || e.ctx != nil && (len(e.dials) > 0 || e.opt.MDNS)
	e.mu.Unlock()
	if !looked {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, meetWithin)
	defer cancel()
	return e.await(ctx, func() bool { return len(f.sp.links) > 0 })
}

// ask asks the best peer that was not asked yet: on the local network first, then by how much it is asked for.
func (f *fetch) ask(ctx context.Context) bool {
	e := f.sp.e
	now := e.clock.Now()
	e.mu.Lock()
	var best *link
	var least int64
	for _, l := range f.sp.links {
		if slices.Contains(f.tried, l) || !l.r.ready() || l.r.node != nil && !l.r.node.near && !l.r.node.keeps(f.sp.id) {
			continue
		}
		load := l.load()
		if now.Sub(time.Unix(0, l.stalled.Load())) < avoidFor {
			load += 1 << 30
			if f.class != reading {
				continue
			}
		}
		if f.class != reading && l.lacks.has(f.id, now, lackFor) {
			continue
		}
		if best == nil || load < least {
			best, least = l, load
		}
	}
	if best == nil {
		e.mu.Unlock()
		return false
	}
	part, c := f.part, f.class
	flight := &best.clients[0].inFlight
	if c != reading {
		flight = &best.clients[1].inFlight
	}
	flight.Add(1)
	ok := f.sp.startLocked(func(context.Context) {
		a := best.get(ctx, f.id, c, part, func() {
			select {
			case f.begun <- struct{}{}:
			default:
			}
		})
		flight.Add(-1)
		select {
		case f.results <- a:
		case <-ctx.Done():
			// Nobody waits for it any more.
			if a.err != nil && len(a.data) > 0 && !f.over.Load() {
				f.sp.parts.keep(f.id, a.data)
			}
		}
	})
	e.mu.Unlock()
	f.tried = append(f.tried, best)
	if _, again := f.before[best]; !again {
		moved := best.movedOf(c != reading)
		f.before[best] = since{moved, moved.Load()}
	}
	if ok {
		f.active++
	} else {
		flight.Add(-1)
	}
	return ok
}

func (l *link) load() int64 {
	n := l.clients[0].inFlight.Load() + l.clients[1].inFlight.Load()
	switch near := onLAN(l.r.addr); {
	case l.r.relayed: // it comes over a node, and costs that twice
		n += 1 << 23
	case l.r.node == nil && !near: // the line up of a device is the slowest of all
		n += 1 << 22
	case l.r.node != nil && !near:
		n += 1 << 21
	case l.r.node != nil: // what a device near by has need not come from there
		n += 1 << 20
	}
	return n
}

// Fetcher asks the peers of a space for blocks, past the space's own store; nil where the space was not added.
func (e *Engine) Fetcher(id dag.ID) block.Fetcher {
	e.mu.Lock()
	defer e.mu.Unlock()
	if sp := e.spaces[id]; sp != nil {
		return sp
	}
	return nil
}
