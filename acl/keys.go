package acl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"

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
	Rand     io.Reader     // of nonces and keys made later; nil means crypto/rand

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

// InitKeys makes a device of the account and writes the key files of a home that has none (else ErrInitialised).
//
// pass, where it is not empty, opens them from then on; otherwise a random key in keys.key does. rnd nil means
// crypto/rand. When it returns nil, all is durable; a crash before leaves a home without an account.
func InitKeys(d disk.FS, a *Account, deviceName string, pass []byte, rnd io.Reader) (*Keys, error) {
	if b, err := readKeyFile(d, fileKeys); err != nil {
		return nil, err
	} else if b != nil {
		return nil, ErrInitialised
	}
	device, err := newDevice(deviceName, rnd)
	if err != nil {
		return nil, err
	}
	device.Certificate = a.Certify(device.PublicKey(), device.hpke.PublicKey().Bytes(), 1)
	k := &Keys{Account: a, Identity: a.Identity(), Public: a.Public(), Device: device, Rand: rnd}
	if err := fill(rnd, k.store[:]); err != nil {
		return nil, err
	}
	k.Local = seal.NewLocal(k.store)
	if k.unlock, err = age.GenerateX25519Identity(); err != nil {
		return nil, fmt.Errorf("acl: %w", err)
	}
	sealed, err := encrypt([]byte(a.Phrase()+"\n"), k.unlock.Recipient())
	if err != nil {
		return nil, fmt.Errorf("acl: seal %s: %w", fileAccount, err)
	}
	if err := d.WriteFileAtomic(fileAccount, sealed); err != nil {
		return nil, fmt.Errorf("acl: write %s: %w", fileAccount, err)
	}
	return k, changePassphrase(d, k, pass, scryptWork)
}

// ChangePassphrase makes pass open the key files from now on; where it is empty, a new random key in keys.key does.
// A crash at any point leaves either the old or the new way to open them.
func ChangePassphrase(d disk.FS, k *Keys, pass []byte) error {
	return changePassphrase(d, k, pass, scryptWork)
}

func changePassphrase(d disk.FS, k *Keys, pass []byte, work int) error {
	if len(pass) > 0 {
		to, err := age.NewScryptRecipient(string(pass))
		if err != nil {
			return fmt.Errorf("acl: passphrase: %w", err)
		}
		to.SetWorkFactor(work)
		if err := k.write(d, to); err != nil {
			return err
		}
		if err := d.Remove(fileKey); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return fmt.Errorf("acl: remove %s: %w", fileKey, err)
		}
		return d.SyncDir(".")
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return fmt.Errorf("acl: %w", err)
	}
	// While keys.age still opens by an older key, keys.key holds both.
	both := []string{id.String()}
	old, err := readKeyFile(d, fileKey)
	if err != nil {
		return err
	}
	if ids, err := age.ParseIdentities(bytes.NewReader(old)); err == nil { // else it opens nothing
		for _, id := range ids {
			if x, ok := id.(*age.X25519Identity); ok {
				both = append(both, x.String())
			}
		}
	}
	if err := d.WriteFileAtomic(fileKey, keyFileText(both...)); err != nil {
		return fmt.Errorf("acl: write %s: %w", fileKey, err)
	}
	if err := k.write(d, id.Recipient()); err != nil {
		return err
	}
	if len(both) == 1 {
		return nil
	}
	if err := d.WriteFileAtomic(fileKey, keyFileText(id.String())); err != nil {
		return fmt.Errorf("acl: write %s: %w", fileKey, err)
	}
	return nil
}

// write writes keys.age.
func (k *Keys) write(d disk.FS, to age.Recipient) error {
	plain, err := cbor.Marshal(keysFile{
		Version: keysVersion, Name: k.Device.Name, Sign: k.Device.signSeed, HPKE: k.Device.hpkeSeed, Store: k.store,
		Unlock: k.unlock.String(), Account: k.Public.Encode(), Certificate: k.Device.Certificate.Encode(),
	})
	if err != nil {
		return fmt.Errorf("acl: encode %s: %w", fileKeys, err)
	}
	sealed, err := encrypt(plain, to)
	if err != nil {
		return fmt.Errorf("acl: seal %s: %w", fileKeys, err)
	}
	if err := d.WriteFileAtomic(fileKeys, sealed); err != nil {
		return fmt.Errorf("acl: write %s: %w", fileKeys, err)
	}
	return nil
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

// AddSpace keeps a space that was handed over, in place of what was known of it, and writes spaces.age.
func (k *Keys) AddSpace(d disk.FS, s SpaceSecret) error {
	spaces := slices.DeleteFunc(slices.Clone(k.Spaces), func(o SpaceSecret) bool { return o.ID == s.ID })
	spaces = append(spaces, s)
	plain, err := cbor.Marshal(spacesFile{keysVersion, spaces})
	if err != nil {
		return fmt.Errorf("acl: encode %s: %w", fileSpaces, err)
	}
	sealed, err := encrypt(plain, k.unlock.Recipient())
	if err != nil {
		return fmt.Errorf("acl: seal %s: %w", fileSpaces, err)
	}
	if err := d.WriteFileAtomic(fileSpaces, sealed); err != nil {
		return fmt.Errorf("acl: write %s: %w", fileSpaces, err)
	}
	k.Spaces = spaces
	return nil
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
