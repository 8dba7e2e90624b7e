package exchange_test

import (
	"context"
	"io"
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

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/exchange"
)

// BenchmarkBlocks fetches 64 MiB in blocks of 1 MiB ahead of need (blocks), also verified and kept (kept), and sends as much over a plain
// stream of libp2p over the same transport (stream). The disks are memory.
func BenchmarkBlocks(b *testing.B) {
	const n, size = 64, 1 << 20
	blocks := func(b *testing.B, get func(rb *replica, id block.ID) error) {
		x := newDevice(b, 1, 1)
		y := newDevice(b, 1, 2, x.addr("/tcp/"))
		ra, rb := newReplica(b, x, "one"), newReplica(b, y, "one")
		x.e.Add(ra.Replica)
		y.e.Add(rb.Replica)
		eventually(b, func() bool { st := y.e.Status().Spaces[0]; return len(st.Peers) == 1 && st.Peers[0].Equal })
		var ids []block.ID
		for i := range n {
			id, err := ra.Blocks.(*block.Store).Put(random(byte(i), size))
			must(b, err)
			ids = append(ids, id)
		}
		b.SetBytes(n * size)
		before := cpu()
		defer func() { b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(b.N), "cpu-ms/op") }()
		for b.Loop() {
			var g errgroup.Group
			g.SetLimit(32)
			for _, id := range ids {
				g.Go(func() error { return get(rb, id) })
			}
			must(b, g.Wait())
		}
	}
	ahead := exchange.Prefetch(context.Background())
	b.Run("blocks", func(b *testing.B) {
		blocks(b, func(rb *replica, id block.ID) error {
			_, err := rb.fetcher().Fetch(ahead, id)
			return err
		})
	})
	b.Run("kept", func(b *testing.B) {
		blocks(b, func(rb *replica, id block.ID) error {
			data, err := rb.fetcher().Fetch(ahead, id)
			if err == nil {
				err = rb.Blocks.(*block.Store).PutHashed(id, data)
			}
			return err
		})
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
		data := random(1, size)
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
