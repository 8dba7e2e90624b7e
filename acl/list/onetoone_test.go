package list

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// rootOfTwo is a root of a one-to-one space as both would compute it; the agreed key is a fixed one here.
func rootOfTwo(a, b *actor) *Root {
	agreed := key('o', 1)
	t := &Root{Kind: RootOneToOne, Seed: public(agreed), Owner: a.keys, Other: &b.keys, Suite: Suite, Commitment: [32]byte{2}}
	if bytes.Compare(a.keys.Identity[:], b.keys.Identity[:]) > 0 {
		t.Owner, t.Other = b.keys, &a.keys
	}
	t.Sign(agreed)
	return t
}

// newTwo is a one-to-one space of ann and bob, with two devices of each, and a stranger; nobody has begun it.
func newTwo(t testing.TB) *party {
	p := &party{t: t, lists: map[string]*List{}, who: map[string]*actor{"ann": newActor(1, 1), "bob": newActor(2, 1), "eve": newActor(3, 1)}}
	p.who["ann2"], p.who["bob2"] = p.who["ann"].second(), p.who["bob"].second()
	p.space = rootOfTwo(p.who["ann"], p.who["bob"]).ID()
	for name := range p.who {
		p.replica(name)
	}
	return p
}

// begin brings a device in as the first record of its replica does.
func (p *party) begin(name string) error {
	rec := addDevice(p.who[name], p.space)
	rec.Root = rootOfTwo(p.who["ann"], p.who["bob"]).Encode()
	_, err := p.write(name, rec)
	return err
}

// roleBy is an actor's role by a replica.
func (p *party) roleBy(replica, name string) Role {
	return p.lists[replica].State().Role(public(p.who[name].account))
}

func TestRootOfTwo(t *testing.T) {
	ann, bob := newActor(1, 1), newActor(2, 1)
	root := rootOfTwo(ann, bob)
	if err := root.Verify(); err != nil {
		t.Fatal(err)
	}
	if rootOfTwo(bob, ann).ID() != root.ID() {
		t.Error("who begins it decides its ID")
	}
	back, err := DecodeRoot(root.Encode())
	if err != nil || back.ID() != root.ID() || back.Verify() != nil {
		t.Fatal(err)
	}
	if b := root.Beside(public(ann.account)); b == nil || b.Identity != public(bob.account) {
		t.Error("the other one")
	}
	if root.Beside(public(newActor(3, 1).account)) != nil || ann.derivedRoot().Beside(public(ann.account)) != nil {
		t.Error("an owner of what it does not own")
	}
	for name, spoil := range map[string]func(r *Root){
		"the order of owners":   func(r *Root) { o := *r.Other; r.Owner, r.Other = o, &r.Owner },
		"one owner twice":       func(r *Root) { r.Other = &r.Owner },
		"the signature":         func(r *Root) { r.Signature[0]++ },
		"the first one's keys":  func(r *Root) { r.Owner.X25519[0]++ },
		"the second one's keys": func(r *Root) { o := *r.Other; o.X25519[0]++; r.Other = &o },
		"the agreed key":        func(r *Root) { r.Seed[0]++ },
		"the number":            func(r *Root) { r.Number++ },
		"another's signature":   func(r *Root) { r.Sign(key('x')) },
		// By one of the two, who has the agreed key:
		"the order of owners, signed":   func(r *Root) { o := *r.Other; r.Owner, r.Other = o, &r.Owner; r.Sign(key('o', 1)) },
		"one owner twice, signed":       func(r *Root) { r.Other = &r.Owner; r.Sign(key('o', 1)) },
		"the first one's keys, signed":  func(r *Root) { r.Owner.X25519[0]++; r.Sign(key('o', 1)) },
		"the second one's keys, signed": func(r *Root) { o := *r.Other; o.X25519[0]++; r.Other = &o; r.Sign(key('o', 1)) },
	} {
		r := *root
		spoil(&r)
		if r.Verify() == nil {
			t.Errorf("%s: taken", name)
		}
	}
	unordered := *root
	unordered.Owner, unordered.Other = *root.Other, &root.Owner
	if _, err := DecodeRoot(unordered.Encode()); !errors.Is(err, ErrFormat) {
		t.Errorf("owners in the other order: %v", err)
	}
	many := *root
	many.Number = maxNumber + 1
	if _, err := DecodeRoot(many.Encode()); !errors.Is(err, ErrFormat) {
		t.Errorf("a number beyond all: %v", err)
	}
}

// TestOneToOne: what each of the two may, and what nobody may.
func TestOneToOne(t *testing.T) {
	p := newTwo(t)
	for _, name := range []string{"ann", "bob"} {
		if err := p.begin(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.begin("eve"); !errors.Is(err, ErrDenied) {
		t.Errorf("a stranger began it: %v", err)
	}
	if p.lists["ann"].Payer() != public(p.who["ann"].account) || p.lists["bob"].Payer() != public(p.who["bob"].account) {
		t.Error("who has not come in pays")
	}
	p.sync()
	if p.roleBy("ann", "ann") != RoleOwner || p.roleBy("ann", "bob") != RoleOwner || p.roleBy("ann", "eve") != RoleNone {
		t.Fatal("roles")
	}
	if a, b := p.lists["ann"].Payer(), p.lists["bob"].Payer(); a != b {
		t.Error("replicas differ in who pays")
	}
	for what, rec := range map[string]*Record{
		"an invitation": invite(9, RoleReader, p.space), "an open invitation": openInvite(9, RoleReader, p.space, 1),
		"a removal": remove(p.who["bob"], next(p.space)), "a demotion": changeRole(p.who["bob"], RoleReader), "a promotion": changeRole(p.who["eve"], RoleAdmin),
		"a transfer": transfer(p.who["bob"]), "a transfer to a stranger": transfer(p.who["eve"]),
		"a key for a stranger":  share(p.space, Wrap{public(p.who["eve"].account), make([]byte, 48)}),
		"the device of another": addDevice(p.who["eve"], p.space),
	} {
		if _, err := p.write("ann", rec); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	own := &RevokeDevice{Signature: SignRevocation(p.who["ann"].account, public(p.who["bob"].device)), Device: public(p.who["bob"].device)}
	p.must("ann", &Record{Kind: KindRevokeDevice, Must: true, RevokeDevice: own}) // of its own account, which has no such device
	p.sync()
	if !p.lists["bob"].State().HasDevice(public(p.who["bob"].account), public(p.who["bob"].device)) {
		t.Error("one of the two revoked the other's device")
	}
	for what, rec := range map[string]*Record{
		"a request": p.who["eve"].request(p.space, 9, dag.ID{1}), "a joining": p.who["eve"].join(p.space, 9, dag.ID{1}), "an option": option("merge", 1), "a rotation": rotate(p.space),
	} {
		p.lists["eve"] = p.lists["bob"]
		if _, err := p.write("eve", rec); !errors.Is(err, ErrDenied) {
			t.Errorf("%s by a stranger: %v", what, err)
		}
	}
	epoch := p.must("bob", rotate(p.space))
	p.sync()
	batch := func(epoch dag.ID) *dag.Batch {
		a := p.who["ann"].author()
		return &dag.Batch{Account: a.Account, Device: a.Device, Epoch: epoch}
	}
	if err := p.lists["ann"].State().allowsFiles(batch(p.space)); !errors.Is(err, ErrDenied) {
		t.Errorf("files sealed in the first epoch: %v", err)
	}
	if err := p.lists["ann"].State().allowsFiles(batch(epoch)); err != nil {
		t.Error(err)
	}
	p.must("bob", leave())
	p.sync()
	if p.roleBy("ann", "bob") != RoleNone || p.roleBy("ann", "ann") != RoleOwner {
		t.Fatal("leaving")
	}
	if err := p.begin("bob2"); !errors.Is(err, ErrDenied) {
		t.Errorf("who left came back by another device: %v", err)
	}
	for _, e := range p.lists["ann"].State().Epochs() {
		if e.Clean {
			t.Error("an epoch whose key who left has is clean")
		}
	}
	p.must("ann", rotate(p.space))
	p.must("ann", leave())
	if len(p.lists["ann"].State().Members()) != 0 {
		t.Error("both left and somebody is in")
	}
}

// TestOneToOneBeside is the part of the table of ../ACL.md about one-to-one spaces.
func TestOneToOneBeside(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(p *party)
		look func(t *testing.T, s *State)
	}{
		{"both begin it", func(p *party) {}, func(t *testing.T, s *State) {
			if len(s.Members()) != 2 || len(s.Members()[0].Devices) != 1 || len(s.Members()[1].Devices) != 1 {
				t.Error("one of the two is not in, or lacks its device")
			}
		}},
		{"both begin the first epoch that is sealed in", func(p *party) {
			p.must("ann", rotate(p.space))
			p.must("bob", rotate(p.space))
		}, func(t *testing.T, s *State) {
			clean := 0
			for _, e := range s.Epochs() {
				if e.Clean {
					clean++
				}
			}
			if clean != 3 {
				t.Errorf("%d clean epochs", clean)
			}
		}},
		{"both leave", func(p *party) {
			p.must("ann", leave())
			p.must("bob", leave())
		}, func(t *testing.T, s *State) {
			if len(s.Members()) != 0 {
				t.Error("somebody is in")
			}
		}},
		{"one leaves, the other begins an epoch", func(p *party) {
			p.must("ann", leave())
			p.must("bob", rotate(p.space))
		}, func(t *testing.T, s *State) {
			for _, e := range s.Epochs() {
				if e.Clean {
					t.Error("an epoch that who left has is clean")
				}
			}
			if len(s.Members()) != 1 || s.Members()[0].Role != RoleOwner {
				t.Error("who stayed is not its owner")
			}
		}},
		{"one leaves and brings in another device, which sets options", func(p *party) {
			p.must("ann", leave())
			p.send("bob", "ann2")
			if err := p.begin("ann2"); err != nil {
				p.t.Fatal(err)
			}
			p.must("ann2", option("merge", 7))
		}, func(t *testing.T, s *State) {
			if len(s.Members()) != 1 {
				t.Error("who left is in")
			}
			if v, _ := s.Option("merge"); v != 7 {
				t.Error("an option of an owner who left beside it is gone")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newTwo(t)
			for _, name := range []string{"ann", "bob"} {
				if err := p.begin(name); err != nil {
					t.Fatal(err)
				}
			}
			if c.name != "both begin it" && c.name != "both begin the first epoch that is sealed in" {
				p.send("ann", "bob")
				p.send("bob", "ann")
			}
			c.run(p)
			delete(p.lists, "eve")
			for name, l := range p.lists {
				if l.State() == nil {
					delete(p.lists, name)
				}
			}
			p.sync()
			for _, l := range p.lists {
				c.look(t, l.State())
				if err := l.Verify(); err != nil {
					t.Error(err)
				}
				if show(l) != show(p.lists["bob"]) {
					t.Error("replicas differ")
				}
			}
		})
	}
}

// TestOneToOneHistories: whatever two accounts and a stranger write, in whatever order it comes, all replicas agree; nobody but these two is ever in, each is an
// owner until it leaves by its own word, and none comes back.
func TestOneToOneHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tb := t
		ann, bob, eve := newActor(1, 1), newActor(2, 1), newActor(3, 1)
		who := map[string]*actor{"ann": ann, "ann2": ann.second(), "bob": bob, "bob2": bob.second(), "eve": eve}
		names := slices.Sorted(maps.Keys(who))
		root := rootOfTwo(ann, bob)
		space := root.ID()
		lists := map[string]*List{}
		for _, n := range names {
			l, err := Open(space, store.NewMem())
			if err != nil {
				tb.Fatal(err)
			}
			lists[n] = l
		}
		left := map[dag.PublicKey]bool{}
		send := func(from, to string) {
			var frames [][]byte
			_ = lists[from].Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil })
			for _, f := range frames {
				if err := lists[to].Import(f); err != nil {
					tb.Fatalf("from %s to %s: %v", from, to, err)
				}
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			n := rapid.SampledFrom(names).Draw(t, "who")
			a := who[n]
			if lists[n].State() == nil || rapid.Bool().Draw(t, "begin") {
				rec := addDevice(a, space)
				rec.Root = root.Encode()
				if _, err := lists[n].Append(a.author(), rec); err == nil && n == "eve" {
					tb.Fatal("a stranger brought in a device")
				}
				continue
			}
			other := who[rapid.SampledFrom(names).Draw(t, "other")]
			var rec *Record
			switch rapid.IntRange(0, 11).Draw(t, "what") {
			case 0:
				rec = invite(byte(rapid.IntRange(1, 9).Draw(t, "seed")), RoleAdmin, space)
			case 1:
				rec = remove(other, next(space))
			case 2:
				rec = changeRole(other, RoleReader)
			case 3:
				rec = transfer(other)
			case 4:
				rec = rotate(space)
			case 5:
				rec = leave()
			case 6:
				rec = option("merge", 2)
			case 7:
				rec = share(space, Wrap{public(other.account), make([]byte, 48)})
			case 8:
				rec = a.request(space, 1, dag.ID{1})
			case 9:
				rec = addDevice(other, space)
			default:
				to := rapid.SampledFrom(names).Draw(t, "to")
				if to != n {
					send(n, to)
				}
				continue
			}
			_, err := lists[n].Append(a.author(), rec)
			switch {
			case err != nil:
			case n == "eve":
				tb.Fatalf("a stranger wrote a record of kind %d", rec.Kind)
			case rec.Leave != nil:
				left[public(a.account)] = true
			case rec.Invite != nil || rec.Remove != nil || rec.ChangeRole != nil || rec.Transfer != nil || rec.JoinRequest != nil:
				tb.Fatalf("a record of kind %d was taken", rec.Kind)
			}
		}
		for range 2 {
			for _, x := range names {
				for _, y := range names {
					if x != y && lists[x].State() != nil {
						send(x, y)
					}
				}
			}
		}
		if lists["ann"].State() == nil {
			return
		}
		want := show(lists["ann"])
		for _, n := range names {
			l := lists[n]
			if show(l) != want || l.Payer() != lists["ann"].Payer() {
				tb.Fatalf("%s differs:\n%s\nand\n%s", n, show(l), want)
			}
			for _, a := range []*actor{ann, bob} {
				if role := l.State().Role(public(a.account)); (role == RoleNone) != left[public(a.account)] || role != RoleNone && role != RoleOwner {
					tb.Fatalf("left %v, and is %s", left[public(a.account)], role)
				}
			}
			if l.State().Role(public(eve.account)) != RoleNone {
				tb.Fatal("a third is in")
			}
			if err := l.Verify(); err != nil {
				tb.Fatal(err)
			}
		}
	})
}
