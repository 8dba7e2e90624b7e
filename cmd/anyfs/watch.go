package main

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/fs"
)

func watchCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "watch",
		Usage:     "tell what changes, here and on other devices, as it happens",
		ArgsUsage: "[PATH]",
		Description: `A line for each change at PATH or below it, without PATH of everything, until it is interrupted: created, changed (content or
attributes), removed, renamed, with the device that did it. What this device writes is told when it is published, moments after
the write. With --json each line is an object with event, path, from (of renamed), dir, device, local, time. Where changes come
faster than they are read some are left out, and a line says overflow. It needs a mount.

Examples:
  anyfs watch
  anyfs watch ~/Any/Personal/notes
  anyfs watch Personal --json | jq -r .path`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 0, 1)
			if err != nil {
				return err
			}
			path := ""
			if len(a) == 1 {
				path = a[0]
			}
			return runWatch(c.Context, e, path)
		},
	}
}

// opWatch gives each change as an event. The first event has none: the watch has begun.
var opWatch = operation[pathParam, none]{"watch", func(ctx context.Context, h *home, p pathParam, out sink) (none, error) {
	if !h.mounted.Load() {
		return none{}, failf(exitFailed, "nothing is mounted, so nothing changes; 'anyfs mount DIR' first")
	}
	path := ""
	if p.Given != "" {
		var err error
		if path, err = h.resolve(p); err != nil {
			return none{}, err
		}
		if _, err := h.fs.PathIno(path); err != nil {
			return none{}, notFound(p.Given, err)
		}
	}
	// The daemon's end does not wait for who watches.
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		select {
		case <-h.ending:
			cancel(errEnding)
		case <-ctx.Done():
		}
	})
	err := h.fs.Watch(ctx, path, func() error { return out(event{}) }, func(c fs.Change) error { return out(event{Change: &c}) })
	if errors.Is(context.Cause(ctx), errEnding) {
		err = nil
	}
	return none{}, err
}}

var errEnding = errors.New("the daemon ends")

func runWatch(ctx context.Context, e *env, given string) error {
	var p pathParam
	if given != "" {
		var err error
		if p, err = e.pathParam(given); err != nil {
			return err
		}
	}
	_, err := opWatch.follow(ctx, e, p, func(ev event) error {
		if ev.Change == nil {
			e.say("Watching; Ctrl-C ends it.")
			return nil
		}
		if e.json {
			return e.printJSON(ev.Change)
		}
		return writeLine(e.stdout, changeLine(ev.Change))
	})
	if ctx.Err() != nil {
		return nil // it was interrupted, as it is meant to be
	}
	return err
}

// changeLine is a change for people.
func changeLine(c *fs.Change) string {
	parts := []string{c.Time.Local().Format("15:04:05"), c.Event}
	if c.From != "" {
		parts = append(parts, printable(c.From), "to")
	}
	if c.Path != "" {
		path := printable(c.Path)
		if c.Dir {
			path += "/"
		}
		parts = append(parts, path)
	}
	if !c.Local && c.Device != "" {
		parts = append(parts, "by "+printable(c.Device))
	}
	return strings.Join(parts, " ")
}
