package acl

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// Keys are the secrets of a home. They do not change but by AddSpace, which is not safe for concurrent use with others.
type Keys struct {
	Account  *Account // nil on a device paired by code
	Identity dag.PublicKey
	Public   list.AccountKeys // of the account
	Device   *Device
	Local    *seal.Local   // seals what the device writes to its own disk
	Spaces   []SpaceSecret // what a device without the account's secret cannot derive
	Rand     io.Reader     // of nonces, safe for concurrent use; nil means crypto/rand

	store  [32]byte
	unlock *age.X25519Identity // opens account.age and spaces.age
}

// SpaceSecret is a space as another device of the account handed it over.
type SpaceSecret struct {
	ID     dag.ID        `cbor:"id"`
	Label  string        `cbor:"label"` // of a derived space
	Root   []byte        `cbor:"root"`
	Epochs []EpochSecret `cbor:"epochs"`
}

// EpochSecret is the read key of one epoch.
type EpochSecret struct {
	ID  dag.ID       `cbor:"id"`
	Key seal.ReadKey `cbor:"key"`
}

// Author is who signs batches on this device.
func (k *Keys) Author() dag.Author {
	return dag.Author{Account: k.Identity, Device: k.Device.PublicKey(), Key: k.Device.sign}
}

// keysFile is the content of keys.age.
type keysFile struct {
	Version     uint     `cbor:"v"`
	Name        string   `cbor:"name"`
	Sign        [32]byte `cbor:"sign"`
	HPKE        [32]byte `cbor:"hpke"`
	Store       [32]byte `cbor:"store"`
	Unlock      string   `cbor:"unlock"`
	Account     []byte   `cbor:"account"`
	Certificate []byte   `cbor:"cert"`
}

// spacesFile is the content of spaces.age.
type spacesFile struct {
	Version uint          `cbor:"v"`
	Spaces  []SpaceSecret `cbor:"spaces"`
}

const keysVersion = 1

// strictCBOR reads the files of the home: no unknown or repeated fields, no depth to speak of.
func strictCBOR() (cbor.DecMode, error) {
	return cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, MaxNestedLevels: 8,
	}.DecMode()
}

// OpenKeys opens the key files of a home. pass is asked for the passphrase where they take one; nil means that there
// is nobody to ask.
//
// It returns ErrNotInitialised where there are none, ErrPassphrase for a wrong passphrase or none, and ErrKeyFile for
// files that are missing, damaged, or open to other users.
func OpenKeys(d disk.FS, pass func() ([]byte, error)) (*Keys, error) {
	sealed, err := readKeyFile(d, fileKeys)
	if err != nil {
		return nil, err
	}
	if sealed == nil {
		return nil, ErrNotInitialised
	}
	plain, err := openSealedKeys(d, sealed, pass)
	if err != nil {
		return nil, err
	}
	k, err := decodeKeys(plain)
	if err != nil {
		return nil, keyFileError(fileKeys, "%w", err)
	}
	if err := k.readAccount(d); err != nil {
		return nil, err
	}
	return k, k.readSpaces(d)
}

// openSealedKeys decrypts keys.age by what it asks for.
func openSealedKeys(d disk.FS, sealed []byte, pass func() ([]byte, error)) ([]byte, error) {
	if !byPassphrase(sealed) {
		ids, err := openKeyFile(d)
		if err != nil {
			return nil, err
		}
		plain, err := decrypt(sealed, ids...)
		if err != nil {
			return nil, keyFileError(fileKeys, "%s does not open it (%w); put both back from one backup", fileKey, err)
		}
		return plain, nil
	}
	if pass == nil {
		return nil, fmt.Errorf("%w: the keys are guarded by a passphrase; give it on a terminal or with --passphrase-file", ErrPassphrase)
	}
	p, err := pass()
	if err != nil {
		return nil, err
	}
	if len(p) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	id, err := age.NewScryptIdentity(string(p))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	id.SetMaxWorkFactor(maxScryptWork)
	plain, err := decrypt(sealed, id)
	switch {
	case errors.Is(err, errNoMatch):
		return nil, fmt.Errorf("%w; try again", ErrPassphrase)
	case err != nil:
		return nil, keyFileError(fileKeys, "damaged; put it back from a backup (%w)", err)
	}
	return plain, nil
}

// decodeKeys reads the content of keys.age and checks that its parts belong together.
func decodeKeys(plain []byte) (*Keys, error) {
	mode, err := strictCBOR()
	if err != nil {
		return nil, err
	}
	var f keysFile
	if err := mode.Unmarshal(plain, &f); err != nil {
		return nil, fmt.Errorf("its content is damaged: %w", err)
	}
	if f.Version != keysVersion {
		return nil, fmt.Errorf("written by a later version of anyfs (%d); update anyfs", f.Version)
	}
	public, err := list.DecodeAccountKeys(f.Account)
	if err != nil {
		return nil, err
	}
	cert, err := list.DecodeCertificate(f.Certificate)
	if err != nil {
		return nil, err
	}
	k := &Keys{Identity: public.Identity, Public: *public, store: f.Store, Local: seal.NewLocal(f.Store)}
	k.Device = &Device{Name: CleanDeviceName(f.Name), Certificate: cert, signSeed: f.Sign, hpkeSeed: f.HPKE}
	if err := k.Device.expand(); err != nil {
		return nil, err
	}
	if k.unlock, err = age.ParseX25519Identity(f.Unlock); err != nil {
		return nil, err
	}
	if cert.Account != k.Identity || cert.Device != k.Device.PublicKey() || !bytes.Equal(cert.HPKE, k.Device.hpke.PublicKey().Bytes()) {
		return nil, errors.New("its certificate is not of its keys")
	}
	return k, cert.Verify()
}

// readAccount reads the account's secret, where this device has it.
func (k *Keys) readAccount(d disk.FS) error {
	sealed, err := readKeyFile(d, fileAccount)
	if err != nil || sealed == nil {
		return err
	}
	plain, err := decrypt(sealed, k.unlock)
	if err != nil {
		return keyFileError(fileAccount, "%w; put it back from a backup", err)
	}
	a, err := AccountFromPhrase(string(plain))
	if err != nil {
		return keyFileError(fileAccount, "%w", err)
	}
	if a.Identity() != k.Identity {
		return keyFileError(fileAccount, "it is of another account than %s", fileKeys)
	}
	k.Account = a
	return nil
}

func (k *Keys) readSpaces(d disk.FS) error {
	sealed, err := readKeyFile(d, fileSpaces)
	if err != nil || sealed == nil {
		return err
	}
	plain, err := decrypt(sealed, k.unlock)
	if err != nil {
		return keyFileError(fileSpaces, "%w; put it back from a backup", err)
	}
	k.Spaces, err = decodeSpaces(plain)
	if err != nil {
		return keyFileError(fileSpaces, "%w", err)
	}
	return nil
}

func decodeSpaces(plain []byte) ([]SpaceSecret, error) {
	mode, err := strictCBOR()
	if err != nil {
		return nil, err
	}
	var f spacesFile
	if err := mode.Unmarshal(plain, &f); err != nil {
		return nil, fmt.Errorf("its content is damaged: %w", err)
	}
	if f.Version != keysVersion {
		return nil, fmt.Errorf("written by a later version of anyfs (%d); update anyfs", f.Version)
	}
	return f.Spaces, nil
}

// handedOver finds a space among those that were handed over.
func (k *Keys) handedOver(id dag.ID) (SpaceSecret, bool) {
	for _, s := range k.Spaces {
		if s.ID == id {
			return s, true
		}
	}
	return SpaceSecret{}, false
}
