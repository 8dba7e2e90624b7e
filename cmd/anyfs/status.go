package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/fs"
)

func statusCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show the home, or one path, and what is still under way",
		ArgsUsage: "[PATH]",
		Description: `TO SEND and TO FETCH count batches of changes, and blocks of content, that no other device is known to hold, or that are to come
from others. Of a path it says whether it is pending (not published), local (on this device alone, as far as is known) or synced,
and which device changed it last.

--wait returns when all that was done before is durable, published and held by at least one other device, and all that is known of
is here. Where no other device is known it returns when it is durable and published; with --here always. What you wrote when you had
lost the right to write, and had not heard of it, counts with nobody else and is not waited for; a line says how much that is.

Examples:
  anyfs status
  anyfs status --json
  anyfs status ~/Any/Personal/report.odt
  anyfs status --wait --timeout 30s
  anyfs status --wait --here`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "wait", Usage: "wait until nothing is under way"},
			&cli.BoolFlag{Name: "here", Usage: "with --wait: do not wait for other devices"},
			&cli.StringFlag{Name: "timeout", Usage: "wait at most `DURATION`, as in 30s or 5m; then exit with 4"},
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 0, 1)
			if err != nil {
				return err
			}
			path := ""
			if len(a) == 1 {
				path = a[0]
			}
			if c.Bool("here") && !c.Bool("wait") {
				return failf(exitUsage, "--here goes with --wait")
			}
			var timeout time.Duration
			if c.IsSet("timeout") {
				if !c.Bool("wait") {
					return failf(exitUsage, "--timeout goes with --wait")
				}
				if timeout, err = parseAge(c.String("timeout")); err != nil {
					return err
				}
				timeout = max(timeout, 10*time.Millisecond) // long enough to see that nothing is under way
			}
			return runStatus(c.Context, e, path, c.Bool("wait"), c.Bool("here"), timeout)
		},
	}
}

func runStatus(ctx context.Context, e *env, path string, wait, here bool, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	if wait {
		if err := waitSettled(ctx, e, here); err != nil {
			return inTime(ctx, timeout, err)
		}
	}
	return inTime(ctx, timeout, showStatus(ctx, e, path))
}

// inTime tells of the end of the time that there was where that is why something failed.
func inTime(ctx context.Context, timeout time.Duration, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		var l *leftError
		if errors.As(err, &l) {
			return failf(exitTimeout, "this is still under way after %v: %s", timeout, strings.Join(l.left, "; "))
		}
		return failf(exitTimeout, "something is still under way after %v", timeout)
	}
	return err
}

func showStatus(ctx context.Context, e *env, path string) error {
	if path != "" {
		return runPathStatus(ctx, e, path)
	}
	s, err := opStatus.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(s)
	}
	where := "not mounted"
	if s.Mountpoint != "" {
		where = fmt.Sprintf("mounted at %s (daemon %d)", s.Mountpoint, s.PID)
	}
	about := [][]string{{"account", s.Account}, {"device", s.Device.Name + ", " + s.Device.PeerID}, {"home", e.home}, {"state", where}}
	if s.Paused {
		about = append(about, []string{"exchange", "paused; 'anyfs resume' goes on"})
	}
	if l := s.Limits.text(); l != "" {
		about = append(about, []string{"limits", l})
	}
	for _, a := range reachable(s.Listen) {
		about = append(about, []string{"address", a})
	}
	for _, p := range s.Peers {
		about = append(about, []string{"peer", cmp.Or(p.Device, p.PeerID) + ", " + p.where() + ": " + strings.Join(p.Spaces, ", ")})
	}
	for _, x := range s.Networks {
		about = append(about, []string{"network", x.text()})
	}
	if err := e.table(about); err != nil {
		return err
	}
	if s.Revoked {
		if err := writeLine(e.stdout, "\nTHIS DEVICE WAS REVOKED: "+revokedText); err != nil {
			return err
		}
	}
	if s.ReadOnly != "" {
		if err := writeLine(e.stdout, "\nTHE HOME IS READ-ONLY: "+printable(s.ReadOnly)); err != nil {
			return err
		}
	}
	if err := writeLine(e.stdout, ""); err != nil {
		return err
	}
	rows := [][]string{{"SPACE", "ROLE", "STATE", "OBJECTS", "PENDING", "PEERS", "TO SEND", "TO FETCH", "CONFLICTS"}}
	both := func(changes string, n, blocks int) string {
		switch {
		case n+blocks == 0:
			return "-"
		case n == 0:
			return count(blocks, "block")
		case blocks == 0:
			return changes
		}
		return changes + ", " + count(blocks, "block")
	}
	for _, sp := range s.Spaces {
		rows = append(rows, []string{
			sp.Name, sp.Role, sp.State, fmt.Sprint(sp.Objects), both(count(sp.PendingChanges, "change"), sp.PendingChanges, sp.PendingBlocks),
			fmt.Sprint(len(sp.Peers)), both(batches(sp.ToSend), sp.ToSend, sp.SendBlocks),
			both(batches(sp.FetchChanges), sp.FetchChanges, sp.FetchBlocks), fmt.Sprint(sp.Conflicts),
		})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	for _, sp := range s.Spaces {
		if sp.Problem != "" {
			if err := writeLine(e.stdout, "\n"+printable(sp.Name)+" CAN'T BE USED: "+printable(sp.Problem)); err != nil {
				return err
			}
		}
		if sp.KeptChanges > 0 {
			line := fmt.Sprintf("\n%s: %s on this device alone, as it may not write there any more. The mount shows what you wrote: copy it from there",
				printable(sp.Name), stay(sp.KeptChanges))
			if err := writeLine(e.stdout, line); err != nil {
				return err
			}
		}
		if sp.UnheardChanges > 0 {
			line := fmt.Sprintf("\n%s: %s with others, as you had lost the right to write when you made %s. Your own devices show what you wrote; "+
				"others will once you may write again, or an admin takes it in with 'anyfs adopt'", printable(sp.Name), unheard(sp.UnheardChanges), them(sp.UnheardChanges))
			if err := writeLine(e.stdout, line); err != nil {
				return err
			}
		}
		if sp.Preview != "" {
			line := fmt.Sprintf("\n%s: read-only until the history is here; what is shown is a preview %s", printable(sp.Name), printable(sp.Preview))
			if err := writeLine(e.stdout, line); err != nil {
				return err
			}
		}
		if sp.Quarantined > 0 {
			line := fmt.Sprintf("\n%s: %s by who might not write any more, in quarantine; 'anyfs quarantine' lists what", printable(sp.Name), batches(sp.Quarantined))
			if err := writeLine(e.stdout, line); err != nil {
				return err
			}
		}
		for _, x := range sp.Networks {
			if len(s.Networks) < 2 && x.Problem == "" {
				continue // what there is to say of it is said above
			}
			if err := writeLine(e.stdout, "\n"+printable(sp.Name)+" on "+x.ID+": "+x.text()); err != nil {
				return err
			}
		}
		for _, d := range sp.Doubts {
			if err := writeLine(e.stdout, "\n"+printable(sp.Name)+": "+d.String()); err != nil {
				return err
			}
		}
		for _, d := range sp.Missing {
			line := "\n" + printable(sp.Name) + ": " + printable(d) + " has changes that no connected device gives; they are late, or kept back"
			if err := writeLine(e.stdout, line); err != nil {
				return err
			}
		}
	}
	if len(s.Errors) > 0 {
		if err := writeLine(e.stdout, "\nLast errors:"); err != nil {
			return err
		}
		rows := [][]string{}
		for _, x := range s.Errors {
			rows = append(rows, []string{formatTime(x.Time), x.Text})
		}
		return e.table(rows)
	}
	return nil
}

// batches says how many.
func batches(n int) string {
	if n == 1 {
		return "1 batch"
	}
	return fmt.Sprintf("%d batches", n)
}

// reachable chooses of the addresses at which a device listens those to give to another: by TCP, and of this machine alone only where
// there is no other.
func reachable(listen []string) []string {
	var far, near []string
	for _, a := range listen {
		switch {
		case !strings.Contains(a, "/tcp/"):
		case strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/"):
			near = append(near, a)
		default:
			far = append(far, a)
		}
	}
	if len(far) == 0 {
		return near
	}
	return far
}

// waitSettled waits until what was done before is durable and published, and where it is not here alone that counts, held by another device.
func waitSettled(ctx context.Context, e *env, here bool) error {
	b, told := newBar(e, "exchange"), ""
	var left []string
	_, err := opWait.follow(ctx, e, waitParams{here}, func(ev event) error {
		if ev.Text != told {
			if told = ev.Text; told != "" {
				e.say("%s", told)
			}
		}
		if ev.Total > 0 {
			left = ev.Left
		}
		return b.event(ev)
	})
	b.end(err == nil)
	if err != nil && len(left) > 0 && errors.Is(context.Cause(ctx), errTimeout) {
		err = &leftError{err, left}
	}
	return err
}

// leftError says what was not done when the time was over.
type leftError struct {
	error
	left []string
}

func (e *leftError) Unwrap() error { return e.error }

var errTimeout = errors.New("timeout")

// contentText says what of a file's content is here, and who had what is not.
func contentText(c fs.ContentInfo) string {
	text := map[string]string{"here": "on this device", "part": "part of it is on this device", "absent": "not on this device"}[c.State]
	if len(c.HeldBy) > 0 {
		text += "; held by " + strings.Join(c.HeldBy, ", ")
	}
	return text
}

func pinText(p fs.PinState) string {
	if p == fs.PinnedAbove {
		return "pinned, as a folder that it is in is"
	}
	return string(p)
}

// runPathStatus shows one file or folder.
func runPathStatus(ctx context.Context, e *env, given string) error {
	p, err := e.pathParam(given)
	if err != nil {
		return err
	}
	s, err := opPathStatus.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(s)
	}
	rows := [][]string{{"path", cmp.Or(s.Path, "(the root of the mount)")}, {"kind", s.Kind}}
	if s.Absent > 0 && s.State != "absent" { // of what is not here at all, the number is not always known
		rows = append(rows, []string{"absent", count(s.Absent, "block") + " not on this device"})
	}
	if s.Device != "" {
		rows = append(rows, []string{"last changed", s.Time + " by " + s.Device})
	}
	for _, r := range [][]string{{"sync", s.Sync}, {"id", s.ID}, {"author", s.Author}, {"heads", strings.ReplaceAll(s.Heads, "\n", " ")}, {"versions", s.Versions}, {"conflicts", s.Conflicts},
		{"content", contentText(s.ContentInfo)}, {"cid", s.Root}, {"pin", pinText(s.Pin)}} {
		if r[1] != "" {
			rows = append(rows, r)
		}
	}
	return e.table(rows)
}

// unheard says that changes do not count.
func unheard(n int) string {
	if n == 1 {
		return "1 change of yours does not count"
	}
	return count(n, "change") + " of yours do not count"
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

// stay says that changes go nowhere.
func stay(n int) string {
	if n == 1 {
		return "1 change of yours stays"
	}
	return count(n, "change") + " of yours stay"
}
