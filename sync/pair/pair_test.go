package pair

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// end is one end of a pipe that carries encoded messages.
type end struct {
	in, out chan []byte
	stop    func()
	stopped chan struct{}
}

func (e *end) Read() (wire.Message, error) {
	select {
	case b := <-e.in:
		return wire.Decode(b)
	case <-e.stopped:
		select {
		case b := <-e.in:
			return wire.Decode(b)
		default:
			return nil, io.EOF
		}
	}
}

func (e *end) Write(m wire.Message) error {
	select {
	case <-e.stopped:
		return io.ErrClosedPipe
	case e.out <- wire.Append(nil, m)[4:]:
		return nil
	}
}

func pipe() (a, b *end) {
	x, y, stopped := make(chan []byte, 64), make(chan []byte, 64), make(chan struct{})
	stop := sync.OnceFunc(func() { close(stopped) })
	return &end{x, y, stop, stopped}, &end{y, x, stop, stopped}
}

var (
	giverKey = dag.PublicKey{1}
	askerKey = dag.PublicKey{2}
	midKey   = dag.PublicKey{3}
)

func always() error { return nil }

func code(t testing.TB, s string) Code {
	t.Helper()
	c, err := ParseCode(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func give(b []byte) ([]byte, error) { return append([]byte("for "), b...), nil }

// attempt has a device try a code, and returns what both sides end with, and what was stored.
func attempt(t testing.TB, o *Offer, c Code) (got []byte, asked, answered error) {
	t.Helper()
	a, b := pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		answered = o.Answer(b, giverKey, askerKey, give)
		b.stop()
	}()
	asked = Ask(a, c, askerKey, giverKey, []byte("me"), always, func(g []byte) error { got = g; return nil })
	if asked != nil {
		a.stop()
	}
	<-done
	return got, asked, answered
}

func TestPair(t *testing.T) {
	c, err := NewCode(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := NewOffer(c, time.Now)
	got, asked, answered := attempt(t, o, c)
	if asked != nil || answered != nil || string(got) != "for me" {
		t.Fatalf("%v, %v, %q", asked, answered, got)
	}
	if err := o.Wait(t.Context(), nil); err != nil {
		t.Error(err)
	}
	// A code lets one device in.
	if got, asked, answered := attempt(t, o, c); !errors.Is(asked, ErrSpent) || !errors.Is(answered, ErrSpent) || got != nil {
		t.Errorf("a second time: %v, %v, %q", asked, answered, got)
	}
}

// TestMuch: what is longer than a box goes in several.
func TestMuch(t *testing.T) {
	c := code(t, "123-4567-8901")
	for _, n := range []int{0, 1, pieceBytes - 1, pieceBytes, pieceBytes + 1, 40*pieceBytes + 7} {
		o := NewOffer(c, time.Now)
		a, b := pipe()
		want := bytes.Repeat([]byte{7}, n)
		done := make(chan error, 1)
		go func() {
			done <- o.Answer(b, giverKey, askerKey, func([]byte) ([]byte, error) { return want, nil })
		}()
		var got []byte
		if err := Ask(a, c, askerKey, giverKey, nil, always, func(g []byte) error { got = g; return nil }); err != nil {
			t.Fatal(n, err)
		}
		if err := <-done; err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %v, %d came", n, err, len(got))
		}
	}
}

// TestWrongCode: a few attempts in all; then the code is of no use, also to who has it.
func TestWrongCode(t *testing.T) {
	c := code(t, "123-4567-8901")
	o := NewOffer(c, time.Now)
	if _, asked, answered := attempt(t, o, code(t, "124-4567-8901")); !errors.Is(asked, ErrNoCode) || !errors.Is(answered, ErrNoCode) {
		t.Errorf("another tag: %v, %v", asked, answered)
	}
	var told []int
	waited := make(chan error, 1)
	ready := make(chan struct{}, Attempts)
	go func() {
		waited <- o.Wait(context.Background(), func(left int) error { told = append(told, left); ready <- struct{}{}; return nil })
	}()
	for i := range Attempts {
		got, asked, answered := attempt(t, o, code(t, fmt.Sprintf("123-4567-890%d", i+2)))
		var wrong *WrongError
		if !errors.As(asked, &wrong) || wrong.Left != Attempts-1-i || !errors.Is(answered, ErrWrong) || got != nil {
			t.Errorf("attempt %d: %v, %v, %q", i, asked, answered, got)
		}
		if i < Attempts-1 {
			<-ready
		}
	}
	if err := <-waited; !errors.Is(err, ErrSpent) {
		t.Errorf("who waits is told %v", err)
	}
	if len(told) != Attempts-1 || told[0] != Attempts-1 {
		t.Errorf("who waits was told of %v", told)
	}
	if got, asked, _ := attempt(t, o, c); !errors.Is(asked, ErrSpent) || got != nil {
		t.Errorf("the right code after all attempts: %v, %q", asked, got)
	}
}

// TestBrokenOff: an attempt that is broken off once a code could have been tried counts.
func TestBrokenOff(t *testing.T) {
	c := code(t, "123-4567-8901")
	o := NewOffer(c, time.Now)
	for range Attempts {
		a, b := pipe()
		done := make(chan error, 1)
		go func() { done <- o.Answer(b, giverKey, askerKey, give) }()
		if err := a.Write(&wire.PairHello{Version: 1, Tag: c.Tag()}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(); err != nil {
			t.Fatal(err)
		}
		r, err := begin([]byte("guess"), nil, nil, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Write(&wire.PairShare{Share: r.share}); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(); err != nil {
			t.Fatal(err)
		}
		a.stop()
		if err := <-done; err == nil {
			t.Error("no error")
		}
	}
	if got, asked, _ := attempt(t, o, c); !errors.Is(asked, ErrSpent) || got != nil {
		t.Errorf("%v, %q", asked, got)
	}
}

// TestConcurrentGuesses: who tries codes on many connections at once has no more attempts.
func TestConcurrentGuesses(t *testing.T) {
	c := code(t, "123-4567-8901")
	o := NewOffer(c, time.Now)
	var mu sync.Mutex
	tried := 0
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			_, asked, _ := attempt(t, o, code(t, fmt.Sprintf("123-0000-00%02d", i)))
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(asked, ErrWrong) {
				tried++
			} else if !errors.Is(asked, ErrSpent) {
				t.Errorf("%v", asked)
			}
		})
	}
	wg.Wait()
	if tried != Attempts {
		t.Errorf("%d codes were tried", tried)
	}
}

func TestExpired(t *testing.T) {
	c := code(t, "123-4567-8901")
	now := time.Now()
	o := NewOffer(c, func() time.Time { return now })
	now = now.Add(Lifetime)
	if got, asked, _ := attempt(t, o, c); !errors.Is(asked, ErrSpent) || got != nil {
		t.Errorf("%v, %q", asked, got)
	}
	if err := o.Wait(t.Context(), nil); !errors.Is(err, ErrSpent) {
		t.Errorf("who waits is told %v", err)
	}
}

func TestCancel(t *testing.T) {
	c := code(t, "123-4567-8901")
	o := NewOffer(c, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.Wait(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	o.Close()
	if got, asked, _ := attempt(t, o, c); !errors.Is(asked, ErrSpent) || got != nil {
		t.Errorf("%v, %q", asked, got)
	}
}

// TestLost: what each side knows when the other is lost at any message.
func TestLost(t *testing.T) {
	c := code(t, "123-4567-8901")
	for n := 0; ; n++ {
		o := NewOffer(c, time.Now)
		a, b := pipe()
		x, y := pipe()
		// The middle passes n messages on, and then cuts the line.
		var wg sync.WaitGroup
		var mu sync.Mutex
		passed := 0
		pass := func(from, to *end) {
			for {
				m, err := from.Read()
				if err != nil {
					to.stop()
					return
				}
				mu.Lock()
				passed++
				cut := passed > n
				mu.Unlock()
				if cut || to.Write(m) != nil {
					from.stop()
					to.stop()
					return
				}
			}
		}
		wg.Go(func() { pass(b, x) })
		wg.Go(func() { pass(x, b) })
		var answered error
		wg.Go(func() { answered = o.Answer(y, giverKey, askerKey, give); y.stop() })
		stored := false
		asked := Ask(a, c, askerKey, giverKey, []byte("me"), always, func([]byte) error { stored = true; return nil })
		a.stop()
		wg.Wait()
		o.mu.Lock()
		closed, taken, err := o.closed, o.taken, o.err
		o.mu.Unlock()
		if stored && err != nil && !errors.Is(err, ErrUnsure) {
			t.Errorf("%d messages: it was stored, and the giver says %v", n, err)
		}
		if taken && !closed {
			t.Errorf("%d messages: the code was proved, and is still shown", n)
		}
		if answered == nil && asked == nil {
			if n < 9 || !stored {
				t.Errorf("it took %d messages", n)
			}
			return
		}
		if n > 20 {
			t.Fatal("it never comes to an end")
		}
	}
}

// TestMiddle: who passes everything on between two connections of his own is not passed over: the key is bound to the peers.
func TestMiddle(t *testing.T) {
	c := code(t, "123-4567-8901")
	o := NewOffer(c, time.Now)
	a, b := pipe()
	x, y := pipe()
	var wg sync.WaitGroup
	var answered error
	pass := func(from, to *end) {
		for {
			m, err := from.Read()
			if err != nil || to.Write(m) != nil {
				to.stop()
				return
			}
		}
	}
	wg.Go(func() { pass(b, x) })
	wg.Go(func() { pass(x, b) })
	wg.Go(func() { answered = o.Answer(y, giverKey, midKey, give); y.stop() })
	asked := Ask(a, c, askerKey, midKey, []byte("me"), always, func([]byte) error { t.Error("something was given"); return nil })
	a.stop()
	wg.Wait()
	if !errors.Is(asked, ErrWrong) || !errors.Is(answered, ErrWrong) {
		t.Errorf("%v, %v", asked, answered)
	}
}

// TestFalseGiver: who shows no code and answers all the same learns nothing of use and gives nothing.
func TestFalseGiver(t *testing.T) {
	a, b := pipe()
	c := code(t, "123-4567-8901")
	done := make(chan error, 1)
	go func() {
		o := NewOffer(code(t, "123-0000-0000"), time.Now)
		done <- o.Answer(b, giverKey, askerKey, give)
	}()
	err := Ask(a, c, askerKey, giverKey, []byte("me"), always, func([]byte) error { t.Error("something was taken"); return nil })
	if !errors.Is(err, ErrWrong) || !errors.Is(<-done, ErrWrong) {
		t.Error(err)
	}
}

// TestReplay: what an asker said in one run is of no use in another.
func TestReplay(t *testing.T) {
	c := code(t, "123-4567-8901")
	o := NewOffer(c, time.Now)
	a, b := pipe()
	rec := &recorder{end: a}
	done := make(chan error, 1)
	go func() { done <- o.Answer(b, giverKey, askerKey, give) }()
	if err := Ask(rec, c, askerKey, giverKey, []byte("me"), always, func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	o = NewOffer(c, time.Now) // were the same code ever shown again
	a, b = pipe()
	go func() { done <- o.Answer(b, giverKey, askerKey, give); b.stop() }()
	for _, m := range rec.said {
		_ = a.Write(m)
	}
	if err := <-done; !errors.Is(err, ErrWrong) {
		t.Errorf("a replay comes to %v", err)
	}
}

type recorder struct {
	*end
	said []wire.Message
}

func (r *recorder) Write(m wire.Message) error {
	r.said = append(r.said, m)
	return r.end.Write(m)
}

// TestDenied: a giver that can't give says so, and the code is spent.
func TestDenied(t *testing.T) {
	c := code(t, "123-4567-8901")
	o := NewOffer(c, time.Now)
	a, b := pipe()
	why := errors.New("no")
	done := make(chan error, 1)
	go func() {
		done <- o.Answer(b, giverKey, askerKey, func([]byte) ([]byte, error) { return nil, why })
	}()
	err := Ask(a, c, askerKey, giverKey, nil, always, func([]byte) error { t.Error("taken"); return nil })
	if !errors.Is(err, ErrRefused) || !errors.Is(<-done, why) || !errors.Is(o.Wait(t.Context(), nil), why) {
		t.Error(err)
	}
}

func TestCodes(t *testing.T) {
	c, err := NewCode(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{c.String(), " " + strings.ReplaceAll(c.String(), "-", "") + "\n", strings.ReplaceAll(c.String(), "-", " ")} {
		if back, err := ParseCode(s); err != nil || back.String() != c.String() {
			t.Errorf("%q is read as %v, %v", s, back, err)
		}
	}
	c.Addresses = []string{"/ip4/192.0.2.7/tcp/7327/p2p/x", "/ip6/::1/tcp/7327/p2p/x"}
	back, err := ParseCode(c.Ticket())
	if err != nil || back.String() != c.String() || len(back.Addresses) != 2 || back.Addresses[0] != c.Addresses[0] {
		t.Errorf("%q is read as %v, %v", c.Ticket(), back, err)
	}
	for _, s := range []string{"", "123", "123-4567-890", "123-4567-89012", "abc-4567-8901", "١٢٣-4567-8901", ticketScheme, strings.Repeat("1", maxTicket+1)} {
		if _, err := ParseCode(s); !errors.Is(err, ErrCode) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

// script is a peer that says what it likes.
type script struct{ in *wire.Reader }

func (s *script) Read() (wire.Message, error) { return s.in.Read() }
func (s *script) Write(wire.Message) error    { return nil }

// FuzzAnswer: whatever a peer says that does not have the code, it is given nothing, and it has one attempt.
func FuzzAnswer(f *testing.F) {
	hello := wire.Append(nil, &wire.PairHello{Version: 1, Tag: 123})
	r, _ := begin([]byte("guess"), nil, nil, rand.Reader)
	share := wire.Append(hello, &wire.PairShare{Share: r.share})
	f.Add(hello)
	f.Add(share)
	f.Add(wire.Append(share, &wire.PairConfirm{}))
	f.Add(wire.Append(wire.Append(share, &wire.PairConfirm{}), &wire.PairBox{Sealed: make([]byte, 20)}))
	f.Add(wire.Append(share, &wire.PairRefused{Reason: wire.PairWrong}))
	c := code(f, "123-4567-8901")
	f.Fuzz(func(t *testing.T, p []byte) {
		o := NewOffer(c, time.Now)
		err := o.Answer(&script{wire.NewReader(bytes.NewReader(p))}, giverKey, askerKey, func([]byte) ([]byte, error) {
			t.Error("the code is proved")
			return nil, nil
		})
		if err == nil || o.left < Attempts-1 {
			t.Errorf("%v, %d left", err, o.left)
		}
	})
}

// FuzzAsk: whatever a giver says that does not have the code, nothing of it is stored.
func FuzzAsk(f *testing.F) {
	hello := wire.Append(nil, &wire.PairHello{Version: 1, Tag: 123})
	r, _ := begin([]byte("guess"), nil, nil, rand.Reader)
	share := wire.Append(hello, &wire.PairShare{Share: r.share})
	f.Add(hello)
	f.Add(wire.Append(wire.Append(share, &wire.PairConfirm{}), &wire.PairBox{Sealed: make([]byte, 20)}))
	f.Add(wire.Append(hello, &wire.PairRefused{Reason: wire.PairWrong, Left: 1}))
	c := code(f, "123-4567-8901")
	f.Fuzz(func(t *testing.T, p []byte) {
		err := Ask(&script{wire.NewReader(bytes.NewReader(p))}, c, askerKey, giverKey, nil, always, func([]byte) error {
			t.Error("something is stored")
			return nil
		})
		if err == nil {
			t.Error("no error")
		}
	})
}

// FuzzParseCode: what is read as a code is read as the same one again.
func FuzzParseCode(f *testing.F) {
	f.Add("123-4567-8901")
	f.Add("anyfs-pair:123-4567-8901?at=/ip4/192.0.2.7/tcp/7327/p2p/x")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCode(s)
		if err != nil {
			return
		}
		back, err := ParseCode(c.Ticket())
		if err != nil && len(c.Ticket()) <= maxTicket || err == nil && (back.String() != c.String() || len(back.Addresses) != len(c.Addresses)) {
			t.Errorf("%q is read as %v, and that as %v, %v", s, c, back, err)
		}
	})
}
