package list

import (
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// maxDevices bounds the devices of one member.
const maxDevices = 1000

// needs is the role that a kind asks of its author. What else it asks is in allows.
var needs = map[Kind]Role{
	KindRoot:      RoleOwner,
	KindAddDevice: RoleReader,
	KindRotateKey: RoleWriter,
	KindOptions:   RoleAdmin,
}

// allows judges a record (nil in a batch that only joins) by s, the state of its own past. It returns an ErrDenied that
// says why not.
func (s *State) allows(b *dag.Batch, rec *Record) error {
	if s.Unknown {
		return ErrUnknown
	}
	if rec == nil {
		rec = &Record{}
	}
	role, ok := needs[rec.Kind]
	if !ok {
		role = RoleReader // records of an unknown kind, and joins, are for members alone
	}
	if have := s.Role(b.Account); have < role {
		return fmt.Errorf("%w: a record of kind %d asks for a %s, %s is %s", ErrDenied, rec.Kind, role, FormatIdentity(b.Account), have)
	}
	certified := s.HasDevice(b.Account, b.Device)
	if rec.Kind == KindAddDevice {
		return s.allowsDevice(b, rec.AddDevice, certified)
	}
	if !certified {
		return fmt.Errorf("%w: device %s has no certificate in the past of the record", ErrDenied, PeerID(b.Device))
	}
	switch rec.Kind {
	case KindRoot:
		if b.Clock != 1 || s.Root.Kind != RootRandom {
			return fmt.Errorf("%w: a root record that is not the first", ErrDenied)
		}
	case KindRotateKey:
		return s.allowsEpoch(rec.RotateKey)
	}
	return nil
}

// allowsDevice: a device of the author's own account, brought in by itself or by one that is in already.
func (s *State) allowsDevice(b *dag.Batch, d *AddDevice, certified bool) error {
	c := &d.Certificate
	switch {
	case c.Account != b.Account:
		return fmt.Errorf("%w: a device of another account", ErrDenied)
	case !certified && c.Device != b.Device:
		return fmt.Errorf("%w: device %s has no certificate in the past of the record", ErrDenied, PeerID(b.Device))
	case s.epochs[d.Epoch] == nil:
		return fmt.Errorf("%w: a device's name sealed in an unknown epoch", ErrDenied)
	case len(d.Wraps) > 1 || len(d.Wraps) == 1 && d.Wraps[0].To != c.Device:
		return fmt.Errorf("%w: a device's record wraps keys to others", ErrDenied)
	}
	m := s.members[b.Account]
	if old, ok := m.Device(c.Device); ok && old.Serial >= c.Serial {
		return fmt.Errorf("%w: the device is in the space already", ErrDenied)
	} else if !ok && len(m.Devices) >= maxDevices {
		return fmt.Errorf("%w: an account has at most %d devices in a space", ErrDenied, maxDevices)
	}
	return c.Verify()
}

// allowsEpoch: an epoch follows known ones and is wrapped to members and their devices only.
func (s *State) allowsEpoch(k *RotateKey) error {
	if len(k.Follows) == 0 || slices.ContainsFunc(k.Follows, func(f Follow) bool { return s.epochs[f.Epoch] == nil }) {
		return fmt.Errorf("%w: an epoch that follows none, or an unknown one", ErrDenied)
	}
	recipients := make(map[dag.PublicKey]bool)
	for _, m := range s.members {
		recipients[m.Account] = true
		for i := range m.Devices {
			recipients[m.Devices[i].Device] = true
		}
	}
	for i := range k.Wraps {
		if !recipients[k.Wraps[i].To] {
			return fmt.Errorf("%w: an epoch's key wrapped to a stranger", ErrDenied)
		}
	}
	return nil
}

// allowsFiles judges a batch of files by s, the state of what its access heads name.
func (s *State) allowsFiles(b *dag.Batch) error {
	switch {
	case s.Unknown:
		return ErrUnknown
	case s.Role(b.Account) < RoleWriter:
		return fmt.Errorf("%w: %s is %s, not writer", ErrDenied, FormatIdentity(b.Account), s.Role(b.Account))
	case !s.HasDevice(b.Account, b.Device):
		return fmt.Errorf("%w: device %s has no certificate in the past of the batch", ErrDenied, PeerID(b.Device))
	case s.epochs[b.Epoch] == nil:
		return fmt.Errorf("%w: sealed in an unknown epoch", ErrDenied)
	}
	return nil
}
