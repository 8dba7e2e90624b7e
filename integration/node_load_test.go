package integration

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

// loadClient is a device without a disk and a mount, of which a node sees what it sees of others.
type loadClient struct {
	keys *acl.Keys
	e    *exchange.Engine
	own  *loadSpace // which it made
}

// loadSpace is a space as one client has it.
type loadSpace struct {
	files *dag.Graph
	acl   []dag.ID
	epoch dag.ID
}

// load is the clients of one account: client i has made space i, in which it writes, and has i+1 too.
type load struct {
	clients []*loadClient
	mu      sync.Mutex
	sent    map[dag.ID]time.Time
	took    []time.Duration
}

// add gives a client a space.
func (l *load) add(t *testing.T, c *loadClient, id dag.ID, frames [][]byte, epoch dag.ID) *loadSpace {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	access, err := list.Open(id, store.NewMem())
	must(err)
	for _, f := range frames {
		must(access.Import(f))
	}
	files, err := dag.Open(id, store.NewMem(), access.Files(), dag.Options{})
	must(err)
	blocks, err := block.Open(block.Options{Disk: disk.NewSim(nil), Dir: "blocks", DB: kv.NewMem(), Seal: store.Plain{}})
	must(err)
	files.Subscribe(func(b *dag.Batch) {
		if b.Device == c.keys.Device.Certificate.Device {
			return
		}
		now := time.Now()
		l.mu.Lock() // after it is noted as sent
		defer l.mu.Unlock()
		l.took = append(l.took, now.Sub(l.sent[b.ID()]))
		delete(l.sent, b.ID())
	})
	c.e.Add(&exchange.Replica{ID: id, ACL: access.Graph(), Files: files, Blocks: blocks, Durable: func() error { return nil },
		Tags: func([]byte) [][32]byte { return nil }})
	return &loadSpace{files, access.Graph().Heads(), epoch}
}

// write publishes a change of 500 bytes; the other client of the space is to get it.
func (l *load) write(t *testing.T, c *loadClient, body []byte) {
	sp := c.own
	b, err := sp.files.Begin(c.keys.Author(), sp.acl, sp.epoch)
	if err == nil {
		_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return body, nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	batch, err := b.Commit()
	if err != nil {
		t.Fatal(err)
	}
	l.sent[batch.ID()] = now
}

// A node with many connected clients passes each change on to the other client of its space. With ANYFS_LONG there are 1,000 clients in 1,000 spaces,
// and 3,000 changes a second for ten seconds. What the node takes of CPU and memory, and how long a change is on its way, is logged: the clients
// have the same cores, so how long it takes says little. How long it is in the node is what that says itself.
func TestNodeUnderLoad(t *testing.T) {
	many, rate, seconds := 30, 300, 2
	if os.Getenv("ANYFS_LONG") != "" {
		many, rate, seconds = 1000, 3000, 10
	}
	node := NewNode(t, "--http", "127.0.0.1:0", "--no-relay") // or they would find each other, and need no node
	prefer(t, node.cmd.Process.Pid)
	l := &load{sent: map[dag.ID]time.Time{}}
	account, err := acl.NewAccount(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	link, err := nodesOf(node)
	if err != nil {
		t.Fatal(err)
	}
	for range many {
		d, err := disk.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		c := &loadClient{}
		if c.keys, err = acl.InitKeys(d, account, "a device", nil, nil); err != nil {
			t.Fatal(err)
		}
		c.e, err = exchange.New(exchange.Options{
			Key: c.keys.Device.PrivateKey(), Certificate: c.keys.Device.Certificate, Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		})
		if err == nil {
			err = c.e.SetNodes([]exchange.Node{{Addrs: link, Wants: func(dag.ID) bool { return true }}})
		}
		if err != nil {
			t.Fatal(err)
		}
		l.clients = append(l.clients, c)
	}
	for i, c := range l.clients {
		sp, err := acl.CreateSpace(c.keys, store.NewMem(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var frames [][]byte
		if err := sp.List().Graph().FramesSince(nil, func(_ dag.ID, f []byte) error { frames = append(frames, f); return nil }); err != nil {
			t.Fatal(err)
		}
		c.own = l.add(t, c, sp.ID(), frames, sp.Epoch())
		l.add(t, l.clients[(i+many-1)%many], sp.ID(), frames, sp.Epoch())
	}
	began := time.Now()
	for _, c := range l.clients {
		wg.Go(func() { _ = c.e.Run(ctx) })
		time.Sleep(2 * time.Millisecond)
	}
	equal := func() (n int) {
		for _, c := range l.clients {
			for _, s := range c.e.Status().Spaces {
				for _, p := range s.Peers {
					if p.Equal {
						n++
					}
				}
			}
		}
		return n
	}
	for end := time.Now().Add(3 * time.Minute); equal() < 2*many; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d spaces are with the node", equal(), 2*many)
		}
	}
	pid := node.cmd.Process.Pid
	cpu, rss := cpuOf(t, pid), memory(t, pid, "VmRSS")
	t.Logf("%d clients with two spaces each are connected after %v; the node used %v of CPU, and has %v MiB", many, time.Since(began).Round(time.Millisecond), cpu, rss)

	body := make([]byte, 500)
	began = time.Now()
	n := 0
	for total := rate * seconds; n < total; {
		for due := int(time.Since(began).Seconds() * float64(rate)); n < min(due, total); n++ {
			l.write(t, l.clients[n%many], body)
		}
		time.Sleep(time.Millisecond)
	}
	wrote := time.Since(began)
	left := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.sent) }
	for end := time.Now().Add(time.Minute); left() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	all := time.Since(began)
	after, rss := cpuOf(t, pid), memory(t, pid, "VmRSS")
	if k := left(); k > 0 {
		t.Fatalf("%d of %d changes did not come", k, n)
	}
	slices.Sort(l.took)
	t.Logf("%d changes in %v, all passed on after %v; the node used %v for each, and has %v MiB; on its way a change was %v in the median, %v at p99",
		n, wrote.Round(time.Millisecond), all.Round(time.Millisecond), ((after - cpu) / time.Duration(n)).Round(time.Microsecond), rss,
		l.took[n/2].Round(time.Millisecond), l.took[n*99/100].Round(time.Millisecond))
	text := node.metrics(t)
	ingested, ingest := quantile(t, text, "anyfs_node_ingest_seconds", 0.99)
	passed, fanout := quantile(t, text, "anyfs_node_fanout_seconds", 0.99)
	t.Logf("in the node, at p99: %v until it is taken in (%d groups), %v until the other device is told (%d changes)", ingest, ingested, fanout, passed)
	if passed == 0 || passed > n || ingested == 0 || ingested > n+2*many { // a device that is told the heads alone asks
		t.Errorf("of %d changes the node says that it took in %d groups, and passed on %d changes", n, ingested, passed)
	}
}

// prefer has the machine serve a process before the tests, as if it was alone on it: what waits then, waits for the process itself.
func prefer(t *testing.T, pid int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks { // what these begin inherits it
		id, err := strconv.Atoi(task.Name())
		if err == nil {
			err = syscall.Setpriority(syscall.PRIO_PROCESS, id, -15)
		}
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Logf("the node has no preference: %v", err)
		}
	}
}

// metrics reads the node's /metrics.
func (n *Node) metrics(t *testing.T) string {
	t.Helper()
	r, err := http.Get("http://" + n.Logged(t, "metrics", "address") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", r.Status, err)
	}
	return string(b)
}

// quantile reads a histogram: how much was observed, and the bound of the bucket in which a share of it ends.
func quantile(t *testing.T, metrics, name string, share float64) (n int, at time.Duration) {
	t.Helper()
	buckets := regexp.MustCompile(name+`_bucket\{le="([^"]+)"\} (\d+)`).FindAllStringSubmatch(metrics, -1)
	if len(buckets) == 0 {
		t.Fatalf("no histogram %s", name)
	}
	n, err := strconv.Atoi(buckets[len(buckets)-1][2])
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range buckets {
		bound, err := strconv.ParseFloat(b[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := strconv.Atoi(b[2]); err != nil || float64(k) >= share*float64(n) {
			return n, time.Duration(min(bound, 3600) * float64(time.Second))
		}
	}
	return n, 0
}

// nodesOf gives the addresses in a node's link.
func nodesOf(n *Node) ([]string, error) {
	out, err := os.ReadFile(n.File())
	if err != nil {
		return nil, err
	}
	c, err := network.Parse(out)
	if err != nil {
		return nil, err
	}
	return c.Nodes[0].Multiaddrs(), nil
}
