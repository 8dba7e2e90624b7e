package fs

import (
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"slices"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
)

// What this device remembers of one-to-one spaces that others offer: which there are, and of whom none is to be shown.

// offersFile holds it, sealed. It is of this device alone: each device of the account finds offers, and asks its own person.
const offersFile = "offers"

// offersState is what the file holds, as JSON.
type offersState struct {
	Version  int           `json:"v"`
	Account  string        `json:"account"` // whose offers they are: those of one that was replaced are passed over
	Declined []string      `json:"declined,omitempty"`
	Offers   []storedOffer `json:"offers,omitempty"`
}

type storedOffer struct {
	Card   string    `json:"card"`
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	Over   bool      `json:"over,omitempty"`
}

const offersVersion = 1

// errOffers says that the file is damaged, or of another version.
var errOffers = errors.New("what is known of one-to-one spaces that others offer can't be read")

// readOffers reads the file; nothing where there is none, or it is of another account.
func (h *Home) readOffers() (st offersState, err error) {
	sealed, err := h.opt.Disk.ReadFile(offersFile)
	if errors.Is(err, iofs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, err
	}
	b, err := h.local.OpenLocal(nil, sealed, []byte(offersFile))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err == nil && st.Version != offersVersion {
		err = fmt.Errorf("version %d is not known", st.Version)
	}
	if err != nil {
		return offersState{}, fmt.Errorf("%w: %w", errOffers, err)
	}
	if st.Account != acl.FormatIdentity(h.keys.Identity) {
		return offersState{}, nil
	}
	return st, nil
}

// loadOffers takes what the file holds. One that is damaged is reported, and is as none: offers are found again, and what was declined shows again.
func (h *Home) loadOffers() error {
	if h.keys.Account == nil {
		return nil // a device without the account's secret can compute none of them
	}
	st, err := h.readOffers()
	if errors.Is(err, errOffers) {
		h.report(offersFile, fmt.Errorf("%w; one-to-one spaces that were declined are offered again", err))
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", offersFile, err)
	}
	offers := map[dag.ID]*offered{}
	for _, o := range st.Offers {
		other, err := acl.ParseCard(o.Card)
		if err != nil {
			continue
		}
		if id, err := h.two.id(h.keys, other, o.Number); err == nil {
			offers[id] = &offered{Offer: Offer{*other, o.Number, id, o.Time}, over: o.Over}
		}
	}
	declined := map[dag.PublicKey]bool{}
	for _, d := range st.Declined {
		if id, err := acl.ParseIdentity(d); err == nil {
			declined[id] = true
		}
	}
	h.two.mu.Lock()
	defer h.two.mu.Unlock()
	h.two.offers, h.two.declined, h.two.loaded = offers, declined, true
	return nil
}

// changeOffers has change alter what is remembered, with two.mu held, and makes it durable. Where that fails nothing is changed.
func (h *Home) changeOffers(change func(t *oneToOnes)) error {
	t := &h.two
	t.saving.Lock()
	defer t.saving.Unlock()
	if !t.isLoaded() {
		if err := h.loadOffers(); err != nil { // else it would be written over
			return err
		}
	}
	t.mu.Lock()
	offers, declined := t.offers, t.declined
	before := t.stored(h.keys.Identity)
	t.offers, t.declined = maps.Clone(offers), maps.Clone(declined)
	change(t)
	after := t.stored(h.keys.Identity)
	t.mu.Unlock()
	b, err := json.Marshal(after)
	if err == nil {
		var was []byte
		if was, err = json.Marshal(before); err == nil && string(was) != string(b) {
			err = h.opt.Disk.WriteFileAtomic(offersFile, h.local.SealLocal(nil, b, []byte(offersFile)))
		}
	}
	if err != nil {
		t.mu.Lock()
		t.offers, t.declined = offers, declined
		t.mu.Unlock()
		return fmt.Errorf("%s: %w", offersFile, err)
	}
	return nil
}

func (t *oneToOnes) isLoaded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.loaded
}

// stored is what is kept. Access lists are not: they are asked for again. Under mu.
func (t *oneToOnes) stored(account dag.PublicKey) offersState {
	st := offersState{Version: offersVersion, Account: acl.FormatIdentity(account)}
	for d := range t.declined {
		st.Declined = append(st.Declined, acl.FormatIdentity(d))
	}
	slices.Sort(st.Declined)
	for _, id := range slices.SortedFunc(maps.Keys(t.offers), dag.ID.Compare) {
		o := t.offers[id]
		st.Offers = append(st.Offers, storedOffer{acl.FormatCard(&o.Other), o.Number, o.Time, o.over})
	}
	return st
}

// DeclineOneToOne ends the offer of a one-to-one space by an account, and shows none of it any more, also where it leaves that one and begins another. The other is not told:
// the space's list is of both, so a word in it would be what coming into it is, and who declines may not want to be seen. It holds on this device, across restarts, until
// OneToOne takes or begins the space. ErrNotExist where that account offers none.
func (h *Home) DeclineOneToOne(other dag.PublicKey) error {
	offers, err := h.Offers()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(offers, func(o Offer) bool { return o.Other.Identity == other }) {
		return fmt.Errorf("no one-to-one space is offered by %s: %w", acl.FormatIdentity(other), ErrNotExist)
	}
	return h.changeOffers(func(t *oneToOnes) {
		t.forget(other)
		t.declined[other] = true
	})
}

// tookOneToOne forgets that a one-to-one space was offered or declined.
func (h *Home) tookOneToOne(other dag.PublicKey) {
	err := h.changeOffers(func(t *oneToOnes) {
		t.forget(other)
		delete(t.declined, other)
	})
	if err != nil {
		h.report("what was offered", err) // an offer of what is here is shown by nobody
	}
}

// forget drops what an account offers; what one of the two has left is still needed to know which space is theirs. Under mu.
func (t *oneToOnes) forget(other dag.PublicKey) {
	maps.DeleteFunc(t.offers, func(_ dag.ID, o *offered) bool { return o.Other.Identity == other && !o.over })
}
