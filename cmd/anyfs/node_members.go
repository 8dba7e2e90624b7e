package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/nodes/server"
)

// The commands by which the operator of a network says what nodes it has. They speak to the coordinator over the socket in its folder.

// coordinatorError gives an error of the coordinator its code.
func coordinatorError(err error) error {
	switch {
	case errors.Is(err, server.ErrNoNode), errors.Is(err, server.ErrUnknownNode):
		return &failure{exitNotFound, err}
	case errors.Is(err, server.ErrNoCoordinator):
		return &failure{exitUsage, err}
	}
	return err
}

func coordinatorFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "the coordinator's folder `DIR`"}
}

func nodeTokenCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "token",
		Usage: "make a token, with which one node joins the network",
		Description: `It is printed once; the coordinator, which runs, keeps a hash of it. It can be used once, within a day or as --for says.

Examples:
  anyfs node token --dir /srv/coordinator
  anyfs node token --dir /srv/coordinator --for 1h`,
		Flags: []cli.Flag{
			coordinatorFlag(),
			&cli.DurationFlag{Name: "for", Usage: "it can be used within this `TIME`, as 30m or 48h", Value: server.DefaultTokenFor},
		},
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			dir, err := nodeDir(c, e)
			if err != nil {
				return err
			}
			return runNodeToken(c.Context, e, dir, c.Duration("for"))
		},
	}
}

func runNodeToken(ctx context.Context, e *env, dir string, within time.Duration) error {
	if within <= 0 || within > server.MaxTokenFor {
		return failf(exitUsage, "a token can be used within %s at most", server.MaxTokenFor)
	}
	token, err := server.AskToken(ctx, dir, within)
	if err != nil {
		return coordinatorError(err)
	}
	if e.json {
		return e.printJSON(struct {
			Token   string    `json:"token"`
			Expires time.Time `json:"expires"`
		}{token, time.Now().Add(within).UTC().Truncate(time.Second)})
	}
	_, err = fmt.Fprintln(e.stdout, token)
	return err
}

func nodeListCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the nodes of a network",
		Description: `It shows what the coordinator, which runs, sees.

Examples:
  anyfs node list --dir /srv/coordinator
  anyfs node list --dir /srv/coordinator --json`,
		Flags:  []cli.Flag{coordinatorFlag()},
		Action: inNodeDir(e, runNodeList),
	}
}

func runNodeList(ctx context.Context, e *env, dir string) error {
	list, err := server.AskNodes(ctx, dir)
	if err != nil {
		return coordinatorError(err)
	}
	if e.json {
		return e.printJSON(list)
	}
	rows := [][]string{{"NODE", "KIND", "STATE", "ADDRESS"}}
	for _, x := range list {
		state := "not connected"
		switch {
		case x.Self:
			state = "this one"
		case x.Connected:
			state = "connected"
		}
		if x.Draining {
			state += ", draining"
		}
		for i, a := range x.Addresses {
			row := []string{x.PeerID, strings.Join(x.Kinds, ","), state, a}
			if i > 0 {
				row = []string{"", "", "", a}
			}
			rows = append(rows, row)
		}
	}
	return e.table(rows)
}

// nodeChangeCommand is of a change of one node.
func nodeChangeCommand(e *env, name, usage, description string, ask func(ctx context.Context, dir, node string) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "ID", Flags: []cli.Flag{coordinatorFlag()},
		Description: description + `

ID is as 'anyfs node list' shows it, or the beginning of it.

Examples:
  anyfs node ` + name + ` --dir /srv/coordinator 12D3KooW...`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			dir, err := nodeDir(c, e)
			if err != nil {
				return err
			}
			return coordinatorError(ask(c.Context, dir, a[0]))
		},
	}
}

func nodeDrainCommand(e *env) *cli.Command {
	return nodeChangeCommand(e, "drain", "have a node hand over what it holds, before it is removed",
		`The node goes on until the others hold all that it does; 'anyfs node status' on it tells how many spaces are left. When it is none, the node can be
stopped and removed.`, server.AskDrain)
}

func nodeRemoveCommand(e *env) *cli.Command {
	return nodeChangeCommand(e, "remove", "take a node out of the network",
		`Nobody speaks to it any more, and others take its place, who get what it held from those that hold it too. Drain a node first that still works:
what only it holds is gone with it.`, server.AskRemove)
}
