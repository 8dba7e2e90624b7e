package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// past is the versions of files, by path.
type past map[string][]pastVersion

type pastVersion struct {
	ID   string
	Size int64
	Sum  string `json:"-"` // of what restoring it gives
}

// pastOf reads the versions of the files in a folder, and what each holds.
func pastOf(h *Home, dir string) past {
	h.t.Helper()
	out := past{}
	entries, err := os.ReadDir(filepath.Join(h.Mnt, dir))
	check(h.t, err)
	to := filepath.Join(h.t.TempDir(), "old")
	for _, e := range entries {
		name := filepath.Join(h.Mnt, dir, e.Name())
		versions := fromJSON[[]pastVersion](h, "log", name)
		for i := range versions {
			h.Must("restore", name, "--version", versions[i].ID, "--to", to)
			versions[i].Sum, err = sumFile(to)
			check(h.t, err, os.Remove(to))
		}
		out[e.Name()] = versions
	}
	return out
}

// TestRestoreDrill takes away all but one thing, and has everything back from that, byte for byte, with the versions of files: all but a node, and the phrase;
// all but a backup of the node, and the phrase; all but one device. ANYFS_DRILLS is how many times, each with other work. Some versions are older than the
// network, and some replaced before the node can have them.
func TestRestoreDrill(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	drills := int(envNumber("ANYFS_DRILLS", 1))
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	t.Logf("ANYFS_SEED=%d", seed)
	entries, versions := 0, 0
	for i := range drills {
		if !t.Run(fmt.Sprint("seed ", seed+uint64(i)), func(t *testing.T) {
			e, v := drill(t, seed+uint64(i))
			entries, versions = entries+e, versions+v
		}) {
			return
		}
	}
	t.Logf("%d drills, each with 4 devices made of what was left: trees of %d entries and %d versions in all", drills, entries, versions)
}

func drill(t *testing.T, seed uint64) (entries, versions int) {
	const dir = "Personal/versions"
	node := NewNode(t, "--no-relay")
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	plant(t, a)
	check(t, os.Mkdir(a.Personal("work"), 0o755), os.Mkdir(a.Personal("versions"), 0o755))
	w := &crasher{dir: a.Personal("work"), rnd: rand.New(rand.NewPCG(seed, 1)), names: map[string]*crashFile{}}
	for v := range 4 {
		for i := range 40 {
			if !w.step() {
				t.Fatalf("operation %d: %v", i, w.fault)
			}
		}
		for i, size := range []int{100, 20_000, 90_000, 400_000} {
			name := a.Personal("versions", fmt.Sprint("file ", i))
			if v == 2 { // a part of it
				f, err := os.OpenFile(name, os.O_WRONLY, 0)
				check(t, err, second(f.WriteAt(noise(seed+uint64(v), size/10), int64(size/3))), f.Close())
				continue
			}
			check(t, os.WriteFile(name, noise(seed+uint64(10*i+v), size+v), 0o644))
		}
		if a.Settle(); v == 1 {
			a.Must("network", "add", node.Link)
		}
	}
	a.Sync()
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s")
	want, before := ReadTree(t, a.Mnt, TreeOptions{}), pastOf(a, dir)
	for name, v := range before {
		if versions += len(v); len(v) < 4 {
			t.Errorf("%s has the versions %+v", name, v)
		}
	}
	has := func(what string, h *Home) {
		t.Helper()
		arrives(t, h, want)
		after := pastOf(h, dir)
		for name, was := range before {
			if !slices.Equal(after[name], was) {
				t.Errorf("%s: the versions of %s are\n%+v, and were\n%+v", what, name, after[name], was)
			}
		}
		h.Must("verify")
	}
	file := filepath.Join(t.TempDir(), "node.anyfs")
	if b := node.Backup(file); !b.Whole {
		t.Fatalf("%+v", b)
	}
	a.Unmount()
	newDevice := func(name string) *Home {
		t.Helper()
		h := login(t, a, name)
		h.Must("network", "add", node.File())
		h.Mount("--no-discovery")
		h.Sync()
		return h
	}

	// A node and the phrase.
	b := newDevice("of a node")
	has("from a node", b)
	b.Unmount()

	// A backup of the node and the phrase.
	node.Kill()
	check(t, os.RemoveAll(node.Dir))
	if out, err := restore(node.Dir, file); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node.Start()
	c := newDevice("of a backup")
	has("from the backup of a node", c)
	c.Unmount()
	node.Kill()
	check(t, os.RemoveAll(node.Dir))

	// A copy of a device's folder, on a machine where nothing else is; and a new device that meets it.
	cp := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", a.Dir, cp).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check(t, os.RemoveAll(a.Dir))
	e := NewHome(t)
	e.Dir, e.Listen = cp, "/ip4/127.0.0.1/tcp/0"
	e.Mount("--no-discovery")
	has("a copy of a home", e)
	d := login(t, a, "of a device")
	d.Mount("--no-discovery")
	(&Devices{t: t, All: []*Home{e, d}}).Connect(e, d)
	d.eventually("the new device has everything", func() error {
		tree, err := readTree(d.Mnt, TreeOptions{})
		if diff := DiffTrees(want, tree); err == nil && len(diff) > 0 {
			err = errors.New(strings.Join(diff, "\n"))
		}
		return err
	})
	has("from one device", d)
	return len(want), versions
}
