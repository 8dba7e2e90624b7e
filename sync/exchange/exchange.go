// Package exchange connects this device to its peers and keeps the spaces that they share equal.
//
// An Engine has a libp2p host. With each peer it does a handshake, in which both prove the spaces they are in before they
// say who they are. For each space in common it runs a session (package session), serves blocks, and asks for blocks. It
// judges no batch and opens none: the graphs and the block store do the first, and nothing here could do the second.
// ../PROTOCOL.md gives what goes over the wire.
package exchange

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// Errors that callers tell apart.
var (
	// ErrOffline: there is nobody to ask.
	ErrOffline = errors.New("exchange: no peer of the space is connected")
	// ErrAddr: a multiaddr that does not name a peer.
	ErrAddr = errors.New("exchange: an address without /p2p/ID")
)

// DefaultPort is where a device listens, by TCP and QUIC, unless it is told otherwise or the port is taken.
const DefaultPort = 7327

// Options of an Engine. Key is required, and Certificate of a device.
type Options struct {
	Key         ed25519.PrivateKey // the device's
	Certificate *list.Certificate  // for it, of its account
	Listen      []string           // multiaddrs; nil: all interfaces at DefaultPort. A port that is taken is replaced by any
	Peers       []string           // multiaddrs with /p2p/ID, dialled as long as the engine runs; more by AddPeer
	MDNS        bool               // look for peers on the local network, and let them find this device
	Log         *slog.Logger       // nil: none

	// Serve makes the engine a node's, which has no account: devices come to it, and it tells none of another. Certificate is nil then.
	Serve Server
	// IdleAfter is for how long nobody has had a space in common before a node's engine gives it back; 0: two minutes.
	IdleAfter time.Duration
	// Mesh is the other nodes of a node's network; nil: there are none.
	Mesh Mesh
	// Admit takes a node into the network of a coordinator, or its addresses over, and gives the configuration then; nil: nobody is taken in.
	Admit func(ctx context.Context, node dag.PublicKey, m *wire.Join) ([]byte, error)
	// Config gives the configuration of a node's network, for those who come; nil: none.
	Config func() []byte
	// NewConfig takes the configuration that a node gave, which proves nothing yet; by a goroutine of its own. An error is the node's fault: it is none
	// that its network made. nil: it is passed over.
	NewConfig func(network dag.PublicKey, config []byte) error
	// Relay bounds what a node passes on between devices that cannot connect directly; nil: it passes nothing on, and tells no device of others.
	Relay *RelayLimits
	// Placer keeps what owners of spaces say to a node, and Network gives the network that they say it of; nil: nothing is.
	Placer  Placer
	Network func() dag.PublicKey
	// Timing hears how long changes take on their way through; nil: nobody.
	Timing *session.Timing
	// Fixed: a port that is taken is an error.
	Fixed bool

	// Changed is called when peers have come or gone, or what they share has changed; quick, from any goroutine.
	Changed func()
	Clock   Clock // nil: the system's
}

// Clock is where the engine has the time from.
type Clock interface {
	Now() time.Time
	After(time.Duration) <-chan time.Time
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Replica is one space on this device, as the exchange sees it.
type Replica struct {
	ID      dag.ID
	ACL     *dag.Graph   // batches of the access list
	Files   *dag.Graph   // batches of files
	Durable func() error // makes what both graphs took in durable; called by several goroutines
	Blocks  Blocks       // its Fetcher is the engine while the replica is added
	Grown   func()       // the access list has grown: the owner judges the files again; may be nil

	// Member says whether a device of an account may have the files by the access list as it is now; nil: all may.
	Member func(account, device dag.PublicKey) bool

	// Invited says whether a device that proves the key of an invitation may see the access list and ask to join; nil: nobody.
	Invited func(key, device dag.PublicKey) bool

	// Sealed hears of blocks that a device of account has sealed for what it is going to publish. It is quick; nil: it is not told.
	Sealed func(account dag.PublicKey, ids []block.ID)

	// Preview gives the record of the preview that this device made of the space, nil for none; TakePreview takes that of a connected device of
	// account, and fails where the bytes are not one that the device signed. Both are quick; nil: there are none.
	Preview     func() []byte
	TakePreview func(account, device dag.PublicKey, record []byte) error

	Keeps Keeper // of blocks, on behalf of others; nil: nothing is kept for anybody
	Words []byte // what Words gave when the space was exchanged last

	// Release is called once when a node's engine does not use the replica any more; nil: nobody waits for that.
	Release func()
	// Gone reports that the owner takes the space away, and that it is not to be exchanged any more; quick. nil: it does not.
	Gone func() bool
	// NoFiles: the graph of files is not exchanged; who keeps only content has no use for it. A node's alone.
	NoFiles bool
	// Copy keeps a block that another node of the network gave, whose bytes are those of its ID. A node's alone.
	Copy func(id block.ID, data []byte) error
	// Upload keeps a block that a device of account gave, whose bytes are those of its ID. ErrRefused says that it is not to; nil: nothing
	// is taken. A node's alone.
	Upload func(account dag.PublicKey, id block.ID, data []byte) error

	// Takes reports whether so many more bytes of changes that devices give are kept, and counts them; 0 asks whether any are. nil: all are. A
	// node's alone.
	Takes func(bytes int) bool
	// Took hears that what Takes counted is through: what of it is here already, or is not kept, counts no more. A node's alone.
	Took func(bytes int)
	// Quota says, where something was refused for a quota and would be still, how many bytes of how many are used. A node's alone.
	Quota func() (used, limit int64, full bool)
	// Room says how many bytes are used of the quota of which least is left, for one who gives blocks; a limit of 0: none holds, or the account may not
	// give any. A node's alone.
	Room func(account dag.PublicKey) (used, limit int64)

	// Tags proves being in the space: HMACs of transcript under a discovery key of each epoch key. Who has one of these keys
	// gets one of these tags from the same transcript.
	Tags func(transcript []byte) [][32]byte
}

// Blocks is what keeps the blocks of a space, as the exchange uses it: a block.Store, or what a node has in its place. It is safe for concurrent
// use, and its methods do what those of block.Store do.
type Blocks interface {
	Has(id block.ID) bool
	GetToGive(id block.ID, buf []byte) ([]byte, error)
	Doubt()
	All(ctx context.Context, fn func(id block.ID, size int64) error) error
	Sync(ctx context.Context) error
	SetFetcher(f block.Fetcher)
}

var _ Blocks = (*block.Store)(nil)

// Engine exchanges spaces with peers. It is safe for concurrent use.
type Engine struct {
	opt     Options
	log     *slog.Logger
	clock   Clock
	self    peer.ID
	key     dag.PublicKey
	account dag.PublicKey

	running  sync.WaitGroup // all goroutines but those of libp2p
	settling chan struct{}  // full while so many spaces are made durable as the disk does at once

	up, down bucket
	passed   passed        // by the relay
	offers   offers        // to a node
	joins    chan struct{} // full: that many ask a coordinator
	limitLAN atomic.Bool
	quit     chan struct{} // closed when Run ends

	// mu guards what follows. It comes before the locks of sessions, and is not held across I/O.
	mu      sync.Mutex
	ctx     context.Context // of Run; nil before and after
	began   time.Time       // of Run
	host    host.Host
	spaces  map[dag.ID]*space
	remotes map[peer.ID]*remote
	guard   guard
	guests  map[dag.ID]*Guest // that this device is
	shown   *shownCode        // the code that this device shows; nil: none
	before  []peer.AddrInfo   // peers that were connected at the time of Pause
	dials   map[peer.ID]*dial
	banned  map[peer.ID]time.Time
	traffic map[peer.ID]*traffic
	missing map[peer.ID]struct{}                   // found on the local network once, and given up
	nodes   map[peer.ID]*usedNode                  // that this device uses
	full    fullSpaces                             // what nodes told of quotas
	quotas  uint64                                 // how often that changed
	keys    atomic.Pointer[map[dag.PublicKey]bool] // theirs
	sought  map[dag.ID]bool                        // spaces that are not here and were asked for
	paused  bool
	changed chan struct{} // closed and replaced at each change of spaces and remotes

	near       map[peer.ID]map[dag.ID]bool // nodes that are visited for some spaces: see Near
	nearNodes  map[peer.ID]*usedNode       // the same
	seen       map[peer.ID]ma.Multiaddr    // where nodes see this device
	reachable  map[peer.ID]bool            // nodes through which others reach this device
	puncher    *holepunch.Service          // nil: this is a node
	lookups    map[peer.ID]foundCode       // codes that new devices looked for at this node
	allowances map[string]allowance        // of who uses this node
}

// New returns an engine that does nothing before Run.
func New(opt Options) (*Engine, error) {
	if len(opt.Key) != ed25519.PrivateKeySize || (opt.Certificate == nil) == (opt.Serve == nil) {
		return nil, errors.New("exchange: Options without Key, or with neither or both of Certificate and Serve")
	}
	key := dag.PublicKey(opt.Key.Public().(ed25519.PublicKey))
	var account dag.PublicKey // zero of a node: nobody's
	if opt.Certificate != nil {
		if opt.Certificate.Device != key {
			return nil, errors.New("exchange: the certificate is another device's")
		}
		account = opt.Certificate.Account
	}
	self, err := peer.Decode(list.PeerID(key))
	if err != nil {
		return nil, fmt.Errorf("exchange: peer id: %w", err)
	}
	if opt.Listen == nil {
		opt.Listen = defaultListen()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.IdleAfter == 0 {
		opt.IdleAfter = idleAfter
	}
	if opt.Clock == nil {
		opt.Clock = systemClock{}
	}
	if opt.Changed == nil {
		opt.Changed = func() {}
	}
	e := &Engine{
		opt: opt, log: opt.Log, clock: opt.Clock, self: self, key: key, account: account,
		spaces: make(map[dag.ID]*space), remotes: make(map[peer.ID]*remote), dials: make(map[peer.ID]*dial),
		banned: make(map[peer.ID]time.Time), traffic: make(map[peer.ID]*traffic), guard: newGuard(), guests: make(map[dag.ID]*Guest), changed: make(chan struct{}),
		missing: make(map[peer.ID]struct{}),
		nodes:   make(map[peer.ID]*usedNode), sought: make(map[dag.ID]bool),
		quit: make(chan struct{}), joins: make(chan struct{}, maxJoins), settling: make(chan struct{}, maxSettling),
	}
	e.mapsOfMeeting()
	e.up.quit, e.down.quit = e.quit, e.quit
	for _, a := range opt.Peers {
		if err := e.AddPeer(a); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// Run listens, dials and exchanges until ctx ends, and returns why. When it returns, all its goroutines have ended. It runs
// once.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h, err := e.newHost()
	if err != nil {
		return err
	}
	stopRelay, err := e.startRelay(h)
	if err != nil {
		return errors.Join(err, h.Close())
	}
	defer stopRelay()
	e.mu.Lock()
	e.ctx, e.host, e.began = ctx, h, e.clock.Now()
	for _, sp := range e.spaces {
		e.startSpace(sp)
	}
	for _, d := range e.dials {
		e.startDial(d)
	}
	e.mu.Unlock()
	e.handle(h)
	stopPunching, err := e.startPunching(h)
	if err != nil {
		e.log.Error("relays are not left for direct connections", "err", err)
		stopPunching = func() {}
	}
	e.start(func(ctx context.Context) { e.roam(ctx, h) })
	if e.opt.Serve != nil {
		e.start(e.restIdle)
	}
	e.noteChange()

	<-ctx.Done()
	close(e.quit)
	e.mu.Lock()
	e.ctx = nil // nothing is started any more
	e.mu.Unlock()
	e.noteChange()
	stopPunching()
	stopRelay()
	err = h.Close()
	e.running.Wait()
	e.noteChange()
	if err != nil {
		return fmt.Errorf("exchange: close: %w", err)
	}
	return context.Cause(ctx)
}

// Started waits until Run listens, which it does within moments, or ctx ends, and reports whether it does.
func (e *Engine) Started(ctx context.Context) bool {
	return e.await(ctx, func() bool { return e.host != nil && e.ctx != nil })
}

// start runs fn in a goroutine that Run waits for; not at all where Run has ended or not begun.
func (e *Engine) start(fn func(ctx context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.startLocked(fn)
}

func (e *Engine) startLocked(fn func(ctx context.Context)) bool {
	ctx := e.ctx
	if ctx == nil {
		return false
	}
	e.running.Go(func() { fn(ctx) })
	return true
}

// noteChange wakes who waits for a change, and tells the owner.
func (e *Engine) noteChange() {
	e.mu.Lock()
	close(e.changed)
	e.changed = make(chan struct{})
	e.mu.Unlock()
	e.opt.Changed()
}

// await calls ok, with mu held, at each change until it returns true or ctx ends.
func (e *Engine) await(ctx context.Context, ok func() bool) bool {
	for {
		e.mu.Lock()
		done, changed := ok(), e.changed
		e.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// Add begins the exchange of a space. One that is there already is replaced.
func (e *Engine) Add(r *Replica) {
	e.Remove(r.ID)
	sp := e.newSpace(r)
	e.mu.Lock()
	e.spaces[r.ID] = sp
	if e.ctx != nil {
		e.startSpace(sp)
	}
	delete(e.sought, r.ID)
	e.mu.Unlock()
	r.Blocks.SetFetcher(sp)
	e.announce()
}

// Remove ends the exchange of a space, and waits for what uses its graphs.
func (e *Engine) Remove(id dag.ID) {
	e.mu.Lock()
	sp := e.spaces[id]
	delete(e.spaces, id)
	e.mu.Unlock()
	if sp == nil {
		return
	}
	sp.r.Blocks.SetFetcher(nil)
	// There is no message that takes a tag back: peers that knew of the space are met anew.
	e.mu.Lock()
	for _, r := range e.remotes {
		if r.common[id] {
			r.cancel()
		}
	}
	sp.cancel()
	e.mu.Unlock()
	sp.end()
	e.noteChange()
}

// Announce has peers told of the tags that came since: the keys of a space have changed. Add, and growth of an access list
// that came through the engine, do it themselves.
func (e *Engine) Announce() { e.announce() }

func (e *Engine) announce() {
	e.mu.Lock()
	remotes := slices.Collect(maps.Values(e.remotes))
	e.dialNow()
	e.mu.Unlock()
	for _, r := range remotes {
		r.wakeTags()
	}
	e.noteChange()
}

// Pause closes all connections, and makes and takes none until Resume.
func (e *Engine) Pause() {
	e.mu.Lock()
	h := e.host
	if !e.paused && h != nil {
		e.before = nil
		for id, r := range e.remotes {
			if addrs := h.Peerstore().Addrs(id); r.ready() && len(addrs) > 0 {
				e.before = append(e.before, peer.AddrInfo{ID: id, Addrs: addrs})
			}
		}
	}
	e.paused = true
	e.mu.Unlock()
	if h != nil {
		for _, p := range h.Network().Peers() {
			_ = h.Network().ClosePeer(p)
		}
	}
	e.noteChange()
}

// Resume ends a Pause. The peers that it parted from are dialled, also those that had connected by themselves: they have long given up.
func (e *Engine) Resume() {
	e.mu.Lock()
	e.paused = false
	before := e.before
	e.before = nil
	e.dialNow()
	e.mu.Unlock()
	for _, info := range before {
		e.want(info, false)
	}
	e.noteChange()
}

// splitAddr takes a multiaddr with /p2p/ID apart.
func splitAddr(s string) (*peer.AddrInfo, error) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return nil, fmt.Errorf("exchange: address %q: %w", s, err)
	}
	info, err := peer.AddrInfoFromP2pAddr(a)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrAddr, s)
	}
	if _, err := deviceOf(info.ID); err != nil {
		return nil, err
	}
	return info, nil
}

// deviceOf is the key that a peer id is made of.
func deviceOf(id peer.ID) (dag.PublicKey, error) {
	k, err := list.ParsePeerID(id.String())
	if err != nil {
		return k, fmt.Errorf("exchange: %w", err)
	}
	return k, nil
}
