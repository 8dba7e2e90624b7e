// Package server is a node as a process: its identity, its place, the network that it makes, and the spaces that it serves.
//
// A folder holds all of it: node.key and network.key (seeds of Ed25519 keys, in hex, mode 0600), listen (where it listens, ports chosen once),
// network.json (the signed configuration, for clients to add) and spaces. One process has the folder at a time.
package server

import (
	"bytes"
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

	InviteOnly bool   // only the accounts that the policy lists may bring and read
	HTTP       string // address for /metrics, /healthz and /readyz; none
}

// Node is a node that does all that a network needs.
type Node struct {
	opt    Options
	disk   disk.FS
	lock   *os.File
	key    ed25519.PrivateKey
	signer ed25519.PrivateKey // of the network
	listen []string
	set    *spaces.Set
	engine *exchange.Engine

	saved  *network.Config // what the folder holds
	config atomic.Pointer[network.Config]
	place  atomic.Pointer[network.Placement]
	rules  atomic.Pointer[rules]
	ready  atomic.Bool
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
	n = &Node{opt: opt}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.disk, err = disk.OS(opt.Dir); err != nil {
		return n, fmt.Errorf("server: %w", err)
	}
	if err = n.takeLock(); err != nil {
		return n, err
	}
	if n.key, err = n.readKey(nodeKey); err != nil {
		return n, err
	}
	if n.signer, err = n.readKey(networkKey); err != nil {
		return n, err
	}
	if n.listen, err = n.choosePorts(); err != nil {
		return n, err
	}
	old, err := n.readConfig()
	if err != nil {
		return n, err
	}
	n.saved = old
	n.config.Store(old)
	// Who has what follows from the keys and capacities alone, which are known before the addresses are.
	place, err := n.newConfig(nil).Place(network.Sync)
	if err != nil {
		return n, err
	}
	n.place.Store(place)
	policy, err := ReadPolicy(opt.Dir)
	if err != nil {
		return n, err
	}
	n.rules.Store(policy.rules(opt.InviteOnly))
	n.set, err = spaces.Open(spaces.Options{
		Dir: opt.Dir, Log: opt.Log, Has: n.has,
		Admits: func(account dag.PublicKey) bool { return n.rules.Load().admits(account) },
		Quota:  func(owner dag.PublicKey, space dag.ID) (all, one int64) { return n.rules.Load().quota(owner, space) },
	})
	if err != nil {
		return n, err
	}
	n.engine, err = exchange.New(exchange.Options{
		Key: n.key, Serve: n.set, Listen: n.listen, Fixed: true, Log: opt.Log, Config: n.encoded,
	})
	return n, err
}

// Close gives the folder up, after Run has returned.
func (n *Node) Close() error {
	var err error
	if n.set != nil {
		err = n.set.Close()
	}
	if n.lock != nil {
		err = errors.Join(err, n.lock.Close())
	}
	return err
}

// takeLock takes the folder for this process. The lock ends with it.
func (n *Node) takeLock() error {
	f, err := os.OpenFile(filepath.Join(n.opt.Dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("server: lock the folder: %w", err)
	}
	n.lock = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%w: %s", ErrInUse, n.opt.Dir)
		}
		return fmt.Errorf("server: lock the folder: %w", err)
	}
	return nil
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
	seed, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("server: %s is no key: it holds 64 hexadecimal digits; put it back from a backup", filepath.Join(n.opt.Dir, name))
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func (n *Node) readConfig() (*network.Config, error) {
	b, err := n.disk.ReadFile(ConfigFile)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	c, err := network.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("server: %s: %w", filepath.Join(n.opt.Dir, ConfigFile), err)
	}
	if c.ID != network.ID(n.signer.Public().(ed25519.PublicKey)) {
		return nil, fmt.Errorf("server: %s is of another network than %s", ConfigFile, networkKey)
	}
	return c, nil
}

// newConfig is the configuration of this node alone.
func (n *Node) newConfig(addrs []string) *network.Config {
	return &network.Config{
		Epoch: 1, Partitions: network.DefaultPartitions, Replication: network.DefaultReplication,
		Nodes: []network.Node{{
			Key: dag.PublicKey(n.key.Public().(ed25519.PublicKey)), Kinds: network.Coordinator | network.Sync | network.File, Capacity: 1,
			Addresses: addrs,
		}},
	}
}

func (n *Node) has(space dag.ID) bool {
	return n.place.Load().Has(space, dag.PublicKey(n.key.Public().(ed25519.PublicKey)))
}

func (n *Node) encoded() []byte { return n.config.Load().Encode() }

// settle writes the configuration, of a new epoch where something has changed.
func (n *Node) settle(addrs []string) (*network.Config, error) {
	addrs = addressesOf(addrs)
	if len(n.opt.Announce) > 0 {
		addrs = nil // what the operator says is told as it is
		for _, a := range n.opt.Announce {
			a, _, _ = strings.Cut(a, "/p2p/")
			addrs = append(addrs, a)
		}
		slices.Sort(addrs)
		addrs = slices.Compact(addrs)
	}
	c := n.newConfig(addrs)
	old := n.saved
	if old != nil {
		c.Epoch = old.Epoch
	}
	if err := c.Sign(n.signer); err != nil {
		return nil, err
	}
	if old != nil && bytes.Equal(c.Encode(), old.Encode()) {
		return old, nil
	}
	if old != nil {
		c.Epoch++
		if err := c.Sign(n.signer); err != nil {
			return nil, err
		}
	}
	if err := n.disk.WriteFileAtomic(ConfigFile, c.JSON()); err != nil {
		return nil, fmt.Errorf("server: write %s: %w", ConfigFile, err)
	}
	n.saved = c
	n.config.Store(c)
	return c, nil
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
	if n.config.Load() == nil {
		// Whoever comes before the addresses are known gets none: nobody knows them yet.
		c := n.newConfig(addressesOf(n.listen))
		if err := c.Sign(n.signer); err != nil {
			return err
		}
		n.config.Store(c)
		n.opt.Log.Info("a new network", "network", network.Name(c.ID))
	}
	var wg sync.WaitGroup
	wg.Go(func() { cancel(n.engine.Run(ctx)) })
	wg.Go(func() { cancel(n.set.Run(ctx)) })
	wg.Go(func() { n.followPolicy(ctx) })
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
	c, err := n.settle(n.engine.Status().Listen)
	if err == nil {
		n.ready.Store(true)
		err = ready(c)
	}
	if err != nil {
		cancel(err)
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}
