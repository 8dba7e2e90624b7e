package fs

import (
	"context"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/index"
)

// ledger is a list, in the database of a space, of devices by block: the key is the block's ID, the value sealed, of 32 bytes for each
// device. What is written into it is durable at once.
type ledger struct {
	s      *space
	bucket string
	seal   *seal.Local
}

// The ledgers of a space.
const (
	bucketReceipts = "receipts" // who keeps a block for this device
	bucketReleases = "releases" // to whom it is still to be said that this device does without
	bucketPromises = "promises" // for whom this device keeps a block
)

func (s *space) ledger(bucket string) *ledger {
	return &ledger{s, bucket, s.h.local.Derive("space " + s.dir).Derive(bucket)}
}

func (l *ledger) ad(id block.ID) []byte { return append([]byte(l.bucket+"\x00"), id[:]...) }

// open opens a value.
func (l *ledger) open(id block.ID, sealed []byte) ([]dag.PublicKey, error) {
	b, err := l.seal.OpenLocal(nil, sealed, l.ad(id))
	if err == nil && len(b)%len(dag.PublicKey{}) != 0 {
		err = fmt.Errorf("%d bytes", len(b))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: value in %s, key %x: %w", index.ErrCorrupt, l.bucket, id[:], err)
	}
	var out []dag.PublicKey
	for ; len(b) > 0; b = b[len(dag.PublicKey{}):] {
		out = append(out, dag.PublicKey(b[:len(dag.PublicKey{})]))
	}
	return out, nil
}

// of gives the devices of a block.
func (l *ledger) of(tx kv.Tx, id block.ID) ([]dag.PublicKey, error) {
	v := tx.Get(l.bucket, id[:])
	if v == nil {
		return nil, nil
	}
	return l.open(id, v)
}

// change replaces the devices of a block by what fn makes of them.
func (l *ledger) change(tx kv.Tx, id block.ID, fn func([]dag.PublicKey) []dag.PublicKey) error {
	old, err := l.of(tx, id)
	if err != nil {
		return err
	}
	now := fn(slices.Clone(old))
	if slices.Equal(old, now) {
		return nil
	}
	key := append([]byte(nil), id[:]...)
	if len(now) == 0 {
		return tx.Delete(l.bucket, key)
	}
	var b []byte
	for i := range now {
		b = append(b, now[i][:]...)
	}
	return tx.Put(l.bucket, key, l.seal.SealLocal(nil, b, l.ad(id)))
}

// add and remove change the devices of a block by one.
func (l *ledger) add(tx kv.Tx, id block.ID, device dag.PublicKey) error {
	return l.change(tx, id, func(d []dag.PublicKey) []dag.PublicKey {
		if slices.Contains(d, device) {
			return d
		}
		return append(d, device)
	})
}

func (l *ledger) remove(tx kv.Tx, id block.ID, device dag.PublicKey) error {
	return l.change(tx, id, func(d []dag.PublicKey) []dag.PublicKey {
		return slices.DeleteFunc(d, func(x dag.PublicKey) bool { return x == device })
	})
}

// ledgerStep is how many blocks are looked at in one transaction.
const ledgerStep = 1024

// each calls fn for the devices of those of the blocks that have any, and passes over the others.
func (l *ledger) each(ids []block.ID, fn func(id block.ID, devices []dag.PublicKey)) error {
	for len(ids) > 0 {
		some := ids[:min(len(ids), ledgerStep)]
		ids = ids[len(some):]
		if err := l.s.db.View(func(tx kv.Tx) error {
			for _, id := range some {
				if d, err := l.of(tx, id); err != nil {
					return err
				} else if len(d) > 0 {
					fn(id, d)
				}
			}
			return nil
		}); err != nil {
			return l.s.damaged(err)
		}
	}
	return nil
}

// some gives up to ledgerStep blocks of the ledger, from the one after `after` on.
func (l *ledger) some(after block.ID) (ids []block.ID, devices [][]dag.PublicKey, err error) {
	err = l.s.db.View(func(tx kv.Tx) error {
		var failed error
		err := tx.Scan(l.bucket, after[:], func(k, v []byte) bool {
			if len(k) != len(block.ID{}) || block.ID(k) == after {
				return true
			}
			d, err := l.open(block.ID(k), v)
			if err != nil {
				failed = err
				return false
			}
			ids, devices = append(ids, block.ID(k)), append(devices, d)
			return len(ids) < ledgerStep
		})
		if err == nil {
			err = failed
		}
		return err
	})
	if err != nil {
		err = l.s.damaged(err)
	}
	return ids, devices, err
}

// verifyLedgers opens what is in the ledgers, and holds what was promised to others against what is here.
func (s *space) verifyLedgers(ctx context.Context, report func(error)) error {
	for _, bucket := range []string{bucketReceipts, bucketReleases, bucketPromises} {
		l := s.ledger(bucket)
		var promised []block.ID
		if err := kv.Each(ctx, s.db, bucket, func(k, v []byte) {
			if len(k) != len(block.ID{}) {
				report(fmt.Errorf("%w: key %x in %s", index.ErrCorrupt, k, bucket))
			} else if _, err := l.open(block.ID(k), v); err != nil {
				report(err)
			} else if bucket == bucketPromises {
				promised = append(promised, block.ID(k))
			}
		}); err != nil {
			return err
		}
		for _, id := range promised {
			if !s.blocks.Has(id) {
				still := false
				if err := l.each([]block.ID{id}, func(block.ID, []dag.PublicKey) { still = true }); err != nil {
					return err
				}
				if !still {
					continue // it was given back meanwhile
				}
				report(fmt.Errorf("block %s was promised to another device: %w", id, s.lacks(id)))
			}
		}
	}
	return nil
}
