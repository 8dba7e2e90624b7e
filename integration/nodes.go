package integration

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Node is a process of `anyfs node`.
type Node struct {
	t   testing.TB
	Dir string
	// Kind is what it is run as: all, coordinator, sync or file.
	Kind string
	// Link is what it printed.
	Link string

	// Host is the network namespace in which it is; nil: that of the tests.
	Host *Host

	listen []string // multiaddrs
	flags  []string
	binary string   // "": Binary
	env    []string // beside that of the tests

	cmd  *exec.Cmd
	log  *logged
	done chan error
}

// logged keeps what a process wrote.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// NewNode starts a node that is a network of its own, on a folder of its own, at a port of its choice on loopback.
func NewNode(t testing.TB, flags ...string) *Node {
	t.Helper()
	return startNode(t, "all", "127.0.0.1", flags...)
}

// startNode starts a node of a kind at an address of the loopback range.
func startNode(t testing.TB, kind, ip string, flags ...string) *Node {
	t.Helper()
	return runNode(&Node{t: t, Kind: kind, listen: []string{"/ip4/" + ip + "/tcp/0"}, flags: flags})
}

// NewNodeOn starts a node that is a network of its own on a host, at its address.
func NewNodeOn(t testing.TB, h *Host, flags ...string) *Node {
	t.Helper()
	at := "/ip4/" + h.Addr.String()
	return runNode(&Node{t: t, Kind: "all", Host: h, listen: []string{at + "/tcp/7328", at + "/udp/7328/quic-v1"}, flags: flags})
}

func runNode(n *Node) *Node {
	n.t.Helper()
	n.Dir, n.log = filepath.Join(n.t.TempDir(), n.Kind), new(logged)
	n.t.Cleanup(func() {
		if n.cmd != nil {
			n.Kill()
		}
		if n.t.Failed() {
			n.t.Logf("the log of the %s node at %s:\n%s", n.Kind, n.listen[0], tail(n.log.String()))
		}
	})
	n.Start()
	return n
}

// Start starts the node's process and waits until it can be reached.
func (n *Node) Start() {
	n.t.Helper()
	args := []string{"node", n.Kind, "--dir", n.Dir}
	for _, a := range n.listen {
		args = append(args, "--listen", a)
	}
	binary := cmp.Or(n.binary, Binary)
	if args = append(args, n.flags...); n.Host != nil {
		n.cmd = n.Host.Command(binary, args...)
	} else {
		n.cmd = exec.Command(binary, args...)
	}
	n.cmd.Env = append(os.Environ(), n.env...)
	n.cmd.Stderr = n.log
	out, err := n.cmd.StdoutPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	line := make(chan string, 1)
	n.done = make(chan error, 1)
	go func() {
		r := bufio.NewReader(out)
		s, _ := r.ReadString('\n')
		line <- strings.TrimSpace(s)
		_, _ = io.Copy(io.Discard, r)
		n.done <- n.cmd.Wait()
	}()
	select {
	case s := <-line:
		if !strings.HasPrefix(s, "anyfs://network/") {
			n.t.Fatalf("the node printed %q\n%s", s, n.log)
		}
		n.Link = s
	case <-time.After(30 * time.Second):
		n.t.Fatalf("the node does not start\n%s", n.log)
	}
}

// Kill ends the node's process at once.
func (n *Node) Kill() {
	_ = n.cmd.Process.Kill()
	<-n.done
	n.cmd = nil
}

// Stop asks the node to end, and fails the test unless it does so with success.
func (n *Node) Stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	select {
	case err := <-n.done:
		if err != nil {
			n.t.Errorf("the node ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		n.t.Error("the node does not end")
		_ = n.cmd.Process.Kill()
		<-n.done
	}
	n.cmd = nil
}

// Logged gives an attribute of the last line of the log with that message.
func (n *Node) Logged(t testing.TB, message, attribute string) string {
	t.Helper()
	value := ""
	for l := range strings.Lines(n.log.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(l), &m) == nil && m["msg"] == message {
			value = fmt.Sprint(m[attribute])
		}
	}
	if value == "" {
		t.Fatalf("the log does not say %q", message)
	}
	return value
}

// File is the file that devices add.
func (n *Node) File() string { return filepath.Join(n.Dir, "network.json") }

// Disk calls fn with the name and the content of each file of the node.
func (n *Node) Disk(fn func(name string, b []byte)) {
	n.t.Helper()
	err := filepath.WalkDir(n.Dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		fn(p, b)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// Memory calls fn with the content of each part of the process's memory that can be written, and gives how many bytes that was.
func (n *Node) Memory(fn func(where string, b []byte)) (total int) {
	n.t.Helper()
	pid := n.cmd.Process.Pid
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		n.t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		n.t.Fatal(err)
	}
	defer mem.Close()
	for l := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(l, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		const step, over = 4 << 20, 256
		buf := make([]byte, step+over)
		for at := from; at < to; at += step {
			k, err := mem.ReadAt(buf[:min(step+over, to-at)], int64(at))
			if k == 0 && err != nil && !errors.Is(err, io.EOF) {
				break // a part that nothing was ever in
			}
			total += k
			fn(strings.TrimSpace(l), buf[:k])
		}
	}
	return total
}

// NodeStatus is what a node says of itself.
type NodeStatus struct {
	PeerID   string `json:"peer_id"`
	Epoch    uint64 `json:"epoch"`
	Nodes    int    `json:"nodes"`
	Draining bool   `json:"draining"`
	Leaving  int    `json:"leaving"`

	RelaySlots       int64  `json:"relay_slots"`
	RelayConnections int64  `json:"relay_connections"`
	RelayBytes       uint64 `json:"relay_bytes"`
	Spaces           []NodeSpace
}

// NodeSpace is what a space takes on a node.
type NodeSpace struct {
	ID      string `json:"id"`
	Owner   string `json:"owner"`
	Blocks  int64  `json:"block_bytes"`
	Changes int64  `json:"change_bytes"`
}

// Status asks the node.
func (n *Node) Status() (s NodeStatus) {
	n.t.Helper()
	out, err := exec.Command(Binary, "--json", "node", "status", "--dir", n.Dir).Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		n.t.Fatalf("node status: %v: %s", err, out)
	}
	return s
}

// Network is a network of several nodes, each at an address of its own in the loopback range.
type Network struct {
	t           testing.TB
	Coordinator *Node
	Sync, File  []*Node
	next        int // last byte of the next address

	binary string // of those that join; "": Binary
	env    []string
	flags  []string
}

// NewNetwork starts a coordinator, and nodes that join it.
func NewNetwork(t testing.TB, syncs, files int) *Network {
	t.Helper()
	w := &Network{t: t, Coordinator: startNode(t, "coordinator", "127.0.0.2"), next: 3}
	for range syncs {
		w.Sync = append(w.Sync, w.Join("sync"))
	}
	for range files {
		w.File = append(w.File, w.Join("file"))
	}
	return w
}

// Join starts a node of a kind that joins the network.
func (w *Network) Join(kind string) *Node {
	w.t.Helper()
	n := runNode(&Node{t: w.t, Kind: kind, binary: w.binary, env: w.env, listen: []string{fmt.Sprintf("/ip4/127.0.0.%d/tcp/0", w.next)},
		flags: append([]string{"--network", w.Coordinator.File(), "--token", w.Admin("token")}, w.flags...)})
	w.next++
	return n
}

// Admin runs a command of the operator on the coordinator.
func (w *Network) Admin(args ...string) string {
	w.t.Helper()
	return w.Coordinator.Admin(args...)
}

// Admin runs a command of the operator on the node; the first argument is its name, which may be of two words.
func (n *Node) Admin(args ...string) string {
	n.t.Helper()
	args = append(append(append([]string{"node"}, strings.Fields(args[0])...), "--dir", n.Dir), args[1:]...)
	out, err := exec.Command(Binary, args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Wipe removes all spaces from the disk of a node that does not run. Its keys stay, and its place in the network.
func (n *Node) Wipe() {
	n.t.Helper()
	for _, name := range []string{"spaces", "usage.db"} {
		if err := os.RemoveAll(filepath.Join(n.Dir, name)); err != nil {
			n.t.Fatal(err)
		}
	}
}
