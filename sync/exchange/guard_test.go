package exchange

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
)

// One address gets so many connections, at once and one after the other; others get theirs beside it, also on a network of one prefix.
func TestConnectionsByAddress(t *testing.T) {
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits()), append(connLimits(), rcmgr.WithMetricsDisabled())...)
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	connect := func(addr string) (network.ConnManagementScope, bool) {
		a, err := ma.NewMultiaddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := rm.OpenConnection(network.DirInbound, true, a)
		return c, err == nil
	}
	for _, c := range []struct {
		addr   string
		others string // another address, with a place for a number
		atOnce int
		most   int // of 200, one after the other
	}{
		{"/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.%d/tcp/1", 16, 70},
		{"/ip6/fe80::1/tcp/1", "/ip6/fe80::%d/tcp/1", 16, 70},
	} {
		var open []network.ConnManagementScope
		for range 60 {
			if s, ok := connect(c.addr); ok {
				open = append(open, s)
			}
		}
		if len(open) != c.atOnce {
			t.Errorf("%s: %d connections at once", c.addr, len(open))
		}
		for n := range 10 { // devices of the same network
			if s, ok := connect(fmt.Sprintf(c.others, n+2)); !ok {
				t.Errorf("%s: another device is kept out", c.addr)
			} else {
				s.Done()
			}
		}
		for _, s := range open {
			s.Done()
		}
		taken := 0
		for range 200 {
			if s, ok := connect(c.addr); ok {
				taken++
				s.Done()
			}
		}
		if taken > c.most {
			t.Errorf("%s: %d connections one after the other", c.addr, taken)
		}
	}
}

func TestAddrKey(t *testing.T) {
	for addr, want := range map[string]string{
		"/ip4/10.0.0.1/tcp/7":              "10.0.0.1",
		"/ip6/2001:db8::1/udp/7/quic-v1":   "2001:db8::/64",
		"/ip6/2001:db8::2/tcp/8":           "2001:db8::/64",
		"/ip6/fe80::1/tcp/8":               "fe80::1",
		"/ip6/::ffff:10.0.0.1/tcp/8":       "10.0.0.1",
		"/dns4/example.org/tcp/8":          "",
		"/ip4/10.0.0.1/udp/7/quic-v1":      "10.0.0.1",
		"/ip6/2001:db8:0:1::1/udp/7":       "2001:db8:0:1::/64",
		"/ip4/127.0.0.1/tcp/7/p2p-circuit": "127.0.0.1",
	} {
		a, err := ma.NewMultiaddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := addrKey(a); got != want {
			t.Errorf("%s: %s", addr, got)
		}
	}
}
