package list

import (
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// maxRequests bounds the open requests of one invitation, by the past of each.
const maxRequests = 1000

// maxTried is after how many requests that were not accepted an invitation is overrun.
const maxTried = 2 * maxRequests

func denied(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDenied, fmt.Sprintf(format, args...))
}

// allowsShare judges the records by which members bring others in, change and end memberships. Role and device of the
// author were looked at.
func (s *State) allowsShare(b *dag.Batch, rec *Record) error {
	author := s.Role(b.Account)
	switch {
	case rec.Invite != nil:
		return s.allowsInvite(rec.Invite, author)
	case rec.RevokeInvite != nil:
		r := rec.RevokeInvite
		i := s.invites[r.Invite]
		switch {
		case i == nil || i.Revoked():
			return denied("an invitation that is not there, or is revoked")
		case i.Role >= author:
			return denied("a %s cannot revoke an invitation for %s", author, i.Role)
		case i.Open() != (r.Next != nil):
			return denied("the revocation of an open invitation begins an epoch, and no other does")
		case r.Next != nil:
			for k := range r.Next.Wraps {
				if r.Next.Wraps[k].To == i.Key {
					return denied("an epoch's key wrapped to the invitation that ends with it")
				}
			}
			return s.allowsEpoch(r.Next, dag.PublicKey{})
		}
	case rec.Accept != nil:
		return s.allowsAccept(rec.Accept, author)
	case rec.Kind == KindDecline:
		if q := s.requests[rec.Answer.Request]; q == nil || q.State != RequestOpen {
			return denied("a request that is not open")
		}
	case rec.ChangeRole != nil:
		c := rec.ChangeRole
		switch have := s.Role(c.Account); {
		case have == RoleNone:
			return denied("the role of who is no member")
		case have >= author || c.Role >= author:
			return denied("%s cannot make %s %s", author, have, c.Role)
		case have == c.Role:
			return denied("the member is %s already", have)
		}
	case rec.Remove != nil:
		m := rec.Remove
		switch have := s.Role(m.Account); {
		case have == RoleNone:
			return denied("the removal of who is no member")
		case have >= author:
			return denied("%s cannot remove %s", author, have)
		}
		return s.allowsEpoch(m.Next, m.Account)
	case rec.Leave != nil:
		if author == RoleOwner && s.Root.Kind != RootOneToOne {
			return denied("the owner cannot leave")
		}
	case rec.Transfer != nil:
		return s.allowsTransfer(b, rec.Transfer)
	case rec.Replace != nil:
		return s.allowsReplace(b, rec.Replace)
	case rec.RevokeDevice != nil:
		return s.allowsRevocation(b, rec.RevokeDevice, author)
	case rec.ShareKey != nil:
		if s.epochs[rec.ShareKey.Epoch] == nil {
			return denied("the key of an unknown epoch")
		}
		if err := s.allowsAgreed(rec.ShareKey.Agreed, dag.PublicKey{}); err != nil {
			return err
		}
		return s.allowsWraps(rec.ShareKey.Wraps, dag.PublicKey{})
	case rec.Agree != nil:
		return s.allowsAgree(rec.Agree)
	}
	return nil
}

func (s *State) allowsInvite(i *Invite, author Role) error {
	switch {
	case i.Role >= author:
		return denied("%s cannot invite %s", author, i.Role)
	case i.Open() && i.Role >= RoleAdmin: // no record of the layers above would make that one an admin, so that none of its own could stand
		return denied("an open invitation for admins")
	case s.epochs[i.Epoch] == nil:
		return denied("an invitation sealed in an unknown epoch")
	case i.Open() != (len(i.Wraps) == 1) || len(i.Wraps) > 1:
		return denied("an open invitation has one wrap, and no other has any")
	case i.Open() && i.Wraps[0].To != i.Key:
		return denied("an invitation that wraps a key to others")
	}
	if len(s.keyed[i.Key]) > 0 {
		return denied("the key of another invitation")
	}
	return nil
}

func (s *State) allowsAccept(a *Accept, author Role) error {
	q := s.requests[a.Request]
	switch {
	case q == nil || q.State != RequestOpen:
		return denied("a request that is not open")
	case a.Role >= author:
		return denied("%s cannot make others %s", author, a.Role)
	case q.Replaces != (dag.PublicKey{}) && s.replaced(q.Replaces):
		return denied("the place of %s was taken already", FormatIdentity(q.Replaces))
	case s.Role(q.Account) != RoleNone:
		return denied("a request of who is a member")
	case s.epochs[a.Epoch] == nil:
		return denied("an acceptance sealed in an unknown epoch")
	}
	for i := range a.Wraps {
		if to := a.Wraps[i].To; to != q.Account && to != q.Certificate.Device {
			return denied("an epoch's key wrapped to others than who is accepted")
		}
	}
	return nil
}

// allowsStranger judges a record of who is no member: it proves an invitation.
func (s *State) allowsStranger(b *dag.Batch, rec *Record) error {
	if rec.Kind == KindCancel {
		if q := s.requests[rec.Answer.Request]; q == nil || q.State != RequestOpen || q.Account != b.Account {
			return denied("a request that is not open, or another's")
		}
		return nil
	}
	if s.Role(b.Account) != RoleNone {
		return denied("%s is a member already", FormatIdentity(b.Account))
	}
	if s.Revoked(b.Account, b.Device) {
		return denied("device %s was revoked", PeerID(b.Device))
	}
	if rec.JoinRequest != nil {
		q := rec.JoinRequest
		i := s.invites[q.Invite]
		if i == nil || i.Revoked() || i.Open() || i.Full() {
			return denied("an invitation that is not there, is revoked or used up, or takes no requests")
		}
		if slices.ContainsFunc(s.asks[b.Account], func(id dag.ID) bool {
			o := s.requests[id]
			return o.State == RequestOpen && o.Account == b.Account
		}) {
			return denied("a second request of %s", FormatIdentity(b.Account))
		}
		if s.waiting[q.Invite] >= maxRequests {
			return denied("more than %d requests by one invitation", maxRequests)
		}
		return s.proved(b, &q.Keys, &q.Certificate, q.Proof, i)
	}
	j := rec.Join
	i := s.invites[j.Invite]
	switch {
	case i == nil || i.Revoked() || !i.Open() || i.Full():
		return denied("an invitation that is not there, is revoked or used up, or asks for approval")
	case s.epochs[j.Epoch] == nil:
		return denied("a member's name sealed in an unknown epoch")
	}
	for k := range j.Wraps {
		if to := j.Wraps[k].To; to != b.Account && to != b.Device {
			return denied("an epoch's key wrapped to others than who joins")
		}
	}
	return s.proved(b, &j.Keys, &j.Certificate, j.Proof, i)
}
