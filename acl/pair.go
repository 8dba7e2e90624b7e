package acl

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"
	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// A device that is paired by a code gets a certificate and the spaces' keys from one that holds the account's secret, and never the secret.

// ErrGrant says that what a device got at its pairing is not what it may take.
var ErrGrant = errors.New("acl: what came with the pairing is not valid")

// maxRequest bounds what a new device asks for, in bytes.
const maxRequest = 4 << 10

// NewDevice is a device that has no account yet.
type NewDevice struct{ device *Device }

// MakeDevice draws the keys of a device; rnd nil means crypto/rand.
func MakeDevice(name string, rnd io.Reader) (*NewDevice, error) {
	d, err := newDevice(name, rnd)
	if err != nil {
		return nil, err
	}
	return &NewDevice{d}, nil
}

// PrivateKey is the key by which the device proves itself to peers.
func (n *NewDevice) PrivateKey() ed25519.PrivateKey { return n.device.sign }

type deviceRequest struct {
	Version uint   `cbor:"v"`
	Name    string `cbor:"name"`
	HPKE    []byte `cbor:"hpke"`
}

// grantFile is what a new device gets.
type grantFile struct {
	Version     uint          `cbor:"v"`
	Name        string        `cbor:"name"` // of the device that gives it
	Account     []byte        `cbor:"account"`
	Certificate []byte        `cbor:"cert"`
	Spaces      []SpaceSecret `cbor:"spaces"`
	Networks    [][]byte      `cbor:"networks,omitempty"` // configurations of networks that the home space is on
}

// maxGrantNetworks bounds these.
const maxGrantNetworks = 64

// Request is what the device says of itself to who lets it in.
func (n *NewDevice) Request() ([]byte, error) {
	return cbor.Marshal(deviceRequest{keysVersion, n.device.Name, n.device.hpke.PublicKey().Bytes()})
}

// Admit makes the certificate of a new device, whose key it proved to the caller, and puts it together with the given spaces and the derived
// ones as what the device is to get, with the configurations of networks, which are nothing to this package. name is what the device calls itself. It
// takes the account's secret, else it returns ErrNoSecret.
func (k *Keys) Admit(device dag.PublicKey, request []byte, spaces []SpaceSecret, networks ...[]byte) (grant []byte, name string, err error) {
	if k.Account == nil {
		return nil, "", ErrNoSecret
	}
	mode, err := strictCBOR()
	if err != nil {
		return nil, "", err
	}
	var q deviceRequest
	if len(request) > maxRequest {
		return nil, "", fmt.Errorf("acl: a new device asks by %d bytes", len(request))
	}
	if err := mode.Unmarshal(request, &q); err != nil {
		return nil, "", fmt.Errorf("acl: what a new device asks for: %w", err)
	}
	if q.Version != keysVersion {
		return nil, "", fmt.Errorf("acl: the new device has another version of anyfs (%d); update both", q.Version)
	}
	if _, err := seal.KEM().NewPublicKey(q.HPKE); err != nil {
		return nil, "", fmt.Errorf("acl: the key of a new device: %w", err)
	}
	name = CleanDeviceName(q.Name)
	spaces = slices.Clone(spaces)
	for _, label := range []string{LabelHome, LabelPersonal} {
		id, root, key, err := k.derived(label)
		if err != nil {
			return nil, "", err
		}
		if !slices.ContainsFunc(spaces, func(s SpaceSecret) bool { return s.ID == id }) {
			spaces = append(spaces, SpaceSecret{ID: id, Label: label, Root: root, Epochs: []EpochSecret{{id, key}}})
		}
	}
	cert := k.Account.Certify(device, q.HPKE, 1)
	grant, err = cbor.Marshal(grantFile{keysVersion, k.Device.Name, k.Public.Encode(), cert.Encode(), spaces, networks[:min(len(networks), maxGrantNetworks)]})
	return grant, name, err
}

// GrantNetworks gives the configurations of networks in a grant that InitPaired takes.
func GrantNetworks(grant []byte) ([][]byte, error) {
	mode, err := strictCBOR()
	if err != nil {
		return nil, err
	}
	var f grantFile
	if err := mode.Unmarshal(grant, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGrant, err)
	}
	return f.Networks[:min(len(f.Networks), maxGrantNetworks)], nil
}

// decodeGrant reads what a new device got and checks that all of it is of one account and for this device.
func (n *NewDevice) decodeGrant(grant []byte) (f grantFile, public *list.AccountKeys, cert *list.Certificate, err error) {
	fail := func(err error) (grantFile, *list.AccountKeys, *list.Certificate, error) {
		return grantFile{}, nil, nil, fmt.Errorf("%w: %w", ErrGrant, err)
	}
	mode, err := strictCBOR()
	if err != nil {
		return fail(err)
	}
	if err := mode.Unmarshal(grant, &f); err != nil {
		return fail(err)
	}
	if f.Version != keysVersion {
		return fail(fmt.Errorf("the other device has another version of anyfs (%d); update both", f.Version))
	}
	if public, err = list.DecodeAccountKeys(f.Account); err == nil {
		err = public.Verify()
	}
	if err != nil {
		return fail(err)
	}
	if cert, err = list.DecodeCertificate(f.Certificate); err == nil {
		err = cert.Verify()
	}
	if err != nil {
		return fail(err)
	}
	if cert.Account != public.Identity || cert.Device != n.device.PublicKey() || !bytes.Equal(cert.HPKE, n.device.hpke.PublicKey().Bytes()) {
		return fail(errors.New("the certificate is for another device or account"))
	}
	labels := map[string]bool{}
	for i := range f.Spaces {
		if err := checkSecret(&f.Spaces[i], public.Identity); err != nil {
			return fail(err)
		}
		if l := f.Spaces[i].Label; l != "" && labels[l] {
			return fail(fmt.Errorf("two spaces %q", l))
		}
		labels[f.Spaces[i].Label] = true
	}
	if !labels[LabelHome] || !labels[LabelPersonal] {
		return fail(errors.New("the account's own spaces are missing"))
	}
	return f, public, cert, nil
}

// checkSecret checks of a derived space that its root makes it, that the account made it and that its first key is there.
func checkSecret(s *SpaceSecret, account dag.PublicKey) error {
	if s.Label == "" {
		if len(s.Root) > 0 {
			return fmt.Errorf("space %s with a root", s.ID)
		}
		return nil // its keys are held against what its access list committed to
	}
	root, err := list.DecodeRoot(s.Root)
	if err != nil {
		return err
	}
	if root.ID() != s.ID {
		return fmt.Errorf("the root of space %s makes another one", s.ID)
	}
	if err := root.Verify(); err != nil {
		return err
	}
	if root.Kind != list.RootDerived || root.Owner.Identity != account {
		return fmt.Errorf("space %s is not the account's own %q", s.ID, s.Label)
	}
	for _, e := range s.Epochs {
		if e.ID == s.ID && e.Key.Commitment(dag.ID{}) == root.Commitment {
			return nil
		}
	}
	return fmt.Errorf("the key of the space %q is missing or wrong", s.Label)
}

// InitPaired writes the key files of a home that has none (else ErrInitialised), with what the device got at its pairing. giver is the name of
// the device that let it in. For pass and durability see InitKeys. What is not valid is an ErrGrant, and nothing is written then.
func InitPaired(d disk.FS, n *NewDevice, grant, pass []byte, rnd io.Reader) (k *Keys, giver string, err error) {
	if b, err := readKeyFile(d, fileKeys); err != nil {
		return nil, "", err
	} else if b != nil {
		return nil, "", ErrInitialised
	}
	f, public, cert, err := n.decodeGrant(grant)
	if err != nil {
		return nil, "", err
	}
	device := *n.device
	device.Certificate = cert
	k = &Keys{Identity: public.Identity, Public: *public, Device: &device, Rand: shared(rnd)}
	if err := fill(rnd, k.store[:]); err != nil {
		return nil, "", err
	}
	k.Local = seal.NewLocal(k.store)
	if k.unlock, err = age.GenerateX25519Identity(); err != nil {
		return nil, "", fmt.Errorf("acl: %w", err)
	}
	// A phrase that a login left which was cut short would be taken for this account's.
	if err := removeKeyFile(d, fileAccount); err != nil {
		return nil, "", err
	}
	if err := k.writeSpaces(d, f.Spaces); err != nil {
		return nil, "", err
	}
	if err := changePassphrase(d, k, pass, scryptWork); err != nil {
		return nil, "", err
	}
	return k, CleanDeviceName(f.Name), nil
}
