package integration

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// socketsOf gives the sockets of the network that a process listens at, or has open for datagrams: "tcp 0100007F:1F90".
func socketsOf(t *testing.T, pid int) (out []string) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	check(t, err)
	own := map[string]bool{}
	for _, fd := range fds {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.Trim(to[len("socket:"):], "[]")] = true
		}
	}
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, kind))
		check(t, err)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 9 && own[f[9]] && (f[3] == "0A" || strings.HasPrefix(kind, "udp")) {
				out = append(out, kind+" "+f[1])
			}
		}
	}
	return out
}

// TestDaemonHasNoWebserver: a daemon answers commands at a socket in its home alone, which is its user's; by the network it listens at no address where it was told none, and
// else at those of the exchange, which speak no HTTP. So no page that a person visits can ask it for anything.
func TestDaemonHasNoWebserver(t *testing.T) {
	h := Mounted(t) // --listen none
	if got := socketsOf(t, h.PID()); len(got) > 0 {
		t.Errorf("it listens at %q", got)
	}
	st, err := os.Stat(filepath.Join(h.Dir, "control.sock"))
	check(t, err)
	if st.Mode()&os.ModeSocket == 0 || st.Mode().Perm()&0o077 != 0 {
		t.Errorf("the socket of commands is %v", st.Mode())
	}
	h.Unmount()
	h.Listen = "/ip4/127.0.0.1/tcp/0"
	h.Mount("--no-discovery")
	listen := h.SyncStatus().Listen
	got := socketsOf(t, h.PID())
	tcp := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return !strings.HasPrefix(s, "tcp") })
	if len(tcp) != 1 || len(got) != len(tcp) || len(listen) == 0 {
		t.Fatalf("it listens at %q, and says %q", got, listen)
	}
	info, err := peer.AddrInfoFromString(listen[0])
	check(t, err)
	port, err := info.Addrs[0].ValueForProtocol(6) // tcp
	check(t, err)
	c := http.Client{Timeout: 5 * time.Second}
	if r, err := c.Get("http://127.0.0.1:" + port + "/"); err == nil {
		b, _ := io.ReadAll(r.Body)
		t.Errorf("it answers by HTTP: %s %q", r.Status, b)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Logf("no answer: %v", err)
	}
}
