package journal

import (
	"errors"
	"slices"
	"syscall"
)

var errUnsure = errors.New("not known to be durable")

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
