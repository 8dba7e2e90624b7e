package fs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// Chunks of a file that is still being written travel ahead of it: the device that seals one tells the others, and a mirror fetches it, so
// that most of a large file is there when it is published. Until then nothing refers to such a block, and nothing may come to: it is kept
// for a while, and goes when no content has it by then.

const (
	// earlyAtOnce bounds the blocks of a space that are on their way so; what is told of beyond comes when it is published.
	earlyAtOnce = 16
	// maxEarly bounds the blocks of a space that came so and that no content is known to have: 16 GiB of average size. roomAhead keeps the
	// disk free too.
	maxEarly = 16 << 10
	// earlyFor is how long they are kept.
	earlyFor = time.Hour
	// earlySlow is how long one may take; then the line is left to what is published for earlyPause.
	earlySlow  = 2 * time.Second
	earlyPause = time.Minute
)

// early is what travels ahead in a space. Its lock is the last of all.
type early struct {
	mu    sync.Mutex
	under int                    // on their way
	came  map[block.ID]time.Time // and when
	pause time.Time              // nothing is fetched until then
}

// SetSealed has fn called with each block that is sealed for a file which is not published yet, and which the other devices of the space
// are to have. fn is quick, and may be called by several goroutines.
func (h *Home) SetSealed(fn func(space dag.ID, id block.ID)) { h.onSealed.Store(&fn) }

// tellSealed tells of a block that an inode came to refer to.
func (s *space) tellSealed(ino uint64, id block.ID) {
	fn := s.h.onSealed.Load()
	if fn == nil {
		return
	}
	s.mu.Lock()
	n, err := s.ix.Inode(ino)
	tell := err == nil && n != nil && !s.gone && !s.nameless(n) && s.ignoreLook().of(n) == notIgnored
	s.mu.Unlock()
	if tell {
		(*fn)(s.id, id)
	}
}

// Sealed takes note of blocks that a device of account has sealed for what it is going to publish, and has them fetched where the space is
// mirrored, as far as the line and the disk allow. Who may not write has nothing to publish.
func (r *Replica) Sealed(account dag.PublicKey, ids []block.ID) {
	s := r.s
	if !s.policy().mirrors() || r.s.acl.List().State().Role(account) < acl.RoleWriter || s.deleted() {
		return
	}
	for _, id := range ids {
		if s.blocks.Has(id) {
			continue
		}
		b := aheadBlock{s, id}
		if !s.early.begin() {
			return
		}
		if !s.h.coming.add(b) {
			s.early.end(id, 0, errors.New("it is on its way"))
			continue
		}
		select {
		case s.h.early <- b:
		default:
			s.h.coming.done(b)
			s.early.end(id, 0, errors.New("no room"))
			return
		}
	}
}

// begin takes a place for a block.
func (e *early) begin() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.under >= earlyAtOnce || len(e.came)+e.under >= maxEarly || time.Now().Before(e.pause) {
		return false
	}
	e.under++
	return true
}

// end gives the place back; without an error the block came, and took so long.
func (e *early) end(id block.ID, took time.Duration, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.under--
	if took > earlySlow {
		e.pause = time.Now().Add(earlyPause)
	}
	if err != nil {
		return
	}
	if e.came == nil {
		e.came = map[block.ID]time.Time{}
	}
	e.came[id] = time.Now()
}

// claimed notes that a content has the block.
func (e *early) claimed(id block.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.came, id)
}

// unclaimed gives the blocks that came before t and that no content is known to have.
func (e *early) unclaimed(t time.Time) (ids []block.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, at := range e.came {
		if at.Before(t) {
			ids = append(ids, id)
		}
	}
	return ids
}

// fetchEarly fetches a block that travels ahead.
func (h *Home) fetchEarly(ctx context.Context, b aheadBlock) {
	defer h.coming.done(b)
	began := time.Now()
	err := errors.New("not wanted")
	if !b.s.deleted() && !b.s.blocks.Has(b.id) && h.roomAhead() {
		_, err = b.s.blocks.Get(ctx, b.id)
	}
	b.s.early.end(b.id, time.Since(began), err)
}

// dropEarly lets the blocks go that came before t and that nothing refers to.
func (s *space) dropEarly(ctx context.Context, t time.Time) error {
	ids := s.early.unclaimed(t)
	if len(ids) == 0 {
		return nil
	}
	s.keeping.pruning.Lock()
	defer s.keeping.pruning.Unlock()
	doomed := map[block.ID]int64{}
	for _, id := range ids {
		if n, ok := s.blocks.Size(id); ok {
			doomed[id] = n
		}
	}
	// What an old version had and never was fetched for it is as absent as before.
	p := pruner{s: s, now: s.h.opt.Clock().UnixNano(), lost: map[block.ID]struct{}{}}
	p.begin(doomed)
	defer p.end()
	if err := p.spare(ctx); err != nil {
		return err
	}
	if err := p.spareKept(ctx, nil); err != nil {
		return err
	}
	if len(p.list()) > 0 {
		// No record that a replay reads may name what goes.
		if err := s.checkpoint(ctx, true); err != nil {
			return err
		}
		if _, _, err := p.evict(ctx, nil); err != nil {
			return err
		}
	}
	for _, id := range ids {
		s.early.claimed(id) // or gone
	}
	return nil
}
