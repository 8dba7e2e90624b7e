package acl

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"sync"

	"filippo.io/age"
	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/disk"
)

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
	k := &Keys{Account: a, Identity: a.Identity(), Public: a.Public(), Device: device, Rand: shared(rnd)}
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
	if err := changePassphrase(d, k, pass, scryptWork); err != nil {
		return nil, err
	}
	return k, nil
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
		if err := removeKeyFile(d, fileKey); err != nil {
			return err
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

// AddSpace keeps a space that was handed over, in place of what was known of it, and writes spaces.age.
func (k *Keys) AddSpace(d disk.FS, s SpaceSecret) error {
	spaces := slices.DeleteFunc(slices.Clone(k.Spaces), func(o SpaceSecret) bool { return o.ID == s.ID })
	return k.writeSpaces(d, append(spaces, s))
}

// writeSpaces writes spaces.age, in place of what it held.
func (k *Keys) writeSpaces(d disk.FS, spaces []SpaceSecret) error {
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

// removeKeyFile removes a key file, where there is one.
func removeKeyFile(d disk.FS, name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("acl: remove %s: %w", name, err)
	}
	return nil
}

// shared is a source of randomness that several spaces may read.
func shared(rnd io.Reader) io.Reader {
	if rnd == nil || rnd == rand.Reader {
		return nil
	}
	return &lockedReader{r: rnd}
}

type lockedReader struct {
	mu sync.Mutex
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}
