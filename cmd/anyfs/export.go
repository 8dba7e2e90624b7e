package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func exportCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write a space with all of its history into one CAR file",
		ArgsUsage: "SPACE FILE.car",
		Description: `The file is encrypted as the space is: whoever has it and not the account reads no name and no byte. FILE must not be
there.

Examples:
  anyfs export Personal /media/backup/personal.car`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 2, 2)
			if err != nil {
				return err
			}
			return runExport(c.Context, e, a[0], a[1])
		},
	}
}

// runExport writes the file itself, so that a daemon never writes into its own mount. The file appears when it is whole.
func runExport(ctx context.Context, e *env, space, file string) error {
	file, err := e.abs(file)
	if err != nil {
		return err
	}
	f, err := createWhole(file)
	if err != nil {
		return err
	}
	defer f.discard()
	b := newBar(e, "export")
	r, err := opExport.follow(ctx, e, nameParams{Name: space}, func(ev event) error {
		if len(ev.Data) > 0 {
			_, err := f.Write(ev.Data)
			return err
		}
		return b.event(ev)
	})
	b.end(err == nil)
	if err != nil {
		return err
	}
	if err := f.commit(); err != nil {
		return err
	}
	if r.Absent > 0 {
		e.say("%s of pruned versions are not on this device, and not in the file.", count(r.Absent, "block"))
	}
	if r.Unpublished > 0 {
		e.say("%s of what you changed may not be published any more, and is not in the file; copy it from the mount.", count(r.Unpublished, "change"))
	}
	if e.json {
		return e.printJSON(r)
	}
	e.say("%s is in %s: %s and %s, %s in all.", printable(space), file, count(r.Changes, "change"), count(r.Blocks, "block"), formatBytes(r.Bytes))
	return nil
}
