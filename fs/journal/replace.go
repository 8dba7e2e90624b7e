package journal

import (
	"fmt"
	"io"

	"github.com/anyfs/anyfs/dag/crashpoint"
)

// replace moves a use away from a file that failed with cause. The caller is the one who writes.
func (j *Journal) replace(f *file, c *chunk, cause error) error {
	old, err := j.move(f, c, cause)
	if err == nil {
		// What it holds is a part of what the new one holds, so it does no harm if it stays.
		j.removeFile(old)
	}
	return err
}

// move writes a use into a fresh file, c (which may be nil) behind what was written before, and makes it durable. It returns
// the file that held it.
func (j *Journal) move(f *file, c *chunk, cause error) (old slot, err error) {
	fail := func(err error) (slot, error) { return old, fmt.Errorf("%w: %w, after: %w", ErrBroken, err, cause) }
	to, err := j.takeSpare()
	if err != nil {
		return fail(err)
	}
	j.mu.Lock()
	synced := j.synced
	j.mu.Unlock()
	n := &file{header: f.header, size: j.o.FileBytes, slot: to}
	n.attempt++
	if _, err := io.ReadFull(j.o.Rand, n.salt[:]); err != nil {
		return fail(err)
	}
	n.aead = fileKey(&j.secret, &n.salt)
	n.pos, n.scanned = headerBytes, true
	if n.size < headerBytes+int64(f.done)+frames(int64(f.done))*frameOverhead {
		return fail(fmt.Errorf("%w: the file is larger than those made now", ErrSize))
	}
	if err := j.copyUse(f, n, synced); err != nil {
		return fail(err)
	}
	if c != nil {
		if err := j.writeChunk(&chunk{f: n, buf: c.buf}, synced); err != nil {
			return fail(err)
		}
	}
	if err := to.file.Sync(); err != nil {
		return fail(err)
	}
	crashpoint.Here(crashpoint.JournalMove)
	j.mu.Lock()
	f.io.Lock()
	old = f.slot
	f.header, f.size, f.slot, f.aead = n.header, n.size, n.slot, n.aead
	f.counter, f.done, f.pos, f.padded, f.marks = n.counter, n.done, n.pos, n.padded, n.marks
	f.taken = n.pos
	f.io.Unlock()
	j.mu.Unlock()
	return old, nil
}

// copyUse writes what f holds into n.
func (j *Journal) copyUse(f, n *file, synced Seq) error {
	buf := new(readBuf)
	part := make([]byte, frameFill)
	for n.done < f.done {
		p := part[:min(uint32(frameFill), f.done-n.done)]
		if err := f.readAt(p, n.done, buf); err != nil {
			return err
		}
		if err := j.writeChunk(&chunk{f: n, buf: p}, synced); err != nil {
			return err
		}
	}
	return nil
}
