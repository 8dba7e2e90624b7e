package fs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
)

// Device is a device of the account.
type Device struct {
	Key     dag.PublicKey
	Name    string // as the device calls itself; empty where that is not known
	Revoked bool
}

// ErrThisDevice says that a device is not to be revoked on itself.
var ErrThisDevice = errors.New("this is the device that you are on")

// SpaceRevocation is what became of the revocation of a device in one space.
type SpaceRevocation struct {
	ID   dag.ID
	Name string // in the root; empty of the home space
	Err  error
}

// Devices are the devices of the account, this one and revoked ones among them, as far as its spaces know of them: by name.
func (h *Home) Devices() []Device {
	all := map[dag.PublicKey]*Device{}
	note := func(s *space, key dag.PublicKey) *Device {
		d := all[key]
		if d == nil {
			d = &Device{Key: key}
			all[key] = d
		}
		if d.Name == "" {
			d.Name, _ = s.acl.DeviceName(key)
		}
		return d
	}
	for _, s := range h.each() { // the home space first
		st := s.acl.List().State()
		if m, ok := st.Member(h.keys.Identity); ok {
			for i := range m.Devices {
				note(s, m.Devices[i].Device)
			}
		}
		for _, r := range s.acl.Revocations() {
			note(s, r.Device).Revoked = true
		}
	}
	out := make([]Device, 0, len(all))
	for _, d := range all {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Key[:], b.Key[:])) })
	return out
}

// Revoked says whether this device was revoked by its account.
func (h *Home) Revoked() bool {
	return slices.ContainsFunc(h.each(), func(s *space) bool { return s.acl.Revoked() })
}

// revocations are all that the spaces of this home have of the account's devices.
func (h *Home) revocations() []acl.Revocation {
	seen := map[dag.PublicKey]bool{}
	var out []acl.Revocation
	for _, s := range h.each() {
		for _, r := range s.acl.Revocations() {
			if !seen[r.Device] {
				seen[r.Device] = true
				out = append(out, r)
			}
		}
	}
	return out
}

// RevokeDevice takes a device from the account, for good, in every space that is on this device; in those that come later it is done when
// they are healed. It takes the account's secret, unless a space knows of the revocation already.
func (h *Home) RevokeDevice(device dag.PublicKey) ([]SpaceRevocation, error) {
	if device == h.keys.Device.PublicKey() {
		return nil, ErrThisDevice
	}
	known := h.revocations()
	at := slices.IndexFunc(known, func(r acl.Revocation) bool { return r.Device == device })
	switch {
	case at >= 0:
		return h.spread(known[at : at+1]), nil
	case h.keys.Account == nil:
		return nil, acl.ErrNoSecret
	}
	return h.spread([]acl.Revocation{h.keys.Account.Revoke(device)}), nil
}

// spread brings revocations into the spaces that lack them, the home space first. It tells of those alone.
func (h *Home) spread(revoked []acl.Revocation) (out []SpaceRevocation) {
	if len(revoked) == 0 {
		return nil
	}
	for _, s := range h.each() {
		st := s.acl.List().State()
		if s.deleted() || st.Unknown || !st.HasDevice(h.keys.Identity, h.keys.Device.PublicKey()) {
			continue
		}
		x := SpaceRevocation{ID: s.id}
		wrote := false
		for _, r := range revoked {
			if st.Revoked(h.keys.Identity, r.Device) || r.Device == h.keys.Device.PublicKey() {
				continue
			}
			wrote = true
			tips := s.tipsBy(func(d dag.PublicKey) bool { return d == r.Device })
			x.Err = errors.Join(x.Err, s.acl.RevokeDevice(r, tips, h.opt.Rand))
		}
		if !wrote {
			continue
		}
		x.Err = errors.Join(x.Err, s.recorded(nil))
		if s != h.home {
			x.Name, _ = h.nameOf(s)
		}
		if x.Err != nil {
			x.Err = fmt.Errorf("the device is not revoked there yet, and is when this is tried again: %w", x.Err)
		}
		out = append(out, x)
	}
	return out
}

// Secrets are what a device without the account's secret takes to open the spaces that are here and whose member the account is.
func (h *Home) Secrets() ([]acl.SpaceSecret, error) {
	var out []acl.SpaceSecret
	for _, s := range h.each() {
		if s.deleted() || s.acl.Role() == acl.RoleNone || !s.acl.HasKey() {
			continue
		}
		label := s.as.label
		if s == h.home {
			label = labelHome
		}
		secret, err := s.acl.Secret(label)
		if err != nil {
			return nil, fmt.Errorf("space %s: %w", s.id, err)
		}
		out = append(out, secret)
	}
	return out, nil
}

// admitAfter is for how long a device of the account is left to enter a space by itself, as those do that can: many would bring it in at once.
const admitAfter = time.Minute

// absentDevices is since when a device of the account is known to be missing in a space.
type absentDevices struct {
	mu    sync.Mutex
	since map[absentDevice]time.Time
}

type absentDevice struct {
	space  dag.ID
	device dag.PublicKey
}

// admitDevices brings the account's devices, as the home space has them, into a space where they are not: a device that was paired by a code
// can't open what another made. The only device in a space, which made it or joined by itself, does so at once. Those that were
// revoked anywhere are left out. It reports whether it wrote anything.
func (h *Home) admitDevices(s *space, revoked []acl.Revocation) (wrote bool, err error) {
	if s == h.home || s.acl.Role() == acl.RoleNone {
		return false, nil
	}
	own, _ := h.home.acl.List().State().Member(h.keys.Identity)
	in, _ := s.acl.List().State().Member(h.keys.Identity)
	h.absent.mu.Lock()
	defer h.absent.mu.Unlock()
	if h.absent.since == nil {
		h.absent.since = map[absentDevice]time.Time{}
	}
	now := h.opt.Clock()
	for i := range own.Devices {
		d := &own.Devices[i]
		if slices.ContainsFunc(revoked, func(r acl.Revocation) bool { return r.Device == d.Device }) {
			continue
		}
		at := absentDevice{s.id, d.Device}
		if _, ok := in.Device(d.Device); ok {
			delete(h.absent.since, at)
			continue
		}
		since, known := h.absent.since[at]
		if !known {
			since = now
			h.absent.since[at] = now
		}
		if len(in.Devices) > 1 && now.Sub(since) < admitAfter {
			continue
		}
		name, _ := h.home.acl.DeviceName(d.Device)
		some, err := s.acl.AdmitDevice(&d.Certificate, name, h.opt.Rand)
		wrote = wrote || some
		if err != nil && !errors.Is(err, acl.ErrDenied) { // it was revoked there, or there are too many
			return wrote, err
		}
	}
	return wrote, nil
}
