// Package server is a node as a process: its identity, its place, the network that it makes or is in, and the spaces that it serves.
//
// A folder holds all of it: node.key and, of a coordinator, network.key (seeds of Ed25519 keys, in hex, mode 0600), listen (where it listens,
// ports chosen once), network.json (the signed configuration, for clients to add) and spaces. One process has the folder at a time.
package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/exchange"
)

// Names of the files of a node's folder.
const (
	ConfigFile  = "network.json"
	nodeKey     = "node.key"
	networkKey  = "network.key"
	listenFile  = "listen"
	lockFile    = "lock"
	DefaultPort = 7328
)

// ErrInUse says that another process has the node's folder.
var ErrInUse = errors.New("server: another node runs on this folder")

// Options of a node.
type Options struct {
	Dir      string       // made where it is missing
	Listen   []string     // multiaddrs; none: all interfaces at DefaultPort, by TCP and QUIC. A port of 0 is chosen once and kept
	Announce []string     // multiaddrs to reach it at, where it does not see them itself; none: those of its interfaces
	Log      *slog.Logger // nil: none

	Kind    network.Kind    // what it does; 0: all. Without Coordinator it joins a network
	Network *network.Config // that it joins, at its first start
	Token   []byte          // with which it does

	InviteOnly bool              // only the accounts that the policy lists may bring and read
	HTTP       string            // address for /metrics, /healthz and /readyz; none
	Partitions uint64            // of a new network: into how many spaces fall; 0: network.DefaultPartitions
	NoRelay    bool              // devices neither find nor reach each other through it
	RelayRate  int64             // bytes per second that it passes on between devices; 0: no bound
	Etcd       []string          // URLs of the etcd where coordinators share their state; none: it is in the folder
	S3         *s3blocks.Options // where content is kept, with URL, Bucket and Credentials; nil: in the folder
	Gateway    string            // address for blocks by the IPFS trustless gateway protocol, for everybody; none
}

// Node is a node of a network.
type Node struct {
	opt    Options
	disk   disk.FS
	lock   *os.File
	key    ed25519.PrivateKey
	signer ed25519.PrivateKey // of the network; nil: it is another's
	listen []string
	shared *shared // nil: the state of this coordinator is its own
	set    *spaces.Set
	s3     *s3blocks.Client // nil: content is in the folder
	engine *exchange.Engine

	configuring sync.Mutex // guards saved, and the folder's tokens; held while a configuration is made or taken
	saved       *network.Config
	tx          *sharedState         // a transaction under way; nil: none
	view        atomic.Pointer[view] // of saved; before the first is, of what is known
	changed     chan struct{}        // there is another view
	joining     sync.WaitGroup
	leaving     atomic.Int64 // spaces that are being handed over
	came        atomic.Bool  // a space has come, by a configuration that may not hold any more

	rules atomic.Pointer[rules]
	ready atomic.Bool

	gave, gaveBytes atomic.Uint64 // blocks through the gateway
	timing          timing
}

// Open opens a node's folder, or makes it. Close gives it up.
func Open(opt Options) (n *Node, err error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if len(opt.Listen) == 0 {
		for _, ip := range []string{"/ip4/0.0.0.0", "/ip6/::"} {
			opt.Listen = append(opt.Listen, fmt.Sprintf("%s/tcp/%d", ip, DefaultPort), fmt.Sprintf("%s/udp/%d/quic-v1", ip, DefaultPort))
		}
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("server: make the folder: %w", err)
	}
	if opt.Kind == 0 {
		opt.Kind = network.Coordinator | network.Sync | network.File
	}
	n = &Node{opt: opt, changed: make(chan struct{}, 1), timing: newTiming()}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.disk, err = disk.OS(opt.Dir); err != nil {
		return n, fmt.Errorf("server: %w", err)
	}
	if n.lock, err = lockFolder(opt.Dir); err != nil {
		return n, err
	}
	if err = checkRestored(opt.Dir); err != nil {
		return n, err
	}
	if n.key, err = n.readKey(nodeKey); err != nil {
		return n, err
	}
	if opt.Kind&network.Coordinator != 0 {
		if err = n.openNetwork(); err != nil {
			return n, err
		}
	}
	if n.listen, err = n.choosePorts(); err != nil {
		return n, err
	}
	if n.saved, err = n.readConfig(); err != nil {
		return n, err
	}
	first := n.saved
	if first == nil {
		// Who has what follows from the keys and capacities alone, which are known before the addresses are.
		first = n.newConfig(addressesOf(n.listen))
		if err = first.Sign(n.signer); err != nil {
			return n, err
		}
	}
	v, err := viewOf(first)
	if err != nil {
		return n, err
	}
	n.view.Store(v)
	policy, err := ReadPolicy(opt.Dir)
	if err != nil {
		return n, err
	}
	n.rules.Store(policy.rules(opt.InviteOnly))
	if opt.S3 != nil {
		if n.s3, err = openS3(*opt.S3, opt.Log, n.self()); err != nil {
			return n, err
		}
	}
	n.set, err = spaces.Open(spaces.Options{
		Dir: opt.Dir, Log: opt.Log, S3: n.s3, NoFiles: opt.Kind&network.Sync == 0,
		Has:    func(space dag.ID) bool { return n.Owner(n.self(), space) },
		Blocks: func(space dag.ID) bool { return n.Keeper(n.self(), space) },
		Came:   func() { n.came.Store(true); n.engine.SpaceCame() },
		Admits: func(account dag.PublicKey) bool { return n.rules.Load().admits(account) },
		Quota:  func(owner dag.PublicKey, space dag.ID) (all, one int64) { return n.rules.Load().quota(owner, space) },
		Placed: func() {
			select {
			case n.changed <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return n, err
	}
	o := exchange.Options{
		Key: n.key, Serve: n.set, Listen: n.listen, Fixed: true, Log: opt.Log, Mesh: n, Config: func() []byte { return n.view.Load().encoded },
		Placer: n.set, Network: func() dag.PublicKey { return n.view.Load().Config.ID }, Timing: n.timing.hear(),
	}
	if n.signer != nil {
		o.Admit = n.admit
	}
	if !opt.NoRelay {
		o.Relay = &exchange.RelayLimits{Rate: opt.RelayRate}
	}
	n.engine, err = exchange.New(o)
	return n, err
}

// Close gives the folder up, after Run has returned.
func (n *Node) Close() error {
	var err error
	if n.set != nil {
		err = n.set.Close()
	}
	if n.shared != nil {
		err = errors.Join(err, n.shared.c.Close())
	}
	if n.lock != nil {
		err = errors.Join(err, n.lock.Close())
	}
	return err
}

// lockFolder takes a folder for this process. The lock ends with it, or when the file is closed.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("server: lock the folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
		}
		return nil, fmt.Errorf("server: lock the folder: %w", err)
	}
	return f, nil
}

// readKey reads a key, or makes it.
func (n *Node) readKey(name string) (ed25519.PrivateKey, error) {
	b, err := n.disk.ReadFile(name)
	if errors.Is(err, iofs.ErrNotExist) {
		seed := make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed)
		b = []byte(hex.EncodeToString(seed) + "\n")
		err = n.disk.WriteFileAtomic(name, b)
	}
	if err != nil {
		return nil, fmt.Errorf("server: key %s: %w", name, err)
	}
	return parseKey(filepath.Join(n.opt.Dir, name), b)
}

// parseKey reads the key that a file holds.
func parseKey(name string, b []byte) (ed25519.PrivateKey, error) {
	seed, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("server: %s is no key: it holds 64 hexadecimal digits; put it back from a backup", name)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// addressesOf takes the peer off, and leaves out what cannot be reached from elsewhere where anything can.
func addressesOf(addrs []string) []string {
	var out, local []string
	for _, a := range addrs {
		a, _, _ = strings.Cut(a, "/p2p/")
		if strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/") || strings.HasPrefix(a, "/ip6/fe80:") {
			local = append(local, a)
		} else {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		out = local
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), network.MaxAddrs)]
}

// Run serves until ctx ends. ready is called when the node can be reached, with the configuration that clients add; its error ends the node.
// When Run returns, all its goroutines have ended.
func (n *Node) Run(ctx context.Context, ready func(*network.Config) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(n.engine.Run(ctx)) })
	wg.Go(func() { cancel(n.set.Run(ctx)) })
	wg.Go(func() { n.followPolicy(ctx) })
	wg.Go(func() { n.followShared(ctx) })
	wg.Go(func() { n.handover(ctx) })
	n.apply(n.view.Load())
	defer n.joining.Wait()
	defer wg.Wait()
	defer cancel(nil)
	stop, err := n.serveHTTP()
	if err != nil {
		cancel(err)
		return err
	}
	defer stop()
	for len(n.engine.Status().Listen) == 0 {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
	c, err := n.settle(ctx, n.engine.Status().Listen)
	if err == nil {
		n.ready.Store(true)
		err = ready(c)
	}
	if err != nil {
		cancel(err)
		return err
	}
	<-ctx.Done()
	n.ready.Store(false) // a balancer looks elsewhere while what is under way ends
	return context.Cause(ctx)
}
