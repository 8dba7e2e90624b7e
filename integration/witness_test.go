package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"
)

// doubted gives the nodes that a device's status names as having broken their word, of its personal space.
func doubted(t *testing.T, h *Home) (splits, losses int) {
	t.Helper()
	var st struct {
		Spaces []struct {
			Name   string `json:"name"`
			Doubts []struct {
				Node  string `json:"node"`
				Split bool   `json:"split"`
			} `json:"doubted_nodes"`
		} `json:"spaces"`
	}
	if err := json.Unmarshal([]byte(h.Must("status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	for _, s := range st.Spaces {
		for _, d := range s.Doubts {
			if s.Name == "Personal" && d.Split {
				splits++
			} else if s.Name == "Personal" {
				losses++
			}
		}
	}
	return splits, losses
}

// within waits longer than for what travels: a node is doubted after two ticks of a session.
func within(t *testing.T, d time.Duration, what string, h *Home, ok func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v\n%s", what, err, h.logTail())
}

func write(t *testing.T, h *Home, name string) {
	t.Helper()
	if err := os.WriteFile(h.Personal(name), []byte(name), 0o644); err != nil {
		t.Fatal(err)
	}
	h.Sync()
}

// A node whose folder is put back to what it was is found by a device that it had acknowledged more to, also where that was restarted in
// between; and what was lost comes back to it.
func TestNodePutBackIsFound(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	write(t, a, "first")
	node.Stop()
	old := node.Dir + ".old"
	if err := os.CopyFS(old, os.DirFS(node.Dir)); err != nil {
		t.Fatal(err)
	}
	node.Start()
	write(t, a, "second")
	a.Unmount() // the node states what it holds at the begin of a session
	a.Mount("--no-discovery")
	a.Sync()
	if splits, losses := doubted(t, a); splits+losses > 0 {
		t.Fatalf("of an honest node: %d, %d", splits, losses)
	}
	a.Unmount()

	node.Stop()
	if err := os.RemoveAll(node.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, node.Dir); err != nil {
		t.Fatal(err)
	}
	node.Start()
	a.Mount("--no-discovery")
	a.Sync()
	within(t, 3*time.Minute, "the loss is not found", a, func() error {
		if splits, losses := doubted(t, a); losses != 1 {
			return fmt.Errorf("%d splits, %d losses", splits, losses)
		}
		return nil
	})
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount()
	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	arrives(t, b, want)
}

// A node that shows two devices different things is found by both when these meet: it is two processes with one key.
func TestNodeOfTwoFacesIsFound(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	write(t, a, "before")
	node.Stop()
	other := &Node{t: t, Kind: "all", listen: []string{"/ip4/127.0.0.2/tcp/0"}, Dir: node.Dir + ".other", log: new(logged)}
	t.Cleanup(func() {
		if other.cmd != nil {
			other.Kill()
		}
	})
	if err := os.CopyFS(other.Dir, os.DirFS(node.Dir)); err != nil {
		t.Fatal(err)
	}
	node.Start()
	other.Start()
	b := login(t, a, "second")
	b.Must("network", "add", other.Link)
	b.Mount("--no-discovery")
	within(t, syncPatience, "the second device has nothing", b, func() error { _, err := os.Stat(b.Personal("before")); return err })
	for i := range 3 {
		write(t, a, fmt.Sprint("by a ", i))
		write(t, b, fmt.Sprint("by b ", i))
	}
	for _, h := range []*Home{a, b} { // the node states what it holds at the begin of a session
		h.Unmount()
		h.Mount("--no-discovery")
		h.Sync()
	}
	if _, err := os.Stat(b.Personal("by a 0")); err == nil {
		t.Fatal("the two processes are one node")
	}
	node.Stop()
	other.Stop()
	(&Devices{t: t}).Connect(a, b)
	within(t, 3*time.Minute, "the two faces are not found", a, func() error {
		for _, h := range []*Home{a, b} {
			if splits, losses := doubted(t, h); splits != 1 {
				return fmt.Errorf("%d splits, %d losses", splits, losses)
			}
		}
		return nil
	})
}
