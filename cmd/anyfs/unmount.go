package main

import (
	"context"
	"errors"
	"time"

	"github.com/anyfs/anyfs/mount"
	"github.com/anyfs/anyfs/mount/control"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func unmountCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "unmount",
		Usage:     "unmount DIR and end its daemon",
		ArgsUsage: "DIR",
		Description: `Returns when all that was written is durable and the daemon has ended. Takes away, too, what a killed daemon left
mounted.

Examples:
  anyfs unmount ~/Any`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			return runUnmount(c.Context, e, a[0])
		},
	}
}

func runUnmount(ctx context.Context, e *env, given string) error {
	dir, err := e.mountpoint(given)
	if err != nil {
		return err
	}
	client, err := dialDaemon(ctx, e)
	if err != nil {
		return err
	}
	if client == nil {
		if err := unmountDead(ctx, e, dir); err != nil {
			return err
		}
		return e.unmounted(dir)
	}
	defer client.Close()
	w, err := e.whereabouts(ctx, client)
	if err != nil {
		return err
	}
	if w.Dir != dir {
		return failf(exitFailed, "%s is not mounted by this home; it is mounted at %s", dir, w.Dir)
	}
	if err := e.endDaemon(ctx, client, w.PID); err != nil {
		return err
	}
	return e.unmounted(dir)
}

// endDaemon has the daemon unmount, and waits until its process has ended.
func (e *env) endDaemon(ctx context.Context, client *control.Client, pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	unwatch := e.watchDaemon(ctx)
	err = client.Call(ctx, opUnmount.name, none{}, nil, nil)
	unwatch()
	if err != nil {
		return err
	}
	late := time.AfterFunc(patience, func() {
		e.say("Waiting for the daemon (process %d) to end: it makes durable what is not yet.", pid)
	})
	defer late.Stop()
	return waitEnd(ctx, pidfd)
}

// unmounted is what unmount has to say: nothing to a person.
func (e *env) unmounted(dir string) error {
	if !e.json {
		return nil
	}
	return e.printJSON(struct {
		Mountpoint string `json:"mountpoint"`
	}{dir})
}

// dialDaemon finds the daemon of the home; nil when there is none.
func dialDaemon(ctx context.Context, e *env) (*control.Client, error) {
	if e.home == "" {
		return nil, nil
	}
	client, err := control.Dial(ctx, e.home)
	if errors.Is(err, control.ErrNoDaemon) {
		return nil, nil
	}
	return client, err
}

// unmountDead takes away what a killed daemon left at dir.
func unmountDead(ctx context.Context, e *env, dir string) error {
	if _, err := readyHome(e.home); err == nil {
		lock, err := lockHome(ctx, e.home, e.sayWaiting)
		if err != nil {
			return err
		}
		defer lock.Unlock()
		if lock.Left().Dir == dir {
			return lock.TakeAway()
		}
	}
	if isMountRoot(dir) && answers(dir) {
		return failf(exitBusy, "%s is mounted, but not by the home %s; name its home with --home", dir, e.home)
	}
	return mount.Unmount(dir)
}

// isMountRoot reports whether something is mounted at dir. It asks no daemon, so that it cannot hang.
func isMountRoot(dir string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC|unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st)
	return err != nil && !errors.Is(err, unix.ENOENT) || st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// answers reports whether who serves the mount at dir lives, which a stopped daemon does without saying so.
func answers(dir string) bool {
	done := make(chan error, 1)
	go func() { done <- unix.Statfs(dir, new(unix.Statfs_t)) }() // ends with the daemon at the latest
	select {
	case err := <-done:
		return !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED)
	case <-time.After(3 * time.Second):
		return true
	}
}

// waitEnd waits until the process of pidfd has ended.
func waitEnd(ctx context.Context, pidfd int) error {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for ctx.Err() == nil {
		n, err := unix.Poll(fds, int((100 * time.Millisecond).Milliseconds()))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
	}
	return ctx.Err()
}

// passing is how long a use may last that does not count: a shell that completes a name, an indexer, an ls that is about to exit.
const passing = 500 * time.Millisecond

// opUnmount takes the mount away; the daemon then ends. It fails while somebody uses the mount.
var opUnmount = operation[none, none]{"unmount", func(ctx context.Context, h *home, _ none, _ sink) (none, error) {
	h.mu.Lock()
	dir := h.place.Dir
	h.mu.Unlock()
	h.still.Lock()
	defer h.still.Unlock()
	err := mount.Unmount(dir)
	for began := time.Now(); errors.Is(err, unix.EBUSY) && time.Since(began) < passing && ctx.Err() == nil; err = mount.Unmount(dir) {
		time.Sleep(passing / 20)
	}
	if errors.Is(err, unix.EBUSY) {
		err = failf(exitBusy, "%s is in use; close the files and leave the folders in it ('fuser -vm %s' shows who uses it)", dir, dir)
	}
	return none{}, err
}}
