package fs

import (
	"context"
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/fs/journal"
)

// mutation is one operation that has its place in the journal.
type mutation struct {
	seq journal.Seq
	loc journal.Loc
}

// do performs one operation: plan checks it and gives its record and what applies it, both under mu. When do returns nil, the
// record and all before it are with the kernel: no kill of the daemon loses it. reserved operations may use the space that
// is kept for making room.
func (s *space) do(reserved bool, plan func() (*writer, func(*mutation) error, error)) error {
	for freed, tries := false, 0; ; {
		s.mu.Lock()
		if s.gone {
			s.mu.Unlock()
			return ErrStale
		}
		if s.pre.shown.Load() {
			s.mu.Unlock()
			return ErrReadOnly // it shows what is not its own yet
		}
		w, apply, err := plan()
		if err != nil || w == nil {
			s.mu.Unlock()
			return err
		}
		size := int64(len(w.b))
		m, err := s.commit(w, reserved)
		if err == nil {
			err = apply(&m)
		}
		s.mu.Unlock()
		if err == ErrNoSpace && !freed {
			if freed = s.h.freeHistory(context.Background(), size); freed {
				continue
			}
		}
		if errors.Is(err, journal.ErrFull) {
			// Where it is the disk that makes no file for the journal, no room helps.
			if tries++; tries > maxTriesForRoom {
				return fmt.Errorf("%w: %w", ErrNoSpace, err)
			}
			if err := s.h.makeRoom(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return s.h.written(m.seq)
	}
}

// maxTriesForRoom is how often room is made in the journal for one operation: others may take what was made.
const maxTriesForRoom = 16

// commit appends a record. Under mu.
func (s *space) commit(w *writer, reserved bool) (m mutation, err error) {
	s.buf = w.b
	if !reserved {
		if err := s.h.roomFor(int64(len(w.b))); err != nil {
			return m, err
		}
		m.seq, m.loc, err = s.h.jr.Append(w.b)
	} else {
		m.seq, m.loc, err = s.h.jr.AppendReserved(w.b)
	}
	if errors.Is(err, journal.ErrBroken) {
		err = s.h.broken(err)
	}
	if err != nil {
		return m, err
	}
	s.last = m.seq
	return m, nil
}

// written waits until a record is with the kernel.
func (h *Home) written(seq journal.Seq) error {
	if err := h.jr.Write(seq); err != nil {
		return h.broken(err)
	}
	return nil
}
