package list

import "testing"

// TestTransferScripts: who may give a space to whom, one record after the other, and what both may then.
func TestTransferScripts(t *testing.T) {
	p := newParty(t, "adm:admin", "wri:writer", "rea:reader")
	try := func(name, what string, rec *Record) {
		t.Helper()
		if _, err := p.write(name, rec); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
	try("adm", "a transfer by an admin", transfer(p.who["adm"]))
	try("wri", "a transfer by a writer", transfer(p.who["wri"]))
	try("owner", "a transfer to oneself", transfer(p.who["owner"]))
	try("owner", "a transfer to a stranger", transfer(newActor(77, 1)))
	p.must("owner", transfer(p.who["rea"]))
	p.sync()
	if p.role("rea") != RoleOwner || p.role("owner") != RoleAdmin {
		t.Fatal(p.role("rea"), p.role("owner"))
	}
	try("owner", "a transfer by who was the owner", transfer(p.who["wri"]))
	try("owner", "a removal of an admin by who was the owner", remove(p.who["adm"], next(p.space)))
	try("owner", "a demotion of the owner", changeRole(p.who["rea"], RoleReader))
	try("adm", "a removal of the owner", remove(p.who["rea"], next(p.space)))
	try("rea", "the owner's leaving", leave())
	p.must("owner", changeRole(p.who["wri"], RoleReader)) // as an admin may
	p.must("rea", changeRole(p.who["adm"], RoleReader))
	p.sync()
	p.must("rea", remove(p.who["owner"], next(p.space)))
	p.must("rea", transfer(p.who["wri"]))
	p.sync()
	for name, want := range map[string]Role{"owner": RoleNone, "adm": RoleReader, "rea": RoleAdmin, "wri": RoleOwner} {
		if got := p.role(name); got != want {
			t.Errorf("%s is %s, not %s", name, got, want)
		}
	}

	d := newActor(1, 1)
	root := d.derivedRoot()
	s := newState(root, root.ID())
	if err := s.allowsTransfer(p.batch("owner", nil, 2), &Transfer{public(newActor(2, 1).account)}); err == nil {
		t.Error("a derived space was given away")
	}
}

// TestTransfersBeside is the part of the table of ../ACL.md about transfers.
func TestTransfersBeside(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(p *party)
		want map[string]Role
	}{
		{"the new owner leaves", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("wri", leave())
		}, map[string]Role{"owner": RoleOwner, "wri": RoleNone}},
		{"the new owner leaves, and the old one, who does not know, leaves too", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("owner", leave())
			p.must("wri", leave())
		}, map[string]Role{"owner": RoleOwner, "wri": RoleNone}},
		{"the old owner leaves", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("owner", leave())
		}, map[string]Role{"owner": RoleNone, "wri": RoleOwner}},
		{"an admin removes the new owner", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("adm", remove(p.who["wri"], next(p.space)))
		}, map[string]Role{"owner": RoleAdmin, "wri": RoleOwner}},
		{"the owner's other device removes the new owner", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("owner2", remove(p.who["wri"], next(p.space)))
		}, map[string]Role{"owner": RoleAdmin, "wri": RoleOwner}},
		{"the owner's other device makes an admin", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("owner2", changeRole(p.who["rea"], RoleAdmin))
		}, map[string]Role{"owner": RoleAdmin, "wri": RoleOwner, "rea": RoleReader}},
		{"the owner's other device removes an admin", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("owner2", remove(p.who["adm"], next(p.space)))
		}, map[string]Role{"wri": RoleOwner, "adm": RoleAdmin}},
		{"the owner's other device removes a reader", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.must("owner2", remove(p.who["rea"], next(p.space)))
		}, map[string]Role{"wri": RoleOwner, "rea": RoleNone}},
		{"by a device that is revoked", func(p *party) {
			p.must("owner", revokeDevice(p.who["owner"], p.who["owner2"], next(p.space)))
			p.must("owner2", transfer(p.who["wri"]))
		}, map[string]Role{"owner": RoleOwner, "wri": RoleWriter}},
		{"whoever let the new owner in is removed", func(p *party) {
			p.who["eve"] = newActor(50, 1)
			p.replica("eve")
			i := p.must("owner", invite(90, RoleWriter, p.space))
			p.sync()
			q := p.must("eve", p.who["eve"].request(p.space, 90, i))
			p.send("eve", "adm")
			p.must("owner", remove(p.who["adm"], next(p.space)))
			p.must("adm", accept(q, RoleWriter, p.space))
			p.send("adm", "owner2")
			p.must("owner2", transfer(p.who["eve"]))
		}, map[string]Role{"owner": RoleAdmin, "eve": RoleOwner}},
		{"given on, and given to another by who gave it first", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.send("owner", "wri")
			p.must("wri", transfer(p.who["rea"]))
			p.must("owner", leave())
		}, map[string]Role{"owner": RoleNone, "wri": RoleAdmin, "rea": RoleOwner}},
		{"given on and back, and given to another by a device that has heard of neither", func(p *party) {
			p.must("owner", transfer(p.who["wri"]))
			p.send("owner", "wri")
			p.must("wri", transfer(p.who["owner"]))
			for i := range uint64(5) { // so that it comes last
				p.must("owner2", option("a", i))
			}
			p.must("owner2", transfer(p.who["rea"]))
			p.sync()
			p.must("owner", remove(p.who["adm"], next(p.space))) // by the owner, so that nothing an admin does beside it stands
			p.must("adm", changeRole(p.who["rea"], RoleWriter))
		}, map[string]Role{"owner": RoleOwner, "wri": RoleAdmin, "rea": RoleReader, "adm": RoleNone}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newParty(t, "adm:admin", "wri:writer", "rea:reader")
			c.run(p)
			p.sync()
			for name, want := range c.want {
				if got := p.role(name); got != want {
					t.Errorf("%s is %s, not %s", name, got, want)
				}
			}
		})
	}
	t.Run("two transfers", func(t *testing.T) {
		p := newParty(t, "wri:writer", "rea:reader")
		p.must("owner", transfer(p.who["wri"]))
		p.must("owner2", transfer(p.who["rea"]))
		// The one whose transfer is the second does what an owner may, before it knows.
		p.must("owner", option("a", 1))
		p.send("owner", "wri")
		p.send("owner2", "rea")
		p.must("wri", changeRole(p.who["owner"], RoleReader))
		p.must("rea", changeRole(p.who["owner"], RoleWriter))
		p.sync()
		l := p.lists["owner"]
		first, second, left := "", "", RoleNone
		for _, n := range l.order {
			if n.record != nil && n.record.Transfer != nil {
				first, second, left = "rea", "wri", RoleWriter
				if n.record.Transfer.Account == public(p.who["wri"].account) {
					first, second, left = "wri", "rea", RoleReader
				}
				break
			}
		}
		if p.role(first) != RoleOwner || p.role(second) >= RoleAdmin || p.role("owner") != left {
			t.Errorf("%s is %s, %s is %s, who was the owner is %s", first, p.role(first), second, p.role(second), p.role("owner"))
		}
	})
}
