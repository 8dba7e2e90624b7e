package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/index"
)

// ErrPruned is returned when the content of an old version was dropped from this device.
var ErrPruned = fmt.Errorf("the content of this version was pruned from this device: %w", syscall.ENODATA)

// bucketPruned lists the roots of contents that were pruned: the key is the digest of the root's CID, the value sealed and
// empty. It is written before their blocks go, so that no crash makes damage of what was pruned.
const bucketPruned = "pruned"

// keeping is what guards blocks that are about to be referred to from being evicted.
type keeping struct {
	// refs is held for reading from when a block is found to be here, or put, until the index refers to it; for writing, for
	// a moment, when eviction begins. It comes after pubMu and a stream's mu, and before the space's mu.
	refs sync.RWMutex

	pruning sync.Mutex    // one prune at a time; before pubMu
	rounds  atomic.Uint64 // how often doomed was set

	mu     sync.Mutex
	doomed map[block.ID]int64 // what is about to be evicted; nil: nothing is
	some   int8               // whether bucketPruned has entries: 0 not known, 1 yes, -1 no
	seal   *seal.Local
}

// claim keeps a block that something new is about to refer to. It comes before the Put of one that may be here already.
func (s *space) claim(id block.ID) {
	k := &s.keeping
	k.mu.Lock()
	delete(k.doomed, id)
	k.mu.Unlock()
}

// round is a number that changes before anything more becomes doomed: who finds it unchanged under mu knows that the blocks that
// he claimed and found here stay.
func (k *keeping) round() uint64 { return k.rounds.Load() }

// putBlock is a Put that no eviction comes between: the caller holds keeping.refs or pubMu until the block is referred to.
func (s *space) putBlock(data []byte) (block.ID, error) {
	id := block.Sum(data)
	s.claim(id)
	return id, s.blocks.PutHashed(id, data)
}

func (s *space) prunedSeal() *seal.Local {
	k := &s.keeping
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seal == nil {
		k.seal = s.h.local.Derive("space " + s.dir).Derive(bucketPruned)
	}
	return k.seal
}

// isPruned reports whether blocks of a content may be absent because they were pruned. It says nothing of what is current: all
// of that is here.
func (s *space) isPruned(root cid.Cid) (bool, error) {
	id, _, err := block.IDFromCID(root)
	if err != nil {
		return false, err
	}
	k := &s.keeping
	k.mu.Lock()
	some := k.some
	k.mu.Unlock()
	if some < 0 {
		return false, nil
	}
	var sealed []byte
	found := false
	err = s.db.View(func(tx kv.Tx) error {
		if some == 0 {
			some = -1
			if err := tx.Scan(bucketPruned, nil, func(_, _ []byte) bool { some = 1; return false }); err != nil {
				return err
			}
		}
		if v := tx.Get(bucketPruned, id[:]); v != nil {
			found, sealed = true, append(sealed, v...)
		}
		return nil
	})
	if err != nil {
		return false, s.damaged(err)
	}
	k.mu.Lock()
	if k.some == 0 {
		k.some = some
	}
	k.mu.Unlock()
	if !found {
		return false, nil
	}
	if _, err := s.prunedSeal().OpenLocal(nil, sealed, prunedAD(id)); err != nil {
		return false, s.damaged(fmt.Errorf("%w: list of what was pruned: %w", index.ErrCorrupt, err))
	}
	return true, nil
}

func prunedAD(id block.ID) []byte { return append([]byte(bucketPruned+"\x00"), id[:]...) }

// notePruned puts contents on the list, durably.
func (s *space) notePruned(roots []block.ID) error {
	local := s.prunedSeal()
	for len(roots) > 0 {
		n := min(len(roots), 4096)
		if err := s.db.Update(func(tx kv.Tx) error {
			for _, id := range roots[:n] {
				if err := tx.Put(bucketPruned, append([]byte(nil), id[:]...), local.SealLocal(nil, nil, prunedAD(id))); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		roots = roots[n:]
	}
	s.keeping.mu.Lock()
	s.keeping.some = 1
	s.keeping.mu.Unlock()
	return nil
}

// prunedError turns the failure to read a content into ErrPruned where it was pruned.
func (s *space) prunedError(root cid.Cid, err error) error {
	if err == nil || !root.Defined() || errors.Is(err, errInterrupted) {
		return err
	}
	if yes, e := s.isPruned(root); e == nil && yes {
		return ErrPruned
	}
	return err
}

// isWhole reports whether all blocks of a content are on this device.
func (s *space) isWhole(ctx context.Context, root cid.Cid) bool {
	if !root.Defined() {
		return true
	}
	whole := true
	err := s.eachBlock(ctx, root, func(id block.ID) bool {
		whole = s.blocks.Has(id)
		return whole
	})
	return whole && (err == nil || errors.Is(err, errLeaves)) // that nobody can read
}

// eachBlock calls fn for the blocks of a content, nodes before what is under them, until fn returns false. It reads the nodes.
func (s *space) eachBlock(ctx context.Context, root cid.Cid, fn func(block.ID) bool) error {
	return s.eachNode(ctx, root, func(id block.ID, _ bool) bool { return fn(id) })
}

// eachNode is eachBlock that tells nodes from leaves.
func (s *space) eachNode(ctx context.Context, root cid.Cid, fn func(id block.ID, node bool) bool) error {
	get := func(ctx context.Context, c cid.Cid) ([]byte, error) {
		id, _, err := block.IDFromCID(c)
		if err != nil {
			return nil, err
		}
		if !fn(id, true) {
			return nil, errStop
		}
		return s.blocks.GetLocal(id)
	}
	err := eachLeaf(ctx, get, root, func(l block.Leaf) error {
		if !fn(l.ID, false) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
