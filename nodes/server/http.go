package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"net/http"
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
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/spaces"
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
	InviteOnly bool          `json:"invite_only"`
	Peers      int           `json:"peers"`
	Totals     spaces.Totals `json:"totals"`
	Spaces     []SpaceStatus `json:"spaces"`
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
	c, e := n.config.Load(), n.engine.Status()
	s := Status{
		Network: network.Name(c.ID), Epoch: c.Epoch, PeerID: e.ID, Listen: e.Listen, InviteOnly: n.opt.InviteOnly, Peers: len(e.Peers),
		Totals: n.set.Totals(), Spaces: []SpaceStatus{},
	}
	for id, x := range n.set.Usages() {
		_, one := n.rules.Load().quota(x.Owner, id)
		s.Spaces = append(s.Spaces, SpaceStatus{id.String(), list.FormatIdentity(x.Owner), x.Blocks, x.Log, one})
	}
	slices.SortFunc(s.Spaces, func(a, b SpaceStatus) int { return strings.Compare(a.ID, b.ID) })
	return s
}

// AskStatus asks the node that runs on a folder.
func AskStatus(ctx context.Context, dir string) (s Status, err error) {
	socket, done, err := socketOf(dir)
	if err != nil {
		return s, fmt.Errorf("%w: %s: %w", ErrNoNode, dir, err)
	}
	defer done()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/status", nil)
	if err != nil {
		return s, err
	}
	r, err := c.Do(req)
	if err != nil {
		return s, fmt.Errorf("%w: %s: %w", ErrNoNode, dir, err)
	}
	defer r.Body.Close()
	return s, json.NewDecoder(r.Body).Decode(&s)
}

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
	listeners, muxes := []net.Listener{local}, []*http.ServeMux{commands}
	if n.opt.HTTP != "" {
		l, err := net.Listen("tcp", n.opt.HTTP)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("server: listen for metrics: %w", err), local.Close(), os.Remove(socket))
		}
		n.opt.Log.Info("metrics", "address", l.Addr().String())
		listeners, muxes = append(listeners, l), append(muxes, n.metrics())
	}
	var wg sync.WaitGroup
	var servers []*http.Server
	for i, l := range listeners {
		s := &http.Server{Handler: muxes[i], ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10}
		servers = append(servers, s)
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

// metrics answers /metrics, /healthz and /readyz. NODES.md names the metrics.
func (n *Node) metrics() *http.ServeMux {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
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
	gauge("anyfs_node_peers", "Devices that are connected and served.", func(spaces.Totals) float64 { return float64(len(n.engine.Status().Peers)) })
	gauge("anyfs_node_network_epoch", "Epoch of the network's configuration.", func(spaces.Totals) float64 { return float64(n.config.Load().Epoch) })
	counter("anyfs_node_uploaded_blocks_total", "Blocks that devices gave.", func(t spaces.Totals) float64 { return float64(t.Uploads) })
	counter("anyfs_node_uploaded_bytes_total", "Bytes of these.", func(t spaces.Totals) float64 { return float64(t.Uploaded) })
	counter("anyfs_node_refused_blocks_total", "Blocks that were refused: no right to write, not admitted, or a quota.", func(t spaces.Totals) float64 { return float64(t.Refused) })
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
