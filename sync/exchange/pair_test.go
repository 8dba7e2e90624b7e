package exchange_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/pair"
)

// offering has a device show a code; what Offer returns comes over the channel.
func offering(t *testing.T, d *device, give func(dag.PublicKey, []byte) ([]byte, error), failed func(int) error) (pair.Code, chan error, context.CancelFunc) {
	t.Helper()
	c, err := pair.NewCode(rand.Reader)
	must(t, err)
	c.Addresses = []string{d.addr("/tcp/")}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.e.Offer(ctx, pair.NewOffer(c, time.Now), give, failed) }()
	t.Cleanup(cancel)
	return c, ended, cancel
}

// another is a code with the same tag.
func another(t *testing.T, c pair.Code, n int) pair.Code {
	t.Helper()
	s := []byte(c.String())
	for i := range n {
		s[len(s)-1-i] = '0' + (s[len(s)-1-i]-'0'+1)%10
	}
	out, err := pair.ParseCode(string(s))
	must(t, err)
	out.Addresses = c.Addresses
	return out
}

func ask(t *testing.T, n byte, c pair.Code) (got string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	a := &exchange.Asker{Key: key('n', n), Code: c, Request: []byte{n}, Store: func(g []byte) error { got = string(g); return nil }}
	err = a.Run(ctx)
	return got, err
}

// TestPairing: a new device is let in over a real connection, whichever of the two peer IDs is the lower one.
func TestPairing(t *testing.T) {
	for n := range byte(4) {
		host := newDevice(t, 1, n)
		host.e.Add(newReplica(t, host, "space").Replica)
		want := fmt.Sprintf("for %d", n)
		c, ended, _ := offering(t, host, func(device dag.PublicKey, q []byte) ([]byte, error) {
			if device != public(key('n', n)) || string(q) != string([]byte{n}) {
				t.Errorf("%v asks for %q", device, q)
			}
			return []byte(want), nil
		}, nil)
		var got string
		eventually(t, func() bool {
			g, err := ask(t, n, c)
			if err != nil && !errors.Is(err, exchange.ErrNobody) { // the code may not be shown yet
				t.Fatal(err)
			}
			got = g
			return err == nil
		})
		if err := <-ended; err != nil || got != want {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := ask(t, n, c); !errors.Is(err, exchange.ErrNobody) {
			t.Errorf("the code when it is used: %v", err)
		}
		host.stop()
	}
}

// TestPairingGuesses: whoever guesses, from however many devices, has a few attempts, and then nobody has any.
func TestPairingGuesses(t *testing.T) {
	host := newDevice(t, 1, 1)
	told := make(chan int, pair.Attempts)
	c, ended, _ := offering(t, host, func(dag.PublicKey, []byte) ([]byte, error) {
		t.Error("something is given")
		return nil, nil
	}, func(left int) error { told <- left; return nil })
	tried := 0
	eventually(t, func() bool {
		_, err := ask(t, byte(tried), another(t, c, tried+1))
		var wrong *pair.WrongError
		switch {
		case errors.As(err, &wrong):
			if tried++; wrong.Left != pair.Attempts-tried {
				t.Fatalf("%d left after %d attempts", wrong.Left, tried)
			}
		case !errors.Is(err, exchange.ErrNobody):
			t.Fatal(err)
		}
		return tried == pair.Attempts
	})
	if err := <-ended; !errors.Is(err, pair.ErrSpent) {
		t.Error(err)
	}
	if left := <-told; left >= pair.Attempts {
		t.Errorf("%d left", left)
	}
	if _, err := ask(t, 9, c); !errors.Is(err, exchange.ErrNobody) {
		t.Errorf("the right code: %v", err)
	}
}

// TestPairingCancelled: a code that is taken back is of no use, one that is shown keeps out a second one, and a device that goes away in the middle
// leaves the new one with an error.
func TestPairingCancelled(t *testing.T) {
	host := newDevice(t, 1, 1)
	asked := make(chan struct{})
	stop := make(chan struct{})
	c, ended, cancel := offering(t, host, func(dag.PublicKey, []byte) ([]byte, error) {
		close(asked)
		<-stop
		return nil, errors.New("too late")
	}, nil)
	result := make(chan error, 1)
	go func() {
		for {
			if _, err := ask(t, 2, c); !errors.Is(err, exchange.ErrNobody) { // the code may not be shown yet
				result <- err
				return
			}
		}
	}()
	<-asked
	if err := host.e.Offer(t.Context(), pair.NewOffer(another(t, c, 1), time.Now), nil, nil); !errors.Is(err, exchange.ErrPairing) {
		t.Errorf("a second code: %v", err)
	}
	go host.stop()
	time.Sleep(10 * time.Millisecond)
	close(stop)
	if err := <-result; err == nil || errors.Is(err, exchange.ErrNobody) {
		t.Errorf("the other device was lost: %v", err)
	}
	cancel()
	<-ended

	host = newDevice(t, 1, 3)
	c, ended, cancel = offering(t, host, nil, nil)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := ask(t, 4, c); !errors.Is(err, exchange.ErrNobody) {
		t.Error(err)
	}
}

// TestPairingNobody: an address where nobody is, and a time that is over.
func TestPairingNobody(t *testing.T) {
	host := newDevice(t, 1, 1)
	addr := host.addr("/tcp/")
	host.stop()
	c, err := pair.NewCode(rand.Reader)
	must(t, err)
	c.Addresses = []string{addr}
	if _, err := ask(t, 2, c); !errors.Is(err, exchange.ErrNobody) {
		t.Error(err)
	}
	c.Addresses = []string{"/ip4/127.0.0.1/tcp/1"}
	if _, err := ask(t, 2, c); !errors.Is(err, exchange.ErrAddr) {
		t.Error(err)
	}
}
