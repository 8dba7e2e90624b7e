package acl

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// GuestState is how far a guest has come.
type GuestState int

// The states of a guest.
const (
	GuestWaiting  GuestState = iota // no peer has given the access list yet
	GuestAsked                      // the request is written; an answer is awaited
	GuestIn                         // the account is a member
	GuestDeclined                   // an admin declined
	GuestFailed                     // the invitation is of no use; Err says why
)

// ErrInvitation says why an invitation is of no use.
var ErrInvitation = errors.New("acl: the invitation is of no use")

// Guest is an account that asks to join a space: it holds the access list as peers give it, in memory, and writes the request.
// It is safe for concurrent use.
type Guest struct {
	k    *Keys
	link *Link
	keys *inviteKeys
	name string
	rnd  io.Reader

	mu    sync.Mutex
	list  *list.List
	state GuestState
	err   error
	mine  dag.ID   // the request
	out   [][]byte // frames for peers
}

// NewGuest returns a guest with nothing but an invitation. name is how the account is called in the space.
func NewGuest(k *Keys, l *Link, name string, rnd io.Reader) (*Guest, error) {
	keys, err := l.keys()
	if err != nil {
		return nil, err
	}
	g := &Guest{k: k, link: l, keys: keys, name: name, rnd: rnd}
	g.list, err = list.Open(l.Space, store.NewMem())
	return g, err
}

// Space is the one that the guest asks for.
func (g *Guest) Space() dag.ID { return g.link.Space }

// Key proves the invitation to peers.
func (g *Guest) Key() ed25519.PrivateKey { return g.keys.sign }

// State says how far the guest has come, and why it failed.
func (g *Guest) State() (GuestState, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state, g.err
}

// Answer gives the frames that peers are to have: those that this device wrote.
func (g *Guest) Answer() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out
}

// Frames gives the whole list, for ImportSpace.
func (g *Guest) Frames() (out [][]byte, err error) {
	err = g.list.Export(func(f []byte) error {
		out = append(out, append([]byte(nil), f...))
		return nil
	})
	return out, err
}

// Take takes frames of the access list from a peer; each is judged as if a stranger had sent it. last says that the peer has
// no more for now: then the guest looks where it stands, and asks to join if it has not. An error is the peer's fault.
func (g *Guest) Take(frames [][]byte, last bool, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range frames {
		if _, err := g.list.Graph().Ingest(f); err != nil {
			return fmt.Errorf("acl: the access list of space %s: %w", g.link.Space, err)
		}
	}
	st := g.list.State()
	if !last || st == nil {
		return nil
	}
	if g.state == GuestFailed || g.state == GuestIn {
		return nil
	}
	if err := g.look(st, now); err != nil {
		g.state, g.err = GuestFailed, err
	}
	return nil
}

// look finds out where the guest stands.
func (g *Guest) look(st *list.State, now time.Time) error {
	if st.Role(g.k.Identity) != RoleNone {
		g.state = GuestIn
		return nil
	}
	if st.Unknown {
		return ErrUnknown
	}
	for _, q := range st.RequestsOf(g.k.Identity) {
		if q.ID == g.mine && q.State == list.RequestDeclined {
			g.state = GuestDeclined
			return nil
		}
		if q.Account == g.k.Identity && q.State == list.RequestOpen {
			if i, ok := st.Invitation(q.Invite); !ok || i.Revoked() {
				return fmt.Errorf("%w: it was revoked before the request was answered; ask for another one", ErrInvitation)
			}
			g.state = GuestAsked
			g.mine = q.ID
			return nil
		}
	}
	if !g.mine.IsZero() && g.state == GuestAsked {
		return fmt.Errorf("%w: the request is no longer open; ask for another invitation", ErrInvitation)
	}
	var found *list.Invitation
	for _, i := range st.InvitationsBy(g.keys.public()) {
		// Beside each other several can be made with one key, and who did is not known to have its secret.
		if found == nil || i.Author == g.link.By {
			found = &i
		}
	}
	switch {
	case found == nil:
		return fmt.Errorf("%w: the space does not know it", ErrInvitation)
	case found.Author != g.link.By:
		return fmt.Errorf("%w: it says that it is by %s and is by another", ErrInvitation, FormatIdentity(g.link.By))
	case found.Revoked():
		return fmt.Errorf("%w: it was revoked", ErrInvitation)
	case found.Full():
		return fmt.Errorf("%w: it has been used as often as it may be", ErrInvitation)
	case found.Expires > 0 && seconds(now) >= found.Expires:
		return fmt.Errorf("%w: it has expired", ErrInvitation)
	}
	rec, err := g.record(st, found, now)
	if err != nil {
		return err
	}
	id, err := g.list.Append(g.k.Author(), rec)
	if err != nil {
		return err
	}
	g.mine, g.state = id, GuestAsked
	if found.Open() {
		g.state = GuestIn
	}
	heads := g.list.Heads()
	frame, err := g.list.Graph().Frame(heads[0])
	if err != nil || len(heads) != 1 {
		return fmt.Errorf("acl: the request to join: %d heads: %w", len(heads), err)
	}
	g.out = append(g.out, frame)
	return nil
}

// record is the request to join, or with an open invitation the joining itself.
func (g *Guest) record(st *list.State, i *list.Invitation, now time.Time) (*list.Record, error) {
	device := g.k.Device.PublicKey()
	proof := list.ProveInvite(g.keys.sign, g.link.Space, g.k.Identity, device)
	if !i.Open() {
		q := &list.JoinRequest{Certificate: *g.k.Device.Certificate, Keys: g.k.Public, Time: seconds(now), Proof: proof, Invite: i.ID}
		var err error
		if q.Name, err = sealMemberName(g.keys.naming, g.k.Identity, g.name, g.rnd); err != nil {
			return nil, err
		}
		if q.Device, err = sealName(g.keys.naming, g.k.Device, g.rnd); err != nil {
			return nil, err
		}
		return &list.Record{Kind: list.KindJoinRequest, Must: true, JoinRequest: q}, nil
	}
	e, key, err := g.openKey(st, i)
	if err != nil {
		return nil, err
	}
	j := &list.Join{Certificate: *g.k.Device.Certificate, Keys: g.k.Public, Time: seconds(now), Epoch: e.ID, Proof: proof, Invite: i.ID}
	if j.Name, err = sealMemberName(key, g.k.Identity, g.name, g.rnd); err != nil {
		return nil, err
	}
	if j.Device, err = sealName(key, g.k.Device, g.rnd); err != nil {
		return nil, err
	}
	to := []recipient{{device, g.k.Device.Certificate.HPKE}, {g.k.Identity, g.k.Public.Recovery}}
	j.Wraps, err = wrapTo(to, g.link.Space, e.Commitment, key)
	return &list.Record{Kind: list.KindJoin, Must: true, Join: j}, err
}

// openKey opens the newest epoch that is wrapped to an open invitation.
func (g *Guest) openKey(st *list.State, i *list.Invitation) (*list.Epoch, seal.ReadKey, error) {
	es := st.Epochs()
	for n := len(es) - 1; n >= 0; n-- {
		wraps := es[n].Wraps
		if es[n].ID == i.Epoch {
			wraps = append(wraps, i.Wraps...)
		}
		for k := range wraps {
			if wraps[k].To != i.Key || !es[n].Clean {
				continue
			}
			key, err := seal.Unwrap(g.keys.hpke, wrapInfo(g.link.Space, es[n].Commitment, i.Key), wraps[k].Sealed)
			if err != nil {
				continue
			}
			space := g.link.Space
			if es[n].ID == space {
				space = dag.ID{}
			}
			if key.Commitment(space) == es[n].Commitment {
				return &es[n], key, nil
			}
		}
	}
	return nil, seal.ReadKey{}, fmt.Errorf("%w: it holds no key", ErrInvitation)
}
