package integration

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// past is what a device has of the history of files: by path, the versions, and of some of them what they hold.
type past map[string][]pastVersion

type pastVersion struct {
	ID   string
	Size int64
	Sum  string `json:"-"` // of what restoring it gives
}

// pastOf reads the versions of so many files of a space that have several, and the content of an old one of each.
func pastOf(h *Home, space string, most int) past {
	h.t.Helper()
	out := past{}
	tree := ReadTree(h.t, filepath.Join(h.Mnt, space), TreeOptions{})
	to := filepath.Join(h.t.TempDir(), "old")
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		if tree[path].Sum == "" || len(out) == most {
			continue
		}
		name := filepath.Join(space, path)
		versions := fromJSON[[]pastVersion](h, "log", filepath.Join(h.Mnt, name))
		if len(versions) < 2 {
			continue
		}
		old := &versions[len(versions)-1-len(versions)%2] // the first one or the one after it
		h.Must("restore", filepath.Join(h.Mnt, name), "--version", old.ID, "--to", to)
		sum, err := sumFile(to)
		check(h.t, err, os.Remove(to))
		old.Sum = sum
		out[name] = versions
	}
	return out
}

// TestRestoreDrill takes away all but one thing, and has everything back from that, byte for byte, with the history: all but one device; all but one node
// and the phrase; all but a backup of the node and the phrase; all but a copy of a device's home. ANYFS_DRILLS is how many times, each with other work.
func TestRestoreDrill(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	drills := int(envNumber("ANYFS_DRILLS", 1))
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	t.Logf("ANYFS_SEED=%d", seed)
	files, versions, restored := 0, 0, 0
	for i := range drills {
		if !t.Run(fmt.Sprint("seed ", seed+uint64(i)), func(t *testing.T) {
			f, v, r := drill(t, seed+uint64(i))
			files, versions, restored = files+f, versions+v, restored+r
		}) {
			return
		}
	}
	t.Logf("%d drills: %d trees were equal, of %d entries in all; %d versions were known and %d of them read again on each", drills, 4*drills, files, versions, restored)
	if versions == 0 || restored == 0 {
		t.Error("no history was there to come back")
	}
}

func drill(t *testing.T, seed uint64) (files, versions, restored int) {
	most := 4
	if os.Getenv("ANYFS_DRILLS") != "" {
		most = 1000
	}
	node := NewNode(t, "--no-relay")
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	plant(t, a)
	dir := a.Personal("work")
	check(t, os.Mkdir(dir, 0o755))
	w := &crasher{dir: dir, rnd: rand.New(rand.NewPCG(seed, 1)), names: map[string]*crashFile{}}
	for i := range 120 {
		if !w.step() {
			t.Fatalf("operation %d: %v", i, w.fault)
		}
		if i%30 == 29 {
			a.Settle() // or a file's versions would be published as one
		}
	}
	a.Sync()
	want, before := ReadTree(t, a.Mnt, TreeOptions{}), pastOf(a, "Personal/work", most)
	has := func(what string, h *Home) {
		t.Helper()
		arrives(t, h, want)
		after := pastOf(h, "Personal/work", most)
		for name, was := range before {
			if versions := after[name]; !slices.Equal(versions, was) {
				t.Errorf("%s: the history of %s is\n%+v, and was\n%+v", what, name, versions, was)
			}
		}
		h.Must("verify")
	}
	file := filepath.Join(t.TempDir(), "node.anyfs")
	if b := node.Backup(file); !b.Whole {
		t.Fatalf("%+v", b)
	}
	a.Unmount()
	cp := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", a.Dir, cp).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	newDevice := func(n *Node, name string) *Home {
		t.Helper()
		h := login(t, a, name)
		h.Must("network", "add", n.File())
		h.Mount("--no-discovery")
		h.Sync()
		return h
	}

	// One node and the phrase.
	b := newDevice(node, "second")
	has("from one node", b)
	b.Unmount()

	// A backup of the node and the phrase.
	node.Kill()
	check(t, os.RemoveAll(node.Dir))
	if out, err := restore(node.Dir, file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node.Start()
	c := newDevice(node, "third")
	has("from the backup of a node", c)
	c.Unmount()
	node.Kill()
	check(t, os.RemoveAll(node.Dir))

	// One device, which was not there when the files were made, and through a node that never had them.
	other := NewNode(t, "--no-relay")
	c.Mount("--no-discovery")
	c.Must("network", "add", other.File())
	gone := c.networks()[0].ID
	for _, space := range []string{"Personal", plantedSpace} {
		c.Must("space", "network", space, "add", other.netID())
		c.Must("space", "network", space, "remove", gone)
	}
	c.Must("network", "default", other.netID())
	c.Must("network", "remove", gone)
	for _, space := range []string{"Personal", plantedSpace} {
		c.Must("space", "network", space, "--wait", "--timeout", "60s")
	}
	d := newDevice(other, "fourth")
	has("from one device", d)
	d.Unmount()
	c.Unmount()
	other.Kill()

	// A copy of a home.
	e := NewHome(t)
	e.Dir = cp
	e.Mount()
	has("from a copy of a home", e)
	for _, v := range before {
		versions += len(v)
		restored += len(slices.DeleteFunc(v, func(v pastVersion) bool { return v.Sum == "" }))
	}
	if strings.TrimSpace(e.Phrase) != "" {
		t.Error("the copy is of another account")
	}
	return len(want), versions, restored
}
