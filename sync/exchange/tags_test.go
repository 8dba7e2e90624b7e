package exchange_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
)

func numbered(name string, n int) (names []string) {
	names = append(names, name)
	for i := 1; i < n; i++ {
		names = append(names, fmt.Sprint(name, i))
	}
	return names
}

// TestManyTags: who has more keys than a peer takes tags of is taken for nobody who breaks the protocol. Of each space some go, the same ones on both sides.
func TestManyTags(t *testing.T) {
	t.Parallel()
	a := newDevice(t, 1, 1)
	b := newDevice(t, 2, 2, a.addr("/tcp/"))
	var last []*replica
	for _, d := range []*device{a, b} {
		common := newReplica(t, d, "space")
		common.Tags = tags(numbered("space", 5000)...)
		other := newReplica(t, d, fmt.Sprint("of ", d.n))
		other.Tags = tags(numbered(fmt.Sprint("of ", d.n), 5000)...)
		d.e.Add(other.Replica)
		d.e.Add(common.Replica)
		last = append(last, common)
	}
	last[0].write(t, last[0].Files, []byte("from a"))
	last[1].write(t, last[1].Files, []byte("from b"))
	held := func(g *dag.Graph) uint64 { n, _, _ := g.Counters(); return n }
	eventually(t, func() bool { return held(last[0].Files) == 2 && held(last[1].Files) == 2 })
}

// TestTagsThatCome: a space that is not in common, and to which keys come without end while two are connected, parts them for no longer than it takes to greet anew.
func TestTagsThatCome(t *testing.T) {
	t.Parallel()
	a := newDevice(t, 1, 1)
	b := newDevice(t, 2, 2, a.addr("/tcp/"))
	ra, rb := newReplica(t, a, "space"), newReplica(t, b, "space")
	other := newReplica(t, a, "other")
	var n atomic.Int64
	all := numbered("other", 500)
	other.Tags = func(transcript []byte) [][32]byte { return tags(all[:n.Load()]...)(transcript) }
	for _, r := range []*replica{ra, other} {
		a.e.Add(r.Replica)
	}
	b.e.Add(rb.Replica)
	held := func(g *dag.Graph) uint64 { n, _, _ := g.Counters(); return n }
	ra.write(t, ra.Files, []byte("first"))
	eventually(t, func() bool { return held(rb.Files) == 1 })
	for range all {
		n.Add(1)
		a.e.Announce()
		time.Sleep(time.Millisecond)
	}
	ra.write(t, ra.Files, []byte("last"))
	eventually(t, func() bool { return held(rb.Files) == 2 })
}
