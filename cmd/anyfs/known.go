package main

import (
	"encoding/json"
	"errors"
	iofs "io/fs"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
)

// knownName is the file of a home with the names of people and the accounts that they were first seen with, sealed.
const knownName = "known"

// maxKnown bounds how many names are remembered: others choose them.
const maxKnown = 20_000

// knownNames are accounts by the name that they call themselves, as foldName gives it: the first that was seen, and those that were accepted beside it.
type knownNames map[string][]string

// foldName takes from a name what people don't see.
func foldName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Variation_Selector, r), unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r), unicode.Is(unicode.Cf, r):
			return -1 // it is drawn as nothing
		case r == '\u2800': // an empty pattern of Braille
			return ' '
		}
		return r
	}, name)
	return strings.Join(strings.Fields(strings.ToLower(name)), " ")
}

// who is an account under the name that it calls itself; empty where it has given none.
type who struct {
	account dag.PublicKey
	name    string
}

// called gives a member by the name that it calls itself. What its device is called is none: many are called alike.
func called(p acl.Person) who {
	if p.Unnamed {
		return who{account: p.Account}
	}
	return who{p.Account, p.Name}
}

// readKnown reads the names; the caller holds h.mu.
func (h *home) readKnown() (knownNames, error) {
	known := knownNames{}
	sealed, err := h.disk.ReadFile(knownName)
	if errors.Is(err, iofs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := h.keys.Local.OpenLocal(nil, sealed, []byte(knownName))
	if err != nil {
		return nil, err
	}
	return known, json.Unmarshal(b, &known)
}

// meet remembers who is called what, where a name is new, and gives for each account whose name was first seen with another account that one.
func (h *home) meet(people []who) (others map[dag.PublicKey]string, err error) {
	others = map[dag.PublicKey]string{}
	err = h.changeKnown(func(known knownNames) {
		for _, p := range people {
			name, account := foldName(p.name), acl.FormatIdentity(p.account)
			switch was := known[name]; {
			case name == "" || slices.Contains(was, account):
			case len(was) > 0:
				others[p.account] = was[0]
			case len(known) < maxKnown:
				known[name] = []string{account}
			}
		}
	})
	return others, err
}

// accept remembers that an account goes by its name, beside whoever did before.
func (h *home) accept(p who) error {
	return h.changeKnown(func(known knownNames) {
		name, account := foldName(p.name), acl.FormatIdentity(p.account)
		if name != "" && !slices.Contains(known[name], account) {
			known[name] = append(slices.Clone(known[name]), account)
		}
	})
}

func (h *home) changeKnown(change func(knownNames)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	known, err := h.readKnown()
	if err != nil {
		return err
	}
	before := maps.Clone(known)
	change(known)
	if maps.EqualFunc(before, known, slices.Equal) {
		return nil
	}
	b, err := json.Marshal(known)
	if err != nil {
		return err
	}
	return h.disk.WriteFileAtomic(knownName, h.keys.Local.SealLocal(nil, b, []byte(knownName)))
}

// describe gives members as they are printed, and remembers their names.
func (h *home) describe(people ...acl.Person) ([]member, error) {
	met := make([]who, 0, len(people))
	for _, p := range people {
		met = append(met, called(p))
	}
	others, err := h.meet(met)
	out := []member{}
	for _, p := range people {
		out = append(out, member{
			Account: acl.FormatIdentity(p.Account), Fingerprint: acl.Fingerprint(p.Account), Name: p.Name, Role: p.Role.String(), Since: stamp(p.Since),
			Self: p.Account == h.keys.Identity, Other: others[p.Account],
		})
	}
	return out, err
}

// describeAsking gives requests as they are printed, and remembers the names in them.
func (h *home) describeAsking(all ...acl.Asking) ([]request, error) {
	met := make([]who, 0, len(all))
	for _, q := range all {
		met = append(met, who{q.Account, q.Name})
	}
	others, err := h.meet(met)
	out := []request{}
	for _, q := range all {
		r := request{
			Account: acl.FormatIdentity(q.Account), Fingerprint: acl.Fingerprint(q.Account), Name: q.Name, Time: stamp(q.Time), Role: q.Role.String(), Other: others[q.Account],
		}
		if q.Replaces != (dag.PublicKey{}) {
			r.Replaces = acl.FormatIdentity(q.Replaces)
		}
		out = append(out, r)
	}
	return out, err
}

// warnOther warns of an account whose name was first seen with another one.
func (e *env) warnOther(name, account, fingerprint, other string) {
	if other == "" {
		return
	}
	was := other
	if id, err := acl.ParseIdentity(other); err == nil {
		was += " (" + acl.Fingerprint(id) + ")"
	}
	e.say("\nWARNING: %s IS ANOTHER ACCOUNT than the one that this name was first seen with.\n"+
		"  now    %s (%s)\n  first  %s\n"+
		"Either two people have one name, or somebody poses as another. Ask them, in another way than by anyfs, what 'anyfs account show' prints\n"+
		"as their fingerprint; until then trust nothing that comes from the first of these two.", printable(name), account, fingerprint, was)
}

// noteNames remembers who is called what in the spaces whose access lists have grown, so that the first that is seen with a name is the first that
// came, and not the first that somebody looked at. A name that goes over to another account is logged once: members and requests show it.
func (n *network) noteNames() {
	for _, r := range n.h.fs.Replicas() {
		batches, _, _ := r.ACL.Counters()
		name := r.Name()
		if name == "" || n.named[r.ID] == batches {
			continue
		}
		n.named[r.ID] = batches
		members, err := n.h.fs.Members(name)
		if err != nil {
			continue // it was deleted or renamed meanwhile
		}
		asking, err := n.h.fs.Requests(name)
		if err != nil {
			continue
		}
		var people []who
		for _, m := range members {
			people = append(people, called(m))
		}
		for _, q := range asking {
			people = append(people, who{q.Account, q.Name})
		}
		others, err := n.h.meet(people)
		if err != nil {
			n.h.log.Error("the names of members can't be remembered", "err", err)
		}
		for account := range others {
			if !n.warned[account] {
				n.warned[account] = true
				n.h.log.Error("an account goes by a name that another one had; 'anyfs members' or 'anyfs requests' shows which", "space", r.ID, "account", acl.FormatIdentity(account))
			}
		}
	}
}
