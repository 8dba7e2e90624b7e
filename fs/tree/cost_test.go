package tree

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
)

// costly folds changes that cost most for their length, and fails where one takes more than 40 ms of CPU time for a KiB. (It takes a
// tenth of that or less; without the indexes that a fold keeps it was a hundred times as much.)
type costly struct {
	t     *testing.T
	s     *State
	clock uint64
	bytes int
}

func (c *costly) id(clock uint64) dag.ID {
	if clock == 1 {
		return c.s.Object
	}
	return dag.Sum(fmt.Appendf(nil, "change %d", clock))
}

func (c *costly) apply(what string, ops ...Op) {
	c.t.Helper()
	c.clock++
	p := &Payload{Ops: ops}
	if c.clock == 1 {
		p.Kind = KindFile
	}
	b, err := p.Encode(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	id := c.id(c.clock)
	if p, err = DecodePayload(b, id, nil); err != nil {
		c.t.Fatal(err)
	}
	c.bytes += len(b)
	c.took(what, len(b), func() {
		if err := c.s.Apply(Stamp{id, dag.Pos{Clock: c.clock, Batch: id}, dag.PublicKey{1}}, p); err != nil {
			c.t.Fatal(err)
		}
	})
}

func (c *costly) took(what string, bytes int, fn func()) {
	c.t.Helper()
	start := cpuTime()
	fn()
	if d := cpuTime() - start; d > time.Duration(bytes)*40*time.Millisecond/1024 {
		c.t.Errorf("%s: %v for %d bytes", what, d, bytes)
	}
}

// cpuTime is what the process used, so that what else the machine does does not count.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestHostileChangesCostLittle: whoever writes a change does not make others work for minutes.
func TestHostileChangesCostLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time")
	}
	object, dir := dag.Sum([]byte("object")), dag.Sum([]byte("dir"))
	fresh := func() *costly { return &costly{t: t, s: NewState(object)} }

	c := fresh()
	var links []Ref
	for len(links) < 4*MaxOps-1000 {
		ops := make([]Op, MaxOps-250)
		for i := range ops {
			ops[i] = Op{Kind: OpLink, Parent: dir, Name: "x"}
			links = append(links, Ref{c.id(c.clock + 1), uint32(i)})
		}
		c.apply("links", ops...)
	}
	unlinks := make([]Op, 2000)
	for i := range unlinks {
		unlinks[i] = Op{Kind: OpUnlink, Link: links[i], Over: links[i : i+1]}
	}
	c.apply("unlinks", unlinks...)
	if len(c.s.Links) != len(links)-len(unlinks)+maxRemoved {
		t.Errorf("%d links", len(c.s.Links))
	}

	c = fresh()
	c.apply("blocks", Op{Kind: OpContent, Content: blocks("x")})
	patches := make([]Op, 3000)
	for i := range patches {
		patches[i] = Op{Kind: OpContent, Over: []Ref{{object, 0}}, Content: &Content{Size: 1 << 20, Patch: []Edit{}}}
	}
	c.apply("patches", patches...)

	c = fresh()
	attrs := make([]Op, maxXattrs)
	for i := range attrs {
		attrs[i] = Op{Kind: OpXattr, Name: fmt.Sprint(i), Value: []byte("x")}
	}
	c.apply("attributes", attrs...)
	again := make([]Op, MaxOps)
	for i := range again {
		again[i] = Op{Kind: OpXattr, Name: "1", Value: []byte{byte(i)}}
	}
	c.apply("attributes again", again...)

	c = fresh()
	over := make([]Ref, 0, maxPast)
	var ops []Op
	for i := range maxPast {
		ops = append(ops, Op{Kind: OpContent, Content: text(fmt.Sprint("text ", i))})
		for _, r := range over {
			ops[i].Over = append(ops[i].Over, Ref{Place: r.Place})
		}
		over = append(over, Ref{object, uint32(i)})
	}
	c.apply("values over one another", ops...)
	for n := range 7 {
		ops = nil
		for i := range 128 {
			ops = append(ops, Op{Kind: OpContent, Over: over, Content: text(fmt.Sprint(n, i))})
		}
		c.apply("candidates", ops...)
	}
	c.bytes /= 20 // looked at often
	c.took("view", c.bytes, func() {
		if v := c.s.View(); len(v.Losers) != 7*128-1 {
			t.Errorf("%d losers", len(v.Losers))
		}
	})
}
