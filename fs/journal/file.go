package journal

import (
	"crypto/cipher"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/anyfs/anyfs/dag/disk"
)

const (
	pageBytes = 4096
	markBytes = 8 << 10 // how far apart marks are at least
)

// file is one use of a file on the disk.
type file struct {
	header // changes only where the use moves to another file
	size   int64

	// Guarded by the journal's mu.
	last    Seq    // of its records; first-1 when there are none
	pins    int    // by callers
	end     uint32 // bytes appended
	waiting int64  // of these, bytes that are in no frame yet
	taken   int64  // where the next frame goes: behind those that are written or being written
	charge  int64  // what it counts for in LiveBytes when it is not the current file
	dirty   bool   // something is written that is not synced
	cut     bool   // done was set back: what is behind it on the disk must not be found again
	unsure  bool   // found in two files; not known to be durable, whatever its frames say
	syncing bool   // an error of the running sync is about this use

	// Guarded by io: changed by who writes, held for reading by readers.
	io      sync.RWMutex
	slot    slot
	aead    cipher.AEAD
	counter uint64 // of the next frame
	done    uint32 // bytes appended that are in frames on the disk
	pos     int64  // behind these frames
	padded  int64  // up to where zeros were written behind them
	marks   []mark // of places where frames begin, so that a read finds its frame
	scanned bool   // marks, done and pos are known
}

// mark is a place where a frame begins.
type mark struct {
	off     uint32 // in what was appended
	pos     uint32 // in the file
	counter uint32
}

// slot is a file on the disk, whatever it is used for.
type slot struct {
	number  uint32
	file    disk.File
	written bool // as a whole, once: making a record durable there changes no metadata
}

func (s slot) name(dir string) string { return fmt.Sprintf("%s/%08d", dir, s.number) }

// bound returns how far the file may reach when n more bytes are appended, however they are cut into frames.
func (f *file) bound(n int64) int64 {
	n += f.waiting
	return f.taken + n + (frames(n)+1)*frameOverhead
}

// mark notes that a frame is about to begin at pos. It is called with io held.
func (f *file) mark() {
	if n := len(f.marks); n == 0 || f.pos-int64(f.marks[n-1].pos) >= markBytes {
		f.marks = append(f.marks, mark{off: f.done, pos: uint32(f.pos), counter: uint32(f.counter)})
	}
}

// readAt reads what was appended from off on. It needs all of it to be on the disk.
func (f *file) readAt(p []byte, off uint32, buf *readBuf) error {
	f.io.RLock()
	defer f.io.RUnlock()
	if uint64(off)+uint64(len(p)) > uint64(f.done) {
		return fmt.Errorf("%w: it ends at %d", ErrCorrupt, f.pos)
	}
	for len(p) > 0 {
		i := sort.Search(len(f.marks), func(i int) bool { return f.marks[i].off > off }) - 1
		m, end := f.marks[i], f.pos
		if i+1 < len(f.marks) {
			end = int64(f.marks[i+1].pos)
		}
		b := buf.b[:end-int64(m.pos)]
		if k, err := f.slot.file.ReadAt(b, int64(m.pos)); k < len(b) {
			if err == io.EOF {
				err = fmt.Errorf("%w: it is cut at %d", ErrCorrupt, int64(m.pos)+int64(k))
			}
			return err
		}
		at, counter := m.off, uint64(m.counter)
		for len(b) > 0 && len(p) > 0 {
			size := 0
			if len(b) >= frameHead {
				size = frameSize(b)
			}
			if size == 0 || size > len(b) {
				return errFrame(end - int64(len(b)))
			}
			next := at + uint32(size-frameOverhead)
			if next > off {
				body, _, ok := openFrame(b[:size], f.aead, buf.nonce.set(counter))
				if !ok {
					return errFrame(end - int64(len(b)))
				}
				k := copy(p, body[off-at:])
				p, off = p[k:], off+uint32(k)
			}
			b, at, counter = b[size:], next, counter+1
		}
		if len(p) > 0 && at != off {
			return errFrame(end)
		}
	}
	return nil
}

func errFrame(at int64) error { return fmt.Errorf("%w: frame at %d", ErrCorrupt, at) }

// readBuf has room for the longest stretch between two marks.
type readBuf struct {
	b     [markBytes + frameMax + frameOverhead]byte
	nonce nonce
}

func (f *file) closeFile() {
	f.io.Lock()
	defer f.io.Unlock()
	if f.slot.file != nil {
		f.slot.file.Close()
	}
}

// ReadAt reads len(p) bytes of a record from off on. It needs no lock of the caller's, and works on a broken journal for
// what is written. At most 128 KiB beyond p are read and decrypted.
func (j *Journal) ReadAt(loc Loc, p []byte, off int) error {
	if off < 0 || off > int(loc.Len) || len(p) > int(loc.Len)-off {
		return fmt.Errorf("%w: %d bytes at %d of a record of %d", ErrSize, len(p), off, loc.Len)
	}
	if len(p) == 0 {
		return nil
	}
	at := loc.Off + uint32(off)
	j.mu.Lock()
	f := j.fileLocked(loc.File)
	if f == nil {
		j.mu.Unlock()
		return ErrGone
	}
	for _, list := range [][]*chunk{j.busy, j.pend} {
		for _, c := range list {
			if c.f == f && at >= c.off && at-c.off < uint32(len(c.buf)) {
				k := copy(p, c.buf[at-c.off:])
				j.mu.Unlock()
				if k < len(p) {
					return ErrCorrupt // a Loc that Append did not give
				}
				return nil
			}
		}
	}
	j.mu.Unlock()
	buf, _ := j.readBufs.Get().(*readBuf)
	if buf == nil {
		buf = new(readBuf)
	}
	defer j.readBufs.Put(buf)
	if err := j.scanOld(f); err != nil {
		return err
	}
	if err := f.readAt(p, at, buf); err != nil {
		f.io.RLock()
		defer f.io.RUnlock()
		return fmt.Errorf("%s: %w", f.slot.name(j.o.Dir), err)
	}
	return nil
}

// fileLocked returns the live file of the use, or nil.
func (j *Journal) fileLocked(gen uint32) *file {
	for i := len(j.files) - 1; i >= 0; i-- {
		if j.files[i].gen == gen {
			return j.files[i]
		}
	}
	return nil
}
