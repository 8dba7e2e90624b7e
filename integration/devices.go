package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// syncPatience is for how long devices may take to agree.
const syncPatience = time.Minute

// Devices are the homes of one account, each mounted, that exchange over loopback.
type Devices struct {
	t   testing.TB
	All []*Home
}

// NewDevices makes n devices of one account and connects each with the first.
func NewDevices(t testing.TB, n int) *Devices {
	t.Helper()
	NeedFUSE(t)
	d := &Devices{t: t}
	for i := range n {
		h := NewHome(t)
		h.Listen = "/ip4/127.0.0.1/tcp/0"
		if i > 0 {
			d.login(h, i)
		}
		h.Mount("--no-discovery")
		d.All = append(d.All, h)
		if i > 0 {
			d.Connect(d.All[0], h)
		}
	}
	return d
}

// NewLANDevices makes a device of one account on each host of a network; they find each other by mDNS. listen gives where a host
// listens; nil: as devices do by themselves.
func NewLANDevices(t testing.TB, l *LAN, listen func(*Host) string) *Devices {
	t.Helper()
	NeedFUSE(t)
	d := &Devices{t: t}
	for i, host := range l.Hosts {
		h := NewHome(t)
		h.Host = host
		h.Listen = "/ip4/0.0.0.0/tcp/7327,/ip4/0.0.0.0/udp/7327/quic-v1"
		if listen != nil {
			h.Listen = listen(host)
		}
		if i > 0 {
			d.login(h, i)
		}
		h.Mount()
		d.All = append(d.All, h)
	}
	return d
}

// login has a home be another device of the first one's account.
func (d *Devices) login(h *Home, i int) {
	d.t.Helper()
	words := filepath.Join(d.t.TempDir(), "phrase")
	if err := os.WriteFile(words, []byte(d.All[0].Phrase+"\n"), 0o600); err != nil {
		d.t.Fatal(err)
	}
	h.Must("login", "--phrase-file", words, "--device-name", fmt.Sprintf("device %d", i))
}

// Connected waits until each device exchanges the space Personal with all others.
func (d *Devices) Connected() {
	d.t.Helper()
	d.Eventually("each device is connected with all others", func() error {
		for i, h := range d.All {
			s := h.SyncStatus()
			n := 0
			for _, p := range s.Peers {
				if slices.Contains(p.Spaces, "Personal") {
					n++
				}
			}
			if n != len(d.All)-1 {
				return fmt.Errorf("device %d: %+v", i, s.Peers)
			}
		}
		return nil
	})
}

// In gives the same devices for a subtest, which they then fail.
func (d *Devices) In(t testing.TB) *Devices {
	sub := &Devices{t: t}
	for _, h := range d.All {
		h.t = t
		sub.All = append(sub.All, h)
	}
	return sub
}

// SyncStatus is what status --json tells of the exchange.
type SyncStatus struct {
	Listen []string `json:"listen"`
	Peers  []struct {
		PeerID   string   `json:"peer_id"`
		Addr     string   `json:"addr"`
		Relayed  bool     `json:"relayed"`
		Spaces   []string `json:"spaces"`
		Sent     uint64   `json:"bytes_sent"`
		Received uint64   `json:"bytes_received"`
	} `json:"peers"`
	Spaces []struct {
		Name         string `json:"name"`
		State        string `json:"state"`
		Pending      int    `json:"pending_changes"`
		FetchChanges int    `json:"pending_fetch_changes"`
		FetchBlocks  int    `json:"pending_fetch_blocks"`
		SendBlocks   int    `json:"pending_send_blocks"`
		Peers        []string
	} `json:"spaces"`
}

// SyncStatus asks a device.
func (h *Home) SyncStatus() SyncStatus {
	h.t.Helper()
	var s SyncStatus
	if err := json.Unmarshal([]byte(h.Must("status", "--json")), &s); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// Connect has b dial a, as long as both run; a's address changes when it is mounted again.
func (d *Devices) Connect(a, b *Home) {
	d.t.Helper()
	var addr string
	d.Eventually("it listens", func() error {
		s := a.SyncStatus()
		if len(s.Listen) == 0 {
			return fmt.Errorf("%+v", s)
		}
		addr = s.Listen[0]
		return nil
	})
	b.Must("peer", "add", addr)
}

// Eventually waits until ok gives no error.
func (d *Devices) Eventually(what string, ok func() error) {
	d.t.Helper()
	var err error
	for end := time.Now().Add(syncPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	logs := ""
	for i, h := range d.All {
		logs += fmt.Sprintf("\ndevice %d: %+v\n%s", i, h.Run("status").Stdout, h.logTail())
	}
	d.t.Fatalf("%s: %v%s", what, err, logs)
}

// Same waits until the mounts of all devices show the same.
func (d *Devices) Same() Tree {
	d.t.Helper()
	var first Tree
	d.Eventually("the devices show the same", func() error {
		var problems []string
		for i, h := range d.All {
			tree, err := readTree(h.Mnt, TreeOptions{})
			if err != nil {
				return fmt.Errorf("device %d: %w", i, err)
			}
			if i == 0 {
				first = tree
			} else if diff := DiffTrees(first, tree); len(diff) > 0 {
				problems = append(problems, fmt.Sprintf("device %d differs from device 0:\n  %s", i, strings.Join(diff[:min(len(diff), 8)], "\n  ")))
			}
		}
		if len(problems) > 0 {
			return fmt.Errorf("%s", strings.Join(problems, "\n"))
		}
		return nil
	})
	return first
}

// WaitEqual waits until each device has what the others have, as it says itself, and the mounts show the same.
func (d *Devices) WaitEqual() Tree {
	d.t.Helper()
	for _, h := range d.All {
		h.Sync()
	}
	return d.Same()
}
