package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/server"
)

// nodeDirFlag names the folder of a node.
func nodeDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "the node's folder `DIR`"}
}

// nodeDir is the folder that a command was given.
func nodeDir(c *cli.Context, e *env) (string, error) {
	if c.String("dir") == "" {
		return "", failf(exitUsage, "say with --dir which folder the node keeps everything in")
	}
	return e.abs(c.String("dir"))
}

// inNodeDir is the action of a command without arguments that asks the node of a folder.
func inNodeDir(e *env, run func(ctx context.Context, e *env, dir string) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if _, err := args(c, 0, 0); err != nil {
			return err
		}
		dir, err := nodeDir(c, e)
		if err != nil {
			return err
		}
		return run(c.Context, e, dir)
	}
}

func nodeStatusCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "show what a node that runs holds",
		Description: `Spaces are named by their IDs: a node knows no other name.

Examples:
  anyfs node status --dir /srv/anyfs
  anyfs node status --dir /srv/anyfs --json`,
		Flags:  []cli.Flag{nodeDirFlag()},
		Action: inNodeDir(e, runNodeStatus),
	}
}

func runNodeStatus(ctx context.Context, e *env, dir string) error {
	s, err := server.AskStatus(ctx, dir)
	if errors.Is(err, server.ErrNoNode) {
		return &failure{exitNotFound, err}
	}
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(s)
	}
	kinds := strings.Join(s.Kinds, ", ")
	if s.Draining {
		kinds += fmt.Sprintf(", draining: %d spaces are left", s.Totals.Spaces)
	}
	fmt.Fprintf(e.stdout, "network  %s, epoch %d\nnode     %s (%s)\n", s.Network, s.Epoch, s.PeerID, kinds)
	for _, a := range s.Listen {
		fmt.Fprintf(e.stdout, "address  %s\n", a)
	}
	fmt.Fprintf(e.stdout, "relay    %d devices can be reached through it, %d connections, %d bytes\n", s.RelaySlots, s.RelayConnections, s.RelayBytes)
	fmt.Fprintf(e.stdout, "peers    %d devices, %d nodes\nspaces   %d, with %d bytes of content and %d of changes\n\n", s.Peers, s.Nodes, s.Totals.Spaces, s.Totals.Blocks, s.Totals.Log)
	rows := [][]string{{"SPACE", "OWNER", "CONTENT", "CHANGES"}}
	for _, x := range s.Spaces {
		rows = append(rows, []string{x.ID, x.Owner, fmt.Sprint(x.Blocks), fmt.Sprint(x.Changes)})
	}
	return e.table(rows)
}

func nodeAccountCommand(e *env) *cli.Command {
	change := func(name, usage string, fn func(*server.Policy, string) error) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage, ArgsUsage: "ACCOUNT", Flags: []cli.Flag{nodeDirFlag()},
			Description: "ACCOUNT is as 'anyfs account show' prints it. A node that runs takes it over within a second.\n\nExamples:\n  anyfs node account " + name + " --dir /srv/anyfs z6Mk...",
			Action: func(c *cli.Context) error {
				a, err := args(c, 1, 1)
				if err != nil {
					return err
				}
				dir, err := nodeDir(c, e)
				if err != nil {
					return err
				}
				id, err := list.ParseIdentity(a[0])
				if err != nil {
					return failf(exitUsage, "%w", err)
				}
				return server.ChangePolicy(dir, func(p *server.Policy) error { return fn(p, list.FormatIdentity(id)) })
			},
		}
	}
	return &cli.Command{
		Name:  "account",
		Usage: "list, add and remove the accounts that may use a node that runs with --invite-only",
		Description: `Examples:
  anyfs node account add --dir /srv/anyfs z6Mk...
  anyfs node account list --dir /srv/anyfs`,
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list them", Flags: []cli.Flag{nodeDirFlag()},
				Description: "Examples:\n  anyfs node account list --dir /srv/anyfs",
				Action: func(c *cli.Context) error {
					if _, err := args(c, 0, 0); err != nil {
						return err
					}
					dir, err := nodeDir(c, e)
					if err != nil {
						return err
					}
					p, err := server.ReadPolicy(dir)
					if err != nil {
						return err
					}
					if e.json {
						return e.printJSON(append([]string{}, p.Accounts...))
					}
					rows := [][]string{}
					for _, a := range p.Accounts {
						rows = append(rows, []string{a})
					}
					return e.table(rows)
				},
			},
			change("add", "let an account use the node", func(p *server.Policy, a string) error {
				p.Accounts = append(p.Accounts, a)
				return nil
			}),
			change("remove", "let it use the node no more; what it brought stays", func(p *server.Policy, a string) error {
				if !slices.Contains(p.Accounts, a) {
					return failf(exitNotFound, "the account %s was not added", a)
				}
				p.Accounts = slices.DeleteFunc(p.Accounts, func(x string) bool { return x == a })
				return nil
			}),
		},
	}
}

func nodeQuotaCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "quota",
		Usage:     "bound what an account's spaces, or one space, may take of a node",
		ArgsUsage: "[ACCOUNT|SPACE|default SIZE]",
		Description: `SIZE is in bytes, with K, M, G or T for powers of 1,024, or none. All spaces that an account owns count for it; default is for each account
without a quota of its own. Content beyond it is refused; what is there stays. Without arguments the quotas are listed. A node that
runs takes it over within a second.

Examples:
  anyfs node quota --dir /srv/anyfs z6Mk... 100G
  anyfs node quota --dir /srv/anyfs default 10G
  anyfs node quota --dir /srv/anyfs default none
  anyfs node quota --dir /srv/anyfs`,
		Flags: []cli.Flag{nodeDirFlag()},
		Action: func(c *cli.Context) error {
			a, err := args(c, 0, 2)
			if err != nil {
				return err
			}
			dir, err := nodeDir(c, e)
			if err != nil {
				return err
			}
			switch len(a) {
			case 0:
				return runNodeQuotaList(e, dir)
			case 1:
				return failf(exitUsage, "say whose quota, and how much")
			}
			return runNodeQuota(dir, a[0], a[1])
		},
	}
}

func runNodeQuota(dir, whose, size string) error {
	var bytes int64
	if size != "none" {
		n, err := parseSize(size)
		if err != nil || n <= 0 {
			return failf(exitUsage, "%q is no size; write 500M, 20G, 2T, or none", size)
		}
		bytes = n
	}
	if whose != "default" {
		id, err := list.ParseIdentity(whose)
		if err == nil {
			whose = list.FormatIdentity(id)
		} else if space, serr := dag.ParseID(whose); serr == nil {
			whose = space.String()
		} else {
			return failf(exitUsage, "%s is neither an account nor the ID of a space", whose)
		}
	}
	return server.ChangePolicy(dir, func(p *server.Policy) error {
		switch {
		case whose == "default":
			p.Default = bytes
		case bytes == 0:
			delete(p.Quotas, whose)
		default:
			p.Quotas[whose] = bytes
		}
		return nil
	})
}

func runNodeQuotaList(e *env, dir string) error {
	p, err := server.ReadPolicy(dir)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(struct {
			Default int64            `json:"default"`
			Quotas  map[string]int64 `json:"quotas"`
		}{p.Default, p.Quotas})
	}
	rows := [][]string{}
	if p.Default > 0 {
		rows = append(rows, []string{"default", fmt.Sprint(p.Default)})
	}
	for _, k := range slices.Sorted(maps.Keys(p.Quotas)) {
		rows = append(rows, []string{k, fmt.Sprint(p.Quotas[k])})
	}
	return e.table(rows)
}
