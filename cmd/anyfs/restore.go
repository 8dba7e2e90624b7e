package main

import (
	"context"
	"os"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/urfave/cli/v2"
)

func restoreCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "bring back an old version, or what was deleted",
		ArgsUsage: "PATH",
		Description: `Without --version it is the version before the present one, or of a deleted path its last. What is there now stays in
the history. A folder that was deleted comes back with what was in it; of one that is there, what is in it comes to be
as it was at the time that --version names. Times are local, or have their zone behind them (Z, +02:00). 'anyfs log PATH' lists the versions, 'anyfs log --deleted DIR' what was
deleted.

Examples:
  anyfs restore ~/Any/Personal/report.odt
  anyfs restore ~/Any/Personal/report.odt --version 2026-01-31T12:00
  anyfs restore ~/Any/Personal/report.odt --version q3xw7zba --to ~/Any/Personal/old.odt
  anyfs restore ~/Any/Personal/deleted.txt --to /tmp/deleted.txt`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "version", Usage: "the version `ID` as log shows it, or the one of a time"},
			&cli.StringFlag{Name: "to", Usage: "put it at `DEST`, which must not be there, instead of PATH"},
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			return runRestore(c.Context, e, a[0], c.String("version"), c.String("to"))
		},
	}
}

// restoreParams say what to bring back. To is empty for the same place.
type restoreParams struct {
	Path    pathParam  `json:"path"`
	Version string     `json:"version,omitempty"`
	Said    string     `json:"said,omitempty"` // how the version was given
	To      *pathParam `json:"to,omitempty"`
}

// restoreResult tells where it is. Outside says that To is not in the home: then the caller writes the content there.
type restoreResult struct {
	fs.RestoreResult
	Outside bool `json:"outside,omitempty"`
}

func runRestore(ctx context.Context, e *env, given, version, to string) error {
	p, err := e.pathParam(given)
	if err != nil {
		return err
	}
	params := restoreParams{Path: p, Version: inUTC(version, time.Local), Said: version}
	if to != "" {
		dest, err := e.pathParam(to)
		if err != nil {
			return err
		}
		if abs, err := e.abs(to); err == nil {
			dest.Through = passes(abs)
		}
		params.To = &dest
	}
	r, err := opRestore.call(ctx, e, params)
	if err != nil {
		return err
	}
	if r.Outside {
		params.Version = r.Version
		if r.Bytes, r.Version, err = writeContent(ctx, e, params); err != nil {
			return err
		}
		r.Path, r.Files = params.To.Abs, 1
	}
	for _, skipped := range r.Skipped {
		e.say("not restored: %s", printable(skipped))
	}
	if e.json {
		err = e.printJSON(r)
	} else {
		e.say("%s", r.summary())
	}
	if err == nil && len(r.Skipped) > 0 {
		err = failf(exitFailed, "%d of what was to be restored could not be", len(r.Skipped))
	}
	return err
}

// inUTC gives a version that is a time in UTC: it is meant in the zone of who types it, which need not be the daemon's.
func inUTC(version string, zone *time.Location) string {
	t, err := fs.ParseVersionTime(version, zone)
	if err != nil {
		return version
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000000Z")
}

// summary says what was restored.
func (r *restoreResult) summary() string {
	what := formatBytes(r.Bytes)
	if r.Files != 1 || r.Dirs > 0 {
		what = count(r.Files, "file") + " and " + count(r.Dirs, "folder") + ", " + what
	}
	if r.Version != "" {
		what = "version " + r.Version[max(0, len(r.Version)-8):] + ", " + what
	}
	return "restored " + printable(r.Path) + " (" + what + ")"
}

// writeContent writes a version to a file outside of the home, which appears whole or not at all. It gives the length and the
// version.
func writeContent(ctx context.Context, e *env, p restoreParams) (n int64, version string, err error) {
	f, err := createWhole(p.To.Abs)
	if err != nil {
		return 0, "", err
	}
	defer f.discard()
	r, err := opContent.follow(ctx, e, p, func(ev event) error {
		_, err := f.WriteAt(ev.Data, n)
		n += int64(len(ev.Data)) + ev.Hole
		return err
	})
	if err == nil {
		err = f.Truncate(n) // it may end in a hole
	}
	if err != nil {
		return n, "", err
	}
	if err := f.Chmod(os.FileMode(r.Mode & 0o777)); err != nil {
		return n, "", err
	}
	return n, r.Version, f.commit()
}
