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

// overlay builds the command with some of its files replaced, and others beside them: content by the path in the module.
func overlay(t *testing.T, name string, files map[string]string, flags ...string) (binary string) {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	check(t, err)
	replace := map[string]string{}
	for path, text := range files {
		to := filepath.Join(dir, fmt.Sprint(len(replace), ".go"))
		check(t, os.WriteFile(to, []byte(text), 0o600))
		replace[filepath.Join(root, path)] = to
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	check(t, err)
	list := filepath.Join(dir, "overlay.json")
	check(t, os.WriteFile(list, b, 0o600))
	binary = filepath.Join(dir, name)
	check(t, buildBinary(binary, append([]string{"-overlay", list}, flags...)...))
	return binary
}

// hostileBinary is the command, of which the nodes lie as package hostile says.
func hostileBinary(t *testing.T) string {
	const path, what = "sync/exchange/host.go", "libp2p.New("
	b, err := os.ReadFile(filepath.Join("..", path))
	check(t, err)
	if strings.Count(string(b), what) != 1 {
		t.Fatalf("%s makes its host in another way than by one %q", path, what)
	}
	return overlay(t, "hostile", map[string]string{
		path: strings.Replace(string(b), what, "newHostile(", 1),
		"sync/exchange/host_hostile.go": `package exchange

import (
	libp2p "github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"

	"github.com/anyfs/anyfs/integration/hostile"
)

func newHostile(opts ...libp2p.Option) (host.Host, error) { return hostile.Wrap(libp2p.New(opts...)) }
`})
}

// liar is a node of the hostile build.
type liar struct {
	*Node
	attack string
	log    string
	peer   string
}

func newLiar(t *testing.T, binary, attack string) *liar {
	l := &liar{attack: attack, log: filepath.Join(t.TempDir(), "did")}
	l.Node = runNode(&Node{t: t, Kind: "all", listen: []string{"/ip4/127.0.0.1/tcp/0"}, binary: binary, flags: []string{"--no-relay"},
		env: []string{"ANYFS_HOSTILE=" + attack, "ANYFS_HOSTILE_LOG=" + l.log}})
	l.peer = l.Status().PeerID
	return l
}

// did counts what it did, by what it was, to a device; "": to any.
func (l *liar) did(to string) map[string]int {
	b, _ := os.ReadFile(l.log)
	n := map[string]int{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && (to == "" || line[i+1:] == to) {
			n[line[:i]]++
		}
	}
	return n
}

// lie is what a liar has to have done, and whether that breaks the protocol: then a device leaves it alone.
type lie struct {
	name   string
	does   []string
	banned bool
	long   bool // in long runs alone
	block  bool // it is an answer to who wants a block, and goes by unread where another's came first
}

var attacks = []lie{
	{"forge", []string{"flipped", "by a stranger", "of another space", "signature of another batch"}, true, false, false},
	{"access", []string{"flipped", "by a stranger", "of another space", "signature of another batch"}, true, false, false},
	{"newer", []string{"later version"}, false, false, false},
	{"order", []string{"left out", "turned round"}, false, false, false},
	{"zeros", []string{"zeros"}, true, false, true},
	{"half", []string{"half of a block"}, true, false, true},
	{"other", []string{"another block"}, true, false, true},
	{"drip", []string{"dripping"}, false, true, true}, // each read that comes to it waits 15 s,
	{"flood", []string{"flooding", "flooded"}, true, false, true},
	{"replay", []string{"signed more", "old heads", "old statement", "kept back"}, false, false, false},
	{"config", []string{"configuration of a stranger's network", "configuration that a stranger signed", "configuration with another bit"}, true, false, false},
	{"word", []string{"a device's statement"}, true, false, false},
}

// warnings gives the lines of a device's log, from warnings on, that name a peer.
func (h *Home) warnings(peer string) (lines []string) {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log"))
	check(h.t, err)
	for l := range strings.Lines(string(b)) {
		if strings.Contains(l, peer) && (strings.Contains(l, "WARN") || strings.Contains(l, "ERROR")) {
			lines = append(lines, strings.TrimSpace(l))
		}
	}
	return lines
}

// Nodes that forge, leave out, replay and serve false blocks, each in its own way and all at once, beside one that does not: two devices that have
// nothing but these nodes in common go on working, end equal with what they wrote and nothing else, and say once of each what it did.
func TestHostileNodes(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	binary := hostileBinary(t)
	honest := NewNode(t, "--no-relay") // or the devices would find each other
	var liars []*liar
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", honest.Link)
	attacks := slices.DeleteFunc(slices.Clone(attacks), func(x lie) bool { return x.long && !Long() })
	for _, x := range attacks {
		l := newLiar(t, binary, x.name)
		liars = append(liars, l)
		a.Must("network", "add", l.Link)
		a.Must("space", "network", "Personal", "add", l.netID())
	}
	want := map[string][]byte{}
	write := func(h *Home, name string, n int) {
		t.Helper()
		want[name] = noise(uint64(len(want)+1), n)
		check(t, os.WriteFile(h.Personal(name), want[name], 0o644))
	}
	for i := range 120 {
		write(a, fmt.Sprint("first ", i), 1+i%2*(20_000+i*1000))
	}
	same := func(what string, homes ...*Home) {
		t.Helper()
		for _, h := range homes {
			h.eventually(what, func() error {
				for name, data := range want {
					b, err := os.ReadFile(h.Personal(name))
					if err != nil || string(b) != string(data) {
						return fmt.Errorf("%s: %d bytes for %d, %v", name, len(b), len(data), err)
					}
				}
				return nil
			})
		}
	}
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s", "add", honest.netID())
	b := login(t, a, "second")
	b.Must("network", "add", honest.Link)
	b.Mount("--no-discovery")
	pids := []int{a.PID(), b.PID()}
	same("what the first wrote is with the second", b)

	// Both work on, until everything was done to somebody, and somebody found it.
	began := time.Now()
	lacking := func() (left []string) {
		for i, l := range liars {
			did := l.did("")
			for _, what := range attacks[i].does {
				if did[what] == 0 {
					left = append(left, l.attack+": "+what)
				}
			}
			if attacks[i].banned && len(a.warnings(l.peer))+len(b.warnings(l.peer)) == 0 {
				left = append(left, l.attack+": found")
			}
		}
		return left
	}
	for i := 0; i < 3 || len(lacking()) > 0; i++ {
		if time.Since(began) > 2*syncPatience {
			for _, l := range liars {
				t.Logf("%s did %v", l.attack, l.did(""))
			}
			t.Fatalf("not done: %q", lacking())
		}
		for k := range 16 {
			write(a, fmt.Sprintf("by a %d %d", i, k), 20_000+i*1000)
		}
		write(b, fmt.Sprint("by b ", i), 300_000+i*1000)
		same("what both wrote is with both", a, b)
	}
	t.Logf("after %v of work:", time.Since(began).Round(time.Millisecond))
	for _, l := range liars {
		t.Logf("%s did %v", l.attack, l.did(""))
	}

	// A word that was signed and broken is named, after a minute or two; TestNodePutBackIsFound shows it in short runs.
	if Long() {
		within(t, 3*time.Minute, "the node that replays is not found", a, func() error {
			splits, losses := doubted(t, a)
			s, k := doubted(t, b)
			if splits+losses+s+k == 0 {
				return fmt.Errorf("nobody doubts")
			}
			return nil
		})
	}
	for i, h := range []*Home{a, b} {
		same("at the end", h)
		entries, err := os.ReadDir(h.Personal())
		check(t, err)
		if len(entries) != len(want) {
			t.Errorf("device %d shows %d names, and %d were written", i, len(entries), len(want))
		}
		h.Must("verify")
		if pid := h.PID(); pid != pids[i] {
			t.Errorf("the daemon of device %d ended", i)
		}
		if top := memory(t, pids[i], "VmHWM"); top > 400 {
			t.Errorf("device %d took %d MiB", i, top)
		} else {
			t.Logf("device %d took %d MiB at most", i, top)
		}
		for _, n := range h.networks() {
			l := slices.IndexFunc(liars, func(l *liar) bool { return l.netID() == n.ID })
			if l < 0 && n.ID != honest.netID() || n.Epoch > 100 {
				t.Errorf("device %d has the network %+v", i, n)
			}
		}
		h.eventually("the node that speaks a later version too is connected", func() error {
			for _, p := range h.SyncStatus().Peers {
				if slices.ContainsFunc(liars, func(l *liar) bool { return l.attack == "newer" && l.peer == p.PeerID }) && slices.Contains(p.Spaces, "Personal") {
					return nil
				}
			}
			return fmt.Errorf("it is not")
		})
		self := h.Status().Device.PeerID
		for k, l := range liars {
			lines := h.warnings(l.peer)
			if len(l.did(self)) > 0 && attacks[k].banned && !attacks[k].block && len(lines) == 0 || len(lines) > 1 {
				t.Errorf("device %d on %s, which did %v to it: %d lines\n%s", i, l.attack, l.did(self), len(lines), strings.Join(lines, "\n"))
			}
		}
		if lines := h.warnings(honest.Status().PeerID); len(lines) > 0 {
			t.Errorf("device %d on the honest node: %q", i, lines)
		}
	}
}
