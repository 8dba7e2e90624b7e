package exchange

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/pair"
	"github.com/anyfs/anyfs/sync/wire"
)

// mdnsPairing is announced while a device shows a code: it names nobody, and says neither the code nor its tag.
const mdnsPairing = "_anyfs-pair._udp"

// Bounds of a pairing.
const (
	pairTimeout  = 60 * time.Second // for one attempt, from its stream on
	pairWait     = 20 * time.Second // for each message of it
	maxPairing   = 16               // streams of it at once
	maxCandidate = 64               // devices that a new one asks for the code's tag
	moreWait     = 3 * time.Second  // for others that show a code with the same tag, after an attempt that failed
)

// ErrPairing says that the device shows a code already.
var ErrPairing = errors.New("exchange: a code is shown already")

// ErrNobody says that no device was found that shows the code.
var ErrNobody = errors.New("exchange: no device was found that shows this code")

// shownCode is a code that this device shows.
type shownCode struct {
	*pair.Offer
	give    func(device dag.PublicKey, request []byte) ([]byte, error)
	streams int
	asking  map[peer.ID]int // streams by peer; guarded by Engine.mu, as streams is
}

// pairConn is a stream as package pair sees it.
type pairConn struct{ t *stream }

func (c pairConn) Read() (wire.Message, error) { return c.t.read(pairWait) }
func (c pairConn) Write(m wire.Message) error  { return c.t.write(m) }

// Offer lets a device in that proves a code, until the offer ends or ctx does, and returns what Offer.Wait of it does. give is called at most
// once, with the key of the device that proved the code and what it asks for. Where the engine looks for peers on the local network, the device is
// found there meanwhile. failed is told of each wrong code.
func (e *Engine) Offer(ctx context.Context, o *pair.Offer, give func(device dag.PublicKey, request []byte) ([]byte, error), failed func(left int) error) error {
	x := &shownCode{Offer: o, give: give, asking: make(map[peer.ID]int)}
	e.mu.Lock()
	h := e.host
	switch {
	case e.shown != nil:
		e.mu.Unlock()
		return ErrPairing
	case h == nil || e.ctx == nil:
		e.mu.Unlock()
		return ErrOffline
	}
	e.shown = x
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	e.mu.Unlock()
	e.noteChange() // nodes are told
	defer func() {
		o.Close()
		e.mu.Lock()
		e.shown = nil
		e.mu.Unlock()
		e.noteChange()
	}()
	if e.opt.MDNS {
		s := mdns.NewMdnsService(h, mdnsPairing, unheard{})
		if err := s.Start(); err != nil {
			e.log.Warn("a device that is to be paired can't find this one on the local network", "err", err)
		}
		defer s.Close()
	}
	return o.Wait(ctx, failed)
}

// unheard is told of those who look for a code; they come by themselves.
type unheard struct{}

func (unheard) HandlePeerFound(peer.AddrInfo) {}

// takePair takes an attempt.
func (e *Engine) takePair(ctx context.Context, id peer.ID, t *stream) error {
	key, err := deviceOf(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pairTimeout)
	defer cancel()
	defer t.closeOn(ctx)()
	e.mu.Lock()
	o := e.shown
	if o == nil || o.streams >= maxPairing {
		e.mu.Unlock()
		err := t.write(&wire.PairRefused{Reason: wire.PairNoCode})
		t.linger()
		return err
	}
	o.streams++
	o.asking[id]++
	e.mu.Unlock()
	e.noteChange()
	err = o.Answer(pairConn{t}, e.key, key, func(request []byte) ([]byte, error) { return o.give(key, request) })
	t.linger()
	e.mu.Lock()
	o.streams--
	if o.asking[id]--; o.asking[id] == 0 {
		delete(o.asking, id)
	}
	known := e.remotes[id] != nil
	e.mu.Unlock()
	if !known {
		e.closePeer(id)
	}
	return err
}

// spares says whether a peer that can't be greeted is left connected: it may be a new device that is being paired. It waits for a moment until
// that shows.
func (e *Engine) spares(ctx context.Context, id peer.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, greetDelay)
	defer cancel()
	asks := false
	e.await(ctx, func() bool {
		asks = e.shown != nil && e.shown.asking[id] > 0
		return asks || e.shown == nil
	})
	return asks
}

// Asker is a device that has no account yet and looks for one that shows a code.
type Asker struct {
	Key     ed25519.PrivateKey // the new device's
	Code    pair.Code
	Peers   []string // multiaddrs with /p2p/ID of the device that shows the code, beside those in the code
	Nodes   []string // multiaddrs with /p2p/ID of nodes that may know of it, and through which it is reached
	MDNS    bool     // look for it on the local network
	Request []byte
	Store   func(grant []byte) error // keeps what the other gave
	Log     *slog.Logger             // nil: none
	Found   func()                   // called when a device that shows the code is found; may be nil
	Config  func(config []byte)      // takes the configuration of its network that a node told, which proves nothing; may be nil

	turn   sync.Mutex    // one attempt at a time; before mu
	done   chan struct{} // closed when it is stored
	missed chan struct{} // full when a device failed

	mu       sync.Mutex // guards what follows
	asked    map[peer.ID]bool
	answered int   // devices that failed
	attempts int   // with those that show a code with the tag
	failed   error // the last failure of one of these
	other    error // another failure, which says less
	shows    bool  // a device shows another code, or none
	stored   bool
}

// Run asks the devices that it finds until one has let this one in, an attempt failed, or ctx ends. It returns the last failure, ErrNobody where
// no device showed the code. When it returns, its goroutines have ended.
func (a *Asker) Run(ctx context.Context) error {
	var peers []peer.AddrInfo
	nodes := map[peer.ID]*peer.AddrInfo{}
	addNode := func(s string) error {
		info, err := splitAddr(s)
		if err == nil && nodes[info.ID] != nil {
			info.Addrs = append(nodes[info.ID].Addrs, info.Addrs...)
		}
		if err == nil {
			nodes[info.ID] = info
		}
		return err
	}
	for _, s := range a.Nodes {
		if err := addNode(s); err != nil {
			return err
		}
	}
	named := map[peer.ID]bool{}
	for _, s := range append(slices.Clone(a.Peers), a.Code.Addresses...) {
		info, err := splitAddr(s)
		if err != nil {
			return err
		}
		named[info.ID] = true
		if node, _, ok := strings.Cut(s, "/p2p-circuit/"); !ok {
			peers = append(peers, *info)
		} else if err := addNode(node); err != nil {
			return err
		}
	}
	log := a.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a.asked, a.done, a.missed = make(map[peer.ID]bool), make(chan struct{}), make(chan struct{}, 1)
	// The host is an engine's, without spaces: it has its limits, and answers nothing.
	e := &Engine{
		opt: Options{Key: a.Key, Listen: []string{"/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"}}, log: log, clock: systemClock{},
		key: dag.PublicKey(a.Key.Public().(ed25519.PublicKey)), traffic: make(map[peer.ID]*traffic), guard: newGuard(), quit: make(chan struct{}),
		remotes: make(map[peer.ID]*remote),
	}
	e.up.quit, e.down.quit = e.quit, e.quit
	h, err := e.newHost()
	if err != nil {
		return err
	}
	e.host = h
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		close(e.quit)
		_ = h.Close()
		wg.Wait()
	}()
	found := make(chan peer.AddrInfo, maxCandidate)
	if a.MDNS {
		s := mdns.NewMdnsService(h, mdnsPairing, candidates(found))
		if err := s.Start(); err != nil {
			log.Warn("no search on the local network", "err", err)
			if len(peers) == 0 {
				return fmt.Errorf("exchange: search the local network: %w", err)
			}
		}
		defer s.Close()
	}
	ask := func(info peer.AddrInfo) {
		a.mu.Lock()
		pass := info.ID == h.ID() || a.asked[info.ID] || len(a.asked) >= maxCandidate
		if !pass {
			a.asked[info.ID] = true
		}
		a.mu.Unlock()
		if pass {
			return
		}
		wg.Go(func() { a.ask(ctx, e, h, info) })
	}
	merged := map[peer.ID]*peer.AddrInfo{}
	for i := range peers {
		if m := merged[peers[i].ID]; m != nil {
			m.Addrs = append(m.Addrs, peers[i].Addrs...)
		} else {
			merged[peers[i].ID] = &peers[i]
		}
	}
	for _, info := range merged {
		ask(*info)
	}
	if len(nodes) > 0 {
		wg.Go(func() {
			a.askNodes(ctx, e, h, nodes, func(info peer.AddrInfo) {
				if len(named) == 0 || named[info.ID] { // another with this tag is not the one that was named
					select {
					case found <- info:
					case <-ctx.Done():
					}
				}
			})
		})
	}
	var late <-chan time.Time
	for {
		select {
		case info := <-found:
			ask(info)
		case <-a.done:
			return nil
		case <-a.missed:
			if late == nil && (a.hasFailed() || !a.MDNS) {
				wait := moreWait
				if !a.MDNS && len(nodes) == 0 {
					wait = 0
				}
				late = time.After(wait)
			}
		case <-late:
			if a.MDNS || a.hasFailed() || len(nodes) == 0 && a.allMissed(len(merged)) {
				return a.why(ErrNobody)
			}
			late = nil
		case <-ctx.Done():
			return a.why(errors.Join(ErrNobody, context.Cause(ctx)))
		}
	}
}

// candidates takes the devices that show some code. Those beyond the channel's room are announced again.
type candidates chan peer.AddrInfo

func (c candidates) HandlePeerFound(info peer.AddrInfo) {
	if _, err := deviceOf(info.ID); err != nil || len(info.Addrs) > 64 {
		return
	}
	select {
	case c <- info:
	default:
	}
}

// hasFailed says whether a device has shown that it goes no further: the code is wrong, or one that shows a code shows another.
func (a *Asker) hasFailed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed != nil || a.shows
}

// allMissed says whether as many devices have failed as were asked.
func (a *Asker) allMissed(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answered >= n
}

func (a *Asker) why(otherwise error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.stored:
		return nil
	case a.failed != nil:
		return a.failed
	case a.shows:
		return errors.Join(pair.ErrNoCode, ErrNobody)
	case a.other != nil:
		return fmt.Errorf("%w: %w", otherwise, a.other)
	}
	return otherwise
}

// errAttempts says that this device tried its code with so many others that one who guesses might have been among them too often.
var errAttempts = errors.New("exchange: more devices claim to show this code than is credible; have a new one shown, or name the device with --peer")

// errPairLost says that the other device was lost while the two were at it.
var errPairLost = errors.New("exchange: the other device was lost, or took the code back, before this one was let in; have a new code shown")

// ask asks one device.
func (a *Asker) ask(ctx context.Context, e *Engine, h host.Host, info peer.AddrInfo) {
	begun, err := a.try(ctx, e, h, info)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.stored || ctx.Err() != nil:
		return
	case err == nil:
		a.stored = true
		close(a.done)
		return
	case begun || errors.Is(err, pair.ErrSpent) || errors.Is(err, errAttempts):
		a.failed = err
	case errors.Is(err, pair.ErrNoCode):
		a.shows = true
	default:
		a.other = fmt.Errorf("%s: %w", info.ID, err)
		delete(a.asked, info.ID) // when it is announced again
	}
	a.answered++
	select {
	case a.missed <- struct{}{}:
	default:
	}
}

// try asks one device. begun: it said that it shows a code with the tag, and the code was tried.
func (a *Asker) try(ctx context.Context, e *Engine, h host.Host, info peer.AddrInfo) (begun bool, err error) {
	key, err := deviceOf(info.ID)
	if err != nil {
		return false, err
	}
	dial, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := h.Connect(dial, info); err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	s, err := h.NewStream(network.WithAllowLimitedConn(network.WithNoDial(dial, "connected"), "a relay"), info.ID, protocolPair)
	if err != nil {
		return false, fmt.Errorf("it takes no pairing: %w", err)
	}
	t := e.newStream(s)
	defer t.Reset()
	t.in.Limit = wire.MaxHello
	run, end := context.WithTimeout(ctx, pairTimeout)
	defer end()
	defer t.closeOn(run)()
	var kept error
	stored := false
	locked := false
	defer func() {
		if locked {
			a.turn.Unlock()
		}
	}()
	err = pair.Ask(pairConn{t}, a.Code, e.key, key, a.Request, func() error {
		a.turn.Lock()
		locked = true
		if begun, err = a.begin(); begun && a.Found != nil {
			a.Found()
		}
		return err
	}, func(grant []byte) error {
		kept = a.Store(grant)
		stored = kept == nil
		return kept
	})
	switch {
	case stored: // whether the other hears of it or not
		t.linger() // the last message is on its way
		return begun, nil
	case kept != nil:
		return begun, kept
	case begun && ctx.Err() == nil && !errors.Is(err, pair.ErrWrong) && !errors.Is(err, pair.ErrSpent) && !errors.Is(err, pair.ErrRefused):
		err = fmt.Errorf("%w (%w)", errPairLost, err)
	}
	return begun, err
}

// begin takes one of the attempts.
func (a *Asker) begin() (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stored {
		return false, context.Canceled
	}
	if a.attempts++; a.attempts > pair.Attempts {
		return false, errAttempts
	}
	return true, nil
}

// linger waits for a moment until the peer has read what was written last and has ended the stream, and then ends it.
func (t *stream) linger() {
	if t.CloseWrite() == nil && t.SetReadDeadline(time.Now().Add(byeTimeout)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(t.Stream, 1))
	}
}
