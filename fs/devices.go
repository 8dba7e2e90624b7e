package fs

import (
	"cmp"
	"slices"

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
