package list

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Transfer makes a member the owner; its author, who was that, becomes an admin.
type Transfer struct{ Account dag.PublicKey }

func (s *State) allowsTransfer(b *dag.Batch, t *Transfer) error {
	switch {
	case s.Root.Kind == RootDerived && !s.succeeds(t.Account, b.Account):
		return denied("a space that is derived from its owner's account is that account's, or that of one which takes its place")
	case t.Account == b.Account:
		return denied("a transfer to who owns the space")
	case s.Role(t.Account) == RoleNone:
		return denied("a transfer to who is no member")
	}
	return nil
}

// owners finds the transfers that stand: of each owner's the first in total order that knows of how it came to be owner, and beside which
// the new owner does not leave. Each has those before it in its past.
func (j *judge) owners() {
	owner := j.s.Root.Owner.Identity
	var last *node
	leaves := make(map[dag.PublicKey][]*node)
	for _, n := range j.order {
		if n.record != nil && n.record.Leave != nil && !j.void[n] {
			leaves[n.account] = append(leaves[n.account], n)
		}
	}
	for _, n := range j.order {
		if n.record == nil || n.record.Transfer == nil || j.void[n] {
			continue
		}
		to := n.record.Transfer.Account
		left := slices.ContainsFunc(leaves[to], func(o *node) bool { return j.aside(o, n) })
		if n.account != owner || last != nil && !j.in(last, n) || left {
			j.void[n] = true
			continue
		}
		j.transfers = append(j.transfers, n)
		owner, last = to, n
	}
}

// ownerAt is the owner by the transfers in n's past; next is the one that follows, nil where there is none.
func (j *judge) ownerAt(n *node) (owner dag.PublicKey, next *node) {
	owner = j.s.Root.Owner.Identity
	for _, t := range j.transfers {
		if !j.in(t, n) {
			return owner, t
		}
		owner = t.record.Transfer.Account
	}
	return owner, nil
}

// owns says whether a record is by the owner, who gives the space away in nothing beside it; or by one of the two who own a one-to-one space.
func (j *judge) owns(n *node) bool {
	if j.s.Root.Kind == RootOneToOne {
		return j.s.Root.Owned(n.account)
	}
	owner, next := j.ownerAt(n)
	return n.account == owner && (next == nil || next == n || !j.aside(next, n))
}

// needs is the role that a record which asks for an admin takes: that of the owner where it makes an admin or acts on one. Who was the
// owner may have written such a record beside the transfer.
func (j *judge) needs(n *node) Role {
	rec := n.record
	if rec.Invite != nil && rec.Invite.Role >= RoleAdmin || rec.Accept != nil && rec.Accept.Role >= RoleAdmin || rec.ChangeRole != nil && rec.ChangeRole.Role >= RoleAdmin {
		return RoleOwner
	}
	if account, ok := j.s.target(rec); ok {
		if roleBy(j.s.first(account), j.s.acts[account], func(o *node) bool { return j.in(o, n) }, j.aside) >= RoleAdmin {
			return RoleOwner
		}
	}
	return RoleAdmin
}

// foldTransfer makes the one the owner and the other an admin.
func (s *State) foldTransfer(n *node) {
	to := n.record.Transfer.Account
	if s.foldRole(n, &ChangeRole{Role: RoleOwner, Account: to}); s.Role(to) == RoleOwner {
		s.owner = to
	}
	if m := s.members[n.account]; m != nil {
		m.Role = RoleAdmin
	}
}
