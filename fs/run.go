package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
)

// How soon what was done is published: long enough for the steps of one save to fall together.
const (
	idleNames   = 5 * time.Millisecond   // after a rename, link, unlink or attribute
	idleSmall   = 5 * time.Millisecond   // after the last write to a new file of at most smallFile bytes
	idleContent = 100 * time.Millisecond // after the last write to any other
	latest      = time.Second            // under load, but for files that are being written
	latestOpen  = 10 * time.Second       // a file that is written without a pause
	smallFile   = 1 << 20
)

// Rhythm of the other work.
const (
	flushEvery      = 250 * time.Millisecond // unsynced data reach the kernel, idle streams end
	syncEvery       = 3 * time.Second        // unsynced data reach the disk
	checkpointEvery = 2 * time.Second
	checkpointBytes = 32 << 20 // of records in memory
	// While someone syncs one thing after the other a checkpoint would make him wait for its own syncs: it comes later.
	checkpointLatest = 10 * time.Second
	fsyncPause       = 20 * time.Millisecond
	trimAfter        = 5 * time.Second // without work the journal gives up what it does not need
	ageEvery         = 5 * time.Minute // what was not asked for since then, or as long again, goes from memory
)

// hurry wakes the publisher at once.
func (h *Home) hurry() {
	select {
	case h.urgent <- struct{}{}:
	default:
	}
}

// wake tells the publisher that something is dirty.
func (h *Home) wake() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// Run publishes and checkpoints until ctx ends; then it publishes what is left and makes everything durable. It returns when
// its goroutines have ended.
func (h *Home) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { h.publisher(ctx) })
	wg.Go(func() { h.flusher(ctx) })
	wg.Go(func() { h.checkpointer(ctx) })
	wg.Go(func() { h.freer(ctx) })
	wg.Go(func() { h.arriver(ctx) })
	wg.Go(func() { h.previewer(ctx) })
	wg.Go(func() { h.mirrorer(ctx) })
	wg.Go(func() { h.fetcher(ctx) })
	wg.Go(func() { h.evictor(ctx) })
	wg.Wait()
	if h.fail.Load() != nil {
		return *h.fail.Load()
	}
	ctx = context.WithoutCancel(ctx)
	return errors.Join(h.Flush(ctx), h.SyncAll(ctx), h.checkpoint(ctx))
}

// A round of manyItems inodes or more is followed by a pause of publishPart times what it took, busyPause at most: a batch of some hundred
// changes costs little more for each than one of a thousand, while a save waits for the round under way and the pause.
const (
	manyItems   = 64
	publishPart = 4
	busyPause   = 50 * time.Millisecond
)

// publisher publishes what has settled. With much to do its rounds are further apart, so that batches grow and costs shrink; from idle
// the first round comes within milliseconds.
func (h *Home) publisher(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		interval := idleNames
		busy, next := 0, time.Hour
		began := time.Now()
		for _, s := range h.each() {
			n, wait := s.publishReady(ctx)
			busy += n
			next = min(next, wait)
		}
		if busy >= manyItems {
			interval = min(max(interval, publishPart*time.Since(began)), busyPause)
		}
		if next < time.Hour {
			next = max(next, interval)
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			continue
		case <-h.urgent:
			h.relieve(ctx)
			continue
		case <-h.kick:
		}
		// Something became dirty. Where nothing was, it settles first.
		if next == time.Hour {
			timer.Reset(interval)
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-h.urgent:
			h.relieve(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// publishReady publishes what has settled in a space and returns how many inodes that were, and when to look again.
func (s *space) publishReady(ctx context.Context) (int, time.Duration) {
	idle := s.foldIdle(s.h.opt.Clock().UnixNano())
	idle = min(idle, s.tendIgnored(ctx))
	total := 0
	for {
		next := min(idle, s.settleIdle())
		if !s.anyDirty() {
			return total, next
		}
		now := s.h.opt.Clock().UnixNano()
		dbs := map[database]time.Duration{}
		n, left, err := s.publish(ctx, func(ino uint64, d dirtyState, x *index.Inode) bool {
			wait := s.readyIn(now, ino, d, x, dbs)
			if wait > 0 {
				next = min(next, wait)
			}
			return wait <= 0
		})
		if err != nil {
			if ctx.Err() == nil {
				s.publishFailed(err)
			}
			return total, latest
		}
		s.publishWorked()
		total += n
		if left {
			next = min(next, flushEvery)
		}
		if n == 0 || !left {
			if n > 0 && s.anyDirty() {
				next = min(next, idleNames) // what was written to meanwhile wakes nobody
			}
			return total, next
		}
	}
}

func (s *space) anyDirty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty) > 0
}

// tendIgnored sees to what is ignored, and says when to do so again.
func (s *space) tendIgnored(ctx context.Context) time.Duration {
	s.mu.Lock()
	some := len(s.ign.dirs)+len(s.ign.inos) > 0 || s.ign.changed
	s.mu.Unlock()
	if !some {
		return time.Hour
	}
	s.pubMu.Lock()
	s.refreshIgnores(ctx)
	s.pubMu.Unlock()
	next, err := s.sealIgnored(ctx, false)
	s.mu.Lock()
	for _, f := range s.ign.dirs {
		if f.failed != nil {
			next = min(next, latest)
		}
	}
	s.mu.Unlock()
	if err != nil && ctx.Err() == nil && !s.deleted() {
		s.h.report(fmt.Sprintf("space %s: store what is ignored", s.id), err)
	}
	return next
}

// publishWorked and publishFailed keep why a publication failed, for Status.
func (s *space) publishWorked() {
	s.mu.Lock()
	s.pubErr = nil
	s.mu.Unlock()
}

func (s *space) publishFailed(err error) {
	s.mu.Lock()
	if s.gone { // it is being deleted; should it stay, it is tried again
		s.mu.Unlock()
		return
	}
	seen := s.pubErr != nil && s.pubErr.Error() == err.Error()
	s.pubErr = err
	s.mu.Unlock()
	if errors.Is(err, acl.ErrDenied) && !s.acl.MayWrite() {
		if !seen { // no failure: Status has it as kept
			s.h.opt.Log.Warn("what is new stays on this device, which may write no more", "space", s.id.String())
		}
		return
	}
	if !seen {
		s.h.report(fmt.Sprintf("space %s: publish", s.id), err)
	}
}

// readyIn says in how long an inode's changes are ready to be published; not positive: now. dbs keeps the answers for databases.
// Under mu.
func (s *space) readyIn(now int64, ino uint64, d dirtyState, n *index.Inode, dbs map[database]time.Duration) time.Duration {
	if db, ok := s.databaseOf(n); ok {
		wait, known := dbs[db]
		if !known {
			wait = s.databaseIn(now, db)
			dbs[db] = wait
		}
		return wait
	}
	quiet, age := time.Duration(now-d.last), time.Duration(now-d.first)
	if quiet < 0 { // the clock was set back
		quiet, age = latestOpen, latestOpen
	}
	if n.DirtyContent == 0 && (n.DirtyNew == 0 || !n.IsRegular()) {
		return min(idleNames-quiet, latest-age)
	}
	idle, late := idleContent, latestOpen
	if n.DirtyNew != 0 && n.IsRegular() && n.Size == 0 {
		return min(idleContent-quiet, latest-age) // its first write is still to come: an empty version is nobody's
	}
	if n.DirtyNew != 0 && n.Size <= smallFile || n.DirtyContent <= d.saved {
		idle = idleSmall
	}
	return max(min(idle-quiet, late-age), s.hold(now, ino, d))
}

// publishAll publishes everything that is dirty now.
func (s *space) publishAll(ctx context.Context) error {
	if err := s.settleStreams(0); err != nil {
		return err
	}
	s.mu.Lock()
	upTo := s.last
	clear(s.held) // all are tried once
	s.mu.Unlock()
	for passes := 0; ; {
		n, left, err := s.publish(ctx, func(_ uint64, d dirtyState, _ *index.Inode) bool { return d.seq <= upTo })
		if err != nil {
			return err
		}
		if n == 0 && left {
			// Someone goes on writing in a stream that began after all were settled: what was there before is in it no more.
			if err := s.settleStreams(0); err != nil {
				return err
			}
			if passes++; passes > 3 {
				return nil
			}
			continue
		}
		if n == 0 {
			return s.heldError(upTo)
		}
	}
}

// heldError says what could not be published.
func (s *space) heldError(upTo journal.Seq) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ino, h := range s.held {
		if d, ok := s.dirty[ino]; ok && d.seq <= upTo {
			return fmt.Errorf("space %s: %d files can't be published; inode %d: %w", s.id, len(s.held), ino, h.err)
		}
	}
	return nil
}

// settleIdle ends the streams of files that are written, so that they can be published, and says when to look again. A file that was
// published before may be one to which more comes for long, with pauses: it has more time.
func (s *space) settleIdle() time.Duration {
	next := time.Hour
	var inos []uint64
	s.mu.Lock()
	now := s.h.opt.Clock().UnixNano()
	for ino, st := range s.streams {
		n, err := s.ix.Inode(ino)
		idle := flushEvery
		switch {
		case err != nil || n == nil:
			continue
		case n.DirtyNew != 0 && n.Size < smallFile: // who writes 1 MiB at once writes more
			idle = idleSmall
		case n.DirtyNew != 0:
			idle = idleContent
		}
		if wait := idle - time.Duration(now-st.last); wait > 0 && now >= st.last {
			next = min(next, wait)
		} else {
			inos = append(inos, ino)
		}
	}
	s.mu.Unlock()
	for _, ino := range inos {
		if err := s.settleStream(ino); err != nil {
			s.h.report(fmt.Sprintf("space %s: store what was written", s.id), err)
		}
	}
	return next
}

// settleStreams ends the streams that were idle for at least d.
func (s *space) settleStreams(d time.Duration) error {
	now := s.h.opt.Clock().UnixNano()
	s.mu.Lock()
	var inos []uint64
	for ino, st := range s.streams {
		if time.Duration(now-st.last) >= d || now < st.last {
			inos = append(inos, ino)
		}
	}
	s.mu.Unlock()
	var err error
	for _, ino := range inos {
		err = errors.Join(err, s.settleStream(ino))
	}
	return err
}

// Flush publishes everything that was done before and makes it durable.
func (h *Home) Flush(ctx context.Context) error {
	var err error
	for _, s := range h.each() {
		if e := s.publishAll(ctx); s.acl.MayWrite() { // what was written before this device lost the right to stays here, and is no failure
			err = errors.Join(err, e) // one that can't be published keeps no other from it
		}
	}
	return errors.Join(err, h.SyncAll(ctx))
}

// SyncAll makes everything durable that was done before.
func (h *Home) SyncAll(ctx context.Context) error {
	var last journal.Seq
	for _, s := range h.each() {
		if err := s.settleStreams(0); err != nil {
			return err
		}
		s.mu.Lock()
		last = max(last, s.last)
		s.mu.Unlock()
	}
	if last == 0 {
		return nil
	}
	return h.sync(ctx, last)
}

// flusher hands data that nobody synced to the kernel within a second, and to the disk within five.
func (h *Home) flusher(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	var written, synced journal.Seq
	lastSync := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var last journal.Seq
		for _, s := range h.each() {
			if err := s.settleStreams(flushEvery); err != nil {
				h.report(fmt.Sprintf("space %s: store what was written", s.id), err)
			}
			s.mu.Lock()
			last = max(last, s.last)
			s.mu.Unlock()
		}
		if last > written && h.fail.Load() == nil {
			if err := h.written(last); err == nil {
				written = last
			}
		}
		if last > synced && time.Since(lastSync) >= syncEvery && h.fail.Load() == nil {
			lastSync = time.Now()
			if err := h.SyncAll(ctx); err == nil {
				synced = last
			}
		}
	}
}

// fsyncs says whether someone waits for a sync, or just did.
type fsyncs struct {
	running atomic.Int32
	last    atomic.Int64 // Unix nanoseconds
}

func (f *fsyncs) begin() { f.running.Add(1) }

func (f *fsyncs) end() {
	f.last.Store(time.Now().UnixNano())
	f.running.Add(-1)
}

func (f *fsyncs) busy() bool {
	since := time.Duration(time.Now().UnixNano() - f.last.Load())
	return f.running.Load() > 0 || since >= 0 && since < fsyncPause
}

// checkpointer writes checkpoints while there is something to write.
func (h *Home) checkpointer(ctx context.Context) {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	last, trimmed, aged := time.Now(), false, time.Now()
	var busy []*space // that are to be aged still
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(aged) >= ageEvery {
			aged = time.Now()
			busy = h.age()
		} else {
			busy = ageSpaces(busy)
		}
		var weight int64
		behind := false
		for _, s := range h.each() {
			s.mu.Lock()
			rows := s.rows.Weight()
			weight += s.ix.Weight() + rows
			if s.log != nil {
				weight += int64(s.log.Dirty())
			}
			behind = behind || s.last != s.loaded || rows > 0 || s.unsaved
			s.mu.Unlock()
		}
		if !behind && !trimmed && time.Since(last) >= trimAfter {
			h.jr.Trim()
			if trimmed = true; h.opt.Idle != nil {
				h.opt.Idle()
			}
		}
		full := weight >= checkpointBytes || h.journalLive() >= journalHalf
		since := time.Since(last)
		if !behind || !full && (since < checkpointEvery || since < checkpointLatest && h.fsyncs.busy()) {
			continue
		}
		if err := h.checkpoint(ctx); err != nil && ctx.Err() == nil {
			h.report("checkpoint", err)
			if !sleep(ctx, latest) {
				return
			}
		}
		last, trimmed = time.Now(), false
	}
}

// age lets go of what is in memory only because it was asked for once: a daemon that is on for weeks takes what the work of these minutes needs, not as much as all its
// caches hold. It gives the spaces that are at work at this moment, for ageSpaces.
func (h *Home) age() (busy []*space) {
	h.manifests.age()
	h.layouts.age()
	h.inlines.age()
	h.heads.age()
	all := h.each()
	for _, s := range all {
		if s.blocks != nil {
			s.blocks.Age()
		}
	}
	return ageSpaces(all)
}

// ageSpaces is age for graphs, trees and indexes, and gives the spaces that are at work: nobody waits for a publication here.
func ageSpaces(spaces []*space) (busy []*space) {
	for _, s := range spaces {
		if s.graph == nil {
			continue
		}
		if !s.pubMu.TryLock() {
			busy = append(busy, s)
			continue
		}
		s.graph.Age()
		if s.in.st != nil {
			s.in.st.age()
		}
		s.mu.Lock()
		s.ix.Age()
		s.mu.Unlock()
		s.pubMu.Unlock()
	}
	return busy
}

// payload reads and opens one change's payload.
func (s *space) payload(id dag.ID) (*payload, error) {
	e, err := s.graph.Change(id)
	if err != nil {
		return nil, err
	}
	return s.open(&e)
}
