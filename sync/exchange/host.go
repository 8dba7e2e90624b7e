package exchange

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"time"

	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

func defaultListen() []string {
	port := strconv.Itoa(DefaultPort)
	return []string{
		"/ip4/0.0.0.0/tcp/" + port, "/ip4/0.0.0.0/udp/" + port + "/quic-v1",
		"/ip6/::/tcp/" + port, "/ip6/::/udp/" + port + "/quic-v1",
	}
}

// limits bound what all peers, and each of them, can take of this device.
func limits() rcmgr.ConcreteLimitConfig {
	l := rcmgr.PartialLimitConfig{
		// What who uses a relay takes of it before it has said what it wants.
		ServicePeer: map[string]rcmgr.ResourceLimits{relay.ServiceName: {Streams: 64, StreamsInbound: 32, StreamsOutbound: 32}},
		System: rcmgr.ResourceLimits{Conns: 256, ConnsInbound: 192, ConnsOutbound: 128, FD: 256, Streams: 8192,
			StreamsInbound: 4096, StreamsOutbound: 4096, Memory: 512 << 20},
		Transient: rcmgr.ResourceLimits{Conns: 64, ConnsInbound: 32, ConnsOutbound: 64, FD: 64, Streams: 256,
			StreamsInbound: 128, StreamsOutbound: 256, Memory: 32 << 20},
		PeerDefault: rcmgr.ResourceLimits{Conns: 8, ConnsInbound: 4, ConnsOutbound: 8, FD: 8, Streams: 2048,
			StreamsInbound: 1024, StreamsOutbound: 1024, Memory: 128 << 20},
		Conn:   rcmgr.ResourceLimits{Memory: 64 << 20},
		Stream: rcmgr.ResourceLimits{Memory: 16 << 20},
	}
	return l.Build(rcmgr.InfiniteLimits)
}

// nodeLimits are those of a node, to which thousands of devices come. What each of them can take is as it is of a device.
func nodeLimits() rcmgr.ConcreteLimitConfig {
	l := rcmgr.PartialLimitConfig{System: rcmgr.ResourceLimits{Conns: 8192, ConnsInbound: 8192, ConnsOutbound: 1024, FD: 8192, Streams: 1 << 17,
		StreamsInbound: 1 << 17, StreamsOutbound: 1 << 17, Memory: 2 << 30}}
	return l.Build(limits())
}

func (e *Engine) newHost() (host.Host, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(e.opt.Key)
	if err != nil {
		return nil, fmt.Errorf("exchange: the device's key: %w", err)
	}
	bounds := limits()
	if e.opt.Serve != nil {
		bounds = nodeLimits()
	}
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(bounds), append(connLimits(), rcmgr.WithMetricsDisabled())...)
	if err != nil {
		return nil, fmt.Errorf("exchange: limits: %w", err)
	}
	relaying := libp2p.DisableRelay() // a node is reached directly, or not at all
	if e.opt.Serve == nil {
		relaying = libp2p.EnableRelay()
	}
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.NoListenAddrs,
		libp2p.Muxer(yamux.ID, muxer()),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(quic.NewTransport),
		libp2p.Security(libp2ptls.ID, newSecured), // first: AES in hardware is faster than what Noise has
		libp2p.Security(noise.ID, noise.New),
		libp2p.ResourceManager(rm),
		libp2p.SwarmOpts(swarm.WithDialRanker(rank)),
		relaying,
		libp2p.DisableMetrics(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.Ping(false),
		libp2p.UserAgent("anyfs"),
		libp2p.ProtocolVersion("anyfs/1"),
	)
	if err != nil {
		return nil, fmt.Errorf("exchange: start the host: %w", err)
	}
	if err := listen(h, e.opt.Listen, e.opt.Fixed); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// streamWindow bounds what of a stream over TCP waits here unread: a peer that never reads our answers has us stop reading its questions.
// It is enough for 20 MB/s over a line of 100 ms. The multiplexer's own bound is 16 MiB.
const streamWindow = 2 << 20

func muxer() *yamux.Transport {
	t := *yamux.DefaultTransport
	t.MaxStreamWindowSize = streamWindow
	return &t
}

// listen listens at each address; where its port is taken, at one of the next, else at any, unless it is fixed. It fails when
// there is none to listen at.
func listen(h host.Host, addrs []string, fixed bool) error {
	var errs []error
	listening := len(addrs) == 0
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return fmt.Errorf("exchange: listen address %q: %w", s, err)
		}
		tries := append(nextPorts(a), withPort(a, 0))
		if fixed {
			tries = tries[:1]
		}
		for _, b := range tries {
			if err = inUse(b); err == nil {
				err = h.Network().Listen(b)
			}
			if err == nil {
				listening = true
				break
			}
			errs = append(errs, fmt.Errorf("%s: %w", b, err))
			if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
				break // with another port it is not there either
			}
		}
		if fixed && errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("exchange: listen at %s: %w", s, err)
		}
	}
	if !listening {
		return fmt.Errorf("exchange: listen: %w", errors.Join(errs...))
	}
	return nil
}

// morePorts is how many ports after the one that was asked for are tried: a second daemon of a machine has the same port each
// time, so that those who know its address find it.
const morePorts = 8

func nextPorts(a ma.Multiaddr) []ma.Multiaddr {
	out := []ma.Multiaddr{a}
	port, err := portOf(a)
	if err != nil || port == 0 {
		return out
	}
	for p := port + 1; p <= min(port+morePorts, 65535); p++ {
		out = append(out, withPort(a, p))
	}
	return out
}

func portOf(a ma.Multiaddr) (int, error) {
	s, err := a.ValueForProtocol(ma.P_TCP)
	if err != nil {
		s, err = a.ValueForProtocol(ma.P_UDP)
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(s)
}

func withPort(a ma.Multiaddr, port int) ma.Multiaddr {
	var out ma.Multiaddr
	for _, c := range a {
		if p := c.Protocol().Code; p == ma.P_TCP || p == ma.P_UDP {
			if z, err := ma.NewComponent(c.Protocol().Name, strconv.Itoa(port)); err == nil {
				c = *z
			}
		}
		out = append(out, c)
	}
	return out
}

// inUse reports a port at which somebody listens. The transport of TCP would share it (SO_REUSEPORT, for dialling from the port
// that it listens at), and of two daemons of one user each would get the connections of the other; that of QUIC does not say what is wrong.
func inUse(a ma.Multiaddr) error {
	host, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_QUIC_V1 })
	addr, err := manet.ToNetAddr(host)
	if u, ok := addr.(*net.UDPAddr); err == nil && ok && u.Port != 0 {
		family := "udp4"
		if u.IP.To4() == nil {
			family = "udp6"
		}
		c, err := net.ListenUDP(family, u)
		if err == nil {
			return c.Close()
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		return nil
	}
	t, ok := addr.(*net.TCPAddr)
	if err != nil || !ok || t.Port == 0 {
		return nil
	}
	family := "tcp4"
	if t.IP.To4() == nil {
		family = "tcp6"
	}
	l, err := net.ListenTCP(family, t)
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return nil // what else is wrong shows when it is listened at
}

// relayDelay is how long the direct addresses of a device are tried alone.
const relayDelay = time.Second

// rank dials private addresses by TCP first, which carries more there, and public ones by QUIC first; the others a little
// later, and relays last.
func rank(addrs []ma.Multiaddr) []network.AddrDelay {
	out := make([]network.AddrDelay, 0, len(addrs))
	alone := !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !relayed(a) })
	for _, a := range addrs {
		if relayed(a) {
			x := network.AddrDelay{Addr: a}
			if !alone {
				x.Delay = relayDelay
			}
			out = append(out, x)
			continue
		}
		_, err := a.ValueForProtocol(ma.P_TCP)
		byTCP, private := err == nil, manet.IsPrivateAddr(a) || manet.IsIPLoopback(a)
		var delay time.Duration
		if byTCP != private {
			delay = 200 * time.Millisecond
		}
		if !private {
			delay += 100 * time.Millisecond
		}
		out = append(out, network.AddrDelay{Addr: a, Delay: delay})
	}
	return out
}

// onLAN says whether an address is one of the local network.
func onLAN(a ma.Multiaddr) bool {
	ip, err := manet.ToIP(a)
	return err == nil && !relayed(a) && (ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast())
}

// mdnsService names anyfs, and nobody who uses it.
const mdnsService = "_anyfs._udp"

// startMDNS announces the host on the local network and dials who is announced there.
func (e *Engine) startMDNS(h host.Host) (stop func(), err error) {
	if !e.opt.MDNS {
		return func() {}, nil
	}
	s := mdns.NewMdnsService(h, mdnsService, found{e})
	if err := s.Start(); err != nil {
		return func() { _ = s.Close() }, err
	}
	return func() { _ = s.Close() }, nil
}

type found struct{ e *Engine }

// HandlePeerFound hears of a peer on the local network.
func (f found) HandlePeerFound(info peer.AddrInfo) {
	if info.ID == f.e.self || len(info.Addrs) > 64 {
		return
	}
	if _, err := deviceOf(info.ID); err != nil {
		return
	}
	f.e.discovered(info)
}

// closePeer ends all connections to a peer.
func (e *Engine) closePeer(id peer.ID) {
	e.mu.Lock()
	h := e.host
	e.mu.Unlock()
	if h != nil {
		_ = h.Network().ClosePeer(id)
	}
}

// handle takes connections and streams.
func (e *Engine) handle(h host.Host) {
	if e.opt.Serve != nil {
		e.serve(h, protocolNode, e.takeVisit)
		e.serve(h, protocolRoom, e.takeRoom)
		if e.opt.Mesh != nil {
			e.serve(h, protocolMesh, e.takeMesh)
		}
		if e.opt.Admit != nil {
			e.serve(h, protocolJoin, e.takeJoin)
		}
		if e.opt.Relay != nil {
			e.serve(h, protocolMeet, e.takeMeet)
		}
	} else {
		e.serve(h, protocolHello, e.takeHello)
		e.serve(h, protocolPair, e.takePair)
	}
	e.serve(h, protocolSpace, e.takeSpace)
	e.serve(h, protocolBlocks, e.takeBlocks)
	e.serve(h, protocolAccess, e.takeAccess)
	e.serve(h, protocolGuest, e.takeGuest)
	h.Network().Notify(&network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			id := c.RemotePeer()
			e.start(func(ctx context.Context) { e.connected(ctx, id) })
		},
		DisconnectedF: func(n network.Network, c network.Conn) { e.lost(n.Connectedness(c.RemotePeer()), c.RemotePeer()) },
	})
	for _, c := range h.Network().Conns() {
		id := c.RemotePeer()
		e.start(func(ctx context.Context) { e.connected(ctx, id) })
	}
}
