package fs

import (
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/anyfs/anyfs/acl"
)

// errInterrupted is what a wait answers that its caller ended.
const errInterrupted = syscall.EINTR

// Status describes a home.
type Status struct {
	Account string        `json:"account"`
	Device  DeviceInfo    `json:"device"`
	Spaces  []SpaceInfo   `json:"spaces"`
	Errors  []LoggedError `json:"errors,omitempty"`
	// ReadOnly says why the home takes no more writes; empty when it does.
	ReadOnly string `json:"read_only,omitempty"`
}

// DeviceInfo names a device.
type DeviceInfo struct {
	PeerID string `json:"peer_id"`
	Name   string `json:"name"`
}

// Identity gives the account and device of a set of keys.
func Identity(k *acl.Keys) (account string, device DeviceInfo) {
	return acl.FormatIdentity(k.Identity), DeviceInfo{PeerID: acl.PeerID(k.Author().Device), Name: k.Device.Name}
}

// Status describes the home as it is now.
func (h *Home) Status() (Status, error) {
	var st Status
	st.Account, st.Device = Identity(h.keys)
	spaces, err := h.Spaces()
	if err != nil {
		return st, err
	}
	st.Spaces = spaces
	st.Errors = h.errs.get()
	if err := h.fail.Load(); err != nil {
		st.ReadOnly = (*err).Error()
	}
	return st, nil
}

// PathOf gives the path of a directory from the root of the home: the reverse of PathIno.
func (h *Home) PathOf(dir Ino) (string, error) {
	if dir == RootIno {
		return "", nil
	}
	if isView(dir) {
		return "", ErrNotExist
	}
	s, local, err := h.space(dir)
	if err != nil {
		return "", err
	}
	var parts []string
	s.mu.Lock()
	err = s.above(local, func(_ uint64, name string) bool {
		if name != "" {
			parts = append(parts, name)
		}
		return true
	})
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	name, err := h.nameOf(s)
	if err != nil {
		return "", err
	}
	slices.Reverse(parts)
	return path.Join(append([]string{name}, parts...)...), nil
}

// PathIno finds the inode at a path from the root of the home, such as "Personal/a/b". Symbolic links are not followed.
func (h *Home) PathIno(p string) (Ino, error) {
	at := RootIno
	for _, name := range strings.Split(path.Clean("/"+p), "/") {
		if name == "" {
			continue
		}
		a, err := h.Lookup(at, name)
		if err != nil {
			return 0, err
		}
		at = a.Ino
		if a.Handle != 0 {
			at = a.Handle
		}
	}
	return at, nil
}
