package acl

import (
	"fmt"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
)

// Verify proves the space from its root on: the root makes the space's ID and is signed, each record is signed by a
// device that could write it by the records of its own past, and each read key here is the one its epoch committed to.
// It reads everything anew from the store, holds that against its index, and returns the first fault.
func (s *Space) Verify() error {
	if err := s.list.Verify(); err != nil {
		return err
	}
	if err := s.list.Graph().Verify(nil); err != nil {
		return err
	}
	for _, e := range s.list.State().Epochs() {
		if k, ok := s.keys.Key(e.ID); ok && !s.matches(&e, k) {
			return fmt.Errorf("acl: the key of epoch %s does not match its commitment", e.ID)
		}
	}
	return nil
}

// Export calls fn with the frame of each record of the list, those of a record's past before it. They hold the root.
func (s *Space) Export(fn func(frame []byte) error) error { return s.list.Export(fn) }

// ImportSpace brings the frames of a list, in the order that Export gave them, into st and opens the space. Each is
// judged as if a stranger had sent it; frames that st holds already are passed over. A device of a member that is not in
// the space is brought in, so that it can write there. All is durable when it returns.
func ImportSpace(k *Keys, id dag.ID, st dag.Store, frames func(yield func(frame []byte) error) error) (*Space, error) {
	l, err := list.Open(id, st)
	if err != nil {
		return nil, err
	}
	if err := frames(l.Import); err != nil {
		return nil, err
	}
	if l.State() == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoSpace, id)
	}
	s, err := opened(k, l, nil)
	if err != nil {
		return nil, err
	}
	if other := s.OneToOne(); other != nil && k.Account != nil && s.Role() != RoleNone && !l.State().Unknown {
		if _, ok := k.agreedKey(l.Root()); !ok {
			return nil, fmt.Errorf("%w: space %s is not the one that this account and %s agree on", ErrDenied, id, FormatIdentity(other.Identity))
		}
		return BeginOneToOne(k, other, l.Root().Number, st, nil, k.Rand)
	}
	if s.Role() != RoleNone && !s.Epoch().IsZero() && !l.State().Unknown {
		if err := s.AddDevice(k.Rand); err != nil {
			return nil, err
		}
	}
	return s, st.Sync()
}
