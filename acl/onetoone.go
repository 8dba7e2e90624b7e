package acl

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// A one-to-one space: two accounts that know each other's public keys compute the same one, without a word between them.

// Labels of what two accounts agree on.
const (
	labelTwo     = "anyfs/one-to-one/1"
	labelTwoSign = "anyfs/one-to-one/1 sign"
	labelTwoKey  = "anyfs/one-to-one/1 key"
)

// cardPrefix begins the public keys of an account as text.
const cardPrefix = "anyfs:account:"

// ErrCard says that a text is not the public keys of an account.
var ErrCard = errors.New("acl: not an account's card")

// AccountKeys are the public keys of an account, under the signature of its identity.
type AccountKeys = list.AccountKeys

// FormatCard writes public keys as text, for others to begin a one-to-one space with. It is no secret.
func FormatCard(k *AccountKeys) string {
	return cardPrefix + base64.RawURLEncoding.EncodeToString(k.Encode())
}

// LikeCard says whether a text begins as a card does.
func LikeCard(s string) bool { return strings.HasPrefix(s, cardPrefix) }

// ParseCard reads what FormatCard wrote, and checks the signature.
func ParseCard(s string) (*AccountKeys, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(s), cardPrefix)
	if !ok || len(text) > 4096 {
		return nil, fmt.Errorf("%w: it begins with %s, and 'anyfs account card' prints it", ErrCard, cardPrefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: a part of it is missing or was changed; copy it anew", ErrCard)
	}
	k, err := list.DecodeAccountKeys(b)
	if err == nil {
		err = k.Verify()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: a part of it is missing or was changed; copy it anew: %w", ErrCard, err)
	}
	return k, nil
}

// oneToOne computes the root and the first read key of the space of this account and another, of which there were number before.
func (a *Account) oneToOne(other *list.AccountKeys, number uint64) (*list.Root, seal.ReadKey, error) {
	if other.Identity == a.public.Identity {
		return nil, seal.ReadKey{}, fmt.Errorf("%w: a one-to-one space is of two accounts", ErrDenied)
	}
	if err := other.Verify(); err != nil {
		return nil, seal.ReadKey{}, err
	}
	var shared []byte
	pub, err := ecdh.X25519().NewPublicKey(other.X25519[:])
	if err == nil {
		shared, err = a.x25519.ECDH(pub) // refuses the points that give zeros, which everybody would agree on
	}
	if err != nil {
		return nil, seal.ReadKey{}, fmt.Errorf("acl: agree with %s: %w", FormatIdentity(other.Identity), err)
	}
	prk, err := hkdf.Extract(sha256.New, shared, []byte(labelTwo))
	if err != nil {
		return nil, seal.ReadKey{}, fmt.Errorf("acl: agree: %w", err)
	}
	t := &list.Root{Kind: list.RootOneToOne, Owner: a.public, Other: other, Suite: list.Suite, Number: number}
	if bytes.Compare(t.Owner.Identity[:], t.Other.Identity[:]) > 0 {
		own := a.public
		t.Owner, t.Other = *other, &own
	}
	derive := func(label string) [32]byte {
		info := slices.Concat([]byte(label), t.Owner.Identity[:], t.Other.Identity[:], binary.BigEndian.AppendUint64(nil, number))
		b, err := hkdf.Expand(sha256.New, prk, string(info), 32)
		if err != nil {
			panic("acl: " + err.Error()) // fails only for lengths far above
		}
		return [32]byte(b)
	}
	seed, key := derive(labelTwoSign), seal.ReadKey(derive(labelTwoKey))
	sign := ed25519.NewKeyFromSeed(seed[:])
	t.Seed = [32]byte(sign.Public().(ed25519.PublicKey))
	t.Commitment = key.Commitment(dag.ID{})
	t.Sign(sign)
	return t, key, nil
}

// OneToOneID is the space of this account and another, of which there were number before. It takes the account's secret, else it returns ErrNoSecret.
func OneToOneID(k *Keys, other *AccountKeys, number uint64) (dag.ID, error) {
	if k.Account == nil {
		return dag.ID{}, ErrNoSecret
	}
	root, _, err := k.Account.oneToOne(other, number)
	if err != nil {
		return dag.ID{}, err
	}
	return root.ID(), nil
}

// BeginOneToOne opens the one-to-one space of this account and another in st, which may be empty, takes in frames of its access list that a peer gave, brings this
// device in, and begins the first epoch that is sealed in where there is none. It takes the account's secret, else it returns ErrNoSecret. All is durable when it returns.
func BeginOneToOne(k *Keys, other *AccountKeys, number uint64, st dag.Store, frames [][]byte, rnd io.Reader) (*Space, error) {
	if k.Account == nil {
		return nil, ErrNoSecret
	}
	root, key, err := k.Account.oneToOne(other, number)
	if err != nil {
		return nil, err
	}
	if len(frames) > 0 {
		if err := importFrames(root.ID(), st, frames); err != nil {
			return nil, err
		}
	}
	s, err := bringIn(k, root.ID(), root.Encode(), key, st, rnd)
	if err != nil {
		return nil, err
	}
	if err := s.Ready(rnd); err != nil {
		return nil, err
	}
	return s, st.Sync()
}

func importFrames(id dag.ID, st dag.Store, frames [][]byte) error {
	l, err := list.Open(id, st)
	for i := 0; i < len(frames) && err == nil; i++ {
		err = l.Import(frames[i])
	}
	return err
}

// LookOneToOne looks at the access list of a one-to-one space of this account, whose ID was computed here, as a peer gave it: begun says whether the other account has
// come into it, over whether one of the two has left.
func LookOneToOne(k *Keys, id dag.ID, frames [][]byte) (begun, over bool, err error) {
	l, err := list.Open(id, store.NewMem())
	for i := 0; i < len(frames) && err == nil; i++ {
		err = l.Import(frames[i])
	}
	if err != nil {
		return false, false, err
	}
	root, st := l.Root(), l.State()
	if root == nil || root.Beside(k.Identity) == nil {
		return false, false, fmt.Errorf("%w: space %s is none of this account and one other", ErrDenied, id)
	}
	m, in := st.Member(root.Beside(k.Identity).Identity)
	over = !in || st.Role(k.Identity) == RoleNone
	return over || len(m.Devices) > 0, over, nil
}

// OneToOne gives the other account of a one-to-one space; nil where this is none.
func (s *Space) OneToOne() *AccountKeys {
	if root := s.list.Root(); root != nil {
		return root.Beside(s.k.Identity)
	}
	return nil
}

// Alone says whether nobody is in the space any more with whom it was one-to-one.
func (s *Space) Alone() bool {
	o := s.OneToOne()
	return o != nil && s.list.State().Role(o.Identity) == RoleNone
}

// agreedKey is the first read key of a one-to-one space.
func (k *Keys) agreedKey(root *list.Root) (seal.ReadKey, bool) {
	other := root.Beside(k.Identity)
	if k.Account == nil || other == nil {
		return seal.ReadKey{}, false
	}
	again, key, err := k.Account.oneToOne(other, root.Number)
	return key, err == nil && again.ID() == root.ID()
}

// sealable says whether an epoch is one to seal in. The first of a one-to-one space is not: its key follows from an agreement that resists no quantum computer.
func sealable(st *list.State, e *list.Epoch) bool {
	return e.Clean && (st.Root.Kind != list.RootOneToOne || e.ID != st.Space)
}
