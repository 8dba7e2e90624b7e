package journal

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Open recovers the journal: it calls replay, in order, for every record after from (the position of the last checkpoint, 0
// for none) that is whole and has all records before it. rec is valid during the call only, loc for as long as its file
// lives. Where replay returns ErrEnd, what is valid ends before that record; any other error is returned, and the journal stays
// as it was. Then the journal is ready; its next record gets the number behind the last
// replayed, or behind from where that is higher.
//
// Files of before the start are kept until the first Release, which is the time to pin again what a checkpoint
// refers to. What was replayed is durable when Open returns.
func Open(o Options, from Seq, replay func(seq Seq, rec []byte, loc Loc) error) (*Journal, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	j := &Journal{o: o, secret: o.Key.Key(keyLabel), slots: slots{keep: spares}}
	if err := j.recover(from, replay); err != nil {
		j.slots.close()
		return nil, fmt.Errorf("journal: open: %w", err)
	}
	j.mu.Lock()
	j.slots.kicked = true
	j.unlock()
	return j, nil
}

func (o *Options) complete() error {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.FileBytes == 0 {
		o.FileBytes = DefaultFileBytes
	}
	if o.LiveBytes == 0 {
		o.LiveBytes = DefaultLiveBytes
	}
	if o.Reserve == 0 {
		o.Reserve = o.LiveBytes / 4
	}
	if o.FileBytes < 16<<10 || o.FileBytes > 1<<30 || o.Reserve < 0 || o.LiveBytes-o.Reserve < o.FileBytes {
		return errors.New("journal: sizes out of range")
	}
	return nil
}

var errUnsure = errors.New("not known to be durable")

func ignoreAbsent(err error) error {
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	return err
}

// found is a use that is on the disk.
type found struct {
	*file
	rotten bool // one copy of the header is damaged
}

func (j *Journal) recover(from Seq, replay func(Seq, []byte, Loc) error) error {
	uses, err := j.list()
	size := int64(0)
	for _, u := range uses {
		size = max(size, u.size)
	}
	buf := scanBuf(size)
	if err == nil {
		uses, err = j.dropDoubles(uses, buf)
	}
	if err == nil {
		err = j.adopt(uses, buf, from, replay)
	}
	if err != nil {
		for _, u := range uses {
			u.closeFile()
		}
	}
	return err
}

// adopt takes the files over: the live ones, with what they hold replayed, and those that are to be erased.
func (j *Journal) adopt(uses []found, buf []byte, from Seq, replay func(Seq, []byte, Loc) error) error {
	durable := Seq(0) // the highest record that anything says was synced
	start := -1
	for i, u := range uses {
		j.gen = max(j.gen, u.gen)
		durable = max(durable, u.synced)
		if u.first <= from+1 {
			start = i // a use that was given up has a lower gen than one that begins no later
		}
	}
	retire := func(stale []found) {
		for _, u := range stale {
			j.slots.retired = append(j.slots.retired, u.slot)
		}
	}
	last := from
	if start < 0 {
		retire(uses) // there is a hole before the first
		uses, start = nil, 0
	}
	for _, u := range uses[:start] {
		u.last = min(from, uses[start].first-1)
		j.files = append(j.files, u.file)
	}
	for at := start; at < len(uses); {
		u := uses[at]
		j.files = append(j.files, u.file)
		synced, err := j.replayFile(u.file, buf, from, replay)
		if err != nil {
			return err
		}
		durable, last = max(durable, synced), max(last, u.last)
		if u.cut {
			retire(uses[at+1:])
			break
		}
		// What does not go on exactly here lies behind a hole.
		next := at + 1
		for next < len(uses) && uses[next].first != u.last+1 {
			next++
		}
		retire(uses[at+1 : next])
		at = next
	}
	j.judge(uses, last, durable)
	j.next = last + 1
	j.written, j.synced = last, last
	for _, f := range j.files {
		// What was found counts by what it holds, or restarts alone would make the journal full.
		if f.charge = f.size; f.scanned {
			f.charge = f.pos
		}
		j.full += f.charge
	}
	return j.settle(durable)
}

// settle makes durable what was found and not known to be. After a kill it may have come from the cache of the system, and
// the process before may have seen a sync fail, after which another one does nothing and succeeds: so it is written anew.
// What was erased or removed is so again.
func (j *Journal) settle(durable Seq) error {
	for _, f := range slices.Clone(j.files) {
		if f.cut {
			if err := j.cutFile(f); err != nil {
				return err
			}
			continue
		}
		if !f.unsure && f.last <= durable || f.last < f.first {
			continue
		}
		if err := j.scanOld(f); err != nil {
			return err
		}
		err := j.replace(f, nil, errUnsure)
		if errors.Is(err, syscall.ENOSPC) {
			err = f.slot.file.Sync() // the next best: a full disk is no reason to stay closed
		}
		if err != nil {
			return err
		}
	}
	good := j.slots.free[:0]
	for _, f := range j.slots.free {
		if err := erase(f); err != nil {
			j.removeFile(f)
			continue
		}
		good = append(good, f)
	}
	j.slots.free = good
	return j.o.Disk.SyncDir(j.o.Dir)
}

// cutFile makes sure that what is behind the end of a use is never found again: what it refers to may come, and then the
// record would count, and not those that were written in its place.
func (j *Journal) cutFile(f *file) error {
	old := f.slot
	if f.last < f.first {
		j.files = slices.DeleteFunc(j.files, func(o *file) bool { return o == f })
		j.full -= f.charge
	} else {
		var err error
		if old, err = j.move(f, nil, ErrEnd); err != nil {
			return err
		}
	}
	for _, f := range append([]slot{old}, j.slots.retired...) { // perhaps another copy of the use
		if err := erase(f); err != nil {
			return err
		}
	}
	j.removeFile(old)
	return nil
}

// judge notes what only damage can explain.
func (j *Journal) judge(uses []found, last, durable Seq) {
	if durable > last {
		j.damage = fmt.Errorf("%w: records %d to %d were durable and are lost", ErrCorrupt, last+1, durable)
		return
	}
	for _, u := range uses {
		if u.rotten && u.first <= durable {
			j.damage = fmt.Errorf("%w: a header of %s", ErrCorrupt, u.slot.name(j.o.Dir))
			return
		}
	}
}

// list opens the files and returns those that are in use, by gen and attempt. The others are free.
func (j *Journal) list() (uses []found, err error) {
	d := j.o.Disk
	if err := d.MkdirAll(j.o.Dir); err != nil {
		return nil, err
	}
	names, err := d.ReadDir(j.o.Dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := j.o.Dir + "/" + name
		if strings.HasSuffix(name, ".new") {
			if err := d.Remove(path); err != nil {
				return uses, err
			}
			continue
		}
		number, err := strconv.ParseUint(name, 10, 32)
		if err != nil || name != fmt.Sprintf("%08d", number) {
			continue
		}
		u := found{file: &file{slot: slot{number: uint32(number)}}}
		j.slots.last = max(j.slots.last, u.slot.number)
		if u.slot.file, err = d.Open(path); err != nil {
			return uses, err
		}
		if u.size, err = u.slot.file.Size(); err != nil {
			u.closeFile()
			return uses, err
		}
		used, err := j.readHeader(&u)
		if err != nil {
			u.closeFile()
			return uses, err
		}
		if used {
			uses = append(uses, u)
			continue
		}
		if u.size == j.o.FileBytes && len(j.slots.free) < spares {
			j.slots.free = append(j.slots.free, u.slot)
			continue
		}
		u.closeFile()
		if err := d.Remove(path); err != nil {
			return uses, err
		}
	}
	slices.SortFunc(uses, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.gen, b.gen), cmp.Compare(a.attempt, b.attempt))
	})
	return uses, nil
}

// readHeader reports whether the file is in use.
func (j *Journal) readHeader(u *found) (bool, error) {
	var b [headerBytes]byte
	if u.size < headerBytes || u.size > 1<<30 {
		return false, nil
	}
	if _, err := u.slot.file.ReadAt(b[:], 0); err != nil {
		return false, err
	}
	used, bad := false, false
	for i := range 2 {
		h, aead, ok := openHeader(b[i*headerCopy:(i+1)*headerCopy], &j.secret)
		bad = bad || !ok
		if ok && h.gen > u.gen {
			u.header, u.aead, used = h, aead, true
		}
	}
	if used && bad {
		// A crash may leave one of the two, where the other was not yet written or already erased. Rot changes little of it.
		differ := 0
		for i := range headerCopy {
			if b[i] != b[headerCopy+i] {
				differ++
			}
		}
		u.rotten = differ <= 8
	}
	return used, nil
}

// dropDoubles keeps, of files that hold the same use, the one in which more of it can be read.
func (j *Journal) dropDoubles(uses []found, buf []byte) ([]found, error) {
	var kept []found
	for _, u := range uses {
		n := len(kept)
		if n == 0 || kept[n-1].gen != u.gen {
			kept = append(kept, u)
			continue
		}
		old := kept[n-1]
		for _, f := range []*file{old.file, u.file} {
			if _, err := f.scanFile(buf, nil); err != nil {
				return uses, err
			}
		}
		if u.done >= old.done {
			kept[n-1], u = u, old
		}
		kept[n-1].unsure = true // the copy was perhaps cut short by a crash, and the other one failed
		j.slots.retired = append(j.slots.retired, u.slot)
	}
	return kept, nil
}

// replayFile calls replay for the records of a file after from, and sets the file's last record. It returns the highest
// record that the file's frames say was durable.
func (j *Journal) replayFile(f *file, buf []byte, from Seq, replay func(Seq, []byte, Loc) error) (durable Seq, err error) {
	var end uint32   // where a cut file ends
	var carry []byte // the beginning of a record whose end is in a later frame
	seq := f.first
	ended := false
	each := func(body []byte, synced Seq) error {
		durable = max(durable, synced)
		if ended {
			return nil
		}
		at := f.done
		if len(carry) > 0 {
			at -= uint32(len(carry))
			carry = append(carry, body...)
			body = carry
		}
		for {
			rec, rest, more, ok := cutRecord(body, f.size)
			if !ok {
				ended = true // sealed by us, and yet no record: nothing behind it can be trusted
				return nil
			}
			if more {
				carry = append(carry[:0], rest...)
				return nil
			}
			at += uint32(len(body) - len(rest))
			if seq > from {
				loc := Loc{File: f.gen, Off: at - uint32(len(rec)), Len: uint32(len(rec))}
				err := replay(seq, rec, loc)
				if errors.Is(err, ErrEnd) {
					ended, f.cut, end = true, true, loc.Off-uint32(recordBytes(len(rec))-len(rec))
					return nil
				}
				if err != nil {
					return err
				}
			}
			seq++
			body = rest
		}
	}
	s, err := f.scanFile(buf, each)
	if err != nil {
		return 0, err
	}
	if f.cut {
		f.done = end
	}
	f.end, f.taken, f.last = f.done, f.pos, seq-1
	return max(durable, s.probe()), nil
}

// Verify reads everything that live files hold, and returns an error matching ErrCorrupt where it is not what was written.
// It may run beside everything else.
func (j *Journal) Verify() error {
	j.mu.Lock()
	files := slices.Clone(j.files)
	j.mu.Unlock()
	for _, f := range files {
		if err := j.verifyFile(f); err != nil {
			j.mu.Lock()
			gone := !slices.Contains(j.files, f)
			j.mu.Unlock()
			if !gone {
				return err
			}
		}
	}
	return nil
}

func (j *Journal) verifyFile(f *file) error {
	if err := j.scanOld(f); err != nil {
		return err
	}
	buf := new(readBuf)
	p := make([]byte, frameMax)
	f.io.RLock()
	done := f.done
	f.io.RUnlock()
	for at := uint32(0); at < done; {
		n := min(uint32(len(p)), done-at)
		if err := f.readAt(p[:n], at, buf); err != nil {
			return err
		}
		at += n
	}
	if done == 0 {
		return nil
	}
	f.io.RLock()
	defer f.io.RUnlock()
	u := found{file: &file{size: f.size, slot: f.slot}}
	used, err := j.readHeader(&u)
	if err == nil && (!used || u.rotten || u.header != f.header) {
		err = fmt.Errorf("%w: a header of %s", ErrCorrupt, f.slot.name(j.o.Dir))
	}
	return err
}
