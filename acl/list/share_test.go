package list

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestScripts: what members may do to each other, one after the other.
func TestScripts(t *testing.T) {
	for _, c := range []struct {
		name, who string
		rec       func(p *party) *Record
		ok        bool
	}{
		{"an owner invites an admin", "owner", func(p *party) *Record { return invite(100, RoleAdmin, p.space) }, true},
		{"an admin invites a writer", "adm", func(p *party) *Record { return invite(100, RoleWriter, p.space) }, true},
		{"an admin invites an admin", "adm", func(p *party) *Record { return invite(100, RoleAdmin, p.space) }, false},
		{"a writer invites", "wri", func(p *party) *Record { return invite(100, RoleReader, p.space) }, false},
		{"an invitation with another's key", "adm", func(p *party) *Record { return invite(2, RoleReader, p.space) }, false},
		{"an invitation in no epoch", "adm", func(p *party) *Record { return invite(100, RoleReader, dag.ID{9}) }, false},
		{"an open invitation", "adm", func(p *party) *Record { return openInvite(100, RoleReader, p.space, 1) }, true},
		{"an open invitation for admins", "owner", func(p *party) *Record { return openInvite(100, RoleAdmin, p.space, 1) }, false},
		{"an open invitation without wrap", "adm", func(p *party) *Record {
			r := openInvite(100, RoleReader, p.space, 1)
			r.Invite.Wraps = nil
			return r
		}, false},
		{"an admin makes a writer a reader", "adm", func(p *party) *Record { return changeRole(p.who["wri"], RoleReader) }, true},
		{"an admin makes a writer an admin", "adm", func(p *party) *Record { return changeRole(p.who["wri"], RoleAdmin) }, false},
		{"an admin makes itself an owner's equal", "adm", func(p *party) *Record { return changeRole(p.who["adm"], RoleWriter) }, false},
		{"a writer makes itself an admin", "wri", func(p *party) *Record { return changeRole(p.who["wri"], RoleAdmin) }, false},
		{"a role that is there already", "owner", func(p *party) *Record { return changeRole(p.who["wri"], RoleWriter) }, false},
		{"a role for a stranger", "owner", func(p *party) *Record { return changeRole(newActor(77, 1), RoleWriter) }, false},
		{"an admin removes a writer", "adm", func(p *party) *Record { return remove(p.who["wri"], next(p.space)) }, true},
		{"an admin removes another", "adm", func(p *party) *Record { return remove(p.who["adm2"], next(p.space)) }, false},
		{"an admin removes the owner", "adm", func(p *party) *Record { return remove(p.who["owner"], next(p.space)) }, false},
		{"an owner removes an admin", "owner", func(p *party) *Record { return remove(p.who["adm"], next(p.space)) }, true},
		{"a removal whose key goes to the removed one", "owner", func(p *party) *Record {
			k := next(p.space)
			k.Wraps = []Wrap{{public(p.who["adm"].device), make([]byte, 48)}}
			return remove(p.who["adm"], k)
		}, false},
		{"the owner leaves", "owner", func(p *party) *Record { return leave() }, false},
		{"a reader leaves", "rea", func(p *party) *Record { return leave() }, true},
		{"a reader begins an epoch", "rea", func(p *party) *Record { return rotate(p.space) }, false},
		{"a reader shares a key", "rea", func(p *party) *Record {
			return share(p.space, Wrap{public(p.who["wri"].account), make([]byte, 48)})
		}, true},
		{"a reader shares a key with a stranger", "rea", func(p *party) *Record {
			return share(p.space, Wrap{dag.PublicKey{1}, make([]byte, 48)})
		}, false},
		{"a member asks to join", "rea", func(p *party) *Record {
			return p.who["rea"].request(p.space, 5, p.lists["rea"].State().Invitations()[0].ID)
		}, false},
	} {
		p := newParty(t, "adm:admin", "adm2:admin", "wri:writer", "rea:reader")
		if _, err := p.write(c.who, c.rec(p)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		p.sync()
	}
}

// TestOverrun: who has a link and asks by it again and again, takes it back each time or is declined, in whatever names, is shown the list no more, nor is anyone else by that
// invitation but who waits or was let in by it.
func TestOverrun(t *testing.T) {
	p := newParty(t, "adm:admin")
	eve, zoe := newActor(50, 1), newActor(51, 1)
	p.who["eve"], p.who["zoe"] = eve, zoe
	p.replica("eve")
	p.replica("zoe")
	i := p.must("owner", invite(90, RoleWriter, p.space))
	other := p.must("owner", invite(91, RoleWriter, p.space))
	p.sync()
	p.must("zoe", zoe.request(p.space, 90, i))
	for range 3 { // it can be done without end
		p.must("eve", answer(KindCancel, p.must("eve", eve.request(p.space, 90, i))))
	}
	p.sync()
	s := p.lists["adm"].State().clone()
	key, device := s.invites[i].Key, public(eve.device)
	for n := 4; n < maxTried-1; n++ {
		q := &Request{JoinRequest: JoinRequest{Invite: i}, ID: dag.Sum(fmt.Append(nil, n)), State: RequestCancelled + RequestState(n%2)}
		s.requests[q.ID] = q
	}
	if s.Overrun(i) || !s.Invited(key, device, 0) {
		t.Fatal("an invitation is overrun too early", len(s.requests))
	}
	for _, q := range s.requests {
		if q.State == RequestCancelled {
			q.State = RequestAccepted
			break
		}
	}
	last := &Request{JoinRequest: JoinRequest{Invite: i}, ID: dag.Sum([]byte("last"))}
	s.requests[last.ID] = last
	if s.Overrun(i) {
		t.Error("who was let in counts")
	}
	another := &Request{JoinRequest: JoinRequest{Invite: i}, ID: dag.Sum([]byte("another"))}
	s.requests[another.ID] = another
	if !s.Overrun(i) || s.Invited(key, device, 0) {
		t.Error("an invitation that is overrun shows the list")
	}
	if !s.Invited(key, public(zoe.device), 0) {
		t.Error("who waits hears the list no more")
	}
	if s.Overrun(other) || !s.Invited(s.invites[other].Key, device, 0) {
		t.Error("another invitation is overrun")
	}
}

// TestInvitedIn: a member's device that proves the invitation by which it came is shown the list, whatever became of that; one that was revoked, or whose account was removed, is
// not.
func TestInvitedIn(t *testing.T) {
	p := newParty(t, "adm:admin")
	eve := newActor(50, 1)
	p.who["eve"] = eve
	p.replica("eve")
	asked := p.must("owner", invite(90, RoleWriter, p.space))
	p.sync()
	q := p.must("eve", eve.request(p.space, 90, asked))
	p.sync()
	p.must("adm", accept(q, RoleWriter, p.space))
	p.must("adm", revoke(asked, nil))
	p.sync()
	key, device := public(key('i', 90)), public(eve.device)
	invited := func() bool { return p.lists["owner"].State().Invited(key, device, 1) }
	if !invited() || p.lists["owner"].State().Invited(key, public(newActor(51, 1).device), 1) {
		t.Error("who was let in before the invitation was revoked is not shown the list, or a stranger is")
	}
	if p.lists["owner"].State().Invited(public(eve.account), device, 1) {
		t.Error("the key of no invitation is one")
	}
	p.must("adm", remove(eve, next(p.space)))
	p.sync()
	if invited() {
		t.Error("who was removed is shown the list")
	}
}

// TestRequests: how a stranger comes in, and does not.
func TestRequests(t *testing.T) {
	p := newParty(t, "adm:admin")
	eve := newActor(50, 1)
	p.who["eve"] = eve
	p.replica("eve")
	i := p.must("owner", invite(90, RoleWriter, p.space))
	other := p.must("owner", openInvite(91, RoleReader, p.space, 1))
	p.sync()
	try := func(what string, rec *Record) {
		t.Helper()
		if _, err := p.write("eve", rec); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	try("a request without the secret", eve.request(p.space, 89, i))
	try("a request for another space", eve.request(dag.ID{1}, 90, i))
	try("a request by an open invitation", eve.request(p.space, 91, other))
	try("a join by one that asks for approval", eve.join(p.space, 90, i))
	try("another's request", newActor(51, 1).request(p.space, 90, i))
	forged := eve.request(p.space, 90, i)
	forged.JoinRequest.Keys.Recovery = bytes.Repeat([]byte{9}, HPKEBytes)
	try("a request with a swapped key", forged)
	forged = eve.request(p.space, 90, i)
	forged.JoinRequest.Certificate.HPKE = bytes.Repeat([]byte{9}, HPKEBytes)
	try("a request with a swapped device", forged)
	try("an acceptance of oneself", accept(dag.ID{1}, RoleWriter, p.space))

	q := p.must("eve", eve.request(p.space, 90, i))
	try("a second request", eve.request(p.space, 90, i))
	p.sync()
	if _, err := p.write("adm", accept(q, RoleAdmin, p.space)); err == nil {
		t.Error("an admin made an admin")
	}
	p.must("eve", answer(KindCancel, q))
	try("a request taken back twice", answer(KindCancel, q))
	q = p.must("eve", eve.request(p.space, 90, i))
	p.sync()
	p.must("adm", answer(KindDecline, q))
	p.sync()
	if p.role("eve") != RoleNone {
		t.Error("declined and in")
	}
	q = p.must("eve", eve.request(p.space, 90, i))
	p.sync()
	p.must("adm", accept(q, RoleReader, p.space))
	p.sync()
	if p.role("eve") != RoleReader {
		t.Error("accepted and not in")
	}
	p.must("adm", remove(eve, next(p.space)))
	p.must("adm", revoke(i, nil))
	p.sync()
	try("a request by a revoked invitation", eve.request(p.space, 90, i))
	try("a share by who is removed", share(p.space))
	for _, id := range []dag.ID{q, dag.Sum([]byte("none"))} {
		if _, err := p.write("adm", accept(id, RoleReader, p.space)); err == nil {
			t.Error("a request was accepted that waits no more, or was never there")
		}
	}
	ended := p.must("adm", openInvite(93, RoleReader, p.space, 0))
	p.must("adm", revoke(ended, next(p.space)))
	p.sync()
	try("a join by a revoked invitation", eve.join(p.space, 93, ended))
	p.must("eve", eve.join(p.space, 91, other))
	p.sync()
	if p.role("eve") != RoleReader {
		t.Error("joined and not in")
	}
	bob := newActor(52, 1)
	p.who["bob"] = bob
	p.replica("bob")
	p.sync()
	if _, err := p.write("bob", bob.join(p.space, 91, other)); err == nil {
		t.Error("an invitation was used more often than it may be")
	}
}

// TestBesideEachOther is the table of ../ACL.md: what records that know nothing of each other come to.
func TestBesideEachOther(t *testing.T) {
	stranger := func(p *party) *actor {
		if p.who["eve"] == nil {
			p.who["eve"] = newActor(50, 1)
		}
		return p.who["eve"]
	}
	// asked is a request of eve's that all know.
	asked := func(p *party) (invitation, request dag.ID) {
		eve := stranger(p)
		p.replica("eve")
		invitation = p.must("owner", invite(90, RoleWriter, p.space))
		p.sync()
		request = p.must("eve", eve.request(p.space, 90, invitation))
		p.sync()
		return invitation, request
	}
	for _, c := range []struct {
		name string
		run  func(p *party)
		want map[string]Role
	}{
		{"removed admin removes", func(p *party) {
			p.must("owner", remove(p.who["adm"], next(p.space)))
			p.must("adm", remove(p.who["wri"], next(p.space)))
		}, map[string]Role{"adm": RoleNone, "wri": RoleWriter}},
		{"removed admin invites", func(p *party) {
			eve := stranger(p)
			p.replica("eve")
			p.must("owner", remove(p.who["adm"], next(p.space)))
			i := p.must("adm", invite(91, RoleWriter, p.space))
			p.send("adm", "eve")
			q := p.must("eve", eve.request(p.space, 91, i))
			p.send("eve", "adm")
			p.must("adm", accept(q, RoleWriter, p.space))
		}, map[string]Role{"adm": RoleNone, "eve": RoleNone}},
		{"removed admin accepts", func(p *party) {
			_, q := asked(p)
			p.must("owner", remove(p.who["adm"], next(p.space)))
			p.must("adm", accept(q, RoleWriter, p.space))
		}, map[string]Role{"adm": RoleNone, "eve": RoleNone}},
		{"demoted admin accepts", func(p *party) {
			_, q := asked(p)
			p.must("owner", changeRole(p.who["adm"], RoleWriter))
			p.must("adm", accept(q, RoleWriter, p.space))
		}, map[string]Role{"adm": RoleWriter, "eve": RoleNone}},
		{"owner removes what admin changes", func(p *party) {
			p.must("owner", remove(p.who["wri"], next(p.space)))
			p.must("adm", changeRole(p.who["wri"], RoleReader))
		}, map[string]Role{"wri": RoleNone}},
		{"admin removes whom owner makes admin", func(p *party) {
			p.must("owner", changeRole(p.who["wri"], RoleAdmin))
			p.must("adm", remove(p.who["wri"], next(p.space)))
		}, map[string]Role{"wri": RoleAdmin}},
		{"admin removes whom admin makes reader", func(p *party) {
			p.must("adm", remove(p.who["wri"], next(p.space)))
			p.must("adm2", changeRole(p.who["wri"], RoleReader))
		}, map[string]Role{"wri": RoleNone}},
		{"remove while another approves", func(p *party) {
			_, q := asked(p)
			p.must("adm", remove(p.who["wri"], next(p.space)))
			p.must("adm2", accept(q, RoleReader, p.space))
		}, map[string]Role{"wri": RoleNone, "eve": RoleReader}},
		{"two approve", func(p *party) {
			_, q := asked(p)
			p.must("adm", accept(q, RoleReader, p.space))
			p.must("adm2", accept(q, RoleReader, p.space))
		}, map[string]Role{"eve": RoleReader}},
		{"one approves, one declines", func(p *party) {
			_, q := asked(p)
			p.must("adm", accept(q, RoleReader, p.space))
			p.must("adm2", answer(KindDecline, q))
		}, map[string]Role{"eve": RoleReader}},
		{"taken back and approved", func(p *party) {
			_, q := asked(p)
			p.must("eve", answer(KindCancel, q))
			p.must("adm", accept(q, RoleReader, p.space))
		}, map[string]Role{"eve": RoleReader}},
		{"revoked and approved", func(p *party) {
			i, q := asked(p)
			p.must("owner", revoke(i, nil))
			p.must("adm", accept(q, RoleReader, p.space))
		}, map[string]Role{"eve": RoleReader}},
		{"revoked and joined", func(p *party) {
			eve := stranger(p)
			p.replica("eve")
			i := p.must("owner", openInvite(92, RoleWriter, p.space, 0))
			p.sync()
			p.must("owner", revoke(i, next(p.space)))
			p.must("eve", eve.join(p.space, 92, i))
		}, map[string]Role{"eve": RoleNone}},
		{"two invitations with one key, one revoked, and joined by the other", func(p *party) {
			eve := stranger(p)
			p.replica("eve")
			i := p.must("owner", openInvite(92, RoleWriter, p.space, 1))
			k := p.must("adm", openInvite(92, RoleWriter, p.space, 0))
			p.sync()
			p.must("owner", revoke(i, next(p.space)))
			p.must("eve", eve.join(p.space, 92, k))
		}, map[string]Role{"eve": RoleNone}},
		{"two invitations with one key, that for less revoked, and joined by the other", func(p *party) {
			eve := stranger(p)
			p.replica("eve")
			i := p.must("owner", openInvite(92, RoleWriter, p.space, 1))
			k := p.must("adm", openInvite(92, RoleReader, p.space, 0))
			p.sync()
			p.must("adm", revoke(k, next(p.space)))
			p.must("eve", eve.join(p.space, 92, i))
		}, map[string]Role{"eve": RoleWriter}},
		{"revoked, joined and promoted", func(p *party) {
			eve := stranger(p)
			p.replica("eve")
			i := p.must("owner", openInvite(92, RoleReader, p.space, 0))
			p.sync()
			p.must("owner", revoke(i, next(p.space)))
			p.must("eve", eve.join(p.space, 92, i))
			p.send("eve", "owner2")
			p.must("owner2", changeRole(eve, RoleWriter))
		}, map[string]Role{"eve": RoleWriter}},
		{"revoked, asked, approved by who is removed, and promoted", func(p *party) {
			eve := stranger(p)
			p.replica("eve")
			i := p.must("owner", invite(92, RoleReader, p.space))
			p.sync()
			p.must("owner", revoke(i, nil))
			p.must("owner", remove(p.who["adm"], next(p.space)))
			q := p.must("eve", eve.request(p.space, 92, i))
			p.send("eve", "adm")
			p.must("adm", accept(q, RoleReader, p.space))
			p.send("adm", "owner2")
			p.must("owner2", changeRole(eve, RoleWriter))
		}, map[string]Role{"eve": RoleWriter}},
		{"leaves and is promoted", func(p *party) {
			p.must("owner", changeRole(p.who["wri"], RoleAdmin))
			p.must("wri", leave())
		}, map[string]Role{"wri": RoleNone}},
		{"demoted writer begins an epoch", func(p *party) {
			p.must("adm", changeRole(p.who["wri"], RoleReader))
			p.must("wri", rotate(p.space))
		}, map[string]Role{"wri": RoleReader}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newParty(t, "adm:admin", "adm2:admin", "wri:writer")
			c.run(p)
			p.sync()
			for name, want := range c.want {
				if got := p.role(name); got != want {
					t.Errorf("%s is %s, not %s", name, got, want)
				}
			}
		})
	}

	t.Run("promoted and demoted", func(t *testing.T) {
		p := newParty(t, "wri:writer")
		p.must("owner", changeRole(p.who["wri"], RoleAdmin))
		p.must("owner2", changeRole(p.who["wri"], RoleReader))
		p.sync()
		// The last in total order holds.
		l := p.lists["owner"]
		if got, want := p.role("wri"), l.order[len(l.order)-1].record.ChangeRole.Role; got != want {
			t.Errorf("%s, not %s", got, want)
		}
	})
	t.Run("begun twice", func(t *testing.T) {
		p := newParty(t, "wri:writer")
		a, b := p.must("owner", rotate(p.space)), p.must("wri", rotate(p.space))
		p.sync()
		es := p.lists["wri"].State().Epochs()
		if len(es) != 3 || !es[1].Clean || !es[2].Clean || es[1].ID == es[2].ID || es[1].ID != a && es[1].ID != b {
			t.Error(es)
		}
	})
	t.Run("removed and leaves", func(t *testing.T) {
		p := newParty(t, "wri:writer")
		e := p.must("owner", remove(p.who["wri"], next(p.space)))
		p.must("wri", leave())
		p.sync()
		es := p.lists["owner"].State().Epochs()
		if last := es[len(es)-1]; last.ID != e || !last.Clean {
			t.Error("who was removed makes others begin an epoch")
		}
	})
	t.Run("removed, let in again, and leaves by what it was", func(t *testing.T) {
		p := newParty(t, "wri:writer")
		p.replica("old")
		p.who["old"] = p.who["wri"]
		p.sync()
		l := p.lists["owner"]
		p.must("owner", remove(p.who["wri"], next(p.space)))
		i := p.must("owner", invite(93, RoleReader, p.space))
		q, err := l.Append(p.who["wri"].author(), p.who["wri"].request(p.space, 93, i))
		if err != nil {
			t.Fatal(err)
		}
		p.must("owner", accept(q, RoleReader, p.space))
		p.must("old", leave())
		p.sync()
		for _, e := range l.State().Epochs() {
			if e.Clean {
				t.Error("an epoch is clean whose key who left was given")
			}
		}
	})
	t.Run("two removals", func(t *testing.T) {
		p := newParty(t, "adm:admin", "wri:writer", "rea:reader")
		p.must("owner", remove(p.who["wri"], next(p.space)))
		p.must("adm", remove(p.who["rea"], next(p.space)))
		p.sync()
		for _, e := range p.lists["adm"].State().Epochs() {
			if e.Clean {
				t.Error("an epoch is clean that somebody knows who was removed")
			}
		}
		e := p.must("adm", rotate(p.space))
		p.sync()
		es := p.lists["owner"].State().Epochs()
		if last := es[len(es)-1]; last.ID != e || !last.Clean {
			t.Error("the epoch that follows both is not clean")
		}
	})
}

// TestBatchesThatCount: files by who lost the right to write.
func TestBatchesThatCount(t *testing.T) {
	p := newParty(t, "adm:admin", "wri:writer", "bob:writer")
	before := p.lists["wri"].Heads()
	named := p.batch("wri", before, 3)
	p.must("owner", remove(p.who["wri"], next(p.space), named.ID()))
	p.must("adm", changeRole(p.who["bob"], RoleReader))
	p.sync()
	files := p.lists["adm"].Files()
	after := p.lists["adm"].Heads()
	if v := files.Counts(named); v != dag.Counts {
		t.Error("what the removal names does not count:", v)
	}
	if v := p.counts("adm", "wri", before, 4); v != dag.CountsIfNamed {
		t.Error("a backdated batch:", v)
	}
	if err := files.Accept(p.batch("wri", after, 4), nil); err == nil {
		t.Error("who was removed may write")
	}
	if v := p.counts("adm", "bob", before, 4); v != dag.CountsIfNamed {
		t.Error("a reader's backdated batch:", v)
	}
	if err := files.Accept(p.batch("bob", after, 4), nil); err == nil {
		t.Error("a reader may write")
	}
	if v := p.counts("adm", "adm", before, 4); v != dag.Counts {
		t.Error("another's batch:", v)
	}
	// Back again: what is written from then on counts, and what was written meanwhile does not.
	p.bring(p.lists["owner"], "wri", RoleWriter, 60)
	p.must("owner", changeRole(p.who["bob"], RoleWriter))
	p.sync()
	again := p.lists["adm"].Heads()
	for _, name := range []string{"wri", "bob"} {
		if v := p.counts("adm", name, again, 5); v != dag.Counts {
			t.Error(name, "is back, and its batch", v)
		}
		if v := p.counts("adm", name, before, 4); v != dag.CountsIfNamed {
			t.Error(name, "is back, and its backdated batch", v)
		}
	}
	// Whom a removed admin let in.
	eve := newActor(50, 1)
	p.who["eve"] = eve
	p.replica("eve")
	i := p.must("adm", invite(91, RoleWriter, p.space))
	p.send("adm", "eve")
	q := p.must("eve", eve.request(p.space, 91, i))
	p.send("eve", "adm")
	p.must("adm", accept(q, RoleWriter, p.space))
	p.send("adm", "eve")
	p.must("owner", remove(p.who["adm"], next(p.space)))
	heads := p.lists["eve"].Heads()
	if err := p.lists["eve"].Files().Accept(p.batch("eve", heads, 5), nil); err != nil {
		t.Error(err)
	}
	p.sync()
	if v := p.counts("bob", "eve", heads, 5); v != dag.CountsIfNamed {
		t.Error("a batch of whom a removed admin let in:", v)
	}
	// Why, as a log says it.
	for _, c := range []struct {
		what    string
		b       *dag.Batch
		granted bool
		ended   [][]dag.ID
	}{
		{"what the removal names", named, true, [][]dag.ID{{named.ID()}}},
		{"a backdated batch", p.batch("wri", before, 4), true, [][]dag.ID{{named.ID()}}},
		{"one by who is back", p.batch("wri", again, 5), true, nil},
		{"another's", p.batch("owner", before, 4), true, nil},
		{"one of whom a removed admin let in", p.batch("eve", heads, 5), false, nil},
	} {
		granted, ended := p.lists["bob"].Ends(c.b)
		if granted != c.granted || !slices.EqualFunc(ended, c.ended, slices.Equal) {
			t.Errorf("%s: granted %v, ended by %v", c.what, granted, ended)
		}
	}
}
