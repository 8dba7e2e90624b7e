package integration

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// backedUp is what 'node backup' says it did.
type backedUp struct {
	Whole  bool  `json:"whole"`
	Bytes  int64 `json:"bytes"`
	Spaces int   `json:"spaces"`
	Blocks int   `json:"blocks"`
}

// Backup has the node backed up.
func (n *Node) Backup(file string) (b backedUp) {
	n.t.Helper()
	out, err := exec.Command(Binary, "--json", "node", "backup", "--dir", n.Dir, file).Output()
	if err == nil {
		err = json.Unmarshal(out, &b)
	}
	if err != nil {
		n.t.Fatalf("node backup: %v: %s", err, out)
	}
	return b
}

// restore makes a folder of a backup, and gives what was said when that failed.
func restore(dir, file string) (string, error) { return restoreWith(dir, file) }

func restoreWith(dir, file string, flags ...string) (string, error) {
	out, err := exec.Command(Binary, append([]string{"node", "restore", "--dir", dir, file}, flags...)...).CombinedOutput()
	return string(out), err
}

// A node that is backed up while devices write is there again, on a new disk, with all that it had promised to keep; what came after the backup
// its devices give it once more.
func TestNodeBackup(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	plant(t, a)
	a.Sync()
	file := filepath.Join(t.TempDir(), "node.anyfs")
	first := node.Backup(file)
	if !first.Whole || first.Spaces < 2 || first.Blocks < 5 {
		t.Fatalf("%+v", first)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 || st.Size() != first.Bytes {
		t.Fatalf("%v, %v", st, err)
	}

	// Killed at any moment of what it takes here, while a device writes, it is the backup that it was or has more.
	kills, takes := 0, 120*time.Millisecond
	for i := 0; i < 60 && kills < 8; i++ {
		if err := os.WriteFile(a.Personal("while it is backed up"), bytes.Repeat([]byte{byte(i)}, 100<<10), 0o644); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(Binary, "node", "backup", "--dir", node.Dir, file)
		start := time.Now()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(takes))
		_ = c.Process.Kill()
		if c.Wait() != nil {
			kills++
		} else {
			takes = max(time.Since(start)/2, time.Millisecond) // it had ended already, and what comes is made to meet it earlier
		}
		if out, err := exec.Command(Binary, "node", "restore", "--check", file).CombinedOutput(); err != nil {
			t.Fatalf("after a kill: %v: %s", err, out)
		}
	}
	if kills == 0 {
		t.Error("no backup was killed")
	}
	a.Sync()
	more := node.Backup(file)
	if more.Whole || more.Bytes >= first.Bytes {
		t.Errorf("what came since takes %d bytes, all before %d", more.Bytes, first.Bytes)
	}
	if none := node.Backup(file); none.Blocks != 0 || none.Bytes > 16<<10 {
		t.Errorf("nothing came, and the backup grew by %+v", none)
	}

	// Cut off, or with another byte, it is found out.
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.anyfs")
	for name, damage := range map[string]func() []byte{
		"cut in its first run": func() []byte { return whole[:first.Bytes-1] },
		"cut at once":          func() []byte { return whole[:5] },
		"a byte":               func() []byte { b := bytes.Clone(whole); b[first.Bytes/3] ^= 0x10; return b },
	} {
		if err := os.WriteFile(bad, damage(), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "node")
		out, err := restore(dir, bad)
		if err == nil {
			t.Errorf("%s: it was restored", name)
		}
		if name == "a byte" && !strings.Contains(out, "the record at ") {
			t.Errorf("%s: %s", name, out)
		}
		if name != "a byte" && !strings.Contains(out, "ends before the backup does") {
			t.Errorf("%s: %s", name, out)
		}
	}
	// Cut in a later run, what was backed up before is there.
	if err := os.WriteFile(bad, whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := restore(filepath.Join(t.TempDir(), "node"), bad); err != nil || !strings.Contains(out, "was not finished") {
		t.Errorf("cut in its last run: %v: %s", err, out)
	}

	// What comes now is in no backup, and the device relies on the node for it.
	if err := os.WriteFile(a.Personal("after the backup"), bytes.Repeat([]byte("later"), 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Sync()
	a.Unmount()
	content := func() (sum int64) {
		for _, s := range node.Status().Spaces {
			sum += s.Blocks
		}
		return sum
	}
	before := content()
	node.Kill()
	if err := os.RemoveAll(node.Dir); err != nil {
		t.Fatal(err)
	}
	// A restore that is killed leaves no node, and can be run again.
	kills, takes = 0, 100*time.Millisecond
	for i := 0; i < 40 && kills < 5; i++ {
		c := exec.Command(Binary, "node", "restore", "--dir", node.Dir, file)
		start := time.Now()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(takes))
		_ = c.Process.Kill()
		if c.Wait() == nil {
			takes = max(time.Since(start)/2, time.Millisecond)
			if err := os.RemoveAll(node.Dir); err != nil {
				t.Fatal(err)
			}
			continue
		}
		kills++
		if _, err := os.Stat(filepath.Join(node.Dir, "restoring")); err == nil {
			if out, err := exec.Command(Binary, "node", "all", "--dir", node.Dir, "--listen", "/ip4/127.0.0.1/tcp/0").CombinedOutput(); err == nil || !strings.Contains(string(out), "node restore") {
				t.Errorf("a node on what was not restored to the end: %v: %s", err, out)
			}
		}
	}
	if kills == 0 {
		t.Error("no restore was killed")
	}
	if out, err := restore(node.Dir, file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	link := node.Link
	node.Start()
	if node.Link == link {
		t.Error("the restored network's configuration is of an epoch that was used")
	}
	a.Mount("--no-discovery")
	// What it lacks is known to be pending from when the device has met the new age.
	var nets []struct {
		Epoch uint64 `json:"epoch"`
	}
	for end := time.Now().Add(syncPatience); len(nets) != 1 || nets[0].Epoch < 1<<20; time.Sleep(50 * time.Millisecond) {
		if err := json.Unmarshal([]byte(a.Must("network", "list", "--json")), &nets); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("the device knows of %+v", nets)
		}
	}
	a.Sync()
	// A version that another took the place of while it was written is given no more: of its content that is a node of the DAG, below a KiB.
	if now := content(); now < before-16<<10 {
		t.Errorf("the device says that the restored node holds everything, and that has %d bytes of content, before %d", now, before)
	}
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount() // for good
	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	b.Sync()
	arrives(t, b, want)
	b.Must("verify")
}

// A node of several that is restored from an old backup gets from its replicas what came since.
func TestNodeBackupHeals(t *testing.T) {
	NeedFUSE(t)
	w := NewNetwork(t, 2, 2)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", w.Coordinator.File())
	if err := os.WriteFile(a.Personal("before"), bytes.Repeat([]byte("before"), 1<<19), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Sync()
	file := filepath.Join(t.TempDir(), "node.anyfs")
	w.Sync[0].Backup(file)
	if err := os.WriteFile(a.Personal("after"), bytes.Repeat([]byte("after"), 1<<19), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Sync()
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount()
	w.Sync[0].Kill()
	if err := os.RemoveAll(w.Sync[0].Dir); err != nil {
		t.Fatal(err)
	}
	if out, err := restore(w.Sync[0].Dir, file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.Sync[0].Start()
	changes := func(n *Node) (sum int64) {
		for _, s := range n.Status().Spaces {
			sum += s.Changes
		}
		return sum
	}
	for end := time.Now().Add(syncPatience); changes(w.Sync[0]) != changes(w.Sync[1]); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the restored node has %d bytes of changes, the other %d", changes(w.Sync[0]), changes(w.Sync[1]))
		}
	}
	w.Sync[1].Kill() // the restored one alone is left
	b := login(t, a, "second")
	b.Must("network", "add", w.Coordinator.Link)
	b.Mount("--no-discovery")
	b.Sync()
	arrives(t, b, want)
}
