package server

import (
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"path/filepath"
	"slices"

	ma "github.com/multiformats/go-multiaddr"
)

// listening is where a node listens: what it was told, and with the ports that it chose.
type listening struct {
	Told   []string `json:"told"`
	Chosen []string `json:"chosen"`
}

// choosePorts gives the addresses to listen at, with a port in the place of each 0. What was chosen before for the same addresses stays.
func (n *Node) choosePorts() ([]string, error) {
	var was listening
	b, err := n.disk.ReadFile(listenFile)
	if err == nil {
		err = json.Unmarshal(b, &was)
	}
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return nil, fmt.Errorf("server: where the node listened, in %s (without it, ports are chosen anew): %w", filepath.Join(n.opt.Dir, listenFile), err)
	}
	if slices.Equal(was.Told, n.opt.Listen) {
		return was.Chosen, nil
	}
	now := listening{Told: n.opt.Listen}
	for _, s := range n.opt.Listen {
		a, err := withPort(s)
		if err != nil {
			return nil, fmt.Errorf("server: listen at %q: %w", s, err)
		}
		now.Chosen = append(now.Chosen, a)
	}
	b, err = json.MarshalIndent(now, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := n.disk.WriteFileAtomic(listenFile, append(b, '\n')); err != nil {
		return nil, fmt.Errorf("server: keep where the node listens: %w", err)
	}
	return now.Chosen, nil
}

// withPort puts a port that is free now in the place of 0.
func withPort(s string) (string, error) {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return "", err
	}
	var out ma.Multiaddr
	for i, c := range a {
		code := c.Protocol().Code
		if (code == ma.P_TCP || code == ma.P_UDP) && c.Value() == "0" && i > 0 {
			port, err := freePort(a[i-1].Value(), code == ma.P_UDP)
			if err != nil {
				return "", err
			}
			z, err := ma.NewComponent(c.Protocol().Name, fmt.Sprint(port))
			if err != nil {
				return "", err
			}
			c = *z
		}
		out = append(out, c)
	}
	return out.String(), nil
}

func freePort(ip string, udp bool) (int, error) {
	host := net.JoinHostPort(ip, "0")
	if udp {
		c, err := net.ListenPacket("udp", host)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).Port, nil
	}
	l, err := net.Listen("tcp", host)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
