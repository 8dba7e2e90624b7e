package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
)

// One-to-one spaces: begun by 'space create --with', and found where another account has begun one with this.

type withParams struct {
	With string `json:"with"` // a name, a fingerprint, an account, or a card
	Name string `json:"name,omitempty"`
}

// noSecretForTwo says what a device without the account's secret can't do.
func noSecretForTwo(err error) error {
	if !errors.Is(err, acl.ErrNoSecret) {
		return err
	}
	return failf(exitFailed, "a one-to-one space is begun on a device that has the account's phrase, and this one was paired by a code; begin it there, and it comes here")
}

// contact finds the account that a person means.
func (h *home) contact(with string) (fs.Contact, error) {
	if acl.LikeCard(with) {
		k, err := acl.ParseCard(with)
		if err != nil {
			return fs.Contact{}, &failure{exitUsage, err}
		}
		if k.Identity == h.keys.Identity {
			return fs.Contact{}, failf(exitUsage, "that is your own card; a one-to-one space is with somebody else")
		}
		for _, c := range h.fs.Contacts(0) {
			if c.Keys.Identity == k.Identity {
				return c, nil
			}
		}
		return fs.Contact{Keys: *k}, nil
	}
	all := h.fs.Contacts(0)
	var accounts []dag.PublicKey
	var names []string
	for _, c := range all {
		accounts, names = append(accounts, c.Keys.Identity), append(names, c.Name)
	}
	i, err := acl.FindPerson(with, accounts, names)
	if err != nil {
		return fs.Contact{}, failf(exitNotFound, "no space that you are in has a member %s, or several are called so; have them send you what 'anyfs account card' prints on their side, and give that", printable(with))
	}
	c := all[i]
	if c.Name == with && !c.Unnamed {
		others, err := h.meet([]who{{c.Keys.Identity, c.Name}})
		if err != nil {
			return c, err
		}
		if other := others[c.Keys.Identity]; other != "" {
			return c, failf(exitFailed, "%s is another account (%s) than the one that this name was first seen with (%s); ask them for the fingerprint that 'anyfs account show' prints, "+
				"and give it in place of the name if it is %s", printable(with), acl.FormatIdentity(c.Keys.Identity), other, acl.Fingerprint(c.Keys.Identity))
		}
	}
	return c, nil
}

// opSpaceWith gives the one-to-one space with another account, which it begins where it is not here.
var opSpaceWith = operation[withParams, spaceStatus]{"space-with", func(_ context.Context, h *home, p withParams, _ sink) (r spaceStatus, err error) {
	c, err := h.contact(p.With)
	if err != nil {
		return r, err
	}
	chosen := p.Name != ""
	if !chosen {
		if p.Name = acl.CleanDeviceName(c.Name); p.Name == "" {
			p.Name = acl.Fingerprint(c.Keys.Identity)
		}
	}
	if err := checkSpaceName(p.Name); err != nil {
		return r, err
	}
	for i := 1; ; i++ {
		name := p.Name
		if i > 1 {
			name = fmt.Sprintf("%s %d", name, i)
		}
		s, err := h.fs.OneToOne(name, &c.Keys)
		var taken *fs.TakenError
		if errors.As(err, &taken) && !taken.Here && !chosen && i < 100 {
			continue
		}
		if err != nil {
			return r, shareError(name, noSecretForTwo(err))
		}
		h.announce()
		return statusOf(s), nil
	}
}}

// opContacts gives the names that 'space create --with' takes.
var opContacts = operation[none, []string]{"contacts", func(_ context.Context, h *home, _ none, _ sink) ([]string, error) {
	names := []string{}
	for _, c := range h.fs.Contacts(0) {
		if c.Name != "" && !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names, nil
}}

// contactNames lists them for completion; on any trouble there are none.
func contactNames(ctx context.Context, e *env) []string {
	quiet := *e
	quiet.readSecret = nil // completion asks nothing
	names, err := opContacts.call(ctx, &quiet, none{})
	if err != nil {
		return nil
	}
	return names
}

// offer is an element of what requests --json prints where no space is named: a request to join one, or a one-to-one space that is offered.
type offer struct {
	request
	Space string `json:"space,omitempty"` // that is asked for; none of a one-to-one space
	Kind  string `json:"kind"`            // "join" or "one-to-one"
}

// opAllRequests gives all that waits for an answer.
var opAllRequests = operation[none, []offer]{"all-requests", func(_ context.Context, h *home, _ none, _ sink) ([]offer, error) {
	out := []offer{}
	spaces, err := h.fs.Spaces()
	if err != nil {
		return nil, err
	}
	for _, s := range spaces {
		asking, err := h.fs.Requests(s.Name)
		if err != nil {
			continue // it is damaged, or gone meanwhile; naming it says which
		}
		all, err := h.describeAsking(asking...)
		if err != nil {
			return nil, err
		}
		for _, q := range all {
			out = append(out, offer{q, s.Name, "join"})
		}
	}
	offers, err := h.offers()
	if err != nil {
		return nil, err
	}
	return append(out, offers...), nil
}}

// offers are the one-to-one spaces that are offered.
func (h *home) offers() (out []offer, err error) {
	all, err := h.fs.Offers()
	if err != nil {
		return nil, err
	}
	names := map[dag.PublicKey]fs.Contact{}
	if len(all) > 0 {
		for _, c := range h.fs.Contacts(0) {
			names[c.Keys.Identity] = c
		}
	}
	for _, o := range all {
		id := o.Other.Identity
		out = append(out, offer{request{
			Account: acl.FormatIdentity(id), Fingerprint: acl.Fingerprint(id), Name: names[id].Name, Time: stamp(o.Time), Role: acl.RoleOwner.String(),
		}, "", "one-to-one"})
	}
	return out, nil
}

// opDeclineOffer declines a one-to-one space, and gives what was declined.
var opDeclineOffer = operation[whoParams, offer]{"decline-offer", func(_ context.Context, h *home, p whoParams, _ sink) (o offer, err error) {
	all, err := h.offers()
	if err != nil {
		return o, err
	}
	var accounts []dag.PublicKey
	var names []string
	for _, o := range all {
		id, err := acl.ParseIdentity(o.Account)
		if err != nil {
			return o, err
		}
		accounts, names = append(accounts, id), append(names, o.Name)
	}
	i, err := acl.FindPerson(p.Who, accounts, names)
	if err != nil {
		return o, failf(exitNotFound, "nobody who is called %s offers a one-to-one space, or several do; 'anyfs requests' shows who does, and 'anyfs decline SPACE WHO' declines who asks to join a space", printable(p.Who))
	}
	if err := h.fs.DeclineOneToOne(accounts[i]); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return o, failf(exitNotFound, "what %s offered is gone; 'anyfs requests' shows what there is", printable(p.Who))
		}
		return o, err
	}
	return all[i], nil
}}

func runAllRequests(ctx context.Context, e *env) error {
	all, err := opAllRequests.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(all)
	}
	if len(all) == 0 {
		e.say("Nobody asks for anything.")
		return nil
	}
	rows := [][]string{{"SPACE", "ROLE", "NAME", "FINGERPRINT", "ACCOUNT", "TIME", ""}}
	for _, q := range all {
		space := q.Space
		if space == "" {
			space = "(one-to-one)"
		}
		rows = append(rows, []string{space, q.Role, q.Name, q.Fingerprint, q.Account, q.Time, remarkOn(q.request)})
	}
	if err := e.table(rows); err != nil {
		return err
	}
	for _, q := range all {
		e.warnOther(q.Name, q.Account, q.Fingerprint, q.Other)
		if q.Kind == "one-to-one" {
			e.say("'anyfs space create --with %s' takes the one-to-one space with %s; 'anyfs decline %[1]s' declines it.", q.Account, printable(q.Name))
		}
	}
	return nil
}

func accountCardCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "card",
		Usage: "print the account's public keys, for others to begin a one-to-one space with you",
		Description: `Whoever shares a space with you has them already. They are no secret; but who gives them to you can give you another's, so compare the fingerprint.

Examples:
  anyfs account card
  anyfs space create --with "$(cat bob.card)" Bob`,
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			r, err := opCard.call(c.Context, e, none{})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(r)
			}
			return writeLine(e.stdout, r.Card)
		},
	}
}

type cardResult struct {
	Account     string `json:"account"`
	Fingerprint string `json:"fingerprint"`
	Card        string `json:"card"`
}

var opCard = operation[none, cardResult]{"account-card", func(_ context.Context, h *home, _ none, _ sink) (cardResult, error) {
	id := h.keys.Identity
	return cardResult{acl.FormatIdentity(id), acl.Fingerprint(id), acl.FormatCard(&h.keys.Public)}, nil
}}

// Of whom it is asked how often whether they have begun a one-to-one space with this account.
const (
	maxAskedContacts = 256
	askContactsEvery = 5 * time.Second
	askContactAgain  = 20 * time.Second // and more where there are many
)

// seekOneToOnes finds the one-to-one spaces that others have begun with this account, until ctx ends. It asks their devices, and the nodes that are connected.
func (n *network) seekOneToOnes(ctx context.Context) {
	asked := map[dag.ID]time.Time{}
	for n.h.keys.Account != nil {
		contacts := n.h.fs.Contacts(maxAskedContacts)
		again := askContactAgain * time.Duration(1+len(contacts)/8)
		var wg sync.WaitGroup
		room := make(chan struct{}, 4)
		for _, c := range contacts {
			ids, err := n.h.fs.SeekOneToOne(&c.Keys)
			if err != nil {
				continue // who gives keys that nobody can agree with has no such space
			}
			for _, id := range ids {
				if time.Since(asked[id]) < again {
					continue
				}
				if len(asked) > 4*maxAskedContacts {
					clear(asked)
				}
				asked[id] = time.Now()
				room <- struct{}{}
				wg.Go(func() {
					defer func() { <-room }()
					n.seekOneToOne(ctx, c, id)
				})
			}
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return
		case <-time.After(askContactsEvery * time.Duration(1+len(contacts)/64)):
		}
	}
}

func (n *network) seekOneToOne(ctx context.Context, c fs.Contact, id dag.ID) {
	frames, err := n.engine.AskACL(ctx, id, c.Keys.Identity)
	if err != nil || ctx.Err() != nil {
		return // nobody is there who could know, or they know nothing
	}
	found, err := n.h.fs.FoundOneToOne(&c.Keys, id, frames)
	if err != nil {
		n.h.log.Warn("a one-to-one space that does not prove itself", "space", id, "account", acl.FormatIdentity(c.Keys.Identity), "err", err)
	}
	if found {
		n.h.log.Info("an account has begun a one-to-one space with this one; 'anyfs requests' shows it", "space", id, "account", acl.FormatIdentity(c.Keys.Identity))
	}
}
