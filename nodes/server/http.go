package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/nodes/gateway"
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/exchange"
)

// socketFile is where commands ask a node for its status. Who can open it may: its folder is the operator's.
const socketFile = "node.sock"

// ErrNoNode says that no node runs on a folder.
var ErrNoNode = errors.New("server: no node runs on this folder")

// Status is what a node does.
type Status struct {
	Network    string        `json:"network"`
	Epoch      uint64        `json:"epoch"`
	PeerID     string        `json:"peer_id"`
	Listen     []string      `json:"listen"`
	Kinds      []string      `json:"kinds"`
	Draining   bool          `json:"draining"`
	Leaving    int64         `json:"leaving"` // spaces that are being handed over
	InviteOnly bool          `json:"invite_only"`
	Peers      int           `json:"peers"` // devices
	Nodes      int           `json:"nodes"` // other nodes that are connected
	Totals     spaces.Totals `json:"totals"`

	RelaySlots       int64  `json:"relay_slots"`       // devices that can be reached through it
	RelayConnections int64  `json:"relay_connections"` // of two devices, that it passes on
	RelayBytes       uint64 `json:"relay_bytes"`       // that went over these since the start

	Spaces []SpaceStatus `json:"spaces"`
}

// SpaceStatus is one space of it.
type SpaceStatus struct {
	ID      string `json:"id"`
	Owner   string `json:"owner"`
	Blocks  int64  `json:"block_bytes"`
	Changes int64  `json:"change_bytes"`
	Quota   int64  `json:"quota,omitempty"` // of the space by itself
}

func (n *Node) status() Status {
	v, e := n.view.Load(), n.engine.Status()
	c := v.Config
	s := Status{
		Network: network.Name(c.ID), Epoch: c.Epoch, PeerID: e.ID, Listen: e.Listen, InviteOnly: n.opt.InviteOnly,
		Kinds: n.opt.Kind.Names(), Leaving: n.leaving.Load(), Nodes: len(n.engine.Mesh()), Totals: n.set.Totals(), Spaces: []SpaceStatus{},
	}
	s.Peers = devices(e)
	r := n.engine.RelayStatus()
	s.RelaySlots, s.RelayConnections, s.RelayBytes = r.Slots, r.Connections, r.Bytes
	if x := v.Node(n.self()); x != nil {
		s.Draining = x.Kinds&network.Draining != 0
	}
	for id, x := range n.set.Usages() {
		_, one := n.rules.Load().quota(x.Owner, id)
		s.Spaces = append(s.Spaces, SpaceStatus{id.String(), list.FormatIdentity(x.Owner), x.Blocks, x.Log, one})
	}
	slices.SortFunc(s.Spaces, func(a, b SpaceStatus) int { return strings.Compare(a.ID, b.ID) })
	return s
}

// devices counts the devices that are served.
func devices(e exchange.Status) (n int) {
	for _, p := range e.Peers {
		if !p.Node {
			n++
		}
	}
	return n
}

// AskStatus asks the node that runs on a folder.
func AskStatus(ctx context.Context, dir string) (s Status, err error) {
	err = askNode(ctx, dir, http.MethodGet, "/status", nil, &s)
	return s, err
}

// AskNodes asks the coordinator that runs on a folder for the nodes of its network.
func AskNodes(ctx context.Context, dir string) (list []NodeInfo, err error) {
	err = askNode(ctx, dir, http.MethodGet, "/nodes", nil, &list)
	return list, err
}

// AskToken has the coordinator that runs on a folder make a token, with which one node can join within a time.
func AskToken(ctx context.Context, dir string, within time.Duration) (token string, err error) {
	err = askNode(ctx, dir, http.MethodPost, "/token", url.Values{"for": {within.String()}}, &token)
	return token, err
}

// AskRemove has the coordinator that runs on a folder take a node out of the network, by its peer ID or the beginning of it.
func AskRemove(ctx context.Context, dir, node string) error {
	return askNode(ctx, dir, http.MethodPost, "/remove", url.Values{"node": {node}}, nil)
}

// AskDrain has the coordinator that runs on a folder have a node hand over what it has.
func AskDrain(ctx context.Context, dir, node string) error {
	return askNode(ctx, dir, http.MethodPost, "/drain", url.Values{"node": {node}}, nil)
}

// refusals are the errors that keep their meaning from the node to who asks it.
var refusals = map[int]error{http.StatusNotFound: ErrUnknownNode, http.StatusConflict: ErrNoCoordinator}

// askNode asks the node that runs on a folder.
func askNode(ctx context.Context, dir, method, path string, query url.Values, answer any) error {
	c, done, err := clientOf(dir)
	if err != nil {
		return err
	}
	defer done()
	u := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return err
	}
	r, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNoNode, dir, err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
		said := strings.TrimSpace(string(text))
		if known := refusals[r.StatusCode]; known != nil {
			return &refusal{said, known}
		}
		return errors.New(said)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(r.Body).Decode(answer)
}

// clientOf gives a client of the node that runs on a folder; done ends it.
func clientOf(dir string) (c *http.Client, done func(), err error) {
	socket, end, err := socketOf(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s: %w", ErrNoNode, dir, err)
	}
	c = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	return c, func() { c.CloseIdleConnections(); end() }, nil
}

// refusal is an error of the node as it said it.
type refusal struct {
	said string
	err  error
}

func (r *refusal) Error() string { return r.said }
func (r *refusal) Unwrap() error { return r.err }

// maxSocket is how long the name of a socket may be.
const maxSocket = 107

// socketOf names the socket of a folder, by a way that is short enough; done ends it.
func socketOf(dir string) (name string, done func(), err error) {
	if name = filepath.Join(dir, socketFile); len(name) <= maxSocket {
		return name, func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socketFile), func() { _ = f.Close() }, nil
}

// serveHTTP answers commands at a socket in the folder, and at the address for metrics where there is one, until stop.
func (n *Node) serveHTTP() (stop func(), err error) {
	socket := filepath.Join(n.opt.Dir, socketFile)
	if err := os.Remove(socket); err != nil && !errors.Is(err, iofs.ErrNotExist) { // of a node that was killed
		return nil, fmt.Errorf("server: %w", err)
	}
	commands := http.NewServeMux()
	commands.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(n.status())
	})
	commands.HandleFunc("GET /nodes", answered(func(*http.Request) (any, error) {
		if n.signer == nil {
			return nil, ErrNoCoordinator
		}
		return n.nodes(), nil
	}))
	commands.HandleFunc("POST /token", answered(func(r *http.Request) (any, error) {
		within, err := time.ParseDuration(r.FormValue("for"))
		if err != nil {
			return nil, err
		}
		return n.newToken(within)
	}))
	commands.HandleFunc("POST /remove", answered(func(r *http.Request) (any, error) { return nil, n.remove(r.FormValue("node")) }))
	commands.HandleFunc("POST /drain", answered(func(r *http.Request) (any, error) { return nil, n.drain(r.FormValue("node")) }))
	commands.HandleFunc("POST "+backupPath, n.serveBackup)
	short, done, err := socketOf(n.opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("server: listen for commands: %w", err)
	}
	local, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	done()
	if err != nil {
		return nil, fmt.Errorf("server: listen for commands at %s: %w", socket, err)
	}
	local.SetUnlinkOnClose(false) // its name may be gone by then
	listeners, servers := []net.Listener{local}, []*http.Server{answering(commands)}
	fail := func(err error) (func(), error) {
		for _, l := range listeners {
			_ = l.Close()
		}
		return nil, errors.Join(err, os.Remove(socket))
	}
	listen := func(what, addr string, s *http.Server) error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return fmt.Errorf("server: listen for %s: %w", what, err)
		}
		n.opt.Log.Info(what, "address", l.Addr().String())
		listeners, servers = append(listeners, l), append(servers, s)
		return nil
	}
	if n.opt.HTTP != "" {
		if err := listen("metrics", n.opt.HTTP, answering(n.metrics())); err != nil {
			return fail(err)
		}
	}
	if n.opt.Gateway != "" {
		s, err := n.gateway()
		if err == nil {
			err = listen("gateway", n.opt.Gateway, s)
		}
		if err != nil {
			return fail(err)
		}
	}
	var wg sync.WaitGroup
	for i, l := range listeners {
		s := servers[i]
		wg.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				n.opt.Log.Error("no more answers by HTTP", "err", err)
			}
		})
	}
	return func() {
		for _, s := range servers {
			_ = s.Close()
		}
		wg.Wait()
		_ = os.Remove(socket)
	}, nil
}

// answering is a server of short answers.
func answering(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
}

// gateway is the server of blocks for everybody. How long an answer may take is its handler's to say.
func (n *Node) gateway() (*http.Server, error) {
	h, err := gateway.New(func(ctx context.Context, id block.ID) ([]byte, error) {
		b, err := n.set.Find(ctx, id)
		if err == nil {
			n.gave.Add(1)
			n.gaveBytes.Add(uint64(len(b)))
		}
		return b, err
	})
	return &http.Server{Handler: h, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}, err
}

// answered answers a command with what it gives, or why not.
func answered(fn func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := fn(r)
		if err != nil {
			code := http.StatusBadRequest
			for c, known := range refusals {
				if errors.Is(err, known) {
					code = c
				}
			}
			http.Error(w, err.Error(), code)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

// metrics answers /metrics, /healthz and /readyz. NODES.md names the metrics.
func (n *Node) metrics() *http.ServeMux {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(n.timing.ingest, n.timing.fanout)
	gauge := func(name, help string, fn func(spaces.Totals) float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return fn(n.set.Totals()) }))
	}
	counter := func(name, help string, fn func(spaces.Totals) float64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return fn(n.set.Totals()) }))
	}
	gauge("anyfs_node_spaces", "Spaces that the node holds.", func(t spaces.Totals) float64 { return float64(t.Spaces) })
	gauge("anyfs_node_open_spaces", "Spaces that are in memory.", func(t spaces.Totals) float64 { return float64(t.Open) })
	gauge("anyfs_node_block_bytes", "Bytes of blocks.", func(t spaces.Totals) float64 { return float64(t.Blocks) })
	gauge("anyfs_node_change_bytes", "Bytes of changes and access records.", func(t spaces.Totals) float64 { return float64(t.Log) })
	gauge("anyfs_node_peers", "Devices that are connected and served.", func(spaces.Totals) float64 { return float64(devices(n.engine.Status())) })
	gauge("anyfs_node_nodes", "Other nodes that are connected.", func(spaces.Totals) float64 { return float64(len(n.engine.Mesh())) })
	gauge("anyfs_node_leaving_spaces", "Spaces that are being handed over to other nodes.", func(spaces.Totals) float64 { return float64(n.leaving.Load()) })
	counter("anyfs_node_copied_blocks_total", "Blocks that other nodes gave.", func(t spaces.Totals) float64 { return float64(t.Copies) })
	counter("anyfs_node_copied_bytes_total", "Bytes of these.", func(t spaces.Totals) float64 { return float64(t.Copied) })
	gauge("anyfs_node_network_epoch", "Epoch of the network's configuration.", func(spaces.Totals) float64 { return float64(n.view.Load().Config.Epoch) })
	counter("anyfs_node_uploaded_blocks_total", "Blocks that devices gave.", func(t spaces.Totals) float64 { return float64(t.Uploads) })
	counter("anyfs_node_uploaded_bytes_total", "Bytes of these.", func(t spaces.Totals) float64 { return float64(t.Uploaded) })
	counter("anyfs_node_refused_blocks_total", "Blocks that were refused: no right to write, not admitted, or a quota.", func(t spaces.Totals) float64 { return float64(t.Refused) })
	gauge("anyfs_node_relay_slots", "Devices that can be reached through the node.", func(spaces.Totals) float64 { return float64(n.engine.RelayStatus().Slots) })
	gauge("anyfs_node_relay_connections", "Connections of two devices that it passes on.", func(spaces.Totals) float64 { return float64(n.engine.RelayStatus().Connections) })
	counter("anyfs_node_relayed_connections_total", "Connections of two devices that it passed on.", func(spaces.Totals) float64 { return float64(n.engine.RelayStatus().Passed) })
	counter("anyfs_node_relayed_bytes_total", "Bytes that went over these.", func(spaces.Totals) float64 { return float64(n.engine.RelayStatus().Bytes) })
	counter("anyfs_node_relay_refused_total", "Connections that were asked for and refused or failed.", func(spaces.Totals) float64 { return float64(n.engine.RelayStatus().Refused) })
	s3 := func(fn func(s3blocks.Stats) uint64) func(spaces.Totals) float64 {
		return func(spaces.Totals) float64 {
			if n.s3 == nil {
				return 0
			}
			return float64(fn(n.s3.Stats()))
		}
	}
	counter("anyfs_node_s3_puts_total", "Blocks that were put into the bucket.", s3(func(x s3blocks.Stats) uint64 { return x.Puts }))
	counter("anyfs_node_s3_gets_total", "Blocks that were asked of the bucket.", s3(func(x s3blocks.Stats) uint64 { return x.Gets }))
	counter("anyfs_node_s3_failures_total", "Requests to the S3 store that failed, or gave other bytes.", s3(func(x s3blocks.Stats) uint64 { return x.Failed }))
	counter("anyfs_node_gateway_blocks_total", "Blocks that the gateway read.", func(spaces.Totals) float64 { return float64(n.gave.Load()) })
	counter("anyfs_node_gateway_bytes_total", "Bytes of these.", func(spaces.Totals) float64 { return float64(n.gaveBytes.Load()) })
	m := http.NewServeMux()
	m.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	m.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !n.ready.Load() {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return m
}

// policyEvery is how often a node looks whether its policy has changed.
const policyEvery = time.Second

// followPolicy takes a changed policy over, until ctx ends.
func (n *Node) followPolicy(ctx context.Context) {
	tick := time.NewTicker(policyEvery)
	defer tick.Stop()
	var last string
	for {
		if st, err := os.Stat(filepath.Join(n.opt.Dir, policyFile)); err == nil {
			if now := fmt.Sprint(st.ModTime().UnixNano(), st.Size()); now != last {
				p, err := ReadPolicy(n.opt.Dir)
				if err != nil {
					n.opt.Log.Error("the policy stays as it was", "err", err)
				} else {
					r := p.rules(n.opt.InviteOnly)
					n.rules.Store(r)
					n.engine.Drop(r.admits)
				}
				last = now
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
