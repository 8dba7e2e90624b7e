package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
)

func quarantineCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "quarantine", Usage: "list what was written in a space by who might not any more", ArgsUsage: "SPACE",
		Description: `Who was removed, made a reader, or had its device revoked may have written before it heard of that, or lie about when it wrote.
What of it nobody had built on shows nowhere but on its own devices. An admin can take it in with 'anyfs adopt'.

Examples:
  anyfs quarantine Work
  anyfs quarantine Work --json`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			all, err := opQuarantine.call(c.Context, e, nameParams{a[0]})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(all)
			}
			if len(all) == 0 {
				e.say("Nothing in %s is in quarantine.", printable(a[0]))
				return nil
			}
			rows := [][]string{{"BATCH", "BY", "TIME", "CHANGES"}}
			for _, q := range all {
				what := strings.Join(q.Paths, ", ")
				if what == "" {
					what = count(q.Changes, "change")
				}
				rows = append(rows, []string{q.ID, q.By, q.Time, what})
			}
			return e.table(rows)
		},
	}
}

func adoptCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "adopt", Usage: "take in what is in quarantine, for all members", ArgsUsage: "SPACE BATCH...",
		Description: `It takes an admin. A BATCH comes with what its author had written before it. Look at who wrote it first: that may be somebody
else, with a device that was stolen. With --all it is all that is in quarantine.

Examples:
  anyfs quarantine Work
  anyfs adopt Work bafyr4i...
  anyfs adopt Work --all`,
		Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "all that is in quarantine"}},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1000)
			if err != nil {
				return err
			}
			if c.Bool("all") != (len(a) == 1) {
				return failf(exitUsage, "name batches, as 'anyfs quarantine %s' lists them, or give --all", a[0])
			}
			r, err := opAdopt.call(c.Context, e, adoptParams{a[0], a[1:]})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(r)
			}
			e.say("%s of %s show now.", batchCount(r.Adopted), printable(a[0]))
			return nil
		},
	}
}

func batchCount(n int) string {
	if n == 1 {
		return "1 batch"
	}
	return fmt.Sprintf("%d batches", n)
}

// quarantined is an element of what quarantine --json prints.
type quarantined struct {
	ID      string   `json:"id"`
	By      string   `json:"by"` // the member's name, or the device's
	Account string   `json:"account"`
	Device  string   `json:"device"`
	Time    string   `json:"time,omitempty"`
	Changes int      `json:"changes"`
	Paths   []string `json:"paths"`
}

var opQuarantine = operation[nameParams, []quarantined]{"quarantine", func(_ context.Context, h *home, p nameParams, _ sink) ([]quarantined, error) {
	out := []quarantined{}
	all, err := h.fs.Quarantined(p.Name)
	if err != nil {
		return out, shareError(p.Name, err)
	}
	people, err := h.fs.Members(p.Name)
	if err != nil {
		return out, shareError(p.Name, err)
	}
	for _, q := range all {
		x := quarantined{
			ID: q.ID.String(), By: q.Device, Account: acl.FormatIdentity(q.Account), Device: q.Device, Time: stamp(q.Time),
			Changes: q.Changes, Paths: append([]string{}, q.Paths...),
		}
		for _, m := range people {
			if m.Account == q.Account && m.Name != "" && m.Name != q.Device {
				x.By = m.Name + ", " + q.Device
			}
		}
		out = append(out, x)
	}
	return out, nil
}}

type adoptParams struct {
	Space   string   `json:"space"`
	Batches []string `json:"batches"` // their IDs, or the beginnings of them; none: all that are in quarantine
}

type adoptResult struct {
	Adopted int `json:"adopted"`
}

var opAdopt = operation[adoptParams, adoptResult]{"adopt", func(_ context.Context, h *home, p adoptParams, _ sink) (r adoptResult, err error) {
	all, err := h.fs.Quarantined(p.Space)
	if err != nil {
		return r, shareError(p.Space, err)
	}
	var ids []dag.ID
	for _, q := range all {
		if len(p.Batches) == 0 {
			ids = append(ids, q.ID)
		}
	}
	for _, given := range p.Batches {
		found := 0
		for _, q := range all {
			if id := q.ID.String(); id == given || len(given) >= 8 && strings.HasPrefix(id, given) {
				ids = append(ids, q.ID)
				found++
			}
		}
		if found != 1 {
			return r, failf(exitNotFound, "no batch of %s in quarantine is %s, or several are; 'anyfs quarantine %s' lists them", p.Space, given, p.Space)
		}
	}
	if len(ids) == 0 {
		return r, nil
	}
	r.Adopted, err = h.fs.Adopt(p.Space, ids)
	if errors.Is(err, fs.ErrNotExist) {
		return r, failf(exitNotFound, "what was in quarantine has changed meanwhile; 'anyfs quarantine %s' lists it", p.Space)
	}
	h.announce()
	return r, shareError(p.Space, err)
}}
