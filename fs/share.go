package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
)

// What the access list of a space means for its files: who may not write has it read-only, batches are judged again when the list
// grows, and a space to which somebody was invited comes into the root.

// rights are what the access list lets this device do in a space, as far as that was seen to: who reads here that it may write can. Each operation asks
// for them, so they are kept where no lock is waited for.
type rights struct {
	readOnly atomic.Bool
	role     atomic.Uint32 // an acl.Role
}

// shown is the role that holds for what is done here now.
func (r *rights) shown() acl.Role { return acl.Role(r.role.Load()) }

// take reports whether it may write now and might not before, or the other way round. It makes the newest state of the list, so it is not for
// each record of many. Under follow, or before anyone else has the space.
func (r *rights) take(a *acl.Space) (changed bool) {
	role := a.Role() // what may be written is asked of a list at least as new
	only := !a.MayWrite()
	changed = r.readOnly.Swap(only) != only
	r.role.Store(uint32(role))
	return changed
}

// watchACL follows the access list of a space from now on. It is called once, before anyone can write to it.
func (s *space) watchACL() {
	s.rights.take(s.acl)
	s.acl.Watch(func() {
		s.aclNews.Store(true)
		s.h.wakeArriver()
	})
	// The list may be ahead of what the graph was judged by before a crash.
	if s.acl.List().State().Ended() {
		s.aclNews.Store(true)
	}
}

// followACL sees to what new records mean. What fails of it is tried again with the next arrival, and each time that spaces are healed.
func (s *space) followACL() {
	s.follow.Lock() // who comes while another is at it waits for what that sees to
	defer s.follow.Unlock()
	if !s.aclNews.Swap(false) {
		return
	}
	s.grown()
	if s.rights.take(s.acl) {
		if s.acl.Revoked() {
			s.h.opt.Log.Warn("this device was revoked", "space", s.id.String())
		}
		if !s.rights.readOnly.Load() {
			s.arriveAgain() // conflicts that were left to others
		}
		// Mode bits say whether the space can be written to.
		s.h.emit(Event{Inode: s.ino(rootDir), Whole: true})
	}
	s.h.spacesChanged()
	if err := s.joinUnheard(); err != nil {
		s.aclNews.Store(true)
		s.h.report(fmt.Sprintf("space %s: publish what was written before this account might not", s.id), err)
	}
}

// joinUnheard publishes a batch without changes where the last that this device published counts here alone: it had not heard that it might not write, and may again.
// What it wrote counts for all by that, and not only with whatever it writes next. Without a key that waits for the record that brings one.
func (s *space) joinUnheard() error {
	l, me := s.acl.List(), s.h.keys.Author()
	if s.rights.readOnly.Load() || !l.State().Doubtful(me.Account) {
		return nil
	}
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	if unheard, err := s.unheard(l, me.Device); err != nil || !unheard {
		return err
	}
	if err := s.ready(); err != nil {
		if s.acl.Writable() != nil {
			return nil
		}
		return err
	}
	if !l.Heard(&dag.Batch{Account: me.Account, Device: me.Device, ACL: s.acl.Heads()}) {
		return nil
	}
	b, err := s.graph.Begin(me, s.acl.Heads(), s.acl.Epoch())
	if err == nil {
		_, err = b.Join()
	}
	return err
}

// unheard reports whether a last batch of a device counts by no other of its last: a feed may have branches, and one batch joins all of them.
func (s *space) unheard(l *list.List, device dag.PublicKey) (bool, error) {
	var heard, not []dag.ID
	for _, tip := range s.graph.Tips() {
		if tip.Device != device {
			continue
		}
		last, err := s.graph.Head(tip.Batch)
		if err != nil {
			return false, err
		}
		if l.Heard(last) {
			heard = append(heard, tip.Batch)
		} else {
			not = append(not, tip.Batch)
		}
	}
	for _, id := range not {
		joined := false
		for _, by := range heard {
			in, err := s.graph.InPast(id, by)
			if err != nil {
				return false, err
			}
			joined = joined || in
		}
		if !joined {
			return true, nil
		}
	}
	return false, nil
}

// grown judges the batches of files again, after the access list has grown.
func (s *space) grown() {
	if err := s.judgeFiles(); err != nil {
		s.aclNews.Store(true)
		s.h.report(fmt.Sprintf("space %s: judge again", s.id), err)
	}
}

// judgeFiles asks the access list again for what it may judge otherwise than before. What counts no more goes out of the tree, which is
// made anew: no checkpoint comes between, so that the tree never holds what the graph has in quarantine.
func (s *space) judgeFiles() error {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	st := s.acl.List().State()
	judged, err := s.graph.Rejudge(func(account, _ dag.PublicKey) bool { return st.Doubtful(account) })
	if err == nil && len(judged.Quarantined) > 0 {
		s.unjudged = true
	}
	if err != nil || !s.unjudged {
		return err
	}
	if err := s.treeAnew(); err != nil {
		return fmt.Errorf("make the tree anew: %w", err)
	}
	s.unjudged = false
	s.in.mu.Lock()
	s.in.due = true
	s.in.mu.Unlock()
	s.h.wakeArriver()
	return nil
}

// SameSpace says whether two inodes are of one space, which has a number of its own on this device.
func SameSpace(a, b Ino) bool { return !isView(a) && !isView(b) && a>>slotShift == b>>slotShift }

// change is space for an operation that changes something: ErrReadOnly where this account may not.
func (h *Home) change(ino Ino) (*space, uint64, error) {
	s, local, err := h.space(ino)
	if err == nil && (s.rights.readOnly.Load() || s.pre.shown.Load()) {
		return nil, 0, ErrReadOnly
	}
	return s, local, err
}

// changePath is change of the space that the first path which is not empty lies in.
func (h *Home) changePath(paths ...string) error {
	for _, p := range paths {
		if p == "" {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(cleanPath(p), "/"), "/")
		ino, err := h.SpaceRoot(name)
		if err != nil {
			return nil // who asked finds out more exactly
		}
		_, _, err = h.change(ino)
		return err
	}
	return nil
}

// ready makes sure that a batch can be published: that the account may, and that there is a key to seal it with. Under pubMu.
func (s *space) ready() error {
	before := len(s.acl.Heads())
	epoch := s.acl.Epoch()
	if err := s.acl.Ready(s.h.opt.Rand); err != nil {
		return fmt.Errorf("what is new stays on this device: %w", err)
	}
	if epoch != s.acl.Epoch() || before != len(s.acl.Heads()) {
		return s.aclLog.Sync() // a batch never names a record that a crash can take
	}
	return nil
}

// shared finds a space by name, for who changes its access list.
func (h *Home) shared(name string) (*space, error) {
	s, err := h.namedSpace(name)
	if err == nil && s == h.home {
		err = ErrNotExist
	}
	return s, err
}

// recorded makes what was written to the list durable, and what it means visible at once.
func (s *space) recorded(err error) error {
	if err == nil {
		err = s.aclLog.Sync()
	}
	if err == nil {
		s.followACL()
	}
	return err
}

// tipsOf are the last batches that an account's devices have published, as this device knows them.
func (s *space) tipsOf(account dag.PublicKey) []dag.ID {
	st := s.acl.List().State()
	return s.tipsBy(func(device dag.PublicKey) bool {
		_, of, ok := st.Device(device)
		return ok && of == account
	})
}

// tipsBy are the last batches that devices have published.
func (s *space) tipsBy(is func(device dag.PublicKey) bool) []dag.ID {
	var out []dag.ID
	for _, t := range s.graph.Tips() {
		if is(t.Device) {
			out = append(out, t.Batch)
		}
	}
	slices.SortFunc(out, dag.ID.Compare)
	return out
}

// Invite makes an invitation to a space. It has no addresses yet.
func (h *Home) Invite(name string, t acl.Terms) (*acl.Link, error) {
	s, err := h.shared(name)
	if err != nil {
		return nil, err
	}
	l, err := s.acl.Invite(t, h.opt.Clock(), h.opt.Rand)
	return l, s.recorded(err)
}

// Invitations are those to a space.
func (h *Home) Invitations(name string) ([]acl.Invited, error) {
	s, err := h.shared(name)
	if err != nil {
		return nil, err
	}
	return s.acl.Invitations(), nil
}

// RevokeInvite ends an invitation.
func (h *Home) RevokeInvite(name string, id dag.ID) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	return s.recorded(s.acl.RevokeInvite(id, h.opt.Rand))
}

// Members are those of a space.
func (h *Home) Members(name string) ([]acl.Person, error) {
	s, err := h.shared(name)
	if err != nil {
		return nil, err
	}
	return h.namePeople(s, s.acl.People()), nil
}

// Requests are those to join a space that wait for an answer.
func (h *Home) Requests(name string) ([]acl.Asking, error) {
	s, err := h.shared(name)
	if err != nil {
		return nil, err
	}
	return s.acl.Requests(), nil
}

// Approve accepts a request, in a role, or in that of its invitation with RoleNone.
func (h *Home) Approve(name string, id dag.ID, role acl.Role) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	return s.recorded(s.acl.Approve(id, role, h.opt.Clock(), h.opt.Rand))
}

// ErrNotYours says that a member's account is replaced by the owner or an admin, not by that account itself.
var ErrNotYours = errors.New("whoever knows the secret of your account could do that too; the owner or an admin of the space has to")

// Replace puts the account that asks to join in the place of another, in the role of that. The owner also does so with its own account: the
// other one owns the space then. Where it fails in between both are members, which can be put right by hand or by another request.
func (h *Home) Replace(ctx context.Context, name string, id dag.ID, old dag.PublicKey) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	st := s.acl.List().State()
	role := st.Role(old)
	if old != h.keys.Identity {
		if role >= s.acl.Role() {
			return fmt.Errorf("%w: you are %s and the account to be replaced is %s", acl.ErrDenied, s.acl.Role(), role)
		}
		if err = s.acl.Approve(id, role, h.opt.Clock(), h.opt.Rand); err == nil {
			err = s.acl.Remove(old, s.tipsOf(old), h.opt.Rand)
		}
		return s.recorded(err)
	}
	if role != acl.RoleOwner {
		return ErrNotYours
	}
	if err := s.publishAll(ctx); err != nil {
		return err
	}
	asking := s.acl.Requests()
	at := slices.IndexFunc(asking, func(q acl.Asking) bool { return q.ID == id })
	if at < 0 {
		return fmt.Errorf("%w: nobody waits for this answer", acl.ErrDenied)
	}
	if err = s.acl.Approve(id, acl.RoleAdmin, h.opt.Clock(), h.opt.Rand); err == nil {
		if err = s.acl.Transfer(asking[at].Account); err == nil {
			err = s.acl.Leave(s.tipsOf(old))
		}
	}
	return s.recorded(err)
}

// Decline refuses a request.
func (h *Home) Decline(name string, id dag.ID) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	return s.recorded(s.acl.Decline(id))
}

// ChangeRole gives a member another role. What of its work is here still counts.
func (h *Home) ChangeRole(name string, account dag.PublicKey, role acl.Role) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	return s.recorded(s.acl.ChangeRole(account, role, s.tipsOf(account)))
}

// RemoveMember ends a membership. What of its work is here still counts.
func (h *Home) RemoveMember(name string, account dag.PublicKey) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	return s.recorded(s.acl.Remove(account, s.tipsOf(account), h.opt.Rand))
}

// Transfer makes a member the owner of a space, and this account an admin.
func (h *Home) Transfer(name string, account dag.PublicKey) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	return s.recorded(s.acl.Transfer(account))
}

// Leave ends the membership of this account. What it wrote stays with the others; the space stays here, as it is, until it is
// deleted.
func (h *Home) Leave(ctx context.Context, name string) error {
	s, err := h.shared(name)
	if err != nil {
		return err
	}
	if err := h.Flush(ctx); err != nil {
		return err
	}
	return s.recorded(s.acl.Leave(s.tipsOf(h.keys.Identity)))
}

// Join makes a space of the frames of an access list that this account is in, under a name in the root. Its files come with the
// exchange. A space that is here already is left as it is.
func (h *Home) Join(name string, id dag.ID, frames [][]byte) (SpaceInfo, error) {
	if s := h.spaceOf(id); s != nil {
		as, err := h.nameOf(s)
		if err != nil {
			return SpaceInfo{}, err
		}
		for _, f := range frames {
			if err := s.acl.List().Import(f); err != nil {
				return SpaceInfo{}, err
			}
		}
		if err := s.recorded(nil); err != nil {
			return SpaceInfo{}, err
		}
		return h.Space(as)
	}
	i, err := h.createSpace(name, "", dag.ID{}, func(st dag.Store) (*acl.Space, error) {
		return acl.ImportSpace(h.keys, id, st, func(yield func([]byte) error) error {
			for _, f := range frames {
				if err := yield(f); err != nil {
					return err
				}
			}
			return nil
		})
	}, nil)
	if err == nil {
		h.emit(Event{Parent: h.home.ino(rootDir), Name: name, Kind: EventMade, Dir: true})
	}
	return i, err
}

// Heal brings revocations of the account's devices into the spaces that lack them, and its devices into the spaces that they can't enter by
// themselves; and it shares keys with members that lack them, in all spaces. It reports whether it wrote anything.
func (h *Home) Heal() (wrote bool) {
	if slices.ContainsFunc(h.each(), func(s *space) bool { return s.aclNews.Load() }) {
		h.wakeArriver() // something of it failed
	}
	revoked := h.revocations()
	for _, r := range h.spread(revoked) {
		if r.Err != nil {
			h.report(fmt.Sprintf("space %s: revoke a device", r.ID), r.Err)
		}
		wrote = true
	}
	for _, s := range h.each() {
		if s.deleted() {
			continue
		}
		some, err := h.admitDevices(s, revoked)
		if err == nil {
			var more bool
			more, err = s.acl.Heal(h.opt.Rand)
			some = some || more
		}
		if err = s.heal(some, err); err != nil {
			h.report(fmt.Sprintf("space %s: share its keys", s.id), err)
		}
		wrote = wrote || some
	}
	return wrote
}

func (s *space) heal(some bool, err error) error {
	if !some {
		return err
	}
	return s.recorded(err)
}

// Invited says whether a device that proves the key of an invitation may ask to join, or waits for the answer.
func (r *Replica) Invited(key, device dag.PublicKey) bool {
	now := r.s.h.opt.Clock().Unix()
	return r.s.acl.Role() != acl.RoleNone && r.s.acl.List().State().Invited(key, device, uint64(max(0, now)))
}

// NewGuest is this account asking to join a space by an invitation.
func (h *Home) NewGuest(l *acl.Link, name string) (*acl.Guest, error) {
	return acl.NewGuest(h.keys, l, name, h.opt.Rand)
}

// Now is the home's clock.
func (h *Home) Now() time.Time { return h.opt.Clock() }
