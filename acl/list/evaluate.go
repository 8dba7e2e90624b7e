package list

import (
	"math/bits"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Which records stand, as a function of the set of them: the owner's are decided first, then the admins', then the rest. No
// layer depends on a lower one, and within the first two no record depends on another of its layer. ../ACL.md has the rules
// and a table of what concurrent records come to.

// act is a standing record that changes what an account may do.
type act struct {
	n       *node
	grants  bool // the account has Role from here on, as a member
	ends    bool // what takes a higher role than Role is ended, also beside the record
	role    Role // RoleNone: the account is no member
	tips    []dag.ID
	skipped []*node // removals of the account beside a grant: where one of them is known the grant has no effect
}

// reach says which earlier nodes of an order are in a node's past: all before full, and those in bits, which begin there.
type reach struct {
	full int
	bits []uint64
}

func (r *reach) has(i int) bool {
	if i < r.full {
		return true
	}
	i -= r.full
	return i/64 < len(r.bits) && r.bits[i/64]>>(i%64)&1 == 1
}

// reaches are the pasts of the nodes of an order.
type reaches struct {
	pasts []reach
	at    map[dag.ID]int // by the batch, its place in the order
}

// add takes in a node that has all others in its past.
func (r *reaches) add(n *node) {
	r.at[n.batch] = len(r.pasts)
	r.pasts = append(r.pasts, reach{full: len(r.pasts)})
}

// within says of a node whether heads and their past hold it; nil where one of them is not known. Whoever holds what it gives holds the list's mu.
func (r *reaches) within(heads []dag.ID) func(*node) bool {
	if r == nil {
		return nil
	}
	tops := make([]int, len(heads))
	for i := range heads {
		at, ok := r.at[heads[i]]
		if !ok {
			return nil
		}
		tops[i] = at
	}
	return func(n *node) bool {
		at, ok := r.at[n.batch]
		return ok && slices.ContainsFunc(tops, func(h int) bool { return h == at || h > at && r.pasts[h].has(at) })
	}
}

// pasts computes the past of each node of an order that is closed under pasts.
func pasts(order []*node) *reaches {
	at := make(map[dag.ID]int, len(order))
	out := make([]reach, len(order))
	for i, n := range order {
		at[n.batch] = i
		full, end := 0, 0 // all before full are in the past, and none from end on
		for _, p := range n.past {
			k := at[p]
			full, end = max(full, out[k].full), max(end, k+1)
		}
		set := make([]uint64, max(0, end-full+63)/64)
		for _, p := range n.past {
			k := at[p]
			orFrom(set, out[k].bits, full-out[k].full)
			if x := k - full; x >= 0 {
				set[x/64] |= 1 << (x % 64)
			}
		}
		// What is all set belongs to full.
		whole := 0
		for _, w := range set {
			ones := bits.TrailingZeros64(^w)
			if whole += ones; ones < 64 {
				break
			}
		}
		out[i].full = full + whole
		if n := max(0, end-out[i].full+63) / 64; n > 0 {
			out[i].bits = make([]uint64, n)
			orFrom(out[i].bits, set, whole)
		}
	}
	return &reaches{out, at}
}

// orFrom sets the bits of dst that are set in src from a place on.
func orFrom(dst, src []uint64, from int) {
	words, shift := from/64, from%64
	for i := range dst {
		at := i + words
		if at >= len(src) {
			return
		}
		dst[i] |= src[at] >> shift
		if shift > 0 && at+1 < len(src) {
			dst[i] |= src[at+1] << (64 - shift)
		}
	}
}

// judge decides which records of an order stand.
type judge struct {
	s     *State
	order []*node
	*reaches
	void      map[*node]bool
	transfers []*node                  // that stand, in order
	places    map[dag.PublicKey]dag.ID // members whose place another took, and by which request
	dead      map[*node]bool           // records that stand, and whose epoch does not: their author could not begin one
}

// evaluate is the state that a set of records comes to: order holds it in total order, and is closed under pasts.
func evaluate(root *Root, space dag.ID, order []*node) (*State, *reaches) {
	s := newState(root, space)
	j := &judge{s: s, order: order, reaches: pasts(order), void: make(map[*node]bool), dead: make(map[*node]bool), places: make(map[dag.PublicKey]dag.ID)}
	for _, n := range order {
		s.noteRequest(n)
	}
	j.decide()
	j.beside()
	for _, n := range order {
		if !j.void[n] {
			s.fold(n)
		} else {
			s.voided(n)
		}
	}
	s.lapse(j)
	j.clean()
	return s, j.reaches
}

// in says whether a is in the past of b.
func (j *judge) in(a, b *node) bool {
	x, y := j.at[a.batch], j.at[b.batch]
	return x < y && j.pasts[y].has(x)
}

// aside says whether two records know nothing of each other.
func (j *judge) aside(a, b *node) bool { return a != b && !j.in(a, b) && !j.in(b, a) }

// decide fills void and the acts of the state.
func (j *judge) decide() {
	for _, n := range j.order {
		j.s.noteDevices(n)
	}
	// What a device wrote beside its being revoked has no effect, but that it revoked others: that is its account's word.
	for _, n := range j.order {
		if n.record != nil && n.record.RevokeDevice == nil && j.cut(n) {
			j.void[n] = true
		}
	}
	j.owners()
	// Whoever leaves may, whatever else happened, but for who owns the space.
	top := make(map[*node]bool)
	for _, n := range j.order {
		if n.record == nil || j.void[n] {
			continue
		}
		if n.record.Leave != nil {
			owner, _ := j.ownerAt(n)
			j.void[n] = n.account == owner && j.s.Root.Kind != RootOneToOne
			top[n] = true
		} else {
			top[n] = j.owns(n)
		}
		if top[n] && !j.void[n] && j.taken(n) {
			j.void[n] = true
		}
		if top[n] && !j.void[n] {
			j.s.note(n)
		}
	}
	var admins []*node
	for _, n := range j.order {
		if n.record == nil || top[n] || !asksAdmin(n.record) || j.void[n] {
			continue
		}
		if !j.holds(n, j.needs(n)) || j.raised(n) || j.taken(n) {
			j.void[n] = true
		} else {
			admins = append(admins, n)
		}
	}
	for _, n := range admins {
		j.s.note(n)
	}
	for _, n := range j.order {
		if !j.void[n] {
			j.s.revoke(n)
		}
	}
	used := make(map[dag.ID]uint64)
	for _, n := range j.order {
		rec := n.record
		if rec == nil || top[n] || asksAdmin(rec) || j.void[n] {
			continue
		}
		switch {
		case rec.JoinRequest != nil:
			j.void[n] = j.revoked(n, rec.JoinRequest.Invite)
		case rec.Join != nil:
			i := j.s.invites[rec.Join.Invite]
			j.void[n] = j.revoked(n, rec.Join.Invite) || i.Uses > 0 && used[i.ID] >= i.Uses
			if !j.void[n] {
				used[i.ID]++
				j.s.note(n)
			}
		case rec.Kind == KindCancel:
		case rec.RevokeDevice != nil:
			j.dead[n] = rec.next() != nil && !j.holds(n, RoleWriter)
		default:
			j.void[n] = !j.holds(n, needed(rec.Kind))
		}
	}
}

// asksAdmin says whether a record is of the second layer where the owner did not write it.
func asksAdmin(rec *Record) bool { return needs[rec.Kind] == RoleAdmin }

// holds says whether standing records of n's past give its author a role, and none beside it takes that away.
func (j *judge) holds(n *node, need Role) bool {
	acts := j.s.acts[n.account]
	if roleBy(j.s.first(n.account), acts, func(o *node) bool { return j.in(o, n) }, j.aside) < need {
		return false
	}
	return !slices.ContainsFunc(acts, func(a act) bool { return a.ends && a.role < need && j.aside(a.n, n) })
}

// raised says whether the owner, beside an admin's record, made the account an admin that it acts on.
func (j *judge) raised(n *node) bool {
	account, ok := j.s.target(n.record)
	return ok && slices.ContainsFunc(j.s.acts[account], func(a act) bool { return a.grants && a.role >= RoleAdmin && j.aside(a.n, n) })
}

// revoked says whether an invitation does not stand, or was revoked beside its use.
func (j *judge) revoked(n *node, id dag.ID) bool {
	i := j.s.invites[id]
	return i == nil || slices.ContainsFunc(i.revoked, func(r *node) bool { return j.aside(r, n) })
}

// beside notes at each grant which removals it has no effect against.
func (j *judge) beside() {
	for _, acts := range j.s.acts {
		for i := range acts {
			for k := range acts {
				if acts[i].grants && acts[k].ends && acts[k].role == RoleNone && j.aside(acts[i].n, acts[k].n) {
					acts[i].skipped = append(acts[i].skipped, acts[k].n)
				}
			}
		}
	}
}

// roleBy is the role that acts give an account which had one at first: known says which of them are looked at, aside whether
// two know nothing of each other (nil: as noted in skipped).
func roleBy(role Role, acts []act, known func(*node) bool, aside func(a, b *node) bool) Role {
	for i := range acts {
		a := &acts[i]
		if !known(a.n) {
			continue
		}
		if !a.grants {
			role = min(role, a.role)
			continue
		}
		skip := slices.ContainsFunc(a.skipped, known)
		if aside != nil {
			skip = slices.ContainsFunc(acts, func(e act) bool {
				return e.ends && e.role == RoleNone && known(e.n) && aside(e.n, a.n)
			})
		}
		if !skip {
			role = a.role
		}
	}
	return role
}

// lapse takes out what waits for nothing any more: requests that do not stand.
func (s *State) lapse(j *judge) {
	for _, n := range j.order {
		if n.record.asks() && j.void[n] {
			if q := s.requests[n.id]; q != nil && q.batch == n.batch && q.State == RequestOpen {
				s.answered(q, RequestLapsed)
			}
		}
	}
}

// clean says of each epoch whether nobody has its key who is to have none.
func (j *judge) clean() {
	var ended []*node
	for _, n := range j.order {
		if n.record != nil && !j.void[n] && j.s.endsKeys(n) {
			ended = append(ended, n)
		}
	}
	slices.Reverse(ended) // the last ones are in the past of no epoch but the last: so most are found unclean at once
	for _, e := range j.s.order {
		e.Clean = e.node == nil && len(ended) == 0 || e.node != nil && !j.void[e.node] && !j.dead[e.node] &&
			!slices.ContainsFunc(ended, func(n *node) bool { return n != e.node && !j.in(n, e.node) && !j.out(n, e.node) })
	}
}

// out says whether the account whose membership or device a record ended is out by what an epoch's record knows or does, and was let in by nothing
// since that does not know of both: that epoch's key is for others. Else who is out could write leaves from before, and make the others begin epochs as often as
// it likes.
func (j *judge) out(n, epoch *node) bool {
	account, ok := ends(n)
	if !ok {
		return false
	}
	acts := j.s.acts[account]
	return slices.ContainsFunc(acts, func(a act) bool {
		return a.ends && a.role == RoleNone && (a.n == epoch || j.in(a.n, epoch)) &&
			!slices.ContainsFunc(acts, func(g act) bool { return g.grants && j.in(a.n, g.n) && !j.in(n, g.n) })
	})
}

// ends is the account whose membership, or device, a record ends.
func ends(n *node) (dag.PublicKey, bool) {
	switch rec := n.record; {
	case rec.Remove != nil:
		return rec.Remove.Account, true
	case rec.Leave != nil, rec.RevokeDevice != nil:
		return n.account, true
	}
	return dag.PublicKey{}, false
}

// endsKeys says whether keys from before a record are known to someone who is to have none from then on.
func (s *State) endsKeys(n *node) bool {
	rec := n.record
	if rec.RevokeDevice != nil {
		return s.brought[ofDevice{n.account, rec.RevokeDevice.Device}]
	}
	return rec.Remove != nil || rec.Leave != nil || rec.RevokeInvite != nil && rec.RevokeInvite.Next != nil
}
