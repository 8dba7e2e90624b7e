package pair

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"io"

	"github.com/gtank/ristretto255"
)

// CPace (draft-irtf-cfrg-cpace, cipher suite CPACE-RISTRETTO255-SHA512, initiator and responder): two sides that know one password
// agree on a key, and who does not know it can try one password for each run, with one of the two.

// Names of the draft.
const (
	dsiGenerator = "CPaceRistretto255"
	dsiKey       = "CPaceRistretto255_ISK"
	hashBlock    = 128 // bytes that SHA-512 takes in at once
	shareBytes   = 32
)

// errShare says that a share is none, or one that gives the same key whatever the password.
var errShare = errors.New("pair: a share that no side makes")

// appendLV appends each part behind its length. No part here has 128 bytes or more, so each length is one byte.
func appendLV(dst []byte, parts ...[]byte) []byte {
	for _, p := range parts {
		if len(p) > 127 {
			panic(fmt.Sprintf("pair: %d bytes in one part", len(p)))
		}
		dst = append(append(dst, byte(len(p))), p...)
	}
	return dst
}

// generatorString is what the generator is hashed from. Zeros fill the first block of the hash, which so holds nothing but the password.
func generatorString(password, channel, session []byte) []byte {
	zeros := max(0, hashBlock-1-(1+len(password))-(1+len(dsiGenerator)))
	return appendLV(nil, []byte(dsiGenerator), password, make([]byte, zeros), channel, session)
}

// generator is the group's element that a password stands for, in one session.
func generator(password, channel, session []byte) *ristretto255.Element {
	h := sha512.Sum512(generatorString(password, channel, session))
	return ristretto255.NewElement().FromUniformBytes(h[:])
}

// run is one side of an agreement under way. Each is used once.
type run struct {
	session []byte
	secret  *ristretto255.Scalar
	share   [shareBytes]byte
}

// begin draws this side's secret.
func begin(password, channel, session []byte, rnd io.Reader) (*run, error) {
	var b [64]byte
	if _, err := io.ReadFull(rnd, b[:]); err != nil {
		return nil, fmt.Errorf("pair: randomness: %w", err)
	}
	return with(password, channel, session, ristretto255.NewScalar().FromUniformBytes(b[:])), nil
}

func with(password, channel, session []byte, secret *ristretto255.Scalar) *run {
	r := &run{session: session, secret: secret}
	r.share = [shareBytes]byte(ristretto255.NewElement().ScalarMult(secret, generator(password, channel, session)).Encode(nil))
	return r
}

// key is what both sides agree on, from the other's share. ErrShare stands for a share that is refused. first says whether this side is
// the one whose share comes first (the draft's initiator); ada and adb are what the first and the second say beside their shares.
func (r *run) key(theirs [shareBytes]byte, first bool, ada, adb []byte) ([64]byte, error) {
	e := ristretto255.NewElement()
	if err := e.Decode(theirs[:]); err != nil {
		return [64]byte{}, errShare
	}
	k := ristretto255.NewElement().ScalarMult(r.secret, e)
	if k.Equal(ristretto255.NewElement()) == 1 {
		return [64]byte{}, errShare
	}
	a, b := r.share, theirs
	if !first {
		a, b = b, a
	}
	text := appendLV(nil, []byte(dsiKey), r.session, k.Encode(nil))
	return sha512.Sum512(appendLV(text, a[:], ada, b[:], adb)), nil
}
