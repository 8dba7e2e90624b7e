package spaces_test

import (
	"context"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"golang.org/x/sync/errgroup"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/exchange"
)

// BenchmarkFileNode gives a node 64 MiB in blocks of 1 MiB until it holds them durably (upload), gets as much from it (download), and sends as much over
// a plain stream of libp2p by the same transport (stream). The device's disk is memory, the node's is the folder for temporary files.
func BenchmarkFileNode(b *testing.B) {
	const n, size = 64, 1 << 20
	fill := func(d *device, seed uint64) (ids []block.ID) {
		r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
		data := make([]byte, size)
		for range n {
			_, _ = r.Read(data)
			id, err := d.blocks.Put(data)
			must(b, err)
			ids = append(ids, id)
		}
		return ids
	}
	upload := func(d *device, ids []block.ID) {
		missing, err := d.e.Upload(b.Context(), d.space.ID(), dag.PublicKey{}, ids)
		if err != nil || len(missing) > 0 {
			b.Fatal(len(missing), err)
		}
	}
	b.Run("upload", func(b *testing.B) {
		d := newDevice(b, newNode(b, b.TempDir(), spaces.Options{}))
		d.equal(b)
		b.SetBytes(n * size)
		var used time.Duration
		n := 0
		for seed := uint64(1); b.Loop(); seed++ {
			b.StopTimer()
			ids := fill(d, seed)
			before := cpu()
			b.StartTimer()
			upload(d, ids)
			b.StopTimer()
			used += cpu() - before
			n++
			b.StartTimer()
		}
		b.ReportMetric(float64(used.Milliseconds())/float64(n), "cpu-ms/op")
	})
	b.Run("download", func(b *testing.B) {
		d := newDevice(b, newNode(b, b.TempDir(), spaces.Options{}))
		d.equal(b)
		ids := fill(d, 0)
		upload(d, ids)
		ahead := exchange.Prefetch(context.Background())
		f := d.e.Fetcher(d.space.ID())
		b.SetBytes(n * size)
		before := cpu()
		defer func() { b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op") }()
		for b.Loop() {
			var g errgroup.Group
			g.SetLimit(32)
			for _, id := range ids {
				g.Go(func() error { _, err := f.Fetch(ahead, id); return err })
			}
			must(b, g.Wait())
		}
	})
	b.Run("stream", func(b *testing.B) {
		var hosts [2]host.Host
		for i := range hosts {
			h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport),
				libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.DisableMetrics(), libp2p.DisableRelay())
			must(b, err)
			b.Cleanup(func() { h.Close() })
			hosts[i] = h
		}
		got := make(chan struct{})
		hosts[1].SetStreamHandler("/plain", func(s network.Stream) {
			buf := make([]byte, size)
			for {
				for range n {
					if _, err := io.ReadFull(s, buf); err != nil {
						return
					}
				}
				got <- struct{}{}
			}
		})
		must(b, hosts[0].Connect(b.Context(), peer.AddrInfo{ID: hosts[1].ID(), Addrs: hosts[1].Addrs()}))
		s, err := hosts[0].NewStream(b.Context(), hosts[1].ID(), "/plain")
		must(b, err)
		data := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{}).Read(data)
		b.SetBytes(n * size)
		before := cpu()
		defer func() { b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op") }()
		for b.Loop() {
			for range n {
				_, err := s.Write(data)
				must(b, err)
			}
			<-got
		}
		_ = s.Close()
	})
}

// cpu is what the process has used of the processors.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
