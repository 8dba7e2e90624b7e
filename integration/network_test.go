package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// held is what a node holds of each space: bytes of changes and of blocks, in files that are only appended to.
func held(n *Node, blocks bool) map[string]int64 {
	out := map[string]int64{}
	for _, x := range n.Status().Spaces {
		if out[x.ID] = x.Changes; blocks {
			out[x.ID] = x.Blocks
		}
	}
	return out
}

// equal waits until all these nodes hold the same, and something. Blocks are compared by their bytes; of changes the access lists and the batches come in
// another order on each, so that their files differ a little: what devices read from each alone tells there.
func (w *Network) equal(nodes []*Node, blocks bool) {
	w.t.Helper()
	var last []map[string]int64
	for end := time.Now().Add(syncPatience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		last = nil
		same := true
		for _, n := range nodes {
			h := held(n, blocks)
			last = append(last, h)
			same = same && len(h) > 0 && len(h) == len(last[0])
			for id, size := range h {
				other, ok := last[0][id]
				same = same && ok && (!blocks || size == other)
			}
		}
		if same {
			return
		}
	}
	w.t.Fatalf("the nodes do not hold the same: %v", last)
}

// holds waits until a node holds as many blocks of each space at least.
func (w *Network) holds(n *Node, want map[string]int64) {
	w.t.Helper()
	var h map[string]int64
	for end := time.Now().Add(syncPatience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		h = held(n, true)
		all := len(h) >= len(want)
		for id, size := range want {
			all = all && h[id] >= size
		}
		if all {
			return
		}
	}
	w.t.Fatalf("the node holds %v, not %v", h, want)
}

// sees logs in on a new home that reaches no node but through the network's configuration, and checks that it has everything byte for byte.
func (w *Network) sees(t *testing.T, a *Home, name string, want Tree) *Home {
	t.Helper()
	b := login(t, a, name)
	b.Must("network", "add", w.Coordinator.File())
	b.Mount("--no-discovery")
	if out := b.Run("status", "--wait", "--timeout", "60s"); out.Code != 0 {
		t.Fatalf("%s%s%s", out.Stderr, b.Must("status"), b.Must("status", "--json"))
	}
	arrives(t, b, want)
	return b
}

// writer writes files into a folder of a space, until stop, and fails the test if any operation does. It gives how many it wrote.
func writer(t *testing.T, dir string, seed uint64) (stop func() int) {
	t.Helper()
	return writerEvery(t, 20*time.Millisecond, dir, seed)
}

// writerEvery is writer with a pause of its own between two files.
func writerEvery(t *testing.T, pause time.Duration, dir string, seed uint64) (stop func() int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 1))
		for ; ; n++ {
			b := make([]byte, 1+rng.IntN(300_000))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), b, 0o644); err != nil {
				t.Errorf("a write fails: %v", err)
				return
			}
			select {
			case <-end:
				return
			case <-time.After(pause):
			}
		}
	})
	return func() int { close(end); wg.Wait(); return n }
}

// A network of several nodes: who never met the one who wrote has everything, whichever nodes fail; a disk that was lost is made good by the replicas; a node
// that comes takes its part over, and one that is drained gives all away, under load.
func TestNetworkOfSeveralNodes(t *testing.T) {
	t.Parallel() // it mostly waits
	NeedFUSE(t)
	began := time.Now()
	step := func(what string) { t.Logf("%6.1f s: %s", time.Since(began).Seconds(), what) }
	w := NewNetwork(t, 3, 2)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", w.Coordinator.File())
	plant(t, a)
	for i := range 12 { // of which a new node takes some
		dir := filepath.Join(a.Mnt, fmt.Sprintf("space %d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "in it"), bytes.Repeat([]byte{byte(i)}, 40_000*i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	a.Sync()
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount() // for good
	step("the first has written")
	w.equal(w.Sync, false)
	w.equal(w.File, true)

	// One of each kind is killed, and whoever comes has everything still.
	killed := []*Node{w.Coordinator, w.Sync[0], w.File[0]}
	for _, n := range killed {
		n.Kill()
	}
	step("the nodes are equal")
	b := w.sees(t, a, "second", want)
	step("the second has it")

	// What is written meanwhile is with those that were away, and with one that has lost its disk, when they are back: they alone are left then.
	stop := writer(t, b.Personal("written while nodes are away"), 1)
	time.Sleep(500 * time.Millisecond)
	w.Sync[0].Wipe()
	w.File[0].Wipe()
	for _, n := range killed {
		n.Start()
	}
	time.Sleep(500 * time.Millisecond)
	if stop() == 0 {
		t.Fatal("nothing was written")
	}
	b.Sync()
	want = ReadTree(t, b.Mnt, TreeOptions{})
	step("the second has written")
	w.equal(w.Sync, false)
	w.equal(w.File, true)
	step("the nodes are equal")
	for _, n := range []*Node{w.Sync[1], w.Sync[2], w.File[1]} {
		n.Kill()
	}
	c := w.sees(t, a, "third", want)
	step("the third has it")
	c.Unmount()
	for _, n := range []*Node{w.Sync[1], w.Sync[2], w.File[1]} {
		n.Start()
	}

	// Under load a fourth sync node and a third file node come, one of each kind is drained, and then removed.
	stop = writer(t, b.Personal("written while nodes come and go"), 2)
	sync4, file3 := w.Join("sync"), w.Join("file")
	w.holds(file3, held(w.File[0], true))
	step("nodes have come")
	for _, n := range []*Node{w.Sync[1], w.File[1]} {
		w.Admin("drain", n.Status().PeerID)
	}
	for _, n := range []*Node{w.Sync[1], w.File[1]} {
		empty := false
		for end := time.Now().Add(syncPatience); !empty && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			s := n.Status()
			empty = s.Draining && s.Leaving == 0 && len(s.Spaces) == 0
		}
		if !empty {
			t.Fatalf("a %s node is not drained: %+v", n.Kind, n.Status())
		}
		id := n.Status().PeerID
		n.Stop()
		w.Admin("remove", id)
	}
	step("nodes were drained")
	if stop() == 0 {
		t.Fatal("nothing was written")
	}
	b.Sync()
	want = ReadTree(t, b.Mnt, TreeOptions{})
	w.Sync, w.File = []*Node{w.Sync[0], w.Sync[2], sync4}, []*Node{w.File[0], file3}
	w.equal(w.Sync, false)
	w.equal(w.File, true)
	step("the nodes are equal")
	if out := w.Admin("list"); strings.Count(out, "sync") != 3 || strings.Count(out, "file") != 2 || strings.Contains(out, "draining") {
		t.Errorf("the nodes at the end:\n%s", out)
	}
	b.Unmount()

	// The new ones alone have it all.
	for _, n := range []*Node{w.Coordinator, w.Sync[0], w.Sync[1], w.File[0]} {
		n.Kill()
	}
	d := w.sees(t, a, "fourth", want)
	step("the fourth has it")
	if out := d.Must("verify"); out == "" {
		t.Error("verify says nothing")
	}
}
