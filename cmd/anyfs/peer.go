package main

import (
	"context"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func peerCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "peer",
		Usage: "list, add and remove devices to exchange with",
		Description: `Devices of one account find each other on the local network by themselves, and elsewhere through the nodes of a network that they use ('anyfs help network'):
directly where the routers between them let them, through a node's relay otherwise. One that is elsewhere can also be added by its address, as 'anyfs status'
shows it there.

Examples:
  anyfs peer list
  anyfs peer add /ip4/192.0.2.7/tcp/7327/p2p/12D3KooW...
  anyfs peer remove /ip4/192.0.2.7/tcp/7327/p2p/12D3KooW...`,
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list the peers that are connected, and those that were added",
				Description: "Examples:\n  anyfs peer list\n  anyfs peer list --json",
				Action: func(c *cli.Context) error {
					if _, err := args(c, 0, 0); err != nil {
						return err
					}
					return runPeerList(c.Context, e)
				},
			},
			{
				Name: "add", Usage: "stay connected to the peer at an address", ArgsUsage: "MULTIADDR",
				Description: "Examples:\n  anyfs peer add /ip4/192.0.2.7/tcp/7327/p2p/12D3KooW...",
				Action:      func(c *cli.Context) error { return runPeerChange(c, e, opPeerAdd) },
			},
			{
				Name: "remove", Usage: "forget the address of a peer", ArgsUsage: "MULTIADDR",
				Description: "Examples:\n  anyfs peer remove /ip4/192.0.2.7/tcp/7327/p2p/12D3KooW...",
				Action:      func(c *cli.Context) error { return runPeerChange(c, e, opPeerRemove) },
			},
		},
	}
}

// peersResult is what peer list --json prints.
type peersResult struct {
	Connected []peerStatus `json:"connected"`
	Added     []string     `json:"added"`
}

var opPeerList = operation[none, peersResult]{"peer-list", func(_ context.Context, h *home, _ none, _ sink) (peersResult, error) {
	added, err := h.readPeers()
	r := peersResult{Connected: []peerStatus{}, Added: append([]string{}, added...)}
	if h.network != nil && err == nil {
		spaces, e := h.fs.Spaces()
		if e != nil {
			return r, e
		}
		s := statusResult{Spaces: statusesOf(spaces)}
		h.network.addTo(&s)
		r.Connected = append(r.Connected, s.Peers...)
	}
	return r, err
}}

var opPeerAdd = operation[nameParams, none]{"peer-add", func(_ context.Context, h *home, p nameParams, _ sink) (none, error) {
	if err := checkPeer(p.Name); err != nil {
		return none{}, err
	}
	if h.network != nil {
		if err := h.network.engine.AddPeer(p.Name); err != nil {
			return none{}, &failure{exitUsage, err}
		}
	}
	return none{}, h.changePeers(func(list []string) []string {
		if slices.Contains(list, p.Name) {
			return list
		}
		return append(list, p.Name)
	})
}}

var opPeerRemove = operation[nameParams, none]{"peer-remove", func(_ context.Context, h *home, p nameParams, _ sink) (none, error) {
	if h.network != nil {
		if err := h.network.engine.RemovePeer(p.Name); err != nil {
			return none{}, &failure{exitUsage, err}
		}
	}
	found := false
	err := h.changePeers(func(list []string) []string {
		return slices.DeleteFunc(list, func(a string) bool {
			found = found || a == p.Name
			return a == p.Name
		})
	})
	if err == nil && !found {
		err = failf(exitNotFound, "no peer was added as %s; 'anyfs peer list' shows those that were", p.Name)
	}
	return none{}, err
}}

// checkPeer refuses what can't be the address of a peer.
func checkPeer(addr string) error {
	if !strings.HasPrefix(addr, "/") || !strings.Contains(addr, "/p2p/") {
		return failf(exitUsage, "%s is no address of a peer: it looks like /ip4/192.0.2.7/tcp/7327/p2p/12D3KooW..., as 'anyfs status' shows it on the other device", addr)
	}
	return nil
}

func runPeerChange(c *cli.Context, e *env, op operation[nameParams, none]) error {
	a, err := args(c, 1, 1)
	if err != nil {
		return err
	}
	_, err = op.call(c.Context, e, nameParams{Name: a[0]})
	return err
}

func runPeerList(ctx context.Context, e *env) error {
	r, err := opPeerList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	rows := [][]string{}
	for _, p := range r.Connected {
		rows = append(rows, []string{"connected", p.Device, p.where(), strings.Join(p.Spaces, ", ")})
	}
	for _, a := range r.Added {
		rows = append(rows, []string{"added", "", a, ""})
	}
	return e.table(rows)
}
