package exchange

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

const (
	protocolHello  = protocol.ID(wire.ProtocolHello)
	protocolSpace  = protocol.ID(wire.ProtocolSpace)
	protocolBlocks = protocol.ID(wire.ProtocolBlocks)
	protocolAccess = protocol.ID(wire.ProtocolAccess)
	protocolGuest  = protocol.ID(wire.ProtocolGuest)
	protocolNode   = protocol.ID(wire.ProtocolNode)
	protocolPair   = protocol.ID(wire.ProtocolPair)
	protocolMesh   = protocol.ID(wire.ProtocolMesh)
	protocolJoin   = protocol.ID(wire.ProtocolJoin)
	protocolMeet   = protocol.ID(wire.ProtocolMeet)
	protocolRoom   = protocol.ID(wire.ProtocolRoom)
)

// How long a peer may take.
const (
	helloTimeout = 10 * time.Second // for each message of a handshake
	ioTimeout    = 30 * time.Second // for any piece of a message that has begun, and for a write
	byeTimeout   = 2 * time.Second  // for the other's end, after a bye
	openTimeout  = 10 * time.Second // to open a stream and say what it is about
)

// stream is a libp2p stream that carries messages. One goroutine reads, one writes.
type stream struct {
	network.Stream
	e   *Engine
	lan bool // the peer is on the local network
	in  *wire.Reader
	got progress
	sum *traffic

	entry *entry // of one that the peer opened

	writing sync.Mutex // guards out, where several write
	out     []byte
}

// progress counts what comes over a stream.
type progress struct {
	t       *stream
	n       atomic.Uint64 // bytes
	waiting bool          // between two messages: no deadline, unless one was set
	first   time.Duration
	moved   *atomic.Uint64 // counts what comes too, for others to see; nil: nobody looks
}

// traffic is what went over the streams of a peer since the engine was made: the bytes of messages, without the transport's framing.
type traffic struct{ sent, received atomic.Uint64 }

// maxTraffic is of how many peers the traffic is known.
const maxTraffic = 1024

// trafficOf gives the traffic of a peer.
func (e *Engine) trafficOf(id peer.ID) *traffic {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.traffic[id]
	if t == nil {
		if len(e.traffic) >= maxTraffic {
			for old := range e.traffic {
				if e.remotes[old] == nil {
					delete(e.traffic, old)
				}
			}
		}
		t = new(traffic)
		e.traffic[id] = t
	}
	return t
}

// Read reads with a deadline, but for the first piece of a message.
func (p *progress) Read(b []byte) (int, error) {
	var at time.Time
	if !p.waiting {
		at = time.Now().Add(ioTimeout)
	} else if p.first > 0 {
		at = time.Now().Add(p.first)
	}
	if err := p.t.SetReadDeadline(at); err != nil {
		return 0, err
	}
	limited := p.t.limited()
	if limited {
		b = b[:p.t.e.down.most(len(b))]
	}
	n, err := p.t.Stream.Read(b)
	if n > 0 {
		p.waiting = false
	}
	p.n.Add(uint64(n))
	p.t.sum.received.Add(uint64(n))
	if p.moved != nil {
		p.moved.Add(uint64(n))
	}
	if limited {
		p.t.e.down.take(n) // so the peer is held up when the window is full
	}
	return n, err
}

func (e *Engine) newStream(s network.Stream) *stream {
	t := &stream{Stream: s, e: e, lan: onLAN(s.Conn().RemoteMultiaddr()), sum: e.trafficOf(s.Conn().RemotePeer())}
	t.got.t = t
	t.in = wire.NewReader(&t.got)
	return t
}

// limited reports whether the limits hold for the stream.
func (t *stream) limited() bool { return !t.lan || t.e.limitLAN.Load() }

// read returns the next message, for which it waits as long as `first` says; zero: for ever.
func (t *stream) read(first time.Duration) (wire.Message, error) {
	t.got.waiting, t.got.first = true, first
	return t.in.Read()
}

// write sends messages in one piece.
func (t *stream) write(ms ...wire.Message) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.out = t.out[:0]
	for _, m := range ms {
		t.out = wire.Append(t.out, m)
	}
	return t.flush()
}

// writeSpaces names spaces.
func (t *stream) writeSpaces(ids []dag.ID) error {
	for some := range slices.Chunk(ids, wire.MaxIDs) {
		if err := t.write(&wire.Spaces{IDs: some}); err != nil {
			return err
		}
	}
	return nil
}

func (t *stream) flush() error {
	limited := t.limited()
	var err error
	for rest := t.out; len(rest) > 0 && err == nil; {
		n := min(len(rest), maxWrite)
		if limited {
			n = t.e.up.most(n)
			t.e.up.take(n)
		}
		if err = t.SetWriteDeadline(time.Now().Add(ioTimeout)); err == nil {
			n, err = t.Write(rest[:n])
			t.sum.sent.Add(uint64(n))
			rest = rest[n:]
		}
	}
	if cap(t.out) > 512<<10 {
		t.out = nil
	}
	return err
}

// bye says why no more is to come, and waits for a moment until that is read.
func (t *stream) bye(reason wire.Reason) {
	if t.write(&wire.Bye{Reason: reason}) == nil && t.CloseWrite() == nil {
		for range 8 {
			if _, err := t.read(byeTimeout); err != nil {
				return
			}
		}
	}
}

// closeOn resets the stream when ctx ends, which ends a read or write under way; done ends the watch.
func (t *stream) closeOn(ctx context.Context) (done func()) {
	stop := context.AfterFunc(ctx, func() { _ = t.Reset() })
	return func() { stop() }
}

// serve has streams of a protocol handled by a goroutine that Run waits for. A stream whose handler failed is reset.
func (e *Engine) serve(h host.Host, p protocol.ID, fn func(context.Context, peer.ID, *stream) error) {
	h.SetStreamHandler(p, func(s network.Stream) {
		x := e.enterStream(s.Conn().RemotePeer())
		if x == nil {
			_ = s.Reset()
			return
		}
		defer e.leaveStream(x)
		done := make(chan struct{})
		ok := e.start(func(ctx context.Context) {
			defer close(done)
			t := e.newStream(s)
			t.entry = x
			defer t.closeOn(ctx)()
			id := s.Conn().RemotePeer()
			if err := fn(ctx, id, t); err != nil {
				_ = s.Reset()
				e.failed(id, string(p), err)
				return
			}
			_ = s.Close()
		})
		if !ok {
			_ = s.Reset()
			return
		}
		<-done
	})
}

// open opens a stream to a connected peer, over a relay where there is no direct connection.
func (e *Engine) open(ctx context.Context, id peer.ID, p protocol.ID) (*stream, error) {
	e.mu.Lock()
	h := e.host
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "only peers that are connected"), openTimeout)
	defer cancel()
	ctx = network.WithAllowLimitedConn(ctx, "a relay")
	s, err := h.NewStream(ctx, id, p)
	if err != nil {
		return nil, err
	}
	return e.newStream(s), nil
}
