package main

import (
	"context"
	"fmt"

	"github.com/anyfs/anyfs/fs"
	"github.com/urfave/cli/v2"
)

func logCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "list the versions of a file or folder, or what was deleted in one",
		ArgsUsage: "PATH",
		Description: `The newest version comes first: its ID, when it was made, on which device, how many bytes it has, and what changed.
Of what was deleted it is when, what, how many bytes, and where. 'anyfs restore' brings either back. PATH is relative to the
current folder, or begins with a space.

A version is marked where its author had lost the right to write, as by being removed, before it was known to who ended that; it
counts since another member built on it before hearing of it. What nobody built on is shown by 'anyfs quarantine'.

Examples:
  anyfs log ~/Any/Personal/report.odt
  anyfs log --deleted ~/Any/Personal
  anyfs log Personal/report.odt --json`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "deleted", Usage: "list what was deleted in the folder PATH"}},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			if c.Bool("deleted") {
				return runLogDeleted(c.Context, e, a[0])
			}
			return runLog(c.Context, e, a[0])
		},
	}
}

// versionEntry is one version as log --json prints it.
type versionEntry struct {
	fs.Version
	What string `json:"what"` // what changed, on one line
}

func runLog(ctx context.Context, e *env, given string) error {
	p, err := e.pathParam(given)
	if err != nil {
		return err
	}
	versions, err := opLog.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(versions)
	}
	if len(versions) == 0 {
		e.say("%s is a space, of which no version is kept; 'anyfs log --deleted %s' lists what was deleted in it.", given, given)
		return nil
	}
	rows := [][]string{}
	for _, v := range versions {
		size, mark := "-", ""
		if v.Size >= 0 {
			size = fmt.Sprint(v.Size)
		}
		switch {
		case v.Current:
			mark = " (current)"
		case v.Pruned:
			mark = " (pruned)"
		}
		if v.Lapsed {
			mark += " (by who had lost the right to write; counts since others built on it)"
		}
		rows = append(rows, []string{v.Short, formatTime(v.Time), v.Device.Name, size, v.What + mark})
	}
	return e.table(rows)
}

func runLogDeleted(ctx context.Context, e *env, given string) error {
	p, err := e.pathParam(given)
	if err != nil {
		return err
	}
	list, err := opDeleted.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(list)
	}
	if len(list) == 0 {
		e.say("Nothing was deleted in %s.", given)
		return nil
	}
	rows := [][]string{}
	for _, d := range list {
		size := "-"
		if d.Size >= 0 {
			size = fmt.Sprint(d.Size)
		}
		rows = append(rows, []string{formatTime(d.Time), d.Kind, size, d.Path})
	}
	return e.table(rows)
}
