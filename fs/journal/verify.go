package journal

import (
	"fmt"
	"slices"
)

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
				f.io.RLock()
				defer f.io.RUnlock()
				return fmt.Errorf("%s: %w", f.slot.name(j.o.Dir), err)
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
		err = fmt.Errorf("%w: a header, at 0", ErrCorrupt)
	}
	return err
}
