package mount

import (
	"fmt"
	"net"
	"os"
	"sync"
)

// supervisorEnv names the socket at which a service manager takes messages, as sd_notify(3) says.
const supervisorEnv = "NOTIFY_SOCKET"

// Supervisor is the service manager that started this process, where one did that wants to be told of its state (systemd, Type=notify).
// The zero Supervisor tells nobody. It is safe for concurrent use.
type Supervisor struct {
	mu   sync.Mutex
	conn *net.UnixConn // nil: there is none
}

// Supervised reports whether there is a service manager to tell, before FromSupervisor.
func Supervised() bool { return os.Getenv(supervisorEnv) != "" }

// FromSupervisor finds the service manager, and hides it from the processes that this one starts.
func FromSupervisor() (*Supervisor, error) {
	name := os.Getenv(supervisorEnv)
	if name == "" {
		return &Supervisor{}, nil
	}
	if err := os.Unsetenv(supervisorEnv); err != nil {
		return nil, err
	}
	// A name that begins with @ is an abstract one, as net has it too.
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("tell the service manager at $%s: %w", supervisorEnv, err)
	}
	return &Supervisor{conn: c}, nil
}

// Ready says that what was started can be used, and in a few words what that is.
func (s *Supervisor) Ready(status string) error {
	return s.tell("READY=1\nSTATUS=" + oneLine(status))
}

// Stopping says that the daemon is about to end.
func (s *Supervisor) Stopping() error { return s.tell("STOPPING=1\nSTATUS=making everything durable") }

func (s *Supervisor) tell(state string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	if _, err := s.conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}

// Close lets go of the service manager.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return nil
	}
	defer func() { s.conn = nil }()
	return s.conn.Close()
}

// oneLine is a text that ends no line of a message.
func oneLine(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' {
			b[i] = '?'
		}
	}
	return string(b)
}
