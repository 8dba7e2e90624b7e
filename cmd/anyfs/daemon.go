package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount"
	"github.com/anyfs/anyfs/mount/control"
)

// crashName is the file in a home that gets the trace of a daemon that panicked.
const crashName = "anyfs.crash"

// lockPatience is how long one waits for who has the home: a daemon that starts or ends, or another command.
const lockPatience = 30 * time.Second

// patience is how long a command waits in silence.
const patience = 3 * time.Second

// lockHome takes the lock of a home, waiting for who has it. When that takes long, waiting is called with the pid of who has
// it, as far as it is known; nil says nothing.
func lockHome(ctx context.Context, home string, waiting func(pid int)) (*mount.HomeLock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if waiting != nil {
		late := time.AfterFunc(patience, func() { waiting(mount.HomeHolder(home)) })
		defer late.Stop()
	}
	lock, err := mount.AwaitHome(ctx, home)
	if errors.Is(err, mount.ErrHomeInUse) {
		err = inUse(home, err)
	}
	return lock, err
}

func inUse(home string, err error) error {
	return failf(exitBusy, "%s: %w; if it is a mount, unmount it first", home, err)
}

// startDaemon starts the daemon of a mount and returns its pid when the mount can be used.
func startDaemon(ctx context.Context, e *env, o mountOptions, pass []byte) (int, error) {
	args := []string{"mount", "--foreground"}
	for _, opt := range o.options {
		args = append(args, "-o", opt)
	}
	if o.space != "" {
		args = append(args, "--space", o.space)
	}
	for _, l := range o.listen {
		args = append(args, "--listen", l)
	}
	if o.noDiscovery {
		args = append(args, "--no-discovery")
	}
	if len(pass) > 0 {
		args = append(args, "--passphrase-file", "-")
		pass = append(pass, '\n')
	}
	late := time.AfterFunc(patience, func() {
		if pid := mount.HomeHolder(e.home); pid != 0 && !isChild(pid) {
			e.sayWaiting(pid)
		} else {
			e.say("Opening the home takes long; still at it.")
		}
	})
	defer late.Stop()
	return mount.StartDaemon(ctx, e.home, pass, append(args, "--", o.dir)...)
}

// runForeground serves the mount in this process: for a person, or for starter, who waits for it.
func runForeground(ctx context.Context, e *env, o mountOptions, starter *mount.Starter, ready func()) error {
	err := func() error {
		keys, _, err := openKeys(e, o.passphraseFile)
		if err != nil {
			return err
		}
		return serve(ctx, e.home, keys, o, func() error {
			ready()
			return starter.Ready()
		})
	}()
	if err != nil && starter != nil {
		starter.Failed(err, exitCode(err)) // says nothing where the mount was ready before
		return errSilent
	}
	return err
}

// serve is the life of a mounted home: it opens the home under its lock, mounts it and answers commands; when it is
// unmounted or ctx ends, it makes everything durable and returns. ready is called once the mount can be used.
func serve(ctx context.Context, dir string, keys *acl.Keys, o mountOptions, ready func() error) error {
	log, err := mount.OpenLog(dir)
	if err != nil {
		return err
	}
	defer log.Close()
	lock, err := lockHome(ctx, dir, func(pid int) { log.Warn("waiting for who has the home open", "pid", pid) })
	if err != nil {
		return err
	}
	defer lock.Unlock()
	catchCrashes(dir, log.Logger)
	boundMemory()
	late := time.AfterFunc(patience, func() { log.Warn("opening the home takes long") })
	defer late.Stop()
	h, err := openWith(ctx, dir, keys, log.Logger)
	if err != nil {
		return err
	}
	late.Stop()
	h.errors = log.Errors
	log.Info("start", "pid", os.Getpid(), "version", buildVersion().Version)
	err = errors.Join(h.serveMount(ctx, o, lock, ready), h.close())
	if err != nil {
		log.Error("end", "err", err)
	} else {
		log.Info("end")
	}
	return err
}

// serveMount mounts the home and answers commands until it is unmounted.
func (h *home) serveMount(ctx context.Context, o mountOptions, lock *mount.HomeLock, ready func() error) error {
	if o.space != "" {
		if _, err := h.fs.Space(o.space); err != nil {
			return spaceError(o.space, err)
		}
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server := control.New(h.log)
	for _, op := range append(operations(), opUnmount) {
		server.Handle(op.handle(h))
	}
	l, err := control.Listen(h.dir)
	if err != nil {
		return err
	}
	if o.stopping != nil {
		stopping := func() {
			if err := o.stopping(); err != nil {
				h.log.Warn("the service manager is not told", "err", err)
			}
		}
		defer context.AfterFunc(ctx, stopping)()
		end := h.end
		h.end = sync.OnceFunc(func() { end(); stopping() }) // also where it is unmounted
	}
	h.setPlace(place{Dir: o.dir, Space: o.space})
	if h.network, err = newNetwork(h, o.listen, !o.noDiscovery); err != nil {
		return errors.Join(err, l.Close())
	}
	d := mount.Daemon{
		Lock: lock, Backend: h.fs, Control: server, Listener: l, Work: h.work,
		Mount: mount.Options{Dir: o.dir, Space: o.space, ExtraOpts: o.options, Log: h.log, Still: &h.still, Ready: func() {
			h.mounted.Store(true)
			if err := ready(); err != nil {
				stop(err)
			}
		}},
	}
	err = d.Run(ctx)
	switch cause := context.Cause(ctx); {
	case errors.Is(err, mount.ErrMounted):
		err = &failure{exitBusy, err}
	case err == nil && cause != nil && !errors.Is(cause, context.Canceled):
		err = cause
	}
	return err
}

// work is what a daemon does besides answering.
func (h *home) work(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	if h.network != nil {
		wg.Go(func() { h.network.run(ctx) })
	}
	defer context.AfterFunc(ctx, h.end)()
	err := h.fs.Run(ctx)
	end()
	wg.Wait()
	return err
}

// catchCrashes has the trace of a panic written into a file of the home: a daemon has no stderr. A trace that is there is kept
// beside it, and told: it is of the daemon before.
func catchCrashes(dir string, log *slog.Logger) {
	name := filepath.Join(dir, crashName)
	if st, err := os.Stat(name); err == nil && st.Size() > 0 {
		if os.Rename(name, name+".1") == nil {
			log.Error("the daemon before this one crashed; what it did then stands in " + crashName + ".1 in the home")
		}
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_ = debug.SetCrashOutput(f, debug.CrashOptions{})
}

// memoryGoal is what the daemon's heap and stacks are kept within while what lives in them is less: garbage is collected the more often
// the nearer they come. Beside it the process has its binary and the pages of databases mapped, about 50 MiB.
const memoryGoal = 144 << 20

// boundMemory sets the goal, unless the environment has one.
func boundMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryGoal)
	}
}

// passphraseFor gives the passphrase that the daemon needs to open the keys; none when they take none.
func passphraseFor(e *env, file string) ([]byte, error) {
	d, err := homeDisk(e.home)
	if err != nil {
		return nil, err
	}
	if _, err := acl.OpenKeys(d, nil); !errors.Is(err, acl.ErrPassphrase) {
		return nil, err
	}
	pass, err := e.currentPassphrase(file)
	if err != nil {
		return nil, err
	}
	// A wrong one is refused here, where it can be typed again.
	if _, err := acl.OpenKeys(d, func() ([]byte, error) { return pass, nil }); err != nil {
		return nil, keysError(e.home, err)
	}
	return pass, nil
}

// lastErrors are the daemon's last errors, as status shows them.
func (h *home) lastErrors() []fs.LoggedError {
	if h.errors == nil {
		return nil
	}
	var out []fs.LoggedError
	for _, r := range h.errors() {
		text := r.Message
		if cause := r.Attrs["err"]; cause != "" {
			text += ": " + cause
		}
		out = append(out, fs.LoggedError{Time: r.Time, Text: text})
	}
	return out
}
