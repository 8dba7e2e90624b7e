package fs

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/fs/index"
)

// Labels of the derived spaces, and the name that the second one gets.
const (
	labelHome     = "home"
	labelPersonal = "personal"
	PersonalName  = "Personal"
)

// spaceXattr is the internal attribute of an entry of the root that says which space it stands for.
const spaceXattr = ".space"

// spaceRef is the value of spaceXattr.
type spaceRef struct {
	id    dag.ID
	label string // of a derived space
}

func (r spaceRef) encode() []byte { return append(append([]byte{1}, r.id[:]...), r.label...) }

func parseSpaceRef(b []byte) (r spaceRef, ok bool) {
	if len(b) < 33 || b[0] != 1 {
		return r, false
	}
	copy(r.id[:], b[1:])
	r.label = string(b[33:])
	return r, true
}

// spaceIdentity is what the spaceFile says of a space besides its id: its label, if it is derived, and the name that it was made
// under, which counts where a crash came before its entry in the root.
type spaceIdentity struct{ label, name string }

func (i spaceIdentity) encode(id dag.ID) []byte {
	return append(append(append(id[:], i.label...), 0), i.name...)
}

// decodeSpaceFile reads what encode gives, or an id alone.
func decodeSpaceFile(b []byte) (id dag.ID, as spaceIdentity, ok bool) {
	if len(b) < len(id) {
		return id, as, false
	}
	rest := string(b[copy(id[:], b):])
	if rest == "" {
		return id, as, true
	}
	as.label, as.name, ok = strings.Cut(rest, "\x00")
	return id, as, ok
}

// SpaceInfo describes a space.
type SpaceInfo struct {
	Slot    uint16 `json:"-"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	State   string `json:"state"`
	Objects int64  `json:"objects"`

	Problem string `json:"problem,omitempty"` // why it is damaged, or not on this device

	PendingChanges int   `json:"pending_changes"`
	PendingBlocks  int   `json:"pending_blocks"`
	Conflicts      int   `json:"conflicts"`
	BlockBytes     int64 `json:"-"`
	DiskBytes      int64 `json:"-"`
}

// makeHomeSpace makes the home space of an account on this device.
func (h *Home) makeHomeSpace(ctx context.Context) error {
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	// Its slot is 0 also where an attempt before was cut short: no other space ever gets that.
	s, err := h.newSpace(ctx, 0, spaceIdentity{label: labelHome}, func(st dag.Store) (*acl.Space, error) {
		return acl.DeriveSpace(h.keys, labelHome, st, h.opt.Rand)
	}, nil)
	if err == nil {
		s.named()
	}
	return err
}

// newSpace makes the folder of a space in a slot. One that is here already, and in which nothing was ever made, gives way to it.
// Under spaceMu.
func (h *Home) newSpace(ctx context.Context, slot uint16, as spaceIdentity, make func(dag.Store) (*acl.Space, error), fill func(*space) error) (*space, error) {
	if slot == noSlot {
		return nil, fmt.Errorf("%w: too many spaces were made on this device", ErrNoSpace)
	}
	dir := spaceDir(slot)
	d := h.opt.Disk
	next := h.local.SealLocal(nil, binary.BigEndian.AppendUint16(nil, max(h.next, slot+1)), []byte(nextFile))
	if err := d.WriteFileAtomic(nextFile, next); err != nil {
		return nil, fmt.Errorf("make space: %w", err)
	}
	crashpoint.Here(crashpoint.SpaceNumber)
	s, err := h.openSpace(ctx, slot, dag.ID{}, make)
	if err != nil {
		return nil, errors.Join(err, h.removeFolder(dir))
	}
	abandon := func(err error) (*space, error) {
		return nil, errors.Join(err, s.close(), h.removeFolder(dir))
	}
	twin := h.spaceOf(s.id)
	if twin != nil {
		if err := twin.usable(); err != nil {
			return abandon(fmt.Errorf("%w: the space is here already, and is to be deleted first: %w", ErrExist, err))
		}
		if !twin.untouched() {
			return abandon(h.hereAlready(twin))
		}
	}
	if err := s.openGraph(); err != nil {
		return abandon(err)
	}
	s.mu.Lock()
	s.makeRoot(h.now())
	// The first record that can concern the space comes behind all there are: nothing of it is to be replayed yet.
	s.last = h.jr.Next() - 1
	s.passing = true
	s.mu.Unlock()
	if fill != nil {
		if err := fill(s); err != nil {
			return abandon(err)
		}
	}
	if err := s.checkpoint(ctx, true); err != nil {
		return abandon(err)
	}
	crashpoint.Here(crashpoint.SpaceMade)
	if err := d.WriteFileAtomic(dir+"/"+spaceFile, h.local.SealLocal(nil, as.encode(s.id), []byte(dir))); err != nil {
		return abandon(err)
	}
	if err := d.SyncDir(spacesDir); err != nil {
		return abandon(err)
	}
	if twin != nil {
		// A crash before the twin is gone leaves two folders of one space, and the next start goes on with the newer; one after
		// it leaves a space without a name, which the next start gives it.
		if err := h.replaceTwin(twin); err != nil {
			return abandon(err)
		}
	}
	crashpoint.Here(crashpoint.SpaceWhole)
	h.mu.Lock()
	h.next = max(h.next, slot+1)
	h.mu.Unlock()
	h.addSpace(s)
	return s, nil
}

// spaceOf gives the space of an id, nil where it is not here.
func (h *Home) spaceOf(id dag.ID) *space {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.byID[id]
}

// replaceTwin deletes a space in which nothing was ever made. Under spaceMu.
func (h *Home) replaceTwin(twin *space) error {
	name, err := h.nameOf(twin)
	if err != nil {
		return err
	}
	if !twin.untouched() { // it was, before the other was filled
		return h.hereAlready(twin)
	}
	return h.removeSpaceLocked(name, true)
}

// TakenError says why a space cannot be made: another has its name, or it is here itself. It matches ErrExist.
type TakenError struct {
	Name string // of the space that is in the way
	Here bool   // it is the same space
}

func (e *TakenError) Error() string {
	if e.Here {
		return fmt.Sprintf("this space is on this device already, as %q", e.Name)
	}
	return fmt.Sprintf("there is a space %q already", e.Name)
}

func (e *TakenError) Unwrap() error { return ErrExist }

func (h *Home) hereAlready(s *space) error {
	name, err := h.nameOf(s)
	return errors.Join(&TakenError{Name: name, Here: true}, err)
}

// nameOf gives the name of a space in the root.
func (h *Home) nameOf(s *space) (string, error) {
	infos, err := h.Spaces()
	if err != nil {
		return "", err
	}
	for _, i := range infos {
		if i.ID == s.id.String() {
			return i.Name, nil
		}
	}
	return "", ErrNotExist
}

// CreateSpace makes a space and puts it into the root of the home.
func (h *Home) CreateSpace(name string) (SpaceInfo, error) {
	return h.createSpace(name, "", dag.ID{}, func(st dag.Store) (*acl.Space, error) {
		return acl.CreateSpace(h.keys, st, h.opt.Rand)
	}, nil)
}

// CreatePersonal makes the account's derived space, which two devices that make it apart share; it is there already on a
// device that made it before.
func (h *Home) CreatePersonal() (SpaceInfo, error) {
	if i, err := h.Space(PersonalName); err == nil {
		return i, nil
	}
	return h.createSpace(PersonalName, labelPersonal, dag.ID{}, func(st dag.Store) (*acl.Space, error) {
		return acl.DeriveSpace(h.keys, labelPersonal, st, h.opt.Rand)
	}, nil)
}

// createSpace makes a space that open makes the access list of; fill, if not nil, fills it before anyone sees it. Its name may
// be that of the space twin, if it is the one that it replaces.
func (h *Home) createSpace(name, label string, twin dag.ID, open func(dag.Store) (*acl.Space, error), fill func(*space) error) (SpaceInfo, error) {
	if err := checkName(name); err != nil {
		return SpaceInfo{}, err
	}
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	if err := h.failed(); err != nil {
		return SpaceInfo{}, err
	}
	home := h.home
	home.mu.Lock()
	e, _, err := home.lookup(rootDir, name)
	home.mu.Unlock()
	if err != nil {
		return SpaceInfo{}, err
	}
	if e != nil {
		if s, err := h.namedSpace(name); err != nil || s.id != twin {
			return SpaceInfo{}, &TakenError{Name: name}
		}
	}
	as := spaceIdentity{label: label, name: name}
	s, err := h.newSpace(context.Background(), max(h.next, 1), as, open, fill)
	if err != nil {
		return SpaceInfo{}, err
	}
	if err := h.enterSpace(name, spaceRef{s.id, label}); err != nil {
		if h.fail.Load() != nil {
			return SpaceInfo{}, err // whether the journal holds its name is not known: the next start sees, and gives it one
		}
		return SpaceInfo{}, errors.Join(err, h.dropSpace(s))
	}
	s.named()
	return h.Space(name)
}

// named says that the space stays.
func (s *space) named() {
	s.mu.Lock()
	s.passing = false
	s.mu.Unlock()
}

// enterSpace makes the entry of a space in the root of the home.
func (h *Home) enterSpace(name string, ref spaceRef) error {
	home := h.home
	return home.do(false, func() (*writer, func(*mutation) error, error) {
		d, err := home.liveDir(rootDir)
		if err != nil {
			return nil, nil, err
		}
		e, _, err := home.lookup(rootDir, name)
		if err != nil {
			return nil, nil, err
		}
		if e != nil {
			return nil, nil, ErrExist
		}
		r := home.newInode(d, name, dirMode|0755, 0, Cred{h.opt.UID, h.opt.GID}, h.now())
		r.Xattr, r.Value = spaceXattr, ref.encode()
		w := home.record(recCreate)
		r.encode(w)
		return w, func(m *mutation) error { return home.applyCreate(m.seq, r) }, nil
	})
}

const dirMode = 0040000

// entryRef says which space an entry of the root stands for.
func entryRef(n *index.Inode) (spaceRef, bool) {
	v, _ := n.Xattr(spaceXattr)
	return parseSpaceRef(v)
}

// entrySpace gives the space that an entry of the root stands for, which may be sick.
func (h *Home) entrySpace(n *index.Inode) (*space, error) {
	ref, ok := entryRef(n)
	if !ok {
		return nil, fmt.Errorf("%w: entry %d of the root stands for no space", ErrIO, n.Ino)
	}
	h.mu.RLock()
	s := h.byID[ref.id]
	h.mu.RUnlock()
	if s == nil {
		err := fmt.Errorf("%w: space %s is not on this device", ErrIO, ref.id)
		if sick := h.unknownSick(); sick != nil {
			err = fmt.Errorf("%w, or is one that is damaged: %w", err, sick)
		}
		return nil, err
	}
	return s, nil
}

// spaceAttr is what stat shows of an entry of the root: the root directory of its space.
func (h *Home) spaceAttr(n *index.Inode) (Attr, error) {
	s, err := h.entrySpace(n)
	if err == nil {
		err = s.usable()
	}
	if err != nil {
		return Attr{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.inode(rootDir)
	if err != nil {
		return Attr{}, err
	}
	return s.attr(root), nil
}

// namedSpace finds a space by its name in the root. One that is sick can't be used.
func (h *Home) namedSpace(name string) (*space, error) {
	s, err := h.spaceNamed(name)
	if err == nil {
		err = s.usable()
	}
	return s, err
}

// spaceNamed is namedSpace of one that may be sick.
func (h *Home) spaceNamed(name string) (*space, error) {
	home := h.home
	home.mu.Lock()
	e, _, err := home.lookup(rootDir, name)
	var n *index.Inode
	if err == nil && e != nil {
		n, err = home.inode(e.Ino)
	}
	home.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, fmt.Errorf("space %q: %w", name, ErrNotExist)
	}
	return h.entrySpace(n)
}

// SpaceRoot gives the root directory of a space.
func (h *Home) SpaceRoot(name string) (Ino, error) {
	s, err := h.namedSpace(name)
	if err != nil {
		return 0, err
	}
	return s.ino(rootDir), nil
}

// Space describes a space.
func (h *Home) Space(name string) (SpaceInfo, error) {
	s, err := h.spaceNamed(name)
	switch {
	case err == nil:
		return s.info(name), nil
	case !errors.Is(err, ErrIO):
		return SpaceInfo{}, err
	}
	i := SpaceInfo{Name: name, State: "unavailable", Problem: err.Error()}
	if h.unknownSick() != nil {
		i.State = stateDamaged
	}
	return i, nil
}

// Spaces describes all spaces, in the order of the root's listing. One whose folder is gone, which only damage explains, is among
// them as unavailable, though no listing shows it.
func (h *Home) Spaces() ([]SpaceInfo, error) {
	home := h.home
	var entries []SpaceInfo
	home.mu.Lock()
	err := home.ix.Scan(rootDir, 0, func(_ uint64, e *index.Entry) bool {
		i := SpaceInfo{Name: e.Name}
		if n, err := home.ix.Inode(e.Ino); err == nil && n != nil {
			if ref, ok := entryRef(n); ok {
				i.ID = ref.id.String()
			}
		}
		entries = append(entries, i)
		return true
	})
	home.mu.Unlock()
	if err != nil {
		return nil, home.damaged(err)
	}
	out := make([]SpaceInfo, 0, len(entries))
	for _, e := range entries {
		i, err := h.Space(e.Name)
		if errors.Is(err, ErrNotExist) {
			continue // it was renamed or deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		i.ID = cmp.Or(i.ID, e.ID)
		out = append(out, i)
	}
	return out, nil
}

func (s *space) info(name string) SpaceInfo {
	if s.sick != nil {
		i := SpaceInfo{Slot: s.slot, Name: name, State: stateDamaged, Problem: s.sick.Error()}
		if !s.id.IsZero() {
			i.ID = s.id.String()
		}
		return i
	}
	i := SpaceInfo{Slot: s.slot, ID: s.id.String(), Name: name, Role: s.acl.Role().String(), State: "local"}
	i.BlockBytes, i.DiskBytes = s.blocks.Bytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	for ino := range s.dirty {
		n, err := s.ix.Inode(ino)
		if err != nil || n == nil || !n.Dirty() || nameless(n) {
			continue
		}
		i.PendingChanges++
		if n.Ext != nil {
			i.PendingBlocks++
		}
	}
	if s.pubErr != nil {
		i.State = "error"
	}
	i.Objects = s.objects
	return i
}

// RenameSpace gives a space another name. It never replaces one.
func (h *Home) RenameSpace(old, name string) error { return h.renameSpace(old, name, RenameNoReplace) }

func (h *Home) renameSpace(old, name string, flags uint32) error {
	if err := checkName(name); err != nil {
		return err
	}
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	home := h.home
	err := home.do(false, func() (*writer, func(*mutation) error, error) {
		r, replaced, noop, err := home.planRename(rootDir, old, rootDir, name, RenameNoReplace)
		if err != nil || noop {
			return nil, nil, err
		}
		_ = replaced // none: RenameNoReplace
		w := home.record(recRename)
		r.encode(w)
		return w, func(m *mutation) error { return home.applyRename(m.seq, r) }, nil
	})
	if errors.Is(err, ErrExist) && flags&RenameNoReplace == 0 {
		err = ErrNotEmpty // what rename(2) says of a directory that can't be replaced
	}
	return err
}

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
			if root, err = s.inode(rootDir); err == nil && root.Entries > 0 {
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
	home := h.home
	err = home.do(true, func() (*writer, func(*mutation) error, error) {
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
			home.reclaim(ino)
			return nil
		}, nil
	})
	if err != nil {
		if h.fail.Load() == nil { // else whether the journal holds the removal is not known
			err = errors.Join(err, h.opt.Disk.Remove(mark))
		}
		return back(err)
	}
	// The entry's removal is durable before the folder goes: a crash between the two must not leave a name without its space.
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
		h.report(fmt.Errorf("delete space: %w", err)) // what is left goes at the next start
	}
	return nil
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
		switch {
		case !errors.Is(s.sick, errUnfinished):
		case len(strangers) > 0:
			h.report(s.sick)
		default:
			if err := h.dropSpace(s); err != nil {
				return err
			}
		}
	}
	h.recognize(strangers)
	for _, id := range strangers {
		if h.spaceOf(id) == nil {
			h.report(fmt.Errorf("space %s is not on this device any more", id))
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
			if err := h.nameAgain(s); err != nil {
				h.report(fmt.Errorf("space %s has no name, and gets none: %w", s.id, err)) // the next start tries again
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

// nameAgain gives a space that has no entry the one that it was made for, or where its name is taken another.
func (h *Home) nameAgain(s *space) error {
	ref := spaceRef{s.id, s.as.label}
	var err error = ErrExist
	if checkName(s.as.name) == nil {
		err = h.enterSpace(s.as.name, ref)
	}
	base := "Recovered " + s.id.String()[len(s.id.String())-8:]
	for n := 1; errors.Is(err, ErrExist) && n < 100; n++ {
		name := base
		if n > 1 {
			name = fmt.Sprintf("%s %d", base, n)
		}
		if err = h.enterSpace(name, ref); err == nil {
			h.report(fmt.Errorf("space %s had no name; it is %q now", s.id, name))
		}
	}
	return err
}

// untouched reports whether nothing was ever made in a space.
func (s *space) untouched() bool {
	batches, _, _ := s.graph.Counters()
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.ix.Inode(rootDir)
	return batches == 0 && err == nil && root != nil && root.Entries == 0 && len(s.dirty) == 0
}
