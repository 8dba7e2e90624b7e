package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/dag"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

// networksName is the file of a home with the configurations of the networks that a person added, sealed. The first is the default: all spaces
// are on it.
const networksName = "networks"

// readNetworks reads the networks that were added.
func (h *home) readNetworks() ([]*netconf.Config, error) {
	sealed, err := h.disk.ReadFile(networksName)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	var b []byte
	if err == nil {
		b, err = h.keys.Local.OpenLocal(nil, sealed, []byte(networksName))
	}
	var encoded [][]byte
	if err == nil {
		err = json.Unmarshal(b, &encoded)
	}
	var out []*netconf.Config
	for i := 0; i < len(encoded) && err == nil; i++ {
		var c *netconf.Config
		c, err = netconf.Decode(encoded[i])
		out = append(out, c)
	}
	if err != nil {
		return nil, fmt.Errorf("read the networks: %w", err)
	}
	return out, nil
}

// changeNetworks changes the networks, and has the exchange go by the new ones. Where change fails, nothing changes.
func (h *home) changeNetworks(change func([]*netconf.Config) ([]*netconf.Config, error)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	list, err := h.readNetworks()
	if err == nil {
		list, err = change(list)
	}
	if err != nil {
		return err
	}
	encoded := [][]byte{}
	for _, c := range list {
		encoded = append(encoded, c.Encode())
	}
	b, err := json.Marshal(encoded)
	if err != nil {
		return err
	}
	if err := h.disk.WriteFileAtomic(networksName, h.keys.Local.SealLocal(nil, b, []byte(networksName))); err != nil {
		return fmt.Errorf("keep the networks: %w", err)
	}
	return h.applyNetworks(list)
}

// applyNetworks has the exchange, where there is one, use the default network.
func (h *home) applyNetworks(list []*netconf.Config) error {
	if h.network == nil {
		return nil
	}
	var nodes []exchange.Node
	var keys []dag.PublicKey
	if len(list) > 0 {
		c := list[0]
		table, err := c.Table()
		if err != nil {
			return err
		}
		for i := range c.Nodes {
			n := &c.Nodes[i]
			if n.Kinds&netconf.File != 0 {
				keys = append(keys, n.Key)
			}
			nodes = append(nodes, exchange.Node{
				Network: c.ID, Addrs: n.Multiaddrs(), Last: n.Kinds&netconf.Coordinator != 0,
				Wants: func(space dag.ID) bool { return table.Has(space, n.Key) },
				Files: func(space dag.ID) bool { return table.HasBlocks(space, n.Key) },
			})
		}
	}
	h.fs.SetNodes(keys)
	if err := h.network.engine.SetNodes(nodes); err != nil {
		return err
	}
	h.network.used.Store(&list)
	h.network.poke()
	return nil
}

// newConfig takes the configuration that a node gave, where its network signed it and it is newer.
func (n *network) newConfig(id dag.PublicKey, encoded []byte) {
	err := func() error {
		c, err := netconf.Decode(encoded)
		if err != nil {
			return err
		}
		if c.ID != id {
			return netconf.ErrOther
		}
		if used := n.used.Load(); used != nil && slices.ContainsFunc(*used, func(o *netconf.Config) bool { return o.ID == id && o.Epoch >= c.Epoch }) {
			return nil
		}
		return n.h.changeNetworks(func(list []*netconf.Config) ([]*netconf.Config, error) {
			for i, o := range list {
				if o.ID == c.ID && c.Replaces(o) == nil {
					list[i] = c
				}
			}
			return list, nil
		})
	}()
	if err != nil {
		n.h.log.Warn("the configuration that a node gave is not taken", "network", netconf.Name(id), "err", err)
	}
}

// networkOf is the name of the network that all spaces are on; empty where there is none. In another age it has another name: its nodes may
// hold less than they did, and are to have all content again.
func (n *network) networkOf() string {
	if used := n.used.Load(); used != nil && len(*used) > 0 {
		c := (*used)[0]
		if c.Age() > 0 {
			return fmt.Sprintf("%s age %d", netconf.Name(c.ID), c.Age())
		}
		return netconf.Name(c.ID)
	}
	return ""
}

func networkCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "network",
		Usage: "add, list, show and remove networks, whose nodes hold spaces",
		Description: `A network is one provider's nodes, or one of your own ('anyfs help node'). Its nodes hold the spaces, sealed, for devices that are never on
together. The first network that is added is the default: all spaces are on it, and those to come.

Examples:
  anyfs network add network.json
  anyfs network add anyfs://network/...
  anyfs network list`,
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "use a network, by its file or its link", ArgsUsage: "FILE|LINK",
				Description: `Of a network that was added before, the configuration with the higher epoch is kept. FILE may be - for the standard input.

Examples:
  anyfs network add network.json
  anyfs network add anyfs://network/...`,
				Action: func(c *cli.Context) error {
					a, err := args(c, 1, 1)
					if err != nil {
						return err
					}
					return runNetworkAdd(c.Context, e, a[0])
				},
			},
			{
				Name: "list", Usage: "list the networks that are used",
				Description: "Examples:\n  anyfs network list\n  anyfs network list --json",
				Action: func(c *cli.Context) error {
					if _, err := args(c, 0, 0); err != nil {
						return err
					}
					return runNetworkList(c.Context, e)
				},
			},
			{
				Name: "show", Usage: "show the nodes of a network, and its link", ArgsUsage: "NETWORK",
				Description: "NETWORK is an ID as 'anyfs network list' shows it, or its beginning.\n\nExamples:\n  anyfs network show z6Mk...",
				Action: func(c *cli.Context) error {
					a, err := args(c, 1, 1)
					if err != nil {
						return err
					}
					return runNetworkShow(c.Context, e, a[0])
				},
			},
			{
				Name: "remove", Usage: "use a network no more", ArgsUsage: "NETWORK",
				Description: `What its nodes hold stays there, and this device fetches nothing from them any more. Content that is on no device but was let go here
under a promise of the network can be read again when it is added again.

Examples:
  anyfs network remove z6Mk...`,
				Action: func(c *cli.Context) error {
					a, err := args(c, 1, 1)
					if err != nil {
						return err
					}
					_, err = opNetworkRemove.call(c.Context, e, nameParams{Name: a[0]})
					return err
				},
			},
		},
	}
}

// networkInfo is a network as network list --json prints it.
type networkInfo struct {
	ID      string        `json:"id"`
	Epoch   uint64        `json:"epoch"`
	Default bool          `json:"default"`
	Nodes   []networkNode `json:"nodes"`
	Link    string        `json:"link"`
}

type networkNode struct {
	PeerID    string   `json:"peer_id"`
	Kinds     []string `json:"kinds"`
	Addresses []string `json:"addresses"`
	Connected bool     `json:"connected"`
}

func (h *home) networkInfos() ([]networkInfo, error) {
	list, err := h.readNetworks()
	if err != nil {
		return nil, err
	}
	connected := map[string]bool{}
	if h.network != nil {
		for _, p := range h.network.engine.Status().Peers {
			connected[p.ID] = true
		}
	}
	out := []networkInfo{}
	for i, c := range list {
		x := networkInfo{ID: netconf.Name(c.ID), Epoch: c.Epoch, Default: i == 0, Link: c.Link()}
		for k := range c.Nodes {
			n := &c.Nodes[k]
			x.Nodes = append(x.Nodes, networkNode{n.Peer(), n.Kinds.Names(), n.Multiaddrs(), connected[n.Peer()]})
		}
		out = append(out, x)
	}
	return out, nil
}

// textParams carry a configuration.
type textParams struct {
	Text []byte `json:"text"`
}

var opNetworkAdd = operation[textParams, none]{"network-add", func(_ context.Context, h *home, p textParams, _ sink) (none, error) {
	c, err := netconf.Parse(p.Text)
	if err != nil {
		return none{}, failf(exitUsage, "%w", err)
	}
	return none{}, h.changeNetworks(func(list []*netconf.Config) ([]*netconf.Config, error) {
		for i, o := range list {
			if o.ID != c.ID {
				continue
			}
			if o.Link() == c.Link() {
				return list, nil
			}
			if err := c.Replaces(o); err != nil {
				return nil, fmt.Errorf("%w; the network was added before", err)
			}
			list[i] = c
			return list, nil
		}
		return append(list, c), nil
	})
}}

var opNetworkList = operation[none, []networkInfo]{"network-list", func(_ context.Context, h *home, _ none, _ sink) ([]networkInfo, error) {
	return h.networkInfos()
}}

var opNetworkRemove = operation[nameParams, none]{"network-remove", func(_ context.Context, h *home, p nameParams, _ sink) (none, error) {
	return none{}, h.changeNetworks(func(list []*netconf.Config) ([]*netconf.Config, error) {
		var names []string
		for _, c := range list {
			names = append(names, netconf.Name(c.ID))
		}
		i, err := pickNetwork(names, p.Name)
		if err != nil {
			return nil, err
		}
		return slices.Delete(list, i, i+1), nil
	})
}}

// pickNetwork finds the one network that a name or the beginning of one means.
func pickNetwork(names []string, given string) (int, error) {
	at := -1
	for i, n := range names {
		if !strings.HasPrefix(n, given) || given == "" {
			continue
		}
		if at >= 0 {
			return 0, failf(exitUsage, "%s begins the IDs of several networks; 'anyfs network list' shows them", given)
		}
		at = i
	}
	if at < 0 {
		return 0, failf(exitNotFound, "no network %s was added; 'anyfs network list' shows those that were", given)
	}
	return at, nil
}

func runNetworkAdd(ctx context.Context, e *env, given string) error {
	text, err := readNetwork(e, given)
	if err != nil {
		return err
	}
	_, err = opNetworkAdd.call(ctx, e, textParams{text})
	return err
}

// readNetwork reads a network's file, or takes its link.
func readNetwork(e *env, given string) ([]byte, error) {
	if strings.HasPrefix(given, netconf.Prefix) {
		return []byte(given), nil
	}
	f, err := e.open(given)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 2*netconf.MaxBytes+1))
}

func runNetworkList(ctx context.Context, e *env) error {
	list, err := opNetworkList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(list)
	}
	rows := [][]string{}
	for _, x := range list {
		connected, mark := 0, ""
		for _, n := range x.Nodes {
			if n.Connected {
				connected++
			}
		}
		if x.Default {
			mark = "default"
		}
		rows = append(rows, []string{x.ID, fmt.Sprintf("epoch %d", x.Epoch), fmt.Sprintf("%d of %d nodes connected", connected, len(x.Nodes)), mark})
	}
	return e.table(rows)
}

func runNetworkShow(ctx context.Context, e *env, given string) error {
	list, err := opNetworkList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	var names []string
	for _, x := range list {
		names = append(names, x.ID)
	}
	i, err := pickNetwork(names, given)
	if err != nil {
		return err
	}
	x := list[i]
	if e.json {
		return e.printJSON(x)
	}
	rows := [][]string{}
	for _, n := range x.Nodes {
		state := "not connected"
		if n.Connected {
			state = "connected"
		}
		for _, a := range n.Addresses {
			rows = append(rows, []string{strings.Join(n.Kinds, ","), a, state})
		}
	}
	if err := e.table(rows); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, x.Link)
	return err
}
