package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// TestPauseCommand: a device that is paused exchanges nothing, a new mount neither, and goes on where it was when it is resumed.
func TestPauseCommand(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	d.Same()
	paused := func(h *Home) bool {
		var s struct{ Paused bool }
		check(t, json.Unmarshal([]byte(h.Must("status", "--json")), &s))
		return s.Paused
	}
	b.Must("pause")
	if !paused(b) || !strings.Contains(b.Must("status"), "anyfs resume") {
		t.Errorf("status does not tell: %s", b.Must("status"))
	}
	d.Eventually("the peers part", func() error {
		if s := a.SyncStatus(); len(s.Peers) > 0 {
			return fmt.Errorf("%+v", s.Peers)
		}
		return nil
	})
	check(t, os.WriteFile(a.Personal("f"), []byte("while it was paused"), 0o644))
	a.Settle()
	b.Unmount()
	b.Mount("--no-discovery")
	time.Sleep(300 * time.Millisecond)
	if _, err := os.Lstat(b.Personal("f")); !os.IsNotExist(err) || !paused(b) {
		t.Errorf("it goes on: %v", err)
	}
	b.Must("resume")
	d.Same()
	if paused(b) {
		t.Error("it is paused still")
	}
	// Without a daemon it holds from the next mount on.
	b.Unmount()
	b.Must("pause")
	b.Mount("--no-discovery")
	if !paused(b) {
		t.Error("it is not paused")
	}
}

// TestLimitCommand: limits hold for a running daemon and for the next one, and for peers of the local network where that is said.
func TestLimitCommand(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	d.Same()
	rnd := rand.New(rand.NewPCG(1, 2))
	send := func(name string, size int) time.Duration {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rnd.Uint32())
		}
		began := time.Now()
		check(t, os.WriteFile(a.Personal(name), data, 0o644))
		d.Eventually("it is there", func() error {
			if got, err := os.ReadFile(b.Personal(name)); err != nil || len(got) != size {
				return fmt.Errorf("%d bytes, %v", len(got), err)
			}
			return nil
		})
		return time.Since(began)
	}
	if got := a.Must("limit", "--up", "500k", "--json"); got != `{"up":500000,"down":0,"lan":false}`+"\n" {
		t.Errorf("limit gives %s", got)
	}
	if took := send("free", 2<<20); took > 3*time.Second {
		t.Errorf("2 MiB took %v on the local network", took)
	}
	a.Must("limit", "--lan")
	if took := send("limited", 2<<20); took < 3*time.Second {
		t.Errorf("2 MiB took %v at 500 kB/s", took)
	}
	a.Unmount()
	a.Mount("--no-discovery")
	if out := a.Must("status"); !strings.Contains(out, "up 500 kB/s") {
		t.Errorf("after a new mount: %s", out)
	}
	if got := a.Must("limit", "--up", "none", "--lan=false", "--json"); got != `{"up":0,"down":0,"lan":false}`+"\n" {
		t.Errorf("limit gives %s", got)
	}
	if r := a.Run("limit", "--up", "1k"); r.Code != 2 || !strings.Contains(r.Stderr, "anyfs pause") {
		t.Errorf("%+v", r)
	}
}
