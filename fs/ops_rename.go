package fs

import (
	"fmt"

	"github.com/anyfs/anyfs/fs/index"
)

// Rename moves a name. Flags are RenameNoReplace and RenameExchange.
func (h *Home) Rename(parent Ino, name string, newParent Ino, newName string, flags uint32) error {
	return h.rename(parent, name, newParent, newName, flags, false)
}

// rename is Rename. With save, a file that replaces another is the next version of that, whatever its age.
func (h *Home) rename(parent Ino, name string, newParent Ino, newName string, flags uint32, save bool) error {
	if flags&^(RenameNoReplace|RenameExchange) != 0 || flags == RenameNoReplace|RenameExchange {
		return ErrInvalid
	}
	if err := checkName(newName); err != nil {
		return err
	}
	if name == viewName {
		return ErrPerm
	}
	if isView(parent) || isView(newParent) {
		return ErrReadOnly
	}
	s, from, err := h.change(parent)
	if err != nil {
		return err
	}
	s2, to, err := h.change(newParent)
	if err != nil {
		return err
	}
	if s != s2 {
		return ErrCrossSpace
	}
	if s.slot == 0 {
		if flags&RenameExchange != 0 {
			return ErrInvalid
		}
		return h.renameSpace(name, newName, flags)
	}
	// A streamed file is in the journal before a new name can show it, so that no crash leaves the name with half a file.
	if err := s.settleNamed(from, name); err != nil {
		return err
	}
	if flags&RenameExchange != 0 {
		if err := s.settleNamed(to, newName); err != nil {
			return err
		}
	}
	return s.do(true, func() (*writer, func(*mutation) error, error) {
		r, replaced, noop, err := s.planRename(from, name, to, newName, flags, save)
		if err != nil || noop {
			return nil, nil, err
		}
		w := s.record(recRename)
		r.encode(w)
		return w, func(m *mutation) error {
			if err := s.applyRename(m.seq, r); err != nil {
				return err
			}
			s.renamed(r)
			if replaced != 0 {
				s.reclaim(replaced)
			}
			return nil
		}, nil
	})
}

// settleNamed ends the stream of the inode that a name stands for.
func (s *space) settleNamed(dir uint64, name string) error {
	s.mu.Lock()
	e, _, err := s.lookup(dir, name)
	s.mu.Unlock()
	if err != nil || e == nil {
		return err
	}
	return s.settleStream(e.Ino)
}

// planRename checks a rename and decides whether it is a save. Under mu.
func (s *space) planRename(from uint64, name string, to uint64, newName string, flags uint32, save bool) (r *renameRecord, replaced uint64, noop bool, err error) {
	// Both directories are read before anything is recorded: what can't be read can't be replayed.
	if _, err := s.liveDir(from); err != nil {
		return nil, 0, false, err
	}
	if _, err := s.liveDir(to); err != nil {
		return nil, 0, false, err
	}
	e, _, err := s.lookup(from, name)
	if err != nil {
		return nil, 0, false, err
	}
	if e == nil {
		return nil, 0, false, ErrNotExist
	}
	n, err := s.inode(e.Ino)
	if err != nil {
		return nil, 0, false, err
	}
	o, _, err := s.lookup(to, newName)
	if err != nil {
		return nil, 0, false, err
	}
	r = &renameRecord{Parent: from, Name: name, NewParent: to, NewName: newName, Time: s.h.now()}
	r.Exchange = flags&RenameExchange != 0
	if r.Exchange && o == nil {
		return nil, 0, false, ErrNotExist
	}
	if o != nil && flags&RenameNoReplace != 0 {
		return nil, 0, false, ErrExist
	}
	if n.IsDir() {
		if err := s.notBelow(n.Ino, to); err != nil {
			return nil, 0, false, err
		}
	}
	if o == nil {
		if !n.IsDir() && from == to && n.IsRegular() {
			s.setAside(from, name, n.Ino, r.Time)
		}
		return r, 0, false, nil
	}
	if o.Ino == e.Ino {
		return nil, 0, true, nil
	}
	on, err := s.inode(o.Ino)
	if err != nil {
		return nil, 0, false, err
	}
	if r.Exchange {
		if on.IsDir() {
			if err := s.notBelow(on.Ino, from); err != nil {
				return nil, 0, false, err
			}
		}
		return r, 0, false, nil
	}
	switch {
	case n.IsDir() && !on.IsDir():
		return nil, 0, false, ErrNotDir
	case !n.IsDir() && on.IsDir():
		return nil, 0, false, ErrIsDir
	case on.IsDir() && on.Entries > 0:
		return nil, 0, false, ErrNotEmpty
	}
	if s.isSave(n, on, r.Time, save) {
		if _, busy := s.inflight[n.Ino]; busy || s.isInflight(on.Ino) {
			s.waitSettled(n.Ino, on.Ino)
			return s.planRename(from, name, to, newName, flags, save) // the lock was released: look again
		}
		r.Takes = !on.Object.IsZero()
	}
	return r, o.Ino, false, nil
}

// isSave reports whether the rename of n over o looks like an editor's save of o; at any age, where it is known to be one.
func (s *space) isSave(n, o *index.Inode, now int64, known bool) bool {
	return n.IsRegular() && o.IsRegular() && len(n.Links) == 1 && len(o.Links) == 1 && (known || now-n.Btime < int64(takesWithin))
}

// setAside remembers a name that a file was renamed away from.
func (s *space) setAside(dir uint64, name string, ino uint64, now int64) {
	if len(s.asides) > 1024 {
		for k, x := range s.asides {
			if now-x.time > int64(asideFor) {
				delete(s.asides, k)
			}
		}
		if len(s.asides) > 1024 {
			clear(s.asides)
		}
	}
	s.asides[asideKey{dir, name}] = aside{ino, now}
}

// notBelow refuses to put a directory below itself.
func (s *space) notBelow(dir, to uint64) error {
	for at := to; at != rootDir; {
		if at == dir {
			return ErrInvalid
		}
		n, err := s.inode(at)
		if err != nil {
			return err
		}
		if n.Parent == 0 {
			return fmt.Errorf("%w: directory %d has no parent", ErrIO, at)
		}
		at = n.Parent
	}
	return nil
}
