package integration

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal runs a program on a terminal of its own, for editors and prompts.
type Terminal struct {
	t    testing.TB
	cmd  *exec.Cmd
	file *os.File // the side of the person
	done chan struct{}
	mu   sync.Mutex // guards seen
	seen []byte
}

// StartTerminal starts cmd on a new terminal of 80 by 24 characters.
func StartTerminal(t testing.TB, cmd *exec.Cmd) *Terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80})
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term := &Terminal{t: t, cmd: cmd, file: master, done: make(chan struct{})}
	go term.read()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = master.Close()
		<-term.done
	})
	return term
}

func (m *Terminal) read() {
	defer close(m.done)
	buf := make([]byte, 4096)
	for {
		n, err := m.file.Read(buf)
		m.mu.Lock()
		m.seen = append(m.seen, buf[:n]...)
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Seen is what the program has shown so far.
func (m *Terminal) Seen() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.seen)
}

// Await waits until the program has shown something that ok accepts.
func (m *Terminal) Await(what string, ok func(seen string) bool) {
	m.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(m.Seen()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("waited in vain for %s; the terminal shows %q", what, m.Seen())
		}
	}
}

// Type sends keys.
func (m *Terminal) Type(keys string) {
	m.t.Helper()
	if _, err := m.file.WriteString(keys); err != nil {
		m.t.Fatal(err)
	}
}

// Echoes reports whether the terminal shows what is typed.
func (m *Terminal) Echoes() bool {
	m.t.Helper()
	s, err := unix.IoctlGetTermios(int(m.file.Fd()), unix.TCGETS)
	if err != nil {
		m.t.Fatal(err)
	}
	return s.Lflag&unix.ECHO != 0
}

// Wait waits for the program's end and gives its exit code.
func (m *Terminal) Wait() int {
	m.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = m.cmd.Process.Kill() })
	defer timer.Stop()
	_ = m.cmd.Wait()
	return m.cmd.ProcessState.ExitCode()
}
