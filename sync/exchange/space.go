package exchange

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

const (
	maxSettling = 4                     // spaces that are made durable at once: more keep the disk no busier, and the processors from what is passed on
	settleEvery = 50 * time.Millisecond // between two times that what others wrote is made durable
	tickEvery   = 30 * time.Second      // between two looks at what came to nothing
	openNode    = time.Second           // for a stream about a space that a node does not know to be common
	stallAfter  = 30 * time.Second      // without a byte of what the peer owes
	reopenAfter = time.Second           // before a stream that ended is opened again; doubled each time
	reopenMax   = time.Minute
)

// space is a replica that is exchanged.
type space struct {
	e        *Engine
	id       dag.ID
	r        *Replica
	session  *session.Space
	running  sync.WaitGroup // goroutines that use the replica
	wake     chan struct{}
	fresh    atomic.Bool // a session waits to tell what is held
	fetching atomic.Int64
	fetches  sync.Map // by block.ID: *fetch
	parts    parts
	silent   lacks // blocks that nobody gave in time
	came     came

	// Guarded by Engine.mu.
	ctx    context.Context // nil until Run
	cancel context.CancelFunc
	links  map[peer.ID]*link
	idle   time.Time // since when nobody was seen to have it in common; zero: somebody had. Of a node
}

// link is a space in common with a peer.
type link struct {
	sp   *space
	r    *remote
	ctx  context.Context
	stop context.CancelFunc

	session atomic.Pointer[session.Session]         // nil while there is no stream
	end     atomic.Pointer[context.CancelCauseFunc] // ends the stream
	taking  sync.Mutex                              // held while a stream of the peer's runs
	replace chan struct{}                           // closed when a newer stream takes the place of the running one; guarded by Engine.mu
	clients [2]client                               // of blocks: to read, and to fetch ahead
	moved   [2]atomic.Uint64                        // bytes that came over their streams
	lacks   lacks
	fresh   fresh        // towards another node
	giving  atomic.Bool  // a block of it is coming by PutBlock: one at a time, on whichever stream
	serving atomic.Int32 // streams on which it asks for blocks
	stalled atomic.Int64 // when it last owed a block and sent nothing, in nanoseconds of the clock
}

func (e *Engine) newSpace(r *Replica) *space {
	sp := &space{e: e, id: r.ID, r: r, wake: make(chan struct{}, 1), links: make(map[peer.ID]*link), cancel: func() {}}
	sp.session = session.NewSpace(session.Config{
		ID: r.ID, ACL: r.ACL, Files: r.Files, NoFiles: r.NoFiles, Device: e.key, Durable: r.Durable, Wake: sp.poke, Log: e.log, Sign: e.sign,
		Node: e.isNode, Words: readWords(r.Words), Timing: e.opt.Timing,
		Grown: func() {
			if r.Grown != nil {
				r.Grown()
			}
			e.retag()
		},
	})
	return sp
}

// sign signs what this device states of itself. The text begins with its domain.
func (e *Engine) sign(text []byte) [64]byte { return [64]byte(ed25519.Sign(e.opt.Key, text)) }

// retag has peers told of tags that came with new keys.
func (e *Engine) retag() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.remotes {
		r.wakeTags()
	}
}

func (sp *space) poke() {
	select {
	case sp.wake <- struct{}{}:
	default:
	}
}

// startSpace begins the goroutine that hands on what is new. Engine.mu is held.
func (e *Engine) startSpace(sp *space) {
	sp.ctx, sp.cancel = context.WithCancel(e.ctx)
	sp.startLocked(sp.run)
	for _, r := range e.remotes {
		if r.ready() && r.common[sp.id] {
			e.joinLocked(sp, r)
		}
	}
}

// startLocked runs fn in a goroutine that Remove and Run wait for. Engine.mu is held.
func (sp *space) startLocked(fn func(context.Context)) bool {
	if sp.ctx == nil || sp.ctx.Err() != nil {
		return false
	}
	ctx := sp.ctx
	sp.running.Add(1)
	if !sp.e.startLocked(func(context.Context) { defer sp.running.Done(); fn(ctx) }) {
		sp.running.Done()
		return false
	}
	return true
}

// run hands what is new to the sessions at once, and makes what others wrote durable now and then. What comes while the disk writes does not wait for it.
func (sp *space) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	var due <-chan time.Time
	var last time.Time
	settled := make(chan error, 1)
	settling, again := false, false // something came since settling began
	plan := func() {
		if settling {
			again = true
		} else if due == nil {
			due = sp.e.clock.After(max(0, settleEvery-sp.e.clock.Now().Sub(last)))
		}
	}
	for {
		select {
		case <-sp.wake:
			unsettled, err := sp.session.Step()
			if err != nil {
				sp.e.log.Error("a space is not exchanged for now", "space", sp.id, "err", err)
			}
			if unsettled || sp.fresh.Swap(false) || err != nil {
				plan()
			}
		case <-due:
			due, last, settling = nil, sp.e.clock.Now(), true
			wg.Go(func() {
				select {
				case sp.e.settling <- struct{}{}:
					defer func() { <-sp.e.settling }()
					settled <- sp.session.Settle()
				case <-ctx.Done():
				}
			})
		case err := <-settled:
			settling = false
			if err != nil {
				sp.e.log.Error("what peers sent is not durable", "space", sp.id, "err", err)
				due = sp.e.clock.After(time.Second)
			} else if again {
				plan()
			}
			again = false
		case <-ctx.Done():
			return
		}
	}
}

// joinLocked begins the exchange of a space with a peer. Engine.mu is held.
func (e *Engine) joinLocked(sp *space, r *remote) {
	if old := sp.links[r.id]; old != nil && old.r == r && old.ctx.Err() == nil || sp.ctx == nil || sp.ctx.Err() != nil {
		return
	}
	l := &link{sp: sp, r: r, fresh: fresh{wake: make(chan struct{}, 1)}}
	l.ctx, l.stop = context.WithCancel(sp.ctx)
	sp.links[r.id] = l
	if r.slot {
		e.wakeMeets(r)
	}
	r.wakeMeet()
	opens := e.self < r.id
	ok := sp.startLocked(func(context.Context) {
		// It lasts as long as the space and the peer.
		defer context.AfterFunc(r.ctx, l.stop)()
		var wg sync.WaitGroup
		if r.mesh && sp.r.Copy != nil {
			wg.Go(func() { l.keepCopied(l.ctx) })
		}
		if opens {
			l.keepOpen()
		}
		<-l.ctx.Done()
		wg.Wait()
		e.mu.Lock()
		if sp.links[r.id] == l {
			delete(sp.links, r.id)
		}
		e.mu.Unlock()
		e.noteChange()
	})
	if !ok {
		delete(sp.links, r.id)
		l.stop()
	}
}

// keepOpen has a session on a stream, again and again.
func (l *link) keepOpen() {
	e := l.sp.e
	for wait := reopenAfter; ; wait = min(2*wait, reopenMax) {
		began := e.clock.Now()
		t, err := e.open(l.ctx, l.r.id, protocolSpace)
		if err == nil {
			if err = t.write(&wire.Open{Space: l.sp.id}); err == nil {
				err = l.exchange(t)
			}
			_ = t.Reset()
		}
		if l.ctx.Err() != nil {
			return
		}
		e.failed(l.r.id, "space", err)
		if e.clock.Now().Sub(began) > time.Minute {
			wait = reopenAfter
		}
		select {
		case <-e.clock.After(jitter(wait)):
		case <-l.ctx.Done():
			return
		}
	}
}

// takeSpace takes a stream about one space.
func (e *Engine) takeSpace(ctx context.Context, id peer.ID, t *stream) error {
	l, err := e.openedLink(ctx, id, t)
	if err != nil {
		return err
	}
	defer l.sp.running.Done()
	if e.self < id {
		return fmt.Errorf("%w: it opened a stream that is this device's to open", session.ErrPeer)
	}
	// A newer stream takes the place of one whose end was not noticed.
	e.mu.Lock()
	if l.replace != nil {
		close(l.replace)
	}
	mine := make(chan struct{})
	l.replace = mine
	e.mu.Unlock()
	l.taking.Lock()
	defer l.taking.Unlock()
	stop := make(chan struct{})
	defer close(stop)
	e.start(func(context.Context) {
		select {
		case <-mine:
			_ = t.Reset()
		case <-stop:
		}
	})
	err = l.exchange(t)
	e.mu.Lock()
	if l.replace == mine {
		l.replace = nil
	}
	e.mu.Unlock()
	return err
}

// openedLink reads what a stream is about, and waits until the peer has proved that space. The caller is among the space's
// running goroutines then.
func (e *Engine) openedLink(ctx context.Context, id peer.ID, t *stream) (*link, error) {
	m, err := t.read(openTimeout)
	if err != nil {
		return nil, err
	}
	o, ok := m.(*wire.Open)
	if !ok {
		return nil, unexpected(m)
	}
	within := openTimeout
	if e.opt.Serve != nil {
		within = openNode // a node has said what it serves before anybody opens a stream
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var l *link
	// The peer may be ahead: it has this device's proof, and its own is on its way.
	e.await(ctx, func() bool {
		if r := e.remotes[id]; r != nil && r.ready() && r.common[o.Space] {
			if sp := e.spaces[o.Space]; sp != nil && sp.ctx != nil && sp.ctx.Err() == nil {
				if l = sp.links[id]; l != nil && l.r == r {
					sp.running.Add(1)
					return true
				}
				l = nil
			}
		}
		return false
	})
	if l == nil {
		e.notCommon(id, o.Space)
		return nil, errors.New("exchange: a stream about a space that the peer has not proved")
	}
	t.in.Limit = wire.MaxBody
	return l, nil
}

// member says whether the peer may have the files: a node of the space's network keeps them for those who may.
func (l *link) member() bool {
	if l.r.mesh {
		return l.sp.e.opt.Mesh.Owner(l.r.key, l.sp.id)
	}
	return l.r.node != nil || l.sp.r.Member == nil || l.sp.r.Member(l.r.account, l.r.key)
}

// exchange runs a session over a stream until it ends.
func (l *link) exchange(t *stream) error {
	t.in.Limit = wire.MaxBody
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	defer t.closeOn(ctx)()
	wake := make(chan struct{}, 1)
	l.end.Store(&cancel)
	with := session.Peer{Name: l.r.id.String(), Device: l.r.key, Reads: l.member, Takes: l.takes(), Took: l.sp.r.Took, Member: l.sp.r.Member, Wake: func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}}
	// A device may have nobody else to get the changes from; to ask for the first few of each of its spaces is much for a node of many. Who has them says so.
	with.Eager = l.sp.e.opt.Serve != nil && !l.r.mesh
	with.Own = l.r.node == nil && !l.r.mesh && l.r.account == l.sp.e.account
	if r := l.sp.r; l.r.node == nil && r.TakePreview != nil { // a node has none, and no use for one
		account, device := l.r.account, l.r.key
		with.Preview = r.Preview
		with.Hear = func(record []byte) error { return r.TakePreview(account, device, record) }
	}
	s := l.sp.session.New(with)
	defer s.Close()
	l.session.Store(s)
	defer l.session.CompareAndSwap(s, nil)
	l.sp.fresh.Store(true)
	l.sp.poke()
	l.sp.e.noteChange()

	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			m, err := t.read(0)
			if err == nil {
				if tellsOfFiles(m) {
					l.lacks.clear()
				}
				err = l.local(s.Receive(m))
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	})
	wg.Go(func() { cancel(l.send(ctx, t, s, wake)) })
	var before uint64
	var silent time.Duration
	for {
		select {
		case <-l.sp.e.clock.After(tickEvery):
			now := t.got.n.Load()
			if now != before || !s.Expects() {
				silent = 0
			} else if silent += tickEvery; silent > stallAfter {
				cancel(errors.New("exchange: the peer has stalled"))
			}
			before = now
			s.Tick()
			continue
		case <-ctx.Done():
		}
		break
	}
	wg.Wait()
	return context.Cause(ctx)
}

// tellsOfFiles says whether a message tells of files that are new to its sender, which may have their content.
func tellsOfFiles(m wire.Message) bool {
	switch m := m.(type) {
	case *wire.Frames:
		return m.Graph == wire.Files
	case *wire.Have:
		return m.Graph == wire.Files
	case *wire.Heads:
		return m.Graph == wire.Files
	}
	return false
}

// local reports an error of a session that is this device's own: of its disk.
func (l *link) local(err error) error {
	if err != nil && !errors.Is(err, session.ErrPeer) {
		l.sp.e.log.Error("a space cannot be exchanged", "space", l.sp.id, "peer", l.r.id, "err", err)
	}
	return err
}

// send writes what a session has to say, several small messages in one piece.
func (l *link) send(ctx context.Context, t *stream, s *session.Session, wake <-chan struct{}) error {
	for {
		t.out = t.out[:0]
		for len(t.out) < 64<<10 {
			m, err := s.Next()
			if err != nil {
				return l.local(err)
			}
			if m == nil {
				break
			}
			t.out = wire.Append(t.out, m)
		}
		if len(t.out) > 0 {
			if err := t.flush(); err != nil {
				return err
			}
			s.Written()
			continue
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
