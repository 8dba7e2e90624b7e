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
	KindShareKey:  RoleReader,
	KindLeave:     RoleReader,
	KindOptions:   RoleAdmin,

	KindRevokeDevice:   RoleReader,
	KindReplaceAccount: RoleReader,
	KindTransfer:       RoleOwner,

	KindInvite:       RoleAdmin,
	KindRevokeInvite: RoleAdmin,
	KindAccept:       RoleAdmin,
	KindDecline:      RoleAdmin,
	KindChangeRole:   RoleAdmin,
	KindRemove:       RoleAdmin,
	KindAgree:        RoleAdmin,
	KindAdopt:        RoleAdmin,

	// These are for who is no member yet.
	KindJoinRequest: RoleNone,
	KindJoin:        RoleNone,
	KindCancel:      RoleNone,
}

// doings are what records do, in words for people.
var doings = map[Kind]string{
	KindRoot: "making the space", KindAddDevice: "bringing a device in", KindRotateKey: "beginning new keys", KindShareKey: "sharing keys", KindLeave: "leaving",
	KindOptions: "setting options of the space", KindRevokeDevice: "revoking a device", KindReplaceAccount: "asking for an account to be replaced",
	KindTransfer: "giving the space away", KindInvite: "inviting", KindRevokeInvite: "revoking an invitation", KindAccept: "letting somebody in",
	KindDecline: "declining a request", KindChangeRole: "changing a role", KindRemove: "removing a member", KindAgree: "agreeing on keys", KindAdopt: "adopting",
}

func doing(k Kind) string {
	if text, ok := doings[k]; ok {
		return text
	}
	return fmt.Sprintf("a record of kind %d", k)
}

// needed is the role that a kind asks of its author. Records of an unknown kind, and joins of heads, are for members alone.
func needed(k Kind) Role {
	if role, ok := needs[k]; ok {
		return role
	}
	return RoleReader
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
	if err := s.allowsTwo(rec.Kind); err != nil {
		return err
	}
	role := needed(rec.Kind)
	if role == RoleNone {
		return s.allowsStranger(b, rec)
	}
	switch have := s.Role(b.Account); {
	case have == RoleNone:
		return fmt.Errorf("%w: %s takes a member, which %s is not", ErrDenied, doing(rec.Kind), FormatIdentity(b.Account))
	case have < role:
		return fmt.Errorf("%w: %s takes the role %s; that of %s is %s", ErrDenied, doing(rec.Kind), role, FormatIdentity(b.Account), have)
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
		return s.allowsEpoch(rec.RotateKey, dag.PublicKey{})
	}
	return s.allowsShare(b, rec)
}

// allowsDevice: a device of the author's own account, brought in by itself or by one that is in already.
func (s *State) allowsDevice(b *dag.Batch, d *AddDevice, certified bool) error {
	c := &d.Certificate
	switch {
	case c.Account != b.Account:
		return fmt.Errorf("%w: a device of another account", ErrDenied)
	case s.Revoked(c.Account, c.Device):
		return fmt.Errorf("%w: the device was revoked", ErrDenied)
	case !certified && c.Device != b.Device:
		return fmt.Errorf("%w: device %s has no certificate in the past of the record", ErrDenied, PeerID(b.Device))
	case s.epochs[d.Epoch] == nil:
		return fmt.Errorf("%w: a device's name sealed in an unknown epoch", ErrDenied)
	case len(d.Wraps) > 1 || len(d.Wraps) == 1 && d.Wraps[0].To != c.Device:
		return fmt.Errorf("%w: a device's record wraps keys to others", ErrDenied)
	}
	if c.Device != b.Device && s.another(b.Account, c.Device) {
		return fmt.Errorf("%w: the key is that of another account or of its device", ErrDenied)
	}
	m := s.members[b.Account]
	if old, ok := m.Device(c.Device); ok && old.Serial >= c.Serial {
		return fmt.Errorf("%w: the device is in the space already", ErrDenied)
	} else if !ok && len(m.Devices) >= maxDevices {
		return fmt.Errorf("%w: an account has at most %d devices in a space", ErrDenied, maxDevices)
	}
	return c.Verify()
}

// another says whether a key is known as an account's, or as the device of another account that is a member or asks to be one.
// A certificate is signed by the account alone, so it may name any key.
func (s *State) another(account, key dag.PublicKey) bool {
	if s.members[key] != nil {
		return true
	}
	if of, ok := s.devices[key]; ok && of != account {
		return true
	}
	return s.waits(key, account)
}

// allowsEpoch: an epoch follows known ones and is wrapped to members (but for one who goes), their devices and open
// invitations only.
func (s *State) allowsEpoch(k *RotateKey, but dag.PublicKey) error {
	if len(k.Follows) == 0 || slices.ContainsFunc(k.Follows, func(f Follow) bool { return s.epochs[f.Epoch] == nil }) {
		return fmt.Errorf("%w: an epoch that follows none, or an unknown one", ErrDenied)
	}
	if err := s.allowsAgreed(k.Agreed, but); err != nil {
		return err
	}
	return s.allowsWraps(k.Wraps, but)
}

func (s *State) allowsWraps(wraps []Wrap, but dag.PublicKey) error {
	if len(wraps) == 0 {
		return nil
	}
	if !slices.ContainsFunc(wraps, func(w Wrap) bool { return !s.receives(w.To, but) }) {
		return nil
	}
	// Two members may have one device, of which only one is found by it.
	recipients := make(map[dag.PublicKey]bool)
	for _, m := range s.members {
		if m.Account == but {
			continue
		}
		recipients[m.Account] = true
		for i := range m.Devices {
			recipients[m.Devices[i].Device] = true
		}
	}
	for _, i := range s.invites {
		if i.Open() && !i.Revoked() {
			recipients[i.Key] = true
		}
	}
	for i := range wraps {
		if !recipients[wraps[i].To] {
			return fmt.Errorf("%w: an epoch's key wrapped to a stranger", ErrDenied)
		}
	}
	return nil
}

// receives says whether a key is that of a member but one, or known to be of a device of such a member, or of an open invitation.
func (s *State) receives(key, but dag.PublicKey) bool {
	if s.members[key] != nil {
		return key != but
	}
	if of, ok := s.devices[key]; ok && of != but && s.HasDevice(of, key) {
		return true
	}
	return slices.ContainsFunc(s.keyed[key], func(id dag.ID) bool {
		i := s.invites[id]
		return i.Open() && !i.Revoked()
	})
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
	case s.Root.Kind == RootOneToOne && b.Epoch == s.Space:
		return fmt.Errorf("%w: sealed in the first epoch of a one-to-one space, which is for the names of devices alone", ErrDenied)
	}
	return nil
}
