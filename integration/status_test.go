package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// TestStatusWaitForPeer: status --wait returns when another device holds everything, the content too, and not before; what is to be sent is
// known after a crash; and what has been sent is there without the device that it came from.
func TestStatusWaitForPeer(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	d.Same()
	a.Must("status", "--wait", "--timeout", "30s")
	var devices []struct {
		PeerID          string `json:"peer_id"`
		Name            string
		Self, Connected bool
	}
	check(t, json.Unmarshal([]byte(a.Must("device", "list", "--json")), &devices))
	if len(devices) != 2 || devices[0].Name != "device 1" || devices[0].Self || !devices[0].Connected || !devices[1].Self || devices[1].PeerID == devices[0].PeerID {
		t.Errorf("device list: %+v", devices)
	}
	a.Must("limit", "--up", "400k", "--lan")
	data := make([]byte, 1200<<10)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	check(t, os.WriteFile(a.Personal("big"), data, 0o644), os.WriteFile(a.Personal("small"), []byte("small"), 0o644))
	began := time.Now()
	if r := a.Run("status", "--wait", "--timeout", "1s"); r.Code != 4 {
		t.Errorf("status --wait returns after %v: %+v", time.Since(began), r)
	}
	if got := a.Xattr(a.Personal("big"), "user.anyfs.sync"); got != "local" {
		t.Errorf("on its way the file is %q", got)
	}
	if s := a.SyncStatus(); s.Spaces[0].SendBlocks == 0 || len(s.Spaces[0].Peers) != 1 {
		t.Errorf("on its way the status is %+v", s.Spaces)
	}
	a.Must("status", "--wait", "--timeout", "30s")
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("1.2 MB at 400 kB/s took %v", took)
	}
	for _, name := range []string{"big", "small"} {
		if got := a.Xattr(a.Personal(name), "user.anyfs.sync"); got != "synced" {
			t.Errorf("%s is %q", name, got)
		}
	}
	if s := a.SyncStatus(); s.Spaces[0].SendBlocks != 0 || s.Spaces[0].Pending != 0 {
		t.Errorf("afterwards the status is %+v", s.Spaces)
	}
	var p struct {
		Device, Sync, Time string
		Absent             int `json:"absent_blocks"`
	}
	b.Must("status", "--wait", "--timeout", "30s")
	check(t, json.Unmarshal([]byte(b.Must("status", b.Personal("big"), "--json")), &p))
	if p.Device == "" || p.Device == "device 1" || p.Time == "" || p.Absent != 0 || p.Sync != "synced" {
		t.Errorf("the other device says %+v", p)
	}
	a.Unmount()
	b.Unmount()
	b.Mount("--listen", "none")
	if got, err := os.ReadFile(b.Personal("big")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("alone the other device has %d bytes, %v", len(got), err)
	}
	b.Unmount()

	a.Mount("--no-discovery")
	check(t, os.WriteFile(a.Personal("more"), data[:600<<10], 0o644))
	if r := a.Run("status", "--wait", "--timeout", "1s"); r.Code != 4 || !strings.Contains(r.Stderr, "none is connected") {
		t.Errorf("with nobody there: %+v", r)
	}
	a.Must("status", "--wait", "--here", "--timeout", "30s")
	a.Kill()
	a.Mount("--no-discovery")
	if got := a.Xattr(a.Personal("more"), "user.anyfs.sync"); got != "local" {
		t.Errorf("after a crash the file is %q", got)
	}
	if got := a.Xattr(a.Personal("big"), "user.anyfs.sync"); got != "synced" {
		t.Errorf("after a crash the file from before is %q", got)
	}
	if s := a.SyncStatus(); s.Spaces[0].SendBlocks == 0 {
		t.Errorf("after a crash the status is %+v", s.Spaces)
	}
	b.Mount("--no-discovery")
	d.Connect(a, b)
	a.Must("status", "--wait", "--timeout", "30s")
	d.Eventually("nothing is left to send", func() error {
		if s := a.SyncStatus(); s.Spaces[0].SendBlocks != 0 {
			return fmt.Errorf("%+v", s.Spaces)
		}
		return nil
	})
}

// TestStatusWaitShows: on a terminal status --wait shows how far it is, also while nothing moves, and says why nothing will.
func TestStatusWaitShows(t *testing.T) {
	t.Parallel() // it mostly waits
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	d.Same()
	b.Must("space", "policy", "Personal", "on-demand")
	a.Must("status", "--wait", "--timeout", "30s")
	check(t, os.WriteFile(a.Personal("big"), noise(1, 3<<20), 0o644))
	d.Eventually("the name is there", func() error { _, err := os.Stat(b.Personal("big")); return err })
	m := StartTerminal(t, a.Command("status", "--wait", "--timeout", "15s"))
	m.Await("a bar", func(seen string) bool { return strings.Contains(seen, "exchange  [") && strings.Contains(seen, "0 %") })
	m.Await("the reason", func(seen string) bool { return strings.Contains(seen, "do not keep all content") })
	if s := a.SyncStatus(); s.Spaces[0].State != "syncing" || s.Spaces[0].SendBlocks == 0 {
		t.Errorf("while content is here alone the status is %+v", s.Spaces)
	}
	if code := m.Wait(); code != 4 {
		t.Errorf("it ends with %d: %q", code, m.Seen())
	}
	// As soon as the other one mirrors, it is done.
	b.Must("space", "policy", "Personal", "mirror")
	a.Must("status", "--wait", "--timeout", "30s")
	if s := a.SyncStatus(); s.Spaces[0].State != "synced" {
		t.Errorf("in the end the status is %+v", s.Spaces)
	}
}

// TestStatusWaitOfANewDevice: on a device that has just come, status --wait returns when every space is there with its content, and not
// between two of them.
func TestStatusWaitOfANewDevice(t *testing.T) {
	d := NewDevices(t, 1)
	a := d.All[0]
	want := map[string][]byte{}
	for i := range 4 {
		name := fmt.Sprint("Space ", i)
		check(t, os.Mkdir(a.Mnt+"/"+name, 0o755))
		for j := range 6 {
			want[fmt.Sprintf("%s/%d", name, j)] = noise(uint64(10*i+j), 300<<10)
			check(t, os.WriteFile(fmt.Sprintf("%s/%s/%d", a.Mnt, name, j), want[fmt.Sprintf("%s/%d", name, j)], 0o644))
		}
	}
	a.Settle()
	for i := range 3 {
		b := NewHome(t)
		b.Listen = "/ip4/127.0.0.1/tcp/0"
		d.login(b, 1+i)
		b.Mount("--no-discovery")
		d.Connect(a, b)
		b.Must("status", "--wait", "--timeout", "60s")
		b.Unmount()
		b.Listen = ""
		b.Mount("--listen", "none") // what is here is here without the other
		for name, data := range want {
			if got, err := os.ReadFile(b.Mnt + "/" + name); err != nil || !bytes.Equal(got, data) {
				t.Errorf("device %d has %d bytes of %s, %v", i, len(got), name, err)
			}
		}
		b.Unmount()
	}
}
