package list

import (
	"crypto/ed25519"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

const domainRevocation = "anyfs/revocation/1\x00"

// RevokeDevice takes a device from its author's account, for good. The account's signature is of the device alone: who has it can bring
// it into every space that the account is in.
type RevokeDevice struct {
	Signature [64]byte   // by the account; see SignRevocation
	Next      *RotateKey // a new epoch; nil where the author may not write, or the device was not in
	Tips      []dag.ID   // the last batches of files of the device that still count
	Device    dag.PublicKey
}

func revocationText(account, device dag.PublicKey) []byte {
	return sum(domainRevocation, append(account[:], device[:]...))
}

// SignRevocation signs with an account's key that a device is no more one of the account's.
func SignRevocation(account ed25519.PrivateKey, device dag.PublicKey) [64]byte {
	of := dag.PublicKey(account.Public().(ed25519.PublicKey))
	return [64]byte(ed25519.Sign(account, revocationText(of, device)))
}

// revocation is a standing record that revoked a device.
type revocation struct {
	n      *node
	record *RevokeDevice
}

// ofDevice names a device as that of an account.
type ofDevice struct{ account, device dag.PublicKey }

// revocations are those of an account's device.
func (s *State) revocations(account, device dag.PublicKey) []revocation {
	return s.revoked[ofDevice{account, device}]
}

// Revoked says whether a device was revoked by the account.
func (s *State) Revoked(account, device dag.PublicKey) bool {
	return len(s.revocations(account, device)) > 0
}

// Revocation gives the account's signature by which a device was revoked.
func (s *State) Revocation(account, device dag.PublicKey) (sig [64]byte, ok bool) {
	if r := s.revocations(account, device); len(r) > 0 {
		return r[0].record.Signature, true
	}
	return sig, false
}

// RevokedDevices are the devices that an account has revoked, in order of their keys.
func (s *State) RevokedDevices(account dag.PublicKey) (out []dag.PublicKey) {
	for k := range s.revoked {
		if k.account == account {
			out = append(out, k.device)
		}
	}
	slices.SortFunc(out, func(a, b dag.PublicKey) int { return slices.Compare(a[:], b[:]) })
	return out
}

// allowsRevocation: any device of the account but that one itself may bring the account's signature.
func (s *State) allowsRevocation(b *dag.Batch, r *RevokeDevice, author Role) error {
	switch {
	case r.Device == b.Device:
		return denied("a device that revokes itself")
	case s.Revoked(b.Account, r.Device):
		return denied("the device is revoked already")
	case (r.Next != nil) != (author >= RoleWriter && s.HasDevice(b.Account, r.Device)):
		return denied("the revocation of a device that is in begins an epoch where its author may write, and no other does")
	case !ed25519.Verify(b.Account[:], revocationText(b.Account, r.Device), r.Signature[:]):
		return denied("the revocation of a device is not signed by its account")
	}
	if r.Next == nil {
		return nil
	}
	if slices.ContainsFunc(r.Next.Wraps, func(w Wrap) bool { return w.To == r.Device }) {
		return denied("an epoch's key wrapped to the device that is revoked")
	}
	for i := range r.Next.Agreed {
		w := &r.Next.Agreed[i]
		if by := s.agreed[w.Record]; by != nil && slices.ContainsFunc(by.slots(w), func(m AgreedMember) bool {
			return slices.ContainsFunc(m.Wraps, func(x Wrap) bool { return x.To == r.Device })
		}) {
			return denied("an epoch's key wrapped under one that the device which is revoked has")
		}
	}
	return s.allowsEpoch(r.Next, dag.PublicKey{})
}

// slots are the members of an agreement that an epoch's key is wrapped to.
func (a *Agreement) slots(w *AgreedWraps) (out []AgreedMember) {
	for i := range a.Members {
		if w.slot(i) != nil {
			out = append(out, a.Members[i])
		}
	}
	return out
}

// noteDevices notes, before anything is decided, which devices a record revokes, and which it brings: also where it does not stand,
// since keys may have been wrapped to them.
func (s *State) noteDevices(n *node) {
	switch rec := n.record; {
	case rec == nil:
	case rec.RevokeDevice != nil:
		k := ofDevice{n.account, rec.RevokeDevice.Device}
		s.revoked[k] = append(slices.Clip(s.revoked[k]), revocation{n, rec.RevokeDevice})
		s.revokers[n.account] = true
		s.ended = true
	case rec.AddDevice != nil:
		s.brought[ofDevice{n.account, rec.AddDevice.Certificate.Device}] = true
	case rec.Replace != nil:
		s.brought[ofDevice{rec.Replace.Keys.Identity, rec.Replace.Certificate.Device}] = true
	case rec.JoinRequest != nil, rec.Join != nil:
		s.brought[ofDevice{n.account, n.device}] = true
	}
}

// cut says whether the device that wrote a record was revoked beside it.
func (j *judge) cut(n *node) bool {
	return slices.ContainsFunc(j.s.revocations(n.account, n.device), func(r revocation) bool { return j.aside(r.n, n) })
}

// foldRevocation takes a device out.
func (s *State) foldRevocation(n *node) {
	if m := s.members[n.account]; m != nil {
		m.Devices = slices.DeleteFunc(m.Devices, func(d Device) bool { return d.Device == n.record.RevokeDevice.Device })
	}
}
