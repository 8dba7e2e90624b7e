package list

import (
	"bytes"
	"crypto/ed25519"
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// HPKEBytes is the length of an HPKE public key (MLKEM768-X25519).
const HPKEBytes = 1216

// Domains of signatures. Each ends in a zero byte, and none is the beginning of another.
const (
	domainAccount     = "anyfs/account/1\x00"
	domainCertificate = "anyfs/certificate/1\x00"
	domainRoot        = "anyfs/root/1\x00"
)

// AccountKeys are the public keys of an account, under the signature of its identity.
type AccountKeys struct {
	Identity  dag.PublicKey // Ed25519: the account's name
	Recovery  []byte        // HPKE: wraps to whoever has the account's secret
	X25519    [32]byte      // for key agreement between two accounts
	Signature [64]byte      // by Identity
}

// Sign signs the keys with the identity's private key.
func (a *AccountKeys) Sign(key ed25519.PrivateKey) {
	copy(a.Signature[:], ed25519.Sign(key, sum(domainAccount, a.encode(false))))
}

// Verify returns ErrSignature unless the identity signed the keys.
func (a *AccountKeys) Verify() error {
	if !ed25519.Verify(a.Identity[:], sum(domainAccount, a.encode(false)), a.Signature[:]) {
		return fmt.Errorf("%w on the public keys of an account", ErrSignature)
	}
	return nil
}

// Encode returns the canonical encoding.
func (a *AccountKeys) Encode() []byte { return a.encode(true) }

func (a *AccountKeys) encode(signed bool) []byte {
	w := writer{make([]byte, 0, HPKEBytes+200)}
	a.write(&w, signed)
	return w.b
}

func (a *AccountKeys) write(w *writer, signed bool) {
	n := 4
	if signed {
		n++
	}
	w.fields(n)
	w.uint("v", Version)
	if signed {
		w.blob("sig", a.Signature[:])
	}
	w.blob("x25519", a.X25519[:])
	w.blob("identity", a.Identity[:])
	w.blob("recovery", a.Recovery)
}

func (a *AccountKeys) read(r *reader) {
	r.open("account")
	r.fixed("sig", a.Signature[:])
	r.fixed("x25519", a.X25519[:])
	r.fixed("identity", a.Identity[:])
	a.Recovery = r.hpke("recovery")
}

// DecodeAccountKeys reads what Encode wrote and refuses every other byte string. It does not check the signature.
func DecodeAccountKeys(b []byte) (*AccountKeys, error) {
	a, r := new(AccountKeys), reader{b: b}
	a.read(&r)
	return strict(a, b, &r, a.Encode)
}

// Certificate says that a device belongs to an account. A device has one for each account it writes for.
type Certificate struct {
	Account   dag.PublicKey
	Device    dag.PublicKey // Ed25519: signs batches, and is the libp2p peer's key
	HPKE      []byte        // the device's own HPKE key
	Serial    uint64        // from 1; of two certificates of one device the higher serial holds
	Signature [64]byte      // by Account
}

// Sign signs the certificate with the account's private key.
func (c *Certificate) Sign(key ed25519.PrivateKey) {
	copy(c.Signature[:], ed25519.Sign(key, sum(domainCertificate, c.encode(false))))
}

// Verify returns ErrSignature unless the account signed the certificate.
func (c *Certificate) Verify() error {
	if !ed25519.Verify(c.Account[:], sum(domainCertificate, c.encode(false)), c.Signature[:]) {
		return fmt.Errorf("%w on the certificate of device %s", ErrSignature, PeerID(c.Device))
	}
	return nil
}

// Encode returns the canonical encoding.
func (c *Certificate) Encode() []byte { return c.encode(true) }

func (c *Certificate) encode(signed bool) []byte {
	w := writer{make([]byte, 0, HPKEBytes+200)}
	c.write(&w, signed)
	return w.b
}

func (c *Certificate) write(w *writer, signed bool) {
	n := 5
	if signed {
		n++
	}
	w.fields(n)
	w.uint("v", Version)
	if signed {
		w.blob("sig", c.Signature[:])
	}
	w.blob("hpke", c.HPKE)
	w.blob("device", c.Device[:])
	w.uint("serial", c.Serial)
	w.blob("account", c.Account[:])
}

func (c *Certificate) read(r *reader) {
	r.open("certificate")
	r.fixed("sig", c.Signature[:])
	c.HPKE = r.hpke("hpke")
	r.fixed("device", c.Device[:])
	if c.Serial = r.uint("serial"); r.err == nil && c.Serial == 0 {
		r.fail("serial of zero")
	}
	r.fixed("account", c.Account[:])
}

// DecodeCertificate reads what Encode wrote and refuses every other byte string. It does not check the signature.
func DecodeCertificate(b []byte) (*Certificate, error) {
	c, r := new(Certificate), reader{b: b}
	c.read(&r)
	return strict(c, b, &r, c.Encode)
}

// open reads the head of a map and its version, which comes first in every version. Another one may have any number of
// fields; that this one has its own shows when it is encoded again.
func (r *reader) open(what string) {
	r.fields(1<<16, what)
	if v := r.uint("v"); r.err == nil && v != Version {
		r.err = fmt.Errorf("%w (version %d)", ErrVersion, v)
	}
}

func (r *reader) hpke(key string) []byte {
	b := r.blob(key, HPKEBytes)
	if r.err == nil && len(b) != HPKEBytes {
		r.fail("%q of %d bytes, not %d", key, len(b), HPKEBytes)
	}
	return b
}

// strict finishes a decoder: all is read, and encodes to the very same bytes.
func strict[T any](v *T, b []byte, r *reader, encode func() []byte) (*T, error) {
	if err := r.done(); err != nil {
		return nil, err
	}
	if !bytes.Equal(encode(), b) {
		return nil, fmt.Errorf("%w: re-encoding gives other bytes", ErrFormat)
	}
	return v, nil
}
