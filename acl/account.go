package acl

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/tyler-smith/go-bip39"
)

// entropyBytes is the secret of an account: 128 bits, twelve words.
const entropyBytes = 16

// Labels of what an account's secret derives to.
const (
	labelAccount   = "anyfs/account/1"
	labelIdentity  = "anyfs/account/1 identity"
	labelRecovery  = "anyfs/account/1 recovery"
	labelX25519    = "anyfs/account/1 x25519"
	labelSpaceSeed = "anyfs/account/1 space seed "
	labelSpaceKey  = "anyfs/account/1 space key "
)

// Account is a person's keys, all of which follow from 16 secret bytes. It does not change.
type Account struct {
	entropy  [entropyBytes]byte
	prk      []byte
	identity ed25519.PrivateKey
	recovery hpke.PrivateKey
	x25519   *ecdh.PrivateKey
	public   list.AccountKeys
}

// NewAccount makes an account from fresh randomness; rnd nil means crypto/rand.
func NewAccount(rnd io.Reader) (*Account, error) {
	var e [entropyBytes]byte
	if err := fill(rnd, e[:]); err != nil {
		return nil, err
	}
	return accountOf(e)
}

// AccountFromPhrase makes the account of a recovery phrase: twelve English BIP-39 words, in any case, with any white
// space between them. It returns an ErrPhrase that names what is wrong.
func AccountFromPhrase(words string) (*Account, error) {
	w := strings.Fields(strings.ToLower(words))
	if len(w) != 12 {
		return nil, fmt.Errorf("%w: it has %d words, a phrase has 12", ErrPhrase, len(w))
	}
	for i, s := range w {
		if _, ok := bip39.GetWordIndex(s); !ok {
			return nil, fmt.Errorf("%w: word %d, %q, is not in the list of words; check its spelling", ErrPhrase, i+1, s)
		}
	}
	b, err := bip39.EntropyFromMnemonic(strings.Join(w, " "))
	if err != nil || len(b) != entropyBytes {
		return nil, fmt.Errorf("%w: the words do not belong together; check their order and that none is mistaken for another", ErrPhrase)
	}
	return accountOf([entropyBytes]byte(b))
}

func accountOf(entropy [entropyBytes]byte) (*Account, error) {
	a := &Account{entropy: entropy}
	var err error
	if a.prk, err = hkdf.Extract(sha256.New, entropy[:], []byte(labelAccount)); err != nil {
		return nil, fmt.Errorf("acl: account: %w", err)
	}
	seed := a.derive(labelIdentity)
	a.identity = ed25519.NewKeyFromSeed(seed[:])
	seed = a.derive(labelRecovery)
	if a.recovery, err = seal.KEM().NewPrivateKey(seed[:]); err != nil {
		return nil, fmt.Errorf("acl: account: %w", err)
	}
	seed = a.derive(labelX25519)
	if a.x25519, err = ecdh.X25519().NewPrivateKey(seed[:]); err != nil {
		return nil, fmt.Errorf("acl: account: %w", err)
	}
	a.public = list.AccountKeys{
		Identity: dag.PublicKey(a.identity.Public().(ed25519.PublicKey)),
		Recovery: a.recovery.PublicKey().Bytes(),
		X25519:   [32]byte(a.x25519.PublicKey().Bytes()),
	}
	a.public.Sign(a.identity)
	return a, nil
}

// derive is HKDF-SHA256 of the secret: 32 bytes for the use that label names.
func (a *Account) derive(label string) [32]byte {
	b, err := hkdf.Expand(sha256.New, a.prk, label, 32)
	if err != nil {
		panic("acl: " + err.Error()) // fails only for lengths far above
	}
	return [32]byte(b)
}

// Phrase is the secret as twelve words, one space between two: whoever has them has the account.
func (a *Account) Phrase() string {
	s, err := bip39.NewMnemonic(a.entropy[:])
	if err != nil {
		panic("acl: " + err.Error()) // fails only for other lengths
	}
	return s
}

// Identity is the account's name: its Ed25519 public key.
func (a *Account) Identity() dag.PublicKey { return a.public.Identity }

// Public are the account's public keys, signed by its identity.
func (a *Account) Public() list.AccountKeys { return a.public }

// Certify signs a certificate for a device.
func (a *Account) Certify(device dag.PublicKey, hpkeKey []byte, serial uint64) *list.Certificate {
	c := &list.Certificate{Account: a.Identity(), Device: device, HPKE: hpkeKey, Serial: serial}
	c.Sign(a.identity)
	return c
}

// spaceKey is the first read key of the derived space that label names.
func (a *Account) spaceKey(label string) seal.ReadKey { return a.derive(labelSpaceKey + label) }

// deriveRoot computes the root of the derived space that label names: the same bytes on each device.
func (a *Account) deriveRoot(label string) *list.Root {
	t := &list.Root{Kind: list.RootDerived, Seed: a.derive(labelSpaceSeed + label), Owner: a.public, Suite: list.Suite}
	t.Commitment = a.spaceKey(label).Commitment(dag.ID{})
	t.Sign(a.identity)
	return t
}

// DeriveSpaceID is the ID of the account's derived space that label names.
func DeriveSpaceID(a *Account, label string) dag.ID { return a.deriveRoot(label).ID() }
