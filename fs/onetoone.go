package fs

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
)

// One-to-one spaces: which accounts this one knows, which space it has or would have with each of them, and those that others began with it.

// Contact is another account that this one shares a space with, so that each has the other's keys.
type Contact struct {
	Keys    acl.AccountKeys
	Name    string // as it is called in one of these spaces; empty where nothing is known
	Unnamed bool   // it has given no name: Name is that of a device
}

// Offer is a one-to-one space that another account has begun with this one, and that is not here.
type Offer struct {
	Other  acl.AccountKeys
	Number uint64
	ID     dag.ID
	Time   time.Time // when it was found
}

// oneToOnes is what a home knows of one-to-one spaces that are not here. It holds no lock of the home while it is locked.
type oneToOnes struct {
	saving sync.Mutex // one change of the file at a time; taken before mu

	mu       sync.Mutex
	ids      map[ofTwo]dag.ID
	offers   map[dag.ID]*offered
	declined map[dag.PublicKey]bool // accounts of which no offer is shown
	loaded   bool                   // the file was read
}

type ofTwo struct {
	other  dag.PublicKey
	number uint64
}

type offered struct {
	Offer
	frames [][]byte // of the access list; nil: it was found before this start
	over   bool     // one of the two has left it
}

// Bounds of what is kept of one-to-one spaces that are not here.
const (
	maxTwoIDs   = 4096
	maxOffers   = 256
	maxNumbers  = 64 // how many the same two may have left
	maxContacts = 256
)

// id is the one-to-one space with another account: computed once.
func (t *oneToOnes) id(k *acl.Keys, other *acl.AccountKeys, number uint64) (dag.ID, error) {
	key := ofTwo{other.Identity, number}
	t.mu.Lock()
	id, ok := t.ids[key]
	t.mu.Unlock()
	if ok {
		return id, nil
	}
	id, err := acl.OneToOneID(k, other, number)
	if err != nil {
		return id, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids == nil || len(t.ids) >= maxTwoIDs {
		t.ids = map[ofTwo]dag.ID{}
	}
	t.ids[key] = id
	return id, nil
}

func (t *oneToOnes) offer(id dag.ID) *offered {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.offers[id]
}

// Contacts are the accounts that this one shares a space with, those of the smallest spaces first: all of them with their names, or with a limit so many without.
func (h *Home) Contacts(limit int) []Contact {
	spaces := h.each()
	sizes := map[*space]int{}
	for _, s := range spaces {
		if s != h.home {
			sizes[s] = s.acl.List().State().Size()
		}
	}
	slices.SortStableFunc(spaces, func(a, b *space) int { return cmp.Compare(sizes[a], sizes[b]) })
	at := map[dag.PublicKey]int{}
	var out []Contact
	for _, s := range spaces {
		if s == h.home || s.deleted() || s.acl.Role() == acl.RoleNone || limit > 0 && len(out) >= limit {
			continue
		}
		names := map[dag.PublicKey]acl.Person{}
		if limit == 0 && s.acl.OneToOne() == nil {
			for _, p := range s.acl.People() {
				names[p.Account] = p
			}
		}
		for _, m := range s.acl.Members() {
			if m.Account == h.keys.Identity {
				continue
			}
			i, ok := at[m.Account]
			if !ok {
				if limit > 0 && len(out) >= limit {
					continue
				}
				i = len(out)
				at[m.Account] = i
				out = append(out, Contact{Keys: m.Keys})
			}
			if p, ok := names[m.Account]; ok && p.Name != "" && (out[i].Name == "" || out[i].Unnamed && !p.Unnamed) {
				out[i].Name, out[i].Unnamed = p.Name, p.Unnamed
			}
		}
	}
	return out
}

// twoStep is what is known of the one-to-one space with a number.
type twoStep struct {
	number uint64
	id     dag.ID
	here   *space
	offer  *offered
}

// steps gives the one-to-one spaces of this account and another from the first to the one that goes on: of those before, one of the two has left each.
func (h *Home) steps(other *acl.AccountKeys) (out []twoStep, err error) {
	for n := range uint64(maxNumbers) {
		x := twoStep{number: n}
		if x.id, err = h.two.id(h.keys, other, n); err != nil {
			return nil, err
		}
		x.here, x.offer = h.spaceOf(x.id), h.two.offer(x.id)
		out = append(out, x)
		if x.here != nil && x.here.usable() == nil {
			if x.here.acl.Role() != acl.RoleNone && !x.here.acl.Alone() {
				return out, nil
			}
		} else if x.here != nil || x.offer == nil || !x.offer.over {
			return out, nil
		}
	}
	return nil, fmt.Errorf("%w: these two accounts have left %d spaces", acl.ErrDenied, maxNumbers)
}

// SeekOneToOne gives the one-to-one spaces with another account that are not here, and of which its devices and the nodes may know: at most one. What an account offers whose
// offer was declined is not looked for.
func (h *Home) SeekOneToOne(other *acl.AccountKeys) ([]dag.ID, error) {
	if h.two.isDeclined(other.Identity) {
		return nil, nil
	}
	steps, err := h.steps(other)
	if err != nil {
		return nil, err
	}
	last := steps[len(steps)-1]
	if last.here != nil || last.offer != nil && last.offer.frames != nil {
		return nil, nil
	}
	return []dag.ID{last.id}, nil
}

// FoundOneToOne takes the access list of a one-to-one space with another account, as a peer gave it. It reports whether it is one that nobody has left and that
// was not known. What does not prove itself is an error.
func (h *Home) FoundOneToOne(other *acl.AccountKeys, id dag.ID, frames [][]byte) (bool, error) {
	steps, err := h.steps(other)
	if err != nil {
		return false, err
	}
	last := steps[len(steps)-1]
	if last.id != id || last.here != nil || last.offer != nil && last.offer.frames != nil {
		return false, nil
	}
	begun, over, err := acl.LookOneToOne(h.keys, id, frames)
	if err != nil || !begun {
		return false, err
	}
	found := false
	err = h.changeOffers(func(t *oneToOnes) {
		o := &offered{Offer{*other, last.number, id, h.opt.Clock()}, frames, over}
		if was := t.offers[id]; was != nil {
			o.Time = was.Time
		} else if len(t.offers) >= maxOffers || t.declined[other.Identity] {
			return
		} else {
			found = !over
		}
		t.offers[id] = o
	})
	return found && err == nil, err
}

func (t *oneToOnes) isDeclined(other dag.PublicKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.declined[other]
}

// Offers are the one-to-one spaces that others have begun with this account and that are not here, the oldest first. One that was declined or deleted here is none.
func (h *Home) Offers() ([]Offer, error) {
	h.two.mu.Lock()
	var out []Offer
	for _, o := range h.two.offers {
		if !o.over {
			out = append(out, o.Offer)
		}
	}
	h.two.mu.Unlock()
	var failed error
	out = slices.DeleteFunc(out, func(o Offer) bool {
		del, err := h.knownDeletion(o.ID)
		failed = errors.Join(failed, err)
		return h.spaceOf(o.ID) != nil || del != nil
	})
	slices.SortFunc(out, func(a, b Offer) int { return cmp.Or(a.Time.Compare(b.Time), bytes.Compare(a.ID[:], b.ID[:])) })
	return out, failed
}

// OneToOne gives the one-to-one space of this account and another, and begins it under a name in the root where it is not here; it is the same that the other account
// comes to. Where one of the two has left it, they have another. It takes the account's secret.
func (h *Home) OneToOne(name string, other *acl.AccountKeys) (SpaceInfo, error) {
	steps, err := h.steps(other)
	if err != nil {
		return SpaceInfo{}, err
	}
	x := steps[len(steps)-1]
	if x.here != nil {
		as, err := h.nameOf(x.here)
		if err != nil {
			return SpaceInfo{}, err
		}
		return h.Space(as)
	}
	var frames [][]byte
	if x.offer != nil {
		frames = x.offer.frames
	} else if del, err := h.knownDeletion(x.id); err != nil {
		return SpaceInfo{}, err
	} else if del != nil && x.number+1 < maxNumbers {
		x.number++ // this device has written in it before, and nothing of it is here
	}
	i, err := h.createSpace(name, "", dag.ID{}, func(st dag.Store) (*acl.Space, error) {
		return acl.BeginOneToOne(h.keys, other, x.number, st, frames, h.opt.Rand)
	}, nil)
	if err == nil {
		h.tookOneToOne(other.Identity)
		h.emit(Event{Parent: h.home.ino(rootDir), Name: name, Kind: EventMade, Dir: true})
	}
	return i, err
}

// namePeople gives the two of a one-to-one space the names that they go by in other spaces: it has none of its own.
func (h *Home) namePeople(s *space, people []acl.Person) []acl.Person {
	other := s.acl.OneToOne()
	if other == nil {
		return people
	}
	for _, c := range h.Contacts(0) {
		for i := range people {
			if people[i].Account == c.Keys.Identity && c.Name != "" {
				people[i].Name, people[i].Unnamed = c.Name, true
			}
		}
	}
	return people
}
