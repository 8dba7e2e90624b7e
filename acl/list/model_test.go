package list

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
	"pgregory.net/rapid"
)

// model says which records stand and who is a member, straight from the rules: sets, no indexes, no layers but in the
// recursion.
type model struct {
	nodes []*node // in total order
	past  map[*node]map[*node]bool
	owner dag.PublicKey
	first dag.PublicKey  // the root's device
	chain []*node        // transfers that stand
	known map[*node]bool // verdicts
}

func newModel(l *List) *model {
	m := &model{nodes: l.order, past: map[*node]map[*node]bool{}, owner: l.root.Owner.Identity, first: l.root.Device.Device, known: map[*node]bool{}}
	for _, n := range m.nodes {
		p := map[*node]bool{}
		for _, id := range n.past {
			o := l.nodes[id]
			p[o] = true
			maps.Copy(p, m.past[o])
		}
		m.past[n] = p
	}
	m.transfers(m.owner, nil)
	return m
}

// transfers finds those that stand from an owner on, who was made that by after.
func (m *model) transfers(owner dag.PublicKey, after *node) {
	for _, n := range m.nodes {
		if n.record == nil || n.record.Transfer == nil || n.account != owner || m.cut(n) || after != nil && !m.past[n][after] {
			continue
		}
		to := n.record.Transfer.Account
		if slices.ContainsFunc(m.nodes, func(o *node) bool {
			return o.account == to && o.record != nil && o.record.Leave != nil && !m.cut(o) && m.beside(o, n)
		}) {
			continue
		}
		m.chain = append(m.chain, n)
		m.transfers(to, n)
		return
	}
}

// ownedBy says whose the space is by n's past, and what gives it away beside n.
func (m *model) ownedBy(n *node) (owner dag.PublicKey, beside *node) {
	owner = m.owner
	for _, t := range m.chain {
		if m.past[n][t] {
			owner = t.record.Transfer.Account
		}
	}
	for _, t := range m.chain {
		if t.account == owner && m.beside(t, n) && m.next(n) == t {
			beside = t
		}
	}
	return owner, beside
}

// next is the first transfer that stands and is not in n's past.
func (m *model) next(n *node) *node {
	for _, t := range m.chain {
		if !m.past[n][t] {
			return t
		}
	}
	return nil
}

func (m *model) beside(a, b *node) bool { return a != b && !m.past[a][b] && !m.past[b][a] }

func (m *model) find(id dag.ID) *node {
	for _, n := range m.nodes {
		if n.id == id && n.record != nil {
			return n
		}
	}
	return nil
}

// says is what a record does to an account: the role it gives or leaves; grant and end may both be.
func (m *model) says(n *node, account dag.PublicKey) (role Role, grant, end bool) {
	rec := n.record
	switch {
	case rec == nil:
	case rec.Accept != nil && m.find(rec.Accept.Request).account == account:
		return rec.Accept.Role, true, false
	case rec.Join != nil && n.account == account:
		return m.find(rec.Join.Invite).record.Invite.Role, true, false
	case rec.ChangeRole != nil && rec.ChangeRole.Account == account:
		return rec.ChangeRole.Role, true, true
	case rec.Transfer != nil && rec.Transfer.Account == account:
		return RoleOwner, true, false
	case rec.Transfer != nil && n.account == account:
		return RoleAdmin, true, true
	case rec.Remove != nil && rec.Remove.Account == account, rec.Leave != nil && n.account == account:
		return RoleNone, false, true
	}
	return 0, false, false
}

// role is an account's by a set of records.
func (m *model) role(account dag.PublicKey, in func(*node) bool) Role {
	role := RoleNone
	if account == m.owner {
		role = RoleOwner
	}
	for _, n := range m.nodes {
		r, grant, end := m.says(n, account)
		if !in(n) || !grant && !end {
			continue
		}
		if grant && slices.ContainsFunc(m.nodes, func(o *node) bool {
			_, g, e := m.says(o, account)
			return e && !g && in(o) && m.beside(o, n)
		}) {
			continue
		}
		role = r
	}
	return role
}

func (m *model) top(n *node) bool {
	if m.cut(n) {
		return false
	}
	owner, away := m.ownedBy(n)
	switch {
	case n.record == nil:
		return true
	case n.record.Leave != nil:
		return n.account != owner
	case n.record.Transfer != nil:
		return slices.Contains(m.chain, n)
	}
	return n.account == owner && away == nil
}

// cut says whether the device that wrote n was revoked beside it.
func (m *model) cut(n *node) bool {
	return n.record != nil && n.record.RevokeDevice == nil && slices.ContainsFunc(m.nodes, func(o *node) bool {
		return o.record != nil && o.record.RevokeDevice != nil && o.account == n.account && o.record.RevokeDevice.Device == n.device && m.beside(o, n)
	})
}

func (m *model) stands(n *node) bool {
	if v, ok := m.known[n]; ok {
		return v
	}
	v := m.judge(n)
	m.known[n] = v
	return v
}

func (m *model) judge(n *node) bool {
	rec := n.record
	if m.cut(n) {
		return false
	}
	if m.top(n) || rec == nil || rec.Kind == KindCancel || rec.RevokeDevice != nil {
		return true
	}
	revoked := func(invite dag.ID) bool {
		i := m.find(invite)
		return !m.stands(i) || slices.ContainsFunc(m.nodes, func(o *node) bool {
			return o.record != nil && o.record.RevokeInvite != nil && m.ends(o, i) && m.stands(o) && m.beside(o, n)
		})
	}
	if rec.JoinRequest != nil {
		return !revoked(rec.JoinRequest.Invite)
	}
	if rec.Join != nil {
		return !revoked(rec.Join.Invite) && m.uses(n) // uses is asked last: it looks at those before
	}
	if rec.Leave != nil || rec.Transfer != nil {
		return false
	}
	return m.holds(n, m.need(n))
}

// holds says whether n's author had a role by what stands in its past, and nothing beside it takes that away.
func (m *model) holds(n *node, need Role) bool {
	rec := n.record
	may := m.top
	if !asksAdmin(rec) {
		may = func(o *node) bool { return m.top(o) || m.stands(o) && (asksAdmin(o.record) || m.past[n][o]) }
	}
	if m.role(n.account, func(o *node) bool { return m.past[n][o] && may(o) }) < need {
		return false
	}
	for _, o := range m.nodes {
		if !m.beside(o, n) || o.record == nil {
			continue
		}
		if asksAdmin(rec) && !m.top(o) || !asksAdmin(rec) && !m.top(o) && !(asksAdmin(o.record) && m.stands(o)) {
			continue
		}
		if role, _, end := m.says(o, n.account); end && role < need {
			return false
		}
		for _, about := range m.targets(rec) {
			if role, grant, _ := m.says(o, about); asksAdmin(rec) && grant && role >= RoleAdmin {
				return false
			}
		}
	}
	return true
}

func (m *model) targets(rec *Record) []dag.PublicKey {
	switch {
	case rec.Accept != nil:
		return []dag.PublicKey{m.find(rec.Accept.Request).account}
	case rec.ChangeRole != nil:
		return []dag.PublicKey{rec.ChangeRole.Account}
	case rec.Remove != nil:
		return []dag.PublicKey{rec.Remove.Account}
	}
	return nil
}

// need is the role that n takes of its author.
func (m *model) need(n *node) Role {
	rec := n.record
	if !asksAdmin(rec) {
		return needed(rec.Kind)
	}
	given := RoleNone
	switch {
	case rec.Invite != nil:
		given = rec.Invite.Role
	case rec.Accept != nil:
		given = rec.Accept.Role
	case rec.ChangeRole != nil:
		given = rec.ChangeRole.Role
	}
	for _, a := range m.targets(rec) {
		given = max(given, m.role(a, func(o *node) bool { return m.past[n][o] && m.top(o) }))
	}
	if given >= RoleAdmin {
		return RoleOwner
	}
	return RoleAdmin
}

// ends says whether the revocation o is one of the invitation i: of that, or of one with its key for no lower role.
func (m *model) ends(o, i *node) bool {
	of := m.find(o.record.RevokeInvite.Invite)
	return of == i || m.stands(of) && of.record.Invite.Key == i.record.Invite.Key && i.record.Invite.Role <= of.record.Invite.Role
}

// uses says whether fewer joins by the invitation stand before n than it has uses.
func (m *model) uses(n *node) bool {
	limit := m.find(n.record.Join.Invite).record.Invite.Uses
	before := uint64(0)
	for _, o := range m.nodes {
		if o == n {
			break
		}
		if o.record != nil && o.record.Join != nil && o.record.Join.Invite == n.record.Join.Invite && m.stands(o) {
			before++
		}
	}
	return limit == 0 || before < limit
}

// describe is what the model says of a list, in words that stateWords gives too.
func (m *model) describe(accounts []dag.PublicKey) string {
	var b bytes.Buffer
	all := func(n *node) bool { return m.stands(n) }
	for _, a := range accounts {
		fmt.Fprintf(&b, "%x %s\n", a[:4], m.role(a, all))
	}
	for _, n := range m.nodes {
		if n.record == nil || n.record.next() == nil {
			continue
		}
		clean := m.stands(n) && (n.record.RevokeDevice == nil || m.holds(n, RoleWriter))
		for _, o := range m.nodes {
			if o != n && o.record != nil && m.stands(o) && m.endsKeys(o) && !m.out(o, n) && !m.past[n][o] {
				clean = false
			}
		}
		fmt.Fprintln(&b, n.id, clean)
	}
	return b.String()
}

// out says whether an epoch's record knows or does what ended the same membership as o, after which nothing let the account in.
func (m *model) out(o, epoch *node) bool {
	account := o.account
	switch {
	case o.record.Remove != nil:
		account = o.record.Remove.Account
	case o.record.Leave == nil && o.record.RevokeDevice == nil:
		return false
	}
	return slices.ContainsFunc(m.nodes, func(e *node) bool {
		role, grant, end := m.says(e, account)
		if !end || grant || role != RoleNone || !m.stands(e) || e != epoch && !m.past[epoch][e] {
			return false
		}
		return !slices.ContainsFunc(m.nodes, func(g *node) bool {
			_, grant, _ := m.says(g, account)
			return grant && m.stands(g) && m.past[g][e] && !m.past[g][o]
		})
	})
}

// endsKeys says whether somebody is to have no more keys from o on.
func (m *model) endsKeys(o *node) bool {
	rec := o.record
	if rec.RevokeDevice == nil {
		return rec.Remove != nil || rec.Leave != nil || rec.RevokeInvite != nil && rec.RevokeInvite.Next != nil
	}
	device := rec.RevokeDevice.Device
	return m.first == device && o.account == m.owner || slices.ContainsFunc(m.nodes, func(n *node) bool {
		if n.record == nil || n.account != o.account {
			return false
		}
		return n.record.AddDevice != nil && n.record.AddDevice.Certificate.Device == device || (n.record.JoinRequest != nil || n.record.Join != nil) && n.device == device
	})
}

func stateWords(s *State, accounts []dag.PublicKey) string {
	var b bytes.Buffer
	for _, a := range accounts {
		fmt.Fprintf(&b, "%x %s\n", a[:4], s.Role(a))
	}
	for _, e := range s.Epochs() {
		if e.ID != s.Space {
			fmt.Fprintln(&b, e.ID, e.Clean)
		}
	}
	return b.String()
}

// TestHistories: random histories, written by many beside each other, come to the same everywhere, in any order of delivery,
// and to what the model says.
func TestHistories(t *testing.T) {
	var beside, removed, voided, revoked, cut, transfers, gaveUp, adopted int
	histories := func(rt *rapid.T) {
		p := newParty(t, "adm:admin", "wri:writer")
		p.second("wri", "wri2")
		p.sync()
		names := []string{"owner", "owner2", "adm", "wri", "wri2", "eve", "bob"}
		for i, n := range names[5:] {
			p.who[n] = newActor(byte(40+i), 1)
			p.replica(n)
			p.send("owner", n)
		}
		var accounts []dag.PublicKey
		for _, n := range names {
			if n != "owner2" && n != "wri2" {
				accounts = append(accounts, public(p.who[n].account))
			}
		}
		secrets := map[dag.ID]byte{}
		adoptable := map[dag.ID]bool{}
		seed := byte(100)
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "who")
			l := p.lists[name]
			s := l.State()
			about := p.who[rapid.SampledFrom(names).Draw(rt, "about")]
			role := Role(rapid.IntRange(int(RoleReader), int(RoleAdmin)).Draw(rt, "role"))
			var epochs []dag.ID
			for _, e := range s.Epochs() {
				epochs = append(epochs, e.ID)
			}
			epoch := rapid.SampledFrom(epochs).Draw(rt, "epoch")
			var rec *Record
			switch rapid.IntRange(0, 16).Draw(rt, "what") {
			case 0, 1, 2, 3:
				p.send(rapid.SampledFrom(names).Draw(rt, "from"), name)
				continue
			case 4:
				if seed == 100 || rapid.IntRange(0, 3).Draw(rt, "other key") > 0 {
					seed++
				}
				rec = invite(seed, role, epoch)
				if rapid.Bool().Draw(rt, "open") {
					rec = openInvite(seed, role, epoch, uint64(rapid.IntRange(0, 1).Draw(rt, "uses")))
				}
			case 5:
				rec = changeRole(about, role)
			case 6:
				rec = remove(about, next(epoch))
			case 7:
				rec = leave()
			case 8:
				rec = rotate(epoch)
			case 9, 10:
				if is := s.Invitations(); len(is) > 0 {
					i := rapid.SampledFrom(is).Draw(rt, "invitation")
					rec = p.who[name].request(p.space, secrets[i.ID], i.ID)
					if i.Open() {
						rec = p.who[name].join(p.space, secrets[i.ID], i.ID)
					}
				}
			case 11:
				if qs := s.Requests(); len(qs) > 0 {
					q := rapid.SampledFrom(qs).Draw(rt, "request")
					kinds := []*Record{accept(q.ID, role, epoch), accept(q.ID, RoleReader, epoch), answer(KindDecline, q.ID), answer(KindCancel, q.ID)}
					rec = rapid.SampledFrom(kinds).Draw(rt, "answer")
				}
			case 12:
				if is := s.Invitations(); len(is) > 0 {
					i := rapid.SampledFrom(is).Draw(rt, "invitation")
					rec = revoke(i.ID, nil)
					if i.Open() {
						rec = revoke(i.ID, next(epoch))
					}
				}
			case 13:
				rec = option("o", uint64(seed))
			case 16:
				rec = adopt(dag.ID{seed, byte(len(l.order))})
				adoptable[rec.Adopt.Batches[0]] = true
			case 15:
				rec = transfer(about)
			case 14:
				other := map[string]string{"owner": "owner2", "owner2": "owner", "wri": "wri2", "wri2": "wri"}[name]
				if other == "" {
					continue
				}
				rec = revokeDevice(p.who[name], p.who[other], nil)
				if s.Role(public(p.who[name].account)) >= RoleWriter && s.HasDevice(public(p.who[name].account), public(p.who[other].device)) {
					rec.RevokeDevice.Next = next(epoch)
				}
			}
			if rec == nil {
				continue
			}
			before := s.show()
			id, err := p.write(name, rec)
			if err == nil && rec.Invite != nil {
				secrets[id] = seed
			}
			after := l.State()
			if err != nil && after.show() != before {
				rt.Fatalf("%s: a refused record changed the list", name)
			}
			// No record of who is no admin changes what others may do.
			if by := s.Role(public(p.who[name].account)); by < RoleAdmin {
				for _, a := range accounts {
					if a != public(p.who[name].account) && s.Role(a) != after.Role(a) {
						rt.Fatalf("%s, %s, changed the role of another", name, by)
					}
				}
			}
		}
		p.sync()
		l := p.lists["owner"]
		m := newModel(l)
		if got, want := stateWords(l.State(), accounts), m.describe(accounts); got != want {
			rt.Fatalf("the list and the model differ:\n%s\n%s", got, want)
		}
		for id := range adoptable {
			want := slices.ContainsFunc(m.nodes, func(n *node) bool {
				return n.record != nil && n.record.Adopt != nil && n.record.Adopt.Batches[0] == id && m.stands(n)
			})
			if got := l.State().Adopted(id); got != want {
				rt.Fatalf("adopted: %v, by the model %v", got, want)
			} else if got {
				adopted++
			}
		}
		for _, n := range m.nodes {
			if !m.stands(n) {
				voided++
			}
			if n.record != nil && n.record.Transfer != nil {
				transfers++
			}
			if m.cut(n) {
				cut++
			}
			if n.record != nil && n.record.Remove != nil {
				removed++
			}
			if n.record != nil && n.record.RevokeDevice != nil {
				revoked++
				if l.State().HasDevice(n.account, n.record.RevokeDevice.Device) {
					rt.Fatal("a revoked device is in")
				}
			}
		}
		transfers -= len(m.chain)
		gaveUp += len(m.chain)
		if len(l.front) > 1 {
			beside++
		}
		// What is asked for at other heads, in any order, is what their past alone comes to.
		kept, text := l.State(), l.State().show()
		for range 12 {
			heads := []dag.ID{rapid.SampledFrom(l.order).Draw(rt, "head").batch}
			if other := rapid.SampledFrom(l.order).Draw(rt, "other").batch; rapid.IntRange(0, 3).Draw(rt, "one") == 0 && other != heads[0] {
				heads = append(heads, other)
				slices.SortFunc(heads, dag.ID.Compare)
			}
			l.mu.RLock()
			s, err := l.stateAt(heads)
			if err != nil {
				rt.Fatal(err)
			}
			order, _ := l.closure(heads)
			if want, _ := evaluate(l.root, l.space, order); s.show() != want.show() {
				rt.Fatalf("at %s:\n%s\nand not\n%s", heads, s.show(), want.show())
			}
			in := l.within(heads)
			for _, n := range l.order {
				if in(n) != slices.Contains(order, n) {
					rt.Fatalf("%s in the past of %s: %v", n.batch, heads, in(n))
				}
			}
			l.mu.RUnlock()
		}
		if _, err := p.write("owner", option("after", 1)); err == nil && (kept.show() != text || l.State().show() == text) {
			rt.Fatal("a state that was given away changed")
		}
		// Delivered in a random order.
		frames := rapid.Permutation(exported(t, l)).Draw(rt, "order")
		late := open(t, p.space, store.NewMem())
		for _, f := range frames {
			if _, err := late.Graph().Ingest(f); err != nil {
				rt.Fatal(err)
			}
		}
		if showAll(late) != showAll(l) {
			rt.Fatalf("in another order:\n%s\n%s", showAll(late), showAll(l))
		}
	}
	happened := func() map[string]int {
		return map[string]int{
			"histories with several heads": beside, "removals": removed, "records that do not stand": voided, "revocations": revoked, "records beside them": cut,
			"transfers that stand": gaveUp, "transfers that do not": transfers, "adoptions": adopted,
		}
	}
	all := func() bool {
		for _, n := range happened() {
			if n == 0 {
				return false
			}
		}
		return true
	}
	for range 500 { // a short run may miss what it is for
		if rapid.Check(t, histories); t.Failed() || all() {
			break
		}
	}
	if !all() {
		t.Errorf("something never happened: %v", happened())
	}
}
