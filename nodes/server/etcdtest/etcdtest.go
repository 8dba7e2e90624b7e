// Package etcdtest runs a real etcd for tests.
package etcdtest

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Server is an etcd of one member. Its methods are called by the test's goroutine.
type Server struct {
	URL string

	t    testing.TB
	dir  string
	peer string
	cmd  *exec.Cmd
}

// Start starts an etcd, until the test ends. Where there is none, the test is skipped, and fails where CI is set.
func Start(t testing.TB) *Server {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs the program etcd (Debian: etcd-server)")
		}
		t.Skip("this test needs the program etcd (Debian: etcd-server)")
	}
	s := &Server{t: t, dir: filepath.Join(t.TempDir(), "etcd"), URL: "http://" + free(t), peer: "http://" + free(t)}
	t.Cleanup(s.Stop)
	s.Start()
	return s
}

func free(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Start starts the server again, and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command("etcd", "--name", "one", "--data-dir", s.dir, "--listen-client-urls", s.URL, "--advertise-client-urls", s.URL,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer, "--initial-cluster", "one="+s.peer)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		r, err := http.Get(s.URL + "/health")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("etcd does not start: %v", err)
		}
	}
}

// Stop kills the server. What it answered for is on its disk.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Wipe removes what the server keeps, while it does not run.
func (s *Server) Wipe() {
	s.t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Fatal(err)
	}
}
