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
	Name    []byte   // sealed under the key of NameIn; none of the owner
	NameIn  dag.ID
	Time    uint64 // when it became a member, in Unix seconds by the clock of who wrote that; 0 of the owner
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
	Wraps      []Wrap          // from the record that began it and from those that came later
	By         []dag.PublicKey // of each of these, the account that wrote it
	Agreed     []AgreedWraps
	Clean      bool // it stands, and all that ended a membership is in its past or its own record: fit to be sealed in

	node   *node // nil of the root's
	shared []agreedBy
}

// State is what a set of records comes to. It is a function of the set: records are folded in total order.
//
// Those that do not stand (evaluate.go) have no effect on it.
type State struct {
	Root    *Root
	Space   dag.ID
	Unknown bool // some record must be understood and is not

	owner   dag.PublicKey // of now
	members map[dag.PublicKey]*Member
	devices map[dag.PublicKey]dag.PublicKey // the account that each device came with: first, or proved it
	epochs  map[dag.ID]*Epoch
	order   []*Epoch // in total order
	options map[string]uint64

	acts     map[dag.PublicKey][]act // in total order, of each account that some record acts on
	invites  map[dag.ID]*Invitation
	asked    map[dag.PublicKey]asking   // the last request or join of each account, also such as do not stand
	keyed    map[dag.PublicKey][]dag.ID // invitations by their key
	requests map[dag.ID]*Request        // also such as do not stand
	asks     map[dag.PublicKey][]dag.ID // requests by the account, by the device, and by the account whose place is asked for
	waiting  map[dag.ID]int             // of each invitation the requests that are open
	all      map[dag.PublicKey]Device   // of those who were ever in: by the device's key
	void     map[dag.PublicKey]bool     // accounts that a record is by, or acts on, which does not stand
	ended    bool                       // some record took a right away
	agreed   map[dag.ID]*Agreement      // by the record, also such as do not stand
	agreedBy map[dag.PublicKey][]*Agreement
	manages  map[dag.PublicKey]bool // devices that wrote records which only an admin may write

	revoked  map[ofDevice][]revocation
	revokers map[dag.PublicKey]bool // accounts that revoked a device
	adopted  map[dag.ID]bool        // batches of files
	shared   bool                   // adopted is another state's too
	brought  map[ofDevice]bool      // devices that some record brought, whether it stands or not
}

// newState is the state of the root alone.
func newState(root *Root, space dag.ID) *State {
	s := &State{
		Root: root, Space: space,
		members: make(map[dag.PublicKey]*Member),
		devices: make(map[dag.PublicKey]dag.PublicKey),
		epochs:  make(map[dag.ID]*Epoch),
		options: make(map[string]uint64),

		acts:     make(map[dag.PublicKey][]act),
		invites:  make(map[dag.ID]*Invitation),
		asked:    make(map[dag.PublicKey]asking),
		keyed:    make(map[dag.PublicKey][]dag.ID),
		requests: make(map[dag.ID]*Request),
		asks:     make(map[dag.PublicKey][]dag.ID),
		waiting:  make(map[dag.ID]int),
		all:      make(map[dag.PublicKey]Device),
		void:     make(map[dag.PublicKey]bool),
		agreed:   make(map[dag.ID]*Agreement),
		agreedBy: make(map[dag.PublicKey][]*Agreement),
		manages:  make(map[dag.PublicKey]bool),

		revoked:  make(map[ofDevice][]revocation),
		revokers: make(map[dag.PublicKey]bool),
		brought:  make(map[ofDevice]bool),
	}
	s.owner = root.Owner.Identity
	owner := &Member{Account: root.Owner.Identity, Role: RoleOwner, Since: space, Keys: root.Owner}
	if root.Device != nil {
		owner.Devices = []Device{{*root.Device, space, space, root.Name}}
		s.devices[root.Device.Device] = owner.Account
		s.all[root.Device.Device] = owner.Devices[0]
		s.brought[ofDevice{owner.Account, root.Device.Device}] = true
	}
	s.members[owner.Account] = owner
	if o := root.Other; o != nil {
		s.members[o.Identity] = &Member{Account: o.Identity, Role: RoleOwner, Since: space, Keys: *o}
	}
	s.addEpoch(&Epoch{ID: space, Suite: root.Suite, Commitment: root.Commitment, Wraps: slices.Clip(root.Wraps), By: slices.Repeat([]dag.PublicKey{root.Owner.Identity}, len(root.Wraps)), Clean: true})
	return s
}

func (s *State) addEpoch(e *Epoch) {
	s.epochs[e.ID] = e
	s.order = append(s.order, e)
}

// apply folds one more record, which has all that were applied in its past, and so stands.
func (s *State) apply(n *node) {
	if n.record == nil {
		return
	}
	s.noteRequest(n)
	s.noteDevices(n)
	s.note(n)
	s.revoke(n)
	s.fold(n)
	if s.endsKeys(n) {
		for _, e := range s.order {
			e.Clean = e.node == n
		}
	}
}

// fold takes the effect of a record that stands, after all that come before it in total order.
func (s *State) fold(n *node) {
	rec := n.record
	if rec == nil {
		return
	}
	if k := rec.next(); k != nil && s.epochs[n.id] == nil { // one change may be linked by two batches: it counts at the first
		e := newEpoch(n, k)
		e.Clean = true
		s.addEpoch(e)
	}
	if asksAdmin(rec) {
		s.manages[n.device] = true
	}
	switch rec.Kind {
	case KindRoot, KindRotateKey:
	case KindAddDevice:
		s.addDevice(n, rec.AddDevice)
	case KindOptions:
		maps.Copy(s.options, rec.Options.Set)
	default:
		if rec.Known() {
			s.foldShare(n)
		} else {
			s.Unknown = s.Unknown || rec.Must
		}
	}
}

// addDevice takes a device in, or renews its certificate where the serial is higher. The first name stays.
func (s *State) addDevice(n *node, d *AddDevice) {
	m := s.members[n.account]
	s.addWraps(d.Epoch, d.Wraps, n.account)
	if m == nil {
		return
	}
	if old, ok := m.Device(d.Certificate.Device); ok {
		if old.Serial < d.Certificate.Serial {
			old.Certificate = d.Certificate
		}
		return
	}
	s.enter(m, Device{d.Certificate, n.id, d.Epoch, d.Name}, n.device == d.Certificate.Device)
}

// enter makes a device one of a member's. proved: the device itself signed that it is, which outweighs who only named its key.
func (s *State) enter(m *Member, d Device, proved bool) {
	if !s.Revoked(m.Account, d.Device) {
		m.Devices = append(m.Devices, d)
	}
	if _, ok := s.devices[d.Device]; !ok || proved {
		s.devices[d.Device], s.all[d.Device] = m.Account, d
	}
}

func (s *State) addWraps(epoch dag.ID, wraps []Wrap, by dag.PublicKey) {
	if e := s.epochs[epoch]; e != nil && len(wraps) > 0 {
		e.Wraps = append(e.Wraps, wraps...)
		for range wraps {
			e.By = append(e.By, by)
		}
	}
}

// Role is an account's role; RoleNone of who is no member.
func (s *State) Role(account dag.PublicKey) Role {
	if m := s.members[account]; m != nil {
		return m.Role
	}
	return RoleNone
}

// Owner is who owns the space now: by its root, or by the last transfer that stands.
func (s *State) Owner() dag.PublicKey { return s.owner }

// HasDevice says whether the device writes for the account.
func (s *State) HasDevice(account, device dag.PublicKey) bool {
	m := s.members[account]
	if m == nil {
		return false
	}
	_, ok := m.Device(device)
	return ok
}

// Device finds a device of whoever is or was a member, and the account that it came with first.
func (s *State) Device(key dag.PublicKey) (Device, dag.PublicKey, bool) {
	account, ok := s.devices[key]
	if !ok {
		return Device{}, account, false
	}
	if m := s.members[account]; m != nil {
		if d, ok := m.Device(key); ok {
			return *d, account, true
		}
	}
	return s.all[key], account, true
}

// Member finds a member.
func (s *State) Member(account dag.PublicKey) (Member, bool) {
	m := s.members[account]
	if m == nil {
		return Member{}, false
	}
	c := *m
	c.Devices = slices.Clone(m.Devices)
	return c, true
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

// Epoch finds an epoch.
func (s *State) Epoch(id dag.ID) (Epoch, bool) {
	if e := s.epochs[id]; e != nil {
		return *e, true
	}
	return Epoch{}, false
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
		n.Wraps, n.By, n.shared = slices.Clip(e.Wraps), slices.Clip(e.By), slices.Clip(e.shared)
		c.order[i], c.epochs[e.ID] = &n, &n
	}
	c.options = maps.Clone(s.options)
	c.acts = make(map[dag.PublicKey][]act, len(s.acts))
	for k, a := range s.acts {
		c.acts[k] = slices.Clip(a)
	}
	c.invites = make(map[dag.ID]*Invitation, len(s.invites))
	for k, i := range s.invites {
		n := *i
		n.revoked = slices.Clip(i.revoked)
		c.invites[k] = &n
	}
	c.requests = make(map[dag.ID]*Request, len(s.requests))
	for k, q := range s.requests {
		n := *q
		c.requests[k] = &n
	}
	c.asked, c.waiting = maps.Clone(s.asked), maps.Clone(s.waiting)
	c.keyed, c.asks = maps.Clone(s.keyed), maps.Clone(s.asks) // lists are appended to with no room at their end
	c.shared = true
	c.agreed, c.agreedBy, c.manages = maps.Clone(s.agreed), maps.Clone(s.agreedBy), maps.Clone(s.manages)
	c.all, c.void = maps.Clone(s.all), maps.Clone(s.void)
	c.revoked, c.revokers, c.brought = maps.Clone(s.revoked), maps.Clone(s.revokers), maps.Clone(s.brought)
	return &c
}
