package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
)

type inviteParams struct {
	Space   string        `json:"space"`
	Role    string        `json:"role"`
	Open    bool          `json:"open"`
	Uses    uint64        `json:"uses"`
	Expires time.Duration `json:"expires"`
}

// inviteResult is what invite --json prints.
type inviteResult struct {
	Link    string `json:"link"`
	Role    string `json:"role"`
	Open    bool   `json:"open"`
	Uses    uint64 `json:"uses,omitempty"`
	Expires string `json:"expires,omitempty"`
}

// maxInviteAddresses is how many addresses an invitation names.
const maxInviteAddresses = 8

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// shareError puts the failure of what is done to members into words.
func shareError(space string, err error) error {
	switch {
	case errors.Is(err, acl.ErrDenied):
		return &failure{exitFailed, deniedError{err}}
	case errors.Is(err, acl.ErrNobody):
		return &failure{exitNotFound, err}
	}
	return spaceError(space, err)
}

// deniedError is what an access list does not allow, as a person is told: why, without who was asked on the way.
type deniedError struct{ error }

func (d deniedError) Error() string {
	text := d.error.Error()
	if _, why, ok := strings.Cut(text, acl.ErrDenied.Error()+": "); ok {
		return "not allowed: " + why
	}
	return text
}

func (d deniedError) Unwrap() error { return d.error }

// announce has peers hear at once of what was done to an access list.
func (h *home) announce() {
	if h.network != nil {
		h.network.engine.Announce()
	}
}

var opInvite = operation[inviteParams, inviteResult]{"invite", func(ctx context.Context, h *home, p inviteParams, _ sink) (r inviteResult, err error) {
	role, err := acl.ParseRole(p.Role)
	if err != nil || role < acl.RoleReader || role > acl.RoleAdmin {
		return r, failf(exitUsage, "%q is no role to invite for; there are reader, writer and admin", p.Role)
	}
	if p.Open && role == acl.RoleAdmin {
		return r, failf(exitUsage, "whoever has an open invitation is in; for an admin, invite with approval, or use 'anyfs role' later")
	}
	if p.Uses > acl.MaxUses {
		return r, failf(exitUsage, "an invitation is for at most %d uses; --uses 0 is any number", uint64(acl.MaxUses))
	}
	if h.network == nil {
		return r, failf(exitFailed, "an invitation names this device, which others reach only while it is mounted; run 'anyfs mount' first")
	}
	t := acl.Terms{Role: role, Open: p.Open, Uses: p.Uses}
	if p.Expires > 0 {
		t.Expires = h.fs.Now().Add(p.Expires)
	}
	l, err := h.fs.Invite(p.Space, t)
	if err != nil {
		return r, shareError(p.Space, err)
	}
	h.announce()
	started, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	h.network.engine.Started(started)
	l.Name = p.Space
	l.Addresses = append(h.network.engine.Through(&l.Space), inviteAddresses(h.network.engine.Status().Listen)...)
	return inviteResult{l.String(), role.String(), p.Open, p.Uses, stamp(t.Expires)}, nil
}}

// inviteAddresses are those of this device that another one may reach: loopback ones only where there is no other.
func inviteAddresses(listen []string) (out []string) {
	local := func(a string) bool { return strings.HasPrefix(a, "/ip4/127.") || strings.HasPrefix(a, "/ip6/::1/") }
	for _, a := range listen {
		if !local(a) && len(out) < maxInviteAddresses {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		out = slices.Clone(listen[:min(len(listen), maxInviteAddresses)])
	}
	return out
}

// invitation is an element of what invites --json prints.
type invitation struct {
	ID      string `json:"id"`
	By      string `json:"by"`
	Role    string `json:"role"`
	Open    bool   `json:"open"`
	Uses    uint64 `json:"uses"` // 0: any number
	Used    uint64 `json:"used"`
	Time    string `json:"time"`
	Expires string `json:"expires,omitempty"`
	State   string `json:"state"`
}

var opInvites = operation[nameParams, []invitation]{"invites", func(_ context.Context, h *home, p nameParams, _ sink) ([]invitation, error) {
	all, err := h.fs.Invitations(p.Name)
	out := []invitation{}
	for _, i := range all {
		x := invitation{
			i.ID.String(), acl.FormatIdentity(i.By), i.Role.String(), i.Open, i.Uses, i.Used, stamp(i.Time), stamp(i.Expires), "live",
		}
		switch {
		case i.Revoked:
			x.State = "revoked"
		case i.Uses > 0 && i.Used >= i.Uses:
			x.State = "used"
		case !i.Expires.IsZero() && !h.fs.Now().Before(i.Expires):
			x.State = "expired"
		case i.Overrun:
			x.State = "overrun"
		}
		out = append(out, x)
	}
	return out, shareError(p.Name, err)
}}

type revokedInvite struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

type whoParams struct {
	Space string `json:"space"`
	Who   string `json:"who"`
	Role  string `json:"role,omitempty"`
}

// opInviteRevoke gives the ID and the state of what it revoked.
var opInviteRevoke = operation[whoParams, revokedInvite]{"invite-revoke", func(_ context.Context, h *home, p whoParams, _ sink) (r revokedInvite, err error) {
	all, err := h.fs.Invitations(p.Space)
	if err != nil {
		return r, shareError(p.Space, err)
	}
	var found []dag.ID
	for _, i := range all {
		if id := i.ID.String(); id == p.Who || len(p.Who) >= 8 && strings.HasPrefix(id, p.Who) {
			found = append(found, i.ID)
		}
	}
	if len(found) != 1 {
		return r, failf(exitNotFound, "%s is no invitation to %s; 'anyfs invites' shows those there are", p.Who, p.Space)
	}
	err = h.fs.RevokeInvite(p.Space, found[0])
	h.announce()
	return revokedInvite{found[0].String(), "revoked"}, shareError(p.Space, err)
}}

// member is an element of what members --json prints.
type member struct {
	Account     string `json:"account"`
	Fingerprint string `json:"fingerprint"`
	Name        string `json:"name"`
	Role        string `json:"role"`
	Since       string `json:"since"`
	Self        bool   `json:"self,omitempty"`
	Other       string `json:"other,omitempty"` // the account that the name was first seen with, where it is another
}

type membersParams struct {
	Space  string `json:"space"`
	Accept string `json:"accept,omitempty"` // who goes by a name that another account had
}

var opMembers = operation[membersParams, []member]{"members", func(_ context.Context, h *home, p membersParams, _ sink) ([]member, error) {
	all, err := h.fs.Members(p.Space)
	if err == nil && p.Accept != "" {
		var m acl.Person
		if m, err = h.person(whoParams{Space: p.Space, Who: p.Accept}); err == nil {
			err = h.accept(called(m))
		}
	}
	if err != nil {
		return nil, shareError(p.Space, err)
	}
	return h.describe(all...)
}}

// request is an element of what requests --json prints.
type request struct {
	Account     string `json:"account"`
	Fingerprint string `json:"fingerprint"`
	Name        string `json:"name"`
	Time        string `json:"time"`
	Role        string `json:"role"`
	Other       string `json:"other,omitempty"` // as a member's

	Replaces string `json:"replaces,omitempty"` // the member's account that asks for this one to take its place
}

var opRequests = operation[nameParams, []request]{"requests", func(_ context.Context, h *home, p nameParams, _ sink) ([]request, error) {
	all, err := h.fs.Requests(p.Name)
	if err != nil {
		return nil, shareError(p.Name, err)
	}
	return h.describeAsking(all...)
}}

// asking finds the request that a person means.
func (h *home) asking(p whoParams) (q acl.Asking, err error) {
	all, err := h.fs.Requests(p.Space)
	if err != nil {
		return q, shareError(p.Space, err)
	}
	var accounts []dag.PublicKey
	var names []string
	for _, q := range all {
		accounts, names = append(accounts, q.Account), append(names, q.Name)
	}
	i, err := acl.FindPerson(p.Who, accounts, names)
	if err != nil {
		return q, failf(exitNotFound, "nobody who is called %s asks to join %s, or several do; 'anyfs requests %s' shows who does", p.Who, p.Space, p.Space)
	}
	return all[i], nil
}

type approveParams struct {
	whoParams
	Replaces string `json:"replaces,omitempty"` // the member whose place it is
}

var opApprove = operation[approveParams, member]{"approve", func(ctx context.Context, h *home, p approveParams, _ sink) (m member, err error) {
	role := acl.RoleNone
	if p.Role != "" {
		if role, err = acl.ParseRole(p.Role); err != nil || role == acl.RoleNone || role == acl.RoleOwner {
			return m, failf(exitUsage, "%q is no role to give; there are reader, writer and admin", p.Role)
		}
	}
	q, err := h.asking(p.whoParams)
	if err != nil {
		return m, err
	}
	asks, err := h.describeAsking(q)
	if err != nil {
		return m, err
	}
	if other := asks[0].Other; other != "" && p.Who == q.Name {
		return m, failf(exitFailed, "%s is another account (%s) than the one that this name was first seen with (%s); ask them for the fingerprint that 'anyfs account show' prints, "+
			"and give it in place of the name if it is %s", printable(q.Name), asks[0].Account, other, asks[0].Fingerprint)
	}
	if p.Replaces == "" {
		p.Replaces = asks[0].Replaces
	}
	if p.Replaces != "" && p.Role != "" {
		return m, failf(exitUsage, "who takes a member's place has its role; 'anyfs role' changes that later")
	}
	if p.Replaces == "" {
		err = h.fs.Approve(p.Space, q.ID, role)
	} else {
		var old acl.Person
		if old, err = h.person(whoParams{Space: p.Space, Who: p.Replaces}); err != nil {
			return m, err
		}
		err = h.fs.Replace(ctx, p.Space, q.ID, old.Account)
	}
	if err != nil {
		return m, shareError(p.Space, err)
	}
	if asks[0].Other != "" { // the account itself was named
		if err := h.accept(who{q.Account, q.Name}); err != nil {
			return m, err
		}
	}
	h.announce()
	return h.memberOf(p.Space, q.Account)
}}

// memberOf describes a member as it is now.
func (h *home) memberOf(space string, account dag.PublicKey) (member, error) {
	all, err := h.fs.Members(space)
	for _, m := range all {
		if m.Account == account {
			all, err := h.describe(m)
			return all[0], err
		}
	}
	return member{Account: acl.FormatIdentity(account), Fingerprint: acl.Fingerprint(account), Role: acl.RoleNone.String()}, err
}

var opDecline = operation[whoParams, request]{"decline", func(_ context.Context, h *home, p whoParams, _ sink) (request, error) {
	q, err := h.asking(p)
	if err == nil {
		err = shareError(p.Space, h.fs.Decline(p.Space, q.ID))
	}
	h.announce()
	return request{
		Account: acl.FormatIdentity(q.Account), Fingerprint: acl.Fingerprint(q.Account), Name: q.Name, Time: stamp(q.Time), Role: q.Role.String(),
	}, err
}}

// person finds the member that a person means.
func (h *home) person(p whoParams) (acl.Person, error) {
	all, err := h.fs.Members(p.Space)
	if err != nil {
		return acl.Person{}, shareError(p.Space, err)
	}
	var accounts []dag.PublicKey
	var names []string
	for _, m := range all {
		accounts, names = append(accounts, m.Account), append(names, m.Name)
	}
	i, err := acl.FindPerson(p.Who, accounts, names)
	if err != nil {
		return acl.Person{}, failf(exitNotFound, "no member of %s is called %s, or several are; 'anyfs members %s' shows them", p.Space, p.Who, p.Space)
	}
	return all[i], nil
}

var opRole = operation[whoParams, member]{"role", func(_ context.Context, h *home, p whoParams, _ sink) (m member, err error) {
	role, err := acl.ParseRole(p.Role)
	if err != nil || role == acl.RoleNone || role == acl.RoleOwner {
		return m, failf(exitUsage, "%q is no role to give; there are reader, writer and admin", p.Role)
	}
	who, err := h.person(p)
	if err != nil {
		return m, err
	}
	if who.Role != role { // else it has it already
		if err := h.fs.ChangeRole(p.Space, who.Account, role); err != nil {
			return m, shareError(p.Space, err)
		}
	}
	h.announce()
	return h.memberOf(p.Space, who.Account)
}}

// opRemove gives who was removed, with the role none.
var opRemove = operation[whoParams, member]{"remove", func(_ context.Context, h *home, p whoParams, _ sink) (member, error) {
	who, err := h.person(p)
	switch {
	case err != nil:
	case who.Account != h.keys.Identity:
		err = shareError(p.Space, h.fs.RemoveMember(p.Space, who.Account))
	case who.Role == acl.RoleOwner:
		err = ownerStays(p.Space)
	default:
		err = failf(exitUsage, "%s is you; 'anyfs leave %s' ends your own membership", p.Who, p.Space)
	}
	h.announce()
	return member{Account: acl.FormatIdentity(who.Account), Fingerprint: acl.Fingerprint(who.Account), Name: who.Name, Role: acl.RoleNone.String(), Since: stamp(who.Since)}, err
}}

// opTransfer gives the new owner.
var opTransfer = operation[whoParams, member]{"transfer", func(_ context.Context, h *home, p whoParams, _ sink) (m member, err error) {
	who, err := h.person(p)
	if err != nil {
		return m, err
	}
	if who.Account == h.keys.Identity && who.Role == acl.RoleOwner {
		return m, failf(exitUsage, "%s is yours already; name another member, as 'anyfs members %s' shows them", p.Space, p.Space)
	}
	if err := h.fs.Transfer(p.Space, who.Account); err != nil {
		return m, shareError(p.Space, err)
	}
	h.announce()
	return h.memberOf(p.Space, who.Account)
}}

// ownerStays says what the owner of a space does in place of leaving it.
func ownerStays(space string) error {
	return failf(exitFailed, "you own %s, and a space has an owner; give it to another member with 'anyfs transfer' first, or delete it here with 'anyfs space delete'", space)
}

// opLeave gives the space as it is then.
var opLeave = operation[nameParams, spaceStatus]{"leave", func(ctx context.Context, h *home, p nameParams, _ sink) (spaceStatus, error) {
	if err := h.fs.Leave(ctx, p.Name); err != nil {
		if i, ierr := h.fs.Space(p.Name); ierr == nil && errors.Is(err, acl.ErrDenied) && i.Role == acl.RoleOwner.String() {
			err = ownerStays(p.Name)
		}
		return spaceStatus{}, shareError(p.Name, err)
	}
	h.announce()
	i, err := h.fs.Space(p.Name)
	return statusOf(i), err
}}

type joinParams struct {
	Link string `json:"link"`
	Name string `json:"name,omitempty"` // of the space, in the mount
	As   string `json:"as,omitempty"`   // what the others see the member as
	Wait bool   `json:"wait,omitempty"`
}

// joinResult is what join --json prints.
type joinResult struct {
	Space string `json:"space"` // its ID
	Name  string `json:"name"`  // in the mount
	State string `json:"state"` // "asked" or "joined"
	By    string `json:"by"`    // the account that invites

	Fingerprint string `json:"fingerprint"` // of that
}

var opJoin = operation[joinParams, joinResult]{"join", func(ctx context.Context, h *home, p joinParams, out sink) (r joinResult, err error) {
	l, err := acl.ParseLink(p.Link)
	if err != nil {
		return r, &failure{exitUsage, err}
	}
	if p.Name == "" {
		if p.Name = l.Name; checkSpaceName(p.Name) != nil {
			p.Name = nameless
		}
	}
	if p.As == "" {
		p.As = h.keys.Device.Name
	}
	if err := checkSpaceName(p.Name); err != nil {
		return r, err
	}
	r = joinResult{Space: l.Space.String(), Name: p.Name, State: "joined", By: acl.FormatIdentity(l.By), Fingerprint: acl.Fingerprint(l.By)}
	spaces, err := h.fs.Spaces()
	if err != nil {
		return r, err
	}
	for _, s := range spaces {
		if s.ID != r.Space {
			continue
		}
		if r.Name, p.Name = s.Name, s.Name; s.Role != acl.RoleNone.String() { // else it is here from before
			return r, nil
		}
	}
	if h.network == nil {
		return r, failf(exitFailed, "the space comes from another device, which takes a mount; run 'anyfs mount' first")
	}
	j := pendingJoin{Link: p.Link, Name: p.Name, As: p.As}
	g, err := h.network.seek(j)
	if err != nil {
		return r, err
	}
	j = g.pending // as it asks already, where it does
	r.Name = j.Name
	err = errors.Join(h.changeJoins(func(all []pendingJoin) []pendingJoin {
		all = slices.DeleteFunc(all, func(o pendingJoin) bool { return o.Link == j.Link })
		return append(all, j)
	}), h.changePeers(func(list []string) []string {
		for _, a := range l.Addresses {
			if !slices.Contains(list, a) && !isThrough(a) {
				list = append(list, a)
			}
		}
		return list
	}))
	if err == nil {
		_, err = h.changeSettings(func(s *settings) {
			for _, a := range l.Addresses {
				if id := peerOf(a); !isThrough(a) && !slices.Contains(s.Hosts, id) {
					s.Hosts = append(s.Hosts, id)
				}
			}
		}, func(settings) {})
	}
	if err != nil {
		return r, err
	}
	h.network.poke()
	asked := false
	for {
		h.network.guests.mu.Lock()
		changed, joined, failed, trouble := h.network.guests.changed, g.joined, g.failed, g.trouble
		h.network.guests.mu.Unlock()
		switch state, _ := g.State(); {
		case failed != nil:
			return r, failed
		case trouble != nil && joined == "":
			return r, failf(exitFailed, "you are in, and the space can't be made here: %w; it is tried again for as long as the mount lasts, and by the next one", trouble)
		case joined != "":
			r.Name = joined
			return r, nil
		case state == acl.GuestAsked && !p.Wait:
			r.State = "asked"
			return r, nil
		case state == acl.GuestAsked && !asked:
			asked = true
			if err := out(event{Text: "The request is on its way; waiting for its answer."}); err != nil {
				return r, err
			}
		}
		select {
		case <-changed:
		case <-h.ending:
			return r, failf(exitFailed, "the mount ends; the request goes on with the next one")
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}}
