package exchange

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

const (
	partBytes       = 128 << 10 // of a block in one message: who waits sees soon that it comes
	maxRequests     = 256       // of one stream, taken in and not answered
	maxHolds        = 4         // of them, those that name many blocks
	maxBlockStreams = 8         // of a peer about one space: it needs two
)

var errStreams = errors.New("exchange: too many streams at once")

// takeBlocks answers for the blocks of a space.
func (e *Engine) takeBlocks(ctx context.Context, id peer.ID, t *stream) error {
	l, err := e.openedLink(ctx, id, t)
	if err != nil {
		return err
	}
	defer l.sp.running.Done()
	defer t.closeOn(l.ctx)()
	defer l.serving.Add(-1)
	if l.serving.Add(1) > maxBlockStreams {
		return errStreams
	}
	t.in.Limit = wire.MaxHello
	if l.sp.r.Upload != nil {
		t.in.Limit = wire.MaxPart + 1024
	}
	up := &upload{l: l, t: t}
	var failed atomic.Pointer[error]
	holds := make(chan struct{}, maxHolds)
	requests := make(chan wire.Message, maxRequests)
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(l.answer(ctx, t, requests, holds)) })
	for {
		var m wire.Message
		if m, err = t.read(0); err != nil {
			break
		}
		switch v := m.(type) {
		case *wire.GetBlock:
		case *wire.PutBlock:
			// It is taken here, so that a block that comes waits for none that goes.
			m, err = nil, up.take(ctx, v, func(err error) {
				failed.Store(&err)
				cancel(err)
				_ = t.Reset() // a read under way ends
			})
		case *wire.HasBlocks, *wire.Rely, *wire.Withdraw, *wire.Release, *wire.HasBatches:
			if _, asks := m.(*wire.HasBatches); asks && !l.r.mesh {
				err = unexpected(m)
				break
			}
			select {
			case holds <- struct{}{}:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		default:
			err = unexpected(m)
		}
		if err != nil {
			break
		}
		if m == nil {
			continue
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
	up.end()
	l.sp.r.Blocks.Doubt() // who gets other bytes for a block ends its streams
	if why := failed.Load(); why != nil {
		return *why
	}
	return err
}

// answer answers requests in their order.
func (l *link) answer(ctx context.Context, t *stream, requests <-chan wire.Message, holds <-chan struct{}) error {
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
			<-holds
		case *wire.HasBatches:
			err = t.write(l.holdsBatches(m))
			<-holds
		case *wire.Rely, *wire.Withdraw, *wire.Release:
			err = t.write(l.receipt(ctx, m))
			<-holds
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
	if !l.r.mesh && !l.member() || l.sp.r.Blocks.Sync(ctx) != nil {
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
	data, err := l.sp.r.Blocks.GetToGive(m.ID, buf)
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
		p := &wire.Part{Request: m.Request, Data: rest[:min(len(rest), partBytes)]}
		rest = rest[len(p.Data):]
		p.Left = uint64(len(rest))
		if err := t.write(p); err != nil || len(rest) == 0 {
			return data, err
		}
	}
}
