package exchange_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/wire"
)

func key(seed ...byte) ed25519.PrivateKey {
	h := dag.Sum(seed)
	return ed25519.NewKeyFromSeed(h[:])
}

func public(k ed25519.PrivateKey) dag.PublicKey { return dag.PublicKey(k.Public().(ed25519.PublicKey)) }

// device is one device of the test, with its engine.
type device struct {
	t      testing.TB
	author dag.Author
	cert   *list.Certificate
	e      *exchange.Engine
	stop   func()
	log    *logs
	n      int
	listen []string // nil: any ports of 127.0.0.1
}

// logs counts warnings.
type logs struct{ warnings atomic.Int64 }

type handler struct {
	slog.Handler
	l *logs
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		h.l.warnings.Add(1)
	}
	return h.Handler.Handle(ctx, r)
}
func (h handler) WithAttrs(a []slog.Attr) slog.Handler { return handler{h.Handler.WithAttrs(a), h.l} }
func (h handler) WithGroup(n string) slog.Handler      { return handler{h.Handler.WithGroup(n), h.l} }

func newDevice(t testing.TB, account, n byte, peers ...string) *device {
	a, k := key('a', account), key('d', account, n)
	d := &device{t: t, author: dag.Author{Key: k, Account: public(a), Device: public(k)}, n: int(n), log: new(logs)}
	d.cert = &list.Certificate{Account: public(a), Device: public(k), HPKE: bytes.Repeat([]byte{n}, list.HPKEBytes), Serial: 1}
	d.cert.Sign(a)
	d.start(t, peers...)
	return d
}

func (d *device) start(t testing.TB, peers ...string) {
	if d.listen == nil {
		d.listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	}
	e, err := exchange.New(exchange.Options{
		Key: d.author.Key, Certificate: d.cert, Peers: peers,
		Listen: d.listen,
		Log:    slog.New(handler{slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}), d.log}).With("on", d.n),
	})
	must(t, err)
	d.e = e
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := e.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	d.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(d.stop)
	eventually(t, func() bool { return len(d.listen) == 0 || len(e.Status().Listen) > 0 })
}

func (d *device) addr(transport string) string {
	for _, a := range d.e.Status().Listen {
		if bytes.Contains([]byte(a), []byte(transport)) {
			return a
		}
	}
	d.t.Fatal("no address by ", transport)
	return ""
}

// replica is a space on a device.
type replica struct {
	*exchange.Replica
	d       *device
	durable atomic.Int64
}

func newReplica(t testing.TB, d *device, name string) *replica {
	id := dag.Sum([]byte(name))
	r := &replica{d: d}
	acl, err := dag.Open(id, store.NewMem(), dag.Anyone{}, dag.Options{})
	must(t, err)
	files, err := dag.Open(id, store.NewMem(), dag.Anyone{}, dag.Options{})
	must(t, err)
	blocks, err := block.Open(block.Options{Disk: disk.NewSim(nil), Dir: "blocks", DB: kv.NewMem(), Seal: store.Plain{}})
	must(t, err)
	r.Replica = &exchange.Replica{
		ID: id, ACL: acl, Files: files, Blocks: blocks,
		Durable: func() error { r.durable.Add(1); return nil },
		Tags:    tags(name),
	}
	return r
}

// newReplicaOf is a graph of the files of a space, of somebody who is no device of the test.
func newReplicaOf(t testing.TB, _ dag.Author, name string) *dag.Graph {
	g, err := dag.Open(dag.Sum([]byte(name)), store.NewMem(), dag.Anyone{}, dag.Options{})
	must(t, err)
	return g
}

type exchangePeer = exchange.PeerStatus

func tags(names ...string) func([]byte) [][32]byte {
	return func(transcript []byte) (out [][32]byte) {
		for _, n := range names {
			m := hmac.New(sha256.New, []byte(n))
			m.Write(transcript)
			out = append(out, [32]byte(m.Sum(nil)))
		}
		return out
	}
}

func (r *replica) write(t testing.TB, g *dag.Graph, payload []byte) *dag.Batch {
	b, err := g.Begin(r.d.author, nil, dag.ID{})
	must(t, err)
	_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return payload, nil })
	must(t, err)
	batch, err := b.Commit()
	must(t, err)
	return batch
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass")
		}
	}
}

func equal(rs ...*replica) bool {
	for _, r := range rs[1:] {
		if !slices.Equal(rs[0].ACL.Heads(), r.ACL.Heads()) || !slices.Equal(rs[0].Files.Heads(), r.Files.Heads()) {
			return false
		}
	}
	return true
}

func TestTwoHosts(t *testing.T) {
	for _, transport := range []string{"/tcp/", "/udp/"} {
		t.Run(transport, func(t *testing.T) {
			a := newDevice(t, 1, 1)
			b := newDevice(t, 1, 2, a.addr(transport))
			ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
			for i := range 100 {
				ra.write(t, ra.ACL, fmt.Append(nil, "acl", i))
				ra.write(t, ra.Files, fmt.Append(nil, "a", i))
				rb.write(t, rb.Files, fmt.Append(nil, "b", i))
			}
			a.e.Add(ra.Replica)
			b.e.Add(rb.Replica)
			eventually(t, func() bool { return equal(ra, rb) })
			eventually(t, func() bool {
				s := b.e.Status().Spaces[0]
				return len(s.Peers) == 1 && s.Peers[0].Equal && s.ToSend == 0 && s.ToFetch == 0
			})
			st := a.e.Status()
			if len(st.Peers) != 1 || st.Peers[0].Device != b.author.Device || st.Peers[0].Account != b.author.Account ||
				!slices.Equal(st.Peers[0].Spaces, []dag.ID{ra.ID}) {
				t.Errorf("%+v", st.Peers)
			}
			// Live, in both directions.
			for i := range 20 {
				ra.write(t, ra.Files, fmt.Append(nil, "live", i))
				rb.write(t, rb.Files, fmt.Append(nil, "live", i))
				eventually(t, func() bool { return equal(ra, rb) })
			}
			// Blocks of all sizes.
			for _, n := range []int{0, 1, 256 << 10, 256<<10 + 1, 3 << 20} {
				data := make([]byte, n)
				for i := range data {
					data[i] = byte(i * n >> 3)
				}
				id, err := ra.Blocks.(*block.Store).Put(data)
				must(t, err)
				got, err := rb.Blocks.(*block.Store).Get(t.Context(), id)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes: %d, %v", n, len(got), err)
				}
				missing, err := b.e.HeldBlocks(t.Context(), rb.ID, []block.ID{id, {1}})
				if err != nil || len(missing) != 1 || missing[0] != (block.ID{1}) {
					t.Errorf("%v %v", missing, err)
				}
			}
			began := time.Now()
			if _, err := rb.Blocks.(*block.Store).Get(t.Context(), block.ID{1}); !errors.Is(err, block.ErrAbsent) || time.Since(began) > 5*time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			if n := a.log.warnings.Load() + b.log.warnings.Load(); n > 0 {
				t.Errorf("%d warnings", n)
			}
		})
	}
}

func BenchmarkTwoHosts(b *testing.B) {
	for _, transport := range []string{"/tcp/", "/udp/"} {
		setup := func(b *testing.B) (ra, rb *replica) {
			x := newDevice(b, 1, 1)
			y := newDevice(b, 1, 2, x.addr(transport))
			ra, rb = newReplica(b, x, "one"), newReplica(b, y, "one")
			x.e.Add(ra.Replica)
			y.e.Add(rb.Replica)
			eventually(b, func() bool {
				st := y.e.Status().Spaces[0]
				return len(st.Peers) == 1 && st.Peers[0].Equal
			})
			return ra, rb
		}
		b.Run("push"+transport, func(b *testing.B) {
			ra, rb := setup(b)
			arrived := make(chan struct{}, 16)
			rb.Files.Subscribe(func(*dag.Batch) { arrived <- struct{}{} })
			payload := make([]byte, 500)
			var times []time.Duration
			for b.Loop() {
				began := time.Now()
				ra.write(b, ra.Files, payload)
				<-arrived
				times = append(times, time.Since(began))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "µs-median")
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "µs-p99")
		})
		b.Run("catchup"+transport, func(b *testing.B) {
			x := newDevice(b, 1, 1)
			ra := newReplica(b, x, "one")
			bytes := 0
			payload := make([]byte, 1000)
			for range 20_000 {
				ra.write(b, ra.Files, payload)
			}
			must(b, ra.Files.FramesSince(nil, func(_ dag.ID, f []byte) error { bytes += len(f); return nil }))
			x.e.Add(ra.Replica)
			b.SetBytes(int64(bytes))
			n := byte(2)
			for b.Loop() {
				b.StopTimer()
				y := newDevice(b, 1, n, x.addr(transport))
				n++
				rb := newReplica(b, y, "one")
				y.e.Add(rb.Replica)
				b.StartTimer()
				eventually(b, func() bool { return equal(ra, rb) })
				b.StopTimer()
				y.stop()
				b.StartTimer()
			}
		})
		b.Run("blocks"+transport, func(b *testing.B) {
			ra, rb := setup(b)
			var ids []block.ID
			rnd := rand.NewChaCha8([32]byte{})
			const size = 1 << 20
			for range 256 {
				data := make([]byte, size)
				_, _ = rnd.Read(data)
				id, err := ra.Blocks.(*block.Store).Put(data)
				must(b, err)
				ids = append(ids, id)
			}
			b.SetBytes(int64(len(ids) * size))
			f := rb.fetcher()
			for b.Loop() {
				var wg sync.WaitGroup
				next := atomic.Int64{}
				for range 16 {
					wg.Go(func() {
						for i := next.Add(1); int(i) <= len(ids); i = next.Add(1) {
							if _, err := f.Fetch(exchange.Prefetch(context.Background()), ids[i-1]); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			}
		})
	}
}

// fetcher is what the engine gave to the store of blocks.
func (r *replica) fetcher() block.Fetcher { return r.d.e.Fetcher(r.ID) }

// books is a Keeper in memory.
type books struct {
	mu       sync.Mutex
	blocks   *block.Store
	promised map[block.ID]dag.PublicKey
	released int
}

func (k *books) Promise(_ context.Context, device, account dag.PublicKey, ids []block.ID) []bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	yes := make([]bool, len(ids))
	for i, id := range ids {
		if yes[i] = k.blocks.Has(id); yes[i] {
			k.promised[id] = device
		}
	}
	return yes
}

func (k *books) Withdraw(_ context.Context, _ dag.PublicKey, ids []block.ID) []bool {
	yes := make([]bool, len(ids))
	for i, id := range ids {
		yes[i] = k.blocks.Has(id)
	}
	return yes
}

func (k *books) Released(_ context.Context, device dag.PublicKey, ids []block.ID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		if k.promised[id] == device {
			delete(k.promised, id)
			k.released++
		}
	}
	return nil
}

func newBooks(r *replica) *books {
	k := &books{blocks: r.Blocks.(*block.Store), promised: map[block.ID]dag.PublicKey{}}
	r.Keeps = k
	return k
}

// TestReceipts: devices of one account give each other receipts, withdraw and release them; to another account's nothing is promised.
func TestReceipts(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	c := newDevice(t, 2, 3, a.addr("/tcp/"))
	ra, rb, rc := newReplica(t, a, "one"), newReplica(t, b, "one"), newReplica(t, c, "one")
	ka, kb := newBooks(ra), newBooks(rb)
	newBooks(rc)
	var ids []block.ID
	for i := range 1500 {
		id, err := ra.Blocks.(*block.Store).Put(fmt.Append(nil, "block ", i))
		must(t, err)
		ids = append(ids, id)
	}
	if _, err := b.e.Rely(t.Context(), rb.ID, ids, nil); !errors.Is(err, exchange.ErrOffline) {
		t.Errorf("alone: %v", err)
	}
	for _, r := range []*replica{ra, rb, rc} {
		r.d.e.Add(r.Replica)
	}
	eventually(t, func() bool {
		return len(a.e.Status().Peers) == 2 && len(b.e.Status().Peers) == 1 && len(c.e.Status().Peers) == 1
	})
	by, err := b.e.Rely(t.Context(), rb.ID, append(slices.Clone(ids), block.ID{1}), nil)
	must(t, err)
	for i := range ids {
		if by[i] != a.author.Device {
			t.Fatalf("block %d: a receipt of %x", i, by[i])
		}
	}
	if by[len(ids)] != (dag.PublicKey{}) || len(ka.promised) != len(ids) {
		t.Errorf("a receipt for nothing; %d promised", len(ka.promised))
	}
	if by, err := c.e.Rely(t.Context(), rc.ID, ids, nil); !errors.Is(err, exchange.ErrOffline) || by[0] != (dag.PublicKey{}) {
		t.Errorf("another account's device gets receipts: %v", err)
	}
	// And it is asked for nothing.
	if given, err := a.e.Withdraw(t.Context(), ra.ID, c.author.Device, ids[:1]); !errors.Is(err, exchange.ErrOffline) {
		t.Errorf("%v, %v", given, err)
	}
	_, err = rb.Blocks.(*block.Store).Put([]byte("block 7"))
	must(t, err)
	given, err := a.e.Withdraw(t.Context(), ra.ID, b.author.Device, ids[:10])
	if err != nil || !given[7] || given[6] {
		t.Errorf("withdrawn: %v, %v", given, err)
	}
	heard, err := b.e.Release(t.Context(), rb.ID, a.author.Device, ids)
	if err != nil || slices.Contains(heard, false) || len(ka.promised) != 0 || ka.released != len(ids) {
		t.Errorf("released: %d left, %v", len(ka.promised), err)
	}
	if len(kb.promised) != 0 {
		t.Error("the wrong one promised")
	}
}

// Two daemons of one machine that are given one port listen at two, and each answers at its own.
func TestPortIsTaken(t *testing.T) {
	a := newDevice(t, 1, 1)
	at := strings.Split(a.addr("/tcp/"), "/p2p/")[0]
	n, err := strconv.Atoi(at[strings.LastIndexByte(at, '/')+1:])
	must(t, err)
	b := &device{t: t, author: dag.Author{Key: key('d', 1, 2)}, n: 2, log: new(logs)}
	b.author.Account, b.author.Device = a.author.Account, public(b.author.Key)
	b.cert = &list.Certificate{Account: b.author.Account, Device: b.author.Device, HPKE: bytes.Repeat([]byte{2}, list.HPKEBytes), Serial: 1}
	b.cert.Sign(key('a', 1))
	b.listen = []string{fmt.Sprintf("/ip4/0.0.0.0/tcp/%d", n), fmt.Sprintf("/ip4/0.0.0.0/udp/%d/quic-v1", n)}
	b.start(t)
	for _, addr := range b.e.Status().Listen {
		if strings.Contains(addr, fmt.Sprintf("/tcp/%d/", n)) {
			t.Errorf("both listen at %s", addr)
		}
	}
	for _, d := range []*device{a, b} {
		for range 16 { // which of two that share a port gets a connection is chance
			h, id, _ := raw(t, 50, d)
			if _, err := h.NewStream(t.Context(), id, wire.ProtocolHello); err != nil {
				t.Fatal(err)
			}
			must(t, h.Close())
		}
	}
}

// What comes while a device writes what came before to a slow disk is passed on at once.
func TestPassedOnWhileTheDiskWrites(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	c := newDevice(t, 1, 3, b.addr("/tcp/"))
	ra, rb, rc := newReplica(t, a, "one"), newReplica(t, b, "one"), newReplica(t, c, "one")
	var slow atomic.Bool
	writes, done := make(chan struct{}, 1), make(chan struct{})
	defer close(done)
	rb.Durable = func() error {
		if slow.Swap(false) {
			writes <- struct{}{}
			<-done
		}
		return nil
	}
	for _, r := range []*replica{ra, rb, rc} {
		r.d.e.Add(r.Replica)
	}
	ra.write(t, ra.Files, []byte("first"))
	eventually(t, func() bool { return equal(ra, rb) && equal(rb, rc) })
	slow.Store(true)
	ra.write(t, ra.Files, []byte("second"))
	<-writes
	ra.write(t, ra.Files, []byte("third"))
	eventually(t, func() bool { return equal(ra, rc) })
}
