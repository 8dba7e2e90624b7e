package spaces

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
)

// Mark says how far someone has come in the logs of a space. It is of this node's disk alone.
type Mark struct {
	Access Spot `json:"access"`
	Files  Spot `json:"files"`
}

// Spot is the last batch of a log that was had; the zero Spot is before the first.
type Spot struct {
	At uint64 `json:"at"`
	ID string `json:"id"`
}

// Frames gives the batches of a space that came since a mark, those of the access list first, and the mark behind them: a set that is closed under
// the past of each, whatever comes meanwhile. A mark of other logs than these counts as the zero Mark. found is false where the space is not here.
func (s *Set) Frames(ctx context.Context, id dag.ID, since Mark, access, files func(frame []byte) error) (now Mark, found bool, err error) {
	sp, err := s.get(id, false)
	if err != nil || sp == nil {
		return now, false, err
	}
	defer s.put(sp)
	if sp.retired.Load() {
		return now, false, nil
	}
	// Files name what is in the access list: its end is taken after theirs.
	end := uint64(sp.log.Mark())
	if now.Access, err = walkSince(ctx, sp.aclLog, since.Access, uint64(sp.aclLog.Mark()), access); err != nil {
		return now, true, fmt.Errorf("spaces: read the access list of %s: %w", id, err)
	}
	if now.Files, err = walkSince(ctx, sp.log, since.Files, end, files); err != nil {
		return now, true, fmt.Errorf("spaces: read the changes of %s: %w", id, err)
	}
	return now, true, nil
}

func walkSince(ctx context.Context, log *store.Store, since Spot, end uint64, fn func(frame []byte) error) (Spot, error) {
	from, last := uint64(0), Spot{}
	if since.ID != "" && since.At < end {
		if rec, err := log.ReadHead(since.At); err == nil && rec.ID.String() == since.ID {
			from, last = rec.End, since
		}
	}
	if from >= end {
		return last, nil
	}
	err := log.Walk(from, func(rec dag.Record) error {
		if rec.At >= end {
			return io.EOF
		}
		last = Spot{rec.At, rec.ID.String()}
		if err := ctx.Err(); err != nil {
			return err
		}
		return fn(rec.Frame)
	})
	return last, err
}

// Blocks calls fn for each block of a space, in no order.
func (s *Set) Blocks(ctx context.Context, id dag.ID, fn func(block.ID) error) error {
	sp, err := s.get(id, false)
	if err != nil || sp == nil {
		return err
	}
	defer s.put(sp)
	return sp.blocks.All(ctx, func(id block.ID, _ int64) error { return fn(id) })
}

// Block reads a block of a space into buf where that is large enough. Errors match block.ErrAbsent and block.ErrCorrupt.
func (s *Set) Block(space dag.ID, id block.ID, buf []byte) ([]byte, error) {
	sp, err := s.get(space, false)
	if err != nil {
		return nil, err
	}
	if sp == nil {
		return nil, block.ErrAbsent
	}
	defer s.put(sp)
	return sp.blocks.GetBuffer(id, buf)
}

// Words calls fn for what owners said of their spaces, as the database has it.
func (s *Set) Words(fn func(space dag.ID, word []byte) error) error {
	type word struct {
		space dag.ID
		value []byte
	}
	var all []word
	err := s.use.db.View(func(tx kv.Tx) error {
		return tx.Scan(placedBucket, nil, func(k, v []byte) bool {
			if len(k) == len(dag.ID{}) {
				all = append(all, word{dag.ID(k), bytes.Clone(v)})
			}
			return true
		})
	})
	for i := 0; i < len(all) && err == nil; i++ {
		err = fn(all[i].space, all[i].value)
	}
	return err
}

// RestoreWord takes a word that Words gave, in the place of an earlier one. It counts when the Set is opened again.
func (s *Set) RestoreWord(space dag.ID, word []byte) error {
	if len(word) < len(dag.PublicKey{})+9 {
		return fmt.Errorf("spaces: an owner's word of %d bytes", len(word))
	}
	if err := s.use.db.Update(func(tx kv.Tx) error { return tx.Put(placedBucket, space[:], word) }); err != nil {
		return fmt.Errorf("spaces: restore what the owner of %s said: %w", space, err)
	}
	return nil
}

// Restoring is a space that is filled from a backup. It is used by one goroutine, and nobody else uses the space.
type Restoring struct {
	s    *Set
	sp   *Space
	full bool // the quarantine
}

// Restore opens a space to fill it, and makes it where it is not here. Close ends it. The Set serves nobody meanwhile.
func (s *Set) Restore(id dag.ID) (*Restoring, error) {
	sp, err := s.openSpace(id)
	if err != nil {
		return nil, fmt.Errorf("spaces: restore %s: %w", id, err)
	}
	return &Restoring{s: s, sp: sp}, nil
}

// Access takes a batch of the access list; those that it names came before.
func (r *Restoring) Access(frame []byte) error { return r.sp.acl.Import(frame) }

// Changes takes batches of files; those that they name came before. What the quarantine has no room for is left out, with what names it.
func (r *Restoring) Changes(frames [][]byte) error {
	return r.sp.files.IngestAll(frames, func(res dag.Result, err error) error {
		switch {
		case errors.Is(err, dag.ErrQuota):
			r.full = true
			return nil
		case err == nil && res.Status == dag.Pending && !r.full:
			return fmt.Errorf("spaces: batch %s comes before what it names", res.ID)
		}
		return err
	})
}

// Block takes a block, whose bytes are those of its ID.
func (r *Restoring) Block(id block.ID, data []byte) error { return r.sp.blocks.PutHashed(id, data) }

// Close makes the space durable.
func (r *Restoring) Close(ctx context.Context) error {
	r.sp.grown()
	err := errors.Join(r.sp.checkpoint(ctx), r.sp.close())
	r.s.mu.Lock()
	r.s.known[r.sp.id] = struct{}{}
	r.s.mu.Unlock()
	return err
}
