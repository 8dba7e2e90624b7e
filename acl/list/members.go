package list

import (
	"bytes"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Invitation is an invite record that stands.
type Invitation struct {
	Invite
	ID     dag.ID        // of the record
	Author dag.PublicKey // the account that invites
	Used   uint64        // how many joined by it, or were accepted

	revoked []*node
}

// Revoked says whether the invitation was revoked.
func (i *Invitation) Revoked() bool { return len(i.revoked) > 0 }

// Full says whether the invitation has been used as often as it may be.
func (i *Invitation) Full() bool { return i.Uses > 0 && i.Used >= i.Uses }

// RequestState is what became of a request to join.
type RequestState uint8

// The states of a request.
const (
	RequestOpen RequestState = iota
	RequestAccepted
	RequestDeclined
	RequestCancelled
	RequestLapsed // its invitation was revoked, or the account became a member otherwise
)

// String is the state as commands print it.
func (r RequestState) String() string {
	return [...]string{"open", "accepted", "declined", "cancelled", "lapsed"}[r]
}

// Request is a request to join.
type Request struct {
	JoinRequest
	ID      dag.ID // of the record
	Account dag.PublicKey
	State   RequestState

	Replaces dag.PublicKey // the member whose place it is to take, which asks for that; zero of a request by an invitation
	Epoch    dag.ID        // of such a one: under whose key the names are sealed

	batch dag.ID
	seen  bool // it was folded
}

func newRequest(n *node) *Request {
	if p := n.record.Replace; p != nil {
		return &Request{JoinRequest: p.request(), ID: n.id, Account: p.Keys.Identity, Replaces: n.account, Epoch: p.Epoch, batch: n.batch}
	}
	return &Request{JoinRequest: *n.record.JoinRequest, ID: n.id, Account: n.account, batch: n.batch}
}

// noteRequest takes a request in, whether it stands or not.
func (s *State) noteRequest(n *node) {
	if !n.record.asks() || s.requests[n.id] != nil {
		return
	}
	q := newRequest(n)
	s.requests[n.id] = q
	s.asks[q.Account] = append(slices.Clip(s.asks[q.Account]), n.id)
	s.asks[q.Certificate.Device] = append(slices.Clip(s.asks[q.Certificate.Device]), n.id)
	if q.Replaces != (dag.PublicKey{}) {
		s.asks[q.Replaces] = append(slices.Clip(s.asks[q.Replaces]), n.id)
	}
	s.waiting[q.Invite]++
}

// answered says what became of a request.
func (s *State) answered(q *Request, as RequestState) {
	if q.State == RequestOpen {
		s.waiting[q.Invite]--
	}
	q.State = as
}

// waits says whether an account, or who has a device, has an open request.
func (s *State) waits(key dag.PublicKey, but dag.PublicKey) bool {
	return slices.ContainsFunc(s.asks[key], func(id dag.ID) bool {
		q := s.requests[id]
		return q.State == RequestOpen && q.Account != but && (q.Account == key || q.Certificate.Device == key)
	})
}

// first is the role that an account has by the root.
func (s *State) first(account dag.PublicKey) Role {
	if s.Root.Owned(account) {
		return RoleOwner
	}
	return RoleNone
}

// target is the account that a record of an admin acts on.
func (s *State) target(rec *Record) (dag.PublicKey, bool) {
	switch {
	case rec.Accept != nil:
		if q := s.requests[rec.Accept.Request]; q != nil {
			return q.Account, true
		}
	case rec.ChangeRole != nil:
		return rec.ChangeRole.Account, true
	case rec.Remove != nil:
		return rec.Remove.Account, true
	case rec.Transfer != nil:
		return rec.Transfer.Account, true
	}
	return dag.PublicKey{}, false
}

// note takes what a standing record says about an account or an invitation, before the records are folded.
func (s *State) note(n *node) {
	rec := n.record
	add := func(account dag.PublicKey, a act) {
		a.n = n
		s.ended = s.ended || a.ends
		acts := s.acts[account]
		at, _ := slices.BinarySearchFunc(acts, a, func(x, y act) int { return x.n.pos.Compare(y.n.pos) })
		s.acts[account] = slices.Insert(acts, at, a)
	}
	switch {
	case rec.Invite != nil:
		if s.invites[n.id] == nil {
			s.invites[n.id] = &Invitation{Invite: *rec.Invite, ID: n.id, Author: n.account}
			s.keyed[rec.Invite.Key] = append(slices.Clip(s.keyed[rec.Invite.Key]), n.id)
		}
	case rec.Accept != nil:
		if q := s.requests[rec.Accept.Request]; q != nil {
			add(q.Account, act{grants: true, role: rec.Accept.Role})
		}
	case rec.Join != nil:
		if i := s.invites[rec.Join.Invite]; i != nil {
			add(n.account, act{grants: true, role: i.Role})
		}
	case rec.ChangeRole != nil:
		c := rec.ChangeRole
		add(c.Account, act{grants: true, ends: true, role: c.Role, tips: c.Tips})
	case rec.Remove != nil:
		add(rec.Remove.Account, act{ends: true, tips: rec.Remove.Tips})
	case rec.Leave != nil:
		add(n.account, act{ends: true, tips: rec.Leave.Tips})
	case rec.Adopt != nil:
		s.noteAdopted(rec.Adopt)
	case rec.Transfer != nil:
		add(rec.Transfer.Account, act{grants: true, role: RoleOwner})
		add(n.account, act{grants: true, ends: true, role: RoleAdmin})
	}
}

// revoke notes the revocation of an invitation, after all invitations were noted: also of others with its key for no higher role, which
// were made beside it. Whoever has the link has them all.
func (s *State) revoke(n *node) {
	if n.record == nil || n.record.RevokeInvite == nil {
		return
	}
	of := s.invites[n.record.RevokeInvite.Invite]
	if of == nil {
		return
	}
	for _, id := range s.keyed[of.Key] {
		if i := s.invites[id]; i == of || i.Role <= of.Role {
			i.revoked = append(i.revoked, n)
		}
	}
}

// granted says whether the grant that a record is has an effect.
func (s *State) granted(account dag.PublicKey, n *node) bool {
	acts := s.acts[account]
	at := slices.IndexFunc(acts, func(a act) bool { return a.n == n })
	return at >= 0 && len(acts[at].skipped) == 0
}

// foldShare takes the effect of the records by which others come, change and go.
func (s *State) foldShare(n *node) {
	rec := n.record
	switch {
	case rec.asks():
		s.requests[n.id].seen = true
		s.ask(n)
	case rec.Accept != nil:
		a := rec.Accept
		s.addWraps(a.Epoch, a.Wraps, n.account)
		q := s.requests[a.Request]
		if q == nil {
			return
		}
		s.answered(q, RequestAccepted)
		if i := s.invites[q.Invite]; i != nil {
			i.Used++
		}
		if s.granted(q.Account, n) {
			m := s.admit(n, q.Account, q.Keys, a.Role)
			m.Name, m.NameIn, m.Time = a.Name, a.Epoch, a.Time
			s.bring(m, Device{q.Certificate, n.id, a.Epoch, a.Device})
		}
	case rec.Join != nil:
		j := rec.Join
		s.addWraps(j.Epoch, j.Wraps, n.account)
		s.ask(n)
		i := s.invites[j.Invite]
		i.Used++
		if s.granted(n.account, n) {
			m := s.admit(n, n.account, j.Keys, i.Role)
			m.Name, m.NameIn, m.Time = j.Name, j.Epoch, j.Time
			s.bring(m, Device{j.Certificate, n.id, j.Epoch, j.Device})
		}
	case rec.Answer != nil:
		if q := s.requests[rec.Answer.Request]; q != nil && q.State == RequestOpen {
			if rec.Kind == KindCancel {
				s.answered(q, RequestCancelled)
			} else {
				s.answered(q, RequestDeclined)
			}
		}
	case rec.ChangeRole != nil:
		s.foldRole(n, rec.ChangeRole)
	case rec.Remove != nil:
		s.drop(rec.Remove.Account)
	case rec.Leave != nil:
		s.drop(n.account)
	case rec.Transfer != nil:
		s.foldTransfer(n)
	case rec.RevokeDevice != nil:
		s.foldRevocation(n)
	case rec.ShareKey != nil:
		s.addWraps(rec.ShareKey.Epoch, rec.ShareKey.Wraps, n.account)
		if e := s.epochs[rec.ShareKey.Epoch]; e != nil && len(rec.ShareKey.Agreed) > 0 {
			e.shared = append(e.shared, agreedBy{n.device, rec.ShareKey.Agreed})
		}
	case rec.Agree != nil:
		s.foldAgree(n)
	}
}

// foldRole gives a member another role. It is a grant of its own: where what made the account a member does not stand, the
// account is one by this record, with the device of its last request or join, whether that stands or not.
func (s *State) foldRole(n *node, c *ChangeRole) {
	if !s.granted(c.Account, n) {
		return
	}
	if m := s.members[c.Account]; m != nil {
		m.Role = c.Role
		return
	}
	if q, ok := s.asked[c.Account]; ok {
		m := s.admit(n, c.Account, q.keys, c.Role)
		s.bring(m, Device{Certificate: q.cert, Record: n.id})
	}
}

// asking is what an account said of itself when it asked to be a member.
type asking struct {
	keys AccountKeys
	cert Certificate
}

// ask notes what the author of a request or a join says of itself.
func (s *State) ask(n *node) {
	switch rec := n.record; {
	case rec.JoinRequest != nil:
		s.asked[n.account] = asking{rec.JoinRequest.Keys, rec.JoinRequest.Certificate}
	case rec.Join != nil:
		s.asked[n.account] = asking{rec.Join.Keys, rec.Join.Certificate}
	case rec.Replace != nil:
		s.asked[rec.Replace.Keys.Identity] = asking{rec.Replace.Keys, rec.Replace.Certificate}
	}
}

// admit makes an account a member, in the place of what it was.
func (s *State) admit(n *node, account dag.PublicKey, keys AccountKeys, role Role) *Member {
	m := s.members[account]
	if m == nil {
		m = &Member{Account: account, Since: n.id, Keys: keys}
		s.members[account] = m
	}
	m.Role = role
	for _, id := range s.asks[account] {
		if q := s.requests[id]; q.Account == account && q.seen && q.State == RequestOpen {
			s.answered(q, RequestLapsed)
		}
	}
	return m
}

// bring makes a device one of a member's, if it is not yet.
func (s *State) bring(m *Member, d Device) {
	if _, ok := m.Device(d.Device); !ok {
		s.enter(m, d, true) // by a request or a join of its own
	}
}

// voided notes a record that does not stand. Its epoch, if it began one, has still to be opened: others may have sealed in it
// before they knew.
func (s *State) voided(n *node) {
	s.void[n.account] = true
	s.ask(n)
	s.foldAgree(n)
	if account, ok := s.target(n.record); ok {
		s.void[account] = true
	}
	if k := n.record.next(); k != nil && s.epochs[n.id] == nil {
		s.addEpoch(newEpoch(n, k))
	}
}

func newEpoch(n *node, k *RotateKey) *Epoch {
	return &Epoch{ID: n.id, Pos: n.pos, Suite: k.Suite, Commitment: k.Commitment, Follows: k.Follows, Wraps: slices.Clip(k.Wraps), Agreed: k.Agreed, By: slices.Repeat([]dag.PublicKey{n.account}, len(k.Wraps)), node: n}
}

// Ended says whether any record took a right away, or does not stand.
func (s *State) Ended() bool { return s.ended || len(s.void) > 0 }

// Doubtful says whether some record ended a right of the account, or one that it had it from does not stand.
func (s *State) Doubtful(account dag.PublicKey) bool {
	if s.void[account] || s.revokers[account] {
		return true
	}
	acts := s.acts[account]
	if slices.ContainsFunc(acts, func(a act) bool { return a.ends || len(a.skipped) > 0 }) {
		return true
	}
	return s.Role(account) == RoleNone
}

// Invitation finds an invitation that stands.
func (s *State) Invitation(id dag.ID) (Invitation, bool) {
	if i := s.invites[id]; i != nil {
		return *i, true
	}
	return Invitation{}, false
}

// OpenInvitations are those by which one joins without being accepted, and that are not revoked, in order of their IDs.
func (s *State) OpenInvitations() (out []Invitation) {
	for _, i := range s.invites {
		if i.Open() && !i.Revoked() {
			out = append(out, *i)
		}
	}
	slices.SortFunc(out, func(a, b Invitation) int { return a.ID.Compare(b.ID) })
	return out
}

// InvitationsBy are those that have a key: one, or several that were made beside each other.
func (s *State) InvitationsBy(key dag.PublicKey) (out []Invitation) {
	for _, id := range s.keyed[key] {
		out = append(out, *s.invites[id])
	}
	return out
}

// Invitations returns copies of the invitations that stand, revoked ones too, in order of their IDs.
func (s *State) Invitations() []Invitation {
	out := make([]Invitation, 0, len(s.invites))
	for _, i := range s.invites {
		out = append(out, *i)
	}
	slices.SortFunc(out, func(a, b Invitation) int { return a.ID.Compare(b.ID) })
	return out
}

// Request finds a request, whatever became of it.
func (s *State) Request(id dag.ID) (Request, bool) {
	if q := s.requests[id]; q != nil {
		return *q, true
	}
	return Request{}, false
}

// RequestsOf are those of an account, the oldest first.
func (s *State) RequestsOf(account dag.PublicKey) (out []Request) {
	for _, id := range s.asks[account] {
		if q := s.requests[id]; q.Account == account {
			out = append(out, *q)
		}
	}
	return out
}

// Requests returns copies of all requests that were ever made, the oldest first by what they say themselves.
func (s *State) Requests() []Request {
	out := make([]Request, 0, len(s.requests))
	for _, q := range s.requests {
		out = append(out, *q)
	}
	slices.SortFunc(out, func(a, b Request) int {
		if a.Time != b.Time {
			if a.Time < b.Time {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return out
}

// Invited says whether a device that proves a key may see the list and ask to join: the key is that of an invitation which stands, is
// not revoked and, at a time in Unix seconds, not expired, nor overrun, but for a device that asked by it before and waits for the answer; nor used up, where it is
// open: by another kind those still listen who wait for their answer. A member's device may, whatever became of the invitation: it may have been let in
// while it was away.
func (s *State) Invited(key, device dag.PublicKey, now uint64) bool {
	if account, ok := s.devices[device]; ok && s.HasDevice(account, device) {
		return len(s.keyed[key]) > 0
	}
	return slices.ContainsFunc(s.keyed[key], func(id dag.ID) bool {
		i := s.invites[id]
		return !i.Revoked() && !(i.Open() && i.Full()) && ((i.Expires == 0 || now < i.Expires) && !s.Overrun(id) || s.awaits(id, device))
	})
}

// Overrun says whether an invitation is shown to nobody else any more, since so many asked by it and were not let in. Accounts are free, and a request that is
// taken back or declined stays in the list for good: who has a link could else fill the disks of all members.
func (s *State) Overrun(invite dag.ID) bool {
	if len(s.requests) < maxTried {
		return false
	}
	n := 0
	for _, q := range s.requests {
		if q.Invite == invite && q.State != RequestAccepted {
			n++
		}
	}
	return n >= maxTried
}

// awaits says whether a device asked by an invitation, and has no answer yet.
func (s *State) awaits(invite dag.ID, device dag.PublicKey) bool {
	return slices.ContainsFunc(s.asks[device], func(id dag.ID) bool {
		q := s.requests[id]
		return q.Invite == invite && q.Certificate.Device == device && q.State == RequestOpen
	})
}
