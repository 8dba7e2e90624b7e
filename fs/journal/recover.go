package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
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
	j := &Journal{o: o, secret: o.Key.Key(keyLabel), slots: slots{keep: spares}, perSync: 64 * smallSync}
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
	if start < 0 && len(uses) > 0 && j.o.MayBeginLater {
		start = 0
		for i, u := range uses {
			if u.first <= uses[start].first {
				start = i
			}
		}
		from = uses[start].first - 1
	}
	last := from
	if start < 0 && len(uses) > 0 {
		for _, u := range uses {
			synced, err := j.replayFile(u.file, buf, ^Seq(0), nil)
			if err != nil {
				return err
			}
			durable = max(durable, synced)
		}
		if durable > from {
			// Nothing is erased for it: the files hold what was written, behind records that are nowhere.
			return fmt.Errorf("%w: records %d to %d are missing", ErrCorrupt, from+1, uses[0].first-1)
		}
		// All of them lie behind a hole: a loss of power took a file before them that was never synced.
		j.rot = nil
		retire(uses)
		uses = nil
	}
	start = max(start, 0)
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
	j.judge(uses[start:], last, durable) // the header of one before may have been cut short in its erasure
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

// judge notes what only damage can explain.
func (j *Journal) judge(uses []found, last, durable Seq) {
	if durable > last {
		where := j.o.Dir
		if n := len(j.files); n > 0 {
			f := j.files[n-1]
			where = fmt.Sprintf("%s at %d", f.slot.name(j.o.Dir), f.pos)
		}
		j.damage = fmt.Errorf("%w: %s: records %d to %d were durable and are lost", ErrCorrupt, where, last+1, durable)
		if j.ended != nil {
			j.damage = fmt.Errorf("%w: %w", j.damage, j.ended)
		}
		return
	}
	if j.rot != nil { // of records that a checkpoint holds
		j.damage = j.rot
		return
	}
	for _, u := range uses {
		if u.rotten && u.first <= durable {
			j.damage = fmt.Errorf("%s: %w: a header, at 0", u.slot.name(j.o.Dir), ErrCorrupt)
			return
		}
	}
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
					j.ended = err
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
	behind := s.probe()
	if behind > f.last && !f.cut && j.rot == nil {
		j.rot = fmt.Errorf("%s: %w", f.slot.name(j.o.Dir), errFrame(f.pos))
	}
	return max(durable, behind), nil
}
