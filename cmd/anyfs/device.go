package main

import (
	"context"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/sync/exchange"
)

func deviceCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "device",
		Usage:       "list the devices of the account, and add one",
		Description: "Examples:\n  anyfs device list\n  anyfs device add",
		Subcommands: []*cli.Command{deviceAddCommand(e), {
			Name: "list", Usage: "list the devices of the account, and which of them are connected",
			Description: `A device is listed as soon as this one has heard of it. 'anyfs device add' lets another one in.

Examples:
  anyfs device list`,
			Action: func(c *cli.Context) error {
				if _, err := args(c, 0, 0); err != nil {
					return err
				}
				return runDeviceList(c.Context, e)
			},
		}},
	}
}

// deviceEntry is a device as device list --json prints it.
type deviceEntry struct {
	PeerID    string `json:"peer_id"`
	Name      string `json:"name"`
	Self      bool   `json:"self,omitempty"`
	Connected bool   `json:"connected"`
}

var opDeviceList = operation[none, []deviceEntry]{"device-list", func(_ context.Context, h *home, _ none, _ sink) ([]deviceEntry, error) {
	var connected []exchange.PeerStatus
	if h.network != nil {
		connected = h.network.engine.Status().Peers
	}
	out := []deviceEntry{}
	for _, d := range h.fs.Devices() {
		self := h.keys.Author().Device == d.Key
		out = append(out, deviceEntry{
			PeerID: list.PeerID(d.Key), Name: d.Name, Self: self,
			Connected: slices.ContainsFunc(connected, func(p exchange.PeerStatus) bool { return p.Device == d.Key }),
		})
	}
	return out, nil
}}

func runDeviceList(ctx context.Context, e *env) error {
	all, err := opDeviceList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(all)
	}
	rows := [][]string{{"NAME", "PEER ID", ""}}
	for _, d := range all {
		what := ""
		switch {
		case d.Self:
			what = "this device"
		case d.Connected:
			what = "connected"
		}
		rows = append(rows, []string{d.Name, d.PeerID, what})
	}
	return e.table(rows)
}
