// Package journal is the log that comes before everything: what a home acknowledges is in it first.
//
// A record is bytes, numbered by a Seq from 1 on without gaps. Records go into a ring of files of equal size, which
// are reserved, and where syncs are frequent written with zeros ahead of the records: then making a record durable changes no
// metadata. Each use of a file has a salt and a key of its own; a file is never appended to after a restart. FORMAT.md gives the
// bytes.
//
//	Append   gives a record its place; no I/O
//	Write    hands it to the kernel: it survives the end of the process
//	Sync     makes it durable: it survives power loss
//	Release  says that it is not needed any more, as a checkpoint holds what it did
//
// After a crash Open replays, in order and whole, every record that was synced, and perhaps some that came after: what is
// replayed is always a prefix of what was appended. Reads of a record's bytes by its Loc work before it is written, after,
// and after a restart, for as long as it is not released or its file is pinned.
//
// A write or sync that fails is final for its file. All that the file holds is read back from it (what was written is
// in the page cache or on the disk, and verified by its seal; what was about to be written is in memory still), put into
// a fresh file in the same order, and synced, before anyone is answered. When that fails too the journal is broken.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/disk"
)

// Seq is a record's number: 1 for the first of a home, then one more each.
type Seq uint64

// Loc says where a record's bytes are: in the use File of a file, from the offset Off of what was appended to it on. It stays
// the same whatever happens to the file, and may be kept across restarts by who pins it again before the first Release.
type Loc struct{ File, Off, Len uint32 }

var (
	// ErrFull says that the record does not fit until something is released. Where the reason is the disk's
	// space, the error matches ENOSPC too. Nothing has changed.
	ErrFull = errors.New("journal: full")
	// ErrBroken says that a failed write could not be made good. It is final; what was synced stays readable.
	ErrBroken = fmt.Errorf("journal: broken: %w", syscall.EIO)
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("journal: closed")
	// ErrGone is returned for a Loc whose file has been given up.
	ErrGone = errors.New("journal: no such record")
	// ErrCorrupt says that what the file holds at a Loc is not what was written there.
	ErrCorrupt = errors.New("journal: corrupt")
	// ErrEnd, or what matches it, is returned by the caller's replay to say that a record refers to what is not there: it and
	// all behind it then count as never written.
	ErrEnd = errors.New("journal: end of what is valid")
	// ErrSize says that a record is empty or longer than a quarter of a file, or a read goes beyond its record.
	ErrSize = errors.New("journal: bad size")
)

// Ours to tune.
const (
	DefaultFileBytes = 16 << 20
	DefaultLiveBytes = 256 << 20
	bufferBytes      = 256 << 10 // records that wait for Write
	spares           = 4         // free files kept for reuse, more are removed; Trim leaves one
)

// Options of a journal. Zero values are replaced where a default is named.
type Options struct {
	Disk disk.FS
	Dir  string      // holds the journal's files and nothing else; made where absent
	Key  *seal.Local // seals what is written
	Rand io.Reader   // of salts; crypto/rand
	// FileBytes is the size of a file: 16 MiB; at least 16 KiB, at most 1 GiB. Older files may have another.
	FileBytes int64
	// LiveBytes bounds the files that are neither released nor free: 256 MiB.
	LiveBytes int64
	// Reserve is the part of LiveBytes that only AppendReserved may use: a quarter of it.
	Reserve int64
	// MayBeginLater lets Open begin with the oldest record that there is, where that is behind the one it is asked for: for who
	// does not know what was released. Else records are missing then.
	MayBeginLater bool
	// Inline does in the caller's goroutine what otherwise is done beside it (preparing and tidying files), so that a
	// simulation is deterministic.
	Inline bool
}

// Journal is safe for concurrent use.
type Journal struct {
	o      Options
	secret [32]byte

	makeMu sync.Mutex // held while a file is prepared; taken before mu
	wg     sync.WaitGroup

	mu       sync.Mutex
	err      error // why the journal takes nothing any more
	next     Seq   // the number of the next record
	written  Seq
	synced   Seq
	released Seq

	files []*file // live, oldest first
	cur   *file   // the last of files once something was appended
	full  int64   // bytes of the live files other than cur
	gen   uint32  // the highest use so far

	pend     []*chunk // appended; of one file each, in order
	busy     []*chunk // being written
	buffered int64    // bytes in pend
	chunks   []*chunk // for reuse

	writing   bool
	writeDone chan struct{} // closed when the running write ends; nil when nobody waits
	syncing   bool
	syncDone  chan struct{}
	sinceSync int64 // bytes appended since the last sync
	perSync   int64 // between two syncs, lately
	ahead     bool  // write zeros ahead, of who writes

	slots    slots // of files without use
	trimmed  Seq   // number of the next record at the last Release
	damage   error
	ended    error  // in recovery: why replay ended before the last record
	rot      error  // in recovery: a frame that was durable and does not open
	out      []byte // sealed frames; of who writes
	nonce    nonce
	readBufs sync.Pool
}

// chunk is a run of records of one file that wait to be written.
type chunk struct {
	f    *file
	off  uint32 // where it begins in what was appended to f
	last Seq
	buf  []byte
}

// Append adds a record. It copies rec and does no I/O, but where the buffer is full or a file ends it may wait for the disk.
func (j *Journal) Append(rec []byte) (Seq, Loc, error) { return j.append(rec, false) }

// AppendReserved is Append for what must work when everything is full, because it leads to space being freed.
func (j *Journal) AppendReserved(rec []byte) (Seq, Loc, error) { return j.append(rec, true) }

func (j *Journal) append(rec []byte, reserved bool) (Seq, Loc, error) {
	if len(rec) == 0 || int64(len(rec)) > j.o.FileBytes/4 {
		return 0, Loc{}, fmt.Errorf("%w: record of %d bytes", ErrSize, len(rec))
	}
	j.mu.Lock()
	if err := j.roomLocked(int64(recordBytes(len(rec))), reserved); err != nil {
		j.unlock()
		return 0, Loc{}, err
	}
	f := j.cur
	var c *chunk
	if n := len(j.pend); n > 0 && j.pend[n-1].f == f {
		c = j.pend[n-1]
	} else {
		c = j.newChunkLocked(f)
		j.pend = append(j.pend, c)
	}
	before := len(c.buf)
	c.buf = appendRecord(c.buf, rec)
	grown := len(c.buf) - before
	f.end += uint32(grown)
	f.waiting += int64(grown)
	j.buffered += int64(grown)
	j.sinceSync += int64(grown)
	seq := j.next
	j.next++
	c.last, f.last = seq, seq
	loc := Loc{File: f.gen, Off: f.end - uint32(len(rec)), Len: uint32(len(rec))}
	j.unlock()
	return seq, loc, nil
}

// roomLocked returns nil when the current file and the buffer take need more bytes. It may unlock meanwhile.
func (j *Journal) roomLocked(need int64, reserved bool) error {
	limit := j.o.LiveBytes
	if !reserved {
		limit -= j.o.Reserve
	}
	for {
		if j.err != nil {
			return j.err
		}
		f := j.cur
		if f == nil || f.bound(need) > j.slots.capacity(f.size, reserved) {
			full := j.full + headerBytes + frameOverhead + need
			if f != nil {
				full += f.size
			}
			if full > limit {
				return ErrFull
			}
			if err := j.startLocked(reserved); err != nil {
				return err
			}
			continue
		}
		if j.full+f.bound(need) > limit {
			return ErrFull
		}
		if j.buffered == 0 || j.buffered+need <= bufferBytes {
			return nil
		}
		if err := j.writeLocked(j.next - 1); err != nil {
			return err
		}
	}
}

func (j *Journal) newChunkLocked(f *file) *chunk {
	var c *chunk
	if n := len(j.chunks); n > 0 {
		c, j.chunks = j.chunks[n-1], j.chunks[:n-1]
	} else {
		c = new(chunk)
	}
	c.f, c.off, c.buf = f, f.end, c.buf[:0]
	return c
}

// Next returns the number that the next record will have.
func (j *Journal) Next() Seq {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// Damage returns an error matching ErrCorrupt when Open found that records which had been synced are lost, or a file
// damaged that it could read all the same. The journal works on.
func (j *Journal) Damage() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.damage
}

// Close makes everything durable and gives the files up. It waits for what runs.
func (j *Journal) Close() error {
	err := j.Sync(context.Background(), j.Next()-1)
	j.mu.Lock()
	if j.err == ErrClosed {
		j.mu.Unlock()
		return nil
	}
	if j.err == nil {
		j.err = ErrClosed
	}
	for j.writing || j.syncing {
		j.waitLocked(&j.writeDone, j.writing)
		j.waitLocked(&j.syncDone, j.syncing)
	}
	j.mu.Unlock()
	j.wg.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	if f := j.cur; err == nil && f != nil && f.pos > headerBytes && f.pos+frameOverhead < f.size {
		// A frame behind the last: if that one rots, Open can tell it from one that a crash tore. Not needed otherwise.
		j.writeChunk(&chunk{f: f, buf: []byte{0}}, j.synced)
	}
	for _, f := range j.files {
		f.closeFile()
	}
	j.slots.close()
	return err
}
