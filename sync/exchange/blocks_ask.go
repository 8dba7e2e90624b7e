package exchange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

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
	slots *slots // nil: as many questions as there are

	mu    sync.Mutex
	waits map[uint64]*blockWait
	late  map[uint64]int // bytes that came of those that nobody waits for any more, until their end
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

// movedOf counts the bytes that came over the stream for what is read, or fetched ahead.
func (l *link) movedOf(ahead bool) *atomic.Uint64 {
	if ahead {
		return &l.moved[1]
	}
	return &l.moved[0]
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
	t.got.moved = l.movedOf(ahead)
	k := &blockConn{t: t, waits: make(map[uint64]*blockWait), late: make(map[uint64]int)}
	if ahead {
		k.slots = &slots{free: maxAhead}
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
		if w == nil {
			err = k.tooLate(n, m)
		}
		k.mu.Unlock()
		if err != nil {
			return err
		}
		if w == nil {
			continue
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

// tooLate takes an answer for which nobody waits. Of a question that was given up there is one, of as many bytes as a block has at most; whoever
// sends more would keep the stream from looking stalled. mu is held.
func (k *blockConn) tooLate(n uint64, m wire.Message) error {
	came, given := k.late[n]
	if !given {
		return fmt.Errorf("%w: an answer to nothing", session.ErrPeer)
	}
	p, more := m.(*wire.Part)
	if !more || p.Left == 0 {
		delete(k.late, n)
		return nil
	}
	if came += len(p.Data); came > block.MaxSize {
		return fmt.Errorf("%w: a block of more than %d bytes", session.ErrPeer, block.MaxSize)
	}
	k.late[n] = came
	return nil
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
		if have := len(w.data) + len(m.Data); have > cap(w.data) {
			// What is promised takes memory as it comes: sixteen times that at most. Most blocks grow once.
			w.data = append(make([]byte, 0, min(have+int(m.Left), 16*have)), w.data...)
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

// forget gives a question up, where its answer has not come whole.
func (k *blockConn) forget(n uint64) {
	k.mu.Lock()
	if k.waits[n] != nil {
		delete(k.waits, n)
		k.late[n] = 0
	}
	full := len(k.late) > maxLate
	k.mu.Unlock()
	if full {
		_ = k.t.Reset()
	}
}

// attempt is a block asked of one peer.
type attempt struct {
	l       *link
	resumed bool   // others gave the start of it
	data    []byte // all of it, or what came before err
	err     error
}

// get asks the peer for a block of which have is here already. first is called at each piece that comes. Where somebody reads it ends
// with an error when as good as nothing has come over the stream for stallBlock: answers come in the order of the questions, so one
// that waits for others has not stalled. What is fetched ahead is waited for avoidFor more, as the peer may be held up by what it sends
// to others over a slow line: then the block comes, whether somebody waits or not, and from another peer it would come twice.
func (l *link) get(ctx context.Context, id block.ID, c class, have []byte, first func()) attempt {
	a := attempt{l: l, resumed: len(have) > 0, data: have}
	k, err := l.conn(c != reading)
	if err != nil {
		a.err = err
		return a
	}
	if k.slots != nil {
		if a.err = k.slots.acquire(ctx, c); a.err != nil {
			return a
		}
		defer k.slots.release()
	}
	n, w, err := k.ask(func(n uint64) wire.Message {
		return &wire.GetBlock{Request: n, ID: id, Offset: uint64(len(have))}
	}, have)
	if err != nil {
		a.err = err
		return a
	}
	clock := l.sp.e.clock
	moved := l.movedOf(c != reading)
	before := moved.Load()
	stall, slow := clock.After(stallBlock), false
	for {
		select {
		case <-w.got:
			first()
			continue
		case <-w.done:
		case <-stall:
			if now := moved.Load(); now >= before+minMoved {
				before, stall = now, clock.After(stallBlock)
				continue
			}
			l.stalled.Store(clock.Now().UnixNano())
			if c != reading && !slow {
				slow, before, stall = true, moved.Load(), clock.After(avoidFor)
				continue
			}
			if err = errStalled; c != reading {
				_ = k.t.Reset() // or the peer sends it all the same
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		break
	}
	k.forget(n) // the reader may hold w still, and writes to it under its lock
	w.mu.Lock()
	a.data, a.err = slices.Clip(w.data), w.err
	room := cap(w.data)
	w.mu.Unlock()
	if err != nil {
		a.err = err
	}
	if a.err != nil && room > 2*len(a.data) {
		a.data = bytes.Clone(a.data) // it may be kept for long: not with the room for the rest
	}
	return a
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
