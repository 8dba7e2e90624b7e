package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/journal"
)

// A space is sick when what it keeps on the disk can't be read: its folder can't be opened, or the journal's records can't be
// applied to it. It stays so until the next start. It is left as it is, its root gives EIO, Status and Verify say why, and the
// others go on.

// abandonedFile marks the folder of a space whose records the journal let go of while it was sick.
const abandonedFile = "abandoned"

// stateDamaged is the State of a sick space.
const stateDamaged = "damaged"

// passing are errors that say nothing of what is on the disk: they pass, and until then the home does not open.
var passing = []error{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, kv.ErrInUse,
}

// passes reports whether an error does not mean that something is damaged.
func passes(err error) bool {
	return slices.ContainsFunc(passing, func(p error) bool { return errors.Is(err, p) })
}

// fallSick takes a space out of use. In recovery, before anyone can work with it; its end reports those that are sick: one whose
// deletion was cut short may have lost records that it would need, and goes.
func (s *space) fallSick(err error) { s.sick = err }

// holdJournal keeps the records behind seq in the journal, for a start that can open the space.
func (s *space) holdJournal(seq journal.Seq) { s.loaded, s.last = seq, max(s.last, seq+1) }

// errAbandoned is why a space with that mark is sick.
var errAbandoned = errors.New("it could not be opened for so long that the journal did not keep what it needs")

// giveUp lets go of what sick spaces hold in the journal, which is full. A mark in their folders keeps later starts from
// opening them without it. It reports whether there was any.
func (h *Home) giveUp(ctx context.Context) (bool, error) {
	found := false
	for _, s := range h.all() {
		s.mu.Lock()
		holds := s.sick != nil && !s.gone && (s.last != s.loaded || s.need != 0)
		s.mu.Unlock()
		if !holds {
			continue
		}
		if err := h.opt.Disk.WriteFileAtomic(s.dir+"/"+abandonedFile, nil); err != nil {
			return found, err
		}
		h.report("space in "+s.dir, errors.New("it is damaged, and the journal is full: what it had there is given up"))
		s.mu.Lock()
		s.loaded, s.need = s.last, 0
		s.mu.Unlock()
		found = true
	}
	if !found {
		return false, nil
	}
	var err error
	for _, s := range h.each() {
		if e := s.checkpoint(ctx, true); !errors.Is(e, ErrStale) { // one that is being deleted needs none
			err = errors.Join(err, e)
		}
	}
	return true, err
}

// usable fails for a sick space.
func (s *space) usable() error {
	if s.sick != nil {
		return fmt.Errorf("%w: the space is damaged: %w", ErrIO, s.sick)
	}
	return nil
}

// noSlot is of no space: an inode with it is stale.
const noSlot = 1<<15 - 1

// sickRoot gives a number to the entry of the root that stands for a space which can't be used. Nothing can be done with it.
func (h *Home) sickRoot(entry uint64) Ino {
	home := h.home
	home.mu.Lock()
	n, err := home.inode(entry)
	var s *space
	if err == nil {
		s, err = h.entrySpace(n)
	}
	home.mu.Unlock()
	if err != nil {
		return Ino(noSlot)<<slotShift | Ino(entry)
	}
	return s.ino(rootDir)
}

// recognize gives a sick space whose ID can't be read that of an entry of the root which stands for no space that is here,
// where there is but one of both.
func (h *Home) recognize(strangers []dag.ID) {
	var unknown []*space
	for _, s := range h.all() {
		if s.sick != nil && s.id.IsZero() {
			unknown = append(unknown, s)
		}
	}
	if len(unknown) == 1 && len(strangers) == 1 {
		unknown[0].id = strangers[0]
		h.addSpace(unknown[0])
	}
}

// unknownSick gives an error about sick spaces of which not even the ID can be read.
func (h *Home) unknownSick() (err error) {
	for _, s := range h.all() {
		if s.sick != nil && s.id.IsZero() {
			err = errors.Join(err, s.sick)
		}
	}
	return err
}
