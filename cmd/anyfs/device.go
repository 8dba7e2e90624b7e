package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/sync/exchange"
)

// revokedText is what a device that was revoked says of itself.
const revokedText = "its account took it out, on another device. It neither sends nor gets anything. What is on it\n" +
	"stays, read-only: copy what you need out of the mount, or use 'anyfs export'. To go on, set it up anew in another home."

func deviceCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "device",
		Usage:       "list the devices of the account, add one, and revoke one that is lost",
		Description: "Examples:\n  anyfs device list\n  anyfs device add\n  anyfs device revoke laptop",
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
		}, {
			Name: "revoke", Usage: "take a device out of the account, for good: it is lost, stolen or sold", ArgsUsage: "DEVICE",
			Description: `DEVICE is its name, or its peer ID or the beginning of that, as 'anyfs device list' prints them. In every space the keys change, other
devices and nodes give it nothing more, and take nothing from it but what it had sent before. What is on it stays on it. It can't be
taken back; a device that turns up again is set up anew, in another home.

Where somebody may have the account's recovery phrase, this is not enough. A device that made the account, or logged in by the phrase,
has it in its home.

Examples:
  anyfs device revoke laptop
  anyfs device revoke 12D3KooWQ5 --json`,
			Action: func(c *cli.Context) error {
				a, err := args(c, 1, 1)
				if err != nil {
					return err
				}
				return runDeviceRevoke(c.Context, e, a[0])
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
	Revoked   bool   `json:"revoked,omitempty"`
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
			PeerID: list.PeerID(d.Key), Name: d.Name, Self: self, Revoked: d.Revoked,
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
		case d.Revoked && d.Self:
			what = "this device, revoked"
		case d.Revoked:
			what = "revoked"
		case d.Self:
			what = "this device"
		case d.Connected:
			what = "connected"
		}
		rows = append(rows, []string{d.Name, d.PeerID, what})
	}
	return e.table(rows)
}

// revokedDevice is what device revoke --json prints.
type revokedDevice struct {
	PeerID string         `json:"peer_id"`
	Name   string         `json:"name"`
	Spaces []revokedSpace `json:"spaces"` // that it was revoked in now
}

type revokedSpace struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"` // none of the home space
	Error string `json:"error,omitempty"`
}

var opDeviceRevoke = operation[nameParams, revokedDevice]{"device-revoke", func(_ context.Context, h *home, p nameParams, _ sink) (r revokedDevice, err error) {
	var found []fs.Device
	for _, d := range h.fs.Devices() {
		if id := list.PeerID(d.Key); id == p.Name {
			found = []fs.Device{d}
			break
		} else if d.Name == p.Name || len(p.Name) >= 8 && strings.HasPrefix(id, p.Name) {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return r, failf(exitNotFound, "no device of the account is called %s, or several are; 'anyfs device list' shows them with their peer IDs", p.Name)
	}
	if h.fs.Revoked() {
		return r, failf(exitFailed, "this device was revoked itself, and changes nothing any more")
	}
	d := found[0]
	all, err := h.fs.RevokeDevice(d.Key)
	switch {
	case errors.Is(err, fs.ErrThisDevice):
		return r, failf(exitUsage, "%s is the device that you are on, which can't revoke itself; run this on another one. To give this one away, unmount and "+
			"delete its home, %s, and revoke it on another device", d.Name, h.dir)
	case errors.Is(err, acl.ErrNoSecret):
		return r, failf(exitFailed, "this device does not have the account's secret, which it takes; run this on a device that made the account or logged in by the phrase")
	case err != nil:
		return r, err
	}
	h.announce()
	r = revokedDevice{PeerID: list.PeerID(d.Key), Name: d.Name, Spaces: []revokedSpace{}}
	for _, s := range all {
		x := revokedSpace{ID: s.ID.String(), Name: s.Name}
		if s.Err != nil {
			x.Error = s.Err.Error()
		}
		r.Spaces = append(r.Spaces, x)
	}
	return r, nil
}}

func runDeviceRevoke(ctx context.Context, e *env, device string) error {
	r, err := opDeviceRevoke.call(ctx, e, nameParams{device})
	if err != nil {
		return err
	}
	failed := ""
	for _, s := range r.Spaces {
		if s.Error != "" {
			failed = s.Error
		}
	}
	switch {
	case e.json:
		if err := e.printJSON(r); err != nil {
			return err
		}
	case len(r.Spaces) == 0:
		e.say("%s was revoked before.", printable(r.Name))
	default:
		e.say("%s is revoked. Others hear of it as soon as they are connected.\nIf it had the account's recovery phrase (it made the account, or logged in by "+
			"the phrase), whoever has it may still be you.", printable(r.Name))
	}
	if failed != "" {
		return failf(exitFailed, "%s", failed)
	}
	return nil
}
