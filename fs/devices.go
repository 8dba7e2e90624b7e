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
	Key  dag.PublicKey
	Name string // as the device calls itself; empty where that is not known
}

// Devices are the devices of the account, this one among them, as far as the home space knows of them: by name.
func (h *Home) Devices() []Device {
	var out []Device
	for _, m := range h.home.acl.Members() {
		if m.Account != h.keys.Identity {
			continue
		}
		for i := range m.Devices {
			key := m.Devices[i].Device
			name, _ := h.home.acl.DeviceName(key)
			out = append(out, Device{key, name})
		}
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Or(cmp.Compare(a.Name, b.Name), slices.Compare(a.Key[:], b.Key[:])) })
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
// can't open what another made. The only device in a space, which made it or joined by itself, does so at once. It reports whether it wrote anything.
func (h *Home) admitDevices(s *space) (wrote bool, err error) {
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
