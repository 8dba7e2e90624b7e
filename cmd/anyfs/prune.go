package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/urfave/cli/v2"
)

func pruneCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "prune",
		Usage:     "free what old versions take on this device",
		ArgsUsage: "[SPACE]",
		Description: `Drops the content that only old versions refer to, oldest first; that they were, and when, stays in the log. What is
current is never dropped. A version is kept when it is younger than --keep-within or among the --keep-last newest of
its file. Without either, all content of old versions goes.

That is let go of on this device. Nodes keep what they have; what waits to be given to them (see 'anyfs status') is not given any more.

Examples:
  anyfs prune --keep-within 720h --dry-run
  anyfs prune Personal --keep-last 10`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "keep-within", Usage: "keep versions younger than `DURATION`, as in 36h, 30d or 2y"},
			&cli.StringFlag{Name: "keep-last", Usage: "keep the `N` newest versions of each file, the present one included"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be freed"},
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 0, 1)
			if err != nil {
				return err
			}
			p := pruneParams{DryRun: c.Bool("dry-run")}
			if len(a) == 1 {
				p.Space = a[0]
			}
			if s := c.String("keep-last"); c.IsSet("keep-last") {
				if p.KeepLast, err = strconv.Atoi(s); err != nil || p.KeepLast < 0 {
					return failf(exitUsage, "%q is no number of versions; write --keep-last 10", s)
				}
			}
			if s := c.String("keep-within"); c.IsSet("keep-within") {
				if p.KeepWithin, err = parseAge(s); err != nil {
					return err
				}
			}
			return runPrune(c.Context, e, p)
		},
	}
}

type pruneParams struct {
	Space      string        `json:"space,omitempty"` // "" for all
	KeepWithin time.Duration `json:"keep_within,omitempty"`
	KeepLast   int           `json:"keep_last,omitempty"`
	DryRun     bool          `json:"dry_run,omitempty"`
}

// pruneResult is what prune --json prints.
type pruneResult struct {
	fs.PruneResult
	DryRun bool `json:"dry_run"`
}

func runPrune(ctx context.Context, e *env, p pruneParams) error {
	r, err := opPrune.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	verb := "freed"
	if p.DryRun {
		verb = "would free"
	}
	return writeLine(e.stdout, fmt.Sprintf("%s %s of %s", verb, formatBytes(r.Bytes), count(r.Versions, "old version")))
}

// parseAge reads a duration that may be in days (d), weeks (w) or years (y) too.
func parseAge(s string) (time.Duration, error) {
	const day = 24 * time.Hour
	units := map[byte]time.Duration{'d': day, 'w': 7 * day, 'y': 365 * day}
	if unit, ok := units[(" " + s)[len(s)]]; ok {
		var n int64
		if _, err := fmt.Sscanf(s[:len(s)-1], "%d", &n); err == nil && n >= 0 && n <= int64(200*365*day/unit) && fmt.Sprint(n) == s[:len(s)-1] {
			return time.Duration(n) * unit, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, failf(exitUsage, "%q is no duration; write 30s, 36h, 30d, 8w or 2y", s)
}
