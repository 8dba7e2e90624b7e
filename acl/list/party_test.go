package list

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// Records by which others come, change and go; sealed fields are only bytes.

func next(follows ...dag.ID) *RotateKey { return rotate(follows...).RotateKey }

func invite(seed byte, role Role, epoch dag.ID) *Record {
	return &Record{Kind: KindInvite, Must: true, Invite: &Invite{Key: public(key('i', seed)), Role: role, Epoch: epoch, Naming: []byte("naming")}}
}

func openInvite(seed byte, role Role, epoch dag.ID, uses uint64) *Record {
	r := invite(seed, role, epoch)
	r.Invite.HPKE, r.Invite.Uses = bytes.Repeat([]byte{seed}, HPKEBytes), uses
	r.Invite.Wraps = []Wrap{{r.Invite.Key, make([]byte, 48)}}
	return r
}

func revoke(id dag.ID, k *RotateKey) *Record {
	return &Record{Kind: KindRevokeInvite, Must: true, RevokeInvite: &RevokeInvite{k, id}}
}

func (a *actor) request(space dag.ID, seed byte, id dag.ID) *Record {
	q := &JoinRequest{Certificate: a.cert, Keys: a.keys, Name: []byte("name"), Time: 7, Device: []byte("device"), Invite: id}
	q.Proof = ProveInvite(key('i', seed), space, public(a.account), public(a.device))
	return &Record{Kind: KindJoinRequest, Must: true, JoinRequest: q}
}

func (a *actor) join(space dag.ID, seed byte, id dag.ID) *Record {
	q := &Join{Certificate: a.cert, Keys: a.keys, Name: []byte("name"), Device: []byte("device"), Epoch: space, Invite: id}
	q.Proof = ProveInvite(key('i', seed), space, public(a.account), public(a.device))
	return &Record{Kind: KindJoin, Must: true, Join: q}
}

func accept(request dag.ID, role Role, epoch dag.ID) *Record {
	return &Record{Kind: KindAccept, Must: true, Accept: &Accept{Name: []byte("n"), Role: role, Epoch: epoch, Device: []byte("d"), Request: request}}
}

func answer(k Kind, request dag.ID) *Record {
	return &Record{Kind: k, Must: true, Answer: &Answer{request}}
}

func changeRole(a *actor, role Role) *Record {
	return &Record{Kind: KindChangeRole, Must: true, ChangeRole: &ChangeRole{Role: role, Account: public(a.account)}}
}

func remove(a *actor, k *RotateKey, tips ...dag.ID) *Record {
	return &Record{Kind: KindRemove, Must: true, Remove: &Remove{Next: k, Tips: tips, Account: public(a.account)}}
}

// revokeDevice takes a device of the account of a.
func revokeDevice(a, device *actor, k *RotateKey, tips ...dag.ID) *Record {
	r := &RevokeDevice{Signature: SignRevocation(a.account, public(device.device)), Next: k, Tips: tips, Device: public(device.device)}
	return &Record{Kind: KindRevokeDevice, Must: true, RevokeDevice: r}
}

func transfer(a *actor) *Record {
	return &Record{Kind: KindTransfer, Must: true, Transfer: &Transfer{public(a.account)}}
}

func adopt(batches ...dag.ID) *Record {
	return &Record{Kind: KindAdopt, Must: true, Adopt: &Adopt{batches}}
}

func leave() *Record { return &Record{Kind: KindLeave, Must: true, Leave: &Leave{}} }

func share(epoch dag.ID, wraps ...Wrap) *Record {
	return &Record{Kind: KindShareKey, Must: true, ShareKey: &ShareKey{Epoch: epoch, Wraps: wraps}}
}

// party is replicas of one list, each with the actors that write on it.
type party struct {
	t     testing.TB
	space dag.ID
	lists map[string]*List
	who   map[string]*actor
}

// newParty is a space of owner, with the other actors in it by their role ("bob:writer"), known to every replica.
func newParty(t testing.TB, members ...string) *party {
	p := &party{t: t, lists: map[string]*List{}, who: map[string]*actor{"owner": newActor(1, 1)}}
	first := newSpace(t, p.who["owner"])
	p.space = first.Space()
	p.lists["owner"] = first
	for i, m := range members {
		name, as, _ := strings.Cut(m, ":")
		p.who[name] = newActor(byte(i+2), 1)
		role, err := ParseRole(as)
		if err != nil {
			t.Fatal(err)
		}
		p.bring(first, name, role, byte(i+2))
	}
	p.second("owner", "owner2")
	for name := range p.who {
		p.replica(name)
	}
	p.sync()
	return p
}

// second gives an actor's account another device, known to every replica.
func (p *party) second(name, as string) {
	p.t.Helper()
	p.replica(as)
	p.who[as] = p.who[name].second()
	p.lists[name] = p.replica(name)
	for other := range p.lists {
		if other != name && p.lists[name].root == nil {
			p.send(other, name)
		}
	}
	p.must(name, addDevice(p.who[as], p.space))
	p.send(name, as)
}

// second is another device of the same account.
func (a *actor) second() *actor {
	b := *a
	b.device = key('d', a.keys.X25519[0], 2)
	b.cert = Certificate{Account: public(a.account), Device: public(b.device), HPKE: bytes.Repeat([]byte{2}, HPKEBytes), Serial: 1}
	b.cert.Sign(a.account)
	return &b
}

// bring makes an actor a member, all on one replica.
func (p *party) bring(l *List, name string, role Role, seed byte) {
	p.t.Helper()
	i, err := l.Append(p.who["owner"].author(), invite(seed, role, p.space))
	if err != nil {
		p.t.Fatal(err)
	}
	q, err := l.Append(p.who[name].author(), p.who[name].request(p.space, seed, i))
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := l.Append(p.who["owner"].author(), accept(q, role, p.space)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *party) replica(name string) *List {
	if p.lists[name] == nil {
		p.lists[name] = open(p.t, p.space, store.NewMem())
	}
	return p.lists[name]
}

// write has an actor write a record on its own replica.
func (p *party) write(name string, rec *Record) (dag.ID, error) {
	return p.lists[name].Append(p.who[name].author(), rec)
}

func (p *party) must(name string, rec *Record) dag.ID {
	p.t.Helper()
	id, err := p.write(name, rec)
	if err != nil {
		p.t.Fatalf("%s: %v", name, err)
	}
	return id
}

// send brings all that one replica has to another.
func (p *party) send(from, to string) {
	p.t.Helper()
	for _, f := range exported(p.t, p.lists[from]) {
		if err := p.lists[to].Import(f); err != nil {
			p.t.Fatalf("from %s to %s: %v", from, to, err)
		}
	}
}

// sync brings everything everywhere.
func (p *party) sync() {
	p.t.Helper()
	names := slices.Sorted(func(yield func(string) bool) {
		for n := range p.lists {
			if !yield(n) {
				return
			}
		}
	})
	for range 2 {
		for _, a := range names {
			for _, b := range names {
				if a != b {
					p.send(a, b)
				}
			}
		}
	}
	want := showAll(p.lists[names[0]])
	for _, n := range names {
		if got := showAll(p.lists[n]); got != want {
			p.t.Fatalf("%s and %s differ:\n%s\n%s", names[0], n, want, got)
		}
		if got := atOnce(p.lists[n]).show(); got != p.lists[n].State().show() {
			p.t.Fatalf("%s: step by step and at once differ:\n%s\n%s", n, p.lists[n].State().show(), got)
		}
	}
}

func (p *party) role(name string) Role {
	return p.lists["owner"].State().Role(public(p.who[name].account))
}

// atOnce is the state of a list as a device makes it that has all of it at once.
func atOnce(l *List) *State {
	s, _ := evaluate(l.root, l.space, l.order)
	return s
}

func showAll(l *List) string { return fmt.Sprintln(l.Heads()) + l.State().show() }

// show is all of a state.
func (s *State) show() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.Unknown, s.options)
	for _, m := range s.Members() {
		fmt.Fprintf(&b, "%x %s %s %s %s\n", m.Account[:4], m.Role, m.Since, m.Name, m.NameIn)
		for _, d := range m.Devices {
			fmt.Fprintf(&b, " %x %d %s %s\n", d.Device[:4], d.Serial, d.Record, d.Name)
		}
	}
	for _, e := range s.Epochs() {
		fmt.Fprintln(&b, e.ID, e.Pos, len(e.Wraps), e.Clean)
	}
	for _, i := range s.Invitations() {
		fmt.Fprintln(&b, i.ID, i.Role, i.Revoked(), i.Used)
	}
	for _, q := range s.Requests() {
		fmt.Fprintln(&b, q.ID, q.State)
	}
	for _, m := range s.Members() {
		for _, d := range s.RevokedDevices(m.Account) {
			fmt.Fprintf(&b, "%x revoked %x\n", m.Account[:4], d[:4])
		}
	}
	return b.String()
}

// counts judges a batch of files that an actor wrote, going by heads.
func (p *party) counts(on, name string, heads []dag.ID, clock uint64) dag.Verdict {
	b := p.batch(name, heads, clock)
	return p.lists[on].Files().Counts(b)
}

func (p *party) batch(name string, heads []dag.ID, clock uint64) *dag.Batch {
	a := p.who[name]
	b := &dag.Batch{Space: p.space, Account: public(a.account), Device: public(a.device), ACL: heads, Epoch: p.space, Clock: clock, Seq: clock}
	if clock > 1 {
		b.Prev = dag.Sum([]byte{byte(clock)})
	}
	return b
}
