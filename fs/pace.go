package fs

import (
	"context"
	"time"

	"github.com/anyfs/anyfs/fs/index"
)

// Pacing of files that are rewritten without end: what is sealed for one stays below sealedRatio times what was written to it, but
// for paceFree, or its publications are paceMax apart.
const (
	sealedRatio = 8
	paceFree    = 1 << 20
	paceMax     = 60 * time.Second
)

// maxLogged is how much of what was written to files may lie in the journal alone. Beyond it the file with most is published.
const maxLogged = 64 << 20

// loggedStep is how often the publisher is told so.
const loggedStep = 1 << 20

// pace says how soon a file may be published again.
type pace struct {
	debt int64 // what was sealed for it beyond sealedRatio times what was written
	last int64 // when it was published last
}

// hold says for how long a file's pace holds its publication back. Under mu.
func (s *space) hold(now int64, ino uint64, d dirtyState) time.Duration {
	p, ok := s.paced[ino]
	if !ok || p.debt-sealedRatio*d.written <= paceFree {
		return 0
	}
	wait := paceMax - time.Duration(now-p.last)
	if wait > paceMax { // the clock was set back
		return 0
	}
	return wait
}

// noteCost remembers what the publication of each file cost, to pace the next. Under mu.
func (s *space) noteCost(items []item) {
	now := s.h.opt.Clock().UnixNano()
	for i := range items {
		it := &items[i]
		if it.content == nil || it.failed {
			continue
		}
		written, _ := it.n.Written()
		debt := s.paced[it.n.Ino].debt + it.content.sealed - sealedRatio*written
		if debt <= 0 {
			delete(s.paced, it.n.Ino)
			continue
		}
		if len(s.paced) > 4096 {
			clear(s.paced)
		}
		s.paced[it.n.Ino] = pace{debt, now}
	}
}

// noteWritten counts what was written to a dirty inode. Under mu.
func (s *space) noteWritten(n *index.Inode, size int64, kind index.SourceKind) {
	d, ok := s.dirty[n.Ino]
	if !ok {
		return
	}
	d.written += size
	if kind == index.SourceJournal {
		d.logged += size
		if sum := s.h.logged.Add(size); sum > maxLogged && sum/loggedStep != (sum-size)/loggedStep {
			s.h.hurry()
		}
	}
	s.dirty[n.Ino] = d
}

// recount counts anew what of a dirty inode is not published. Under mu.
func (s *space) recount(n *index.Inode) {
	d, ok := s.dirty[n.Ino]
	if !ok {
		return
	}
	was := d.logged
	d.written, d.logged = n.Written()
	s.h.logged.Add(d.logged - was)
	s.dirty[n.Ino] = d
}

// relogged counts anew how much of a dirty inode is in the journal alone: what was written over is not. It returns whether that is less
// than was known. Under mu.
func (s *space) relogged(ino uint64) bool {
	d := s.dirty[ino]
	was := d.logged
	d.logged = 0
	if n, err := s.ix.Inode(ino); err == nil && n != nil {
		_, d.logged = n.Written()
	}
	s.h.logged.Add(d.logged - was)
	s.setDirty(ino, d)
	return d.logged < was
}

// undirty forgets that an inode has something to publish. Under mu.
func (s *space) undirty(ino uint64) {
	s.h.logged.Add(-s.dirty[ino].logged)
	delete(s.dirty, ino)
	s.inOrder.Delete(ino)
	delete(s.touched, ino)
	s.forgetMate(ino)
	delete(s.due, ino)
	if s.in.waits.Load() {
		s.arriveAgain() // it may have waited for this: what is removed before it was ever published needs no publication
	}
}

// relieve publishes the files of which most lies in the journal alone, until little enough does.
func (h *Home) relieve(ctx context.Context) {
	for h.logged.Load() > maxLogged && ctx.Err() == nil {
		s, ino := h.mostLogged()
		if s == nil {
			return
		}
		if err := s.settleStream(ino); err != nil {
			return
		}
		n, _, err := s.publish(ctx, func(i uint64, _ dirtyState, _ *index.Inode) bool { return i == ino })
		if err != nil && ctx.Err() == nil {
			s.publishFailed(err)
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// mostLogged finds the file of which most lies in the journal alone; nil when that is little enough.
func (h *Home) mostLogged() (most *space, ino uint64) {
	for {
		var logged int64
		most, ino = nil, 0
		for _, s := range h.each() {
			s.mu.Lock()
			for i, d := range s.dirty {
				if _, held := s.held[i]; d.logged > logged && !held {
					most, ino, logged = s, i, d.logged
				}
			}
			s.mu.Unlock()
		}
		if most == nil {
			return nil, 0
		}
		most.mu.Lock()
		less := false
		if _, ok := most.dirty[ino]; ok {
			less = most.relogged(ino)
		}
		most.mu.Unlock()
		if h.logged.Load() <= maxLogged {
			return nil, 0
		}
		if !less {
			return most, ino
		}
	}
}

// idlePatches and idleFor say when the content of a file with patches is published whole though nothing was done to it.
const (
	idlePatches = 64 << 10
	idleFor     = 10 * time.Second
)

// notePatched remembers an inode with many patches, and when it was published. Under mu.
func (s *space) notePatched(n *index.Inode) {
	if n.Patched.Bytes <= idlePatches {
		delete(s.patched, n.Ino)
		return
	}
	if len(s.patched) < 4096 {
		s.patched[n.Ino] = s.h.now()
	}
}

// foldIdle lets the content of files that fell idle with many patches be published whole, and says when to look again.
func (s *space) foldIdle(now int64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := time.Hour
	for ino, last := range s.patched {
		if _, dirty := s.dirty[ino]; dirty {
			continue
		}
		if wait := idleFor - time.Duration(now-last); wait > 0 && wait <= idleFor {
			next = min(next, wait)
			continue
		}
		delete(s.patched, ino)
		n, err := s.ix.Change(ino)
		if err != nil || n == nil || n.Patched.Bytes <= idlePatches || len(n.Links) == 0 {
			continue
		}
		// No record says so: where this is lost, so is the reason for it, until the file is written again.
		n.DirtyContent = s.last
		s.markDirty(n)
	}
	return next
}
