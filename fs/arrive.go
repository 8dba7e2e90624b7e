package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// Changes of other devices come into the graph of a space by themselves. From there a round of arrival takes them into the tree and
// the index: those of a batch together. What is dirty here is left as it is until it is published; then the tree has both sides,
// and its answer is taken. A space that only this device writes to has no tree.

// arrivals is what a space knows of changes that are not its own.
type arrivals struct {
	mu     sync.Mutex  // the last of all locks
	others bool        // another device has written to the space
	moved  atomic.Bool // the index changed by it
	waits  atomic.Bool // names wait for what is dirty
	due    bool        // something came, or something that had to wait may go on
	taking bool        // a round of it is under way

	// Under pubMu. What of it a start needs is in rows of the store too.
	t     *tree.Tree
	st    *treeStore
	fresh bool                      // the tree is being made from the start, for an index that is ahead of it
	later map[tree.DirName]struct{} // names that are to be looked at
	saved map[tree.DirName]struct{} // of these, and of others, those that rows say
	root  bool                      // the attributes of the root are, too
	left  []leaving                 // what is to go into the trash

	blocked []blockedSpot // names at which something is ignored here
}

// look has a name looked at.
func (in *arrivals) look(at tree.DirName) { in.later[at] = struct{}{} }

// looked leaves those names to be looked at that have to wait, and no others.
func (in *arrivals) looked(wait map[tree.DirName]struct{}) {
	in.later = wait
	in.waits.Store(len(wait) > 0)
}

// save has the rows say which names are to be looked at: most that came since the last checkpoint were, and never get one.
func (in *arrivals) save() {
	if in.t == nil {
		return
	}
	for at := range in.saved {
		if _, ok := in.later[at]; !ok {
			in.st.setName(in.st.laterKey(at), at.Dir, at.Name, false)
			delete(in.saved, at)
		}
	}
	for at := range in.later {
		if _, ok := in.saved[at]; !ok {
			in.st.setName(in.st.laterKey(at), at.Dir, at.Name, true)
			in.saved[at] = struct{}{}
		}
	}
}

func (in *arrivals) lookAtRoot(due bool) {
	if in.root != due {
		in.root = due
		in.st.flag(rowRoot, due)
	}
}

func (in *arrivals) setFresh(fresh bool) {
	in.fresh = fresh
	in.st.flag(rowFresh, fresh)
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
			if err := s.bringIn(ctx); err != nil && ctx.Err() == nil {
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

// Arrive takes in what has come from others, once, as Run does by itself. It is for who drives a home step by step, without Run.
func (h *Home) Arrive(ctx context.Context) error {
	for _, s := range h.each() {
		if err := s.bringIn(ctx); err != nil {
			return fmt.Errorf("space %s: take in what came: %w", s.id, err)
		}
	}
	return nil
}

// bringIn is one arrival in a space, and what follows of it for the root.
func (s *space) bringIn(ctx context.Context) error {
	s.followACL()
	err := s.arrive(ctx)
	if err == nil && s.pre.pending() {
		s.h.wakePreviewer() // all behind it may be here
	}
	if err == nil && s == s.h.home && !s.waits() && s.in.moved.Swap(false) {
		if err = s.h.settleRoot(); err != nil {
			s.in.moved.Store(true) // the next arrival goes on
		}
		s.h.spacesChanged()
	}
	return err
}

// waits reports whether names are not brought in yet: what is gone from one place may be on its way to another.
func (s *space) waits() bool {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	return len(s.in.later) > 0
}

// again has the tree follow a publication, and the names that had to wait looked at. Under pubMu.
func (s *space) again() {
	if s.in.t != nil {
		s.arriveAgain()
	}
}

// arriveAgain has another round of arrival.
func (s *space) arriveAgain() {
	s.in.mu.Lock()
	s.in.due = true
	s.in.mu.Unlock()
	s.h.wakeArriver()
}

// maxRounds bounds the rounds of one arrival that end conflicts: what a hostile writer made so that it does not end is left as it is
// until something else comes.
const maxRounds = 64

// arriveBytes is about how much memory of records in no checkpoint an arrival may take. It is less than else, as what goes on coming in
// takes memory too, and a transaction all pages that it changes.
const arriveBytes = checkpointBytes / 2

// arrive takes what came into the tree and the index. It returns when nothing is left to do but what waits for a publication.
func (s *space) arrive(ctx context.Context) error {
	if s.pre.holds() {
		return nil // who shows the preview, or gives it up, has this done again
	}
	for rounds := maxRounds; ; {
		settled, more, err := s.arriveSome(ctx, rounds > 0 && !s.pre.pending())
		if errors.Is(err, journal.ErrFull) {
			if err = s.h.makeRoom(); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if blocked := s.takeBlocked(); len(blocked) > 0 {
			if err := s.makeWay(ctx, blocked); err != nil {
				return err
			}
			s.arriveAgain()
			continue
		}
		if !more {
			return nil
		}
		if settled {
			rounds--
		}
		if s.unwritten() >= arriveBytes {
			if err := s.h.checkpoint(ctx); err != nil {
				return err
			}
		}
	}
}

// unwritten is about how many bytes of memory the space takes up to its next checkpoint.
func (s *space) unwritten() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ix.Weight() + s.rows.Weight() + int64(s.log.Dirty())
}

// arriveSome is a round: one record of the journal at most. Where settle says so it ends conflicts, and says whether there were any.
func (s *space) arriveSome(ctx context.Context, settle bool) (settled, more bool, err error) {
	in := &s.in
	in.mu.Lock()
	due := in.due
	in.taking = due
	in.mu.Unlock()
	if !due {
		return false, false, nil
	}
	defer func() {
		in.mu.Lock()
		in.taking = false
		in.mu.Unlock()
	}()
	if s.deleted() {
		return false, false, nil
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
		return false, false, nil
	}
	// What was published before is in the index before others' changes to it are.
	if err := s.note(ctx); err != nil {
		return false, false, err
	}
	setDue := func(due bool) {
		in.mu.Lock()
		in.due = due
		in.mu.Unlock()
	}
	setDue(false)
	failed := func(err error) (bool, bool, error) {
		setDue(true)
		return false, false, err
	}
	all, end, err := s.foldArrived(ctx)
	if err == nil {
		err = s.recordLeft()
	}
	if err == nil && end && settle {
		// Only now: what is in the log behind may have ended them.
		if settled, err = s.settleConflicts(); settled {
			all = false
			for err == nil && !all {
				all, end, err = s.foldArrived(ctx)
			}
		}
	}
	if err != nil {
		return failed(err)
	}
	if !all {
		setDue(true)
		return settled, true, nil
	}
	// The record says that the batches were taken in: they are durable first.
	if err := s.log.Sync(); err != nil {
		if s.deleted() {
			return false, false, nil
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
		s.h.mirrorFresh()
		s.h.wake() // a file of patterns may have come
		err := s.h.written(seq)
		if settled && err == nil {
			err = s.h.sync(ctx, seq) // what was published here is noted durably before it may be sent
		}
		if err != nil {
			return failed(err)
		}
	}
	if more = more || settled || !end; more {
		setDue(true)
	}
	return settled, more, nil
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
