package journal

import (
	"context"
	"slices"

	"github.com/anyfs/anyfs/dag/crashpoint"
)

// Write returns when every record up to seq is with the kernel. Callers that come while a write runs are served by the
// next, all at once.
func (j *Journal) Write(seq Seq) error {
	j.mu.Lock()
	defer j.unlock()
	return j.writeLocked(seq)
}

func (j *Journal) writeLocked(seq Seq) error {
	seq = min(seq, j.next-1)
	for {
		switch {
		case j.err != nil:
			return j.err
		case j.written >= seq:
			return nil
		case j.writing:
			j.waitLocked(&j.writeDone, true)
		default:
			j.writeAllLocked()
		}
	}
}

// waitLocked waits, where cond holds, until done is closed.
func (j *Journal) waitLocked(done *chan struct{}, cond bool) {
	if !cond {
		return
	}
	if *done == nil {
		*done = make(chan struct{})
	}
	ch := *done
	j.mu.Unlock()
	<-ch
	j.mu.Lock()
}

func wake(done *chan struct{}) {
	if *done != nil {
		close(*done)
		*done = nil
	}
}

// writeAllLocked writes what is appended. Nobody else writes meanwhile.
func (j *Journal) writeAllLocked() {
	j.writing = true
	j.ahead = j.eagerLocked()
	j.busy, j.pend = j.pend, j.busy[:0]
	j.buffered = 0
	for _, c := range j.busy {
		n := int64(len(c.buf))
		c.f.taken += n + frames(n)*frameOverhead
		c.f.waiting -= n
	}
	var err error
	for len(j.busy) > 0 && err == nil {
		c := j.busy[0]
		synced := j.synced
		j.mu.Unlock()
		crashpoint.Here(crashpoint.JournalWrite)
		if err = j.writeChunk(c, synced); err != nil {
			err = j.replace(c.f, c, err)
		}
		crashpoint.Here(crashpoint.JournalWritten)
		j.mu.Lock()
		if err != nil {
			j.breakLocked(err)
			break // what is left in busy stays readable
		}
		c.f.dirty = true
		j.written = c.last
		copy(j.busy, j.busy[1:])
		j.busy = j.busy[:len(j.busy)-1]
		if cap(c.buf) <= 2*bufferBytes {
			c.f = nil
			j.chunks = append(j.chunks, c)
		}
	}
	j.writing = false
	wake(&j.writeDone)
}

// writeChunk seals a chunk and writes it with one call.
func (j *Journal) writeChunk(c *chunk, synced Seq) error {
	f := c.f
	f.io.RLock() // only who writes changes them, so reading needs no more
	n := int64(len(c.buf))
	b := slices.Grow(j.out[:0], int(headerBytes+n+frames(n)*frameOverhead+pageBytes))
	pos, counter, padded := f.pos, f.counter, f.padded
	if pos == headerBytes {
		b = appendHeader(b, f.aead, &f.header)
		pos = 0
	}
	for body := c.buf; len(body) > 0; counter++ {
		n := min(len(body), frameFill)
		b = appendFrame(b, f.aead, j.nonce.set(counter), synced, body[:n])
		body = body[n:]
	}
	end := pos + int64(len(b))
	// Zeros up to the end of the page: it is whole then, and the kernel need not read it first.
	if end > padded {
		padded = end
		if j.ahead && !f.slot.written {
			padded += aheadBytes
		}
		padded = min((padded+pageBytes-1)&^(pageBytes-1), f.size)
		b = appendZeros(b, padded-end)
	}
	file := f.slot.file
	f.io.RUnlock()
	j.out = b
	if _, err := file.WriteAt(b, pos); err != nil {
		return err
	}
	f.io.Lock()
	defer f.io.Unlock()
	for left := int64(len(c.buf)); left > 0; {
		f.mark()
		n := min(left, frameFill)
		f.pos += n + frameOverhead
		f.done += uint32(n)
		f.counter++
		left -= n
	}
	f.padded = padded
	if cap(j.out) > 2*bufferBytes+pageBytes {
		j.out = nil
	}
	return nil
}

func appendZeros(b []byte, n int64) []byte {
	at := len(b)
	b = slices.Grow(b, int(n))[:at+int(n)]
	clear(b[at:])
	return b
}

// Sync returns when every record up to seq is durable. One fdatasync serves all who wait when it begins; who comes later
// waits for the next. A caller that waits returns the error of ctx when that ends, the record being durable or not; the one that
// runs the sync for all does not.
func (j *Journal) Sync(ctx context.Context, seq Seq) error {
	j.mu.Lock()
	defer j.unlock()
	seq = min(seq, j.next-1)
	for {
		switch {
		case j.err != nil:
			return j.err
		case j.synced >= seq:
			return nil
		case !j.syncing:
			j.syncAllLocked()
			continue
		}
		if j.syncDone == nil {
			j.syncDone = make(chan struct{})
		}
		done := j.syncDone
		j.mu.Unlock()
		select {
		case <-done:
			j.mu.Lock()
		case <-ctx.Done():
			j.mu.Lock()
			return ctx.Err()
		}
	}
}

// syncAllLocked makes what is written now durable. Nobody else syncs meanwhile; writes go on.
func (j *Journal) syncAllLocked() {
	j.syncing = true
	j.perSync, j.sinceSync = (j.perSync+j.sinceSync)/2, 0
	var dirty []*file
	defer func() {
		for _, f := range dirty {
			f.syncing = false
		}
		j.reclaimLocked()
		j.syncing = false
		wake(&j.syncDone)
	}()
	if j.writeLocked(j.next-1) != nil {
		return
	}
	target := j.written
	for _, f := range j.files {
		if f.dirty {
			f.dirty, f.syncing = false, true
			dirty = append(dirty, f)
		}
	}
	for _, f := range dirty {
		j.mu.Unlock()
		f.io.RLock()
		file := f.slot.file
		f.io.RUnlock()
		crashpoint.Here(crashpoint.JournalSync)
		err := file.Sync()
		crashpoint.Here(crashpoint.JournalSynced)
		j.mu.Lock()
		if err == nil {
			continue
		}
		for j.writing {
			j.waitLocked(&j.writeDone, true)
		}
		if j.err != nil {
			return
		}
		j.writing = true
		j.mu.Unlock()
		err = j.replace(f, nil, err)
		j.mu.Lock()
		j.writing = false
		wake(&j.writeDone)
		if err != nil {
			j.breakLocked(err)
			return
		}
	}
	j.synced = max(j.synced, target)
}

func (j *Journal) breakLocked(err error) {
	if j.err == nil {
		j.err = err
	}
}
