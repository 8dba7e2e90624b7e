package list

import (
	"crypto/ed25519"
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// The bodies of the records by which others come in, change and go.

// Limits of these records.
const (
	maxTips   = 1000    // feeds that one record ends
	maxSealed = 512     // bytes of a sealed name or key
	MaxUses   = 1 << 32 // of an invitation
)

// Invite makes an invitation: who knows the secret of its key may ask to become a member, or with an open one be one.
type Invite struct {
	Key     dag.PublicKey // of the signature that proves the invitation; follows from the secret
	HPKE    []byte        // follows from the secret too; only in an open invitation, to which read keys are wrapped
	Role    Role          // reader to admin
	Time    uint64        // Unix seconds by the author's clock; decides nothing
	Uses    uint64        // how many may join; 0: any number
	Epoch   dag.ID        // under whose key Naming is sealed
	Wraps   []Wrap        // of an open invitation: that epoch's key, to Key
	Naming  []byte        // the key that names in requests are sealed with, sealed
	Expires uint64        // Unix seconds; 0: never. Looked at by who approves, relays or serves; decides nothing here
}

// Open says whether who has the invitation joins without being approved.
func (i *Invite) Open() bool { return len(i.HPKE) > 0 }

// RevokeInvite ends an invitation. Next is a new epoch where it was an open one, else nil.
type RevokeInvite struct {
	Next   *RotateKey
	Invite dag.ID
}

// JoinRequest asks for membership by an invitation.
type JoinRequest struct {
	Certificate Certificate // of the device that asks
	Keys        AccountKeys
	Name        []byte // of the account, sealed with the invitation's naming key
	Time        uint64 // Unix seconds by the author's clock
	Proof       [64]byte
	Device      []byte // the device's name, sealed likewise
	Invite      dag.ID
}

// Join makes its author a member by an open invitation.
type Join struct {
	Certificate Certificate
	Keys        AccountKeys
	Name        []byte // sealed under the key of Epoch, as is Device
	Time        uint64
	Epoch       dag.ID
	Proof       [64]byte
	Wraps       []Wrap // of that epoch's key, to the author's device and account
	Device      []byte
	Invite      dag.ID
}

// Accept makes the author of a request a member.
type Accept struct {
	Name    []byte // of the account, sealed under the key of Epoch, as is Device
	Role    Role
	Time    uint64
	Epoch   dag.ID
	Wraps   []Wrap // of that epoch's key, to the new member's device and account
	Device  []byte
	Request dag.ID
}

// ChangeRole gives a member another role. Tips are the last batches of files of the account's feeds that still count,
// where the role is one that may not write.
type ChangeRole struct {
	Role    Role
	Tips    []dag.ID
	Account dag.PublicKey
}

// Remove ends a membership, and begins an epoch whose key the account does not get.
type Remove struct {
	Next    *RotateKey
	Tips    []dag.ID
	Account dag.PublicKey
}

// Leave ends the author's own membership.
type Leave struct{ Tips []dag.ID }

// ShareKey brings wraps of an epoch's key to those who lack it, by HPKE and by keys that the author's device agreed on with them.
type ShareKey struct {
	Epoch  dag.ID
	Wraps  []Wrap
	Agreed []AgreedWraps
}

// Answer declines a request (by an admin) or takes it back (by who made it).
type Answer struct{ Request dag.ID }

const domainInvitation = "anyfs/invitation/1\x00"

// inviteProof is what an invitation's key signs for one device of one account.
func inviteProof(space dag.ID, account, device dag.PublicKey) []byte {
	b := append([]byte(nil), space[:]...)
	b = append(b, account[:]...)
	return sum(domainInvitation, append(b, device[:]...))
}

// ProveInvite signs with an invitation's key that a device of an account has its secret.
func ProveInvite(key ed25519.PrivateKey, space dag.ID, account, device dag.PublicKey) [64]byte {
	return [64]byte(ed25519.Sign(key, inviteProof(space, account, device)))
}

func (w *writer) links(key string, ids []dag.ID) {
	w.text(key)
	w.array(len(ids))
	for i := range ids {
		w.link(ids[i])
	}
}

// ids reads links in ascending order.
func (r *reader) ids(key string, limit uint64) []dag.ID {
	r.key(key)
	var out []dag.ID
	for n := r.want(majorArray, limit, key); n > 0 && r.err == nil; n-- {
		id := r.link(key)
		if k := len(out); k > 0 && r.err == nil && out[k-1].Compare(id) >= 0 {
			r.fail("%s that are not in order", key)
		}
		out = append(out, id)
	}
	return out
}

func (w *writer) toWraps(wraps []Wrap) {
	w.text("wraps")
	writeWraps(w, wraps)
}

func (w *writer) toLink(key string, id dag.ID) {
	w.text(key)
	w.link(id)
}

func (r *reader) toLink(key string) dag.ID {
	r.key(key)
	return r.link(key)
}

func (r *reader) wraps() []Wrap {
	r.key("wraps")
	return readWraps(r)
}

func (r *reader) role() Role {
	n := r.uint("role")
	if r.err == nil && (n < uint64(RoleReader) || n > uint64(RoleAdmin)) {
		r.fail("role %d, which nobody can be given", n)
	}
	return Role(n)
}

func (r *reader) sealed(key string) []byte { return r.blob(key, maxSealed) }

// next writes an epoch that another record begins: an array of none or one.
func (w *writer) next(k *RotateKey) {
	w.text("next")
	if k == nil {
		w.array(0)
		return
	}
	w.array(1)
	k.write(w)
}

func (r *reader) next() *RotateKey {
	r.key("next")
	if r.want(majorArray, 1, "next") == 0 {
		return nil
	}
	k := new(RotateKey)
	k.read(r)
	return k
}

func (k *RotateKey) write(w *writer) {
	n := 4
	if len(k.Agreed) > 0 {
		n++
	}
	w.fields(n)
	w.uint("suite", k.Suite)
	w.toWraps(k.Wraps)
	if len(k.Agreed) > 0 {
		w.agreed(k.Agreed)
	}
	w.blob("commit", k.Commitment[:])
	w.text("follows")
	w.array(len(k.Follows))
	for i := range k.Follows {
		w.array(2)
		w.link(k.Follows[i].Epoch)
		w.bytes(k.Follows[i].Sealed)
	}
}

func (k *RotateKey) read(r *reader) {
	r.fields(5, "body")
	k.Suite = r.uint("suite")
	k.Wraps = r.wraps()
	k.Agreed = r.agreed()
	r.fixed("commit", k.Commitment[:])
	r.key("follows")
	k.Follows = readFollows(r)
}

func (i *Invite) write(w *writer) {
	w.fields(9)
	w.blob("key", i.Key[:])
	w.blob("hpke", i.HPKE)
	w.uint("role", uint64(i.Role))
	w.uint("time", i.Time)
	w.uint("uses", i.Uses)
	w.toLink("epoch", i.Epoch)
	w.toWraps(i.Wraps)
	w.blob("naming", i.Naming)
	w.uint("expires", i.Expires)
}

func (i *Invite) read(r *reader) {
	r.fields(9, "body")
	r.fixed("key", i.Key[:])
	if i.HPKE = r.blob("hpke", HPKEBytes); r.err == nil && len(i.HPKE) != 0 && len(i.HPKE) != HPKEBytes {
		r.fail("%q of %d bytes", "hpke", len(i.HPKE))
	}
	i.Role = r.role()
	i.Time = r.uint("time")
	if i.Uses = r.uint("uses"); r.err == nil && i.Uses > MaxUses {
		r.fail("an invitation for %d uses", i.Uses)
	}
	i.Epoch = r.toLink("epoch")
	i.Wraps = r.wraps()
	i.Naming = r.sealed("naming")
	i.Expires = r.uint("expires")
}

func (q *JoinRequest) write(w *writer) {
	w.fields(7)
	w.text("cert")
	q.Certificate.write(w, true)
	w.text("keys")
	q.Keys.write(w, true)
	w.blob("name", q.Name)
	w.uint("time", q.Time)
	w.blob("proof", q.Proof[:])
	w.blob("device", q.Device)
	w.toLink("invite", q.Invite)
}

func (q *JoinRequest) read(r *reader) {
	r.fields(7, "body")
	r.key("cert")
	q.Certificate.read(r)
	r.key("keys")
	q.Keys.read(r)
	q.Name = r.sealed("name")
	q.Time = r.uint("time")
	r.fixed("proof", q.Proof[:])
	q.Device = r.sealed("device")
	q.Invite = r.toLink("invite")
}

func (j *Join) write(w *writer) {
	w.fields(9)
	w.text("cert")
	j.Certificate.write(w, true)
	w.text("keys")
	j.Keys.write(w, true)
	w.blob("name", j.Name)
	w.uint("time", j.Time)
	w.toLink("epoch", j.Epoch)
	w.blob("proof", j.Proof[:])
	w.toWraps(j.Wraps)
	w.blob("device", j.Device)
	w.toLink("invite", j.Invite)
}

func (j *Join) read(r *reader) {
	r.fields(9, "body")
	r.key("cert")
	j.Certificate.read(r)
	r.key("keys")
	j.Keys.read(r)
	j.Name = r.sealed("name")
	j.Time = r.uint("time")
	j.Epoch = r.toLink("epoch")
	r.fixed("proof", j.Proof[:])
	j.Wraps = r.wraps()
	j.Device = r.sealed("device")
	j.Invite = r.toLink("invite")
}

func (a *Accept) write(w *writer) {
	w.fields(7)
	w.blob("name", a.Name)
	w.uint("role", uint64(a.Role))
	w.uint("time", a.Time)
	w.toLink("epoch", a.Epoch)
	w.toWraps(a.Wraps)
	w.blob("device", a.Device)
	w.toLink("request", a.Request)
}

func (a *Accept) read(r *reader) {
	r.fields(7, "body")
	a.Name = r.sealed("name")
	a.Role = r.role()
	a.Time = r.uint("time")
	a.Epoch = r.toLink("epoch")
	a.Wraps = r.wraps()
	a.Device = r.sealed("device")
	a.Request = r.toLink("request")
}

// roomShare is an upper bound of the body's length without wraps, and the wraps; 0 for other kinds.
func (rec *Record) roomShare() (int, []Wrap) {
	const fields = 200 // keys, numbers and links
	switch {
	case rec.Invite != nil:
		return fields + 41 + len(rec.Invite.HPKE) + len(rec.Invite.Naming), rec.Invite.Wraps
	case rec.JoinRequest != nil:
		return 3*fields + 2*HPKEBytes + 400 + len(rec.JoinRequest.Name) + len(rec.JoinRequest.Device), nil
	case rec.Join != nil:
		return 3*fields + 2*HPKEBytes + 400 + len(rec.Join.Name) + len(rec.Join.Device), rec.Join.Wraps
	case rec.Accept != nil:
		return fields + len(rec.Accept.Name) + len(rec.Accept.Device), rec.Accept.Wraps
	case rec.ChangeRole != nil:
		return fields + 41*len(rec.ChangeRole.Tips), nil
	case rec.Remove != nil:
		return fields + 41*len(rec.Remove.Tips), nil
	case rec.Leave != nil:
		return fields + 41*len(rec.Leave.Tips), nil
	case rec.ShareKey != nil:
		return fields + roomAgreed(rec.ShareKey.Agreed), rec.ShareKey.Wraps
	case rec.RevokeInvite != nil:
		return fields, nil
	case rec.Transfer != nil:
		return fields, nil
	case rec.Adopt != nil:
		return fields + 41*len(rec.Adopt.Batches), nil
	case rec.RevokeDevice != nil:
		return fields + 64 + 41*len(rec.RevokeDevice.Tips), nil
	case rec.Replace != nil:
		return 3*fields + 2*HPKEBytes + 400 + len(rec.Replace.Name) + len(rec.Replace.Device), nil
	}
	return 0, nil
}

// writeShare writes the body of a record of these kinds.
func (rec *Record) writeShare(w *writer) {
	switch rec.Kind {
	case KindInvite:
		rec.Invite.write(w)
	case KindRevokeInvite:
		w.fields(2)
		w.next(rec.RevokeInvite.Next)
		w.toLink("invite", rec.RevokeInvite.Invite)
	case KindJoinRequest:
		rec.JoinRequest.write(w)
	case KindJoin:
		rec.Join.write(w)
	case KindAccept:
		rec.Accept.write(w)
	case KindDecline, KindCancel:
		w.fields(1)
		w.toLink("request", rec.Answer.Request)
	case KindChangeRole:
		w.fields(3)
		w.uint("role", uint64(rec.ChangeRole.Role))
		w.links("tips", rec.ChangeRole.Tips)
		w.blob("account", rec.ChangeRole.Account[:])
	case KindRemove:
		w.fields(3)
		w.next(rec.Remove.Next)
		w.links("tips", rec.Remove.Tips)
		w.blob("account", rec.Remove.Account[:])
	case KindLeave:
		w.fields(1)
		w.links("tips", rec.Leave.Tips)
	case KindTransfer:
		w.fields(1)
		w.blob("account", rec.Transfer.Account[:])
	case KindReplaceAccount:
		rec.Replace.write(w)
	case KindAdopt:
		w.fields(1)
		w.links("batches", rec.Adopt.Batches)
	case KindRevokeDevice:
		w.fields(4)
		w.blob("sig", rec.RevokeDevice.Signature[:])
		w.next(rec.RevokeDevice.Next)
		w.links("tips", rec.RevokeDevice.Tips)
		w.blob("device", rec.RevokeDevice.Device[:])
	case KindShareKey:
		n := 2
		if len(rec.ShareKey.Agreed) > 0 {
			n++
		}
		w.fields(n)
		w.toLink("epoch", rec.ShareKey.Epoch)
		w.toWraps(rec.ShareKey.Wraps)
		if len(rec.ShareKey.Agreed) > 0 {
			w.agreed(rec.ShareKey.Agreed)
		}
	case KindAgree:
		rec.Agree.write(w)
	}
}

func (rec *Record) readShare(r *reader) {
	switch rec.Kind {
	case KindInvite:
		rec.Invite = new(Invite)
		rec.Invite.read(r)
	case KindRevokeInvite:
		r.fields(2, "body")
		rec.RevokeInvite = &RevokeInvite{Next: r.next(), Invite: r.toLink("invite")}
	case KindJoinRequest:
		rec.JoinRequest = new(JoinRequest)
		rec.JoinRequest.read(r)
	case KindJoin:
		rec.Join = new(Join)
		rec.Join.read(r)
	case KindAccept:
		rec.Accept = new(Accept)
		rec.Accept.read(r)
	case KindDecline, KindCancel:
		r.fields(1, "body")
		rec.Answer = &Answer{r.toLink("request")}
	case KindChangeRole:
		r.fields(3, "body")
		c := &ChangeRole{Role: r.role(), Tips: r.ids("tips", maxTips)}
		r.fixed("account", c.Account[:])
		rec.ChangeRole = c
	case KindRemove:
		r.fields(3, "body")
		m := &Remove{Next: r.next(), Tips: r.ids("tips", maxTips)}
		r.fixed("account", m.Account[:])
		if r.err == nil && m.Next == nil {
			r.fail("a removal without an epoch")
		}
		rec.Remove = m
	case KindLeave:
		r.fields(1, "body")
		rec.Leave = &Leave{r.ids("tips", maxTips)}
	case KindTransfer:
		r.fields(1, "body")
		rec.Transfer = new(Transfer)
		r.fixed("account", rec.Transfer.Account[:])
	case KindReplaceAccount:
		rec.Replace = new(Replace)
		rec.Replace.read(r)
	case KindAdopt:
		r.fields(1, "body")
		if rec.Adopt = (&Adopt{r.ids("batches", maxAdopted)}); r.err == nil && len(rec.Adopt.Batches) == 0 {
			r.fail("an adoption of nothing")
		}
	case KindRevokeDevice:
		r.fields(4, "body")
		d := new(RevokeDevice)
		r.fixed("sig", d.Signature[:])
		d.Next, d.Tips = r.next(), r.ids("tips", maxTips)
		r.fixed("device", d.Device[:])
		rec.RevokeDevice = d
	case KindShareKey:
		r.fields(3, "body")
		rec.ShareKey = &ShareKey{r.toLink("epoch"), r.wraps(), r.agreed()}
	case KindAgree:
		rec.Agree = new(Agree)
		rec.Agree.read(r)
	}
}

// next is the epoch that a record begins, nil where it begins none.
func (rec *Record) next() *RotateKey {
	switch {
	case rec.RotateKey != nil:
		return rec.RotateKey
	case rec.Remove != nil:
		return rec.Remove.Next
	case rec.RevokeInvite != nil:
		return rec.RevokeInvite.Next
	case rec.RevokeDevice != nil:
		return rec.RevokeDevice.Next
	}
	return nil
}

// proved checks all signatures by which a request or a join proves its author and the invitation.
func (s *State) proved(b *dag.Batch, keys *AccountKeys, cert *Certificate, proof [64]byte, invite *Invitation) error {
	if keys.Identity != b.Account || cert.Account != b.Account || cert.Device != b.Device {
		return fmt.Errorf("%w: a request with the keys of another", ErrDenied)
	}
	if err := keys.Verify(); err != nil {
		return err
	}
	if err := cert.Verify(); err != nil {
		return err
	}
	if !ed25519.Verify(invite.Key[:], inviteProof(s.Space, b.Account, b.Device), proof[:]) {
		return fmt.Errorf("%w on the proof of an invitation", ErrSignature)
	}
	return nil
}
