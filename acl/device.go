package acl

import (
	"crypto/ed25519"
	"crypto/hpke"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
)

// maxDeviceName bounds a device's name in bytes.
const maxDeviceName = 64

// Device is a machine's keys: one that signs (and is its libp2p peer), one that read keys are wrapped to, and the
// account's certificate for both. It does not change.
type Device struct {
	Name        string
	Certificate *list.Certificate

	signSeed [32]byte
	hpkeSeed [32]byte
	sign     ed25519.PrivateKey
	hpke     hpke.PrivateKey
}

// newDevice makes a device's keys, without a certificate yet; rnd nil means crypto/rand.
func newDevice(name string, rnd io.Reader) (*Device, error) {
	d := &Device{Name: CleanDeviceName(name)}
	if err := fill(rnd, d.signSeed[:]); err != nil {
		return nil, err
	}
	if err := fill(rnd, d.hpkeSeed[:]); err != nil {
		return nil, err
	}
	return d, d.expand()
}

// expand computes the keys from their seeds.
func (d *Device) expand() (err error) {
	d.sign = ed25519.NewKeyFromSeed(d.signSeed[:])
	if d.hpke, err = seal.KEM().NewPrivateKey(d.hpkeSeed[:]); err != nil {
		return fmt.Errorf("acl: device: %w", err)
	}
	return nil
}

// PublicKey is the key under which the device signs.
func (d *Device) PublicKey() dag.PublicKey { return dag.PublicKey(d.sign.Public().(ed25519.PublicKey)) }

// PrivateKey is the key with which the device signs, under domains that begin with `anyfs/`, and proves itself to
// libp2p peers.
func (d *Device) PrivateKey() ed25519.PrivateKey { return d.sign }

// PeerID is the device's libp2p peer id.
func (d *Device) PeerID() string { return list.PeerID(d.PublicKey()) }

// CleanDeviceName makes a name fit to be shown and stored: what can be printed and is no slash, at most 64 bytes of UTF-8.
func CleanDeviceName(name string) string {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '/' || r == utf8.RuneError || !unicode.IsPrint(r) {
			return '-'
		}
		return r
	}, strings.ToValidUTF8(name, "-")))
	return cutDeviceName(name)
}

func cutDeviceName(name string) string {
	for len(name) > maxDeviceName {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	if name == "" {
		return "device"
	}
	return name
}

// labelDeviceName is that of a device's name as a sealed field; the certificate's device key is the associated data.
const labelDeviceName = "device name"

// sealName seals the name of the device, padded so that its length does not show.
func sealName(k seal.ReadKey, d *Device, rnd io.Reader) ([]byte, error) {
	return sealDeviceName(k, d.PublicKey(), d.Name, rnd)
}

func sealDeviceName(k seal.ReadKey, device dag.PublicKey, name string, rnd io.Reader) ([]byte, error) {
	padded := make([]byte, maxDeviceName)
	copy(padded, name)
	return k.SealField(labelDeviceName, device[:], padded, rnd)
}

// openName opens what sealName made for the device. What no name holds becomes '-': a slash, a control character, and what is
// not UTF-8. No more than that: the names of conflict copies follow from it, and which characters can be printed is another
// matter in each version of Unicode.
func openName(k seal.ReadKey, device dag.PublicKey, sealed []byte) (string, error) {
	b, err := k.OpenField(labelDeviceName, device[:], sealed)
	if err != nil {
		return "", err
	}
	return cutDeviceName(strings.Map(func(r rune) rune {
		if r == '/' || r == utf8.RuneError || r < ' ' || r >= 0x7f && r < 0xa0 {
			return '-'
		}
		return r
	}, strings.TrimRight(string(b), "\x00"))), nil
}
