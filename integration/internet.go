package integration

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// NAT is what a router does between a host behind it and the internet. It lets in only what answers what the host sent.
type NAT int

// The kinds of routers.
const (
	NoNAT     NAT = iota // the host has a public address, and is let alone
	Cone                 // one public port for each port of the host, whomever it speaks to: a hole can be made
	Symmetric            // another public port for each that it speaks to
)

// Internet is hosts that are each behind a router of their own, or none. It carries TCP and UDP over IPv4 between public addresses, and nothing else:
// no host sees a frame of another. The routers are in this process, so that it takes no kernel with NAT.
type Internet struct {
	LAN
	sites []*site
}

// site is a host with its router.
type site struct {
	host    *Host
	nat     NAT
	private netip.Addr
	public  netip.Addr

	mu     sync.Mutex
	closed bool // it lets no new flow to or from other hosts than the first through: as a firewall does that lets one server alone be reached
	out    map[flow]uint16
	in     map[mapping]netip.AddrPort // the port of the host
	let    map[flow]bool
}

// flow is what a host speaks from and to; to is zero where the router does not tell apart.
type flow struct {
	proto    byte
	from, to netip.AddrPort
}

// mapping is a public port of a router.
type mapping struct {
	proto byte
	port  uint16
}

var routerMAC = [6]byte{2, 0x77, 0, 0, 1, 0}

// NewInternet makes a host for each kind of router. Those behind one are at 10.I.0.2, and seen as 11.77.0.I; those without are at 11.77.0.I.
func NewInternet(t testing.TB, nats ...NAT) *Internet {
	t.Helper()
	n := &Internet{}
	for i, kind := range nats {
		s := &site{nat: kind, public: netip.AddrFrom4([4]byte{11, 77, 0, byte(i + 1)}), out: map[flow]uint16{}, in: map[mapping]netip.AddrPort{}, let: map[flow]bool{}}
		if s.private = s.public; kind != NoNAT {
			s.private = netip.AddrFrom4([4]byte{10, byte(i + 1), 0, 2})
		}
		n.sites = append(n.sites, s)
	}
	n.route = n.routeFrom
	n.start(t, len(nats), func(h *Host, i int) [][]string {
		s := n.sites[i]
		s.host, h.Addr = h, s.private
		gw := netip.PrefixFrom(s.private, 24).Masked().Addr().Next().As4()
		gw[3] = 254
		return [][]string{
			{"link", "set", "lan0", "address", fmt.Sprintf("02:77:00:00:00:%02x", i+1)},
			{"addr", "add", s.private.String() + "/24", "dev", "lan0"}, {"link", "set", "lan0", "up"},
			{"route", "add", "default", "via", netip.AddrFrom4(gw).String()},
		}
	})
	return n
}

// Shut has the router of a host let through only what goes to or from the first host; false: as it was.
func (n *Internet) Shut(i int, closed bool) {
	s := n.sites[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = closed
}

// routeFrom takes what a host sends: it answers for all neighbours, and carries what goes to a public address.
func (n *Internet) routeFrom(h *Host) func(frame []byte) {
	return func(frame []byte) {
		if len(frame) < 42 {
			return
		}
		var from *site
		for _, s := range n.sites {
			if s.host == h {
				from = s
			}
		}
		switch binary.BigEndian.Uint16(frame[12:]) {
		case 0x0806:
			if binary.BigEndian.Uint16(frame[20:]) == 1 && [4]byte(frame[38:42]) != from.private.As4() {
				h.put(&h.down, arpAnswer(frame))
			}
		case 0x0800:
			n.carry(from, append([]byte(nil), frame...))
		}
	}
}

func arpAnswer(ask []byte) []byte {
	a := append([]byte(nil), ask[:42]...)
	copy(a[0:], ask[6:12])
	copy(a[6:], routerMAC[:])
	a[21] = 2
	copy(a[22:], routerMAC[:])
	copy(a[28:], ask[38:42])
	copy(a[32:], ask[22:32])
	return a
}

// carry takes a packet through the routers of both sides.
func (n *Internet) carry(from *site, f []byte) {
	p := f[14:]
	head := int(p[0]&15) * 4
	if p[0]>>4 != 4 || len(p) < head+8 || (p[9] != unix.IPPROTO_TCP && p[9] != unix.IPPROTO_UDP) {
		return
	}
	if total := int(binary.BigEndian.Uint16(p[2:])); total <= len(p) && total >= head+8 {
		p = p[:total] // what pads a short frame is none of it
	}
	src := netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[12:16])), binary.BigEndian.Uint16(p[head:]))
	dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[16:20])), binary.BigEndian.Uint16(p[head+2:]))
	var to *site
	for _, s := range n.sites {
		if s.public == dst.Addr() {
			to = s
		}
	}
	if to == nil || src.Addr() != from.private {
		return
	}
	src, ok := from.leave(p[9], src, dst, to == n.sites[0])
	if ok {
		dst, ok = to.enter(p[9], src, dst, from == n.sites[0])
	}
	if !ok {
		return
	}
	a, b := src.Addr().As4(), dst.Addr().As4()
	copy(p[12:], a[:])
	copy(p[16:], b[:])
	binary.BigEndian.PutUint16(p[head:], src.Port())
	binary.BigEndian.PutUint16(p[head+2:], dst.Port())
	sums(p, head)
	copy(f[0:], []byte{2, 0x77, 0, 0, 0, byte(to.public.As4()[3])})
	copy(f[6:], routerMAC[:])
	to.host.put(&to.host.down, f[:14+len(p)])
}

// leave gives what a packet of the host comes from outside.
func (s *site) leave(proto byte, src, dst netip.AddrPort, first bool) (netip.AddrPort, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && !first {
		return src, false
	}
	if s.nat == NoNAT {
		return src, true
	}
	k := flow{proto: proto, from: src}
	if s.nat == Symmetric {
		k.to = dst
	}
	port, ok := s.out[k]
	for !ok {
		port = 20000 + uint16(rand.N(40000))
		if _, taken := s.in[mapping{proto, port}]; !taken {
			s.out[k], s.in[mapping{proto, port}], ok = port, src, true
		}
	}
	out := netip.AddrPortFrom(s.public, port)
	s.let[flow{proto, out, dst}] = true
	return out, true
}

// enter gives where a packet that comes from outside goes.
func (s *site) enter(proto byte, src, dst netip.AddrPort, first bool) (netip.AddrPort, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed && !first {
		return dst, false
	}
	if s.nat == NoNAT {
		return dst, true
	}
	host, ok := s.in[mapping{proto, dst.Port()}]
	return host, ok && s.let[flow{proto, dst, src}]
}

// sums makes the checksums of a packet anew.
func sums(p []byte, head int) {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^fold(add(0, p[:head])))
	body := p[head:]
	at := 16 // in TCP
	if p[9] == unix.IPPROTO_UDP {
		at = 6
	}
	if len(body) < at+2 {
		return
	}
	body[at], body[at+1] = 0, 0
	s := add(0, p[12:20]) + uint32(p[9]) + uint32(len(body))
	sum := ^fold(add(s, body))
	if sum == 0 && p[9] == unix.IPPROTO_UDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(body[at:], sum)
}

func add(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
