package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

const (
	absentAfter = 5 * time.Second        // without a byte of a block: nobody has it
	meetWithin  = 3 * time.Second        // for a peer of the space to connect, when somebody reads
	hedgeAfter  = 500 * time.Millisecond // without a byte another peer is asked too, when somebody reads
	stallBlock  = 5 * time.Second        // without a byte of a block that has begun
	maxRequests = 256                    // of one peer, taken in and not answered
	maxAhead    = 32                     // blocks fetched ahead from one peer at once
)

type prefetch struct{}

// Prefetch marks what is fetched with ctx as not needed now: it leaves the way to what somebody reads.
func Prefetch(ctx context.Context) context.Context { return context.WithValue(ctx, prefetch{}, true) }

// client asks a peer for blocks over one stream.
type client struct {
	inFlight atomic.Int64

	mu   sync.Mutex
	conn *blockConn // nil while there is none
}

// blockConn is a stream over which blocks are asked for.
type blockConn struct {
	t     *stream
	write sync.Mutex
	room  chan struct{} // nil: unbounded

	mu    sync.Mutex
	waits map[uint64]*blockWait
	last  uint64
	err   error
}

// blockWait is a question under way. Its owner reads what the reader of the stream wrote after got or done.
type blockWait struct {
	got  chan struct{} // has room for one: something came
	done chan struct{} // closed at the end

	mu   sync.Mutex
	data []byte
	bits []byte
	err  error
}

// conn returns the stream to the peer, opening it if there is none.
func (l *link) conn(ahead bool) (*blockConn, error) {
	c := &l.clients[0]
	if ahead {
		c = &l.clients[1]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.mu.Lock()
		err := c.conn.err
		c.conn.mu.Unlock()
		if err == nil {
			return c.conn, nil
		}
		c.conn = nil
	}
	e := l.sp.e
	t, err := e.open(l.ctx, l.r.id, protocolBlocks)
	if err != nil {
		return nil, err
	}
	if err := t.write(&wire.Open{Space: l.sp.id}); err != nil {
		_ = t.Reset()
		return nil, err
	}
	t.in.Limit = wire.MaxPart + 1024
	k := &blockConn{t: t, waits: make(map[uint64]*blockWait)}
	if ahead {
		k.room = make(chan struct{}, maxAhead)
	}
	e.mu.Lock()
	ok := l.sp.startLocked(func(context.Context) {
		defer t.closeOn(l.ctx)()
		err := k.read()
		_ = t.Reset()
		k.fail(err)
		if l.ctx.Err() == nil {
			e.failed(l.r.id, "blocks", err)
		}
	})
	e.mu.Unlock()
	if !ok {
		_ = t.Reset()
		return nil, ErrOffline
	}
	c.conn = k
	return k, nil
}

// read takes answers until the stream ends.
func (k *blockConn) read() error {
	for {
		m, err := k.t.read(0)
		if err != nil {
			return err
		}
		var n uint64
		switch m := m.(type) {
		case *wire.Part:
			n = m.Request
		case *wire.HeldBlocks:
			n = m.Request
		default:
			return unexpected(m)
		}
		k.mu.Lock()
		w := k.waits[n]
		known := n <= k.last
		k.mu.Unlock()
		if w == nil {
			if !known {
				return fmt.Errorf("%w: an answer to nothing", session.ErrPeer)
			}
			continue // who asked gave up
		}
		over, err := w.take(m)
		if err != nil {
			return err
		}
		if over {
			k.mu.Lock()
			delete(k.waits, n)
			k.mu.Unlock()
			close(w.done)
		}
	}
}

// take adds an answer to what came before, and reports whether it is the last.
func (w *blockWait) take(m wire.Message) (over bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := m.(type) {
	case *wire.HeldBlocks:
		w.bits = m.Bits
		return true, nil
	case *wire.Part:
		if m.Absent {
			w.err = block.ErrAbsent
			return true, nil
		}
		if len(w.data)+len(m.Data)+int(m.Left) > block.MaxSize {
			return false, fmt.Errorf("%w: a block of more than %d bytes", session.ErrPeer, block.MaxSize)
		}
		if w.data == nil {
			w.data = make([]byte, 0, min(len(m.Data)+int(m.Left), 4<<20))
		}
		w.data = append(w.data, m.Data...)
		select {
		case w.got <- struct{}{}:
		default:
		}
		return m.Left == 0, nil
	}
	return false, nil
}

func (k *blockConn) fail(err error) {
	k.mu.Lock()
	k.err = err
	waits := k.waits
	k.waits = make(map[uint64]*blockWait)
	k.mu.Unlock()
	for _, w := range waits {
		w.mu.Lock()
		w.err = err
		w.mu.Unlock()
		close(w.done)
	}
}

// ask sends a question.
func (k *blockConn) ask(message func(request uint64) wire.Message, have []byte) (uint64, *blockWait, error) {
	w := &blockWait{got: make(chan struct{}, 1), done: make(chan struct{}), data: have}
	k.mu.Lock()
	if k.err != nil {
		defer k.mu.Unlock()
		return 0, nil, k.err
	}
	k.last++
	n := k.last
	k.waits[n] = w
	k.mu.Unlock()
	k.write.Lock()
	err := k.t.write(message(n))
	k.write.Unlock()
	if err != nil {
		k.forget(n)
		return 0, nil, err
	}
	return n, w, nil
}

func (k *blockConn) forget(n uint64) {
	k.mu.Lock()
	delete(k.waits, n)
	k.mu.Unlock()
}

// attempt is a block asked of one peer.
type attempt struct {
	l       *link
	resumed bool   // others gave the start of it
	data    []byte // all of it, or what came before err
	err     error
}

// get asks the peer for a block of which have is here already. first is closed at the first byte.
func (l *link) get(ctx context.Context, id block.ID, ahead bool, have []byte, first func()) attempt {
	a := attempt{l: l, resumed: len(have) > 0, data: have}
	k, err := l.conn(ahead)
	if err != nil {
		a.err = err
		return a
	}
	if k.room != nil {
		select {
		case k.room <- struct{}{}:
			defer func() { <-k.room }()
		case <-ctx.Done():
			a.err = context.Cause(ctx)
			return a
		}
	}
	c := &l.clients[0]
	if ahead {
		c = &l.clients[1]
	}
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	n, w, err := k.ask(func(n uint64) wire.Message {
		return &wire.GetBlock{Request: n, ID: id, Offset: uint64(len(have))}
	}, have)
	if err != nil {
		a.err = err
		return a
	}
	defer k.forget(n)
	stall := l.sp.e.clock.After(absentAfter)
	for {
		select {
		case <-w.got:
			first()
			stall = l.sp.e.clock.After(stallBlock)
			continue
		case <-w.done:
		case <-stall:
			err = errors.New("exchange: the peer has stalled")
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		break
	}
	k.forget(n) // the reader may hold w still, and writes to it under its lock
	w.mu.Lock()
	a.data, a.err = slices.Clip(w.data), w.err
	w.mu.Unlock()
	if err != nil {
		a.err = err
	}
	return a
}

var _ block.Fetcher = (*space)(nil)

// Fetch asks the peers of the space for a block, one after the other; a second at the same time where the first is slow and
// somebody waits. block.ErrAbsent when nobody gives a byte of it within five seconds.
func (sp *space) Fetch(ctx context.Context, id block.ID) ([]byte, error) {
	sp.fetching.Add(1)
	defer sp.fetching.Add(-1)
	ahead := ctx.Value(prefetch{}) != nil
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := fetch{sp: sp, id: id, ahead: ahead, results: make(chan attempt), begun: make(chan struct{}, 1)}
	defer func() {
		cancel()
		for ; f.active > 0; f.active-- {
			<-f.results
		}
	}()
	return f.run(ctx)
}

// fetch is a block on its way.
type fetch struct {
	sp      *space
	id      block.ID
	ahead   bool
	tried   []*link
	active  int
	results chan attempt
	begun   chan struct{}
	part    []byte // what came of it
}

func (f *fetch) run(ctx context.Context) ([]byte, error) {
	clock := f.sp.e.clock
	limit := clock.After(absentAfter)
	if !f.ask(ctx) {
		if f.ahead || !f.meet(ctx) {
			return nil, fmt.Errorf("%w: %w", block.ErrAbsent, ErrOffline)
		}
		f.ask(ctx)
	}
	for f.active > 0 {
		var hedge <-chan time.Time
		if !f.ahead && f.active == 1 && len(f.part) == 0 {
			hedge = clock.After(hedgeAfter)
		}
		select {
		case <-f.begun:
			limit = nil
		case a := <-f.results:
			f.active--
			if a.err == nil {
				if block.Sum(a.data) == f.id {
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
			// What it gave before it failed need not come again.
			if f.part = nil; f.active == 0 && a.err != nil && !errors.Is(a.err, block.ErrAbsent) {
				f.part = a.data
			}
			f.ask(ctx)
		case <-hedge:
			if limit != nil {
				f.ask(ctx)
			}
		case <-limit:
			return nil, fmt.Errorf("%w: no peer of the space gives it", block.ErrAbsent)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, fmt.Errorf("%w: no peer of the space has it", block.ErrAbsent)
}

// meet waits for a peer of the space, where one is looked for.
func (f *fetch) meet(ctx context.Context) bool {
	e := f.sp.e
	e.mu.Lock()
	looked := e.ctx != nil && (len(e.dials) > 0 || e.opt.MDNS)
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
	e.mu.Lock()
	var best *link
	for _, l := range f.sp.links {
		if slices.Contains(f.tried, l) || !l.r.ready() {
			continue
		}
		if best == nil || l.load() < best.load() {
			best = l
		}
	}
	if best == nil {
		e.mu.Unlock()
		return false
	}
	part := f.part
	ok := f.sp.startLocked(func(context.Context) {
		f.results <- best.get(ctx, f.id, f.ahead, part, func() {
			select {
			case f.begun <- struct{}{}:
			default:
			}
		})
	})
	e.mu.Unlock()
	f.tried = append(f.tried, best)
	if ok {
		f.active++
	}
	return ok
}

func (l *link) load() int64 {
	n := l.clients[0].inFlight.Load() + l.clients[1].inFlight.Load()
	if !onLAN(l.r.addr) {
		n += 1 << 20
	}
	return n
}

// HeldBlocks asks the connected peers of a space which of the blocks they hold durably, and returns those that none does.
func (e *Engine) HeldBlocks(ctx context.Context, id dag.ID, blocks []block.ID) (missing []block.ID, err error) {
	var links []*link
	e.mu.Lock()
	if sp := e.spaces[id]; sp != nil {
		for _, l := range sp.links {
			links = append(links, l)
		}
	}
	e.mu.Unlock()
	if len(links) == 0 {
		return nil, ErrOffline
	}
	missing = slices.Clone(blocks)
	err = ErrOffline
	for _, l := range links {
		if len(missing) == 0 {
			break
		}
		rest, lerr := l.heldBlocks(ctx, missing)
		if lerr != nil {
			continue
		}
		missing, err = rest, nil
	}
	return missing, err
}

func (l *link) heldBlocks(ctx context.Context, ids []block.ID) (missing []block.ID, err error) {
	held, err := l.ask(ctx, false, ids, wire.MaxIDs, func(n uint64, ids []block.ID) wire.Message { return &wire.HasBlocks{Request: n, IDs: ids} })
	for i, yes := range held {
		if !yes {
			missing = append(missing, ids[i])
		}
	}
	return missing, err
}

// ask asks the peer a question about each of the blocks, up to step of them at a time.
func (l *link) ask(ctx context.Context, ahead bool, ids []block.ID, step int, question func(uint64, []block.ID) wire.Message) ([]bool, error) {
	k, err := l.conn(ahead)
	if err != nil {
		return nil, err
	}
	out := make([]bool, 0, len(ids))
	for len(ids) > 0 {
		some := ids[:min(len(ids), step)]
		ids = ids[len(some):]
		n, w, err := k.ask(func(n uint64) wire.Message { return question(n, some) }, nil)
		if err != nil {
			return nil, err
		}
		select {
		case <-w.done:
		case <-l.sp.e.clock.After(ioTimeout):
			err = errors.New("exchange: the peer has stalled")
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		k.forget(n)
		w.mu.Lock()
		bits := w.bits
		if err == nil {
			err = w.err
		}
		w.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if len(bits) != (len(some)+7)/8 {
			return nil, fmt.Errorf("%w: an answer of %d bytes about %d blocks", session.ErrPeer, len(bits), len(some))
		}
		for i := range some {
			out = append(out, bits[i/8]&(1<<(i%8)) != 0)
		}
	}
	return out, nil
}

// takeBlocks answers for the blocks of a space.
func (e *Engine) takeBlocks(ctx context.Context, id peer.ID, t *stream) error {
	l, err := e.openedLink(ctx, id, t)
	if err != nil {
		return err
	}
	defer l.sp.running.Done()
	defer t.closeOn(l.ctx)()
	t.in.Limit = wire.MaxHello
	requests := make(chan wire.Message, maxRequests)
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(l.answer(ctx, t, requests)) })
	for {
		var m wire.Message
		if m, err = t.read(0); err != nil {
			break
		}
		switch m.(type) {
		case *wire.GetBlock, *wire.HasBlocks, *wire.Rely, *wire.Withdraw, *wire.Release:
		default:
			err = unexpected(m)
		}
		if err != nil {
			break
		}
		select {
		case requests <- m:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		break
	}
	cancel(err)
	_ = t.Reset() // a write under way ends
	wg.Wait()
	return err
}

// answer answers requests in their order.
func (l *link) answer(ctx context.Context, t *stream, requests <-chan wire.Message) error {
	var buf []byte
	for {
		var m wire.Message
		select {
		case m = <-requests:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var err error
		switch m := m.(type) {
		case *wire.HasBlocks:
			err = t.write(l.holds(ctx, m))
		case *wire.Rely, *wire.Withdraw, *wire.Release:
			err = t.write(l.receipt(ctx, m))
		case *wire.GetBlock:
			if buf, err = l.give(t, m, buf); cap(buf) > 4<<20 {
				buf = nil
			}
		}
		if err != nil {
			return err
		}
	}
}

func (l *link) holds(ctx context.Context, m *wire.HasBlocks) *wire.HeldBlocks {
	a := &wire.HeldBlocks{Request: m.Request, Bits: make([]byte, (len(m.IDs)+7)/8)}
	// What is not durable may be gone tomorrow.
	if !l.member() || l.sp.r.Blocks.Sync(ctx) != nil {
		return a
	}
	for i, id := range m.IDs {
		if l.sp.r.Blocks.Has(id) {
			a.Bits[i/8] |= 1 << (i % 8)
		}
	}
	return a
}

func (l *link) give(t *stream, m *wire.GetBlock, buf []byte) ([]byte, error) {
	absent := &wire.Part{Request: m.Request, Absent: true}
	if !l.member() {
		return buf, t.write(absent)
	}
	data, err := l.sp.r.Blocks.GetBuffer(m.ID, buf)
	if err != nil {
		if !errors.Is(err, block.ErrAbsent) {
			l.sp.e.log.Error("a block that a peer asked for does not read", "space", l.sp.id, "err", err)
		}
		return buf, t.write(absent)
	}
	if m.Offset > uint64(len(data)) {
		return data, t.write(absent)
	}
	rest := data[m.Offset:]
	for {
		p := &wire.Part{Request: m.Request, Data: rest[:min(len(rest), wire.MaxPart)]}
		rest = rest[len(p.Data):]
		p.Left = uint64(len(rest))
		if err := t.write(p); err != nil || len(rest) == 0 {
			return data, err
		}
	}
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
