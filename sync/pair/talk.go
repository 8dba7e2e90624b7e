package pair

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// Conn carries messages between two peers whose IDs it has proved. A Read that takes too long is the Conn's to end.
type Conn interface {
	Read() (wire.Message, error)
	Write(wire.Message) error
}

var (
	// ErrPeer says that the other side broke the protocol.
	ErrPeer = errors.New("pair: the other device broke the protocol")
	// ErrWrong says that the other side does not have the same code.
	ErrWrong = errors.New("pair: the code is another one")
	// ErrSpent says that the code has been used, was tried too often, or is too old.
	ErrSpent = errors.New("pair: the code is of no use any more")
	// ErrNoCode says that the other side shows no code with that tag.
	ErrNoCode = errors.New("pair: the other device shows no such code")
	// ErrRefused says that the other side has the code, and can't give what it is asked for.
	ErrRefused = errors.New("pair: the other device can't let this one in")
)

const (
	version = 1

	labelPair = "anyfs/pair/1"

	// pieceBytes is what a box holds, maxTold what all boxes of one saying hold together.
	pieceBytes = 16 << 10
	maxTold    = 16 << 20
)

// talk is one side of a pairing: what was said so far, and the keys once they are agreed on.
type talk struct {
	c       Conn
	asker   bool
	said    []byte // both sides' messages up to the shares
	mine    sealer
	theirs  sealer
	confirm [2][]byte // keys of the asker's and the giver's MAC
}

// sealer seals or opens one direction. No nonce is used twice: it counts.
type sealer struct {
	aead cipher.AEAD
	n    uint64
}

func (s *sealer) nonce() []byte {
	s.n++
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), s.n)
}

// channel is what the key is bound to beside the code: the protocol and the two peers, the asker first.
func channel(asker, giver dag.PublicKey) []byte {
	return slices.Concat([]byte(labelPair), asker[:], giver[:])
}

// session is one run's: 32 bytes of both nonces.
func session(asker, giver *wire.PairHello) []byte {
	h := sha256.Sum256(slices.Concat([]byte(labelPair+" session"), asker.Nonce[:], giver.Nonce[:]))
	return h[:]
}

// note adds a message to what was said.
func (t *talk) note(m wire.Message) { t.said = wire.Append(t.said, m) }

// agreed takes the key over.
func (t *talk) agreed(key [64]byte) error {
	prk, err := hkdf.Extract(sha256.New, key[:], []byte(labelPair))
	if err != nil {
		return fmt.Errorf("pair: %w", err)
	}
	said := sha256.Sum256(t.said)
	var keys [4][]byte
	for i, label := range []string{" asker confirms", " giver confirms", " asker seals", " giver seals"} {
		if keys[i], err = hkdf.Expand(sha256.New, prk, labelPair+label+string(said[:]), 32); err != nil {
			return fmt.Errorf("pair: %w", err)
		}
	}
	t.confirm = [2][]byte{keys[0], keys[1]}
	for i, s := range []*sealer{&t.mine, &t.theirs} {
		k := keys[2]
		if t.asker != (i == 0) {
			k = keys[3]
		}
		block, err := aes.NewCipher(k)
		if err == nil {
			s.aead, err = cipher.NewGCM(block)
		}
		if err != nil {
			return fmt.Errorf("pair: %w", err)
		}
	}
	return nil
}

// mac is what the asker, or the giver, proves the key by.
func (t *talk) mac(giver int) (out [32]byte) {
	h := hmac.New(sha256.New, t.confirm[giver])
	h.Write(t.said)
	copy(out[:], h.Sum(nil))
	return out
}

// tell says something sealed, in pieces.
func (t *talk) tell(b []byte) error {
	for {
		n := min(len(b), pieceBytes)
		m := &wire.PairBox{More: n < len(b)}
		m.Sealed = t.mine.aead.Seal(nil, t.mine.nonce(), b[:n], []byte{more(m)})
		if err := t.c.Write(m); err != nil {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
}

func more(m *wire.PairBox) byte {
	if m.More {
		return 1
	}
	return 0
}

// hear takes what the other side tells.
func (t *talk) hear() (out []byte, err error) {
	for {
		m, err := t.c.Read()
		if err != nil {
			return nil, err
		}
		box, ok := m.(*wire.PairBox)
		if !ok {
			return nil, refused(m)
		}
		out, err = t.theirs.aead.Open(out, t.theirs.nonce(), box.Sealed, []byte{more(box)})
		if err != nil || len(out) > maxTold {
			return nil, fmt.Errorf("%w: a box that does not open, or too much", ErrPeer)
		}
		if !box.More {
			return out, nil
		}
	}
}

// refused is what a message comes to that stands in another's place.
func refused(m wire.Message) error {
	r, ok := m.(*wire.PairRefused)
	if !ok {
		return fmt.Errorf("%w: %T out of place", ErrPeer, m)
	}
	switch r.Reason {
	case wire.PairNoCode:
		return ErrNoCode
	case wire.PairSpent:
		return ErrSpent
	case wire.PairWrong:
		return &WrongError{Left: int(r.Left)}
	case wire.PairFailed:
		return ErrRefused
	}
	return errors.New("pair: the other device has another version of anyfs; update both")
}

// WrongError is an ErrWrong that says how many attempts are left.
type WrongError struct{ Left int }

func (e *WrongError) Error() string {
	return fmt.Sprintf("%v; attempts that are left with it: %d", ErrWrong, e.Left)
}
func (e *WrongError) Unwrap() error { return ErrWrong }

// nonce is fresh randomness of this connection.
func nonce() (n [32]byte) {
	_, _ = rand.Read(n[:])
	return n
}
