package journal

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"

	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/dag/disk"
)

// Where less than smallSync is appended between two syncs, aheadBytes of a file that was only reserved are written with zeros ahead of
// the records: a sync in what was written before changes no metadata. (Measured: 0.25 ms against 0.5.) Where more is, that would
// only be written twice.
const (
	smallSync  = 16 << 10
	aheadBytes = 256 << 10
)

// slots are the files that are in no use, or about to be in none.
type slots struct {
	free    []slot
	retired []slot // their headers are to be erased
	last    uint32 // the highest number so far
	err     error  // why the last try to prepare one failed
	keep    int    // how many of free are kept
	kicked  bool   // there may be something to tidy
	tidying bool
}

// capacity returns how much of the current file may be used: while there is no other to go on in, ordinary records leave a
// quarter for the reserved ones.
func (s *slots) capacity(size int64, reserved bool) int64 {
	if s.err != nil && len(s.free) == 0 && !reserved {
		return size / 4 * 3
	}
	return size
}

func (s *slots) close() {
	for _, list := range [][]slot{s.free, s.retired} {
		for _, f := range list {
			f.file.Close()
		}
	}
}

// startLocked makes a free file the current one. It may unlock meanwhile.
func (j *Journal) startLocked(reserved bool) error {
	s := &j.slots
	spare := 1
	if s.err != nil && !reserved {
		spare = 2 // the last one is for who may use the reserve
	}
	if len(s.free) < spare {
		if s.err != nil && !reserved {
			s.kicked = true // perhaps there is space again
			return fmt.Errorf("%w: %w", ErrFull, s.err)
		}
		j.mu.Unlock()
		err := j.prepare()
		j.mu.Lock()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFull, err)
		}
		return nil
	}
	var salt [saltBytes]byte
	if _, err := io.ReadFull(j.o.Rand, salt[:]); err != nil {
		return err
	}
	f := &file{size: j.o.FileBytes, scanned: true}
	j.gen++
	f.header = header{salt: salt, gen: j.gen, first: j.next, synced: j.synced}
	f.aead = fileKey(&j.secret, &f.salt)
	f.slot = s.take(j.eagerLocked())
	f.last = j.next - 1
	f.taken, f.pos = headerBytes, headerBytes
	if j.cur != nil {
		j.cur.charge = j.cur.size
		j.full += j.cur.charge
	}
	j.cur = f
	j.files = append(j.files, f)
	crashpoint.Here(crashpoint.JournalNext)
	s.keep, s.kicked = spares, true
	j.reclaimLocked()
	return nil
}

// eagerLocked reports whether records are synced one by one, more or less.
func (j *Journal) eagerLocked() bool { return (j.perSync+j.sinceSync)/2 < smallSync }

// take takes a free file, of which there is one: one that was written as a whole or not, as it is wanted, if there are both.
func (s *slots) take(written bool) slot {
	i := max(0, slices.IndexFunc(s.free, func(f slot) bool { return f.written == written }))
	f := s.free[i]
	s.free = slices.Delete(s.free, i, i+1)
	return f
}

// takeSpare takes a free file away, or a new one.
func (j *Journal) takeSpare() (slot, error) {
	for {
		j.mu.Lock()
		if s := &j.slots; len(s.free) > 0 {
			f := s.take(false)
			s.kicked = true
			j.mu.Unlock()
			return f, nil
		}
		j.mu.Unlock()
		if err := j.prepare(); err != nil {
			return slot{}, err
		}
	}
}

// prepare adds a file to the free ones, unless there is one.
func (j *Journal) prepare() error {
	j.makeMu.Lock()
	defer j.makeMu.Unlock()
	j.mu.Lock()
	s := &j.slots
	if len(s.free) > 0 {
		j.mu.Unlock()
		return nil
	}
	s.last++
	f := slot{number: s.last}
	j.mu.Unlock()
	file, err := makeFile(j.o.Disk, f.name(j.o.Dir), j.o.FileBytes, j.o.Dir)
	j.mu.Lock()
	defer j.mu.Unlock()
	if s.err = err; err != nil {
		return err
	}
	f.file = file
	s.free = append(s.free, f)
	return nil
}

// makeFile makes a file that reads as zeros, with a durable name. Until it is whole it has another name, under which Open removes
// it.
func makeFile(d disk.FS, name string, size int64, dir string) (f disk.File, err error) {
	tmp := name + ".new"
	if f, err = d.Create(tmp); err != nil {
		return nil, err
	}
	err = f.Reserve(0, size)
	if err == nil {
		err = f.Sync()
	}
	f.Uncache()
	if err == nil {
		err = d.Rename(tmp, name)
	}
	if err == nil {
		err = d.SyncDir(dir)
	}
	crashpoint.Here(crashpoint.JournalMade)
	if err != nil {
		f.Close()
		return nil, errors.Join(err, ignoreAbsent(d.Remove(tmp)))
	}
	return f, nil
}

// Pin keeps the file of loc from being reused until Unpin was called as often. It returns ErrGone where the file was given up.
func (j *Journal) Pin(loc Loc) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.fileLocked(loc.File)
	if f == nil {
		return ErrGone
	}
	f.pins++
	return nil
}

// Unpin takes a Pin back.
func (j *Journal) Unpin(loc Loc) {
	j.mu.Lock()
	defer j.unlock()
	f := j.fileLocked(loc.File)
	if f == nil || f.pins == 0 {
		panic(fmt.Sprintf("journal: Unpin of %+v without a Pin", loc))
	}
	if f.pins--; f.pins == 0 {
		j.reclaimLocked()
	}
}

// Release says that a durable checkpoint holds what the records up to seq did. Files that hold only such records and are
// not pinned are given up.
func (j *Journal) Release(seq Seq) {
	j.mu.Lock()
	defer j.unlock()
	j.released = max(j.released, min(seq, j.next-1))
	j.reclaimLocked()
	if j.trimmed == j.next {
		j.trimLocked()
	}
	j.trimmed = j.next
}

// Trim is for when nothing happens: it gives the disk's space back that nobody needs, but for one file. Where all records are
// released the current file is given up too, and the next record begins another. Who calls Release when nothing was appended
// since the last time gives back the free files alone.
func (j *Journal) Trim() {
	j.mu.Lock()
	defer j.unlock()
	if f := j.cur; f != nil && f.last == j.next-1 && f.last <= min(j.released, j.written) && f.pins == 0 && !f.syncing {
		j.cur = nil
		j.reclaimLocked()
	}
	j.trimLocked()
}

func (j *Journal) trimLocked() {
	j.slots.keep, j.slots.kicked = 1, true
}

// reclaimLocked gives up the files that nobody needs.
func (j *Journal) reclaimLocked() {
	live := j.files[:0]
	for _, f := range j.files {
		if f == j.cur || f.last > min(j.released, j.written) || f.pins > 0 || f.syncing {
			live = append(live, f)
			continue
		}
		j.full -= f.charge
		f.slot.written = f.slot.written || f.end > uint32(f.size/8*7)
		j.slots.retired = append(j.slots.retired, f.slot)
		j.slots.kicked = true
	}
	clear(j.files[len(live):])
	j.files = live
}

// Oldest returns the first record of the oldest file that is live (the next record's number where there is none), and the
// bytes of all that are.
func (j *Journal) Oldest() (first Seq, live int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	first, live = j.next, j.full
	if j.cur != nil {
		live += j.cur.bound(0)
	}
	if len(j.files) > 0 {
		first = j.files[0].first
	}
	return first, live
}

// OldestFile returns the number (as in Loc.File) of the oldest live file, 0 where there is none, how often it is pinned, and
// whether all its records are released, so that the pins alone keep it.
func (j *Journal) OldestFile() (file uint32, pins int, released bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.files) == 0 {
		return 0, 0, false
	}
	f := j.files[0]
	return f.gen, f.pins, f.last <= j.released
}

// unlock unlocks mu, and sees to what the call left to tidy.
func (j *Journal) unlock() {
	s := &j.slots
	if !s.kicked || s.tidying || j.err != nil {
		j.mu.Unlock()
		return
	}
	s.tidying = true
	if !j.o.Inline {
		j.wg.Add(1)
		j.mu.Unlock()
		go func() {
			defer j.wg.Done()
			j.tidy()
		}()
		return
	}
	j.mu.Unlock()
	j.tidy()
}

// tidy erases the headers of files that are given up, removes those that are too many, and prepares one where none is left.
func (j *Journal) tidy() {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := &j.slots
	defer func() { s.tidying = false }()
	for s.kicked && j.err == nil {
		s.kicked = false
		for len(s.retired) > 0 {
			f := s.retired[0]
			s.retired = s.retired[1:]
			j.mu.Unlock()
			ok := erase(f) == nil && fits(f, j.o.FileBytes)
			j.mu.Lock()
			if ok && len(s.free) < s.keep {
				s.free = append(s.free, f)
				s.err = nil
			} else {
				j.dropLocked(f)
			}
		}
		if j.err == nil && len(s.free) == 0 {
			j.mu.Unlock()
			j.prepare() // an error is remembered
			j.mu.Lock()
		}
		for len(s.free) > max(s.keep, 1) {
			j.dropLocked(s.take(false))
		}
	}
}

// removeFile is best effort: where the file stays, or comes back, Open finds it.
func (j *Journal) removeFile(f slot) {
	f.file.Close()
	j.o.Disk.Remove(f.name(j.o.Dir))
	j.o.Disk.SyncDir(j.o.Dir)
}

// dropLocked removes a file that is in no use. It unlocks meanwhile.
func (j *Journal) dropLocked(f slot) {
	j.mu.Unlock()
	j.removeFile(f)
	j.mu.Lock()
}

// erase makes a file that nobody needs look unused, for good: a header that came back after a power loss, when its number is
// given to another use, would be taken for that.
func erase(f slot) error {
	crashpoint.Here(crashpoint.JournalErase)
	defer crashpoint.Here(crashpoint.JournalErased)
	if _, err := f.file.WriteAt(make([]byte, headerBytes), 0); err != nil {
		return err
	}
	if err := f.file.Sync(); err != nil {
		return err
	}
	f.file.Uncache() // its next use writes in smaller pieces, perhaps
	return nil
}

func fits(f slot, size int64) bool {
	n, err := f.file.Size()
	return err == nil && n == size
}

func ignoreAbsent(err error) error {
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	return err
}
