package exchange_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// A line of three: the one in the middle passes on what it gets, and gives blocks that it has.
func TestThreeHosts(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	c := newDevice(t, 2, 3, b.addr("/udp/"))
	ra, rb, rc := newReplica(t, a, "one"), newReplica(t, b, "one"), newReplica(t, c, "one")
	for _, r := range []*replica{ra, rb, rc} {
		for i := range 500 {
			r.write(t, r.Files, fmt.Append(nil, i))
		}
		r.d.e.Add(r.Replica)
	}
	eventually(t, func() bool { return equal(ra, rb, rc) })
	for i := range 50 {
		for _, r := range []*replica{ra, rb, rc} {
			r.write(t, r.Files, fmt.Append(nil, "live", i))
		}
	}
	eventually(t, func() bool { return equal(ra, rb, rc) })
	// The middle one restarts with what it had, in the middle of everything.
	b.stop()
	ra.write(t, ra.Files, []byte("while it was away"))
	b.start(t, a.addr("/tcp/"))
	b.e.Add(rb.Replica)
	must(t, c.e.AddPeer(b.addr("/tcp/")))
	eventually(t, func() bool { return equal(ra, rb, rc) })

	id, err := ra.Blocks.(*block.Store).Put([]byte("a block"))
	must(t, err)
	if _, err := rc.Blocks.(*block.Store).Get(t.Context(), id); !errors.Is(err, block.ErrAbsent) {
		t.Errorf("a block that no peer of it has: %v", err)
	}
	_, err = rb.Blocks.(*block.Store).Get(t.Context(), id)
	must(t, err)
	_, err = rc.Blocks.(*block.Store).Get(t.Context(), id)
	must(t, err)
}

func TestSpacesComeAndGo(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	home := []*replica{newReplica(t, a, "home"), newReplica(t, b, "home")}
	for _, r := range home {
		r.d.e.Add(r.Replica)
	}
	eventually(t, func() bool { return len(b.e.Status().Peers) == 1 })
	// Many more spaces, while they are connected; some on one of them only.
	var on [2][]*replica
	for i := range 40 {
		for k, d := range []*device{a, b} {
			r := newReplica(t, d, fmt.Sprint("space", i))
			r.write(t, r.Files, fmt.Append(nil, i, k))
			on[k] = append(on[k], r)
			if k == 0 || i%2 == 0 {
				d.e.Add(r.Replica)
			}
		}
	}
	for i := 0; i < 40; i += 2 {
		eventually(t, func() bool { return equal(on[0][i], on[1][i]) })
	}
	if n := len(b.e.Status().Peers[0].Spaces); n != 21 {
		t.Errorf("%d spaces in common", n)
	}
	if equal(on[0][1], on[1][1]) {
		t.Error("a space was exchanged that one of them did not add")
	}
	// The access list of a space that b knows by its ID alone.
	on[0][1].write(t, on[0][1].ACL, []byte("record 1"))
	on[0][1].write(t, on[0][1].ACL, []byte("record 2"))
	frames, err := b.e.FetchACL(t.Context(), on[0][1].ID)
	if err != nil || len(frames) != 2 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	for _, f := range frames {
		if res, err := on[1][1].ACL.Ingest(f); err != nil || res.Status != dag.Accepted {
			t.Error(res, err)
		}
	}
	if _, err := b.e.FetchACL(t.Context(), dag.Sum([]byte("nobody's"))); !errors.Is(err, dag.ErrNotFound) {
		t.Error(err)
	}
	b.e.Add(on[1][1].Replica)
	eventually(t, func() bool { return equal(on[0][1], on[1][1]) })

	b.e.Remove(on[1][0].ID)
	on[0][0].write(t, on[0][0].Files, []byte("after"))
	eventually(t, func() bool { p := b.e.Status().Peers; return len(p) == 1 && len(p[0].Spaces) == 21 })
	if equal(on[0][0], on[1][0]) {
		t.Error("a space that was removed is exchanged")
	}
	on[0][2].write(t, on[0][2].Files, []byte("after"))
	eventually(t, func() bool { return equal(on[0][2], on[1][2]) })
}

func TestPause(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
	a.e.Add(ra.Replica)
	b.e.Add(rb.Replica)
	eventually(t, func() bool { return len(b.e.Status().Peers) == 1 })
	a.e.Pause()
	eventually(t, func() bool { return len(b.e.Status().Peers) == 0 })
	ra.write(t, ra.Files, []byte("x"))
	time.Sleep(100 * time.Millisecond)
	if equal(ra, rb) || !a.e.Status().Paused {
		t.Error("it goes on while it is paused")
	}
	a.e.Resume()
	b.e.Pause()
	b.e.Resume() // dials at once
	eventually(t, func() bool { return equal(ra, rb) })
}

// Two that share nothing learn nothing of each other but that.
func TestStrangers(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 2, 2, a.addr("/tcp/"))
	ra, rb := newReplica(t, a, "one"), newReplica(t, b, "two")
	ra.write(t, ra.Files, []byte("a"))
	a.e.Add(ra.Replica)
	b.e.Add(rb.Replica)
	time.Sleep(500 * time.Millisecond)
	if n := len(a.e.Status().Peers) + len(b.e.Status().Peers); n > 0 {
		t.Errorf("%d peers", n)
	}
	if n := a.log.warnings.Load() + b.log.warnings.Load(); n > 0 {
		t.Errorf("%d warnings", n)
	}
	// Now there is one: it is found without waiting.
	rb = newReplica(t, b, "one")
	b.e.Add(rb.Replica)
	eventually(t, func() bool { return equal(ra, rb) })
}

// An account that is no member by the access list gets the list, and neither files nor blocks.
func TestMembers(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 2, 2, a.addr("/tcp/"))
	ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
	ra.Member = func(k, _ dag.PublicKey) bool { return k == a.author.Account }
	ra.write(t, ra.ACL, []byte("record"))
	ra.write(t, ra.Files, []byte("file"))
	id, err := ra.Blocks.(*block.Store).Put([]byte("block"))
	must(t, err)
	a.e.Add(ra.Replica)
	b.e.Add(rb.Replica)
	eventually(t, func() bool { return len(rb.ACL.Heads()) == 1 })
	ra.write(t, ra.Files, []byte("file"))
	if _, err := rb.Blocks.(*block.Store).Get(t.Context(), id); !errors.Is(err, block.ErrAbsent) {
		t.Error(err)
	}
	time.Sleep(100 * time.Millisecond)
	if n, _, _ := rb.Files.Counters(); n > 0 {
		t.Errorf("%d batches", n)
	}
}

// raw is a host that speaks libp2p and then whatever the test says.
func raw(t testing.TB, seed byte, to *device) (host.Host, peer.ID, ed25519.PrivateKey) {
	k := key('r', seed)
	h := rawHost(t, k)
	info, err := peer.AddrInfoFromString(to.addr("/tcp/"))
	must(t, err)
	must(t, h.Connect(t.Context(), *info))
	return h, info.ID, k
}

// rawHost makes a host that serves nothing and is connected with nobody.
func rawHost(t testing.TB, k ed25519.PrivateKey) host.Host {
	priv, err := crypto.UnmarshalEd25519PrivateKey(k)
	must(t, err)
	h, err := libp2p.New(libp2p.Identity(priv), libp2p.NoListenAddrs, libp2p.DisableMetrics())
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

func TestHostilePeers(t *testing.T) {
	a := newDevice(t, 1, 1)
	ra := newReplica(t, a, "one")
	ra.write(t, ra.Files, []byte("secret"))
	id, err := ra.Blocks.(*block.Store).Put([]byte("secret"))
	must(t, err)
	a.e.Add(ra.Replica)
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	// Streams that begin with nonsense, and ones that ask for what was not proved: nothing comes back.
	ask := map[string][]wire.Message{
		wire.ProtocolSpace:  {&wire.Open{Space: ra.ID}, &wire.Pull{Graph: wire.Files}},
		wire.ProtocolBlocks: {&wire.Open{Space: ra.ID}, &wire.GetBlock{Request: 1, ID: id}},
		wire.ProtocolAccess: {&wire.Ask{Space: ra.ID}},
	}
	var wg sync.WaitGroup
	seed := byte(0)
	for name, ms := range ask {
		seed++
		h, to, _ := raw(t, seed, a)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			s, err := h.NewStream(ctx, to, protocol.ID(name))
			if err != nil {
				return
			}
			var p []byte
			for _, m := range ms {
				p = wire.Append(p, m)
			}
			_, _ = s.Write(p)
			_ = s.SetReadDeadline(time.Now().Add(12 * time.Second))
			r := wire.NewReader(s)
			for {
				m, err := r.Read()
				if err != nil {
					return
				}
				if _, ok := m.(*wire.Absent); !ok {
					t.Errorf("%s: %T", name, m)
				}
			}
		})
	}
	for _, name := range []string{wire.ProtocolHello, wire.ProtocolSpace, wire.ProtocolBlocks, wire.ProtocolAccess} {
		for _, p := range [][]byte{{0xff, 0xff, 0xff, 0xff}, []byte("GET / HTTP/1.1\r\n"), {0, 0, 0, 1, 0x80}, {0, 0, 0x80, 0}} {
			seed++
			h, to, _ := raw(t, seed, a)
			s, err := h.NewStream(t.Context(), to, protocol.ID(name))
			if err != nil {
				continue // it has hung up on who is left alone for what it did before
			}
			_, _ = s.Write(p)
		}
	}
	wg.Wait()
	if n := len(a.e.Status().Peers); n > 0 {
		t.Errorf("%d peers", n)
	}
	// Nobody else is disturbed.
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	rb := newReplica(t, b, "one")
	b.e.Add(rb.Replica)
	eventually(t, func() bool { return equal(ra, rb) })
	var after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("%d MiB more are in use", grown>>20)
	}
}

// Who took a proof from elsewhere, or proves a space to one peer with the tags of another, gets nothing.
func TestReplayedHandshake(t *testing.T) {
	a := newDevice(t, 1, 1)
	ra := newReplica(t, a, "one")
	a.e.Add(ra.Replica)
	victim := newDevice(t, 1, 2)
	rv := newReplica(t, victim, "one")
	victim.e.Add(rv.Replica)

	// The attacker stands between two that share a space, and hands on what each says to the other.
	seed := byte(0)
	for p := "~"; p > a.e.Status().ID || p > victim.e.Status().ID; p = list.PeerID(public(key('r', seed))) {
		seed++ // with the lowest ID it is the one that begins
	}
	h, toA, _ := raw(t, seed, a)
	info, err := peer.AddrInfoFromString(victim.addr("/tcp/"))
	must(t, err)
	must(t, h.Connect(t.Context(), *info))
	var streams [2]network.Stream
	var readers [2]*wire.Reader
	for i, id := range []peer.ID{toA, info.ID} {
		if streams[i], err = h.NewStream(t.Context(), id, protocol.ID(wire.ProtocolHello)); err != nil {
			t.Fatal(err)
		}
		readers[i] = wire.NewReader(streams[i])
		_ = streams[i].SetReadDeadline(time.Now().Add(5 * time.Second))
	}
	seen := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			for {
				m, err := readers[i].Read()
				if err != nil {
					return
				}
				mu.Lock()
				seen[fmt.Sprintf("%T", m)]++
				mu.Unlock()
				_, _ = streams[1-i].Write(wire.Append(nil, m))
			}
		})
	}
	wg.Wait()
	if seen["*wire.Hello"] != 2 || seen["*wire.Tags"] == 0 || seen["*wire.Proof"] > 0 {
		t.Errorf("%v", seen)
	}
}

// The packages below sync know nothing of files, mounts and keys that open.
func TestArrows(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/anyfs/anyfs/sync/...").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := 0
	for _, p := range strings.Fields(string(out)) {
		rest, ours := strings.CutPrefix(p, "github.com/anyfs/anyfs/")
		if !ours {
			continue
		}
		found++
		switch strings.SplitN(rest, "/", 2)[0] {
		case "sync", "dag":
		case "acl":
			if rest != "acl/list" {
				t.Errorf("sync links %s", p)
			}
		default:
			t.Errorf("sync links %s", p)
		}
	}
	if found < 6 {
		t.Errorf("%d packages of ours found", found)
	}
}
