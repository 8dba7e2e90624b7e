package list

import (
	"bytes"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Device is a device of a member.
type Device struct {
	Certificate
	Record dag.ID // that brought it in; the root's ID for the device of a random root
	Epoch  dag.ID // under whose key Name is sealed
	Name   []byte // sealed
}

// Member is an account in the space.
type Member struct {
	Account dag.PublicKey
	Role    Role
	Since   dag.ID // the record that made it a member
	Keys    AccountKeys
	Devices []Device // in the order in which they came
}

// Device returns the member's device with that key.
func (m *Member) Device(key dag.PublicKey) (*Device, bool) {
	for i := range m.Devices {
		if m.Devices[i].Device == key {
			return &m.Devices[i], true
		}
	}
	return nil, false
}

// Epoch is a read key's time of use, as all can see it.
type Epoch struct {
	ID         dag.ID // of the record that began it, or the root's
	Pos        dag.Pos
	Suite      uint64
	Commitment [32]byte
	Follows    []Follow
	Wraps      []Wrap // from the record that began it and from those that came later
}

// State is what a set of records comes to. It is a function of the set: records are folded in total order.
//
// Of the kinds built so far none takes a right away, so every accepted record stands.
type State struct {
	Root    *Root
	Space   dag.ID
	Unknown bool // some record must be understood and is not

	members map[dag.PublicKey]*Member
	devices map[dag.PublicKey]dag.PublicKey // the account that each device came with first
	epochs  map[dag.ID]*Epoch
	order   []*Epoch // in total order
	options map[string]uint64
}

// newState is the state of the root alone.
func newState(root *Root, space dag.ID) *State {
	s := &State{
		Root: root, Space: space,
		members: make(map[dag.PublicKey]*Member),
		devices: make(map[dag.PublicKey]dag.PublicKey),
		epochs:  make(map[dag.ID]*Epoch),
		options: make(map[string]uint64),
	}
	owner := &Member{Account: root.Owner.Identity, Role: RoleOwner, Since: space, Keys: root.Owner}
	if root.Device != nil {
		owner.Devices = []Device{{*root.Device, space, space, root.Name}}
		s.devices[root.Device.Device] = owner.Account
	}
	s.members[owner.Account] = owner
	s.addEpoch(&Epoch{ID: space, Suite: root.Suite, Commitment: root.Commitment, Wraps: root.Wraps})
	return s
}

func (s *State) addEpoch(e *Epoch) {
	s.epochs[e.ID] = e
	s.order = append(s.order, e)
}

// apply folds one more record, which comes after all that were applied.
func (s *State) apply(n *node) {
	rec := n.record
	if rec == nil {
		return
	}
	switch rec.Kind {
	case KindRoot:
	case KindAddDevice:
		s.addDevice(n.id, n.account, rec.AddDevice)
	case KindRotateKey:
		k := rec.RotateKey
		if s.epochs[n.id] == nil { // one change may be linked by two batches: it counts at the first
			s.addEpoch(&Epoch{n.id, n.pos, k.Suite, k.Commitment, k.Follows, k.Wraps})
		}
	case KindOptions:
		maps.Copy(s.options, rec.Options.Set)
	default:
		s.Unknown = s.Unknown || rec.Must
	}
}

// addDevice takes a device in, or renews its certificate where the serial is higher. The first name stays.
func (s *State) addDevice(id dag.ID, account dag.PublicKey, d *AddDevice) {
	m := s.members[account]
	if e := s.epochs[d.Epoch]; e != nil && len(d.Wraps) > 0 {
		e.Wraps = slices.Concat(e.Wraps, d.Wraps)
	}
	if old, ok := m.Device(d.Certificate.Device); ok {
		if old.Serial < d.Certificate.Serial {
			old.Certificate = d.Certificate
		}
		return
	}
	m.Devices = append(m.Devices, Device{d.Certificate, id, d.Epoch, d.Name})
	if _, ok := s.devices[d.Certificate.Device]; !ok {
		s.devices[d.Certificate.Device] = account
	}
}

// Role is an account's role; RoleNone of who is no member.
func (s *State) Role(account dag.PublicKey) Role {
	if m := s.members[account]; m != nil {
		return m.Role
	}
	return RoleNone
}

// HasDevice says whether the device writes for the account.
func (s *State) HasDevice(account, device dag.PublicKey) bool {
	m := s.members[account]
	if m == nil {
		return false
	}
	_, ok := m.Device(device)
	return ok
}

// Device finds a device of any member, and the account that it came with first.
func (s *State) Device(key dag.PublicKey) (Device, dag.PublicKey, bool) {
	account, ok := s.devices[key]
	if !ok {
		return Device{}, account, false
	}
	d, ok := s.members[account].Device(key)
	if !ok {
		return Device{}, account, false
	}
	return *d, account, true
}

// Members returns copies of the members, the highest roles first, then by account.
func (s *State) Members() []Member {
	out := make([]Member, 0, len(s.members))
	for _, m := range s.members {
		c := *m
		c.Devices = slices.Clone(m.Devices)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Member) int {
		if a.Role != b.Role {
			return int(b.Role) - int(a.Role)
		}
		return bytes.Compare(a.Account[:], b.Account[:])
	})
	return out
}

// Epochs returns copies of the epochs in total order: the last one is to be sealed in by who has its key.
func (s *State) Epochs() []Epoch {
	out := make([]Epoch, len(s.order))
	for i, e := range s.order {
		out[i] = *e
	}
	return out
}

// Option is the value of an option; false where nobody set it.
func (s *State) Option(name string) (uint64, bool) {
	v, ok := s.options[name]
	return v, ok
}

// clone is a copy that shares nothing which apply changes.
func (s *State) clone() *State {
	c := *s
	c.members = make(map[dag.PublicKey]*Member, len(s.members))
	for k, m := range s.members {
		n := *m
		n.Devices = slices.Clone(m.Devices)
		c.members[k] = &n
	}
	c.devices = maps.Clone(s.devices)
	c.epochs = make(map[dag.ID]*Epoch, len(s.epochs))
	c.order = make([]*Epoch, len(s.order))
	for i, e := range s.order {
		n := *e
		c.order[i], c.epochs[e.ID] = &n, &n
	}
	c.options = maps.Clone(s.options)
	return &c
}
