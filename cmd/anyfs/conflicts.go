package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/fs"
)

func conflictsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "conflicts",
		Usage:     "list the conflict copies, or end a conflict",
		ArgsUsage: "[PATH]",
		Description: `Where two devices changed a file apart and it can't be merged, both are kept: one under the name, the other beside it as
'report (conflict LAPTOP 2026-11-27 XXXX).odt'. This lists these copies at PATH and below it, or those of the file PATH; without
PATH all. A copy that is renamed is none any more.

Examples:
  anyfs conflicts
  anyfs conflicts ~/Any/Personal/report.odt
  anyfs conflicts --json
  anyfs conflicts resolve ~/Any/Personal/report.odt --keep this`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 0, 1)
			if err != nil {
				return err
			}
			path := ""
			if len(a) == 1 {
				path = a[0]
			}
			return runConflicts(c.Context, e, path)
		},
		Subcommands: []*cli.Command{conflictsResolveCommand(e)},
	}
}

func conflictsResolveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "resolve",
		Usage:     "end the conflict of a file, on all devices",
		ArgsUsage: "PATH",
		Description: `PATH is the conflict copy, or the file that it is a copy of. --keep says what stays:
  this   what is at PATH, under the name of the file; the other is removed
  that   the other one
  both   both; the copy becomes a file of its own, as 'report (2).odt'
What is removed stays in the history: 'anyfs log PATH' and 'anyfs log --deleted FOLDER' show it.

Examples:
  anyfs conflicts resolve ~/Any/Personal/report.odt --keep this
  anyfs conflicts resolve 'Personal/report (conflict LAPTOP 2026-11-27 K7QD).odt' --keep this
  anyfs conflicts resolve Personal/report.odt --keep both`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "keep", Usage: "keep `WHICH`: this, that or both"}},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			if _, ok := keeps[c.String("keep")]; !ok {
				return failf(exitUsage, "say what to keep: --keep this (what is at PATH), --keep that (the other), or --keep both")
			}
			return runResolve(c.Context, e, a[0], c.String("keep"))
		},
	}
}

var keeps = map[string]fs.Keep{"this": fs.KeepThis, "that": fs.KeepThat, "both": fs.KeepBoth}

var opConflicts = operation[pathParam, []fs.Conflict]{"conflicts", func(_ context.Context, h *home, p pathParam, _ sink) ([]fs.Conflict, error) {
	if p.Given == "" {
		return h.fs.Conflicts("")
	}
	path, err := h.resolve(p)
	if err != nil {
		return nil, err
	}
	list, err := h.fs.Conflicts(path)
	return list, notFound(p.Given, err)
}}

type resolveParams struct {
	Path pathParam `json:"path"`
	Keep string    `json:"keep"`
}

var opResolve = operation[resolveParams, fs.Resolved]{"conflicts-resolve", func(_ context.Context, h *home, p resolveParams, _ sink) (fs.Resolved, error) {
	path, err := h.resolve(p.Path)
	if err != nil {
		return fs.Resolved{}, err
	}
	keep, ok := keeps[p.Keep]
	if !ok {
		return fs.Resolved{}, failf(exitUsage, "%q can't be kept", p.Keep)
	}
	r, err := h.fs.ResolveConflict(path, keep)
	switch {
	case errors.Is(err, fs.ErrNoConflict):
		err = failf(exitNotFound, "%s is no conflict copy and has none; 'anyfs conflicts' lists them", p.Path.Given)
	case errors.Is(err, fs.ErrSeveral):
		err = failf(exitUsage, "%s has several conflict copies; give the path of the one to keep, and --keep this ('anyfs conflicts %s' lists them)", p.Path.Given, p.Path.Given)
	case errors.Is(err, fs.ErrFolder):
		err = failf(exitFailed, "a folder has the name that %s lost; move the folder away, or use --keep both", p.Path.Given)
	}
	return r, notFound(p.Path.Given, err)
}}

func runConflicts(ctx context.Context, e *env, given string) error {
	var p pathParam
	if given != "" {
		var err error
		if p, err = e.pathParam(given); err != nil {
			return err
		}
	}
	list, err := opConflicts.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(list)
	}
	if len(list) == 0 {
		e.say("There are no conflicts.")
		return nil
	}
	rows := [][]string{{"COPY", "OF", "BY", "ON"}}
	for _, c := range list {
		of := c.Original
		if c.Gone {
			of += " (which is gone)"
		}
		rows = append(rows, []string{c.Path, of, c.Device, c.Date})
	}
	return e.table(rows)
}

func runResolve(ctx context.Context, e *env, given, keep string) error {
	p, err := e.pathParam(given)
	if err != nil {
		return err
	}
	r, err := opResolve.call(ctx, e, resolveParams{p, keep})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	text := printable(r.Path) + " is kept"
	for _, x := range []struct {
		what  string
		paths []string
	}{{"renamed", r.Renamed}, {"removed", r.Removed}} {
		if len(x.paths) > 0 {
			text += fmt.Sprintf("; %s: %s", x.what, printable(strings.Join(x.paths, ", ")))
		}
	}
	e.say("%s.", text)
	return nil
}
