package integration

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/wire"
)

// A node holds many more spaces than are in use: what it needs for those that nobody asks for is small, it opens what is asked for, and holds neither
// memory nor descriptors of it once nobody uses it. Here are 100,000 spaces. They are made in the folder ANYFS_SPACES, where that is set, and used again
// by the next run.
func TestNodeOfManySpaces(t *testing.T) {
	NeedLong(t)
	many, ask, accounts := 100_000, 4000, 100 // each in use has 4 descriptors, and this process too has a limit
	if v, err := strconv.Atoi(os.Getenv("ANYFS_MANY")); err == nil {
		many, ask = v, min(ask, v/2)
	}
	node := &Node{t: t, Kind: "all", Dir: filepath.Join(t.TempDir(), "all"), log: new(logged), listen: []string{"/ip4/127.0.0.1/tcp/0"}, flags: []string{"--no-relay"}}
	if kept := os.Getenv("ANYFS_SPACES"); kept != "" {
		node.Dir = filepath.Join(kept, "all")
	}
	t.Cleanup(func() {
		if node.cmd != nil {
			node.Kill()
		}
	})
	keys := make([]*acl.Keys, accounts)
	for i := range keys {
		keys[i] = keysOf(t, i)
	}
	if _, err := os.Stat(node.Dir); err != nil {
		node.Start() // it makes its keys and its configuration
		node.Stop()
	}
	began := time.Now()
	ids := fillNode(t, node.Dir, many, keys)
	t.Logf("%d spaces were made in %v", many, time.Since(began).Round(time.Second))
	forgetCached(t, filepath.Join(node.Dir, "spaces"))

	began = time.Now()
	node.Start()
	started := time.Since(began)
	pid := node.cmd.Process.Pid
	look := func(when string) (rss, files int) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		check(t, err)
		rss = memory(t, pid, "VmRSS")
		t.Logf("%s: %d MiB (%d of the heap and stacks), %d descriptors", when, rss, memory(t, pid, "RssAnon"), len(fds))
		return rss, len(fds)
	}
	t.Logf("it started in %v", started.Round(time.Millisecond))
	_, noFiles := look("at the start")
	cpu := cpuOf(t, pid)
	time.Sleep(10 * time.Second)
	t.Logf("idle, it takes %v of CPU a second", (cpuOf(t, pid)-cpu)/10)
	idle, _ := look("idle")

	rnd := mrand.New(mrand.NewPCG(1, 2))
	var took []time.Duration
	var askers []*asker
	for i, k := range keys {
		askers = append(askers, newAsker(t, node, k))
		own := ids[i]
		rnd.Shuffle(len(own), func(a, b int) { own[a], own[b] = own[b], own[a] })
	}
	for n := range ask {
		a := n % accounts
		took = append(took, askers[a].ask(t, ids[a][n/accounts]))
	}
	slices.Sort(took)
	t.Logf("%d spaces were opened one after the other, of %d accounts: %v in the median, %v at p99, at most %v", ask, accounts,
		took[ask/2].Round(10*time.Microsecond), took[ask*99/100].Round(10*time.Microsecond), took[ask-1].Round(10*time.Microsecond))
	inUse, _ := look("all of these in use")
	t.Logf("that is %d KiB each", (inUse-idle)*1024/ask)
	if each := (inUse - idle) * 1024 / ask; each > 100 {
		t.Errorf("a space in use takes %d KiB", each)
	}
	for _, a := range askers {
		a.close()
	}
	// Two minutes after the last device has gone the exchange gives a space back, and a minute later it is closed.
	for end := time.Now().Add(6 * time.Minute); ; time.Sleep(time.Second) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		check(t, err)
		if len(fds) <= noFiles+16 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d at the start", len(fds), noFiles)
		}
	}
	look("when nobody uses them any more")
	node.Stop()
}

// keysOf makes the keys of an account, the same ones for the same number.
func keysOf(t testing.TB, i int) *acl.Keys {
	dir := t.TempDir()
	if kept := os.Getenv("ANYFS_SPACES"); kept != "" {
		dir = filepath.Join(kept, fmt.Sprint("keys", i))
		check(t, os.MkdirAll(dir, 0o700))
	}
	d, err := disk.OS(dir)
	check(t, err)
	if k, err := acl.OpenKeys(d, nil); err == nil {
		return k
	}
	a, err := acl.NewAccount(rand.Reader)
	check(t, err)
	k, err := acl.InitKeys(d, a, "a device", nil, nil)
	check(t, err)
	return k
}

// fillNode makes spaces on a node's folder until there are so many, and gives those of each account: an access list, two changes and a block each.
func fillNode(t testing.TB, dir string, many int, keys []*acl.Keys) [][]dag.ID {
	list := filepath.Join(dir, "made") // in the order in which they were made
	made, err := os.ReadFile(list)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	out := make([][]dag.ID, len(keys))
	have := 0
	for len(made) >= len(dag.ID{}) {
		out[have%len(keys)] = append(out[have%len(keys)], dag.ID(made[:32]))
		made, have = made[32:], have+1
	}
	f, err := os.OpenFile(list, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(t, err)
	defer f.Close()
	body := make([]byte, 500)
	const some = 1000 // open at once
	for have < many {
		set, err := spaces.Open(spaces.Options{Dir: dir})
		check(t, err)
		n := min(some, many-have)
		ids := make([]dag.ID, n)
		var next atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
					k := keys[(have+i)%len(keys)]
					sp, err := acl.CreateSpace(k, store.NewMem(), nil)
					var frames [][]byte
					if err == nil {
						err = sp.Export(func(f []byte) error { frames = append(frames, slices.Clone(f)); return nil })
					}
					if err != nil {
						t.Error(err)
						return
					}
					r := set.Take(t.Context(), sp.ID(), k.Identity, frames)
					if r == nil {
						t.Error("a space is not taken")
						return
					}
					for range 2 {
						b, err := r.Files.Begin(k.Author(), r.ACL.Heads(), sp.Epoch())
						if err == nil {
							_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return body, nil })
						}
						if err == nil {
							_, err = b.Commit()
						}
						if err != nil {
							t.Error(err)
							return
						}
					}
					data := make([]byte, 2000)
					_, _ = rand.Read(data)
					if err := r.Upload(k.Identity, block.Sum(data), data); err != nil {
						t.Error(err)
						return
					}
					ids[i] = sp.ID()
					r.Release()
				}
			})
		}
		wg.Wait()
		check(t, set.Close())
		if t.Failed() {
			t.FailNow()
		}
		var p []byte
		for i, id := range ids {
			out[(have+i)%len(keys)] = append(out[(have+i)%len(keys)], id)
			p = append(p, id[:]...)
		}
		_, err = f.Write(p)
		check(t, err)
		have += n
	}
	return out
}

// forgetCached has the system forget what it has of the files below a folder in its cache.
func forgetCached(t testing.TB, dir string) {
	unix.Sync()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
	check(t, err)
}

// asker is a device that asks a node for spaces, and uses none.
type asker struct {
	host  host.Host
	to    peer.ID
	raw   network.Stream // the visit
	in    *wire.Reader   // of it
	close func()
}

func newAsker(t testing.TB, n *Node, k *acl.Keys) *asker {
	key, err := crypto.UnmarshalEd25519PrivateKey(k.Device.PrivateKey())
	check(t, err)
	h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.DisableMetrics())
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	addrs, err := nodesOf(n)
	check(t, err)
	info, err := peer.AddrInfoFromString(addrs[0])
	check(t, err)
	check(t, h.Connect(ctx, *info))
	s, err := h.NewStream(ctx, info.ID, protocol.ID(wire.ProtocolNode))
	check(t, err)
	a := &asker{h, info.ID, s, wire.NewReader(s), sync.OnceFunc(func() { _ = h.Close() })}
	t.Cleanup(a.close)
	nonce := [32]byte{1}
	a.send(t, &wire.Hello{Version: wire.Version, Nonce: nonce})
	m, err := a.in.Read()
	check(t, err)
	theirs := m.(*wire.Hello).Nonce
	node, err := info.ID.ExtractPublicKey()
	check(t, err)
	raw, err := node.Raw()
	check(t, err)
	mine, cert := k.Device.PublicKey(), k.Device.Certificate.Encode()
	digest := dag.Sum(slices.Concat([]byte("anyfs/tags/1\x00"), mine[:], raw, nonce[:], theirs[:], cert))
	p := &wire.Proof{Certificate: cert}
	copy(p.Signature[:], ed25519.Sign(k.Device.PrivateKey(), append([]byte("anyfs/node/1\x00"), digest[:]...)))
	a.send(t, p)
	a.in.Limit = wire.MaxBody
	m, err = a.in.Read()
	check(t, err)
	if _, ok := m.(*wire.Network); !ok {
		t.Fatalf("the node says %T", m)
	}
	return a
}

func (a *asker) send(t testing.TB, m wire.Message) {
	_, err := a.raw.Write(wire.Append(nil, m))
	check(t, err)
}

// ask wants a space, and gives how long the node took to serve it.
func (a *asker) ask(t testing.TB, id dag.ID) time.Duration {
	began := time.Now()
	a.send(t, &wire.Spaces{IDs: wire.List[dag.ID]{id}})
	for {
		m, err := a.in.Read()
		check(t, err)
		switch m := m.(type) {
		case *wire.Served:
			return time.Since(began)
		case *wire.Absent:
			t.Fatalf("the node has no space %v", m.IDs)
		}
	}
}
