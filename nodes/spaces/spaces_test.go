package spaces_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/wire"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatal(what)
}

// run runs an engine until stop.
func run(t testing.TB, e *exchange.Engine) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	eventually(t, "it listens", func() bool { return len(e.Status().Listen) > 0 })
	return stop
}

func logTo(t testing.TB, who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", who)
}

// node is a node on a folder.
type node struct {
	key  ed25519.PrivateKey
	set  *spaces.Set
	e    *exchange.Engine
	stop func()
}

func newNode(t testing.TB, dir string, opt spaces.Options) *node {
	seed := bytes.Repeat([]byte{9}, ed25519.SeedSize)
	n := &node{key: ed25519.NewKeyFromSeed(seed)}
	opt.Dir, opt.Log = dir, logTo(t, "node")
	var err error
	n.set, err = spaces.Open(opt)
	must(t, err)
	n.e, err = exchange.New(exchange.Options{
		Key: n.key, Serve: n.set, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: opt.Log, IdleAfter: opt.CloseAfter,
	})
	must(t, err)
	end := run(t, n.e)
	n.stop = sync.OnceFunc(func() {
		end()
		if err := n.set.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) addr() string { return n.e.Status().Listen[0] }

// device is a device of an account with one space of its own.
type device struct {
	keys   *acl.Keys
	space  *acl.Space
	files  *dag.Graph
	blocks *block.Store
	e      *exchange.Engine
	stop   func()
}

func newKeys(t testing.TB) *acl.Keys {
	a, err := acl.NewAccount(rand.Reader)
	must(t, err)
	d, err := disk.OS(t.TempDir())
	must(t, err)
	k, err := acl.InitKeys(d, a, "a device", nil, nil)
	must(t, err)
	return k
}

func newDevice(t testing.TB, n *node) *device { return newDeviceAt(t, n, nil) }

func newDeviceAt(t testing.TB, n *node, clock exchange.Clock) *device {
	d := &device{keys: newKeys(t)}
	var err error
	d.space, err = acl.CreateSpace(d.keys, store.NewMem(), nil)
	must(t, err)
	d.files, err = dag.Open(d.space.ID(), store.NewMem(), d.space.Files(), dag.Options{})
	must(t, err)
	d.blocks, err = block.Open(block.Options{Disk: disk.NewSim(nil), Dir: "blocks", DB: kv.NewMem(), Seal: store.Plain{}})
	must(t, err)
	d.e, err = exchange.New(exchange.Options{
		Key: d.keys.Device.PrivateKey(), Certificate: d.keys.Device.Certificate, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: logTo(t, "device"), Clock: clock,
	})
	must(t, err)
	d.stop = run(t, d.e)
	d.e.Add(&exchange.Replica{
		ID: d.space.ID(), ACL: d.space.List().Graph(), Files: d.files, Blocks: d.blocks, Durable: func() error { return nil },
		Tags: d.space.Keys().DiscoveryTags,
	})
	d.use(t, n)
	return d
}

func (d *device) use(t testing.TB, n *node) {
	must(t, d.e.SetNodes([]exchange.Node{{Addrs: []string{n.addr()}, Wants: func(dag.ID) bool { return true }}}))
}

// write publishes a batch.
func (d *device) write(t testing.TB, text string) *dag.Batch {
	b, err := d.files.Begin(d.keys.Author(), d.space.Heads(), d.space.Epoch())
	must(t, err)
	_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte(text), nil })
	must(t, err)
	batch, err := b.Commit()
	must(t, err)
	return batch
}

// equal waits until the node holds all that the device does.
func (d *device) equal(t testing.TB) {
	t.Helper()
	eventually(t, "the node holds everything", func() bool {
		for _, s := range d.e.Status().Spaces {
			for _, p := range s.Peers {
				if p.Equal {
					return true
				}
			}
		}
		return false
	})
}

func TestNodeHoldsWhatAMemberBrings(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, dir, spaces.Options{})
	d := newDevice(t, n)
	for range 20 {
		d.write(t, "sealed")
	}
	d.equal(t)
	var ids []block.ID
	for i := range 40 {
		id, err := d.blocks.Put(bytes.Repeat([]byte{byte(i)}, i*20_000))
		must(t, err)
		ids = append(ids, id)
	}
	missing, err := d.e.Upload(t.Context(), d.space.ID(), dag.PublicKey{}, append(ids, block.Sum([]byte("not here"))))
	if err != nil || !slices.Equal(missing, []block.ID{block.Sum([]byte("not here"))}) {
		t.Fatalf("missing %v, %v", missing, err)
	}
	by, err := d.e.Rely(t.Context(), d.space.ID(), ids, nil)
	must(t, err)
	for i, b := range by {
		if b != dag.PublicKey(n.key.Public().(ed25519.PublicKey)) {
			t.Errorf("block %d: a receipt by %x", i, b)
		}
	}

	// After a restart it is all there still.
	n.stop()
	n = newNode(t, dir, spaces.Options{})
	if all, err := n.set.IDs(); err != nil || !slices.Equal(all, []dag.ID{d.space.ID()}) {
		t.Fatalf("%v, %v", all, err)
	}
	r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
	if r == nil {
		t.Fatal("the space is gone")
	}
	if !slices.Equal(r.Files.Heads(), d.files.Heads()) || !slices.Equal(r.ACL.Heads(), d.space.List().Graph().Heads()) {
		t.Error("it has other heads")
	}
	for i, id := range ids {
		if b, err := r.Blocks.GetToGive(id, nil); err != nil || len(b) != i*20_000 {
			t.Errorf("block %d: %d bytes, %v", i, len(b), err)
		}
	}
	d.use(t, n)
	d.write(t, "more")
	eventually(t, "the restarted node gets more", func() bool { return slices.Equal(r.Files.Heads(), d.files.Heads()) })
}

// A block that is fetched comes from the node, where nobody else has it.
func TestFetchFromNode(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{})
	d := newDevice(t, n)
	d.equal(t)
	data := bytes.Repeat([]byte("sealed"), 200_000)
	id, err := d.blocks.Put(data)
	must(t, err)
	if missing, err := d.e.Upload(t.Context(), d.space.ID(), dag.PublicKey{}, []block.ID{id}); err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	// As another device of the account, with an empty store.
	got, err := d.e.Fetcher(d.space.ID()).Fetch(t.Context(), id)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// stranger talks to a node by raw messages, as a device of an account of its own.
type stranger struct {
	t     testing.TB
	host  host.Host
	to    peer.ID
	visit *wire.Reader
	out   io.Writer
}

func newStranger(t testing.TB, n *node, k *acl.Keys) *stranger {
	s := strangerAs(t, n, k, k.Device.Certificate)
	// What goes over other streams may overtake the proof: an answer says that it was taken.
	m, err := s.visit.Read()
	must(t, err)
	if _, ok := m.(*wire.Absent); !ok {
		t.Fatalf("%T", m)
	}
	return s
}

// strangerAs visits with a certificate, and wants a space that is nowhere.
func strangerAs(t testing.TB, n *node, k *acl.Keys, cert *list.Certificate) *stranger {
	key, err := crypto.UnmarshalEd25519PrivateKey(k.Device.PrivateKey())
	must(t, err)
	h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableRelay())
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	info, err := peer.AddrInfoFromString(n.addr())
	must(t, err)
	must(t, h.Connect(t.Context(), *info))
	s := &stranger{t: t, host: h, to: info.ID}
	in, out := s.open(wire.ProtocolNode)
	s.visit, s.out = in, out
	nonce := [32]byte{1}
	s.send(out, &wire.Hello{Version: wire.Version, Nonce: nonce})
	m, err := in.Read()
	must(t, err)
	mine, theirs := k.Device.PublicKey(), dag.PublicKey(n.key.Public().(ed25519.PublicKey))
	their := m.(*wire.Hello).Nonce
	digest := dag.Sum(slices.Concat([]byte("anyfs/tags/1\x00"), mine[:], theirs[:], nonce[:], their[:], cert.Encode()))
	p := &wire.Proof{Certificate: cert.Encode()}
	copy(p.Signature[:], ed25519.Sign(k.Device.PrivateKey(), append([]byte("anyfs/node/1\x00"), digest[:]...)))
	s.send(out, p, &wire.Spaces{IDs: wire.List[dag.ID]{dag.Sum([]byte("nowhere"))}})
	return s
}

func (s *stranger) open(p string) (*wire.Reader, io.ReadWriteCloser) {
	x, err := s.host.NewStream(s.t.Context(), s.to, protocol.ID(p))
	must(s.t, err)
	must(s.t, x.SetReadDeadline(time.Now().Add(time.Minute)))
	return wire.NewReader(x), x
}

func (s *stranger) send(w io.Writer, ms ...wire.Message) {
	var p []byte
	for _, m := range ms {
		p = wire.Append(p, m)
	}
	_, err := w.Write(p)
	must(s.t, err)
}

// Who is no member, and knows the ID of a space, the node's address and even the space's access list, gets nothing: no byte, and no
// difference to a space that is not there.
func TestStrangerLearnsNothing(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{})
	d := newDevice(t, n)
	d.write(t, "sealed")
	id, err := d.blocks.Put([]byte("sealed"))
	must(t, err)
	d.equal(t)
	if missing, err := d.e.Upload(t.Context(), d.space.ID(), dag.PublicKey{}, []block.ID{id}); err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	var list [][]byte
	must(t, d.space.Export(func(f []byte) error { list = append(list, bytes.Clone(f)); return nil }))
	here, nowhere := d.space.ID(), dag.Sum([]byte("a space that nobody has"))

	s := newStranger(t, n, newKeys(t))
	// replies gives what comes on a new stream, with the space's ID blotted out, until it ends or nothing more comes.
	replies := func(p string, space dag.ID, ms ...wire.Message) []byte {
		_, x := s.open(p)
		defer x.Close()
		s.send(x, ms...)
		_ = x.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now().Add(12 * time.Second))
		b, err := io.ReadAll(x)
		return append(bytes.ReplaceAll(b, space[:], []byte("SPACE")), []byte(errText(err))...)
	}
	asks := map[string]func(space dag.ID) []byte{
		"wanted": func(space dag.ID) []byte {
			s.send(s.out, &wire.Spaces{IDs: wire.List[dag.ID]{space}})
			m, err := s.visit.Read()
			must(t, err)
			if a, ok := m.(*wire.Absent); !ok || !slices.Equal(a.IDs, wire.List[dag.ID]{space}) {
				t.Errorf("%T %+v", m, m)
			}
			return bytes.ReplaceAll(wire.Append(nil, m), space[:], []byte("SPACE"))
		},
		"asked for its list": func(space dag.ID) []byte { return replies(wire.ProtocolAccess, space, &wire.Ask{Space: space}) },
		"opened":             func(space dag.ID) []byte { return replies(wire.ProtocolSpace, space, &wire.Open{Space: space}) },
		"asked for a block": func(space dag.ID) []byte {
			return replies(wire.ProtocolBlocks, space, &wire.Open{Space: space}, &wire.GetBlock{Request: 1, ID: id}, &wire.HasBlocks{Request: 2, IDs: wire.List[block.ID]{id}})
		},
		"given a block": func(space dag.ID) []byte {
			return replies(wire.ProtocolBlocks, space, &wire.Open{Space: space}, &wire.PutBlock{Request: 1, ID: block.Sum([]byte("x")), Data: []byte("x")})
		},
		"offered": func(space dag.ID) []byte {
			return replies(wire.ProtocolAccess, space, &wire.Open{Space: space}, &wire.Frames{Frames: list}, &wire.End{})
		},
	}
	t.Run("asks", func(t *testing.T) {
		for name, ask := range asks {
			t.Run(name, func(t *testing.T) {
				t.Parallel() // a stream about a space that is not common is let wait
				var a, b []byte
				if name == "wanted" { // on one stream
					a, b = ask(here), ask(nowhere)
				} else {
					var wg sync.WaitGroup
					wg.Go(func() { a = ask(here) })
					b = ask(nowhere)
					wg.Wait()
				}
				if !bytes.Equal(a, b) {
					t.Errorf("of a space that is here: %q, and of one that is not: %q", a, b)
				}
				if bytes.Contains(a, []byte("sealed")) || bytes.Contains(a, list[0][:64]) {
					t.Error("it gives what is in the space")
				}
			})
		}
	})
	if all, err := n.set.IDs(); err != nil || !slices.Equal(all, []dag.ID{here}) {
		t.Errorf("the node has %v, %v", all, err)
	}
	// The test can fail: a member is answered otherwise.
	d.stop()
	eventually(t, "the node knows that the device has gone", func() bool {
		return !slices.ContainsFunc(n.e.Status().Peers, func(p exchange.PeerStatus) bool { return p.Account == d.keys.Identity })
	})
	m := newStranger(t, n, d.keys)
	m.send(m.out, &wire.Spaces{IDs: wire.List[dag.ID]{here}})
	got, err := m.visit.Read()
	must(t, err)
	if _, ok := got.(*wire.Served); !ok {
		t.Errorf("a member is answered %T", got)
	}
}

func errText(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return "nothing more"
	}
	return "ended"
}

// A node takes no space that is not its own by the network's configuration, and nobody whom its operator does not admit.
func TestNodeTakesOnlyItsOwn(t *testing.T) {
	for name, opt := range map[string]spaces.Options{
		"another node's": {Has: func(dag.ID) bool { return false }},
		"not admitted":   {Admits: func(dag.PublicKey) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), opt)
			k := newKeys(t)
			sp, err := acl.CreateSpace(k, store.NewMem(), nil)
			must(t, err)
			var frames [][]byte
			must(t, sp.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
			if n.set.Take(t.Context(), sp.ID(), k.Identity, frames) != nil {
				t.Error("it takes the space")
			}
			if all, err := n.set.IDs(); err != nil || len(all) > 0 {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}

// What is no list of the space is not taken, whoever offers it, and leaves nothing on the disk.
func TestTakeJudges(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{})
	k, other := newKeys(t), newKeys(t)
	sp, err := acl.CreateSpace(k, store.NewMem(), nil)
	must(t, err)
	var frames [][]byte
	must(t, sp.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
	broken := bytes.Clone(frames[0])
	broken[len(broken)-1] ^= 1
	for name, take := range map[string]func() *exchange.Replica{
		"nothing":           func() *exchange.Replica { return n.set.Take(t.Context(), sp.ID(), k.Identity, nil) },
		"another's ID":      func() *exchange.Replica { return n.set.Take(t.Context(), dag.Sum(nil), k.Identity, frames) },
		"changed":           func() *exchange.Replica { return n.set.Take(t.Context(), sp.ID(), k.Identity, [][]byte{broken}) },
		"no frame":          func() *exchange.Replica { return n.set.Take(t.Context(), sp.ID(), k.Identity, [][]byte{[]byte("x")}) },
		"by another member": func() *exchange.Replica { return n.set.Take(t.Context(), sp.ID(), other.Identity, frames) },
	} {
		if take() != nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if all, err := n.set.IDs(); err != nil || len(all) > 0 {
		t.Errorf("%v, %v", all, err)
	}
	if n.set.Take(t.Context(), sp.ID(), k.Identity, frames) == nil {
		t.Error("a good one is not taken")
	}
	if n.set.Space(t.Context(), sp.ID(), other.Identity) != nil || n.set.Space(t.Context(), sp.ID(), k.Identity) == nil {
		t.Error("it is served to the wrong accounts")
	}
}

// Blocks that a member gives one behind the other, of any length and in any parts, are kept and answered in their order; after false bytes nothing more is taken of
// it, and what came before stays.
func TestBlocksOneBehindTheOther(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{})
	d := newDevice(t, n)
	d.equal(t)
	d.stop()
	here := d.space.ID()
	eventually(t, "the node knows that the device has gone", func() bool { return len(n.e.Status().Peers) == 0 })
	s := newStranger(t, n, d.keys)
	s.send(s.out, &wire.Spaces{IDs: wire.List[dag.ID]{here}})
	m, err := s.visit.Read()
	must(t, err)
	if _, ok := m.(*wire.Served); !ok {
		t.Fatalf("%T", m)
	}
	in, out := s.open(wire.ProtocolBlocks)
	in.Limit = wire.MaxBody
	s.send(out, &wire.Open{Space: here})
	var ids []block.ID
	give := func(request uint64, id block.ID, data []byte, part int) {
		for rest := data; ; {
			m := &wire.PutBlock{Request: request, ID: id, Data: rest[:min(len(rest), part)]}
			rest = rest[len(m.Data):]
			m.Left = uint64(len(rest))
			s.send(out, m)
			if len(rest) == 0 {
				return
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i, size := range []int{1, 100, 1 << 20, 0, 3 << 20, 5000, 1<<20 + 64<<10, 1<<20 + 64<<10 + 1, 200 << 10, 1 << 20, 7} {
			data := bytes.Repeat([]byte{byte(i + 1)}, size)
			ids = append(ids, block.Sum(data))
			give(uint64(i), ids[i], data, []int{64 << 10, wire.MaxPart, 100 << 10}[i%3])
		}
	})
	for i := range 11 {
		m, err := in.Read()
		must(t, err)
		if a, ok := m.(*wire.HeldBlocks); !ok || a.Request != uint64(i) || a.Bits[0] != 1 {
			t.Fatalf("block %d is answered %T %+v", i, m, m)
		}
	}
	wg.Wait()
	give(99, block.Sum([]byte("true")), []byte("false"), 1000) // a stream that ends takes with it what was not read
	if m, err := in.Read(); err == nil {
		t.Errorf("false bytes are answered %T %+v", m, m)
	}
	eventually(t, "it is left alone", func() bool { return len(s.host.Network().ConnsToPeer(s.to)) == 0 })
	r := n.set.Space(t.Context(), here, d.keys.Identity)
	defer r.Release()
	for i, id := range ids {
		if !r.Blocks.Has(id) {
			t.Errorf("block %d is not there", i)
		}
	}
	if r.Blocks.Has(block.Sum([]byte("true"))) {
		t.Error("false bytes are kept")
	}
}
