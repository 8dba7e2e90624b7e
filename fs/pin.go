package fs

import (
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
)

// Pins. What is pinned, and all that is below a directory that is, now and later, is on this device as in a mirror, whatever the policy of the
// space says, and is not evicted. A pin is a setting of the device; it is of an object, and so goes with it where it is moved to.

// ErrTooManyPins is returned for the pin after the last.
var ErrTooManyPins = fmt.Errorf("%w: no more than %d pins in a space; pin the directory above", ErrNoSpace, maxPins)

// Pin pins what is at a path, or ends that; it returns by what it is pinned then.
func (h *Home) Pin(path string, yes bool) (PinState, error) {
	ino, err := h.PathIno(path)
	if err != nil {
		return NotPinned, err
	}
	return h.pin(ino, yes)
}

// PinState says why something is pinned.
type PinState string

// The pin states.
const (
	NotPinned   PinState = ""
	Pinned      PinState = "pinned"
	PinnedAbove PinState = "above" // a directory above it is pinned
)

func (h *Home) pin(ino Ino, yes bool) (PinState, error) {
	if isView(ino) {
		return NotPinned, ErrReadOnly
	}
	s, local, err := h.space(ino)
	if err != nil {
		return NotPinned, err
	}
	if s.slot == 0 {
		return NotPinned, ErrInvalid
	}
	if err := h.failed(); err != nil {
		return NotPinned, err
	}
	s.mu.Lock()
	n, err := s.inode(local)
	if err != nil {
		s.mu.Unlock()
		return NotPinned, err
	}
	object := n.Object
	s.mu.Unlock()
	if object.IsZero() {
		if !yes {
			return h.pinState(s, local)
		}
		if n, err = s.publishedInode(local); err != nil {
			return NotPinned, err
		}
		object = n.Object
	}
	s.mu.Lock()
	_, is := s.pins[object]
	full := len(s.pins) >= maxPins
	s.mu.Unlock()
	if is != yes {
		if yes && full {
			return NotPinned, ErrTooManyPins
		}
		value := []byte{}
		if !yes {
			value = nil
		}
		if err := s.tellDevice(keyPin+string(object[:]), value); err != nil {
			return NotPinned, err
		}
		s.mu.Lock()
		if s.pins == nil {
			s.pins = map[dag.ID]struct{}{}
		}
		if yes {
			s.pins[object] = struct{}{}
		} else {
			delete(s.pins, object)
		}
		s.mu.Unlock()
		s.wantAnew()
		h.kickEvictor()
	}
	return h.pinState(s, local)
}

func (h *Home) pinState(s *space, local uint64) (PinState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.inode(local)
	if err != nil {
		return NotPinned, err
	}
	self, above, err := s.pinned(n)
	switch {
	case self:
		return Pinned, err
	case above:
		return PinnedAbove, err
	}
	return NotPinned, err
}

// pinned reports whether an inode is pinned itself, and whether a directory above one of its names is. Under mu.
func (s *space) pinned(n *index.Inode) (self, above bool, err error) {
	if len(s.pins) == 0 {
		return false, false, nil
	}
	if !n.Object.IsZero() {
		_, self = s.pins[n.Object]
	}
	for i := range n.Links {
		if above {
			break
		}
		if above, err = s.pinnedDir(n.Links[i].Parent); err != nil {
			return self, above, err
		}
	}
	return self, above, nil
}

// pinnedDir reports whether a directory is pinned, or one above it.
func (s *space) pinnedDir(ino uint64) (bool, error) {
	for range maxDepth {
		n, err := s.ix.Inode(ino)
		if err != nil {
			return false, s.damaged(err)
		}
		if n == nil {
			return false, nil
		}
		if _, yes := s.pins[n.Object]; yes && !n.Object.IsZero() {
			return true, nil
		}
		for _, a := range n.Also { // other directories that it stands for
			if _, yes := s.pins[a.Object]; yes && a.Object != (dag.ID{}) {
				return true, nil
			}
		}
		if ino == rootDir {
			return false, nil
		}
		ino = n.Parent
	}
	return false, errors.New("fs: a directory is below itself")
}

// pinXattr is the value of the attribute user.anyfs.pin.
func (h *Home) pinXattr(s *space, local uint64) ([]byte, error) {
	state, err := h.pinState(s, local)
	switch {
	case err != nil:
		return nil, err
	case state == Pinned:
		return []byte("1"), nil
	case state == PinnedAbove:
		return []byte("above"), nil
	}
	return []byte("0"), nil
}

// setPinXattr pins or unpins by the attribute.
func (h *Home) setPinXattr(ino Ino, value []byte) error {
	switch string(value) {
	case "1":
		_, err := h.pin(ino, true)
		return err
	case "0":
		_, err := h.pin(ino, false)
		return err
	}
	return ErrInvalid
}
