package fs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// KeepPolicy says which old content a prune keeps: what either rule keeps. The zero policy keeps none. What is current is
// always kept.
type KeepPolicy struct {
	Within time.Duration // what was shown at any time since then
	Last   int           // the last versions of each file, deleted ones too; the current one counts
}

// PruneResult says what a prune dropped, or would drop.
type PruneResult struct {
	Versions int   `json:"versions"` // contents of which blocks went
	Blocks   int   `json:"blocks"`
	Bytes    int64 `json:"bytes"`
}

func (r *PruneResult) add(o PruneResult) {
	r.Versions += o.Versions
	r.Blocks += o.Blocks
	r.Bytes += o.Bytes
}

// Prune drops content from this device that only history refers to and that keep does not keep, of a space or (empty) of all:
// the oldest first. Versions stay listed; reading what was dropped gives ErrPruned. dryRun only counts. It may run beside
// everything else, and publishes first.
func (h *Home) Prune(ctx context.Context, space string, keep KeepPolicy, dryRun bool) (PruneResult, error) {
	var sum PruneResult
	list := h.each()
	if space != "" {
		s, err := h.namedSpace(space)
		if err != nil {
			return sum, err
		}
		list = append(list[:0], s)
	}
	for _, s := range list {
		if s.slot == 0 {
			continue
		}
		how := pruneForReal
		if dryRun {
			how = pruneDry
		}
		res, err := s.prune(ctx, keep, math.MaxInt64, how)
		sum.add(res)
		if err != nil {
			return sum, fmt.Errorf("prune: %w", err)
		}
	}
	return sum, nil
}

// HistoryBytes is how many bytes on this device only the history of a space takes: what a prune that keeps nothing would drop.
func (h *Home) HistoryBytes(ctx context.Context, space string) (int64, error) {
	res, err := h.Prune(ctx, space, KeepPolicy{}, true)
	return res.Bytes, err
}

// Limits of one round of a prune.
const (
	maxOld    = 1 << 20   // contents that are looked at
	maxDoomed = 256 << 10 // blocks that go
)

// oldContent is a content that policy lets go.
type oldContent struct {
	root cid.Cid
	end  int64 // when it stopped being shown, by the clock of the device that ended it
}

// How a prune goes about.
type pruneHow uint8

const (
	pruneForReal pruneHow = iota
	pruneDry              // only count
	pruneInNeed           // the disk is full: publish nothing first
	pruneDryInNeed
)

// prune drops old content until about want bytes are free.
func (s *space) prune(ctx context.Context, keep KeepPolicy, want int64, how pruneHow) (sum PruneResult, err error) {
	s.keeping.pruning.Lock()
	defer s.keeping.pruning.Unlock()
	if how == pruneForReal || how == pruneDry {
		if err := s.publishAll(ctx); err != nil {
			return sum, err
		}
	}
	p := pruner{s: s, keep: keep, now: s.h.opt.Clock().UnixNano(), dry: how == pruneDry || how == pruneDryInNeed, lost: map[block.ID]struct{}{}}
	if err := p.collect(ctx); err != nil {
		return sum, err
	}
	for len(p.old) > 0 && sum.Bytes < want {
		res, err := p.round(ctx, want-sum.Bytes)
		sum.add(res)
		if err != nil {
			return sum, err
		}
	}
	if sum.Blocks > 0 && !p.dry {
		err = s.blocks.Compact(ctx)
	}
	return sum, err
}

// pruner is one prune of a space.
type pruner struct {
	s    *space
	keep KeepPolicy
	now  int64
	dry  bool
	old  []oldContent          // the oldest first; rounds take from the front
	lost map[block.ID]struct{} // the roots of contents of which blocks went

	doomed map[block.ID]int64 // in a dry run; else keeping's
}

// objectContents are the contents of one object, in total order.
type objectContents struct {
	at   []tree.Ref
	of   []*tree.Content
	over [][]tree.Ref
	time []int64
}

// each calls fn for the contents of every object, and says of each whether it is kept and when it stopped being shown.
func (p *pruner) each(ctx context.Context, fn func(c *tree.Content, kept bool, end int64) error) error {
	return p.s.graph.Objects(func(id dag.ID) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		c, st, err := p.contents(id)
		if err != nil || len(c.at) == 0 {
			return err
		}
		return p.judge(c, st, fn)
	})
}

func (p *pruner) contents(id dag.ID) (*objectContents, *tree.State, error) {
	c := &objectContents{}
	m := moment{math.MaxInt64, p.now}
	last := int64(math.MinInt64)
	st, err := p.s.foldWhile(id, func(e *dag.Entry, pl *tree.Payload) bool {
		if pl == nil {
			return true
		}
		m.in(pl.Time, &last)
		for i := range pl.Ops {
			if o := &pl.Ops[i]; o.Kind == tree.OpContent {
				c.at = append(c.at, tree.Ref{Change: e.ID, Place: uint32(i)})
				c.of, c.over, c.time = append(c.of, o.Content), append(c.over, o.Over), append(c.time, last)
			}
		}
		return true
	})
	return c, st, err
}

// judge decides which contents of an object are kept.
func (p *pruner) judge(c *objectContents, st *tree.State, fn func(*tree.Content, bool, int64) error) error {
	place := make(map[tree.Ref]int, len(c.at))
	end := make([]int64, len(c.at))
	kept := make([]bool, len(c.at))
	for i := range c.at {
		place[c.at[i]], end[i] = i, math.MaxInt64
		for _, r := range c.over[i] {
			if j, ok := place[r]; ok {
				end[j] = min(end[j], c.time[i])
			}
		}
	}
	died := int64(math.MaxInt64)
	if st != nil && len(st.LiveLinks()) == 0 && len(st.Links) > 0 {
		died = 0
		for i := range st.Links {
			died = max(died, st.Links[i].Mark.Time)
		}
	}
	since := p.now - int64(p.keep.Within)
	for i := range c.at {
		if end[i] == math.MaxInt64 {
			end[i] = died
		}
		kept[i] = end[i] == math.MaxInt64 || p.keep.Within > 0 && end[i] > since || i >= len(c.at)-p.keep.Last
	}
	// What a kept patch lies over is kept.
	for i := len(c.at) - 1; i >= 0; i-- {
		if kept[i] && c.of[i].IsPatch() {
			for _, r := range c.over[i] {
				if j, ok := place[r]; ok {
					kept[j] = true
				}
			}
		}
	}
	for i := range c.at {
		if c.of[i].Root.Defined() {
			if err := fn(c.of[i], kept[i], end[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// collect finds the old contents; of more than maxOld the oldest.
func (p *pruner) collect(ctx context.Context) error {
	byAge := func(a, b oldContent) int { return cmp.Compare(a.end, b.end) }
	err := p.each(ctx, func(c *tree.Content, kept bool, end int64) error {
		if kept {
			return nil
		}
		p.old = append(p.old, oldContent{c.Root, end})
		if len(p.old) >= 2*maxOld {
			slices.SortFunc(p.old, byAge)
			p.old = p.old[:maxOld]
		}
		return nil
	})
	slices.SortFunc(p.old, byAge)
	return err
}

// round takes the oldest contents and drops of their blocks those that nothing else needs.
func (p *pruner) round(ctx context.Context, want int64) (res PruneResult, err error) {
	s := p.s
	doomed := map[block.ID]int64{}
	nodes := map[block.ID]struct{}{}
	var sum int64
	var absent []block.ID
	var taken []cid.Cid
	for len(p.old) > 0 && len(doomed)+len(absent) < maxDoomed && sum/2 < want {
		o := p.old[0]
		p.old = p.old[1:]
		taken = append(taken, o.root)
		// What can't be read is gone already, or damaged: then its leaves are not known.
		_ = s.eachNode(ctx, o.root, func(id block.ID, node bool) bool {
			if n, ok := s.blocks.Size(id); ok {
				if _, twice := doomed[id]; !twice {
					doomed[id] = n
					sum += n
				}
				if node {
					nodes[id] = struct{}{}
				}
			} else {
				absent = append(absent, id)
			}
			return ctx.Err() == nil
		})
	}
	// What another device keeps for this one goes with what is here: nothing of it is needed any more.
	if err := s.ledger(bucketReceipts).each(absent, func(id block.ID, _ []dag.PublicKey) { doomed[id] = 0 }); err != nil {
		return res, err
	}
	if len(doomed) == 0 {
		return res, ctx.Err()
	}
	p.begin(doomed)
	defer p.end()
	if err := p.spare(ctx); err != nil {
		return res, err
	}
	if err := p.spareKept(ctx, taken); err != nil {
		return res, err
	}
	roots, err := p.losers(ctx)
	if err != nil {
		return res, err
	}
	res.Versions = len(roots)
	if p.dry {
		for _, n := range p.doomed {
			if n > 0 {
				res.Blocks++
				res.Bytes += n
			}
		}
		return res, nil
	}
	// No record that a replay reads may name what goes: all of them are in a checkpoint.
	if err := s.checkpoint(ctx, true); err != nil {
		return res, err
	}
	if err := s.notePruned(roots); err != nil {
		return res, err
	}
	crashpoint.Here(crashpoint.PruneNoted)
	free := p.list()
	blocks, bytes, err := p.evict(ctx, nodes)
	res.Blocks, res.Bytes = blocks, bytes
	if err == nil {
		err = s.release(slices.DeleteFunc(free, func(id block.ID) bool { return !p.isDoomed(id) || s.blocks.Has(id) }))
	}
	return res, err
}

// begin lets everyone who is about to refer to a block know which ones may go.
func (p *pruner) begin(doomed map[block.ID]int64) {
	p.doomed = doomed
	if p.dry {
		return
	}
	s := p.s
	s.pubMu.Lock()
	s.keeping.refs.Lock()
	s.mu.Lock()
	s.keeping.mu.Lock()
	s.keeping.doomed = doomed
	s.keeping.rounds.Add(1)
	s.keeping.mu.Unlock()
	s.mu.Unlock()
	s.keeping.refs.Unlock()
	s.pubMu.Unlock()
}

func (p *pruner) end() {
	p.s.keeping.mu.Lock()
	p.s.keeping.doomed = nil
	p.s.keeping.mu.Unlock()
}

// needed takes a block out of what goes.
func (p *pruner) needed(id block.ID) {
	if p.dry {
		delete(p.doomed, id)
		return
	}
	p.s.claim(id)
}

func (p *pruner) isDoomed(id block.ID) bool {
	if !p.dry {
		p.s.keeping.mu.Lock()
		defer p.s.keeping.mu.Unlock()
	}
	_, yes := p.doomed[id]
	return yes
}

// spare takes out what is needed: by any inode, and by any content that is kept.
func (p *pruner) spare(ctx context.Context) error {
	if err := p.spareInodes(ctx); err != nil {
		return err
	}
	return p.each(ctx, func(c *tree.Content, kept bool, _ int64) error {
		if !kept {
			return nil
		}
		return p.spareContent(ctx, c)
	})
}

func (p *pruner) spareContent(ctx context.Context, c *tree.Content) error {
	if !c.Root.Defined() {
		return nil
	}
	err := p.s.eachBlock(ctx, c.Root, func(id block.ID) bool {
		p.needed(id)
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if errors.Is(err, errLeaves) {
		return nil // nobody can read it
	}
	if err != nil && ctx.Err() == nil {
		if pruned, e := p.s.isPruned(c.Root); e == nil && pruned {
			return nil // an earlier prune had another policy
		}
		if errors.Is(err, block.ErrAbsent) && p.s.policy().OnDemand {
			return nil // it never came here: of what it shares with what goes, its device has all, or another for it
		}
		return fmt.Errorf("what the content %s needs is not known: %w", c.Root, err)
	}
	return err
}

// inodeStep is how many inodes are looked at under the lock at a time.
const inodeStep = 256

// spareInode takes out the blocks that an inode's extents show, and appends its content, if it has one, to bases.
func (p *pruner) spareInode(n *index.Inode, bases []*tree.Content) []*tree.Content {
	if n.Base != nil && n.Base.Root.Defined() {
		bases = append(bases, n.Base)
	}
	if n.Ext != nil {
		n.Ext.Range(0, math.MaxInt64, func(_ int64, x index.Extent) bool {
			if x.Src.Kind == index.SourceBlock {
				p.needed(x.Src.Block)
			}
			return true
		})
	}
	return bases
}

func (p *pruner) spareInodes(ctx context.Context) error {
	var bases []*tree.Content
	for next, full := uint64(0), true; full; {
		bases, full = bases[:0], false
		count := 0
		p.s.mu.Lock()
		err := p.s.ix.InodesFrom(next, func(n *index.Inode) bool {
			next = n.Ino + 1
			bases = p.spareInode(n, bases)
			count++
			full = count == inodeStep
			return !full
		})
		p.s.mu.Unlock()
		if err != nil {
			return p.s.damaged(err)
		}
		for _, c := range bases {
			if err := p.spareContent(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// losers gives the contents of which blocks go, and that none of the rounds before has found: not only those that were chosen, since
// others, published meanwhile among them, may share their blocks and not be kept either.
func (p *pruner) losers(ctx context.Context) (roots []block.ID, err error) {
	err = p.each(ctx, func(c *tree.Content, kept bool, _ int64) error {
		id, _, err := block.IDFromCID(c.Root)
		if kept || err != nil {
			return nil
		}
		if _, twice := p.lost[id]; !twice && p.loses(ctx, c.Root) {
			p.lost[id] = struct{}{}
			roots = append(roots, id)
		}
		return nil
	})
	return roots, err
}

// loses reports whether any block of a content goes.
func (p *pruner) loses(ctx context.Context, root cid.Cid) bool {
	yes := false
	_ = p.s.eachBlock(ctx, root, func(id block.ID) bool {
		yes = p.isDoomed(id)
		return !yes
	})
	return yes
}

// spareKept takes out what was promised to other devices, and the nodes above it: with them it is found when the promise ends.
func (p *pruner) spareKept(ctx context.Context, taken []cid.Cid) error {
	kept := map[block.ID]struct{}{}
	if err := p.s.spareKept(ctx, p.list(), false, func(id block.ID) {
		kept[id] = struct{}{}
		p.needed(id)
	}); err != nil || len(kept) == 0 {
		return err
	}
	for _, root := range taken {
		var nodes []block.ID
		any := false
		_ = p.s.eachNode(ctx, root, func(id block.ID, node bool) bool {
			if node {
				nodes = append(nodes, id)
			}
			_, yes := kept[id]
			any = any || yes
			return ctx.Err() == nil
		})
		if any {
			for _, id := range nodes {
				p.needed(id)
			}
		}
	}
	return ctx.Err()
}

// list gives what is to go.
func (p *pruner) list() []block.ID {
	if !p.dry {
		p.s.keeping.mu.Lock()
		defer p.s.keeping.mu.Unlock()
	}
	ids := make([]block.ID, 0, len(p.doomed))
	for id := range p.doomed {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b block.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

// evict lets the blocks go, nodes last: as long as they are there, a prune that was interrupted can be done again.
func (p *pruner) evict(ctx context.Context, nodes map[block.ID]struct{}) (blocks int, bytes int64, err error) {
	k := &p.s.keeping
	k.mu.Lock()
	leaves := make([]block.ID, 0, len(k.doomed))
	var last []block.ID
	for id := range k.doomed {
		if _, node := nodes[id]; node {
			last = append(last, id)
		} else {
			leaves = append(leaves, id)
		}
	}
	k.mu.Unlock()
	for _, list := range [][]block.ID{leaves, last} {
		for len(list) > 0 {
			if err := ctx.Err(); err != nil {
				return blocks, bytes, err
			}
			n := min(len(list), 64)
			k.mu.Lock()
			for _, id := range list[:n] {
				size, still := k.doomed[id]
				if !still {
					continue // claimed meanwhile
				}
				if e := p.s.blocks.Evict(id); e != nil && !errors.Is(e, block.ErrHeld) {
					err = errors.Join(err, e)
					continue
				} else if e == nil && size > 0 {
					blocks++
					bytes += size
				}
			}
			k.mu.Unlock()
			crashpoint.Here(crashpoint.BlockEvicted)
			list = list[n:]
		}
	}
	return blocks, bytes, err
}
