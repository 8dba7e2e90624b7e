package list

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestRevocationScripts: who may revoke which device, one record after the other.
func TestRevocationScripts(t *testing.T) {
	for _, c := range []struct {
		name, who string
		rec       func(p *party) *Record
		ok        bool
	}{
		{"a writer's other device", "wri", func(p *party) *Record { return revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)) }, true},
		{"a device of its own account", "wri2", func(p *party) *Record { return revokeDevice(p.who["wri"], p.who["wri"], next(p.space)) }, true},
		{"itself", "wri", func(p *party) *Record { return revokeDevice(p.who["wri"], p.who["wri"], next(p.space)) }, false},
		{"without an epoch", "wri", func(p *party) *Record { return revokeDevice(p.who["wri"], p.who["wri2"], nil) }, false},
		{"another's device", "owner", func(p *party) *Record { return revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)) }, false},
		{"another's device under the own signature", "wri", func(p *party) *Record { return revokeDevice(p.who["wri"], p.who["rea"], nil) }, true},
		{"with another's signature", "wri", func(p *party) *Record { return revokeDevice(p.who["rea"], p.who["wri2"], next(p.space)) }, false},
		{"a device that was never in", "wri", func(p *party) *Record { return revokeDevice(p.who["wri"], newActor(9, 9), nil) }, true},
		{"a device that was never in, with an epoch", "wri", func(p *party) *Record { return revokeDevice(p.who["wri"], newActor(9, 9), next(p.space)) }, false},
		{"by a reader", "rea", func(p *party) *Record { return revokeDevice(p.who["rea"], p.who["rea2"], nil) }, true},
		{"by a reader, with an epoch", "rea", func(p *party) *Record { return revokeDevice(p.who["rea"], p.who["rea2"], next(p.space)) }, false},
		{"with the key for the device", "wri", func(p *party) *Record {
			k := next(p.space)
			k.Wraps = []Wrap{{public(p.who["wri2"].device), make([]byte, 48)}}
			return revokeDevice(p.who["wri"], p.who["wri2"], k)
		}, false},
		{"with the key for the account", "wri", func(p *party) *Record {
			k := next(p.space)
			k.Wraps = []Wrap{{public(p.who["wri"].account), make([]byte, 48)}}
			return revokeDevice(p.who["wri"], p.who["wri2"], k)
		}, true},
	} {
		p := newParty(t, "wri:writer", "rea:reader")
		p.second("wri", "wri2")
		p.second("rea", "rea2")
		p.sync()
		if _, err := p.write(c.who, c.rec(p)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		p.sync()
		if p.role("rea") != RoleReader || !p.lists["owner"].State().HasDevice(public(p.who["rea"].account), public(p.who["rea"].device)) {
			t.Errorf("%s: another's device is out", c.name)
		}
	}

	p := newParty(t, "wri:writer")
	p.second("wri", "wri2")
	p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
	p.sync()
	try := func(name, what string, rec *Record) {
		t.Helper()
		if _, err := p.write(name, rec); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	try("wri", "a second revocation", revokeDevice(p.who["wri"], p.who["wri2"], nil))
	try("wri2", "a record by a revoked device", rotate(p.space))
	try("wri2", "a device that brings itself in again", addDevice(p.who["wri2"], p.space))
	try("wri", "a revoked device that another brings in", addDevice(p.who["wri2"], p.space))
	p.must("wri", leave())
	i := p.must("owner", invite(90, RoleReader, p.space))
	p.sync()
	try("wri2", "a request by a revoked device", p.who["wri2"].request(p.space, 90, i))
	p.must("wri", p.who["wri"].request(p.space, 90, i))
}

// TestRevokedBeside is the part of the table of ../ACL.md about devices: what a revoked device and others do beside the revocation.
func TestRevokedBeside(t *testing.T) {
	in := func(p *party, name string) bool {
		return p.lists["owner"].State().HasDevice(public(p.who[name].account), public(p.who[name].device))
	}
	for _, c := range []struct {
		name string
		run  func(p *party)
		ok   func(p *party) bool
	}{
		{"an owner's device promotes", func(p *party) {
			p.must("owner", revokeDevice(p.who["owner"], p.who["owner2"], next(p.space)))
			p.must("owner2", changeRole(p.who["wri"], RoleAdmin))
		}, func(p *party) bool { return p.role("wri") == RoleWriter && in(p, "owner") && !in(p, "owner2") }},
		{"an admin's device removes", func(p *party) {
			p.must("adm", revokeDevice(p.who["adm"], p.who["adm2"], next(p.space)))
			p.must("adm2", remove(p.who["wri"], next(p.space)))
		}, func(p *party) bool { return p.role("wri") == RoleWriter }},
		{"an admin's device invites, and who came by that writes", func(p *party) {
			p.who["eve"] = newActor(50, 1)
			p.replica("eve")
			p.must("adm", revokeDevice(p.who["adm"], p.who["adm2"], next(p.space)))
			i := p.must("adm2", openInvite(91, RoleWriter, p.space, 0))
			p.send("adm2", "eve")
			p.must("eve", p.who["eve"].join(p.space, 91, i))
		}, func(p *party) bool { return p.role("eve") == RoleNone }},
		{"a device leaves", func(p *party) {
			p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
			p.must("wri2", leave())
		}, func(p *party) bool { return p.role("wri") == RoleWriter && !in(p, "wri2") }},
		{"a device is brought in again", func(p *party) {
			p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
			again := *p.who["wri2"]
			again.cert.Serial++
			again.cert.Sign(again.account)
			p.must("wri2", addDevice(&again, p.space))
		}, func(p *party) bool { return !in(p, "wri2") }},
		{"two devices revoke each other", func(p *party) {
			p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
			p.must("wri2", revokeDevice(p.who["wri"], p.who["wri"], next(p.space)))
		}, func(p *party) bool { return p.role("wri") == RoleWriter && !in(p, "wri") && !in(p, "wri2") }},
		{"a device that is revoked revokes a third", func(p *party) {
			third := *p.who["wri"]
			third.device = key('d', 3, 3)
			third.cert = Certificate{Account: public(third.account), Device: public(third.device), HPKE: third.cert.HPKE, Serial: 1}
			third.cert.Sign(third.account)
			p.who["third"] = &third
			p.must("wri", addDevice(&third, p.space))
			p.sync()
			p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
			p.must("wri2", revokeDevice(p.who["wri"], p.who["third"], next(p.space)))
		}, func(p *party) bool { return in(p, "wri") && !in(p, "wri2") && !in(p, "third") }},
		{"its account is removed", func(p *party) {
			p.must("owner", remove(p.who["wri"], next(p.space)))
			p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
		}, func(p *party) bool {
			es := p.lists["owner"].State().Epochs()
			clean := 0
			for _, e := range es {
				if e.Clean {
					clean++
				}
			}
			return p.role("wri") == RoleNone && clean == 1
		}},
		{"another begins an epoch", func(p *party) {
			e := p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
			p.must("owner", rotate(p.space))
			p.sync()
			for _, x := range p.lists["owner"].State().Epochs() {
				if x.Clean != (x.ID == e) {
					p.t.Error("an epoch is clean that the device has the key of, or the other is not")
				}
			}
		}, func(*party) bool { return true }},
		{"a demoted writer revokes", func(p *party) {
			p.must("owner", changeRole(p.who["wri"], RoleReader))
			e := p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space)))
			p.sync()
			for _, x := range p.lists["owner"].State().Epochs() {
				if x.ID == e && x.Clean {
					p.t.Error("an epoch of who may not begin one is clean")
				}
			}
		}, func(p *party) bool { return p.role("wri") == RoleReader && !in(p, "wri2") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newParty(t, "adm:admin", "wri:writer")
			p.second("adm", "adm2")
			p.second("wri", "wri2")
			p.sync()
			c.run(p)
			p.sync()
			if !c.ok(p) {
				t.Error(p.lists["owner"].State().show())
			}
		})
	}
}

// TestBatchesOfRevokedDevices: what the account had of it counts, what it wrote beyond that does not, whatever clock and heads it names;
// and on the device itself all of it does.
func TestBatchesOfRevokedDevices(t *testing.T) {
	p := newParty(t, "wri:writer", "bob:writer")
	p.second("wri", "wri2")
	p.sync()
	before := p.lists["wri2"].Heads()
	named := p.batch("wri2", before, 3)
	p.must("wri", revokeDevice(p.who["wri"], p.who["wri2"], next(p.space), named.ID()))
	p.sync()
	p.lists["wri"].KeepOwn(public(p.who["wri"].account), public(p.who["wri"].device))
	p.lists["wri2"].KeepOwn(public(p.who["wri2"].account), public(p.who["wri2"].device))
	for _, on := range []string{"bob", "wri", "owner"} {
		files := p.lists[on].Files()
		if v := files.Counts(named); v != dag.Counts {
			t.Error(on, "what the revocation names:", v)
		}
		if v := p.counts(on, "wri2", before, 4); v != dag.CountsIfNamed {
			t.Error(on, "a backdated batch:", v)
		}
		if v := p.counts(on, "wri", before, 4); v != dag.Counts {
			t.Error(on, "a batch of the other device:", v)
		}
		if err := files.Accept(p.batch("wri2", p.lists[on].Heads(), 5), nil); err == nil {
			t.Error(on, "a revoked device may write")
		}
		if err := files.Accept(p.batch("wri", p.lists[on].Heads(), 5), nil); err != nil {
			t.Error(on, err)
		}
	}
	if v := p.counts("wri2", "wri2", before, 4); v != dag.Counts {
		t.Error("on the device itself:", v)
	}
	// The account goes: what its other device has of itself is still there, and what the revoked one wrote is not.
	p.must("owner", remove(p.who["wri"], next(p.space), named.ID()))
	p.sync()
	if v := p.counts("wri", "wri2", before, 4); v != dag.CountsIfNamed {
		t.Error("a backdated batch:", v)
	}
	if v := p.counts("wri", "wri", before, 4); v != dag.Counts {
		t.Error("the own batch:", v)
	}
}

// TestLeavesFromBefore: who is out writes one leave after the other from the list as it was before, and makes nobody begin an epoch by
// that.
func TestLeavesFromBefore(t *testing.T) {
	p := newParty(t, "wri:writer")
	var old []string
	for _, name := range []string{"old1", "old2", "old3"} {
		p.replica(name)
		p.who[name] = p.who["wri"]
		old = append(old, name)
	}
	p.sync()
	p.must("wri", leave())
	p.send("wri", "owner")
	e := p.must("owner", rotate(p.space))
	for i, name := range old {
		if i > 0 {
			p.must(name, share(p.space)) // a fork of another length
		}
		p.must(name, leave())
		p.send(name, "owner")
		for _, x := range p.lists["owner"].State().Epochs() {
			if x.Clean != (x.ID == e) {
				t.Fatal("a leave from before makes others begin an epoch")
			}
		}
	}
	// Let in again, it has the keys, and its leaving counts.
	p.bring(p.lists["owner"], "wri", RoleReader, 61)
	p.sync()
	p.must("wri", leave())
	p.sync()
	for _, x := range p.lists["owner"].State().Epochs() {
		if x.Clean {
			t.Error("an epoch is clean whose key who left was given")
		}
	}
}
