package main

import (
	"context"
	"fmt"

	"github.com/anyfs/anyfs/fs"
	"github.com/urfave/cli/v2"
)

func verifyCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "check every signature, block and index entry of the home against each other",
		Description: `Prints what is wrong, one line each, and exits with 1 when there is something. Content that other devices made and that is not
here, or not yet, is counted and is not wrong.

Examples:
  anyfs verify
  anyfs verify --json`,
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runVerify(c.Context, e)
		},
	}
}

// verifyResult is what verify --json prints.
type verifyResult struct {
	Checked  int64        `json:"checked"` // batches, changes, blocks and index entries
	Absent   int          `json:"absent"`  // contents that are on other devices, or are still to come
	Void     int          `json:"void"`    // changes and contents of other devices that say nothing
	Problems []fs.Problem `json:"problems"`
}

func runVerify(ctx context.Context, e *env) error {
	bar := newBar(e, "verify")
	r, err := opVerify.follow(ctx, e, none{}, bar.event)
	bar.end(err == nil)
	if err != nil && exitCode(err) == exitFailed && ctx.Err() == nil {
		// What keeps the home from being opened, or from being checked further, is something wrong too.
		r.Problems = append(r.Problems, fs.Problem{Where: "home", Text: err.Error()})
		err = nil
	}
	if err != nil {
		return err
	}
	if e.json {
		err = e.printJSON(r)
	} else {
		for _, p := range r.Problems {
			where := p.Where
			if p.Space != "" {
				where = p.Space + ": " + where
			}
			if err := writeLine(e.stdout, printable(where+": "+p.Text)); err != nil {
				return err
			}
		}
		if len(r.Problems) == 0 {
			text := fmt.Sprintf("nothing wrong: %d changes, blocks and entries checked", r.Checked)
			if r.Absent > 0 {
				text += fmt.Sprintf("; %s not on this device", count(r.Absent, "content"))
			}
			if r.Void > 0 {
				text += fmt.Sprintf("; %s of other devices that cannot be read by anybody, and have no effect", count(r.Void, "change"))
			}
			err = writeLine(e.stdout, text)
		}
	}
	if err == nil && len(r.Problems) > 0 {
		what := "things are"
		if len(r.Problems) == 1 {
			what = "thing is"
		}
		return failf(exitFailed, "%d %s wrong", len(r.Problems), what)
	}
	return err
}
