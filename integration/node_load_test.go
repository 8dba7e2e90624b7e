package integration

import (
	"bytes"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	p2p "github.com/libp2p/go-libp2p/core/network"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/wire"
)

// loadSpace is a space of which one client pushes changes, and another gets them.
type loadSpace struct {
	id     dag.ID
	access [][]byte // its access list
	heads  [wire.Graphs]wire.Heads
	frames [][]byte       // the changes, each alone in its batch, signed beforehand
	sent   []atomic.Int64 // when each was pushed, in nanoseconds since the start
	next   int
}

// newLoadSpace makes a space with so many changes to come.
func newLoadSpace(t *testing.T, k *acl.Keys, changes int) *loadSpace {
	t.Helper()
	sp, err := acl.CreateSpace(k, store.NewMem(), nil)
	check(t, err)
	s := &loadSpace{id: sp.ID(), sent: make([]atomic.Int64, changes)}
	check(t, sp.Export(func(f []byte) error { s.access = append(s.access, slices.Clone(f)); return nil }))
	files, err := dag.Open(sp.ID(), store.NewMem(), sp.Files(), dag.Options{})
	check(t, err)
	body := make([]byte, 500)
	for range changes {
		b, err := files.Begin(k.Author(), sp.Heads(), sp.Epoch())
		check(t, err)
		_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return body, nil })
		check(t, err)
		batch, err := b.Commit()
		check(t, err)
		f, err := files.Frame(batch.ID())
		check(t, err)
		s.frames = append(s.frames, slices.Clone(f))
	}
	s.heads[wire.ACL] = wire.Heads{Graph: wire.ACL, Batches: uint64(len(s.access)), Heads: sp.Heads()}
	s.heads[wire.Files] = wire.Heads{Graph: wire.Files}
	return s
}

// loadClient is a device that speaks with a node by messages alone: it verifies and stores nothing, so that the node has the processors.
type loadClient struct {
	*asker
	own    *loadSpace
	pushes *loadSession // about own
	gets   *loadSession // about the space of which it is to get the changes
	opened chan *loadSession
}

// loadSession is an exchange about a space, of which both ends hold the same at first.
type loadSession struct {
	about dag.ID
	s     p2p.Stream
	in    *wire.Reader
}

// take takes what the node opens: who has the lower ID does.
func (c *loadClient) take(s p2p.Stream) {
	x := &loadSession{s: s, in: wire.NewReader(s)}
	if m, err := x.in.Read(); err == nil {
		if m, ok := m.(*wire.Open); ok {
			x.about = m.Space
			c.opened <- x
			return
		}
	}
	_ = s.Reset()
}

// meet begins the exchange of its two spaces.
func (c *loadClient) meet(t *testing.T, other *loadSpace) {
	t.Helper()
	for _, s := range []*loadSpace{c.own, other} {
		var x *loadSession
		var p []byte
		if c.host.ID() < c.to {
			stream, err := c.host.NewStream(t.Context(), c.to, wire.ProtocolSpace)
			check(t, err)
			x = &loadSession{s.id, stream, wire.NewReader(stream)}
			p = wire.Append(p, &wire.Open{Space: s.id})
		} else {
			select {
			case x = <-c.opened:
			case <-time.After(time.Minute):
				t.Fatal("the node opens nothing")
			}
			if x.about == other.id {
				s = other
			} else {
				s = c.own
			}
		}
		x.in.Limit = wire.MaxBody
		_, err := x.s.Write(wire.Append(wire.Append(p, &s.heads[wire.ACL]), &s.heads[wire.Files]))
		check(t, err)
		if s == c.own {
			c.pushes = x
		} else {
			c.gets = x
		}
	}
}

// A node with many connected clients passes each change on to the other client of its space. With ANYFS_LONG there are 1,000 clients in 1,000 spaces,
// and 3,000 changes a second for ten seconds. What the node takes of CPU and memory, and how long a change is on its way and in the node, is logged. The clients
// have the same cores, and do as little as they can.
func TestNodeUnderLoad(t *testing.T) {
	many, rate, seconds := 30, 300, 2
	if os.Getenv("ANYFS_LONG") != "" {
		many, rate, seconds = 1000, 3000, 10
	}
	node := NewNode(t, "--http", "127.0.0.1:0", "--no-relay")
	node.Stop()
	account, err := acl.NewAccount(rand.Reader)
	check(t, err)
	set, err := spaces.Open(spaces.Options{Dir: node.Dir})
	check(t, err)
	clients := make([]*loadClient, many)
	keys := make([]*acl.Keys, many)
	for i := range clients {
		d, err := disk.OS(t.TempDir())
		check(t, err)
		keys[i], err = acl.InitKeys(d, account, "a device", nil, nil)
		check(t, err)
		s := newLoadSpace(t, keys[i], rate*seconds/many)
		clients[i] = &loadClient{own: s, opened: make(chan *loadSession, 2)}
		r := set.Take(t.Context(), s.id, keys[i].Identity, s.access)
		if r == nil {
			t.Fatal("a space is not taken")
		}
		r.Release()
	}
	check(t, set.Close())
	node.Start()
	prefer(t, node.cmd.Process.Pid)

	began := time.Now()
	for i, c := range clients {
		other := clients[(i+1)%many].own
		c.asker = newAsker(t, node, keys[i])
		c.host.SetStreamHandler(wire.ProtocolSpace, c.take)
		c.ask(t, c.own.id)
		c.ask(t, other.id)
		c.meet(t, other)
	}
	var got atomic.Int64 // changes
	var wg sync.WaitGroup
	took := make([][]time.Duration, many)
	start := time.Now()
	var settled atomic.Int64 // sessions in which the node has told what it holds
	for i, c := range clients {
		wg.Go(func() { _, _ = io.Copy(io.Discard, c.raw) })
		wg.Go(func() {
			c.pushes.eachChange(t, &settled, func([]byte) { t.Error("a client is told of its own change") })
		})
		wg.Go(func() {
			s := clients[(i+1)%many].own
			c.gets.eachChange(t, &settled, func(frame []byte) {
				now := time.Since(start)
				n := len(took[i])
				if n == len(s.frames) || !bytes.Equal(frame, s.frames[n]) {
					t.Errorf("another change than the one that was pushed as number %d", n)
					return
				}
				took[i] = append(took[i], now-time.Duration(s.sent[n].Load()))
				got.Add(1)
			})
		})
	}
	defer wg.Wait()
	defer func() {
		for _, c := range clients {
			c.close()
		}
	}()
	for end := time.Now().Add(3 * time.Minute); settled.Load() < int64(2*many); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the node has told of %d of %d spaces what it holds", settled.Load(), 2*many)
		}
	}
	pid := node.cmd.Process.Pid
	cpu, own, rss := cpuOf(t, pid), cpuOf(t, os.Getpid()), memory(t, pid, "VmRSS")
	t.Logf("%d clients with two spaces each are connected after %v; the node used %v of CPU, and has %v MiB", many, time.Since(began).Round(time.Millisecond), cpu, rss)

	began = time.Now()
	total := rate * seconds
	var late time.Duration
	for n := 0; n < total; {
		for due := int(time.Since(began).Seconds() * float64(rate)); n < min(due, total); n++ {
			c := clients[n%many]
			s := c.own
			late = max(late, time.Since(began)-time.Duration(n)*time.Second/time.Duration(rate))
			s.sent[s.next].Store(int64(time.Since(start)))
			_, err := c.pushes.s.Write(wire.Append(nil, &wire.Frames{Graph: wire.Files, Frames: [][]byte{s.frames[s.next]}}))
			check(t, err)
			s.next++
		}
		time.Sleep(time.Millisecond)
	}
	wrote := time.Since(began)
	for end := time.Now().Add(time.Minute); got.Load() < int64(total) && !t.Failed(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d changes did not come", int64(total)-got.Load(), total)
		}
	}
	all := time.Since(began)
	after, mine, rss := cpuOf(t, pid)-cpu, cpuOf(t, os.Getpid())-own, memory(t, pid, "VmRSS")
	text := node.metrics(t)
	for _, c := range clients {
		c.close()
	}
	wg.Wait()
	times := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(times) != total {
		t.Fatalf("%d changes came, of %d", len(times), total)
	}
	t.Logf("%d changes in %v, the latest %v behind its time, all passed on after %v; the node used %v for each, %.2f processors, and the clients %.2f; it has %v MiB; on its way a change was %v in the median, %v at p99, %v at most",
		total, wrote.Round(time.Millisecond), late.Round(time.Millisecond), all.Round(time.Millisecond), (after / time.Duration(total)).Round(time.Microsecond),
		after.Seconds()/all.Seconds(), mine.Seconds()/all.Seconds(), rss, times[total/2].Round(100*time.Microsecond), times[total*99/100].Round(100*time.Microsecond), times[total-1].Round(100*time.Microsecond))
	ingested, ingest := quantile(t, text, "anyfs_node_ingest_seconds", 0.99)
	passed, fanout := quantile(t, text, "anyfs_node_fanout_seconds", 0.99)
	t.Logf("in the node, at p99: %v until it is taken in (%d groups), %v until the other device is told (%d changes)", ingest, ingested, fanout, passed)
	if passed != total || ingested == 0 || ingested > total {
		t.Errorf("of %d changes the node says that it took in %d groups, and passed on %d changes", total, ingested, passed)
	}
}

// eachChange reads a session until it ends: it counts the one in which the node has told what it holds of the files, and gives each change. A node sends a device
// what is new, and does not have it ask.
func (x *loadSession) eachChange(t *testing.T, settled *atomic.Int64, change func(frame []byte)) {
	told := false
	for {
		m, err := x.in.Read()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *wire.Heads:
			if m.Graph == wire.Files && !told {
				told = true
				settled.Add(1)
			}
		case *wire.Have:
			t.Errorf("a client is told of %d changes, and is to ask for them", len(m.IDs))
		case *wire.Frames:
			for _, f := range m.Frames {
				change(f)
			}
		}
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
