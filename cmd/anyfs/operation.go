package main

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount"
	"github.com/anyfs/anyfs/mount/control"
)

// operation is something that is done to an open home. Commands call it; it runs in the daemon of the home when there is
// one, and in this process otherwise. Parameters and results travel as JSON. Operations are constants.
type operation[P, R any] struct {
	name string
	run  func(ctx context.Context, h *home, p P, out sink) (R, error)
}

// none is the parameters or result of an operation that has none.
type none struct{}

// event is what an operation tells before its result: how far it has come, or a piece of data or of nothing.
type event struct {
	Done  int64  `json:"done,omitempty"`
	Total int64  `json:"total,omitempty"`
	Data  []byte `json:"data,omitempty"`
	Hole  int64  `json:"hole,omitempty"` // this many zeros, of which nothing need be written

	Change *fs.Change `json:"change,omitempty"`
	Code   *shownCode `json:"code,omitempty"`
	Text   string     `json:"text,omitempty"` // what a person may want to know meanwhile
	Left   []string   `json:"left,omitempty"` // what a person may want to know when it does not end in time
}

// sink takes the events of an operation. Its error, that of a caller who has gone, ends the operation.
type sink func(event) error

// registered is an operation without its types, for the daemon's table.
type registered interface {
	handle(h *home) (name string, fn control.Handler)
}

func (o operation[P, R]) handle(h *home) (string, control.Handler) {
	return o.name, func(ctx context.Context, params json.RawMessage, out *control.Stream) (any, error) {
		var p P
		if err := json.Unmarshal(params, &p); err != nil {
			return nil, err
		}
		r, err := o.run(ctx, h, p, func(ev event) error { return out.Send(ev) })
		return r, explain(err)
	}
}

// call runs the operation and drops its events.
func (o operation[P, R]) call(ctx context.Context, e *env, p P) (R, error) {
	return o.follow(ctx, e, p, func(event) error { return nil })
}

// follow runs the operation and gives its events to on, in order.
func (o operation[P, R]) follow(ctx context.Context, e *env, p P, on sink) (R, error) {
	var r R
	client, lock, err := reach(ctx, e)
	if err != nil {
		return r, err
	}
	if client != nil {
		defer client.Close()
		defer e.watchDaemon(ctx)()
		err := client.Call(ctx, o.name, p, &r, func(raw json.RawMessage) error {
			var ev event
			if err := json.Unmarshal(raw, &ev); err != nil {
				return err
			}
			return on(ev)
		})
		return r, err
	}
	defer lock.Unlock()
	h, err := openHome(ctx, e)
	if err != nil {
		return r, err
	}
	r, err = o.run(ctx, h, p, on)
	return r, errors.Join(explain(err), h.close())
}

// reach finds the daemon of the home, or takes the home's lock where there is none.
func reach(ctx context.Context, e *env) (*control.Client, *mount.HomeLock, error) {
	if _, err := readyHome(e.home); err != nil {
		return nil, nil, err
	}
	say := sync.OnceFunc(func() { e.sayWaiting(mount.HomeHolder(e.home)) })
	for began := time.Now(); ; {
		client, err := control.Dial(ctx, e.home)
		if err == nil || !errors.Is(err, control.ErrNoDaemon) {
			return client, nil, err
		}
		lock, err := mount.LockHome(e.home)
		waited := time.Since(began)
		switch {
		case err == nil || !errors.Is(err, mount.ErrHomeInUse):
			return nil, lock, err
		case waited > lockPatience:
			return nil, nil, inUse(e.home, err)
		case waited > patience:
			say()
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

const lockPoll = 5 * time.Millisecond

// operations are all that the daemon answers, but for unmount.
func operations() []registered {
	return []registered{
		opWhere, opAccount, opStatus, opWait, opPathStatus,
		opSpaceCreate, opSpaceList, opSpaceInfo, opSpaceRename, opSpaceDelete,
		opDeviceList, opDeviceAdd, opDeviceRevoke, opPeerList, opPeerAdd, opPeerRemove, opConflicts, opResolve, opPause, opLimit, opWatch,
		opNetworkAdd, opNetworkList, opNetworkRemove, opNetworkDefault, opSpaceNetwork, opSpaceNetworks, opSpaceNetworkWait,
		opSpacePolicy, opPin, opEvict,
		opInvite, opInvites, opInviteRevoke, opJoin, opMembers, opRequests, opApprove, opDecline, opRole, opRemove, opLeave, opTransfer, opQuarantine, opAdopt,
		opSpaceWith, opAllRequests, opDeclineOffer, opCard, opContacts, opGiveWay,
		opLog, opDeleted, opRestore, opContent, opPrune, opVerify, opExport, opImport,
	}
}
