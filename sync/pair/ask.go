package pair

import (
	"crypto/hmac"
	"crypto/rand"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// Ask is the new device's side: it proves the code to the giver, says what it asks for, and gives what it got to store. What store
// returns without an error is told the giver as stored. self and giver are the keys that the connection has proved.
//
// turn is called once the giver has said that it shows a code with that tag, before anything is said that a giver who guesses could try
// codes by; an error of it ends the attempt.
func Ask(c Conn, code Code, self, giver dag.PublicKey, request []byte, turn func() error, store func(grant []byte) error) error {
	t := &talk{c: c, asker: true}
	ours := &wire.PairHello{Version: version, Tag: code.Tag(), Nonce: nonce()}
	if err := c.Write(ours); err != nil {
		return err
	}
	m, err := c.Read()
	if err != nil {
		return err
	}
	theirs, ok := m.(*wire.PairHello)
	if !ok {
		return refused(m)
	}
	if theirs.Version != version || theirs.Tag != ours.Tag {
		return fmt.Errorf("%w: another tag or version", ErrPeer)
	}
	if err := turn(); err != nil {
		return err
	}
	t.note(ours)
	t.note(theirs)
	r, err := begin(code.password(), channel(self, giver), session(ours, theirs), rand.Reader)
	if err != nil {
		return err
	}
	mine := &wire.PairShare{Share: r.share}
	if err := c.Write(mine); err != nil {
		return err
	}
	if m, err = c.Read(); err != nil {
		return err
	}
	share, ok := m.(*wire.PairShare)
	if !ok {
		return refused(m)
	}
	t.note(mine)
	t.note(share)
	key, err := r.key(share.Share, true, nil, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPeer, err)
	}
	if err := t.agreed(key); err != nil {
		return err
	}
	if err := c.Write(&wire.PairConfirm{MAC: t.mac(0)}); err != nil {
		return err
	}
	if m, err = c.Read(); err != nil {
		return err
	}
	confirm, ok := m.(*wire.PairConfirm)
	if !ok {
		return refused(m)
	}
	if want := t.mac(1); !hmac.Equal(want[:], confirm.MAC[:]) {
		return ErrWrong
	}
	if err := t.tell(request); err != nil {
		return err
	}
	grant, err := t.hear()
	if err != nil {
		return err
	}
	if err := store(grant); err != nil {
		return err
	}
	return t.tell([]byte(stored))
}

// stored is what the new device says last.
const stored = "stored"
