package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
)

func spaceCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "create",
		Usage:       "make a space",
		ArgsUsage:   "NAME",
		Description: "mkdir in the mount does the same. The space is on the default network, if there is one, or on the one that --network names.\n\nExamples:\n  anyfs space create Work\n  anyfs space create Work --network z6Mk...",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "network", Usage: "put it on `NETWORK`: its ID, or the beginning, as 'anyfs network list' shows it"}},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			return runSpaceCreate(c.Context, e, a[0], c.String("network"))
		},
	}
}

func runSpaceCreate(ctx context.Context, e *env, name, network string) error {
	info, err := opSpaceCreate.call(ctx, e, createParams{Name: name, Network: network})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(info)
	}
	return writeLine(e.stdout, info.ID)
}

func spaceListCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "list the spaces",
		Description: "Examples:\n  anyfs space list\n  anyfs space list --json",
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runSpaceList(c.Context, e)
		},
	}
}

func runSpaceList(ctx context.Context, e *env) error {
	spaces, err := opSpaceList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(spaces)
	}
	rows := [][]string{}
	for _, s := range spaces {
		rows = append(rows, []string{s.Name, s.Role, s.ID, policyText(s.Policy, s.CacheLimit)})
	}
	return e.table(rows)
}

func spaceInfoCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "info",
		Usage:     "show what a space holds and what its history takes",
		ArgsUsage: "SPACE",
		Description: `Content and history are counted in blocks, and history is what 'anyfs prune' can free. What is in files of up to 8 KiB
lies in the log of changes instead.

Examples:
  anyfs space info Personal`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			return runSpaceInfo(c.Context, e, a[0])
		},
	}
}

func runSpaceInfo(ctx context.Context, e *env, name string) error {
	s, err := opSpaceInfo.call(ctx, e, nameParams{Name: name})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(s)
	}
	if s.Problem != "" {
		return e.table([][]string{{"name", s.Name}, {"id", s.ID}, {"state", s.State}, {"problem", s.Problem}})
	}
	return e.table([][]string{
		{"name", s.Name},
		{"id", s.ID},
		{"role", s.Role},
		{"content here", policyText(s.Policy, s.CacheLimit)},
		{"objects", fmt.Sprint(s.Objects)},
		{"current content", formatBytes(s.ContentBytes)},
		{"history", formatBytes(s.HistoryBytes)},
		{"blocks on disk", formatBytes(s.DiskBytes)},
	})
}

func spaceRenameCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "rename",
		Usage:       "give a space another name",
		ArgsUsage:   "OLD NEW",
		Description: "mv in the mount does the same.\n\nExamples:\n  anyfs space rename Work Archive",
		Action: func(c *cli.Context) error {
			a, err := args(c, 2, 2)
			if err != nil {
				return err
			}
			s, err := opSpaceRename.call(c.Context, e, renameParams{Old: a[0], New: a[1]})
			if err != nil || !e.json {
				return err
			}
			return e.printJSON(s)
		},
	}
}

func spaceDeleteCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "delete",
		Usage:     "delete a space from this device, with all that is in it",
		ArgsUsage: "SPACE",
		Description: `What is in the space and its history is gone from this device, and cannot be brought back from it. On a terminal you
are asked first. rmdir in the mount deletes a space that is empty.

Examples:
  anyfs space delete Old
  anyfs space delete Old --yes`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "yes", Usage: "do not ask"}},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			return runSpaceDelete(c.Context, e, a[0], c.Bool("yes"))
		},
	}
}

func runSpaceDelete(ctx context.Context, e *env, name string, yes bool) error {
	if e.interactive() && !yes {
		s, err := opSpaceInfo.call(ctx, e, nameParams{Name: name})
		if err != nil {
			return err
		}
		answer, err := e.askLine(fmt.Sprintf("Delete the space %s with its %d objects and all history? Type its name to go on: ", s.Name, s.Objects))
		if err != nil {
			return err
		}
		if answer != s.Name {
			return failf(exitFailed, "nothing is deleted")
		}
	}
	s, err := opSpaceDelete.call(ctx, e, nameParams{Name: name})
	if err != nil || !e.json {
		return err
	}
	return e.printJSON(s)
}
