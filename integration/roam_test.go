package integration

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// ip configures the host's Ethernet device.
func (h *Host) ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := h.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// TestRoaming: a device whose network comes up after its daemon, goes away, and gives it another address, finds the others each time
// within seconds.
func TestRoaming(t *testing.T) {
	t.Parallel() // it mostly waits
	l := NewLAN(t, 2)
	roams := l.Hosts[1]
	roams.ip(t, "addr", "flush", "dev", "lan0")
	roams.ip(t, "link", "set", "lan0", "down")
	d := NewLANDevices(t, l, nil)
	write := func(text string) {
		t.Helper()
		began := time.Now()
		check(t, os.WriteFile(d.All[0].Personal("note"), []byte(text), 0o644))
		d.Eventually(text, func() error { return wantFile(d.All[1].Personal("note"), text) })
		t.Logf("%s: after %v", text, time.Since(began).Round(10*time.Millisecond))
	}
	roams.ip(t, "link", "set", "lan0", "up")
	roams.ip(t, "addr", "add", "10.77.0.2/24", "dev", "lan0")
	write("the network came up after the daemon")

	roams.ip(t, "addr", "flush", "dev", "lan0")
	roams.ip(t, "addr", "add", "10.77.0.99/24", "dev", "lan0")
	write("it has another address")

	roams.ip(t, "addr", "flush", "dev", "lan0")
	roams.ip(t, "link", "set", "lan0", "down")
	time.Sleep(3 * time.Second)
	roams.ip(t, "link", "set", "lan0", "up")
	roams.ip(t, "addr", "add", "10.77.0.55/24", "dev", "lan0")
	write("it was away, and came back with a third address")
}

// wantFile fails while a file holds anything else.
func wantFile(path, want string) error {
	b, err := os.ReadFile(path)
	if err == nil && string(b) != want {
		err = fmt.Errorf("%s holds %q, not %q", path, b, want)
	}
	return err
}
