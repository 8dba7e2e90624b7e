package fs

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
)

// Receipts. A device lets the content of a file go only when another device of the account has promised to keep it: for each block. The
// promise is written down, durably, by the one who gives it before it is told (bucketPromises), and by the one who gets it before the block
// goes (bucketReceipts). The invariant, for each block that any content here refers to and that was evicted:
//
//	there is a receipt here, and its giver has the promise in its database and the block, whole, in its store.
//
// So a crash anywhere leaves a promise too many, never one too few:
//   - The giver reads the block, makes it durable, and notes the promise, under keeping.refs: no prune and no eviction that is under way comes
//     between (claim), and each that begins later finds the promise (spareKept).
//   - The receipt is noted before the eviction, and looked at again with it, under relying.mu; a withdrawal takes it out under the same lock,
//     and is acknowledged only where the block is here and durable, or another receipt is.
//   - A receipt that is not needed goes from bucketReceipts to bucketReleases in one transaction, and from there when the giver has heard of
//     it. As long as it is there, a new receipt of that block by that device is not taken: a release on its way would end it.
//   - A device that may evict gives none. What it promised before it keeps, until it was released or its withdrawal acknowledged: two devices
//     that evict never rely on each other alone.
//
// The threat: a giver that lies, or that is lost with its disk, takes with it what others evicted under its receipt. So receipts are taken from
// devices of the own account, which hold the same keys and could destroy everything anyway, and only as long as the access list has
// them, and from nodes of the networks that the space is on, as long as it is; and a lost device is as a lost disk. Against a disk that rots the giver
// reads what it promises when it promises it. Before a space is taken off a network, LetGo has what relies on that one alone kept by others, or
// fetched; what a device that hears of it later finds without a receipt that counts, it asks for anew or fetches (reassure).
//
// They are kept for each block, not for "all that batches up to these heads refer to": a mirror does not hold the blocks of versions that were
// over before it came, and may prune others, so that what such a promise covers would depend on both devices' histories of pruning. Only
// what is really evicted costs its 100 bytes or so on both sides, beside a block of 8 KiB at least.

// Keepers is how a home asks other devices about receipts. All methods may wait for the network, no longer than some 30 seconds without
// hearing anything, and each answer is about the block in the same place.
type Keepers interface {
	// Rely asks for receipts and says who gave one; zero: nobody. Those that but names are not asked; nil: all are.
	Rely(ctx context.Context, space dag.ID, ids []block.ID, but func(dag.PublicKey) bool) (by []dag.PublicKey, err error)
	// Withdraw asks a device to do without the promises that it got from here, and says for which it does.
	Withdraw(ctx context.Context, space dag.ID, device dag.PublicKey, ids []block.ID) ([]bool, error)
	// Release tells a device that its promises are not needed here any more, and says of which it has taken note.
	Release(ctx context.Context, space dag.ID, device dag.PublicKey, ids []block.ID) ([]bool, error)
}

// SetKeepers says whom to ask for receipts; without, nothing is evicted.
func (h *Home) SetKeepers(k Keepers) {
	h.keepers.Lock()
	defer h.keepers.Unlock()
	h.keepers.k = k
}

type keepers struct {
	sync.Mutex
	k     Keepers
	nodes func(space dag.ID, node dag.PublicKey) bool
	full  func(space dag.ID) bool
	epoch int // how often nodes or full were replaced
}

// SetFull says of which spaces a network takes no more, for a quota; it is called again each time that this has changed. fn is quick. In a space on
// demand with a cache limit content that nobody promises to keep cannot go: beyond the limit writing fails with ErrQuota then, as what is written would
// stay on this device for good. A mirror, and a space without a limit, hold what is written as the disk allows.
func (h *Home) SetFull(fn func(space dag.ID) bool) {
	h.keepers.Lock()
	h.keepers.full = fn
	h.keepers.epoch++
	h.keepers.Unlock()
	h.kickEvictor()
}

func (h *Home) isFull(space dag.ID) bool {
	h.keepers.Lock()
	fn := h.keepers.full
	h.keepers.Unlock()
	return fn != nil && fn(space)
}

// overQuota reports whether nothing more is to be written into the space.
func (s *space) overQuota() bool {
	p := s.policy()
	if p.mirrors() || p.CacheLimit == 0 {
		return false
	}
	if live, _ := s.blocks.Bytes(); live <= p.CacheLimit || !s.h.isFull(s.id) {
		return false
	}
	if !s.stuck.Load() {
		s.h.kickEvictor() // something may go yet
		return false
	}
	return true
}

// OverQuota reports whether writing into the space fails with ErrQuota.
func (r *Replica) OverQuota() bool { return r.s.overQuota() }

// SetNodes says which nodes count as keepers of a space: those of the networks that it is on. They never evict. fn is quick.
func (h *Home) SetNodes(fn func(space dag.ID, node dag.PublicKey) bool) {
	h.keepers.Lock()
	h.keepers.nodes = fn
	h.keepers.epoch++
	h.keepers.Unlock()
	h.kickEvictor()
}

func (h *Home) isNode(space dag.ID, device dag.PublicKey) bool {
	h.keepers.Lock()
	fn := h.keepers.nodes
	h.keepers.Unlock()
	return fn != nil && fn(space, device)
}

// keepersEpoch is how often the nodes that count have changed.
func (h *Home) keepersEpoch() int {
	h.keepers.Lock()
	defer h.keepers.Unlock()
	return h.keepers.epoch
}

func (h *Home) askKeepers() Keepers {
	h.keepers.Lock()
	defer h.keepers.Unlock()
	return h.keepers.k
}

// relying guards the receipts of a space.
type relying struct {
	asking sync.Mutex // held while a device is asked for receipts or told of a release, so that the two do not pass each other. Before mu.
	mu     sync.Mutex // held from looking at receipts to acting by them. After pubMu and keeping.pruning, before keeping.mu.

	// While devices are asked for receipts: those that withdrew some meanwhile. What they answer may be void by then. Else nil. Under mu.
	withdrew map[dag.PublicKey]bool
}

// Promise is called for another device: it says which of the blocks are held here and stay until that device releases them. What it says is
// durable.
func (r *Replica) Promise(ctx context.Context, device, account dag.PublicKey, ids []block.ID) []bool {
	s := r.s
	yes := make([]bool, len(ids))
	if account != s.h.keys.Identity || !s.policy().mirrors() || s.h.failed() != nil || s.syncBlocks(ctx) != nil {
		return yes
	}
	var buf []byte
	for i, id := range ids {
		if ctx.Err() != nil {
			return yes
		}
		b, err := s.blocks.GetBuffer(id, buf)
		if yes[i] = err == nil; b != nil {
			buf = b
		}
	}
	s.keeping.refs.RLock()
	defer s.keeping.refs.RUnlock()
	for i, id := range ids {
		if s.claim(id); yes[i] {
			yes[i] = s.blocks.Has(id)
		}
	}
	promises := s.ledger(bucketPromises)
	if err := s.db.Update(func(tx kv.Tx) error {
		for i, id := range ids {
			if !yes[i] {
				continue
			}
			if err := promises.add(tx, id, device); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		s.h.report(fmt.Sprintf("space %s: receipts for another device", s.id), err)
		clear(yes)
	}
	return yes
}

// breakPromises ends promises that this device gave.
func (s *space) breakPromises(device dag.PublicKey, ids []block.ID) error {
	promises := s.ledger(bucketPromises)
	return s.db.Update(func(tx kv.Tx) error {
		for _, id := range ids {
			if err := promises.remove(tx, id, device); err != nil {
				return err
			}
		}
		return nil
	})
}

// Released is called for a device that does without the promises it got.
func (r *Replica) Released(_ context.Context, device dag.PublicKey, ids []block.ID) error {
	return r.s.breakPromises(device, ids)
}

// Withdraw is called for a device that asks to be let out of its promises. It says for which blocks that is granted: those that are here,
// durably, and those that another device keeps. What is neither is asked for, so that a later call may find it.
func (r *Replica) Withdraw(ctx context.Context, device dag.PublicKey, ids []block.ID) []bool {
	s := r.s
	yes := make([]bool, len(ids))
	if s.syncBlocks(ctx) != nil {
		return yes
	}
	receipts, releases := s.ledger(bucketReceipts), s.ledger(bucketReleases)
	s.relying.mu.Lock()
	defer s.relying.mu.Unlock()
	if s.relying.withdrew != nil {
		s.relying.withdrew[device] = true
	}
	here := make([]bool, len(ids))
	for i, id := range ids {
		here[i] = s.blocks.Has(id)
	}
	var absent []block.ID
	err := s.db.Update(func(tx kv.Tx) error {
		for i, id := range ids {
			by, err := receipts.of(tx, id)
			if err != nil {
				return err
			}
			relied := slices.Contains(by, device)
			other := slices.ContainsFunc(by, func(d dag.PublicKey) bool { return d != device && s.isKeeper(d) })
			if relied && !other && !here[i] {
				absent = append(absent, id)
				continue
			}
			// Without a receipt there is nothing that is relied on: it was released, or never came here.
			yes[i] = true
			if err := receipts.remove(tx, id, device); err != nil {
				return err
			}
			if err := releases.remove(tx, id, device); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.h.report(fmt.Sprintf("space %s: receipts that are withdrawn", s.id), err)
		clear(yes)
	}
	s.fetchSoon(absent)
	return yes
}

// isKeeper reports whether the receipts of a device count: it is a device of this account, by the access list as it is now, or a node of a
// network that this home uses.
func (s *space) isKeeper(device dag.PublicKey) bool {
	return s.h.isNode(s.id, device) || s.acl.List().State().HasDevice(s.h.keys.Identity, device)
}

// hasLeft reports whether a device was one of the account and is none any more. One of which the record has not come yet has not.
func (s *space) hasLeft(device dag.PublicKey) bool {
	_, account, ok := s.acl.List().State().Device(device)
	return !ok && account != (dag.PublicKey{})
}

// rely finds receipts for blocks, and asks for those that are missing. What it gives is noted durably. The receipts of those that but names do not
// count; nil: all do.
func (s *space) rely(ctx context.Context, ids []block.ID, but func(dag.PublicKey) bool) (map[block.ID]bool, error) {
	s.relying.asking.Lock()
	defer s.relying.asking.Unlock()
	have := make(map[block.ID]bool, len(ids))
	receipts, releases := s.ledger(bucketReceipts), s.ledger(bucketReleases)
	counts := func(d dag.PublicKey) bool { return s.isKeeper(d) && (but == nil || !but(d)) }
	note := func(id block.ID, by []dag.PublicKey) {
		if slices.ContainsFunc(by, counts) {
			have[id] = true
		}
	}
	if err := receipts.each(ids, note); err != nil {
		return nil, err
	}
	missing := make([]block.ID, 0, len(ids)-len(have))
	for _, id := range ids {
		if !have[id] {
			missing = append(missing, id)
		}
	}
	k := s.h.askKeepers()
	if len(missing) == 0 || k == nil {
		return have, nil
	}
	for len(missing) > 0 {
		some := missing[:min(len(missing), ledgerStep)]
		missing = missing[len(some):]
		s.relying.mu.Lock()
		s.relying.withdrew = map[dag.PublicKey]bool{}
		s.relying.mu.Unlock()
		by, asked := k.Rely(ctx, s.id, some, but)
		s.relying.mu.Lock()
		withdrew := s.relying.withdrew
		s.relying.withdrew = nil
		err := s.db.Update(func(tx kv.Tx) error {
			for i, id := range some {
				if i >= len(by) || by[i] == (dag.PublicKey{}) || withdrew[by[i]] || !counts(by[i]) {
					continue
				}
				if out, err := releases.of(tx, id); err != nil || slices.Contains(out, by[i]) {
					if err != nil {
						return err
					}
					continue // it may take the promise back yet
				}
				if err := receipts.add(tx, id, by[i]); err != nil {
					return err
				}
				have[id] = true
			}
			return nil
		})
		s.relying.mu.Unlock()
		if err != nil {
			return nil, s.damaged(err)
		}
		if asked != nil {
			return have, asked
		}
	}
	return have, nil
}

// LetGo has what was let go of here under receipts of some keepers alone kept by others, or fetched, and says how many blocks are neither: once these
// receipts do not count, nothing says that anybody has them.
func (r *Replica) LetGo(ctx context.Context, of func(keeper dag.PublicKey) bool) (left int, err error) {
	return r.s.reassure(ctx, of)
}

// reassureInVain is how many blocks in a row nobody gives before no more are asked for.
const reassureInVain = 16

// reassure looks for blocks that are not here and for which no receipt counts, those of keepers that but names not being counted: others are asked for
// one, and what they do not keep is fetched. left is how many are neither.
func (s *space) reassure(ctx context.Context, but func(dag.PublicKey) bool) (left int, err error) {
	fetch := ctx
	if s.h.opt.Prefetch != nil {
		fetch = s.h.opt.Prefetch(ctx)
	}
	receipts, vain := s.ledger(bucketReceipts), 0
	for after := (block.ID{}); ; {
		ids, devices, err := receipts.some(after)
		if err != nil || len(ids) == 0 {
			return left, err
		}
		after = ids[len(ids)-1]
		var weak []block.ID
		for i, id := range ids {
			if !s.blocks.Has(id) && !slices.ContainsFunc(devices[i], func(d dag.PublicKey) bool { return s.isKeeper(d) && (but == nil || !but(d)) }) {
				weak = append(weak, id)
			}
		}
		if len(weak) == 0 {
			continue
		}
		have, err := s.rely(ctx, weak, but) // that nobody can be asked is no failure
		if have == nil {
			return left, err
		}
		for _, id := range weak {
			if ctx.Err() != nil {
				return left, context.Cause(ctx)
			}
			if have[id] {
				continue
			}
			if vain < reassureInVain {
				s.claim(id)
				if _, err := s.blocks.Get(fetch, id); err == nil {
					vain = 0
					continue
				}
				vain++
			}
			left++
		}
	}
}

// relied gives those of the blocks that somebody keeps for this device. Under relying.mu.
func (s *space) relied(ids []block.ID) (map[block.ID]bool, error) {
	have := make(map[block.ID]bool, len(ids))
	err := s.ledger(bucketReceipts).each(ids, func(id block.ID, by []dag.PublicKey) {
		if slices.ContainsFunc(by, s.isKeeper) {
			have[id] = true
		}
	})
	return have, err
}

// release gives receipts up, of blocks that nothing here refers to any more. The givers hear of it when they can be reached.
func (s *space) release(ids []block.ID) error {
	receipts, releases := s.ledger(bucketReceipts), s.ledger(bucketReleases)
	s.relying.mu.Lock()
	defer s.relying.mu.Unlock()
	for len(ids) > 0 {
		some := ids[:min(len(ids), ledgerStep)]
		ids = ids[len(some):]
		if err := s.db.Update(func(tx kv.Tx) error {
			for _, id := range some {
				by, err := receipts.of(tx, id)
				if err != nil {
					return err
				}
				for _, d := range by {
					if err := releases.add(tx, id, d); err != nil {
						return err
					}
					if err := receipts.remove(tx, id, d); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			return s.damaged(err)
		}
	}
	return nil
}

// sendReleases tells the givers of what was released, as far as they can be reached.
func (s *space) sendReleases(ctx context.Context) error {
	k := s.h.askKeepers()
	if k == nil {
		return nil
	}
	s.relying.asking.Lock()
	defer s.relying.asking.Unlock()
	releases := s.ledger(bucketReleases)
	for after := (block.ID{}); ; {
		ids, devices, err := releases.some(after)
		if err != nil || len(ids) == 0 {
			return err
		}
		after = ids[len(ids)-1]
		byDevice := map[dag.PublicKey][]block.ID{}
		for i, id := range ids {
			for _, d := range devices[i] {
				byDevice[d] = append(byDevice[d], id)
			}
		}
		for d, ids := range byDevice {
			var heard []bool
			if !s.hasLeft(d) {
				if heard, err = k.Release(ctx, s.id, d, ids); err != nil {
					continue // it is told another time
				}
			}
			if err := s.db.Update(func(tx kv.Tx) error {
				for i, id := range ids {
					if heard != nil && !heard[i] {
						continue
					}
					if err := releases.remove(tx, id, d); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return s.damaged(err)
			}
		}
	}
}

// spareKept takes out of what goes that which was promised to others. withdraw asks them to do without first.
func (s *space) spareKept(ctx context.Context, doomed []block.ID, withdraw bool, spare func(block.ID)) error {
	promises := s.ledger(bucketPromises)
	byDevice := map[dag.PublicKey][]block.ID{}
	err := promises.each(doomed, func(id block.ID, to []dag.PublicKey) {
		for _, d := range to {
			byDevice[d] = append(byDevice[d], id)
		}
	})
	if err != nil {
		return err
	}
	k := s.h.askKeepers()
	for d, ids := range byDevice {
		granted := make([]bool, len(ids))
		if s.hasLeft(d) {
			for i := range granted {
				granted[i] = true
			}
		} else if withdraw && k != nil {
			if got, err := k.Withdraw(ctx, s.id, d, ids); err == nil {
				granted = got
			}
		}
		var broken []block.ID
		for i, id := range ids {
			if granted[i] {
				broken = append(broken, id)
			} else {
				spare(id)
			}
		}
		if err := s.breakPromises(d, broken); err != nil {
			return s.damaged(err)
		}
	}
	return nil
}
