package mount

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/anyfs/anyfs/mount/control"
)

// Daemon is a mounted home at work: what runs together, and in which order it stops.
type Daemon struct {
	Lock     *HomeLock // of the home; it notes where that is shown
	Backend  Backend
	Mount    Options
	Control  *control.Server // nil: no control socket
	Listener net.Listener    // of Control
	// Work is what the home does by itself until its context ends. It returns with everything durable.
	Work func(context.Context) error
}

// Run mounts and works until it is unmounted, ctx ends, or a part fails, whose error it returns.
//
// First the mount ends, so that nothing new comes; then Work, which makes all durable; then the control
// socket, at which who asked for the end may still be waiting. All have ended when Run returns.
func (d *Daemon) Run(ctx context.Context) error {
	if err := d.Lock.TakeAway(); err != nil {
		return err
	}
	mounted, unmount := context.WithCancel(ctx)
	working, rest := context.WithCancel(context.WithoutCancel(ctx))
	answering, quiet := context.WithCancel(context.WithoutCancel(ctx))
	defer unmount()
	defer rest()
	defer quiet()

	var work, answers error
	var worker, answerer sync.WaitGroup
	worker.Go(func() {
		defer unmount()
		work = d.Work(working)
	})
	if d.Control != nil {
		answerer.Go(func() {
			defer unmount()
			answers = d.Control.Serve(answering, d.Listener)
		})
	}
	opt := d.Mount
	opt.Ready = func() {
		if err := d.note(); err != nil && opt.Log != nil {
			opt.Log.Warn("the mountpoint is not noted", "cause", err)
		}
		if d.Mount.Ready != nil {
			d.Mount.Ready()
		}
	}
	served := Serve(mounted, d.Backend, opt)
	if served == nil {
		served = d.Lock.note(LeftMount{})
	}
	rest()
	worker.Wait()
	quiet()
	answerer.Wait()
	return errors.Join(served, notCanceled(work), answers)
}

// note writes down where the home is shown.
func (d *Daemon) note() error {
	dir, err := resolve(d.Mount.Dir)
	if err != nil {
		return err
	}
	return d.Lock.Mounted(dir)
}

// notCanceled drops the error of who ended because it was told to.
func notCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
