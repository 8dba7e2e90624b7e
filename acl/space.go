package acl

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
)

// Labels of derived spaces.
const (
	LabelHome     = "home"     // the account's list of spaces
	LabelPersonal = "personal" // the space that every account has
)

// Space is the access list of one space with the read keys that it gives to this device. It is safe for concurrent use.
type Space struct {
	list *list.List
	k    *Keys
	keys *seal.Space
	now  func() time.Time

	came  atomic.Uint64 // records that list told of
	seen  atomic.Uint64 // of these, those by which the epochs were opened
	mu    sync.Mutex    // one opening of epochs at a time. Before the locks of list
	epoch dag.ID        // the one to seal in; guarded by emu
	emu   sync.RWMutex
}

// CreateSpace makes a new space that the account owns, with one epoch, and makes it durable in st, which has to be
// empty. rnd nil means crypto/rand.
func CreateSpace(k *Keys, st dag.Store, rnd io.Reader) (*Space, error) {
	key, err := seal.NewReadKey(rnd)
	if err != nil {
		return nil, err
	}
	root := &list.Root{Kind: list.RootRandom, Owner: k.Public, Suite: list.Suite, Device: k.Device.Certificate}
	if err := fill(rnd, root.Seed[:]); err != nil {
		return nil, err
	}
	root.Commitment = key.Commitment(dag.ID{})
	if root.Name, err = sealName(key, k.Device, rnd); err != nil {
		return nil, err
	}
	to := []recipient{{k.Device.PublicKey(), k.Device.Certificate.HPKE}, {k.Identity, k.Public.Recovery}}
	if root.Wraps, err = wrapTo(to, rootContext(root), root.Commitment, key); err != nil {
		return nil, err
	}
	root.Sign(k.Device.sign)
	id := root.ID()
	l, err := list.Open(id, st)
	if err != nil {
		return nil, err
	}
	if _, err := l.Append(k.Author(), &list.Record{Kind: list.KindRoot, Must: true, Root: root.Encode()}); err != nil {
		return nil, err
	}
	return opened(k, l, st)
}

// DeriveSpace opens the account's derived space that label names, making it where st is empty, and brings the device
// into it where it is not in yet. It takes the account's secret or what was handed over by a device that has it, else
// it returns ErrNoSecret.
func DeriveSpace(k *Keys, label string, st dag.Store, rnd io.Reader) (*Space, error) {
	id, root, key, err := k.derived(label)
	if err != nil {
		return nil, err
	}
	return bringIn(k, id, root, key, st, rnd)
}

// bringIn brings this device into a space whose root and first key it computed.
func bringIn(k *Keys, id dag.ID, root []byte, key seal.ReadKey, st dag.Store, rnd io.Reader) (*Space, error) {
	l, err := list.Open(id, st)
	if err != nil {
		return nil, err
	}
	if s := l.State(); s != nil && s.HasDevice(k.Identity, k.Device.PublicKey()) {
		return opened(k, l, nil)
	}
	rec, err := deviceRecord(k.Device.Certificate, k.Device.Name, id, key, rnd)
	if err != nil {
		return nil, err
	}
	rec.Root = root
	if _, err := l.Append(k.Author(), rec); err != nil {
		return nil, err
	}
	return opened(k, l, st)
}

// deviceRecord is the record that brings a device into a space, with its name sealed under an epoch's key.
func deviceRecord(cert *list.Certificate, name string, epoch dag.ID, key seal.ReadKey, rnd io.Reader) (*list.Record, error) {
	sealed, err := sealDeviceName(key, cert.Device, name, rnd)
	if err != nil {
		return nil, err
	}
	add := &list.AddDevice{Certificate: *cert, Epoch: epoch, Name: sealed}
	return &list.Record{Kind: list.KindAddDevice, Must: true, AddDevice: add}, nil
}

// derived is the root and the first read key of a derived space.
func (k *Keys) derived(label string) (dag.ID, []byte, seal.ReadKey, error) {
	if k.Account != nil {
		root := k.Account.deriveRoot(label)
		return root.ID(), root.Encode(), k.Account.spaceKey(label), nil
	}
	for _, s := range k.Spaces {
		if s.Label != label {
			continue
		}
		if root, err := list.DecodeRoot(s.Root); err != nil || root.Owner.Identity != k.Identity {
			continue // that of the account which takes this one's place, or whose place it took
		}
		for _, e := range s.Epochs {
			if e.ID == s.ID {
				return s.ID, s.Root, e.Key, nil
			}
		}
	}
	return dag.ID{}, nil, seal.ReadKey{}, fmt.Errorf("%w, and no other device handed over its space %q", ErrNoSecret, label)
}

// OpenSpace opens a space that st holds, else it returns ErrNoSpace.
func OpenSpace(k *Keys, id dag.ID, st dag.Store) (*Space, error) {
	l, err := list.Open(id, st)
	if err != nil {
		return nil, err
	}
	if l.State() == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoSpace, id)
	}
	return opened(k, l, nil)
}

// opened opens the epochs of a list. What was appended to written is made durable; nil where nothing was.
func opened(k *Keys, l *list.List, written dag.Store) (*Space, error) {
	if written != nil {
		if err := written.Sync(); err != nil {
			return nil, fmt.Errorf("acl: store the access list: %w", err)
		}
	}
	l.KeepOwn(k.Identity, k.Device.PublicKey())
	s := &Space{list: l, k: k, keys: seal.NewSpaceRand(l.Space(), k.Rand), now: time.Now}
	s.openEpochs()
	// Many records may come at once: they are looked at when somebody asks for a key or for the epoch to seal in.
	s.keys.Refresh(s.refresh)
	l.Watch(func() { s.came.Add(1) })
	return s, nil
}

// SetClock has the space take from now what time it is, in place of time.Now: by it this device knows which open invitations have expired. It is
// called before the space is used.
func (s *Space) SetClock(now func() time.Time) { s.now = now }

// ID is the space's: its root's.
func (s *Space) ID() dag.ID { return s.list.Space() }

// Heads are what a batch of files names as the access list it went by. The slice must not be changed.
func (s *Space) Heads() []dag.ID { return s.list.Heads() }

// Epoch is the epoch to seal in: of those that are clean the last in total order whose key is here; zero where there is none.
func (s *Space) Epoch() dag.ID {
	s.refresh()
	s.emu.RLock()
	defer s.emu.RUnlock()
	return s.epoch
}

// HasKey says whether any key of the space is here.
func (s *Space) HasKey() bool {
	_, ok := s.keys.Current()
	return ok
}

// Ready makes sure that there is an epoch to seal in, and begins one where none is clean. It returns what Writable does.
func (s *Space) Ready(rnd io.Reader) error {
	if s.Epoch().IsZero() && s.unclean(s.list.State()) && s.MayWrite() {
		if _, err := s.Rotate(rnd); err != nil {
			return err
		}
	}
	return s.Writable()
}

// Keys seals and opens with the read keys of the space that are here.
func (s *Space) Keys() *seal.Space { return s.keys }

// Role is that of this device's account.
func (s *Space) Role() Role { return s.list.State().Role(s.k.Identity) }

// Members are all members, the highest roles first.
func (s *Space) Members() []Member { return s.list.State().Members() }

// Files judges the batches of the space's files.
func (s *Space) Files() dag.Authorizer { return s.list.Files() }

// List is the access list itself, for exchange with others.
func (s *Space) List() *list.List { return s.list }

// Watch calls fn after each new record, with no lock held, until cancel is called.
func (s *Space) Watch(fn func()) (cancel func()) { return s.list.Watch(fn) }

// Writable says why this device cannot write to the space: nil, ErrDenied, ErrUnknown, or seal.ErrNoKey.
func (s *Space) Writable() error {
	st := s.list.State()
	switch {
	case st.Unknown:
		return ErrUnknown
	case s.Revoked():
		return ErrRevoked
	case st.Role(s.k.Identity) < RoleWriter:
		return fmt.Errorf("%w: your role is %s", ErrDenied, st.Role(s.k.Identity))
	case !st.HasDevice(s.k.Identity, s.k.Device.PublicKey()):
		return fmt.Errorf("%w: this device is not in the space", ErrDenied)
	case s.Epoch().IsZero():
		return seal.ErrNoKey
	}
	return nil
}

// DeviceName is the name that a device was brought into the space with; false where the space has no such device or
// its name's key is not here.
func (s *Space) DeviceName(device dag.PublicKey) (string, bool) {
	d, _, ok := s.list.State().Device(device)
	if !ok {
		return "", false
	}
	key, ok := s.keys.Key(d.Epoch)
	if !ok {
		return "", false
	}
	name, err := openName(key, device, d.Name)
	return name, err == nil
}

// AddDevice brings this device into a space of its account, where it is not in yet, with a wrap of the newest epoch's
// key for it. It is durable only after the store's Sync. rnd nil means crypto/rand.
func (s *Space) AddDevice(rnd io.Reader) error {
	return s.addDevice(s.k.Device.Certificate, s.k.Device.Name, rnd)
}

func (s *Space) addDevice(cert *list.Certificate, deviceName string, rnd io.Reader) error {
	if s.list.State().HasDevice(s.k.Identity, cert.Device) {
		return nil
	}
	st, id := s.list.State(), s.Epoch()
	key, ok := s.keys.Key(id)
	if !ok {
		return seal.ErrNoKey
	}
	rec, err := deviceRecord(cert, deviceName, id, key, rnd)
	if err != nil {
		return err
	}
	if e, ok := st.Epoch(id); ok {
		to := []recipient{{cert.Device, cert.HPKE}}
		if rec.AddDevice.Wraps, err = wrapTo(to, s.ID(), e.Commitment, key); err != nil {
			return err
		}
	}
	_, err = s.list.Append(s.k.Author(), rec)
	return err
}

// Rotate begins a new epoch: its key is wrapped to all devices of the members, to their recovery keys and to the open
// invitations that can still be used. It is durable only after the store's Sync.
func (s *Space) Rotate(rnd io.Reader) (dag.ID, error) {
	rec, err := s.nextEpoch(dag.PublicKey{}, dag.ID{}, rnd)
	if err != nil {
		return dag.ID{}, err
	}
	return s.list.Append(s.k.Author(), &list.Record{Kind: list.KindRotateKey, Must: true, RotateKey: rec})
}

// nextEpoch makes an epoch whose key goes to all but one account or device, and one invitation.
func (s *Space) nextEpoch(but dag.PublicKey, butInvite dag.ID, rnd io.Reader) (*list.RotateKey, error) {
	key, err := seal.NewReadKey(rnd)
	if err != nil {
		return nil, err
	}
	st := s.list.State()
	rec := &list.RotateKey{Suite: list.Suite, Commitment: key.Commitment(s.ID())}
	// The last epoch and those that it does not lead to, as far as their keys are here.
	led := make(map[dag.ID]bool)
	for _, e := range slices.Backward(st.Epochs()) {
		old, ok := s.keys.Key(e.ID)
		if !ok || led[e.ID] {
			continue
		}
		for _, f := range e.Follows {
			led[f.Epoch] = true
		}
		f := list.Follow{Epoch: e.ID}
		if f.Sealed, err = key.SealField(labelFollow, followAD(s.ID(), e.ID), old[:], rnd); err != nil {
			return nil, err
		}
		rec.Follows = append(rec.Follows, f)
	}
	if len(rec.Follows) == 0 {
		return nil, seal.ErrNoKey
	}
	slices.SortFunc(rec.Follows, func(a, b list.Follow) int { return a.Epoch.Compare(b.Epoch) })
	var agreed []agreedWith
	have := s.agreed(st)
	for _, m := range st.Members() {
		if _, ok := m.Device(but); ok {
			delete(have, m.Account) // the device has the key that was agreed on
		}
	}
	to := s.recipients(st, butInvite, func(m *Member) bool {
		with, ok := have[m.Account]
		if ok && m.Account != but {
			agreed = append(agreed, with)
		}
		return ok || m.Account == but
	})
	to = slices.DeleteFunc(to, func(r recipient) bool { return r.name == but })
	// What a record has no room for is shared by Heal.
	agreed = agreed[:min(len(agreed), maxSlots)]
	rec.Agreed = s.wrapAgreed(agreed, rec.Commitment, key)
	room := min(maxWraps, (recordRoom-len(agreed)*seal.AgreedWrapBytes)/hpkeRoom)
	if rec.Wraps, err = wrapTo(to[:min(len(to), room)], s.ID(), rec.Commitment, key); err != nil {
		return nil, err
	}
	return rec, nil
}

// recipients are all who may have a new key, but for the members that skip names and one invitation.
func (s *Space) recipients(st *list.State, butInvite dag.ID, skip func(*Member) bool) (to []recipient) {
	for _, m := range st.Members() {
		if !skip(&m) {
			to = append(to, s.recipientsOf(st, &m)...)
		}
	}
	but, _ := st.Invitation(butInvite)
	for _, i := range st.OpenInvitations() {
		if !i.Full() && !s.expired(&i) && (butInvite.IsZero() || i.Key != but.Key) {
			to = append(to, recipient{i.Key, i.HPKE})
		}
	}
	return to
}

// recipientsOf are a member's account and devices.
func (s *Space) recipientsOf(st *list.State, m *Member) []recipient {
	to := []recipient{{m.Account, m.Keys.Recovery}}
	for _, d := range m.Devices {
		// Beside each other two accounts may name one device. A record has one wrap for a key, of who has it by right.
		if _, of, _ := st.Device(d.Device); of == m.Account || !isMember(st, of) {
			to = append(to, recipient{d.Device, d.HPKE})
		}
	}
	return to
}

func isMember(st *list.State, account dag.PublicKey) bool { return st.Role(account) != RoleNone }

// SetOption sets an option of the space for all. It is durable only after the store's Sync.
func (s *Space) SetOption(name string, value uint64) error {
	rec := &list.Record{Kind: list.KindOptions, Must: true, Options: &list.Options{Set: map[string]uint64{name: value}}}
	_, err := s.list.Append(s.k.Author(), rec)
	return err
}

// Option is the value of an option; false where nobody set it.
func (s *Space) Option(name string) (uint64, bool) { return s.list.State().Option(name) }

// Secret is what a device without the account's secret takes to open the space: the keys that are here, without those that others of them
// lead to, and of a derived space, which label names, the root and the first key.
func (s *Space) Secret(label string) (SpaceSecret, error) {
	root := s.list.Root()
	if root == nil {
		return SpaceSecret{}, errors.New("acl: a space without root")
	}
	out := SpaceSecret{ID: s.ID(), Label: label}
	if label != "" {
		out.Root = root.Encode()
	}
	led := make(map[dag.ID]bool)
	for _, e := range slices.Backward(s.list.State().Epochs()) {
		key, ok := s.keys.Key(e.ID)
		if !ok {
			continue
		}
		for _, f := range e.Follows {
			led[f.Epoch] = true
		}
		if !led[e.ID] || label != "" && e.ID == s.ID() {
			out.Epochs = append(out.Epochs, EpochSecret{e.ID, key})
		}
	}
	return out, nil
}

// AdmitDevice brings another device of this account into the space, where it is not in yet, with a wrap of the newest key: one that was paired by
// a code can open no space that others made. It reports whether it wrote anything. A device that was revoked here, or that another account has, is
// refused with ErrDenied. It is durable only after the store's Sync. rnd nil means crypto/rand.
func (s *Space) AdmitDevice(cert *list.Certificate, name string, rnd io.Reader) (bool, error) {
	st := s.list.State()
	if st.Unknown || cert.Account != s.k.Identity || st.HasDevice(s.k.Identity, cert.Device) || !st.HasDevice(s.k.Identity, s.k.Device.PublicKey()) {
		return false, nil
	}
	if s.Epoch().IsZero() {
		return false, nil
	}
	err := s.addDevice(cert, CleanDeviceName(name), rnd)
	return err == nil, err
}
