// Package canon gives the one form of CBOR that anyfs signs, hashes and sends: the deterministic encoding of RFC 8949, 4.2.1, in which a list of
// nothing is an empty list and not null, without tags and lengths that come later.
//
// A decoder takes some byte strings that the encoder does not make: who must refuse these encodes again and compares.
package canon

import "github.com/fxamacker/cbor/v2"

// Modes makes an encoder and a decoder within limits. It panics where the limits are none that the library takes: they are constants of the caller.
func Modes(limits cbor.DecOptions) (cbor.EncMode, cbor.DecMode) {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	enc, err := o.EncMode()
	if err != nil {
		panic("canon: " + err.Error())
	}
	limits.IndefLength, limits.TagsMd = cbor.IndefLengthForbidden, cbor.TagsForbidden
	dec, err := limits.DecMode()
	if err != nil {
		panic("canon: " + err.Error())
	}
	return enc, dec
}
