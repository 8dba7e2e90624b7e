package exchange

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"
)

// The network of a laptop comes up after its daemon, changes its address, and is away while the lid is closed. mDNS listens on the interfaces
// that there were when it began, and tells of a neighbour once in the hour that its answer is good for, so it begins anew when addresses
// change, when the machine slept, and from time to time while somebody is missing.

const (
	lookAtNetwork = 3 * time.Second
	seekMissing   = 5 * time.Minute  // between searches while somebody is missing
	slept         = 15 * time.Second // of wall time in which no timer ran
)

// roam keeps discovery and connections in step with the machine's network until ctx ends.
func (e *Engine) roam(ctx context.Context, h host.Host) {
	addrs := localAddrs()
	stop, err := e.startMDNS(h)
	if err != nil {
		e.log.Warn("no discovery on the local network", "err", err)
	}
	defer func() { stop() }()
	tick := time.NewTicker(lookAtNetwork)
	defer tick.Stop()
	// Wall time goes on while the machine sleeps, the clock of timers does not.
	last, sought := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		awake := now.Sub(last)
		woke := now.Round(0).Sub(last.Round(0))-awake > slept
		last = now
		is := localAddrs()
		moved := !slices.Equal(is, addrs)
		if !moved && !woke && !(now.Sub(sought) > seekMissing && e.missesSome(h)) {
			continue
		}
		if sought = now; moved || woke {
			e.log.Info("the network has changed", "addresses", is, "slept", woke)
			closeStale(h, is, woke)
			e.mu.Lock()
			e.dialNow()
			e.mu.Unlock()
			e.noteChange()
		}
		addrs = is
		stop()
		if stop, err = e.startMDNS(h); err != nil {
			e.log.Debug("no discovery on the local network", "err", err)
		}
	}
}

// missesSome says whether a peer that was found on the local network, or every peer, is not connected.
func (e *Engine) missesSome(h host.Host) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.missing) > 0 || len(e.remotes) == 0 {
		return true
	}
	for _, d := range e.dials {
		if !d.static && len(d.addrs) > 0 && h.Network().Connectedness(d.id) != network.Connected {
			return true
		}
	}
	return false
}

// closeStale closes the connections that begin at an address which is not this machine's any more, or all (after a sleep the other end has
// long given up, and it may take minutes to show).
func closeStale(h host.Host, addrs []string, all bool) {
	for _, c := range h.Network().Conns() {
		ip, err := manet.ToIP(c.LocalMultiaddr())
		if err != nil || ip.IsLoopback() || ip.IsUnspecified() {
			continue
		}
		if all || !slices.Contains(addrs, ip.String()) {
			_ = c.Close()
		}
	}
}

// localAddrs are the addresses of the interfaces that are up, in order, but for those of the machine itself.
func localAddrs() (out []string) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			out = append(out, n.IP.String())
		}
	}
	slices.Sort(out)
	return out
}
