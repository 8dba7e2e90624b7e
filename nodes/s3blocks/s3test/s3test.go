// Package s3test runs a real S3 server for tests: that of rclone, on a folder.
package s3test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What the server goes by.
const (
	Bucket = "blocks"
	Key    = "anyfs-test-key"
	Secret = "anyfs-test-secret"
)

// Server is a process. Its methods are called by the test's goroutine.
type Server struct {
	URL string
	Dir string // what it serves: a folder for each bucket

	t    testing.TB
	addr string
	cmd  *exec.Cmd
}

// Start starts a server with an empty bucket, until the test ends. Where there is no rclone that can, the test is skipped, and fails where CI is set.
func Start(t testing.TB) *Server {
	t.Helper()
	program, err := exec.LookPath("rclone")
	if err == nil {
		var help []byte
		if help, err = exec.Command(program, "serve", "--help").CombinedOutput(); err == nil && !bytes.Contains(help, []byte("\n  s3 ")) {
			err = exec.ErrNotFound
		}
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs the program rclone, with 'rclone serve s3' (1.65 or newer)")
		}
		t.Skip("this test needs the program rclone, with 'rclone serve s3' (1.65 or newer)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, addr: l.Addr().String(), Dir: t.TempDir()}
	l.Close()
	s.URL = "http://" + s.addr
	if err := os.Mkdir(filepath.Join(s.Dir, Bucket), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	s.Start()
	return s
}

// Start starts the server again.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command("rclone", "serve", "s3", "--addr", s.addr, "--auth-key", Key+","+Secret, "--config", os.DevNull, s.Dir)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			s.t.Fatal(err)
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

// Env is the environment of who uses the server.
func (s *Server) Env() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": Key, "AWS_SECRET_ACCESS_KEY": Secret, "AWS_REGION": "us-east-1"}
}
