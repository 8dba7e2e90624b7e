package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	iofs "io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/wire"
)

// view is a configuration with what follows from it.
type view struct {
	*network.Table
	encoded []byte
}

func viewOf(c *network.Config) (*view, error) {
	t, err := c.Table()
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return &view{t, c.Encode()}, nil
}

// readConfig reads the configuration of the folder, or takes the one that the node was given; nil where there is neither.
func (n *Node) readConfig() (*network.Config, error) {
	var c *network.Config
	b, err := n.disk.ReadFile(ConfigFile)
	switch {
	case err == nil:
		if c, err = network.Parse(b); err != nil {
			return nil, fmt.Errorf("server: %s: %w", filepath.Join(n.opt.Dir, ConfigFile), err)
		}
	case !errors.Is(err, iofs.ErrNotExist):
		return nil, fmt.Errorf("server: %w", err)
	}
	if n.signer != nil && c != nil && c.ID != n.networkID() {
		return nil, fmt.Errorf("server: %s is of another network than %s", ConfigFile, networkKey)
	}
	given := n.opt.Network
	switch {
	case given == nil:
	case n.signer != nil:
		return nil, errors.New("server: a coordinator has a network of its own, and is given none")
	case c == nil:
		c = given
	case c.ID != given.ID:
		return nil, fmt.Errorf("server: the folder %s is of a node of network %s; give a node of another network a folder of its own", n.opt.Dir, network.Name(c.ID))
	case given.Replaces(c) == nil:
		c = given
	}
	if c == nil && n.signer == nil {
		return nil, errors.New("server: say with --network which network the node is to join: its file or its link")
	}
	return c, nil
}

func (n *Node) networkID() network.ID { return network.ID(n.signer.Public().(ed25519.PublicKey)) }

func (n *Node) self() dag.PublicKey { return dag.PublicKey(n.key.Public().(ed25519.PublicKey)) }

// newConfig is the configuration of this node alone.
func (n *Node) newConfig(addrs []string) *network.Config {
	return &network.Config{
		Epoch: 1, Partitions: cmp.Or(n.opt.Partitions, network.DefaultPartitions), Replication: network.DefaultReplication,
		Nodes: []network.Node{{Key: n.self(), Kinds: n.opt.Kind, Capacity: 1, Addresses: addrs}},
	}
}

// adopt makes c the configuration, durably, where it is of this network and of a higher epoch. configuring is held.
func (n *Node) adopt(c *network.Config) error {
	if old := n.saved; old != nil {
		if err := c.Replaces(old); err != nil {
			return err
		}
	}
	v, err := viewOf(c)
	if err != nil {
		return err
	}
	if err := n.disk.WriteFileAtomic(ConfigFile, c.JSON()); err != nil {
		return fmt.Errorf("server: write %s: %w", ConfigFile, err)
	}
	n.saved = c
	n.view.Store(v)
	n.apply(v)
	select {
	case n.changed <- struct{}{}:
	default:
	}
	return nil
}

// apply has the exchange go by a configuration.
func (n *Node) apply(v *view) {
	var addrs []string
	for i := range v.Config.Nodes {
		if v.Node(n.self()) == nil {
			break // the others would not speak to it
		}
		addrs = append(addrs, v.Config.Nodes[i].Multiaddrs()...)
	}
	if err := n.engine.SetMesh(addrs); err != nil {
		n.opt.Log.Error("the other nodes are not known", "err", err)
	}
	n.engine.ConfigChanged()
}

// change makes a configuration of a new epoch.
func (n *Node) change(fn func(*network.Config) error) (*network.Config, error) {
	if n.signer == nil {
		return nil, ErrNoCoordinator
	}
	n.configuring.Lock()
	defer n.configuring.Unlock()
	var c *network.Config
	err := n.transact(func() (err error) {
		c, err = n.changeLocked(fn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (n *Node) changeLocked(fn func(*network.Config) error) (*network.Config, error) {
	old := n.saved
	c := *old
	c.Nodes = slices.Clone(old.Nodes)
	for i := range c.Nodes {
		c.Nodes[i].Addresses = slices.Clone(c.Nodes[i].Addresses)
	}
	if err := fn(&c); err != nil {
		return nil, err
	}
	if err := c.Sign(n.signer); err != nil {
		return nil, err
	}
	if bytes.Equal(c.Encode(), old.Encode()) && !n.restored() {
		return old, nil
	}
	epoch, err := n.nextEpoch(old)
	if err != nil {
		return nil, err
	}
	c.Epoch = epoch
	if err := c.Sign(n.signer); err != nil {
		return nil, err
	}
	if err := n.commit(&c); err != nil {
		return nil, err
	}
	n.opt.Log.Info("a new epoch of the network", "epoch", c.Epoch, "nodes", len(c.Nodes))
	return &c, nil
}

// Hear implements exchange.Mesh: another node's configuration is taken where the network signed it and its epoch is higher.
func (n *Node) Hear(encoded []byte) {
	if v := n.view.Load(); bytes.Equal(encoded, v.encoded) {
		return
	}
	c, err := network.Decode(encoded)
	if err == nil {
		n.configuring.Lock()
		defer n.configuring.Unlock()
		if n.saved == nil {
			return // it is not in any network yet
		}
		if c.ID == n.saved.ID && c.Epoch <= n.saved.Epoch {
			return
		}
		err = n.adopt(c)
	}
	if err != nil {
		n.opt.Log.Warn("the configuration that another node gave is not taken", "err", err)
		return
	}
	n.opt.Log.Info("a new epoch of the network", "epoch", c.Epoch, "nodes", len(c.Nodes))
}

// settle makes the configuration true of this node: a coordinator changes it, another asks one to, for which it may wait. It returns the
// configuration in which the node is.
func (n *Node) settle(ctx context.Context, listening []string) (*network.Config, error) {
	addrs := addressesOf(listening)
	if len(n.opt.Announce) > 0 {
		addrs = nil // what the operator says is told as it is
		for _, a := range n.opt.Announce {
			a, _, _ = strings.Cut(a, "/p2p/")
			addrs = append(addrs, a)
		}
		slices.Sort(addrs)
		addrs = slices.Compact(addrs)
	}
	if err := network.CheckAddresses(addrs); err != nil {
		return nil, fmt.Errorf("server: the addresses to reach this node at (--announce, or else those it listens at): %w", err)
	}
	if n.signer == nil {
		return n.join(ctx, addrs)
	}
	c, err := n.placeSelf(addrs)
	if errors.Is(err, errNotHeard) || errors.Is(err, errShared) {
		n.opt.Log.Warn("the network hears later where the coordinator is now", "err", err)
		if c == nil {
			return n.placeLater(ctx, addrs) // it is in none yet
		}
		n.joining.Go(func() { _, _ = n.placeLater(ctx, addrs) })
		return c, nil
	}
	return c, err
}

// placeSelf puts a coordinator into its network, which it makes where there is none. With an error it gives what was known before; nil: nothing.
func (n *Node) placeSelf(addrs []string) (*network.Config, error) {
	n.configuring.Lock()
	defer n.configuring.Unlock()
	err := n.transact(func() error {
		c := n.newConfig(addrs)
		if n.saved != nil {
			_, err := n.changeLocked(func(old *network.Config) error { return place(old, c.Nodes[0]) })
			return err
		}
		if err := c.Sign(n.signer); err != nil {
			return err
		}
		n.opt.Log.Info("a new network", "network", network.Name(c.ID))
		return n.commit(c)
	})
	return n.saved, err
}

// place puts a node into a configuration, in the place of what was known of it. One that drains goes on to.
func place(c *network.Config, x network.Node) error {
	i := slices.IndexFunc(c.Nodes, func(o network.Node) bool { return o.Key == x.Key })
	if i < 0 {
		if len(c.Nodes) >= network.MaxNodes {
			return fmt.Errorf("server: the network has %d nodes already", len(c.Nodes))
		}
		c.Nodes = append(c.Nodes, x)
		return nil
	}
	x.Kinds |= c.Nodes[i].Kinds & network.Draining
	c.Nodes[i] = x
	return nil
}

// joinAgain is when a node that no coordinator answers asks again; doubled each time.
const (
	joinAgain = time.Second
	joinMax   = 30 * time.Second
)

// join asks the coordinators to take this node in, where it is in no configuration or in another place. Who is in one serves meanwhile.
func (n *Node) join(ctx context.Context, addrs []string) (*network.Config, error) {
	c := n.view.Load().Config
	m := &wire.Join{Token: n.opt.Token, Kinds: uint64(n.opt.Kind), Capacity: 1, Addrs: addrs}
	is := n.view.Load().Node(n.self())
	if is != nil {
		m.Token, m.Capacity = nil, is.Capacity
		if is.Kinds&^network.Draining != n.opt.Kind {
			return nil, fmt.Errorf("server: the network has this node as %s; give one of another kind a folder of its own", strings.Join(is.Kinds.Names(), ", "))
		}
		if slices.Equal(is.Addresses, addrs) {
			return c, nil
		}
		n.joining.Go(func() {
			if _, err := n.ask(ctx, m); err != nil && ctx.Err() == nil {
				n.opt.Log.Error("the network does not know where this node is now", "err", err)
			}
		})
		return c, nil
	}
	if len(m.Token) == 0 {
		return nil, errors.New("server: the node is not in the network; give it a token that 'anyfs node token' made, with --token")
	}
	return n.ask(ctx, m)
}

// ask asks the coordinators until one answers.
func (n *Node) ask(ctx context.Context, m *wire.Join) (*network.Config, error) {
	for wait := joinAgain; ; wait = min(2*wait, joinMax) {
		var last error
		for _, x := range n.view.Load().Config.Nodes {
			if x.Kinds&network.Coordinator == 0 {
				continue
			}
			for _, a := range x.Multiaddrs() {
				encoded, err := n.engine.Join(ctx, a, m)
				if err == nil {
					return n.joined(encoded)
				}
				if last = err; errors.Is(err, exchange.ErrNotAdmitted) {
					return nil, err
				}
			}
		}
		n.opt.Log.Warn("no coordinator answers", "err", last)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// joined takes the configuration that a coordinator gave.
func (n *Node) joined(encoded []byte) (*network.Config, error) {
	c, err := network.Decode(encoded)
	if err != nil {
		return nil, err
	}
	n.configuring.Lock()
	defer n.configuring.Unlock()
	if c.ID != n.saved.ID {
		return nil, fmt.Errorf("server: the coordinator answered for another network, %s", network.Name(c.ID))
	}
	if c.Epoch > n.saved.Epoch {
		if err := n.adopt(c); err != nil {
			return nil, err
		}
	}
	if v := n.view.Load(); v.Node(n.self()) == nil {
		return nil, errors.New("server: the coordinator took the node in and does not name it")
	}
	return n.saved, nil
}

// admit is exchange.Options.Admit of a coordinator.
func (n *Node) admit(_ context.Context, key dag.PublicKey, m *wire.Join) ([]byte, error) {
	x := network.Node{Key: key, Kinds: network.Kind(m.Kinds), Capacity: m.Capacity, Addresses: slices.Clone(m.Addrs)}
	if x.Kinds != network.Sync && x.Kinds != network.File && x.Kinds != network.Sync|network.File {
		return nil, fmt.Errorf("it asks to be a node of kind %d", m.Kinds)
	}
	slices.Sort(x.Addresses)
	x.Addresses = slices.Compact(x.Addresses)
	c, err := n.change(func(c *network.Config) error {
		i := slices.IndexFunc(c.Nodes, func(o network.Node) bool { return o.Key == key })
		if i >= 0 {
			// It proved by its key that it is this node, and says where it is now: no more.
			x.Kinds, x.Capacity = c.Nodes[i].Kinds, c.Nodes[i].Capacity
		}
		if err := place(c, x); err != nil {
			return err
		}
		if err := c.Sign(n.signer); err != nil {
			return err // what it says of itself is out of bounds: its token stays
		}
		if i >= 0 {
			return nil
		}
		return n.spendToken(m.Token)
	})
	if err != nil {
		return nil, err
	}
	return c.Encode(), nil
}

// nodeOf finds a node by its peer ID, or by a beginning of it that means one alone.
func nodeOf(c *network.Config, given string) (*network.Node, error) {
	var found *network.Node
	for i := range c.Nodes {
		x := &c.Nodes[i]
		if x.Peer() == given {
			return x, nil
		}
		if given != "" && strings.HasPrefix(x.Peer(), given) {
			if found != nil {
				return nil, fmt.Errorf("%w: %s begins the IDs of several nodes", ErrUnknownNode, given)
			}
			found = x
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownNode, given)
	}
	return found, nil
}

// Remove takes a node out of the network. Nobody speaks to it any more.
func (n *Node) remove(given string) error {
	_, err := n.change(func(c *network.Config) error {
		x, err := nodeOf(c, given)
		if err != nil {
			return err
		}
		if x.Key == n.self() {
			return errors.New("server: a coordinator does not remove itself")
		}
		c.Nodes = slices.DeleteFunc(c.Nodes, func(o network.Node) bool { return o.Key == x.Key })
		return nil
	})
	return err
}

// drain has a node hand over what it has.
func (n *Node) drain(given string) error {
	_, err := n.change(func(c *network.Config) error {
		x, err := nodeOf(c, given)
		if err != nil {
			return err
		}
		if x.Kinds&(network.Sync|network.File) == 0 {
			return errors.New("server: a coordinator has nothing to hand over")
		}
		for _, kind := range []network.Kind{network.Sync, network.File} {
			if x.Kinds&kind != 0 && !slices.ContainsFunc(c.Nodes, func(o network.Node) bool {
				return o.Key != x.Key && o.Kinds&kind != 0 && o.Kinds&network.Draining == 0
			}) {
				return fmt.Errorf("server: it is the last %s node: nobody could take what it has; add another first", kind.Names()[0])
			}
		}
		x.Kinds |= network.Draining
		return nil
	})
	return err
}

// Peer implements exchange.Mesh. A node that is not in the network itself has nobody to speak to.
func (n *Node) Peer(node dag.PublicKey) bool {
	v := n.view.Load()
	return v.Node(node) != nil && v.Node(n.self()) != nil
}

// Owner implements exchange.Mesh.
func (n *Node) Owner(node dag.PublicKey, space dag.ID) bool {
	return n.view.Load().Has(space, node)
}

// Keeper implements exchange.Mesh.
func (n *Node) Keeper(node dag.PublicKey, space dag.ID) bool {
	return n.view.Load().HasBlocks(space, node)
}

// Held implements exchange.Mesh.
func (n *Node) Held() []dag.ID { return n.set.Held() }

// Space implements exchange.Mesh.
func (n *Node) Space(id dag.ID) *exchange.Replica { return n.set.Replica(id) }

// Take implements exchange.Mesh.
func (n *Node) Take(ctx context.Context, id dag.ID, frames [][]byte) *exchange.Replica {
	return n.set.TakeCopy(ctx, id, frames)
}

// NodeInfo is a node of the network as the coordinator lists it.
type NodeInfo struct {
	PeerID    string   `json:"peer_id"`
	Kinds     []string `json:"kinds"`
	Draining  bool     `json:"draining"`
	Addresses []string `json:"addresses"`
	Capacity  uint64   `json:"capacity"`
	Connected bool     `json:"connected"` // with the coordinator
	Self      bool     `json:"self"`
}

func (n *Node) nodes() []NodeInfo {
	connected := n.engine.Mesh()
	out := []NodeInfo{}
	c := n.view.Load().Config
	for i := range c.Nodes {
		x := &c.Nodes[i]
		self := x.Key == n.self()
		out = append(out, NodeInfo{
			PeerID: list.PeerID(x.Key), Kinds: (x.Kinds &^ network.Draining).Names(), Draining: x.Kinds&network.Draining != 0, Addresses: x.Addresses,
			Capacity: x.Capacity, Connected: self || connected[x.Key], Self: self,
		})
	}
	return out
}
