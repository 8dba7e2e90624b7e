package list

import (
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/mr-tron/base58"
	"github.com/multiformats/go-multibase"
)

// peerPrefix makes a device's key a libp2p peer id: the identity multihash of the protobuf {type: Ed25519, data: key}.
const peerPrefix = "\x00\x24\x08\x01\x12\x20"

// identityPrefix is the multicodec of an Ed25519 public key.
const identityPrefix = "\xed\x01"

// PeerID is the libp2p peer id of a device, in base58.
func PeerID(device dag.PublicKey) string {
	return base58.Encode(append([]byte(peerPrefix), device[:]...))
}

// ParsePeerID reads what PeerID wrote.
func ParsePeerID(s string) (k dag.PublicKey, err error) {
	if len(s) > 512 { // base58 takes quadratic time
		return k, fmt.Errorf("acl: a peer id of %d characters; it has 52", len(s))
	}
	b, err := base58.Decode(s)
	if err != nil || len(b) != len(peerPrefix)+len(k) || string(b[:len(peerPrefix)]) != peerPrefix {
		return k, fmt.Errorf("acl: %q is no peer id of a device", s)
	}
	return dag.PublicKey(b[len(peerPrefix):]), nil
}

// FormatIdentity is an account's identity as people see it: multibase base58btc of the multicodec Ed25519 key.
func FormatIdentity(id dag.PublicKey) string {
	return "z" + base58.Encode(slices.Concat([]byte(identityPrefix), id[:]))
}

// ParseIdentity reads what FormatIdentity wrote, in any multibase.
func ParseIdentity(s string) (k dag.PublicKey, err error) {
	if len(s) > 512 {
		return k, fmt.Errorf("acl: an identity of %d characters; it has 48", len(s))
	}
	_, b, err := multibase.Decode(s)
	if err != nil || len(b) != len(identityPrefix)+len(k) || string(b[:len(identityPrefix)]) != identityPrefix {
		return k, fmt.Errorf("acl: %q is no account; an account begins with z6Mk", s)
	}
	return dag.PublicKey(b[len(identityPrefix):]), nil
}
