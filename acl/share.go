package acl

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
)

// What a member does for and to others. Records are durable only after the store's Sync.

// Person is a member as others see it.
type Person struct {
	Account dag.PublicKey
	Name    string // empty where its key is not here
	Unnamed bool   // it has given no name: Name is that of a device. So is an owner, whom the space's root names
	Role    Role
	Since   time.Time // by the clock of who wrote it; zero of the owner
}

// Asking is a request to join.
type Asking struct {
	ID      dag.ID
	Account dag.PublicKey
	Name    string
	Role    Role // of the invitation, or of who is to be replaced
	Time    time.Time

	Replaces dag.PublicKey // the member whose place it is to take, by that one's word; zero: none
}

// Invited is an invitation.
type Invited struct {
	ID      dag.ID
	By      dag.PublicKey
	Role    Role
	Open    bool
	Uses    uint64 // 0: any number
	Used    uint64
	Time    time.Time
	Expires time.Time // zero: never
	Revoked bool
	Overrun bool // so many asked by it and were not let in that nobody else may
}

// MaxUses is how often an invitation can be used at most, where that is bounded.
const MaxUses = list.MaxUses

// Terms are those of an invitation.
type Terms struct {
	Role    Role
	Open    bool
	Uses    uint64
	Expires time.Time
}

func unix(t uint64) time.Time {
	if t == 0 || t > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(t), 0)
}

func seconds(t time.Time) uint64 { return uint64(max(0, t.Unix())) }

// sealing is the epoch to seal in and its key.
func (s *Space) sealing() (*list.Epoch, seal.ReadKey, error) {
	if s.Role() == RoleNone {
		return nil, seal.ReadKey{}, fmt.Errorf("%w: you are no member of the space", ErrDenied)
	}
	id := s.Epoch()
	key, ok := s.keys.Key(id)
	if ok {
		if e, ok := s.list.State().Epoch(id); ok {
			return &e, key, nil
		}
	}
	return nil, key, seal.ErrNoKey
}

// Invite makes an invitation and returns it without addresses. Its secret is kept nowhere.
func (s *Space) Invite(t Terms, now time.Time, rnd io.Reader) (*Link, error) {
	l := &Link{Space: s.ID(), By: s.k.Identity}
	if err := fill(rnd, l.Secret[:]); err != nil {
		return nil, err
	}
	k, err := l.keys()
	if err != nil {
		return nil, err
	}
	e, key, err := s.sealing()
	if err != nil {
		return nil, err
	}
	i := &list.Invite{Key: k.public(), Role: t.Role, Time: seconds(now), Uses: t.Uses, Epoch: e.ID}
	if !t.Expires.IsZero() {
		i.Expires = seconds(t.Expires)
	}
	if i.Naming, err = key.SealField(labelNaming, i.Key[:], k.naming[:], rnd); err != nil {
		return nil, err
	}
	if t.Open {
		i.HPKE = k.hpke.PublicKey().Bytes()
		if i.Wraps, err = wrapTo([]recipient{{i.Key, i.HPKE}}, s.ID(), e.Commitment, key); err != nil {
			return nil, err
		}
	}
	_, err = s.write(&list.Record{Kind: list.KindInvite, Invite: i})
	return l, err
}

func (s *Space) write(rec *list.Record) (dag.ID, error) {
	rec.Must = true
	return s.list.Append(s.k.Author(), rec)
}

// Invitations are all that were made and stand.
func (s *Space) Invitations() []Invited {
	var out []Invited
	st := s.list.State()
	for _, i := range st.Invitations() {
		out = append(out, Invited{
			ID: i.ID, By: i.Author, Role: i.Role, Open: i.Open(), Uses: i.Uses, Used: i.Used, Time: unix(i.Time), Expires: unix(i.Expires),
			Revoked: i.Revoked(), Overrun: st.Overrun(i.ID),
		})
	}
	slices.SortStableFunc(out, func(a, b Invited) int { return a.Time.Compare(b.Time) })
	return out
}

// RevokeInvite ends an invitation; an open one with a new epoch.
func (s *Space) RevokeInvite(id dag.ID, rnd io.Reader) error {
	r := &list.RevokeInvite{Invite: id}
	if i, ok := s.list.State().Invitation(id); ok && i.Open() {
		var err error
		if r.Next, err = s.nextEpoch(dag.PublicKey{}, id, rnd); err != nil {
			return err
		}
	}
	_, err := s.write(&list.Record{Kind: list.KindRevokeInvite, RevokeInvite: r})
	return err
}

// Requests are those that wait for an answer, the oldest first.
func (s *Space) Requests() []Asking {
	st := s.list.State()
	var out []Asking
	for _, q := range st.Requests() {
		if q.State != list.RequestOpen {
			continue
		}
		if q.Replaces != (dag.PublicKey{}) {
			name, _ := s.namesOf(&q)
			out = append(out, Asking{ID: q.ID, Account: q.Account, Name: name, Role: st.Role(q.Replaces), Time: unix(q.Time), Replaces: q.Replaces})
			continue
		}
		i, ok := st.Invitation(q.Invite)
		if !ok || i.Revoked() {
			continue // who asked was told that, and waits no more
		}
		a := Asking{ID: q.ID, Account: q.Account, Time: unix(q.Time), Role: i.Role}
		if naming, ok := s.naming(&i); ok {
			a.Name, _ = openMemberName(naming, q.Account, q.Name)
		}
		out = append(out, a)
	}
	return out
}

// naming opens the key that names in an invitation's requests are sealed with.
func (s *Space) naming(i *list.Invitation) (k seal.ReadKey, ok bool) {
	key, ok := s.keys.Key(i.Epoch)
	if !ok {
		return k, false
	}
	b, err := key.OpenField(labelNaming, i.Key[:], i.Naming)
	if err != nil || len(b) != len(k) {
		return k, false
	}
	return seal.ReadKey(b), true
}

// Approve makes the author of a request a member, in the role of the invitation, or in another that role names.
func (s *Space) Approve(id dag.ID, role Role, now time.Time, rnd io.Reader) error {
	st := s.list.State()
	q, ok := st.Request(id)
	if !ok || q.State != list.RequestOpen {
		return fmt.Errorf("%w: nobody waits for this answer", ErrDenied)
	}
	e, key, err := s.sealing()
	if err != nil {
		return err
	}
	name, device := s.namesOf(&q)
	if q.Replaces != (dag.PublicKey{}) && role == RoleNone {
		role = st.Role(q.Replaces)
	}
	if i, ok := st.Invitation(q.Invite); ok {
		if i.Expires > 0 && seconds(now) > i.Expires && q.Time > i.Expires {
			return fmt.Errorf("%w: the invitation had expired when it was used", ErrDenied)
		}
		if role == RoleNone {
			role = i.Role
		}
		if naming, ok := s.naming(&i); ok {
			name, _ = openMemberName(naming, q.Account, q.Name)
			device, _ = openName(naming, q.Certificate.Device, q.Device)
		}
	}
	a := &list.Accept{Role: role, Time: seconds(now), Epoch: e.ID, Request: id}
	if a.Name, err = sealMemberName(key, q.Account, name, rnd); err != nil {
		return err
	}
	if a.Device, err = sealDeviceName(key, q.Certificate.Device, device, rnd); err != nil {
		return err
	}
	to := []recipient{{q.Account, q.Keys.Recovery}, {q.Certificate.Device, q.Certificate.HPKE}}
	if a.Wraps, err = wrapTo(to, s.ID(), e.Commitment, key); err != nil {
		return err
	}
	_, err = s.write(&list.Record{Kind: list.KindAccept, Accept: a})
	return err
}

// Decline refuses a request.
func (s *Space) Decline(id dag.ID) error {
	_, err := s.write(&list.Record{Kind: list.KindDecline, Answer: &list.Answer{Request: id}})
	return err
}

// ChangeRole gives a member another role. tips are the last batches of its feeds that this device has.
func (s *Space) ChangeRole(account dag.PublicKey, role Role, tips []dag.ID) error {
	c := &list.ChangeRole{Role: role, Account: account}
	if role < RoleWriter {
		c.Tips = tips
	}
	_, err := s.write(&list.Record{Kind: list.KindChangeRole, ChangeRole: c})
	return err
}

// Remove ends a membership and begins an epoch that the account has no key of. Open invitations that have expired, and that this account may end, are ended
// before: the account may have the link of one, and no rule of the list reads a clock.
func (s *Space) Remove(account dag.PublicKey, tips []dag.ID, rnd io.Reader) error {
	if st := s.list.State(); st.Role(account) != RoleNone && st.Role(account) < st.Role(s.k.Identity) {
		if _, err := s.endSpent(st, s.expired, rnd); err != nil {
			return err
		}
	}
	k, err := s.nextEpoch(account, dag.ID{}, rnd)
	if err != nil {
		return err
	}
	_, err = s.write(&list.Record{Kind: list.KindRemove, Remove: &list.Remove{Next: k, Tips: tips, Account: account}})
	return err
}

// MaxAdopted is how many batches one call of Adopt takes.
const MaxAdopted = 1000

// Adopt makes batches of files count that are in quarantine. They are in order of their IDs.
func (s *Space) Adopt(batches []dag.ID) error {
	_, err := s.write(&list.Record{Kind: list.KindAdopt, Adopt: &list.Adopt{Batches: batches}})
	return err
}

// Transfer makes a member the owner, and this account an admin.
func (s *Space) Transfer(account dag.PublicKey) error {
	_, err := s.write(&list.Record{Kind: list.KindTransfer, Transfer: &list.Transfer{Account: account}})
	return err
}

// Leave ends the membership of this device's account.
func (s *Space) Leave(tips []dag.ID) error {
	_, err := s.write(&list.Record{Kind: list.KindLeave, Leave: &list.Leave{Tips: tips}})
	return err
}

// People are the members, the highest roles first.
func (s *Space) People() []Person {
	var out []Person
	for _, m := range s.list.State().Members() {
		p := Person{Account: m.Account, Role: m.Role, Since: unix(m.Time)}
		if key, ok := s.keys.Key(m.NameIn); ok && len(m.Name) > 0 {
			p.Name, _ = openMemberName(key, m.Account, m.Name)
		}
		if p.Name == "" && len(m.Devices) > 0 {
			p.Unnamed = true
			p.Name, _ = s.DeviceName(m.Devices[0].Device)
		}
		out = append(out, p)
	}
	return out
}

// FindPerson finds the one of some accounts that a person means: by name, by the fingerprint, or by the beginning of the account. It returns an
// error that says what to write instead where none or several are meant.
func FindPerson(who string, accounts []dag.PublicKey, names []string) (int, error) {
	var found []int
	named := !likeFingerprint(who) && !strings.HasPrefix(who, identityPrefix) // else who calls itself so would be taken for that account
	for i, a := range accounts {
		id := FormatIdentity(a)
		if id == who || likeFingerprint(who) && Fingerprint(a) == strings.ToLower(who) {
			return i, nil // whatever others call themselves
		}
		if named && names[i] == who || len(who) >= 8 && strings.HasPrefix(id, who) {
			found = append(found, i)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return 0, fmt.Errorf("%w: %q", ErrNobody, who)
	}
	return 0, fmt.Errorf("%w: %q is the name of %d accounts; give the account itself", ErrNobody, who, len(found))
}

// Heal ends the open invitations that are used up or have expired, begins an epoch where none is clean, and wraps the key of the newest one to
// members' devices that have no wrap of it; in a space of many it agrees on keys with them. It reports whether it wrote anything, of which
// a call does only so much.
func (s *Space) Heal(rnd io.Reader) (wrote bool, err error) {
	for range healRounds {
		some, err := s.healOnce(rnd)
		if wrote = wrote || some; !some || err != nil {
			return wrote, err
		}
	}
	return wrote, nil
}

func (s *Space) healOnce(rnd io.Reader) (bool, error) {
	st := s.list.State()
	if st.Unknown || !st.HasDevice(s.k.Identity, s.k.Device.PublicKey()) {
		return false, nil
	}
	if wrote, err := s.endSpent(st, s.spent(st), rnd); wrote || err != nil {
		return wrote, err
	}
	if s.unclean(st) && st.Role(s.k.Identity) >= RoleWriter {
		_, err := s.Rotate(rnd)
		return err == nil, err
	}
	e, key, err := s.sealing()
	if err != nil || e.ID == s.ID() && st.Root.Kind != list.RootRandom {
		return false, nil
	}
	// A wrap can't be looked into by others than whom it is for, and what it holds may be nothing: a writer who begins an epoch could so
	// keep one member out of all that is written from then on. So an admin wraps the key again where only writers and readers did.
	doubts := st.Role(s.k.Identity) >= RoleAdmin
	has := make(map[dag.PublicKey]bool)
	for i := range e.Wraps {
		by := e.By[i]
		has[e.Wraps[i].To] = has[e.Wraps[i].To] || !doubts || by == s.k.Identity || st.Role(by) >= RoleAdmin
	}
	st.AgreedTo(e, func(to, by dag.PublicKey) {
		has[to] = has[to] || !doubts || by == s.k.Identity || st.Role(by) >= RoleAdmin
	})
	own := make(map[dag.PublicKey]bool) // of devices that wrapped the key for themselves: they have it
	for i := range e.Wraps {
		if to, by := e.Wraps[i].To, e.By[i]; to == by && isMember(st, by) || st.HasDevice(by, to) {
			own[to] = true
		}
	}
	lacks := func(r recipient) bool { return !has[r.name] && !own[r.name] }
	var agreed []agreedWith
	have := s.agreed(st)
	lack := s.recipients(st, dag.ID{}, func(m *Member) bool {
		with, ok := have[m.Account]
		if ok && slices.ContainsFunc(s.recipientsOf(st, m), lacks) {
			agreed = append(agreed, with)
		}
		return ok
	})
	if lack = slices.DeleteFunc(lack, func(r recipient) bool { return !lacks(r) }); len(lack) == 0 && len(agreed) == 0 {
		return s.agree(st, rnd)
	}
	agreed = agreed[:min(len(agreed), maxSlots)]
	rec := &list.ShareKey{Epoch: e.ID, Agreed: s.wrapAgreed(agreed, e.Commitment, key)}
	room := min(maxWraps, (recordRoom-len(agreed)*seal.AgreedWrapBytes)/hpkeRoom)
	if rec.Wraps, err = wrapTo(lack[:min(len(lack), room)], s.ID(), e.Commitment, key); err != nil || len(rec.Wraps)+len(agreed) == 0 {
		return false, err
	}
	_, err = s.write(&list.Record{Kind: list.KindShareKey, ShareKey: rec})
	return err == nil, err
}

// expired says whether an invitation is past its time by this device's clock.
func (s *Space) expired(i *list.Invitation) bool {
	return i.Expires > 0 && seconds(s.now()) >= i.Expires
}

// expiredLong is after how long an open invitation that has expired is ended by admins who neither made it nor own the space: not all at once, as each ends
// it with an epoch.
const expiredLong = 10 * time.Minute

// spent says whether an open invitation is of no use to who comes by it, and this account is the one to end it: it made the invitation or owns the space, or
// nobody who does was there.
func (s *Space) spent(st *list.State) func(*list.Invitation) bool {
	return func(i *list.Invitation) bool {
		if i.Author == s.k.Identity || st.Role(s.k.Identity) == RoleOwner {
			return i.Full() || s.expired(i)
		}
		return i.Expires > 0 && seconds(s.now().Add(-expiredLong)) >= i.Expires
	}
}

// endSpent revokes open invitations that this account may revoke. Whoever has the link of one that is used up could otherwise write a joining from before
// it was used, which comes first in total order and so takes the place of another's; and of one that has expired, a joining at all, as an expiry is for who
// shows the list: who was a member can bring it without being asked for the invitation.
func (s *Space) endSpent(st *list.State, spent func(*list.Invitation) bool, rnd io.Reader) (wrote bool, err error) {
	if !s.HasKey() {
		return false, nil
	}
	role := st.Role(s.k.Identity)
	for _, i := range st.OpenInvitations() {
		if i.Revoked() || role < RoleAdmin || i.Role >= role || !spent(&i) {
			continue
		}
		if err := s.RevokeInvite(i.ID, rnd); err != nil {
			return wrote, fmt.Errorf("acl: end an invitation that is used up or has expired: %w", err)
		}
		wrote = true
	}
	return wrote, nil
}

// unclean says whether no epoch is fit to be sealed in.
func (s *Space) unclean(st *list.State) bool {
	return !slices.ContainsFunc(st.Epochs(), func(e list.Epoch) bool { return sealable(st, &e) })
}
