package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"
)

func spaceCreateCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a space",
		ArgsUsage: "NAME",
		Description: `mkdir in the mount does the same. The space is on the default network, if there is one, or on the one that --network names.

With --with WHO it is a one-to-one space: it belongs to you and WHO alone, for good. Nobody else can be invited, and neither of you can remove the other; each can leave. When WHO
gives the same command with you, it is the same space, also if neither was connected. WHO is somebody you share a space with, by name, fingerprint or account, or what 'anyfs account
card' prints on their side. NAME is what it is called in your mount, otherwise as they are; the other one may call it as it likes.

Examples:
  anyfs space create Work
  anyfs space create Work --network z6Mk...
  anyfs space create --with Bob
  anyfs space create --with z6MkhaXg Bob`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "network", Usage: "put it on `NETWORK`: its ID, or the beginning, as 'anyfs network list' shows it"},
			&cli.StringFlag{Name: "with", Usage: "make it the one-to-one space with `WHO`"},
		},
		Action: func(c *cli.Context) error {
			if c.IsSet("with") {
				if c.IsSet("network") {
					return failf(exitUsage, "--with and --network don't go together; say afterwards with 'anyfs space network' where it is to be")
				}
				a, err := args(c, 0, 1)
				if err != nil {
					return err
				}
				p := withParams{With: c.String("with")}
				if len(a) > 0 {
					p.Name = a[0]
				}
				return runSpaceWith(c.Context, e, p)
			}
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

func runSpaceWith(ctx context.Context, e *env, p withParams) error {
	info, err := opSpaceWith.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(info)
	}
	if err := writeLine(e.stdout, info.ID); err != nil {
		return err
	}
	e.say("It is called %s here. Compare the fingerprint of the other one, whom 'anyfs members %s' shows.", printable(info.Name), printable(info.Name))
	return nil
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
