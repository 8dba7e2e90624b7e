package fs

import (
	"context"
	"errors"
	"sync"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/fs/chunk"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
)

// A stream holds what is being written at the end of a file in large pieces, until it is cut into chunks. Chunks are sealed
// beside the writer and go straight into the block store; the journal gets references. What is in a stream's memory is
// younger than a second, or the writer is faster than the disk.
type stream struct {
	ino uint64

	mu    sync.Mutex // the writer's lock: held while the stream's data grow or are cut. Before space.mu.
	began int64      // file offset of its first byte
	cuts  int        // chunks that were cut
	start int64      // file offset of buf[0]
	buf   []byte
	arena *arena
	src   *index.Source
	jobs  sync.WaitGroup
	job   *sealJob // the last one that was begun
	over  bool     // settled: a writer that waited for mu looks again

	// Under space.mu.
	abandoned bool // the inode is gone
	err       error
	last      int64 // h.now() of the last write
}

// sealJob is one chunk that is being sealed.
type sealJob struct {
	before *sealJob      // that of the chunk before it in the file; nil for the first
	done   chan struct{} // closed when the file refers to its block, or err is set
	err    error
	loose  bool // it begins or ends where the writer paused, and the file is cut elsewhere in the end
}

// stopped is a job behind which nothing may be referred to.
func stopped(err error) *sealJob {
	j := &sealJob{done: make(chan struct{}), err: err}
	close(j.done)
	return j
}

const (
	streamMin   = 64 << 10              // shortest write that begins a stream
	streamFull  = chunk.MaxSize         // a buffer is cut when it holds that much
	arenaBytes  = chunk.MaxSize + 1<<20 // and a write of 1 MiB may still come before
	maxStreams  = 6
	journalTail = 256 << 10 // a shorter rest goes into the journal
	looseCuts   = 2         // chunks, until cut points are those of the whole file again, wherever the stream began
	dataPiece   = 48 << 10  // data in one record of the journal
)

// arena is a buffer that the chunks cut from it share.
type arena struct {
	b    []byte
	refs int // under space.mu
}

func (h *Home) newArena() *arena {
	if b, ok := h.arenas.Get().(*[]byte); ok {
		return &arena{b: (*b)[:0], refs: 1}
	}
	return &arena{b: make([]byte, 0, arenaBytes), refs: 1}
}

// release gives a buffer back when nothing refers to it. Under space.mu.
func (h *Home) release(a *arena) {
	if a.refs--; a.refs == 0 {
		b := a.b[:0]
		h.arenas.Put(&b)
	}
}

// streamFor gives the stream of an inode for a write at off, beginning one where the write looks like the next piece of a
// large file. Under mu. Nil: the write goes into the journal.
func (s *space) streamFor(n *index.Inode, off int64, size int, killPriv bool) *stream {
	if st := s.streams[n.Ino]; st != nil {
		return st
	}
	if size < streamMin || off != n.Size || len(s.streams) >= maxStreams || killPriv {
		return nil
	}
	a := s.h.newArena()
	st := &stream{ino: n.Ino, began: off, start: off, buf: a.b, arena: a}
	st.src = &index.Source{Kind: index.SourceMem, Seq: ^journal.Seq(0)}
	s.streams[n.Ino] = st
	return st
}

// writeStream appends p at off. It returns false when the stream is not for that write: the caller settles it first.
func (s *space) writeStream(ctx context.Context, st *stream, p []byte, off int64) (ok bool, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over || off != st.start+int64(len(st.buf)) || len(st.buf)+len(p) > arenaBytes {
		return st.over, errAgain
	}
	st.buf = append(st.buf, p...) // within the arena's capacity: what readers hold does not move
	s.mu.Lock()
	if st.err != nil || st.abandoned || s.gone {
		err := st.err
		st.buf = st.buf[:len(st.buf)-len(p)]
		s.mu.Unlock()
		if err == nil {
			err = ErrStale
		}
		return true, err
	}
	n, err := s.change(st.ino)
	if err != nil {
		s.mu.Unlock()
		return true, err
	}
	now := s.h.now()
	st.last = now
	st.src.Mem = st.buf
	// Marked above every record so far: a publication that is under way does not hold these bytes.
	s.write(s.last+1, n, off, int64(len(p)), off-st.start, st.src, now)
	s.mu.Unlock()
	if len(st.buf) >= streamFull {
		return true, s.cutStream(ctx, st, false)
	}
	return true, nil
}

// errAgain says that a write has to look for its stream again.
var errAgain = errors.New("fs: not the stream's next write")

// cutStream cuts what the buffer holds and lets the chunks be sealed. What is behind the last cut point stays, unless final.
// Under st.mu.
func (s *space) cutStream(ctx context.Context, st *stream, final bool) error {
	pos := 0
	old := st.src
	for pos < len(st.buf) {
		n := s.chunker.Next(st.buf[pos:min(len(st.buf), pos+chunk.MaxSize)], final && len(st.buf)-pos <= chunk.MaxSize)
		if n == 0 {
			break
		}
		if err := s.h.sealing.Acquire(ctx, 1); err != nil {
			return err
		}
		s.mu.Lock()
		st.arena.refs++
		s.mu.Unlock()
		st.jobs.Add(1)
		piece, skip, off := st.buf[pos:pos+n], int64(pos), st.start+int64(pos)
		job := &sealJob{before: st.job, done: make(chan struct{}), loose: final && pos+n == len(st.buf) || st.began > 0 && st.cuts < looseCuts}
		st.cuts++
		st.job = job
		a := st.arena
		s.keeping.refs.RLock() // here, so that a chunk which waits for the one before never holds that one up
		go func() {
			defer s.h.sealing.Release(1)
			defer st.jobs.Done()
			defer s.keeping.refs.RUnlock()
			s.sealPiece(st, job, a, old, piece, skip, off)
		}()
		pos += n
	}
	if pos == 0 {
		return nil
	}
	// The rest goes on in a new buffer: the old one belongs to the chunks.
	rest := st.buf[pos:]
	next := s.h.newArena()
	buf := append(next.b, rest...)
	src := &index.Source{Kind: index.SourceMem, Seq: ^journal.Seq(0), Mem: buf}
	s.mu.Lock()
	if len(rest) > 0 {
		if n, err := s.ix.Change(st.ino); err == nil && n != nil && n.Ext != nil {
			n.Ext.Replace(st.start+int64(pos), int64(len(rest)), old, src, -int64(pos))
		}
	}
	s.h.release(st.arena)
	s.mu.Unlock()
	st.start += int64(pos)
	st.buf, st.src, st.arena = buf, src, next
	return nil
}

// sealPiece seals one chunk and lets the file refer to the block. A chunk that can't be stored stays in memory, with those behind
// it, and the writer, or the fsync, gets the error. With keeping.refs held for reading.
func (s *space) sealPiece(st *stream, job *sealJob, a *arena, src *index.Source, piece []byte, skip, off int64) {
	defer close(job.done)
	// What is loose is no chunk of the file in the end, unless the writer stops here.
	if id, ok := s.storePiece(st, job, a, src, piece, skip, off); ok && !job.loose {
		s.tellSealed(st.ino, id)
	}
}

// storePiece is sealPiece without what follows of it for others. It reports whether the file refers to the block.
func (s *space) storePiece(st *stream, job *sealJob, a *arena, src *index.Source, piece []byte, skip, off int64) (block.ID, bool) {
	id, err := s.putChunk(piece)
	crashpoint.Here(crashpoint.StreamSealed)
	if b := job.before; b != nil {
		// In the order of the file: a crash must not leave a later part behind a hole.
		<-b.done
		job.before = nil
		if err == nil {
			err = b.err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.refer(st.ino, src, off, int64(len(piece)), skip, id, off == st.began && off > 0)
	}
	if err == nil {
		s.h.release(a)
		return id, true
	}
	job.err = err
	if st.err == nil {
		st.err = err // the file still refers to the buffer: it is not given back
	}
	return id, false
}

// putChunk seals a chunk and stores the block.
func (s *space) putChunk(plain []byte) (block.ID, error) {
	var scratch []byte
	if b, ok := s.h.sealed.Get().(*[]byte); ok {
		scratch = (*b)[:0]
	}
	sealed, err := s.keys.SealChunk(scratch, plain)
	if err != nil {
		return block.ID{}, err
	}
	id, err := s.putBlock(sealed)
	sealed = sealed[:0]
	s.h.sealed.Put(&sealed)
	return id, err
}

// refer replaces what extents still hold of src in [off, off+n) by the block id, whose byte 0 is src's byte skip. first: the block begins
// where an append did. Under mu.
func (s *space) refer(ino uint64, src *index.Source, off, n, skip int64, id block.ID, first bool) error {
	x, err := s.ix.Change(ino)
	if err != nil {
		return s.damaged(err)
	}
	if x == nil || x.Ext == nil {
		return nil
	}
	type piece struct{ off, n, skip int64 }
	var pieces []piece
	x.Ext.Range(off, n, func(k int64, e index.Extent) bool {
		if e.Src == src {
			pieces = append(pieces, piece{k, e.Len, e.Skip - skip})
		}
		return true
	})
	var bs *index.Source
	for _, p := range pieces {
		r := &sealRecord{Ino: ino, Off: p.off, Len: p.n, Skip: p.skip, Block: id, Size: n, Time: x.Mtime}
		w := s.record(recSeal)
		r.encode(w)
		m, err := s.commit(w, true)
		if err != nil {
			return err
		}
		if bs == nil {
			bs = &index.Source{Kind: index.SourceBlock, Seq: m.seq, Block: id, Size: n, First: first}
		}
		x.Ext.Put(p.off, index.Extent{Len: p.n, Skip: p.skip, Src: bs})
		x.DirtyContent = m.seq
	}
	if len(pieces) > 0 {
		s.markDirty(x)
	}
	return nil
}

// settleStream ends the stream of an inode, if it has one: everything is in blocks or in the journal when it returns nil.
func (s *space) settleStream(ino uint64) error {
	s.mu.Lock()
	st := s.streams[ino]
	s.mu.Unlock()
	if st == nil {
		return nil
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return nil
	}
	if len(st.buf) > journalTail {
		if err := s.cutStream(context.Background(), st, true); err != nil {
			return err
		}
	}
	st.jobs.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := st.err
	st.job = nil // all that was cut is in a block or in the journal, or never will be
	if !st.abandoned {
		if e := s.journalMem(ino); e != nil {
			st.job = stopped(e)
			if err == nil {
				err = e
			}
		}
	}
	if err != nil {
		st.err = nil // said once; what could not be stored stays readable and is tried again
		return err
	}
	st.over = true
	if s.streams[ino] == st {
		delete(s.streams, ino)
	}
	if d, ok := s.dirty[ino]; ok {
		d.last = min(d.last, st.last) // that it was stored is no write
		s.dirty[ino] = d
	}
	s.h.release(st.arena)
	return nil
}

// journalMem puts what an inode has in memory alone into the journal. Under mu.
func (s *space) journalMem(ino uint64) error {
	x, err := s.ix.Change(ino)
	if err != nil {
		return s.damaged(err)
	}
	if x == nil || x.Ext == nil {
		return nil
	}
	type piece struct {
		off  int64
		data []byte
	}
	var pieces []piece
	x.Ext.Range(0, x.Size, func(k int64, e index.Extent) bool {
		if e.Src.Kind == index.SourceMem {
			pieces = append(pieces, piece{k, e.Src.Mem[e.Skip : e.Skip+e.Len]})
		}
		return true
	})
	for _, p := range pieces {
		for len(p.data) > 0 {
			n := min(len(p.data), dataPiece)
			if err := s.journalData(x, p.off, p.data[:n], x.Mtime, false, true); err != nil {
				return err
			}
			p.off += int64(n)
			p.data = p.data[n:]
		}
	}
	return nil
}

// journalData records one write of at most dataPiece bytes and applies it. reserved data was acknowledged before. Under mu.
func (s *space) journalData(x *index.Inode, off int64, data []byte, t int64, killPriv, reserved bool) error {
	r := &writeRecord{Ino: x.Ino, Off: off, Time: t, KillPriv: killPriv, Data: data}
	w := s.record(recWrite)
	head := r.encode(w)
	m, err := s.commit(w, reserved)
	if err != nil {
		return err
	}
	s.write(m.seq, x, off, int64(len(data)), int64(head), &index.Source{Kind: index.SourceJournal, Seq: m.seq, Loc: m.loc}, t)
	if killPriv {
		s.killPriv(m.seq, x)
	}
	return nil
}
