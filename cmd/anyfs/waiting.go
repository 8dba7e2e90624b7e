package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/anyfs/anyfs/mount"
	"github.com/anyfs/anyfs/mount/control"
)

// sayWaiting tells whom one waits for, as mount.HomeHolder gives it.
func (e *env) sayWaiting(pid int) {
	if pid <= 0 {
		e.say("Waiting for another process, which has the home %s open.", e.home)
		return
	}
	e.say("Waiting for process %d%s, which has the home %s open.", pid, stopped(pid), e.home)
}

// watchDaemon looks now and then, while an operation goes on, whether the daemon answers at all, and says so once when it does
// not: work may take its time, but a daemon that was stopped never answers. What it returns ends it.
func (e *env) watchDaemon(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(patience):
			}
			if e.daemonAnswers(ctx) || ctx.Err() != nil {
				continue
			}
			if pid := mount.HomeHolder(e.home); pid > 0 {
				e.say("The daemon (process %d%s) does not answer; waiting for it. 'kill -9 %d' ends it, and the next mount recovers.", pid, stopped(pid), pid)
			}
			return
		}
	}()
	return func() { cancel(); <-done }
}

// daemonAnswers asks the daemon something small.
func (e *env) daemonAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := control.Dial(ctx, e.home)
	if err != nil {
		return false
	}
	defer client.Close()
	return client.Call(ctx, opWhere.name, none{}, nil, nil) == nil
}

// whereabouts asks a daemon where it shows its home. One that does not answer for long is an error with an exit code.
func (e *env) whereabouts(ctx context.Context, client *control.Client) (w whereabouts, err error) {
	defer e.watchDaemon(ctx)()
	limited, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	err = client.Call(limited, opWhere.name, none{}, &w, nil)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = failf(exitBusy, "the daemon of %s does not answer", e.home)
	}
	return w, err
}

// stopped is a remark on a process that was stopped, as by Ctrl-Z.
func stopped(pid int) string {
	if f := procStat(pid); len(f) > 0 && (f[0] == "T" || f[0] == "t") {
		return ", which is stopped"
	}
	return ""
}

// isChild reports whether a process was started by this one.
func isChild(pid int) bool {
	f := procStat(pid)
	return len(f) > 1 && f[1] == fmt.Sprint(os.Getpid())
}

// procStat gives what /proc/PID/stat holds behind the name: the state, the parent, and so on.
func procStat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	var out []string
	for _, f := range bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) {
		out = append(out, string(f))
	}
	return out
}
