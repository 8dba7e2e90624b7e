package exchange

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// Receipts: a device lets a block go only when another has promised to keep it. Both sides write down what was promised, and no answer is
// sent before that is durable: what is lost with a connection is an answer, after which the one who gave a receipt keeps more than it has to.

// A Keeper keeps the books of the receipts of one space. device and account are those that the peer has proved. Each answer is about the
// block in the same place, and what it says is durable when it is returned. Calls may run in parallel.
type Keeper interface {
	// Promise says which of the blocks are held durably here and stay until device gives the promise back.
	Promise(ctx context.Context, device, account dag.PublicKey, ids []block.ID) []bool
	// Withdraw says for which of the blocks this device does without the promise that device gave.
	Withdraw(ctx context.Context, device dag.PublicKey, ids []block.ID) []bool
	// Released takes promises that were given to device back.
	Released(ctx context.Context, device dag.PublicKey, ids []block.ID) error
}

// relyAtOnce is about how many blocks a peer is asked for a receipt at a time: it reads them before it answers.
const relyAtOnce = 32

// Rely asks the connected devices of this account for receipts of blocks of a space, one device after the other for what is left. by names,
// for each block, who gave one; zero: nobody. Those that but names are not asked; nil: all are. ErrOffline when there is nobody to ask.
func (e *Engine) Rely(ctx context.Context, id dag.ID, ids []block.ID, but func(dag.PublicKey) bool) (by []dag.PublicKey, err error) {
	by = make([]dag.PublicKey, len(ids))
	err = ErrOffline
	left := make([]int, len(ids))
	for i := range left {
		left[i] = i
	}
	for _, l := range e.ownLinks(id) {
		if len(left) == 0 {
			break
		}
		if but != nil && but(l.r.key) {
			continue
		}
		some := make([]block.ID, len(left))
		for i, k := range left {
			some[i] = ids[k]
		}
		given, lerr := l.ask(ctx, true, some, relyAtOnce, func(n uint64, ids []block.ID) wire.Message { return &wire.Rely{Request: n, IDs: ids} })
		if ctx.Err() != nil {
			return by, context.Cause(ctx)
		}
		if lerr != nil {
			err = errors.Join(err, lerr)
			continue
		}
		err = nil
		var rest []int
		for i, k := range left {
			if given[i] {
				by[k] = l.r.key
			} else {
				rest = append(rest, k)
			}
		}
		left = rest
	}
	return by, err
}

// Withdraw asks a device to do without the receipts that this one gave it, and says for which it does. ErrOffline when it is not connected.
func (e *Engine) Withdraw(ctx context.Context, id dag.ID, device dag.PublicKey, ids []block.ID) ([]bool, error) {
	return e.askDevice(ctx, id, device, ids, func(n uint64, ids []block.ID) wire.Message { return &wire.Withdraw{Request: n, IDs: ids} })
}

// Release gives receipts of a device back. ErrOffline when it is not connected: then it keeps the blocks until it hears of it.
func (e *Engine) Release(ctx context.Context, id dag.ID, device dag.PublicKey, ids []block.ID) ([]bool, error) {
	return e.askDevice(ctx, id, device, ids, func(n uint64, ids []block.ID) wire.Message { return &wire.Release{Request: n, IDs: ids} })
}

func (e *Engine) askDevice(ctx context.Context, id dag.ID, device dag.PublicKey, ids []block.ID, question func(uint64, []block.ID) wire.Message) ([]bool, error) {
	for _, l := range e.ownLinks(id) {
		if l.r.key == device {
			return l.ask(ctx, false, ids, wire.MaxIDs, question)
		}
	}
	return nil, ErrOffline
}

// ownLinks gives the connected devices of this account that have a space, and its nodes. Receipts go between these alone: another account's device may be
// told to forget what it promised, and this one could not tell.
func (e *Engine) ownLinks(id dag.ID) (links []*link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	sp := e.spaces[id]
	if sp == nil {
		return nil
	}
	for _, l := range sp.links {
		if l.r.ready() && (l.r.node != nil && l.r.node.keeps(id) || l.r.node == nil && l.r.account == e.account) {
			links = append(links, l)
		}
	}
	slices.SortFunc(links, func(a, b *link) int {
		if onLAN(a.r.addr) != onLAN(b.r.addr) {
			if onLAN(a.r.addr) {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.r.key[:], b.r.key[:])
	})
	return links
}

// receipt answers a question about receipts.
func (l *link) receipt(ctx context.Context, m wire.Message) *wire.HeldBlocks {
	k := l.sp.r.Keeps
	if k == nil || !l.member() || l.sp.e.opt.Serve == nil && l.r.account != l.sp.e.account {
		k = nobody{}
	}
	var request uint64
	var yes []bool
	switch m := m.(type) {
	case *wire.Rely:
		request, yes = m.Request, k.Promise(ctx, l.r.key, l.r.account, m.IDs)
	case *wire.Withdraw:
		request, yes = m.Request, k.Withdraw(ctx, l.r.key, m.IDs)
	case *wire.Release:
		request, yes = m.Request, make([]bool, len(m.IDs))
		if err := k.Released(ctx, l.r.key, m.IDs); err == nil {
			for i := range yes {
				yes[i] = true
			}
		} else if !errors.Is(err, errNotKept) {
			l.sp.e.log.Error("receipts that a device gave back", "space", l.sp.id, "err", err)
		}
	}
	a := &wire.HeldBlocks{Request: request, Bits: make([]byte, (len(yes)+7)/8)}
	for i, y := range yes {
		if y {
			a.Bits[i/8] |= 1 << (i % 8)
		}
	}
	return a
}

// nobody keeps nothing.
type nobody struct{}

var _ Keeper = nobody{}

func (nobody) Promise(_ context.Context, _, _ dag.PublicKey, ids []block.ID) []bool {
	return make([]bool, len(ids))
}

func (nobody) Withdraw(_ context.Context, _ dag.PublicKey, ids []block.ID) []bool {
	return make([]bool, len(ids))
}

func (nobody) Released(context.Context, dag.PublicKey, []block.ID) error { return errNotKept }

var errNotKept = errors.New("exchange: nothing is kept for this peer")
