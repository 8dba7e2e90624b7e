package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/mount"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/nodes/server"
)

func nodeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "node",
		Usage: "run a node, through which devices meet that are never on together",
		Description: `A node holds spaces for devices, and can read none of what it holds: it has no keys. It needs no account and no home.

'node all' is a network of one node. A network of several has a coordinator, which says what nodes there are; sync nodes, which hold the changes of
spaces; and file nodes, which hold their content. Each space is on three of each, or on all where there are fewer. A node joins with a token of
the coordinator's, and a network of one can grow so.

Examples:
  anyfs node all --dir /srv/anyfs
  anyfs node coordinator --dir /srv/coordinator
  anyfs node token --dir /srv/coordinator
  anyfs node sync --dir /srv/anyfs --network network.json --token TOKEN
  anyfs node list --dir /srv/coordinator`,
		Subcommands: []*cli.Command{
			nodeAllCommand(e), nodeCoordinatorCommand(e), nodeMemberCommand(e, "sync"), nodeMemberCommand(e, "file"),
			nodeTokenCommand(e), nodeListCommand(e), nodeDrainCommand(e), nodeRemoveCommand(e),
			nodeStatusCommand(e), nodeAccountCommand(e), nodeQuotaCommand(e), nodeBackupCommand(e), nodeRestoreCommand(e),
		},
	}
}

// nodeOptions are what a node is told.
type nodeOptions struct {
	kind             netconf.Kind // 0: all
	network, token   string
	dir              string
	listen, announce []string
	verbose          bool
	inviteOnly       bool
	http             string
	noRelay          bool
	partitions       uint64
	relayRate        int64
	gateway          string
	s3               *s3blocks.Options
	etcd             []string
}

func nodeAllCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "all",
		Usage: "run a network of one node, in the foreground",
		Description: `One process does all that a network needs: it coordinates, holds the changes of spaces, and the content of files. All that it keeps
is in the folder DIR. It writes DIR/network.json there, the file that devices add with 'anyfs network add', and prints it as a link on one
line. Who has the file or the link may use the node, with --invite-only the accounts alone that 'anyfs node account add' names. The keys in DIR are the node: keep a copy of node.key and network.key, and give it to nobody.

Devices that share no local network find each other through the node, and reach each other through it where they cannot connect directly; it reads nothing of what
they say. --no-relay turns that off, --relay-limit bounds it.

The node listens on all interfaces at port 7328, by TCP and QUIC, or where --listen says; a port of 0 is chosen once and kept. Behind a
router that forwards a port, say with --announce how it is reached from outside. The log goes to stderr, as JSON. Ctrl-C or SIGTERM
ends it; nothing is lost if it is killed. 'anyfs node backup' keeps a copy of all of it.

With --gateway everybody who can reach ADDR, and not members alone, gets the blocks whose CIDs they know, sealed as they are, with the IPFS clients that there
are: a block raw, and a file under its root as a CAR. 'anyfs status PATH' shows a file's root on a device.

With --s3 and --bucket content is kept in an S3-compatible store, sealed as it is, and the rest in DIR. The choice is made when the node is new.

Examples:
  anyfs node all --dir /srv/anyfs
  anyfs node all --dir /srv/anyfs --listen /ip4/0.0.0.0/tcp/7328
  anyfs node all --dir ~/node --listen /ip4/127.0.0.1/tcp/0
  anyfs node all --dir /srv/anyfs --announce /ip4/203.0.113.5/tcp/7328`,
		Flags:  nodeFlags(append(contentFlags(), partitionsFlag())...),
		Action: nodeAction(e, 0),
	}
}

// nodeFlags are those of each kind of node.
func nodeFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "dir", Usage: "keep everything in `DIR`, which is made where it is missing"},
		&cli.StringSliceFlag{Name: "listen", Usage: "listen at `MULTIADDR` only; may be given several times"},
		&cli.StringSliceFlag{Name: "announce", Usage: "tell others `MULTIADDR` as the node's address; may be given several times"},
		&cli.BoolFlag{Name: "invite-only", Usage: "serve only the accounts that were added"},
		&cli.StringFlag{Name: "http", Usage: "answer /metrics, /healthz and /readyz at `ADDR`, as 127.0.0.1:9328"},
		&cli.BoolFlag{Name: "no-relay", Usage: "do not have devices find and reach each other through the node"},
		&cli.StringFlag{Name: "relay-limit", Usage: "pass on at most `RATE` (bytes per second, as 2M) between devices that reach each other through the node"},
		&cli.BoolFlag{Name: "verbose", Usage: "log what each peer does"},
	}, more...)
}

// contentFlags are those of a node that holds content.
func contentFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "gateway", Usage: "give blocks to everybody by the IPFS trustless gateway protocol at `ADDR`, as 127.0.0.1:8080"},
	}, bucketFlags()...)
}

// partitionsFlag is of who makes a network.
func partitionsFlag() cli.Flag {
	return &cli.Uint64Flag{Name: "partitions", Usage: "of a new network: let spaces fall into `N` partitions, 10 to 1048576 (default: 3000, enough for some 30 nodes; some 100 for each node)"}
}

// bucketFlags say where content is kept.
func bucketFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "s3", Usage: "keep content in the S3-compatible store at `URL`, as https://s3.example.org"},
		&cli.StringFlag{Name: "bucket", Usage: "in this `BUCKET` of it, which exists"},
		&cli.StringFlag{Name: "s3-credentials", Usage: "with the key in `FILE`, in the form of AWS's tools (default: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"},
	}
}

// bucketOf is what bucketFlags said; nil: nothing.
func bucketOf(c *cli.Context) *s3blocks.Options {
	o := s3blocks.Options{URL: c.String("s3"), Bucket: c.String("bucket"), Credentials: c.String("s3-credentials")}
	if o == (s3blocks.Options{}) {
		return nil
	}
	return &o
}

// nodeAction runs a node of a kind.
func nodeAction(e *env, kind netconf.Kind) cli.ActionFunc {
	return func(c *cli.Context) error {
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
		if n := c.Uint64("partitions"); c.IsSet("partitions") && (n < netconf.MinPartitions || n > netconf.MaxPartitions) {
			return failf(exitUsage, "--partitions %d: between %d and %d", n, netconf.MinPartitions, netconf.MaxPartitions)
		}
		var relayRate int64
		if c.IsSet("relay-limit") {
			if relayRate, err = parseRate(c.String("relay-limit")); err != nil {
				return err
			}
		}
		network, token := c.String("network"), c.String("token")
		if kind == netconf.Sync || kind == netconf.File {
			network = cmp.Or(network, e.getenv("ANYFS_NODE_NETWORK"))
			token = cmp.Or(token, e.getenv("ANYFS_NODE_TOKEN"))
		}
		return runNode(c.Context, e, nodeOptions{
			kind: kind, network: network, token: token, dir: dir, listen: c.StringSlice("listen"),
			announce: c.StringSlice("announce"), verbose: c.Bool("verbose"), inviteOnly: c.Bool("invite-only"), http: c.String("http"),
			noRelay: c.Bool("no-relay"), partitions: c.Uint64("partitions"), relayRate: relayRate,
			gateway: c.String("gateway"), s3: bucketOf(c), etcd: c.StringSlice("etcd"),
		})
	}
}

func nodeCoordinatorCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "coordinator",
		Usage: "run the coordinator of a network of several nodes, in the foreground",
		Description: `It holds the network's key, takes nodes in that have a token of it ('anyfs node token'), and tells all nodes and devices who is in the network.
It holds no spaces. While it is away all goes on, but that no node joins or leaves. The keys in DIR are the network: keep a copy of
network.key and network.json, and give the key to nobody. The rest is as 'anyfs help node all' says.

A network can have several coordinators, any of which may fail. They share its state in etcd: start the first with --etcd, copy network.key from its DIR into that
of each other, and start those with --etcd as well. TLS and the user are read from the environment as etcdctl does: ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY, ETCDCTL_USER.

Examples:
  anyfs node coordinator --dir /srv/coordinator
  anyfs node coordinator --dir /srv/coordinator --etcd http://10.0.0.1:2379 --etcd http://10.0.0.2:2379
  anyfs node coordinator --dir /srv/coordinator --listen /ip4/0.0.0.0/tcp/7328`,
		Flags: nodeFlags(partitionsFlag(),
			&cli.StringSliceFlag{Name: "etcd", Usage: "share the network's state with other coordinators in the etcd at `URL`; may be given several times"},
		),
		Action: nodeAction(e, netconf.Coordinator),
	}
}

// nodeMemberCommand is of a node that joins a network.
func nodeMemberCommand(e *env, kind string) *cli.Command {
	holds, k, content := "the changes", netconf.Sync, []cli.Flag(nil)
	if kind == "file" {
		holds, k, content = "the content", netconf.File, contentFlags()
	}
	return &cli.Command{
		Name:  kind,
		Usage: "run a node that holds " + holds + " of spaces for a network, in the foreground",
		Description: `At its first start it joins a network: --network is the network's file or link, --token what 'anyfs node token' printed on the coordinator. Later
starts need neither. It gets what it is to hold from the nodes that have it. If its disk is lost, start it on an empty folder with a new
token, and take the old one out with 'anyfs node remove'. The rest is as 'anyfs help node all' says.

Examples:
  anyfs node ` + kind + ` --dir /srv/anyfs --network network.json --token TOKEN
  anyfs node ` + kind + ` --dir /srv/anyfs`,
		Flags: nodeFlags(append(content,
			&cli.StringFlag{Name: "network", Usage: "join the network of this `FILE|LINK` (ANYFS_NODE_NETWORK)"},
			&cli.StringFlag{Name: "token", Usage: "join with this `TOKEN` (ANYFS_NODE_TOKEN, which other users of the machine do not see)"},
		)...),
		Action: nodeAction(e, k),
	}
}

// nodeResult is what a node prints with --json when the node can be reached.
type nodeResult struct {
	Network string   `json:"network"`
	Epoch   uint64   `json:"epoch"`
	File    string   `json:"file"`
	Link    string   `json:"link"`
	Listen  []string `json:"listen"`
}

func runNode(ctx context.Context, e *env, o nodeOptions) (err error) {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(e.stderr, &slog.HandlerOptions{Level: level}))
	// What the libraries have to say is of the same form.
	slog.SetDefault(log)
	gologshim.SetDefaultHandler(slog.NewJSONHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	opt := server.Options{Dir: o.dir, Listen: o.listen, Announce: o.announce, Log: log, InviteOnly: o.inviteOnly, HTTP: o.http, Gateway: o.gateway, S3: o.s3, Etcd: o.etcd, Kind: o.kind, NoRelay: o.noRelay, Partitions: o.partitions, RelayRate: o.relayRate}
	if o.token != "" {
		if opt.Token, err = server.ParseToken(o.token); err != nil {
			return failf(exitUsage, "%w", err)
		}
	}
	if o.network != "" {
		text, err := readNetwork(e, o.network)
		if err != nil {
			return err
		}
		if opt.Network, err = netconf.Parse(text); err != nil {
			return failf(exitUsage, "%w", err)
		}
	}
	boss, err := mount.FromSupervisor()
	if err != nil {
		return err
	}
	defer boss.Close()
	n, err := server.Open(opt)
	if errors.Is(err, server.ErrInUse) {
		return &failure{exitBusy, err}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	defer context.AfterFunc(ctx, func() { _ = boss.Stopping() })()
	err = n.Run(ctx, func(c *netconf.Config) error {
		r := nodeResult{netconf.Name(c.ID), c.Epoch, filepath.Join(o.dir, server.ConfigFile), c.Link(), []string{}}
		for i := range c.Nodes {
			r.Listen = append(r.Listen, c.Nodes[i].Multiaddrs()...)
		}
		if err := boss.Ready("node of network " + r.Network); err != nil {
			log.Error("the service manager does not hear that the node is ready", "err", err)
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
