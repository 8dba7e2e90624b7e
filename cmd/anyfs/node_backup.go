package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/nodes/backup"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/nodes/server"
)

func nodeBackupCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "backup",
		Usage:     "write all that a node holds into one file, while it runs",
		ArgsUsage: "FILE",
		Description: `A FILE that is a backup of the node already gets what came since, so that it can be run each night; a new FILE gets everything. If it is killed,
the file is the backup that it was, and the next run goes on. The node may run or not. The file holds the keys of the node (and of the network, on a
coordinator), so keep it as them; it holds no key to what devices wrote. Tokens that were not used yet are not in it.

Examples:
  anyfs node backup --dir /srv/anyfs /media/backup/node.anyfs`,
		Flags: []cli.Flag{nodeDirFlag()},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			dir, err := nodeDir(c, e)
			if err != nil {
				return err
			}
			file, err := e.abs(a[0])
			if err != nil {
				return err
			}
			return runNodeBackup(c.Context, e, dir, file)
		},
	}
}

func runNodeBackup(ctx context.Context, e *env, dir, file string) error {
	r, err := server.Backup(ctx, dir, file, stderrLog(e))
	if err != nil {
		return backupError(err)
	}
	for _, d := range r.Damaged {
		e.say("Not in the backup, for it does not read here: %s", d)
	}
	if e.json {
		err = e.printJSON(r)
	} else {
		what := "added"
		if r.Whole {
			what = "written"
		}
		e.say("%s %s: %s of %s, and %s.", count(int(r.Bytes), "byte"), what, count(int(r.Changes), "change"), count(r.Spaces, "space"), count(int(r.Blocks), "block"))
	}
	if err == nil && len(r.Damaged) > 0 {
		err = errSilent
	}
	return err
}

func nodeRestoreCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "make a node's folder from a backup",
		ArgsUsage: "FILE",
		Description: `DIR must be new or empty. All of the backup is checked on the way; where it is damaged, the place is named and DIR is no node's folder. If it is
killed, run it again. Start the node on DIR afterwards as it was started before: it is the same node, and gets what came since the backup from the
others of its network and from devices. Never run it while the old one runs. With --check the file is only read, with --s3 and --bucket content goes into a
bucket.

Examples:
  anyfs node restore --dir /srv/anyfs /media/backup/node.anyfs
  anyfs node restore --check /media/backup/node.anyfs`,
		Flags: append([]cli.Flag{nodeDirFlag(), &cli.BoolFlag{Name: "check", Usage: "only check that the backup is whole"}}, bucketFlags()...),
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			dir := ""
			if c.Bool("check") {
				if c.String("dir") != "" {
					return failf(exitUsage, "--check restores nothing; leave --dir out")
				}
			} else if dir, err = nodeDir(c, e); err != nil {
				return err
			}
			file, err := e.abs(a[0])
			if err != nil {
				return err
			}
			return runNodeRestore(c.Context, e, dir, file, bucketOf(c))
		},
	}
}

func runNodeRestore(ctx context.Context, e *env, dir, file string, s3 *s3blocks.Options) error {
	r, err := server.Restore(ctx, dir, file, s3, stderrLog(e))
	if err != nil {
		return backupError(err)
	}
	if r.Torn > 0 {
		e.say("The last run of the backup was not finished; its %s are left out.", count(int(r.Torn), "byte"))
	}
	if e.json {
		return e.printJSON(r)
	}
	e.say("Node %s as of %s: %s, %s, %s.", r.Node, r.Time, count(r.Spaces, "space"), count(int(r.Changes), "change"), count(int(r.Blocks), "block"))
	return nil
}

func stderrLog(e *env) *slog.Logger {
	return slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// backupError gives an error of a backup its code.
func backupError(err error) error {
	switch {
	case errors.Is(err, server.ErrInUse):
		return &failure{exitBusy, err}
	case errors.Is(err, server.ErrNotEmpty), errors.Is(err, backup.ErrForm):
		return &failure{exitUsage, err}
	}
	return err
}
