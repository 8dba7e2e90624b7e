package list

import (
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// replaceBy asks for another actor's account to take the place of a.
func replaceBy(a, by *actor, space, epoch dag.ID) *Record {
	p := &Replace{Certificate: by.cert, Keys: by.keys, Name: []byte("name"), Time: 7, Epoch: epoch, Device: []byte("device")}
	p.Proof = ProveReplace(by.device, space, public(a.account), public(by.account))
	return &Record{Kind: KindReplaceAccount, Must: true, Replace: p}
}

// ask has an actor ask for another, who gets a replica, to take its place.
func (p *party) ask(name, as string, seed byte) dag.ID {
	p.who[as] = newActor(seed, 1)
	p.replica(as)
	return p.must(name, replaceBy(p.who[name], p.who[as], p.space, p.space))
}

func TestReplaceScripts(t *testing.T) {
	p := newParty(t, "adm:admin", "wri:writer", "rea:reader")
	new1 := newActor(50, 1)
	for what, spoil := range map[string]func(r *Replace){
		"by whom it is to be replaced": func(r *Replace) { r.Keys, r.Certificate = p.who["wri"].keys, p.who["wri"].cert },
		"with the device of another":   func(r *Replace) { r.Certificate = newActor(51, 1).cert },
		"with a device that is no less": func(r *Replace) {
			r.Proof = ProveReplace(newActor(51, 1).device, p.space, public(p.who["wri"].account), r.Keys.Identity)
		},
		"of another member": func(r *Replace) {
			r.Proof = ProveReplace(new1.device, p.space, public(p.who["rea"].account), r.Keys.Identity)
		},
		"of another space": func(r *Replace) {
			r.Proof = ProveReplace(new1.device, dag.ID{1}, public(p.who["wri"].account), r.Keys.Identity)
		},
		"by a member":           func(r *Replace) { r.Keys, r.Certificate = p.who["rea"].keys, p.who["rea"].cert },
		"with spoilt keys":      func(r *Replace) { r.Keys.X25519[0]++ },
		"in no epoch":           func(r *Replace) { r.Epoch = dag.ID{9} },
		"by a spoilt signature": func(r *Replace) { r.Certificate.Signature[0]++ },
	} {
		rec := replaceBy(p.who["wri"], new1, p.space, p.space)
		spoil(rec.Replace)
		if _, err := p.write("wri", rec); !errors.Is(err, ErrDenied) && !errors.Is(err, ErrSignature) {
			t.Errorf("a replacement %s: %v", what, err)
		}
	}
	ask := p.ask("wri", "wri'", 50)
	if _, err := p.write("wri", replaceBy(p.who["wri"], new1, p.space, p.space)); !errors.Is(err, ErrDenied) {
		t.Errorf("twice: %v", err)
	}
	p.sync()
	if q := p.lists["owner"].State().requests[ask]; q == nil || q.State != RequestOpen || q.Replaces != public(p.who["wri"].account) || q.Account != public(new1.account) {
		t.Fatalf("%+v", q)
	}
	for _, by := range []string{"wri", "rea"} {
		if _, err := p.write(by, accept(ask, RoleWriter, p.space)); !errors.Is(err, ErrDenied) {
			t.Errorf("accepted by a %s", by)
		}
	}
	second := p.ask("wri", "thief", 52)
	p.sync()
	p.must("adm", accept(ask, RoleWriter, p.space))
	if _, err := p.write("adm", accept(second, RoleWriter, p.space)); !errors.Is(err, ErrDenied) {
		t.Errorf("a place was taken twice: %v", err)
	}
	p.must("adm", remove(p.who["wri"], next(p.space)))
	p.sync()
	if p.role("wri") != RoleNone || p.role("wri'") != RoleWriter || p.role("thief") != RoleNone {
		t.Fatal(p.role("wri"), p.role("wri'"), p.role("thief"))
	}
	if q := p.lists["owner"].State().requests[second]; q.State != RequestLapsed {
		t.Errorf("what who was replaced asked for else is %s", q.State)
	}
	p.must("wri'", rotate(p.space)) // it writes, by the device that it asked with

	// An owner does it alone, and goes on where it was cut short.
	mine := p.ask("owner", "owner'", 53)
	p.must("owner", accept(mine, RoleAdmin, p.space))
	if _, err := p.write("owner", leave()); !errors.Is(err, ErrDenied) {
		t.Errorf("the owner left before it gave the space away: %v", err)
	}
	p.must("owner", transfer(p.who["owner'"]))
	p.must("owner", leave())
	p.sync()
	if p.role("owner'") != RoleOwner || p.role("owner") != RoleNone {
		t.Fatal(p.role("owner'"), p.role("owner"))
	}
	p.must("owner'", remove(p.who["adm"], next(p.space)))

	// A derived space goes to nobody but who takes its owner's place.
	d := newActor(1, 1)
	root := d.derivedRoot()
	l := open(t, root.ID(), store.NewMem())
	rec := addDevice(d, root.ID())
	rec.Root = root.Encode()
	write := func(a *actor, rec *Record) (dag.ID, error) { return l.Append(a.author(), rec) }
	if _, err := write(d, rec); err != nil {
		t.Fatal(err)
	}
	by := newActor(60, 1)
	id, err := write(d, replaceBy(d, by, root.ID(), root.ID()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(d, transfer(by)); !errors.Is(err, ErrDenied) {
		t.Errorf("given to who is not in: %v", err)
	}
	for _, rec := range []*Record{accept(id, RoleAdmin, root.ID()), transfer(by), leave()} {
		if _, err := write(d, rec); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.State(); s.Role(public(by.account)) != RoleOwner || s.Role(public(d.account)) != RoleNone {
		t.Error("Personal stays with the old account")
	}
}

// TestReplaceBeside is the part of the table of ../ACL.md about accounts that take another's place.
func TestReplaceBeside(t *testing.T) {
	chain := func(p *party, name, as string, seed byte) {
		id := p.ask(name, as, seed)
		p.must(name, accept(id, RoleAdmin, p.space))
		p.must(name, transfer(p.who[as]))
		p.must(name, leave())
	}
	one := func(t *testing.T, p *party, of ...string) {
		t.Helper()
		owners := 0
		for _, name := range of {
			switch p.role(name) {
			case RoleOwner:
				owners++
			case RoleNone:
			default:
				t.Errorf("%s is %s", name, p.role(name))
			}
		}
		if owners != 1 {
			t.Errorf("%d own the space", owners)
		}
	}
	for _, c := range []struct {
		name string
		run  func(p *party)
		look func(t *testing.T, p *party)
	}{
		{"thief and owner replace the owner's account", func(p *party) {
			chain(p, "owner", "mine", 50)
			chain(p, "owner2", "thief", 51)
		}, func(t *testing.T, p *party) {
			one(t, p, "owner", "mine", "thief")
		}},
		{"the owner replaces its account; the thief, by another of its devices, removes and invites", func(p *party) {
			chain(p, "owner", "mine", 50)
			p.must("owner2", remove(p.who["adm"], next(p.space)))
			p.must("owner2", invite(99, RoleAdmin, p.space))
		}, func(t *testing.T, p *party) {
			one(t, p, "owner", "mine")
			if p.role("adm") != RoleAdmin {
				t.Error("an admin was removed by who had given the space away")
			}
			for _, i := range p.lists["adm"].State().Invitations() {
				if i.Role == RoleAdmin && !i.Revoked() && i.Key == public(key('i', 99)) {
					t.Error("an invitation for admins stands")
				}
			}
		}},
		{"two admins give one member's place to two accounts", func(p *party) {
			a, b := p.ask("wri", "mine", 50), p.ask("wri", "thief", 51)
			p.sync()
			p.must("adm", accept(a, RoleWriter, p.space))
			p.must("adm", remove(p.who["wri"], next(p.space)))
			p.must("adm2", accept(b, RoleWriter, p.space))
			p.must("adm2", remove(p.who["wri"], next(p.space)))
		}, func(t *testing.T, p *party) {
			if p.role("wri") != RoleNone || (p.role("mine") == RoleWriter) == (p.role("thief") == RoleWriter) {
				t.Error(p.role("wri"), p.role("mine"), p.role("thief"))
			}
		}},
		{"an admin gives a member's place to one account, the owner to another", func(p *party) {
			a, b := p.ask("wri", "thief", 50), p.ask("wri", "mine", 51)
			p.sync()
			p.must("adm", accept(a, RoleWriter, p.space))
			p.must("adm", remove(p.who["wri"], next(p.space)))
			p.must("owner", option("merge", 1)) // a higher place in the total order than the admin's
			p.must("owner", option("merge", 2))
			p.must("owner", accept(b, RoleWriter, p.space))
		}, func(t *testing.T, p *party) {
			if p.role("mine") != RoleWriter || p.role("thief") != RoleNone {
				t.Error(p.role("mine"), p.role("thief"))
			}
		}},
		{"a member asks to be replaced; it is removed", func(p *party) {
			p.ask("wri", "mine", 50)
			p.must("adm", remove(p.who["wri"], next(p.space)))
		}, func(t *testing.T, p *party) {
			if p.role("wri") != RoleNone || p.role("mine") != RoleNone {
				t.Error("in")
			}
			for _, q := range p.lists["adm"].State().Requests() {
				if q.Replaces != (dag.PublicKey{}) && q.State != RequestLapsed {
					t.Errorf("the request is %s", q.State)
				}
			}
		}},
		{"the owner demotes a member; an admin gives its place to another", func(p *party) {
			a := p.ask("wri", "mine", 50)
			p.sync()
			p.must("owner", changeRole(p.who["wri"], RoleReader))
			p.must("adm", accept(a, RoleWriter, p.space))
			p.must("adm", remove(p.who["wri"], next(p.space)))
		}, func(t *testing.T, p *party) {
			if p.role("wri") != RoleNone || p.role("mine") != RoleWriter {
				t.Error(p.role("wri"), p.role("mine"))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newParty(t, "adm:admin", "adm2:admin", "wri:writer")
			c.run(p)
			p.sync()
			c.look(t, p)
			for name, l := range p.lists {
				if show(l) != show(p.lists["adm"]) {
					t.Errorf("%s differs", name)
				}
				if err := l.Verify(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
