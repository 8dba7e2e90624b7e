package sim

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// What must hold in the end: all agree, and nothing that was written is missing that nobody took away.

// value is a line that was written.
type value struct {
	text  string
	name  string
	node  int
	may   map[int]bool // the nodes that may have it
	maybe bool         // a power loss may have taken it
}

// loss is an operation that may have taken away what its node had.
type loss struct {
	name string
	had  map[int]bool
}

// mayHave notes that one node may have now what another has.
func (w *World) mayHave(from, to int) {
	for i := range w.values {
		if w.values[i].may[from] {
			w.values[i].may[to] = true
		}
	}
}

// rest connects all, and lets them agree.
func (w *World) rest() {
	for _, n := range w.nodes {
		if n.home == nil {
			n.start()
			n.attach()
		}
	}
	for _, l := range w.links {
		l.connect()
	}
	same := 0
	for round := 1; ; round++ {
		if round > MaxRounds {
			failf("after %d rounds the devices do not agree: %s", MaxRounds, w.unequal())
		}
		before := w.state()
		w.now = w.now.Add(time.Second)
		for _, n := range w.nodes {
			must(n.home.Arrive(ctx))
			must(n.home.Flush(ctx))
			n.synced = len(w.values)
			must(n.home.Arrive(ctx))
			n.pump()
			n.settle()
		}
		for _, l := range w.links {
			for _, y := range l.ways {
				y.send.Tick()
			}
		}
		for busy, times := true, 0; busy; times++ {
			if times > 10_000 {
				failf("the sessions go on without end")
			}
			busy = false
			for _, l := range w.links {
				for _, y := range l.ways {
					busy = y.deliver(64) || busy
				}
			}
			for _, n := range w.nodes {
				n.pump()
				n.settle()
			}
		}
		if after := w.state(); after != before || w.unequal() != "" {
			same = 0
			continue
		}
		if same++; same == 1 {
			w.result.Rounds = round - 1 // this one changed nothing
			return
		}
	}
}

// state is what all nodes have published and taken in.
func (w *World) state() string {
	h := sha256.New()
	for _, n := range w.nodes {
		for _, s := range n.spaces {
			for _, id := range s.Files.Heads() {
				h.Write(id[:])
			}
		}
		io.WriteString(h, n.tree())
	}
	return string(h.Sum(nil))
}

// unequal says in what the nodes differ.
func (w *World) unequal() string {
	first := w.nodes[0]
	for _, n := range w.nodes[1:] {
		for k, s := range n.spaces {
			if !slices.Equal(s.Files.Heads(), first.spaces[k].Files.Heads()) {
				return fmt.Sprintf("device %d has other heads than device 0", n.i)
			}
		}
		if a, b := first.tree(), n.tree(); a != b {
			return fmt.Sprintf("device 0 shows\n%s\ndevice %d shows\n%s", a, n.i, b)
		}
	}
	return ""
}

// judge looks for what was written, and takes the end into the digest.
func (w *World) judge() {
	tree := w.nodes[0].tree()
	io.WriteString(w.sum, tree)
	for _, s := range w.nodes[0].spaces {
		for _, id := range s.Files.Heads() {
			w.sum.Write(id[:])
		}
	}
	w.result.Copies = bytes.Count([]byte(tree), []byte("(conflict "))
	for i, v := range w.values {
		if v.maybe || bytes.Contains([]byte(tree), []byte(v.text)) {
			continue
		}
		if !slices.ContainsFunc(w.losses, func(l loss) bool { return l.had[i] && w.group(l.name) == w.group(v.name) }) {
			failf("%s, which device %d wrote to %s, is lost: nobody who may have had it took it away\n%s", v.text, v.node, v.name, tree)
		}
	}
	if w.seed%16 == 0 {
		for _, n := range w.nodes {
			for _, p := range must2(n.home.Verify(ctx, nil)).Problems {
				if !strings.Contains(p.Text, "is not here") { // what nobody has read was not fetched
					failf("device %d: verify: %+v", n.i, p)
				}
			}
		}
	}
}

// group gives the name that stands for all between which files were moved or linked.
func (w *World) group(name string) string {
	for w.groups[name] != "" {
		name = w.groups[name]
	}
	return name
}

func (w *World) join(a, b string) {
	if a, b = w.group(a), w.group(b); a != b {
		w.groups[a] = b
	}
}

// mayBe is the values that a node may have.
func (w *World) mayBe(i int) map[int]bool {
	out := map[int]bool{}
	for k := range w.values {
		if w.values[k].may[i] {
			out[k] = true
		}
	}
	return out
}

func (w *World) mayList(i int) []int { return slices.Sorted(maps.Keys(w.mayBe(i))) }
