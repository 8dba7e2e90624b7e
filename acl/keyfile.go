package acl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strings"

	"filippo.io/age"

	"github.com/anyfs/anyfs/dag/disk"
)

// The key files of a home.
const (
	fileKeys    = "keys.age"    // the device's keys; its existence is what makes a home initialised
	fileKey     = "keys.key"    // what opens keys.age, unless a passphrase does
	fileAccount = "account.age" // the account's phrase; opened by a key inside keys.age
	fileSpaces  = "spaces.age"  // read keys that follow from nothing else here; opened likewise
)

const (
	maxKeyFile = 1 << 20
	// scryptWork is the logarithm of scrypt's cost: 2^17 takes 128 MiB and about half a second.
	scryptWork = 17
	// maxScryptWork is the most that a key file may make us spend.
	maxScryptWork = 20
)

// encrypt makes an age file.
func encrypt(plain []byte, to ...age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// errNoMatch says that none of the identities opens the file.
var errNoMatch = errors.New("it belongs to another key")

func decrypt(sealed []byte, with ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), with...)
	if mismatch := new(age.NoIdentityMatchError); errors.As(err, &mismatch) {
		return nil, errNoMatch
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxKeyFile))
}

// byPassphrase says whether an age file opens by a passphrase.
func byPassphrase(sealed []byte) bool {
	return bytes.HasPrefix(sealed, []byte("age-encryption.org/v1\n-> scrypt "))
}

func keyFileError(name, format string, args ...any) error {
	return fmt.Errorf("%w %s: %w", ErrKeyFile, name, fmt.Errorf(format, args...))
}

// readKeyFile reads a key file; nil where there is none.
func readKeyFile(d disk.FS, name string) ([]byte, error) {
	b, err := d.ReadFile(name)
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("acl: read %s: %w", name, err)
	case len(b) > maxKeyFile:
		return nil, keyFileError(name, "too large, %d bytes", len(b))
	}
	return b, nil
}

// openKeyFile reads keys.key, which may hold two keys after an interrupted change.
func openKeyFile(d disk.FS) ([]age.Identity, error) {
	b, err := readKeyFile(d, fileKey)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, keyFileError(fileKey, "missing, and nothing else opens %s; put it back from a backup, or log in with your phrase in another home", fileKeys)
	}
	if err := checkPrivate(d, fileKey); err != nil {
		return nil, err
	}
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return nil, keyFileError(fileKey, "damaged; put it back from a backup (%w)", err)
	}
	return ids, nil
}

// checkPrivate refuses a file that others may read or write, where the disk can tell.
func checkPrivate(d disk.FS, name string) error {
	f, err := d.Open(name)
	if err != nil {
		return fmt.Errorf("acl: open %s: %w", name, err)
	}
	defer f.Close()
	st, ok := f.(interface{ Stat() (iofs.FileInfo, error) })
	if !ok {
		return nil
	}
	info, err := st.Stat()
	if err != nil {
		return fmt.Errorf("acl: stat %s: %w", name, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return keyFileError(name, "other users may read or write it (mode %04o); run `chmod 600` on it, and change the key with `anyfs account passphrase` if others use this machine", mode)
	}
	return nil
}

// keyFileText is what keys.key holds.
func keyFileText(ids ...string) []byte {
	return []byte("# anyfs: this key opens keys.age. Whoever reads both files has this device's keys.\n" + strings.Join(ids, "\n") + "\n")
}
