package pair

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// Bounds of a code.
const (
	// Attempts is how often a code may be tried in all, whoever tries. Each attempt counts from the giver's share on, however it ends.
	Attempts = 3
	// Lifetime is how long a code can be used.
	Lifetime = 10 * time.Minute
)

// ErrUnsure says that the new device was lost after it had been sent what it asked for: it may have stored it.
var ErrUnsure = errors.New("pair: the new device was lost before it said that it has stored everything")

// Offer is a code that is shown: it lets one device in, within its time and its attempts. It is safe for concurrent use. The zero Offer is
// none; NewOffer makes one.
type Offer struct {
	code    Code
	expires time.Time
	now     func() time.Time

	mu      sync.Mutex
	left    int
	taken   bool // somebody has proved the code
	closed  bool
	err     error // why it ended; nil: it let a device in
	changed chan struct{}
}

// NewOffer begins to offer a code, from now on for Lifetime.
func NewOffer(code Code, now func() time.Time) *Offer {
	return &Offer{code: code, now: now, expires: now().Add(Lifetime), left: Attempts, changed: make(chan struct{})}
}

// Tag is the part of the code that is said in the clear.
func (o *Offer) Tag() uint64 { return o.code.Tag() }

// Expires is when the code can't be used any more.
func (o *Offer) Expires() time.Time { return o.expires }

// Close ends the offer: nobody gets anything by it any more but who proved the code before.
func (o *Offer) Close() { o.end(ErrSpent) }

func (o *Offer) end(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed, o.err = true, err
		o.noteLocked()
	}
}

func (o *Offer) noteLocked() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// Wait returns when a device was let in (nil), the attempts are used up or the time is over (ErrSpent), one that had proved the code was
// lost or refused, or ctx ended. failed is called after each attempt with a wrong code, with the number of those that are left.
func (o *Offer) Wait(ctx context.Context, failed func(left int) error) error {
	ctx, cancel := context.WithTimeout(ctx, max(0, o.expires.Sub(o.now())))
	defer cancel()
	told := Attempts
	for {
		o.mu.Lock()
		left, closed, taken, err, changed := o.left, o.closed, o.taken, o.err, o.changed
		o.mu.Unlock()
		if left < told && !taken && !closed {
			told = left
			if err := failed(left); err != nil {
				return err
			}
		}
		if closed {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				o.Close()
				return ErrSpent
			}
			return ctx.Err()
		}
	}
}

// reserve takes one attempt.
func (o *Offer) reserve() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.taken || o.left == 0 || !o.now().Before(o.expires) {
		return false
	}
	o.left--
	return true
}

// prove marks the code as used by who proved it. One does.
func (o *Offer) prove() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.taken || !o.now().Before(o.expires) {
		return false
	}
	o.taken = true
	return true
}

// missed is told of an attempt that failed.
func (o *Offer) missed() (left int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left == 0 && !o.taken && !o.closed {
		o.closed, o.err = true, ErrSpent
	}
	o.noteLocked()
	return o.left
}

// Answer is the giver's side of one attempt, with a peer who has proved by the connection that it has the key asker; self is this device's.
// give is called when the peer has proved the code, with what it asks for, and returns what it is to get; it is called at most once for an
// Offer.
func (o *Offer) Answer(c Conn, self, asker dag.PublicKey, give func(request []byte) ([]byte, error)) error {
	m, err := c.Read()
	if err != nil {
		return err
	}
	theirs, ok := m.(*wire.PairHello)
	if !ok {
		return fmt.Errorf("%w: %T out of place", ErrPeer, m)
	}
	switch {
	case theirs.Version != version:
		return errors.Join(errors.New("pair: a device with another version"), c.Write(&wire.PairRefused{Reason: wire.PairVersion}))
	case theirs.Tag != o.code.Tag():
		return errors.Join(ErrNoCode, c.Write(&wire.PairRefused{Reason: wire.PairNoCode}))
	}
	ours := &wire.PairHello{Version: version, Tag: theirs.Tag, Nonce: nonce()}
	if err := c.Write(ours); err != nil {
		return err
	}
	if m, err = c.Read(); err != nil {
		return err
	}
	share, ok := m.(*wire.PairShare)
	if !ok {
		return fmt.Errorf("%w: %T out of place", ErrPeer, m)
	}
	// From here on the peer could have tried a code.
	if !o.reserve() {
		return errors.Join(ErrSpent, c.Write(&wire.PairRefused{Reason: wire.PairSpent}))
	}
	t, err := o.attempt(c, self, asker, theirs, ours, share)
	if err != nil {
		left := o.missed()
		if errors.Is(err, ErrWrong) {
			err = errors.Join(err, c.Write(&wire.PairRefused{Reason: wire.PairWrong, Left: uint64(left)}))
		}
		return err
	}
	if !o.prove() {
		return errors.Join(ErrSpent, c.Write(&wire.PairRefused{Reason: wire.PairSpent}))
	}
	err = o.admit(t, give)
	o.end(err)
	return err
}

// attempt agrees on a key with the peer, who then proves that it has it.
func (o *Offer) attempt(c Conn, self, asker dag.PublicKey, theirs, ours *wire.PairHello, share *wire.PairShare) (*talk, error) {
	r, err := begin(o.code.password(), channel(asker, self), session(theirs, ours), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := r.key(share.Share, false, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPeer, err)
	}
	t := &talk{c: c}
	mine := &wire.PairShare{Share: r.share}
	for _, m := range []wire.Message{theirs, ours, share, mine} {
		t.note(m)
	}
	if err := t.agreed(key); err != nil {
		return nil, err
	}
	if err := c.Write(mine); err != nil {
		return nil, err
	}
	m, err := c.Read()
	if err != nil {
		return nil, err
	}
	confirm, ok := m.(*wire.PairConfirm)
	if !ok {
		return nil, fmt.Errorf("%w: %T out of place", ErrPeer, m)
	}
	// The peer proves it first: so who has the wrong code learns nothing to try others by.
	if want := t.mac(0); !hmac.Equal(want[:], confirm.MAC[:]) {
		return nil, ErrWrong
	}
	return t, nil
}

// admit gives the peer, who has proved the code, what it asks for.
func (o *Offer) admit(t *talk, give func([]byte) ([]byte, error)) error {
	if err := t.c.Write(&wire.PairConfirm{MAC: t.mac(1)}); err != nil {
		return err
	}
	request, err := t.hear()
	if err != nil {
		return err
	}
	grant, err := give(request)
	if err != nil {
		return errors.Join(err, t.c.Write(&wire.PairRefused{Reason: wire.PairFailed}))
	}
	if err := t.tell(grant); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsure, err)
	}
	last, err := t.hear()
	if err == nil && string(last) != stored {
		err = fmt.Errorf("%w: its last word is another", ErrPeer)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnsure, err)
	}
	return nil
}
