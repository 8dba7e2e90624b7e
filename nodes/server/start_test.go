package server_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/server"
)

// start is what a node ends with that is not to start; it ends by itself.
func start(t *testing.T, opt server.Options) error {
	n, err := server.Open(opt)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = n.Run(ctx, func(*network.Config) error { cancel(); return nil })
	if ctx.Err() != nil {
		err = nil // it started
	}
	if cerr := n.Close(); cerr != nil {
		t.Error(cerr)
	}
	return err
}

func TestPortInUse(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for name, listen := range map[string][]string{
		"tcp":        {multi(tcp.Addr(), "tcp", "")},
		"quic":       {multi(udp.LocalAddr(), "udp", "/quic-v1")},
		"one of two": {loopback, multi(udp.LocalAddr(), "udp", "/quic-v1")},
	} {
		t.Run(name, func(t *testing.T) {
			err := start(t, server.Options{Dir: t.TempDir(), Listen: listen})
			if err == nil || !strings.Contains(err.Error(), "in use") {
				t.Errorf("%v", err)
			}
		})
	}
}

func multi(a net.Addr, proto, rest string) string {
	host, port, _ := net.SplitHostPort(a.String())
	return "/ip4/" + host + "/" + proto + "/" + port + rest
}

// A folder may have a name that is longer than a socket's may be.
func TestLongFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	_, stop := run(t, server.Options{Dir: dir, Listen: []string{loopback}})
	if _, err := server.AskStatus(t.Context(), dir); err != nil {
		t.Error(err)
	}
	stop()
	if _, err := server.AskStatus(t.Context(), dir); !errors.Is(err, server.ErrNoNode) {
		t.Errorf("status of a node that has ended: %v", err)
	}
}

// A damaged policy keeps a node from starting, which would serve those whom its operator does not admit: the error says what to do.
func TestDamagedFiles(t *testing.T) {
	for _, name := range []string{"policy.json", "listen", "network.json", "node.key"} {
		dir := t.TempDir()
		if err := start(t, server.Options{Dir: dir, Listen: []string{loopback}}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := start(t, server.Options{Dir: dir, Listen: []string{loopback}})
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
