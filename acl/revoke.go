package acl

import (
	"errors"
	"fmt"
	"io"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
)

// ErrRevoked says that this device was revoked by its account.
var ErrRevoked = errors.New("acl: this device was revoked; what it wrote and has not sent stays here, and nothing comes or goes any more")

// Revocation is an account's word that a device is no more one of its devices. It is the same in every space.
type Revocation struct {
	Device    dag.PublicKey
	Signature [64]byte
}

// Revoke signs that a device is no more one of the account's.
func (a *Account) Revoke(device dag.PublicKey) Revocation {
	return Revocation{device, list.SignRevocation(a.identity, device)}
}

// RevokeDevice brings a revocation by this device's account into the space. Where the account may write, and the device was in, an epoch
// begins that the device has no key of; else the next who publishes begins one. tips are the last batches of the device that are here. A
// device that is revoked already is left as it is.
func (s *Space) RevokeDevice(r Revocation, tips []dag.ID, rnd io.Reader) error {
	st := s.list.State()
	if st.Revoked(s.k.Identity, r.Device) {
		return nil
	}
	rec := &list.RevokeDevice{Signature: r.Signature, Tips: tips, Device: r.Device}
	if st.Role(s.k.Identity) >= RoleWriter && st.HasDevice(s.k.Identity, r.Device) {
		var err error
		if rec.Next, err = s.nextEpoch(r.Device, dag.ID{}, rnd); err != nil {
			return fmt.Errorf("acl: revoke a device: %w", err)
		}
	}
	_, err := s.write(&list.Record{Kind: list.KindRevokeDevice, RevokeDevice: rec})
	return err
}

// Revocations are those of this device's account.
func (s *Space) Revocations() (out []Revocation) {
	st := s.list.State()
	for _, d := range st.RevokedDevices(s.k.Identity) {
		sig, _ := st.Revocation(s.k.Identity, d)
		out = append(out, Revocation{d, sig})
	}
	return out
}

// Revoked says whether this device was revoked.
func (s *Space) Revoked() bool {
	return s.list.State().Revoked(s.k.Identity, s.k.Device.PublicKey())
}

// MayWrite says whether this device may write by the access list, whether it has a key or not.
func (s *Space) MayWrite() bool { return s.Role() >= RoleWriter && !s.Revoked() }
