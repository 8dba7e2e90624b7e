package acl

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
)

// ErrLink says that a text is no invitation, and why.
var ErrLink = errors.New("acl: not an invitation")

// LinkScheme is what an invitation begins with.
const LinkScheme = "anyfs:"

// Limits of an invitation's text.
const (
	maxLink      = 8 << 10
	maxAddresses = 32
	secretBytes  = 32
)

// Link is an invitation as it is handed to a person: whoever has it may ask to join.
type Link struct {
	Space     dag.ID
	By        dag.PublicKey // the account that invites
	Addresses []string      // multiaddrs with /p2p/ID, where the space can be found
	Secret    [secretBytes]byte
	Name      string // what the space is called by who invites; may be empty
}

// String is the invitation as text, in the form of a URI whose fragment is the secret and the name.
func (l *Link) String() string {
	q := url.Values{"by": {FormatIdentity(l.By)}}
	for _, a := range l.Addresses {
		q.Add("at", a)
	}
	name := ""
	if l.Name != "" {
		name = "." + base64.RawURLEncoding.EncodeToString([]byte(l.Name))
	}
	return LinkScheme + l.Space.String() + "?" + strings.ReplaceAll(q.Encode(), "%2F", "/") + "#" + base64.RawURLEncoding.EncodeToString(l.Secret[:]) + name
}

// ParseLink reads what String wrote. Parts that it does not know are passed over.
func ParseLink(s string) (*Link, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxLink {
		return nil, fmt.Errorf("%w: %d characters", ErrLink, len(s))
	}
	rest, ok := strings.CutPrefix(s, LinkScheme)
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin with %s", ErrLink, LinkScheme)
	}
	rest, secret, ok := strings.Cut(rest, "#")
	if !ok {
		return nil, fmt.Errorf("%w: its end, from # on, is missing; quote it on the command line", ErrLink)
	}
	id, query, _ := strings.Cut(rest, "?")
	l := new(Link)
	var err error
	if l.Space, err = dag.ParseID(id); err != nil {
		return nil, fmt.Errorf("%w: no space: %w", ErrLink, err)
	}
	secret, name, _ := strings.Cut(secret, ".")
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || len(b) != secretBytes {
		return nil, fmt.Errorf("%w: its secret, after #, is damaged or cut short", ErrLink)
	}
	copy(l.Secret[:], b)
	if b, err = base64.RawURLEncoding.Strict().DecodeString(name); err != nil || !utf8.Valid(b) {
		return nil, fmt.Errorf("%w: its end is damaged or cut short", ErrLink)
	}
	l.Name = string(b)
	q, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLink, err)
	}
	if l.By, err = ParseIdentity(q.Get("by")); err != nil {
		return nil, fmt.Errorf("%w: who invites: %w", ErrLink, err)
	}
	if l.Addresses = q["at"]; len(l.Addresses) > maxAddresses {
		return nil, fmt.Errorf("%w: %d addresses", ErrLink, len(l.Addresses))
	}
	return l, nil
}

// inviteKeys is what the secret of an invitation derives to.
type inviteKeys struct {
	sign   ed25519.PrivateKey
	hpke   hpke.PrivateKey
	naming seal.ReadKey // names in requests are sealed with it
}

const labelInvitation = "anyfs/invitation/1"

// Labels of sealed fields.
const (
	labelNaming     = "naming"      // the naming key, in an invitation; associated data: its key
	labelMemberName = "member name" // associated data: the account
)

func (l *Link) keys() (*inviteKeys, error) {
	prk, err := hkdf.Extract(sha256.New, l.Secret[:], []byte(labelInvitation))
	if err != nil {
		return nil, fmt.Errorf("acl: invitation: %w", err)
	}
	var seeds [3][]byte
	for i, label := range []string{" sign", " hpke", " naming"} {
		if seeds[i], err = hkdf.Expand(sha256.New, prk, labelInvitation+label, 32); err != nil {
			return nil, fmt.Errorf("acl: invitation: %w", err)
		}
	}
	k := &inviteKeys{sign: ed25519.NewKeyFromSeed(seeds[0]), naming: seal.ReadKey(seeds[2])}
	if k.hpke, err = seal.KEM().NewPrivateKey(seeds[1]); err != nil {
		return nil, fmt.Errorf("acl: invitation: %w", err)
	}
	return k, nil
}

func (k *inviteKeys) public() dag.PublicKey {
	return dag.PublicKey(k.sign.Public().(ed25519.PublicKey))
}

// SigningKey proves the invitation to a peer; it follows from the secret.
func (l *Link) SigningKey() (ed25519.PrivateKey, error) {
	k, err := l.keys()
	if err != nil {
		return nil, err
	}
	return k.sign, nil
}

// sealMemberName seals the name of an account, padded so that its length does not show.
func sealMemberName(k seal.ReadKey, account dag.PublicKey, name string, rnd io.Reader) ([]byte, error) {
	padded := make([]byte, maxDeviceName)
	copy(padded, CleanDeviceName(name))
	return k.SealField(labelMemberName, account[:], padded, rnd)
}

func openMemberName(k seal.ReadKey, account dag.PublicKey, sealed []byte) (string, error) {
	b, err := k.OpenField(labelMemberName, account[:], sealed)
	if err != nil {
		return "", err
	}
	return CleanDeviceName(strings.TrimRight(string(b), "\x00")), nil
}
