package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/urfave/cli/v2"

	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/server"
)

func nodeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "node",
		Usage: "run a node, through which devices meet that are never on together",
		Description: `A node holds spaces for devices, and can read none of what it holds: it has no keys. It needs no account and no home.

Examples:
  anyfs node all --dir /srv/anyfs
  anyfs node status --dir /srv/anyfs`,
		Subcommands: []*cli.Command{nodeAllCommand(e), nodeStatusCommand(e), nodeAccountCommand(e), nodeQuotaCommand(e)},
	}
}

// nodeOptions are what node all is told.
type nodeOptions struct {
	dir              string
	listen, announce []string
	verbose          bool
	inviteOnly       bool
	http             string
}

func nodeAllCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "all",
		Usage: "run a network of one node, in the foreground",
		Description: `One process does all that a network needs: it coordinates, holds the changes of spaces, and the content of files. All that it keeps
is in the folder DIR. It writes DIR/network.json there, the file that devices add with 'anyfs network add', and prints it as a link on one
line. Who has the file or the link may use the node, with --invite-only the accounts alone that 'anyfs node account add' names. The keys in DIR are the node: keep a copy of node.key and network.key, and give it to nobody.

The node listens on all interfaces at port 7328, by TCP and QUIC, or where --listen says; a port of 0 is chosen once and kept. Behind a
router that forwards a port, say with --announce how it is reached from outside. The log goes to stderr, as JSON. Ctrl-C or SIGTERM
ends it; nothing is lost if it is killed.

Examples:
  anyfs node all --dir /srv/anyfs
  anyfs node all --dir /srv/anyfs --listen /ip4/0.0.0.0/tcp/7328
  anyfs node all --dir ~/node --listen /ip4/127.0.0.1/tcp/0
  anyfs node all --dir /srv/anyfs --announce /ip4/203.0.113.5/tcp/7328`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Usage: "keep everything in `DIR`, which is made where it is missing"},
			&cli.StringSliceFlag{Name: "listen", Usage: "listen at `MULTIADDR` only; may be given several times"},
			&cli.StringSliceFlag{Name: "announce", Usage: "tell devices `MULTIADDR` as the node's address; may be given several times"},
			&cli.BoolFlag{Name: "invite-only", Usage: "serve only the accounts that were added"},
			&cli.StringFlag{Name: "http", Usage: "answer /metrics, /healthz and /readyz at `ADDR`, as 127.0.0.1:9328"},
			&cli.BoolFlag{Name: "verbose", Usage: "log what each peer does"},
		},
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			if c.String("dir") == "" {
				return failf(exitUsage, "say with --dir where the node is to keep everything")
			}
			dir, err := e.abs(c.String("dir"))
			if err != nil {
				return err
			}
			return runNodeAll(c.Context, e, nodeOptions{dir, c.StringSlice("listen"), c.StringSlice("announce"), c.Bool("verbose"), c.Bool("invite-only"), c.String("http")})
		},
	}
}

// nodeResult is what node all --json prints when the node can be reached.
type nodeResult struct {
	Network string   `json:"network"`
	Epoch   uint64   `json:"epoch"`
	File    string   `json:"file"`
	Link    string   `json:"link"`
	Listen  []string `json:"listen"`
}

func runNodeAll(ctx context.Context, e *env, o nodeOptions) (err error) {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(e.stderr, &slog.HandlerOptions{Level: level}))
	n, err := server.Open(server.Options{Dir: o.dir, Listen: o.listen, Announce: o.announce, Log: log, InviteOnly: o.inviteOnly, HTTP: o.http})
	if errors.Is(err, server.ErrInUse) {
		return &failure{exitBusy, err}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	err = n.Run(ctx, func(c *netconf.Config) error {
		r := nodeResult{netconf.Name(c.ID), c.Epoch, filepath.Join(o.dir, server.ConfigFile), c.Link(), []string{}}
		for i := range c.Nodes {
			r.Listen = append(r.Listen, c.Nodes[i].Multiaddrs()...)
		}
		log.Info("the node can be reached", "network", r.Network, "epoch", r.Epoch, "addresses", r.Listen)
		if e.json {
			return e.printJSON(r)
		}
		_, err := fmt.Fprintln(e.stdout, r.Link)
		return err
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		log.Info("the node ends")
		return nil
	}
	return err
}
