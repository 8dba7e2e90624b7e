package list

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

func agree(salt byte, to ...*actor) *Record {
	a := &Agree{Salt: [32]byte{salt}}
	for _, o := range to {
		wraps := []Wrap{{public(o.account), bytes.Repeat([]byte{7}, 48)}, {public(o.device), bytes.Repeat([]byte{8}, 48)}}
		if dag.ID(wraps[0].To).Compare(dag.ID(wraps[1].To)) > 0 {
			wraps[0], wraps[1] = wraps[1], wraps[0]
		}
		a.Members = append(a.Members, AgreedMember{public(o.account), wraps})
	}
	if n := len(a.Members); n == 2 && dag.ID(a.Members[0].Account).Compare(dag.ID(a.Members[1].Account)) > 0 {
		a.Members[0], a.Members[1] = a.Members[1], a.Members[0]
	}
	return &Record{Kind: KindAgree, Must: true, Agree: a}
}

func byAgreed(rec *Record, by dag.ID, mask ...byte) *Record {
	n := 0
	for _, b := range mask {
		for ; b != 0; b &= b - 1 {
			n++
		}
	}
	k := rec.next()
	k.Agreed = append(k.Agreed, AgreedWraps{Record: by, Mask: mask, Wraps: bytes.Repeat([]byte{9}, n*agreedWrap)})
	return rec
}

// agreeing are records of agreed keys.
func agreeing() map[string]*Record {
	a := newActor(1, 1)
	return map[string]*Record{
		"agreement": agree(3, a, newActor(2, 1)), "epoch by agreed keys": byAgreed(byAgreed(rotate(dag.ID{1}), dag.ID{2}, 5), dag.ID{3}, 0, 128),
		"removal by agreed keys": byAgreed(remove(a, next(dag.ID{1})), dag.ID{2}, 1),
	}
}

// agreeFaults are encodings of such that are refused.
func agreeFaults() map[string][]byte {
	a := newActor(1, 1)
	cut := byAgreed(rotate(dag.ID{1}), dag.ID{2}, 5)
	cut.RotateKey.Agreed[0].Wraps = cut.RotateKey.Agreed[0].Wraps[1:]
	empty := byAgreed(rotate(dag.ID{1}), dag.ID{2}, 1)
	empty.RotateKey.Agreed[0].Mask, empty.RotateKey.Agreed[0].Wraps = nil, nil
	twice := agree(1, a)
	twice.Agree.Members = append(twice.Agree.Members, twice.Agree.Members[0])
	return map[string][]byte{
		"agreed wraps cut short": cut.Encode(), "agreed wraps for nobody": empty.Encode(),
		"agreed wraps with a mask too long": byAgreed(rotate(dag.ID{1}), dag.ID{2}, append([]byte{1}, make([]byte, 32)...)...).Encode(),
		"agreed wraps with an end of zeros": byAgreed(rotate(dag.ID{1}), dag.ID{2}, 1, 0).Encode(),
		"agreed wraps of one record twice":  byAgreed(byAgreed(rotate(dag.ID{1}), dag.ID{2}, 1), dag.ID{2}, 2).Encode(),
		"agreement with nobody":             agree(1).Encode(),
		"agreement with one member twice":   twice.Encode(),
	}
}

func agreedTo(s *State, epoch dag.ID) (out []dag.PublicKey) {
	s.AgreedTo(s.epochs[epoch], func(to, _ dag.PublicKey) { out = append(out, to) })
	return out
}

// sharedBy shares an epoch's key with those members of an agree record whose bits are set.
func sharedBy(epoch, record dag.ID, mask byte) *Record {
	r := share(epoch)
	r.ShareKey.Agreed = byAgreed(rotate(dag.ID{1}), record, mask).RotateKey.Agreed
	return r
}

// TestAgreeRules: who may agree on keys with whom, and which epochs go by them.
func TestAgreeRules(t *testing.T) {
	p := newParty(t, "adm:admin", "wri:writer", "rea:reader")
	stranger := newActor(90, 1)
	deny := func(who string, rec *Record) {
		t.Helper()
		if _, err := p.lists[who].Append(p.who[who].author(), rec); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", who, err)
		}
	}
	deny("wri", agree(1, p.who["rea"]))
	deny("rea", agree(1, p.who["rea"]))
	deny("adm", agree(1, stranger))
	other := agree(1, p.who["rea"])
	other.Agree.Members[0].Account = public(p.who["wri"].account)
	deny("adm", other) // wraps to another's device

	id, err := p.lists["adm"].Append(p.who["adm"].author(), agree(1, p.who["rea"], p.who["wri"]))
	if err != nil {
		t.Fatal(err)
	}
	rea := p.lists["adm"].State().agreed[id].find(public(p.who["rea"].account))
	space := p.lists["adm"].Space()
	deny("adm", byAgreed(rotate(space), dag.ID{5}, 1))
	deny("adm", byAgreed(rotate(space), id, 4))
	deny("adm", byAgreed(remove(p.who["rea"], next(space)), id, 1<<rea))
	if _, err := p.lists["adm"].Append(p.who["adm"].author(), byAgreed(remove(p.who["rea"], next(space)), id, 1<<(1-rea))); err != nil {
		t.Fatal(err)
	}
	deny("adm", byAgreed(rotate(space), id, 1<<rea))

	// One who uses another's agreement wraps to nobody.
	p.send("adm", "wri")
	own, err := p.lists["wri"].Append(p.who["wri"].author(), byAgreed(rotate(space), id, 1<<(1-rea)))
	if err != nil {
		t.Fatal(err)
	}
	st := p.lists["wri"].State()
	if to := agreedTo(st, own); len(to) != 0 || len(st.AgreedFor(st.epochs[own], public(p.who["wri"].account))) != 0 {
		t.Error("an epoch went by the agreement of another's device")
	}

	// The key is shared under the keys of who shares it, and no others.
	deny("adm", sharedBy(own, dag.ID{5}, 1))
	p.send("wri", "adm")
	deny("adm", sharedBy(own, id, 1<<rea)) // who was removed
	p.must("wri", sharedBy(own, id, 1<<(1-rea)))
	if to := agreedTo(p.lists["wri"].State(), own); len(to) != 0 {
		t.Error("a key was shared by the agreement of another's device")
	}
	p.must("adm", sharedBy(own, id, 1<<(1-rea)))
	p.send("adm", "wri")
	st = p.lists["wri"].State()
	if to := agreedTo(st, own); len(to) != 2 || !slices.Contains(to, public(p.who["wri"].device)) || len(st.AgreedFor(st.epochs[own], public(p.who["wri"].account))) != 1 {
		t.Errorf("shared with %d", len(to))
	}
}
