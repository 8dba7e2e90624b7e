package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// Changes of other devices come into the graph of a space by themselves. From there a round of arrival takes them into the tree and
// the index: those of a batch together. What is dirty here is left as it is until it is published; then the tree has both sides,
// and its answer is taken. A space that only this device writes to has no tree in memory.

// arrivals is what a space knows of changes that are not its own.
type arrivals struct {
	mu     sync.Mutex
	queue  []dag.ID    // batches that began to count and are not in the tree; none while there is no tree
	follow bool        // there is a tree, or is about to be: what comes is queued
	others bool        // another device has written to the space
	moved  atomic.Bool // the index changed by it
	due    bool        // something came, or something that had to wait may go on

	tired bool // of ending conflicts; the arriver's

	// Under pubMu.
	f     *folder
	later map[tree.DirName]struct{} // names that are to be looked at
	objs  map[dag.ID]struct{}       // objects of which the names are
	root  bool                      // the attributes of the root are, too
}

// watchArrivals follows the graph of a space from now on. It is called once, before anyone can write to it.
func (s *space) watchArrivals() {
	in := &s.in
	own := dag.PublicKey(s.h.keys.Author().Device)
	for _, t := range s.graph.Tips() {
		if t.Device != own {
			in.due, in.others = true, true
			break
		}
	}
	s.graph.Subscribe(func(b *dag.Batch) {
		in.mu.Lock()
		if in.follow {
			in.queue = append(in.queue, b.ID())
		}
		wake := b.Device != own
		in.due, in.others = in.due || wake, in.others || wake
		in.mu.Unlock()
		if wake {
			s.h.wakeArriver()
		}
	})
}

// wakeArriver has the arriver look at all spaces.
func (h *Home) wakeArriver() {
	select {
	case h.arrived <- struct{}{}:
	default:
	}
}

// arriver brings in what comes from others, until ctx ends.
func (h *Home) arriver(ctx context.Context) {
	for {
		for _, s := range h.each() {
			err := s.arrive(ctx)
			if err == nil && s == h.home && !s.waits() && s.in.moved.Swap(false) {
				err = h.settleRoot()
				h.spacesChanged()
			}
			if err != nil && ctx.Err() == nil {
				h.report(fmt.Sprintf("space %s: take in what came", s.id), err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-h.arrived:
		}
	}
}

// waits reports whether names are not brought in yet: what is gone from one place may be on its way to another.
func (s *space) waits() bool {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	return len(s.in.later) > 0
}

// again has the names that had to wait looked at, after a publication. Under pubMu.
func (s *space) again() {
	if s.in.f == nil {
		return
	}
	s.in.mu.Lock()
	s.in.due = s.in.due || len(s.in.queue) > 0 || len(s.in.later) > 0 || s.in.root
	due := s.in.due
	s.in.mu.Unlock()
	if due {
		s.h.wakeArriver()
	}
}

// maxRounds bounds the rounds of one arrival that end conflicts: what a hostile writer made so that it does not end is left as it is
// until something else comes.
const maxRounds = 64

// arrive takes what came into the tree and the index. It returns when nothing is left to do but what waits for a publication.
func (s *space) arrive(ctx context.Context) error {
	for n := 0; ; n++ {
		s.in.tired = n >= maxRounds
		more, err := s.arriveSome(ctx)
		if errors.Is(err, journal.ErrFull) {
			if err = s.h.makeRoom(); err == nil {
				continue
			}
		}
		if err != nil || !more {
			return err
		}
	}
}

// arriveSome is a round: one record of the journal at most.
func (s *space) arriveSome(ctx context.Context) (more bool, err error) {
	in := &s.in
	in.mu.Lock()
	due := in.due
	in.mu.Unlock()
	if !due || s.deleted() {
		return false, nil
	}
	var events []Event
	defer func() {
		if len(events) > 0 {
			s.h.emit(events...)
		}
	}()
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if s.sick != nil {
		return false, nil
	}
	// What was published before is in the index before others' changes to it are.
	if err := s.note(ctx); err != nil {
		return false, err
	}
	in.mu.Lock()
	queue := in.queue
	in.queue, in.due = nil, false
	in.follow = true // before the graph is folded: what comes meanwhile is not among that
	in.mu.Unlock()
	failed := func(err error) (bool, error) {
		in.mu.Lock()
		in.queue, in.due = append(queue, in.queue...), true
		in.mu.Unlock()
		return false, err
	}
	if err := s.foldArrived(ctx, queue); err != nil {
		return failed(err)
	}
	queue = nil
	settled := false
	if !in.tired {
		settled, err = s.settleConflicts()
	}
	if err != nil {
		return failed(err)
	}
	// The record says that the batches were taken in: they are durable first.
	if err := s.log.Sync(); err != nil {
		if s.deleted() {
			return false, nil
		}
		return failed(s.h.broken(err))
	}
	var seq journal.Seq
	s.mu.Lock()
	if !s.gone {
		events, seq, more, err = s.planArrival(settled)
	}
	s.mu.Unlock()
	if err != nil {
		return failed(err)
	}
	if seq != 0 {
		in.moved.Store(true)
		s.h.Mirror()
		err := s.h.written(seq)
		if settled && err == nil {
			err = s.h.sync(ctx, seq) // what was published here is noted durably before it may be sent
		}
		if err != nil {
			return failed(err)
		}
	}
	if more = more || settled; more {
		in.mu.Lock()
		in.due = true
		in.mu.Unlock()
	}
	return more, nil
}

// foldArrived brings the tree up to date. The first time that is all of the graph, and everything is looked at.
func (s *space) foldArrived(ctx context.Context, queue []dag.ID) error {
	in := &s.in
	if in.f == nil {
		f, err := s.newFolder()
		if err == nil {
			err = f.all(ctx)
		}
		if err != nil {
			return fmt.Errorf("fold: %w", err)
		}
		in.f, in.later, in.objs = f, map[tree.DirName]struct{}{}, map[dag.ID]struct{}{}
		return s.lookAtAll()
	}
	for _, id := range queue {
		if err := s.foldBatch(id); err != nil {
			return err
		}
	}
	return nil
}

// foldBatch takes a batch into the tree, and notes what is to be looked at. Under pubMu.
func (s *space) foldBatch(id dag.ID) error {
	in := &s.in
	b, bodies, err := s.graph.Batch(id)
	if err != nil {
		return err
	}
	d, err := in.f.add(b, bodies)
	if err != nil {
		return err
	}
	for _, object := range d.Objects {
		in.objs[object] = struct{}{}
	}
	in.root = in.root || slices.Contains(d.Objects, in.f.t.Root())
	for _, n := range d.Names {
		in.later[n] = struct{}{}
	}
	for _, n := range d.Merges {
		if err := s.lookBelow(n); err != nil {
			return err
		}
	}
	return nil
}

// lookAtAll has every name of the tree looked at, and every one that the index shows.
func (s *space) lookAtAll() error {
	in := &s.in
	in.later[tree.DirName{Dir: in.f.t.Root()}], in.root = struct{}{}, true
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ix.Inodes(func(n *index.Inode) bool {
		if n.IsDir() && !n.Object.IsZero() && len(n.Links) > 0 {
			in.later[tree.DirName{Dir: n.Object}] = struct{}{}
		}
		return true
	})
}

// lookBelow has a name whose directories were or are several looked at, and all that is in them.
func (s *space) lookBelow(at tree.DirName) error {
	in := &s.in
	in.later[at] = struct{}{}
	nodes, err := in.f.t.Group(at.Dir, at.Name)
	if err != nil {
		return err
	}
	for i := range nodes {
		for _, d := range nodes[i].Dirs {
			in.later[tree.DirName{Dir: d}] = struct{}{}
		}
	}
	return nil
}

// sortedNames gives the names to look at, those of directories as a whole first.
func (in *arrivals) sortedNames() []tree.DirName {
	out := make([]tree.DirName, 0, len(in.later))
	for n := range in.later {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b tree.DirName) int {
		if c := a.Dir.Compare(b.Dir); c != 0 {
			return c
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}
