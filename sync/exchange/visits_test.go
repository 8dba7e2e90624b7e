package exchange

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// empty is a node that holds nothing and takes nothing.
type empty struct{}

func (empty) Space(context.Context, dag.ID, dag.PublicKey) *Replica          { return nil }
func (empty) Take(context.Context, dag.ID, dag.PublicKey, [][]byte) *Replica { return nil }

// engineOf is an engine that runs until the test ends.
func engineOf(t *testing.T, opt Options, seed byte) *Engine {
	opt.Key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	opt.Listen = []string{"/ip4/127.0.0.1/tcp/0"}
	if opt.Serve == nil {
		account := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed + 1}, ed25519.SeedSize))
		opt.Certificate = &list.Certificate{Account: dag.PublicKey(account.Public().(ed25519.PublicKey)),
			Device: dag.PublicKey(opt.Key.Public().(ed25519.PublicKey)), HPKE: bytes.Repeat([]byte{1}, list.HPKEBytes), Serial: 1}
		opt.Certificate.Sign(account)
	}
	e, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	within(t, "it listens", func() bool { return len(e.Status().Listen) > 0 })
	return e
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// A device that has said who it is and has no space on the node yet may stay for minutes: it is no handshake under way, of which there are 64 at most
// and 16 of an address.
func TestVisitIsNoHandshake(t *testing.T) {
	n, d := engineOf(t, Options{Serve: empty{}}, 1), engineOf(t, Options{}, 11)
	if err := d.SetNodes([]Node{{Addrs: n.Status().Listen, Wants: func(dag.ID) bool { return true }}}); err != nil {
		t.Fatal(err)
	}
	d.seek(dag.ID{9}) // a device reaches for the nodes of which it wants something
	within(t, "the visitor is taken out of the handshakes", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, r := range n.remotes {
			return r.proved && n.guard.hellos == 0 && len(n.guard.addrs) == 0
		}
		return false
	})
}

// The stream of a handshake lasts as long as the peer is connected, and is a stranger's only until the peer has proved a space: there are 1,024 of
// strangers at most.
func TestHandshakeOfMemberIsNoStrangers(t *testing.T) {
	e := engineOf(t, Options{Serve: empty{}}, 1)
	x := e.enterStream("peer")
	if x == nil || e.guard.strangers != 1 {
		t.Fatalf("%+v, %d strangers", x, e.guard.strangers)
	}
	r := &remote{id: "peer", entry: x, proved: true, common: map[dag.ID]bool{{1}: true}}
	e.mu.Lock()
	e.remotes[r.id] = r
	e.mu.Unlock()
	e.meet(r)
	if e.guard.strangers != 0 {
		t.Errorf("%d strangers", e.guard.strangers)
	}
	e.mu.Lock()
	delete(e.remotes, r.id)
	e.mu.Unlock()
	if e.leaveStream(x); e.guard.strangers != 0 || len(e.guard.streams) != 0 {
		t.Errorf("%d strangers, streams of %d peers", e.guard.strangers, len(e.guard.streams))
	}
}

// hostileNode is a node that says what the test says, once a device has proved itself to it, and counts the visits.
func hostileNode(t *testing.T, d *Engine, says ...wire.Message) (visits *atomic.Int32) {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	visits = new(atomic.Int32)
	h.SetStreamHandler(protocolNode, func(s network.Stream) {
		in := wire.NewReader(s)
		if _, err := in.Read(); err != nil {
			return
		}
		out := wire.Append(nil, &wire.Hello{Version: wire.Version})
		for _, m := range says {
			out = wire.Append(out, m)
		}
		if _, err := s.Write(out); err != nil {
			return
		}
		visits.Add(1)
		for err == nil {
			_, err = in.Read()
		}
	})
	if err := d.SetNodes([]Node{{Addrs: []string{fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID())}, Wants: func(dag.ID) bool { return true }}}); err != nil {
		t.Fatal(err)
	}
	d.seek(dag.ID{9})
	return visits
}

// What a node says unasked costs the device nothing: the node is left alone.
func TestNodeThatSaysWhatNobodyAsked(t *testing.T) {
	var configs []wire.Message
	for range 200 {
		configs = append(configs, &wire.Network{Config: []byte("x")})
	}
	for name, says := range map[string][]wire.Message{
		"absent":         {&wire.Absent{Graph: wire.ACL, IDs: wire.List[dag.ID]{{1}}}},
		"served":         {&wire.Served{IDs: wire.List[dag.ID]{{1}}}},
		"configurations": configs,
	} {
		t.Run(name, func(t *testing.T) {
			d := engineOf(t, Options{NewConfig: func(dag.PublicKey, []byte) error { return nil }}, 21)
			visits := hostileNode(t, d, says...)
			within(t, "it is visited, and left alone then", func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return visits.Load() > 0 && len(d.banned) == 1 && len(d.remotes) == 0
			})
		})
	}
}

// A device that begins blocks of many spaces and ends none takes the memory of a few.
func TestBlocksThatComeAreBounded(t *testing.T) {
	r := &remote{}
	var begun []*upload
	begin := func() error {
		keep := func(dag.PublicKey, block.ID, []byte) error { return nil }
		u := &upload{l: &link{r: r, sp: &space{r: &Replica{Upload: keep}}}}
		begun = append(begun, u)
		return u.take(t.Context(), &wire.PutBlock{Request: 1, Left: 1, Data: []byte("x")}, func(error) {})
	}
	for range maxGiving {
		if err := begin(); err != nil {
			t.Fatal(err)
		}
	}
	if err := begin(); !errors.Is(err, errStreams) {
		t.Errorf("one more gives %v", err)
	}
	for _, u := range begun {
		u.end()
	}
	if r.giving.Load() != 0 {
		t.Errorf("%d are begun still", r.giving.Load())
	}
	if err := begin(); err != nil {
		t.Error(err)
	}
}
