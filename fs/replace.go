package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"strings"

	"github.com/anyfs/anyfs/acl"
)

// What replacing the account of a home takes: its place in each space goes over to a successor, and then the home itself.

// StateAsked is the state of a space whose owner or admins have not answered yet whether this account may be in it: what is here can be read.
const StateAsked = "asked"

// Ways in which a space goes over to another account.
const (
	PlaceTaken = "replaced" // the successor is in
	PlaceAsked = "asked"    // the owner or an admin is asked
	PlaceLeft  = "left"     // the space is left: it is not for others, or this account was in it no more
)

// Place is what became of the account's place in a space.
type Place struct {
	Name string
	ID   string
	How  string
	With string // of a one-to-one space: the other account
	Err  error
}

// GiveWay has a successor take this account's place in every space that is here but the home space: where this account owns one at once, else it is asked for. A
// one-to-one space is left. name is how the successor is called where this account has no name of its own. What was done before is not done again.
func (h *Home) GiveWay(ctx context.Context, by *acl.Successor, name string) ([]Place, error) {
	infos, err := h.Spaces()
	if err != nil {
		return nil, err
	}
	var out []Place
	for _, i := range infos {
		p := Place{Name: i.Name, ID: i.ID, With: i.With}
		s, err := h.shared(i.Name)
		if err == nil {
			p.How, err = s.giveWay(ctx, by, name)
		}
		if p.Err = err; err != nil {
			h.report(fmt.Sprintf("space %s: replace the account", i.ID), err)
		}
		out = append(out, p)
	}
	return out, nil
}

func (s *space) giveWay(ctx context.Context, by *acl.Successor, name string) (string, error) {
	if s.sick != nil {
		return "", s.sick
	}
	own := s.h.keys.Identity
	switch {
	case s.acl.List().State().Unknown:
		return "", acl.ErrUnknown
	case s.acl.Role() == acl.RoleNone && s.acl.List().State().Role(by.Account.Identity()) != acl.RoleNone:
		return PlaceTaken, nil
	case s.acl.Role() == acl.RoleNone || s.acl.Revoked():
		return PlaceLeft, nil
	}
	// What was written so far is under the old account, and counts.
	if s.acl.MayWrite() {
		if err := s.publishAll(ctx); err != nil {
			return "", err
		}
	}
	if s.acl.OneToOne() != nil {
		return PlaceLeft, s.recorded(s.acl.Leave(s.tipsOf(own)))
	}
	for _, p := range s.acl.People() {
		if p.Account == own && !p.Unnamed && p.Name != "" {
			name = p.Name
		}
	}
	id, err := s.acl.AskReplaced(by, name, s.h.opt.Clock(), s.h.opt.Rand)
	if err != nil {
		return "", err
	}
	how := PlaceAsked
	if s.acl.Role() == acl.RoleOwner || s.acl.List().State().Role(by.Account.Identity()) == acl.RoleOwner {
		how, err = PlaceTaken, s.acl.GiveWay(by, id, s.tipsOf(own), s.h.opt.Clock(), s.h.opt.Rand)
	}
	return how, s.recorded(err)
}

// OldPersonalName is what the Personal of an account that was replaced is called: the new account has its own.
const OldPersonalName = PersonalName + " (old)"

// Bequeath readies the folders of all spaces for a home of another account: each but Personal keeps the name that it has in the root. It gives what opens them, for acl.Succeed. The home
// is closed after it.
func (h *Home) Bequeath() ([]acl.SpaceSecret, error) {
	infos, err := h.Spaces()
	if err != nil {
		return nil, err
	}
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	names, taken := map[string]string{}, map[string]bool{}
	for _, i := range infos {
		names[i.ID], taken[i.Name] = i.Name, true
	}
	// Where it is cut short, this account's home may be without its secret.
	secret, err := h.home.acl.Secret(labelHome)
	if err != nil {
		return nil, err
	}
	out := []acl.SpaceSecret{secret}
	for _, s := range h.all() {
		if s == h.home || s.id.IsZero() {
			continue
		}
		name, ok := names[s.id.String()]
		if !ok {
			continue
		}
		// Each account has its own. The second time, after a crash, its name alone tells.
		if name == PersonalName && (s.as.label == labelPersonal || strings.HasPrefix(s.as.name, OldPersonalName)) {
			name = OldPersonalName
			for n := 2; taken[name]; n++ {
				name = fmt.Sprintf("%s %d", OldPersonalName, n)
			}
		}
		as := spaceIdentity{name: name} // it is derived from no account that the home will have
		if err := h.opt.Disk.WriteFileAtomic(s.dir+"/"+spaceFile, h.local.SealLocal(nil, as.encode(s.id), []byte(s.dir))); err != nil {
			return nil, fmt.Errorf("space %s: %w", s.id, err)
		}
		if s.sick != nil || !s.acl.HasKey() {
			continue
		}
		secret, err := s.acl.Secret("")
		if err != nil {
			return nil, fmt.Errorf("space %s: %w", s.id, err)
		}
		out = append(out, secret)
	}
	return out, nil
}

// dropInherited takes away the home space of an account which another has replaced in this home: the new account's own comes in its place.
func (h *Home) dropInherited() error {
	id, _, err := h.readSpaceFile(spaceDir(0))
	if err != nil {
		return nil // whoever opens it says what is wrong
	}
	own, err := acl.DerivedID(h.keys, labelHome)
	if err != nil || own == id {
		return nil
	}
	h.opt.Log.Warn("the home space of the account that was replaced goes", "space", id.String())
	return h.removeFolder(spaceDir(0))
}

// nameInherited gives the spaces that are here their names in the root of a home space that was made just now.
func (h *Home) nameInherited() error {
	var err error
	for _, s := range h.all() {
		if s == h.home || s.id.IsZero() {
			continue
		}
		if _, e := h.opt.Disk.ReadFile(s.dir + "/" + deletingFile); errors.Is(e, iofs.ErrNotExist) {
			err = errors.Join(err, h.nameAgain(s, s.as.name))
		}
	}
	return err
}
