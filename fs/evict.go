package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// Eviction lets leaves of contents go: the blocks that hold data. The nodes above them, and layouts, stay, so that what a file holds where is
// always known here. Only what is published goes, and only under a receipt (receipts.go); what is dirty or pinned stays.

// ErrMirrored is returned where content is to go of a space that is a mirror.
var ErrMirrored = errors.New("the space is mirrored on this device; 'anyfs space policy SPACE on-demand' lets content go")

// EvictResult says what went.
type EvictResult struct {
	Blocks int   `json:"blocks"`
	Bytes  int64 `json:"bytes"`

	// What stayed.
	Kept   int `json:"kept_blocks"`  // that no other device promises to keep, or that this one promised to keep
	Pinned int `json:"pinned_files"` // of those that were looked at
	Dirty  int `json:"dirty_files"`
}

// maxEvict bounds the blocks that are let go of in one round.
const maxEvict = 32 << 10

// Evict lets the content of what is at a path go from this device, as far as others keep it. What is dirty is published first.
func (h *Home) Evict(ctx context.Context, path string) (EvictResult, error) {
	var sum EvictResult
	ino, err := h.PathIno(path)
	if err != nil {
		return sum, err
	}
	if isView(ino) {
		return sum, ErrReadOnly
	}
	s, local, err := h.space(ino)
	if err != nil {
		return sum, err
	}
	if s.slot == 0 {
		return sum, ErrInvalid
	}
	if s.policy().mirrors() {
		return sum, ErrMirrored
	}
	if err := s.publishAll(ctx); err != nil {
		return sum, err
	}
	e := evicter{s: s, want: math.MaxInt64, found: map[block.ID]int64{}}
	var roots []*tree.Content
	err = s.eachBelow(ctx, local, func(n *index.Inode) {
		if c := e.candidate(n); c != nil {
			roots = append(roots, c)
		}
	})
	for _, c := range roots {
		if err == nil {
			err = e.collect(ctx, c, nil)
		}
	}
	if err == nil {
		err = e.round(ctx)
	}
	if e.sum.Blocks > 0 {
		err = errors.Join(err, s.blocks.Compact(ctx))
	}
	return e.sum, err
}

// evicter lets content of a space go.
type evicter struct {
	s     *space
	want  int64              // bytes that are to go
	found map[block.ID]int64 // what may go in the next round, with its size
	bytes int64              // of these
	sum   EvictResult
}

// candidate gives the content of an inode that may go; nil for none. Under mu.
func (e *evicter) candidate(n *index.Inode) *tree.Content {
	s := e.s
	if !n.IsRegular() || n.Base == nil || !n.Base.Root.Defined() {
		return nil
	}
	if n.Dirty() || s.streams[n.Ino] != nil {
		e.sum.Dirty++
		return nil
	}
	if slices.ContainsFunc(n.Links, func(l index.Link) bool { return l.Name == IgnoreName }) {
		return nil // it is read whenever something is published
	}
	if self, above, err := s.pinned(n); self || above || err != nil {
		e.sum.Pinned++
		return nil
	}
	return n.Base
}

// collect adds the leaves of a content that are here and that ok accepts, and evicts when enough are found.
func (e *evicter) collect(ctx context.Context, c *tree.Content, ok func(block.ID) bool) error {
	// Of a content of which nodes are absent, or damaged, the leaves are not known.
	_ = e.s.eachNode(ctx, c.Root, func(id block.ID, node bool) bool {
		if node || id == c.LayoutBlock || ok != nil && !ok(id) {
			return ctx.Err() == nil
		}
		if n, here := e.s.blocks.Size(id); here {
			if _, twice := e.found[id]; !twice {
				e.found[id] = n
				e.bytes += n
			}
		}
		return ctx.Err() == nil
	})
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if len(e.found) >= maxEvict || e.enough() {
		return e.round(ctx)
	}
	return nil
}

// enough reports whether what was evicted and found makes up what is wanted.
func (e *evicter) enough() bool { return e.sum.Bytes+e.bytes >= e.want }

// round evicts what was found, as far as it may go.
func (e *evicter) round(ctx context.Context) error {
	s := e.s
	found := e.found
	e.found, e.bytes = map[block.ID]int64{}, 0
	if len(found) == 0 {
		return nil
	}
	ids := make([]block.ID, 0, len(found))
	for id := range found {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b block.ID) int { return bytes.Compare(a[:], b[:]) })
	// The network is asked while nothing is held up.
	if err := s.spareKept(ctx, ids, true, func(id block.ID) { delete(found, id) }); err != nil {
		return err
	}
	have, asked := s.rely(ctx, ids, nil)
	if have == nil {
		return asked
	}
	for _, id := range ids {
		if _, still := found[id]; !still || !have[id] {
			delete(found, id)
			e.sum.Kept++
		}
	}
	if len(found) == 0 {
		return asked
	}
	s.keeping.pruning.Lock()
	defer s.keeping.pruning.Unlock()
	p := pruner{s: s}
	p.begin(found)
	defer p.end()
	// What was promised or referred to since is claimed by who did it.
	if err := s.spareKept(ctx, p.list(), false, p.needed); err != nil {
		return err
	}
	if err := e.spare(ctx, &p); err != nil {
		return err
	}
	// No record that a replay reads may name what goes: all of them are in a checkpoint.
	if err := s.checkpoint(ctx, true); err != nil {
		return err
	}
	return errors.Join(e.evict(ctx, p.list()), asked)
}

// spare takes out what dirty or pinned files show.
func (e *evicter) spare(ctx context.Context, p *pruner) error {
	s := e.s
	var bases []*tree.Content
	keep := func(n *index.Inode) { bases = p.spareInode(n, bases) }
	s.mu.Lock()
	inos := make([]uint64, 0, len(s.dirty)+len(s.orphaned))
	for _, set := range []map[uint64]struct{}{keys(s.dirty), s.orphaned, s.inflight, s.ign.inos} {
		for ino := range set {
			inos = append(inos, ino)
		}
	}
	pins := make([]uint64, 0, len(s.pins))
	for object := range s.pins {
		ino, err := s.ix.Object(object)
		if err != nil {
			s.mu.Unlock()
			return s.damaged(err)
		}
		if ino != 0 {
			pins = append(pins, ino)
		}
	}
	s.mu.Unlock()
	for step := range slices.Chunk(inos, inodeStep) {
		s.mu.Lock()
		for _, ino := range step {
			n, err := s.ix.Inode(ino)
			if err != nil {
				s.mu.Unlock()
				return s.damaged(err)
			}
			if n != nil {
				keep(n)
			}
		}
		s.mu.Unlock()
	}
	for _, ino := range pins {
		if err := s.eachBelow(ctx, ino, keep); err != nil {
			return err
		}
	}
	for _, c := range bases {
		// What is not here needs nothing.
		_ = s.eachBlock(ctx, c.Root, func(id block.ID) bool {
			p.needed(id)
			return ctx.Err() == nil
		})
	}
	return ctx.Err()
}

// evict lets blocks go that are doomed still, each under its receipt.
func (e *evicter) evict(ctx context.Context, ids []block.ID) error {
	s, k := e.s, &e.s.keeping
	var failed error
	for step := range slices.Chunk(ids, 64) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		s.relying.mu.Lock()
		have, err := s.relied(step)
		if err != nil {
			s.relying.mu.Unlock()
			return err
		}
		k.mu.Lock()
		for _, id := range step {
			size, still := k.doomed[id]
			if !still || !have[id] {
				continue
			}
			if err := s.blocks.Evict(id); err == nil {
				e.sum.Blocks++
				e.sum.Bytes += size
			} else if !errors.Is(err, block.ErrHeld) {
				failed = errors.Join(failed, err)
			}
		}
		k.mu.Unlock()
		s.relying.mu.Unlock()
	}
	return failed
}

// recent says which blocks were read lately, about: of two generations, the older one goes when the younger is full.
type recent struct {
	mu         sync.Mutex
	young, old map[block.ID]struct{}
}

// maxRecent bounds a generation: some 3 MB of memory, and 64 GiB of blocks of average size.
const maxRecent = 64 << 10

// age is 0 for what was read most recently, 2 for what was not.
type age uint8

const oldest age = 2

func (r *recent) add(id block.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= maxRecent {
		r.young, r.old = map[block.ID]struct{}{}, r.young
	}
	r.young[id] = struct{}{}
}

// turn makes the younger generation the older one.
func (r *recent) turn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.young, r.old = nil, r.young
}

func (r *recent) age(id block.ID) age {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, yes := r.young[id]; yes {
		return 0
	}
	if _, yes := r.old[id]; yes {
		return 1
	}
	return oldest
}

// touch notes that a block is read.
func (s *space) touch(id block.ID) {
	p := s.policy()
	if p.mirrors() {
		return
	}
	s.reads.add(id)
	if !s.blocks.Has(id) {
		if live, _ := s.blocks.Bytes(); p.CacheLimit > 0 && live > p.CacheLimit {
			s.h.kickEvictor()
		}
	}
}

func (h *Home) kickEvictor() {
	select {
	case h.evicts <- struct{}{}:
	default:
	}
}

// How the evictor goes about: it looks each evictEvery, and frees a tenth of the limit more than it has to. Where nothing could go, it tries
// again after evictAgain, and each time that this is in vain after twice as long, up to evictLatest.
const (
	evictEvery  = 5 * time.Second
	evictAgain  = 30 * time.Second
	evictLatest = 10 * time.Minute
)

// vainEviction is when less could go than is to, and how long nothing is tried then.
type vainEviction struct {
	at   time.Time
	wait time.Duration
}

// assurance is when it was looked whether what is not here is kept by others, and how much was not.
type assurance struct {
	epoch int // of the keepers
	left  int
	at    time.Time
}

// evictor keeps the spaces on demand below their limits, and the disk free, until ctx ends.
func (h *Home) evictor(ctx context.Context) {
	tick := time.NewTicker(evictEvery)
	defer tick.Stop()
	vain := map[*space]vainEviction{}
	sure := map[*space]assurance{}
	seen := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.evicts:
		}
		for s := range vain {
			if s.deleted() {
				delete(vain, s)
			}
		}
		for s := range sure {
			if s.deleted() {
				delete(sure, s)
			}
		}
		if epoch := h.keepersEpoch(); epoch != seen {
			seen = epoch
			clear(vain) // others keep content now
		}
		for _, s := range h.each() {
			if a, epoch := sure[s], h.keepersEpoch(); a.epoch != epoch || a.left > 0 && time.Since(a.at) > evictAgain {
				left, err := s.reassure(ctx, nil)
				if ctx.Err() != nil {
					return
				}
				if sure[s] = (assurance{epoch, left, time.Now()}); err != nil {
					h.opt.Log.Warn("what other devices and nodes keep is not known", "space", s.id, "err", err)
				} else if left > 0 && a.left != left {
					h.opt.Log.Warn("content that was let go of here is kept by nobody that is known", "space", s.id, "blocks", left)
				}
			}
			need := s.tooMuch()
			if need <= 0 {
				s.stuck.Store(false)
			}
			if v, ok := vain[s]; need <= 0 || s.deleted() || ok && time.Since(v.at) < v.wait {
				continue
			}
			res, err := s.evictLeast(ctx, need)
			if ctx.Err() != nil {
				return
			}
			if res.Bytes < need {
				vain[s] = vainEviction{time.Now(), min(max(2*vain[s].wait, evictAgain), evictLatest)}
			} else {
				delete(vain, s)
			}
			s.stuck.Store(res.Bytes < need)
			if err != nil {
				h.opt.Log.Info("content that is too much stays for now", "space", s.id, "err", err)
			}
		}
	}
}

// tooMuch is how many bytes of blocks are to go from a space; not positive: none.
func (s *space) tooMuch() int64 {
	p := s.policy()
	if p.mirrors() {
		return 0
	}
	need := int64(0)
	live, _ := s.blocks.Bytes()
	if p.CacheLimit > 0 && live > p.CacheLimit {
		need = live - p.CacheLimit + p.CacheLimit/10
	}
	if short := s.h.shortOfFree(); short > 0 {
		need = max(need, min(live, short+short/10))
	}
	return need
}

// evictLeast lets about need bytes go: what was read least recently first, then what old versions alone refer to.
func (s *space) evictLeast(ctx context.Context, need int64) (EvictResult, error) {
	e := evicter{s: s, want: need, found: map[block.ID]int64{}}
	var err error
	for a := oldest; err == nil && !e.enough(); a-- {
		e.sum.Pinned, e.sum.Dirty, e.sum.Kept = 0, 0, 0
		if err = e.ofAge(ctx, a); err == nil {
			err = e.round(ctx)
		}
		if a == 0 {
			break
		}
	}
	if err == nil && !e.enough() {
		err = e.history(ctx)
	}
	if e.sum.Blocks > 0 {
		s.reads.turn()
		err = errors.Join(err, s.blocks.Compact(ctx))
	}
	return e.sum, err
}

// ofAge evicts what is current and of an age.
func (e *evicter) ofAge(ctx context.Context, a age) error {
	var list []*tree.Content
	for next, full := uint64(0), true; full && !e.enough(); {
		list, full = list[:0], false
		count := 0
		e.s.mu.Lock()
		err := e.s.ix.InodesFrom(next, func(n *index.Inode) bool {
			next = n.Ino + 1
			if c := e.candidate(n); c != nil {
				list = append(list, c)
			}
			count++
			full = count == inodeStep
			return !full
		})
		e.s.mu.Unlock()
		if err != nil {
			return e.s.damaged(err)
		}
		for _, c := range list {
			if err := e.collect(ctx, c, func(id block.ID) bool { return e.s.reads.age(id) == a && !e.enough() }); err != nil {
				return err
			}
			if e.enough() {
				break
			}
		}
	}
	return nil
}

// history evicts what old versions refer to, and nothing that is current needs.
func (e *evicter) history(ctx context.Context) error {
	p := pruner{s: e.s, keep: KeepPolicy{}, now: e.s.h.opt.Clock().UnixNano()}
	stop := errors.New("enough")
	err := p.each(ctx, func(c *tree.Content, kept bool, _ int64) error {
		if kept {
			return nil
		}
		if e.enough() {
			return stop
		}
		return e.collect(ctx, c, func(block.ID) bool { return !e.enough() })
	})
	if err != nil && !errors.Is(err, stop) {
		return err
	}
	return e.round(ctx)
}

// ContentInfo says what of a file's content is on this device.
type ContentInfo struct {
	State  string   `json:"content,omitempty"` // "here", "part" or "absent"; empty for what has none
	Pin    PinState `json:"pin,omitempty"`
	HeldBy []string `json:"held_by,omitempty"` // devices that were known to have what is absent
	Root   string   `json:"cid,omitempty"`     // of the tree of blocks that the content is; empty for what is so small that it is in a change
}

// Content says what of a file's content is here, and who had what is not. It waits for nothing.
func (h *Home) Content(ctx context.Context, ino Ino) (ContentInfo, error) {
	var info ContentInfo
	if isView(ino) {
		return info, nil
	}
	s, local, err := h.space(ino)
	if err != nil || s.slot == 0 {
		return info, err
	}
	if info.Pin, err = h.pinState(s, local); err != nil {
		return info, err
	}
	s.mu.Lock()
	n, err := s.inode(local)
	if err == nil {
		n = n.Clone()
	}
	s.mu.Unlock()
	if err != nil || !n.IsRegular() {
		return info, err
	}
	info.State = "here"
	if n.Base == nil || !n.Base.Root.Defined() {
		return info, nil
	}
	info.Root = n.Base.Root.String()
	here, absent, err := s.present(ctx, n.Base.Root)
	if err != nil || len(absent) == 0 {
		return info, err
	}
	info.State = "part"
	if here == 0 {
		info.State = "absent"
	}
	names := map[string]bool{}
	if err := s.ledger(bucketReceipts).each(absent, func(_ block.ID, by []dag.PublicKey) {
		for _, d := range by {
			names[s.deviceName(d)] = true
		}
	}); err != nil {
		return info, err
	}
	if len(names) == 0 && !n.BaseAt.Change.IsZero() {
		// Nobody promised it: the one who wrote it had it.
		if e, err := s.graph.Change(n.BaseAt.Change); err == nil {
			names[s.deviceName(e.Batch.Device)] = true
		}
	}
	for name := range names {
		info.HeldBy = append(info.HeldBy, name)
	}
	slices.Sort(info.HeldBy)
	return info, nil
}

// present counts the leaves of a content that are here, and gives those blocks of it that are known and are not.
func (s *space) present(ctx context.Context, root cid.Cid) (here int, absent []block.ID, err error) {
	err = s.eachNode(ctx, root, func(id block.ID, node bool) bool {
		switch {
		case !s.blocks.Has(id):
			absent = append(absent, id)
		case !node:
			here++
		}
		return ctx.Err() == nil
	})
	if errors.Is(err, block.ErrAbsent) || errors.Is(err, errLeaves) {
		err = nil
	}
	return here, absent, err
}

func (s *space) deviceName(d dag.PublicKey) string {
	if name, ok := s.acl.DeviceName(d); ok && name != "" {
		return name
	}
	return fmt.Sprintf("device %x", d[:4])
}
