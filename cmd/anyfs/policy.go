package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/sync/exchange"
)

func spacePolicyCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "policy",
		Usage:     "say which content of a space this device holds",
		ArgsUsage: "SPACE [mirror|on-demand]",
		Description: `A mirror (the default) gets the content of all that is current by itself, and keeps it. On demand names, sizes and attributes
are there at once, and content is fetched when it is read. What was read least recently goes again when more than --cache-limit is here, or
less than 1 GiB (or 5%, whichever is smaller) is free on the disk: but nothing that no other device of yours has promised to keep, and
nothing that is pinned or not published yet. A device on demand makes no such promise. Another device must mirror the space.

This is a setting of this device alone. Without mirror or on-demand it is shown.

Examples:
  anyfs space policy Photos on-demand --cache-limit 20G
  anyfs space policy Photos mirror
  anyfs space policy Photos`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "cache-limit", Usage: "hold about `SIZE` at most, as in 500M or 20G (on-demand only)"},
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 2)
			if err != nil {
				return err
			}
			p := policyParams{Space: a[0]}
			if len(a) == 2 {
				p.Policy = a[1]
			}
			switch p.Policy {
			case "mirror", "on-demand":
			case "":
				if len(a) == 1 {
					break
				}
				fallthrough
			default:
				return failf(exitUsage, "%q is no policy; write mirror or on-demand", p.Policy)
			}
			if c.IsSet("cache-limit") {
				if p.Policy != "on-demand" {
					return failf(exitUsage, "--cache-limit goes with on-demand")
				}
				if p.CacheLimit, err = parseSize(c.String("cache-limit")); err != nil {
					return err
				}
			}
			return runSpacePolicy(c.Context, e, p)
		},
	}
}

type policyParams struct {
	Space      string `json:"space"`
	Policy     string `json:"policy,omitempty"` // "" asks
	CacheLimit int64  `json:"cache_limit,omitempty"`
}

// policyResult is what space policy --json prints.
type policyResult struct {
	Policy     string `json:"policy"`
	CacheLimit int64  `json:"cache_limit,omitempty"`
}

func runSpacePolicy(ctx context.Context, e *env, p policyParams) error {
	r, err := opSpacePolicy.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	if p.Policy != "" {
		return nil
	}
	return writeLine(e.stdout, policyText(r.Policy, r.CacheLimit))
}

// policyText is how a policy is shown.
func policyText(policy string, limit int64) string {
	if limit > 0 {
		return policy + ", at most " + formatBytes(limit)
	}
	return policy
}

var opSpacePolicy = operation[policyParams, policyResult]{"space-policy", func(_ context.Context, h *home, p policyParams, _ sink) (policyResult, error) {
	if p.Policy != "" {
		if err := h.fs.SetPolicy(p.Space, fs.ContentPolicy{OnDemand: p.Policy == "on-demand", CacheLimit: p.CacheLimit}); err != nil {
			return policyResult{}, spaceError(p.Space, err)
		}
	}
	i, err := h.fs.Space(p.Space)
	return policyResult{i.Policy, i.CacheLimit}, spaceError(p.Space, err)
}}

// parseSize reads a number of bytes, with K, M, G or T for powers of 1,024.
func parseSize(s string) (int64, error) {
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	unit := int64(1)
	if n := len(digits); n > 0 {
		if i := strings.IndexByte("KMGT", digits[n-1]); i >= 0 {
			unit, digits = 1<<(10*(i+1)), digits[:n-1]
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > (1<<60)/unit {
		return 0, failf(exitUsage, "%q is no size; write 500M, 20G or 2T", s)
	}
	return n * unit, nil
}

func pinCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "pin",
		Usage:     "keep the content of a file or folder on this device",
		ArgsUsage: "PATH",
		Description: `What is pinned is fetched at once, before all but what somebody reads, and stays, whatever the policy of its space says. Of a
folder that is all that is in it, now and later. It is a setting of this device, and goes with the file or folder where that is moved to. The
attribute user.anyfs.pin says the same: 1 pins, 0 ends it.

Examples:
  anyfs pin ~/Any/Photos/2026
  anyfs unpin ~/Any/Photos/2026
  setfattr -n user.anyfs.pin -v 1 ~/Any/Photos/2026`,
		Action: func(c *cli.Context) error { return runPin(c, e, true) },
	}
}

func unpinCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "unpin",
		Usage:     "let the content of what was pinned go again",
		ArgsUsage: "PATH",
		Description: `Its content goes when room is needed, or by 'anyfs evict'. What lies in a folder that is pinned stays so.

Examples:
  anyfs unpin ~/Any/Photos/2026`,
		Action: func(c *cli.Context) error { return runPin(c, e, false) },
	}
}

type pinParams struct {
	Path pathParam `json:"path"`
	Pin  bool      `json:"pin"`
}

// pinResult is what pin and unpin --json print.
type pinResult struct {
	Path string      `json:"path"`
	Pin  fs.PinState `json:"pin"`
}

func runPin(c *cli.Context, e *env, pin bool) error {
	a, err := args(c, 1, 1)
	if err != nil {
		return err
	}
	p := pinParams{Pin: pin}
	if p.Path, err = e.pathParam(a[0]); err != nil {
		return err
	}
	r, err := opPin.call(c.Context, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	if !pin && r.Pin == fs.PinnedAbove {
		e.say("%s stays pinned: a folder that it is in is.", a[0])
	}
	return nil
}

var opPin = operation[pinParams, pinResult]{"pin", func(_ context.Context, h *home, p pinParams, _ sink) (pinResult, error) {
	path, err := h.resolvePast(p.Path)
	if err != nil {
		return pinResult{}, err
	}
	state, err := h.fs.Pin(path, p.Pin)
	return pinResult{path, state}, notFound(p.Path.Given, err)
}}

func evictCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "evict",
		Usage:     "let the content of a file or folder go from this device",
		ArgsUsage: "PATH",
		Description: `Names, sizes and attributes stay, and content is fetched again when it is read. Content goes only when another device of yours has
promised to keep it; what is pinned or being written stays. The space must be on demand here: see 'anyfs help space policy'.

Examples:
  anyfs evict ~/Any/Photos/2019`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			p, err := e.pathParam(a[0])
			if err != nil {
				return err
			}
			r, err := opEvict.call(c.Context, e, p)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(r)
			}
			text := "freed " + formatBytes(r.Bytes)
			if r.Kept > 0 {
				text += fmt.Sprintf("; %s stay, since no other device keeps them", count(r.Kept, "block"))
			}
			if r.Pinned > 0 {
				text += fmt.Sprintf("; %s pinned", count(r.Pinned, "file"))
			}
			if r.Dirty > 0 {
				text += fmt.Sprintf("; %s not published yet", count(r.Dirty, "file"))
			}
			return writeLine(e.stdout, text)
		},
	}
}

var opEvict = operation[pathParam, fs.EvictResult]{"evict", func(ctx context.Context, h *home, p pathParam, _ sink) (fs.EvictResult, error) {
	path, err := h.resolvePast(p)
	if err != nil {
		return fs.EvictResult{}, err
	}
	r, err := h.fs.Evict(ctx, path)
	if errors.Is(err, exchange.ErrOffline) && r.Blocks == 0 {
		return r, failf(exitFailed, "no other device of yours is connected that could promise to keep the content of %s", p.Given)
	}
	if errors.Is(err, exchange.ErrOffline) {
		err = nil // what could go has
	}
	if errors.Is(err, fs.ErrMirrored) {
		return r, failf(exitFailed, "%s: %w", p.Given, err)
	}
	return r, notFound(p.Given, err)
}}
