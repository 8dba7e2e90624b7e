package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/fs/index"
)

// How a space goes, and how a start ends what a crash cut short of that or of its making.

// DeleteSpace removes a space from the root and its folder from this device.
func (h *Home) DeleteSpace(name string) error { return h.removeSpace(name, false) }

func (h *Home) removeSpace(name string, onlyEmpty bool) error {
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	return h.removeSpaceLocked(name, onlyEmpty)
}

func (h *Home) removeSpaceLocked(name string, onlyEmpty bool) error {
	s, err := h.spaceNamed(name)
	if err != nil {
		return err
	}
	// What is under way ends, and nothing begins any more. pubMu is let go of again: where the journal is full, the removal of the
	// name lets all spaces have checkpoints.
	s.pubMu.Lock()
	s.mu.Lock()
	if onlyEmpty {
		err = s.usable()
		if err == nil {
			var root *index.Inode
			if root, err = s.inode(rootDir); err == nil && (root.Entries > 0 || s.pre.pending()) { // what is to come may be anything
				err = ErrNotEmpty
			}
		}
	}
	s.gone = err == nil
	s.mu.Unlock()
	s.pubMu.Unlock()
	if err != nil {
		return err
	}
	back := func(err error) error {
		s.mu.Lock()
		s.gone = false
		s.mu.Unlock()
		return err
	}
	mark := s.dir + "/" + deletingFile
	if err := h.opt.Disk.WriteFileAtomic(mark, nil); err != nil {
		_ = h.opt.Disk.Remove(mark)
		return back(err)
	}
	crashpoint.Here(crashpoint.SpaceDelete)
	err = nil
	if !s.id.IsZero() {
		err = h.tellDeletion(s, name)
	}
	if err == nil {
		err = h.dropName(name)
	}
	if err != nil {
		if h.fail.Load() == nil { // else whether the journal holds the removal is not known
			err = errors.Join(err, h.opt.Disk.Remove(mark))
		}
		return back(err)
	}
	// The entry's removal is durable before the folder goes: a crash between the two must not leave a name without its space.
	home := h.home
	home.mu.Lock()
	seq := home.last
	home.mu.Unlock()
	if err := h.sync(context.Background(), seq); err != nil {
		return back(err)
	}
	crashpoint.Here(crashpoint.SpaceUnnamed)
	h.forgetSpace(s)
	// What is known of the journal's released records may stand in this space's database alone.
	if err := home.checkpoint(context.Background(), true); err != nil {
		return h.broken(err)
	}
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if err := errors.Join(s.close(), h.removeFolder(s.dir)); err != nil {
		h.report("delete space", err) // what is left goes at the next start
	}
	h.spacesChanged()
	return nil
}

// dropName removes an entry of the root.
func (h *Home) dropName(name string) error {
	home := h.home
	return home.do(true, func() (*writer, func(*mutation) error, error) {
		e, _, err := home.lookup(rootDir, name)
		if err != nil {
			return nil, nil, err
		}
		if e == nil {
			return nil, nil, ErrNotExist
		}
		r := &unlinkRecord{Parent: rootDir, Name: name, Time: h.now()}
		w := home.record(recUnlink)
		r.encode(w)
		ino := e.Ino
		return w, func(m *mutation) error {
			if err := home.applyUnlink(m.seq, r); err != nil {
				return err
			}
			home.happened(EventRemoved, named{ino, rootDir, name}, named{}, true)
			home.reclaim(ino)
			return nil
		}, nil
	})
}

func (h *Home) forgetSpace(s *space) {
	h.mu.Lock()
	delete(h.spaces, s.slot)
	if h.byID[s.id] == s { // an import may have taken its place
		delete(h.byID, s.id)
	}
	h.mu.Unlock()
	s.mu.Lock()
	for ino := range s.dirty {
		s.undirty(ino)
	}
	s.mu.Unlock()
}

// removeFolder removes what a space has on the disk. Its spaceFile goes first, durably: without it a start goes on with that, and
// with it all else must be there.
func (h *Home) removeFolder(dir string) error {
	d := h.opt.Disk
	if err := d.Remove(dir + "/" + spaceFile); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if err := d.SyncDir(dir); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	crashpoint.Here(crashpoint.SpaceMarkOff)
	return d.RemoveAll(dir)
}

// dropSpace takes back a space that no entry of the root names. Nothing was ever in it.
func (h *Home) dropSpace(s *space) error {
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	h.forgetSpace(s)
	return errors.Join(s.close(), h.removeFolder(s.dir))
}

// deletingFile marks a space that is being deleted: without an entry in the root its folder goes at the next start.
const deletingFile = "deleting"

// tidySpaces ends what a crash interrupted: the creation of a space whose entry was not recorded yet, and the deletion of one
// whose entry went. A space with content that has no entry, after the crash of an import or damage to the home space, gets one.
func (h *Home) tidySpaces(ctx context.Context) error {
	if h.home == nil || h.home.sick != nil {
		return nil
	}
	if err := h.settleTwins(); err != nil {
		return err
	}
	named := map[*space]bool{}
	var strangers []dag.ID // the spaces of entries that stand for none which is here
	home := h.home
	home.mu.Lock()
	var inos []uint64
	err := home.ix.Scan(rootDir, 0, func(_ uint64, e *index.Entry) bool {
		inos = append(inos, e.Ino)
		return true
	})
	for _, ino := range inos {
		n, e := home.ix.Inode(ino)
		if e != nil || n == nil {
			err = errors.Join(err, e, ErrStale)
			continue
		}
		if s, e := h.entrySpace(n); e == nil {
			named[s] = true
		} else if ref, ok := entryRef(n); ok {
			strangers = append(strangers, ref.id)
		}
	}
	home.mu.Unlock()
	if err != nil {
		return nil // the root can't be read whole: nothing is judged by it
	}
	for _, s := range h.all() {
		if errors.Is(s.sick, errUnfinished) && len(strangers) == 0 {
			if err := h.dropSpace(s); err != nil {
				return err
			}
		}
	}
	h.recognize(strangers)
	for _, id := range strangers {
		if h.spaceOf(id) == nil && !home.in.due { // else it is one that another device made
			h.report(fmt.Sprintf("space %s", id), errors.New("it is not on this device any more"))
		}
	}
	for _, s := range h.all() {
		if s == home || s.sick != nil && s.id.IsZero() {
			continue
		}
		_, err := h.opt.Disk.ReadFile(s.dir + "/" + deletingFile)
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
		deleting := err == nil
		switch {
		case named[s]:
			if deleting {
				if err := h.opt.Disk.Remove(s.dir + "/" + deletingFile); err != nil {
					return err
				}
			}
		case deleting || s.sick == nil && s.untouched():
			if err := h.dropSpace(s); err != nil {
				return err
			}
		case s.sick == nil:
			if err := h.nameAgain(s, s.as.name); err != nil {
				h.report(fmt.Sprintf("space %s has no name, and gets none", s.id), err) // the next start tries again
			}
		}
	}
	return nil
}

// settleTwins chooses between two folders of one space, of which the newer was to take the place of the older when a crash came. It does
// where nothing was ever made in the older, or the deletion of that had begun; else nobody was told that it had, and it goes.
func (h *Home) settleTwins() error {
	for _, s := range h.all() {
		newer := h.spaceOf(s.id)
		if newer == nil || newer.slot <= s.slot || s.sick != nil || s.untouched() {
			continue
		}
		if _, err := h.opt.Disk.ReadFile(s.dir + "/" + deletingFile); err == nil {
			continue
		} else if !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
		h.mu.Lock()
		h.byID[s.id] = s
		h.mu.Unlock()
		if newer.sick == nil {
			if err := h.dropSpace(newer); err != nil {
				return err
			}
		}
	}
	return nil
}

// nameAgain gives a space that has no entry one of the given name, or where that is taken of another.
func (h *Home) nameAgain(s *space, name string) error {
	ref := spaceRef{s.id, s.as.label}
	var err error = ErrExist
	if checkName(name) == nil {
		err = h.enterSpace(name, ref)
	}
	base := "Recovered " + s.id.String()[len(s.id.String())-8:]
	for n := 1; errors.Is(err, ErrExist) && n < 100; n++ {
		name = base
		if n > 1 {
			name = fmt.Sprintf("%s %d", base, n)
		}
		if err = h.enterSpace(name, ref); err == nil {
			h.report(fmt.Sprintf("space %s", s.id), fmt.Errorf("it had no name; it is %q now", name))
		}
	}
	return err
}

// nameBeside gives a space whose entry is one with that of another space a name of its own beside that. Under spaceMu.
func (h *Home) nameBeside(s *space, name string) error {
	for n := 2; n < 100 && checkName(name) == nil; n++ {
		as := fmt.Sprintf("%s %d", name, n)
		if checkName(as) != nil {
			break
		}
		err := h.enterSpace(as, spaceRef{s.id, s.as.label})
		if !errors.Is(err, ErrExist) {
			return err
		}
	}
	return h.nameAgain(s, "")
}

// untouched reports whether nothing was ever made in a space.
func (s *space) untouched() bool {
	batches, _, _ := s.graph.Counters()
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.ix.Inode(rootDir)
	return batches == 0 && err == nil && root != nil && root.Entries == 0 && len(s.dirty) == 0
}
