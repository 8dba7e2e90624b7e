package integration

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The names and contents that a node must never see.
const (
	plantedName    = "a-name-that-no-node-may-see"
	plantedContent = "a content that no node may see, written once in a small file and many times in a large one\n"
	plantedSpace   = "Space that no node may see"
)

// plant writes a tree with what is sealed in all its ways: names, small and large contents, xattrs, a link, a second space.
func plant(t *testing.T, h *Home) {
	t.Helper()
	dir := h.Personal(plantedName)
	large := make([]byte, 5<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	steps := []error{
		os.MkdirAll(filepath.Join(dir, "sub", "deeper"), 0o755),
		os.WriteFile(filepath.Join(dir, plantedName+".txt"), []byte(plantedContent), 0o640),
		os.WriteFile(filepath.Join(dir, "large"), bytes.Repeat([]byte(plantedContent), 60_000), 0o644),
		os.WriteFile(filepath.Join(dir, "random"), large, 0o600),
		os.WriteFile(filepath.Join(dir, "sub", "deeper", "empty"), nil, 0o755),
		unix.Setxattr(filepath.Join(dir, "large"), "user."+plantedName, []byte(plantedContent), 0),
		os.Symlink("../"+plantedName, filepath.Join(dir, "sub", "link")),
		os.Link(filepath.Join(dir, "large"), filepath.Join(dir, "sub", "hard link")),
		os.Mkdir(filepath.Join(h.Mnt, plantedSpace), 0o755),
		os.WriteFile(filepath.Join(h.Mnt, plantedSpace, "in it"), []byte(plantedContent), 0o644),
	}
	for i := range 200 {
		steps = append(steps, os.WriteFile(filepath.Join(dir, "sub", fmt.Sprintf("%s %d", plantedName, i)), []byte(strings.Repeat(plantedContent, i)), 0o644))
	}
	for i, err := range steps {
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
}

// login makes a home another device of the account of a, without a mount.
func login(t *testing.T, a *Home, name string) *Home {
	t.Helper()
	b := NewHome(t)
	b.Listen = "/ip4/127.0.0.1/tcp/0"
	words := filepath.Join(t.TempDir(), "phrase")
	if err := os.WriteFile(words, []byte(a.Phrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Must("login", "--phrase-file", words, "--device-name", name)
	return b
}

// arrives waits until a device shows a tree.
func arrives(t *testing.T, h *Home, want Tree) {
	t.Helper()
	var err error
	for end := time.Now().Add(syncPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var got Tree
		if got, err = readTree(h.Mnt, TreeOptions{}); err == nil {
			diff := DiffTrees(want, got)
			if len(diff) == 0 {
				return
			}
			err = fmt.Errorf("%s", strings.Join(diff[:min(len(diff), 8)], "\n"))
		}
	}
	t.Fatalf("%v\n%s%s", err, h.Run("status").Stdout, h.logTail())
}

// Two devices that are never on together meet through a node, which sees nothing of what they write.
func TestNodeJoinsDevicesThatNeverMeet(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	// What was there before the network was added goes there too.
	if err := os.WriteFile(a.Personal("before"), bytes.Repeat([]byte(plantedContent), 20_000), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Must("network", "add", node.File())
	plant(t, a)
	a.Sync()
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount() // for good

	t.Run("sees nothing", func(t *testing.T) {
		seen := func(where string, b []byte) {
			for _, s := range []string{plantedName, plantedContent[:40], plantedSpace, "hard link"} {
				if bytes.Contains(b, []byte(s)) {
					t.Errorf("%s holds %q", where, s)
				}
			}
		}
		files, bytes := 0, 0
		node.Disk(func(name string, b []byte) { files++; bytes += len(b); seen(name, append(b, name...)) })
		if files < 10 || bytes < 5<<20 {
			t.Errorf("the node has %d files with %d bytes: it cannot hold what was written", files, bytes)
		}
		if n := node.Memory(seen); n < 5<<20 {
			t.Errorf("only %d bytes of memory were read", n)
		}
	})

	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	b.Sync()
	arrives(t, b, want)

	if out := b.Must("verify"); out == "" {
		t.Error("verify says nothing")
	}

	// And back: the first one finds what the second one did, with the node killed in between.
	if err := os.WriteFile(b.Personal("by the second"), []byte("written on b"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.Sync()
	b.Unmount()
	node.Kill()
	node.Start()
	a.Mount("--no-discovery")
	a.Sync()
	if got, err := os.ReadFile(a.Personal("by the second")); err != nil || string(got) != "written on b" {
		t.Errorf("%q, %v", got, err)
	}
	node.Stop()
}

// A node that is killed at any moment loses nothing that a device was told it has.
func TestNodeKilled(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	kills := 0
	for i := range 6 {
		for k := range 40 {
			if err := os.WriteFile(a.Personal(fmt.Sprintf("%d-%d", i, k)), bytes.Repeat([]byte{byte(i), byte(k)}, 1+k*20_000), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(i) * 120 * time.Millisecond)
		link := node.Link
		node.Kill()
		kills++
		node.Start()
		if node.Link != link {
			t.Fatalf("after a restart the network is %s, not %s", node.Link, link)
		}
	}
	a.Must("verify")
	a.Sync()
	node.Kill() // right after it said that it holds everything
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount()
	node.Start()
	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	b.Sync()
	arrives(t, b, want)
	if kills == 0 {
		t.Error("the node was never killed")
	}
}

// status names the node, and network list the network.
func TestNodeInStatus(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.File())
	a.Must("network", "add", node.Link) // once more is no error
	a.Sync()
	var s struct {
		Peers []struct {
			Node   bool     `json:"node"`
			Device string   `json:"device"`
			Spaces []string `json:"spaces"`
		} `json:"peers"`
		Spaces []struct {
			Name  string `json:"name"`
			State string `json:"state"`
		} `json:"spaces"`
	}
	if err := json.Unmarshal([]byte(a.Must("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Peers) != 1 || !s.Peers[0].Node || !strings.HasPrefix(s.Peers[0].Device, "node of z6Mk") || len(s.Peers[0].Spaces) != 1 {
		t.Errorf("peers: %+v", s.Peers)
	}
	if len(s.Spaces) != 1 || s.Spaces[0].State != "synced" {
		t.Errorf("spaces: %+v", s.Spaces)
	}
	var list []struct {
		ID      string `json:"id"`
		Default bool   `json:"default"`
		Nodes   []struct {
			Connected bool `json:"connected"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(a.Must("network", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || !list[0].Default || len(list[0].Nodes) != 1 || !list[0].Nodes[0].Connected {
		t.Fatalf("networks: %+v", list)
	}
	a.Must("network", "remove", list[0].ID[:12])
	if out := a.Must("network", "list"); strings.TrimSpace(out) != "" {
		t.Errorf("after remove: %s", out)
	}
	if out := a.Run("network", "remove", "z6Mk"); out.Code != 3 {
		t.Errorf("a network that was not added is removed: %+v", out)
	}
}

// A device on both a network and a local one carries changes and content both ways.
func TestNodeBridge(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	d := NewDevices(t, 2) // a and b reach each other
	a, b := d.All[0], d.All[1]
	b.Must("network", "add", node.File()) // and b alone the node
	c := login(t, a, "third")
	c.Must("network", "add", node.File())
	c.Mount("--no-discovery")
	if err := os.WriteFile(a.Personal("from a"), bytes.Repeat([]byte("a"), 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Personal("from c"), bytes.Repeat([]byte("c"), 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	d.All = append(d.All, c)
	d.Eventually("a has what c wrote, and c what a wrote", func() error {
		for h, name := range map[*Home]string{a: "from c", c: "from a"} {
			if b, err := os.ReadFile(h.Personal(name)); err != nil || len(b) != 3<<20 {
				return fmt.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
		}
		return nil
	})
	d.Same()
}

// A device lets content go when the node has promised to keep it, and has it back when it is read.
func TestNodeKeepsWhatIsEvicted(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.File())
	want := make([]byte, 8<<20)
	if _, err := rand.Read(want); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.Personal("large"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	a.Must("space", "policy", "Personal", "on-demand")
	a.Sync()
	a.Must("evict", a.Personal("large"))
	absent := func() int {
		t.Helper()
		var s struct {
			Absent int `json:"absent_blocks"`
		}
		if err := json.Unmarshal([]byte(a.Must("status", a.Personal("large"), "--json")), &s); err != nil {
			t.Fatal(err)
		}
		return s.Absent
	}
	if n := absent(); n == 0 {
		t.Fatal("nothing was evicted")
	}
	a.Unmount() // the kernel's pages go too
	node.Kill()
	node.Start()
	a.Mount("--no-discovery")
	got, err := os.ReadFile(a.Personal("large"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	a.Must("verify")
}

// An invitation-only node serves the accounts that were added, and no others, from when its operator says so.
func TestNodeInviteOnly(t *testing.T) {
	t.Parallel() // it mostly waits
	NeedFUSE(t)
	node := NewNode(t, "--invite-only")
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	if err := os.WriteFile(a.Personal("f"), bytes.Repeat([]byte("f"), 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := a.Run("status", "--wait", "--timeout", "3s"); r.Code != 4 {
		t.Errorf("a stranger's wait ends with %+v", r)
	}
	var s struct {
		Totals struct {
			Spaces int   `json:"spaces"`
			Blocks int64 `json:"block_bytes"`
		} `json:"totals"`
		Spaces []struct {
			Owner string `json:"owner"`
		} `json:"spaces"`
	}
	status := func() {
		t.Helper()
		if err := json.Unmarshal([]byte(a.Must("node", "status", "--dir", node.Dir, "--json")), &s); err != nil {
			t.Fatal(err)
		}
	}
	if status(); s.Totals.Spaces != 0 {
		t.Errorf("it holds %+v", s)
	}
	account := a.Status().Account
	a.Must("node", "account", "add", "--dir", node.Dir, account)
	if out := a.Must("node", "account", "list", "--dir", node.Dir); strings.TrimSpace(out) != account {
		t.Errorf("accounts: %s", out)
	}
	a.Sync()                    // the device asks again by itself
	time.Sleep(3 * time.Second) // a checkpoint
	if status(); s.Totals.Spaces != 2 || s.Totals.Blocks < 1<<20 || s.Spaces[0].Owner != account {
		t.Errorf("after it was added: %+v", s)
	}
	a.Must("node", "account", "remove", "--dir", node.Dir, account)
	a.Unmount()
	time.Sleep(2 * time.Second)
	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	if r := b.Run("status", "--wait", "--timeout", "3s"); r.Code != 4 {
		t.Errorf("after it was removed, a wait ends with %+v", r)
	}
}

// A quota holds for content, and what is below it goes on.
func TestNodeQuota(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t, "--http", "127.0.0.1:0")
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("node", "quota", "--dir", node.Dir, "default", "3M")
	time.Sleep(1500 * time.Millisecond)
	a.Must("network", "add", node.Link)
	small, large := make([]byte, 1<<20), make([]byte, 8<<20)
	if _, err := rand.Read(small); err != nil {
		t.Fatal(err)
	}
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.Personal("small"), small, 0o644); err != nil {
		t.Fatal(err)
	}
	a.Sync()
	if err := os.WriteFile(a.Personal("large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := a.Run("status", "--wait", "--timeout", "4s"); r.Code != 4 {
		t.Errorf("a wait beyond the quota ends with %+v", r)
	}
	size := 0
	node.Disk(func(name string, b []byte) {
		if strings.Contains(name, "/blocks/") {
			size += len(b)
		}
	})
	if size < 1<<20 || size > 3_400_000 {
		t.Errorf("with a quota of 3 MiB it holds %d", size)
	}
	if out := a.Must("node", "quota", "--dir", node.Dir); !strings.Contains(out, "default") || !strings.Contains(out, "3145728") {
		t.Errorf("quotas: %s", out)
	}
	a.Must("node", "quota", "--dir", node.Dir, "default", "none")
	a.Sync()

	base := "http://" + node.Logged(t, "metrics", "address")
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "anyfs_node_spaces 2"} {
		r, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %v, without %q", path, r.StatusCode, err, want)
		}
		for _, s := range a.Status().Spaces {
			if strings.Contains(string(b), s.ID) || strings.Contains(string(b), s.Name) {
				t.Errorf("%s names a space", path)
			}
		}
	}
	if r, err := http.Get(base + "/status"); err != nil || r.StatusCode != 404 {
		t.Errorf("status is told to everybody: %v, %v", r, err)
	}
}

// A device takes the configuration of a higher epoch from the node itself.
func TestNodeTellsItsNewAddress(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	a.Sync()
	type network struct {
		Epoch int `json:"epoch"`
		Nodes []struct {
			Addresses []string `json:"addresses"`
			Connected bool     `json:"connected"`
		} `json:"nodes"`
	}
	list := func() (out []network) {
		t.Helper()
		if err := json.Unmarshal([]byte(a.Must("network", "list", "--json")), &out); err != nil || len(out) != 1 || len(out[0].Nodes) != 1 {
			t.Fatal(out, err)
		}
		return out
	}
	at, _, _ := strings.Cut(list()[0].Nodes[0].Addresses[0], "/p2p/")
	node.Stop()
	const more = "/ip4/203.0.113.5/tcp/7328"
	node.flags = []string{"--announce", at, "--announce", more}
	node.Start()
	var now []network
	for end := time.Now().Add(syncPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if now = list(); now[0].Epoch == 2 && now[0].Nodes[0].Connected {
			break
		}
	}
	if n := now[0]; n.Epoch != 2 || !n.Nodes[0].Connected || len(n.Nodes[0].Addresses) != 2 || !strings.HasPrefix(n.Nodes[0].Addresses[1], more) {
		t.Errorf("%+v", now)
	}
	a.Remount() // it is kept
	if n := list()[0]; n.Epoch != 2 {
		t.Errorf("%+v", n)
	}
}
