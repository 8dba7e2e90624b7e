package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/crashpoint"
)

// How a space comes into being on this device: made, derived, or filled by an import.

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
	s.as = as
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
	if home.rights.readOnly.Load() {
		return SpaceInfo{}, fmt.Errorf("make a space: %w", ErrReadOnly)
	}
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
	h.spacesChanged()
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
		return w, func(m *mutation) error {
			err := home.applyCreate(m.seq, r)
			if err == nil {
				home.happened(EventCreated, named{r.Ino, rootDir, name}, named{}, true)
			}
			return err
		}, nil
	})
}
