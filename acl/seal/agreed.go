package seal

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// AgreedWrapBytes is the length of a read key wrapped by WrapAgreed: the key and a tag.
const AgreedWrapBytes = keyBytes + tagBytes

const labelAgreed = "anyfs/agreed/1 wrap "

// WrapAgreed seals a read key under a key that two agreed on before: 48 bytes, where Wrap takes 1,168. info names the place the wrap is
// for and must be another for each read key, since the nonce is zero: the key of the AEAD follows from it.
func WrapAgreed(agreed ReadKey, info []byte, k ReadKey) []byte {
	return newAEAD(agreed.agreed(info)).Seal(make([]byte, 0, AgreedWrapBytes), zeroNonce[:], k[:], nil)
}

// UnwrapAgreed opens what WrapAgreed made with the same info, else it returns ErrForged.
func UnwrapAgreed(agreed ReadKey, info, wrap []byte) (k ReadKey, err error) {
	if len(wrap) != AgreedWrapBytes {
		return k, fmt.Errorf("%w: a wrapped key of %d bytes", ErrForged, len(wrap))
	}
	b, err := newAEAD(agreed.agreed(info)).Open(nil, zeroNonce[:], wrap, nil)
	if err != nil {
		return k, fmt.Errorf("%w: a wrapped key does not open", ErrForged)
	}
	return ReadKey(b), nil
}

var zeroNonce [nonceBytes]byte

func (k ReadKey) agreed(info []byte) [keyBytes]byte {
	b, err := hkdf.Key(sha256.New, k[:], nil, labelAgreed+string(info), keyBytes)
	if err != nil {
		panic("seal: " + err.Error())
	}
	return [keyBytes]byte(b)
}

// AgreedKey is the key that a device agrees on with another account: it follows from a secret of the device, so that the device keeps
// nothing, and opens nothing to who has not got that.
func AgreedKey(secret, info []byte) ReadKey {
	b, err := hkdf.Key(sha256.New, secret, nil, "anyfs/agreed/1 key "+string(info), keyBytes)
	if err != nil {
		panic("seal: " + err.Error())
	}
	return ReadKey(b)
}
