package network

import (
	"encoding/binary"
	"math"
	"os"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// large is a network of many sync nodes.
func large(nodes int, partitions uint64) *Config {
	c := &Config{Epoch: 1, Partitions: partitions, Replication: DefaultReplication}
	for i := range nodes {
		key := dag.PublicKey(dag.Sum(binary.BigEndian.AppendUint64([]byte("node "), uint64(i))))
		c.Nodes = append(c.Nodes, Node{Key: key, Kinds: Sync, Capacity: 1})
	}
	return c
}

// A large network: how evenly spaces lie on its nodes, and how many move when a node joins or is drained, by the very placement that nodes and
// devices go by. With ANYFS_LONG it is one of 1,000 nodes, 10,000,000 spaces and 100,000 partitions.
func TestLargeNetwork(t *testing.T) {
	nodes, partitions, spaces := 200, uint64(20_000), 400_000
	if os.Getenv("ANYFS_LONG") != "" {
		nodes, partitions, spaces = 1000, 100_000, 10_000_000
	}
	place := func(c *Config) *Placement {
		p, err := c.Place(Sync)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	c := large(nodes, partitions)
	before := place(c)
	grown := place(large(nodes+1, partitions))
	c.Nodes[0].Kinds |= Draining
	drained := place(c)

	id := func(i int) (id dag.ID) { // as good as a hash, and faster
		binary.BigEndian.PutUint64(id[:], uint64(i)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(id[8:], uint64(i)*0xc2b2ae3d27d4eb4f)
		return id
	}
	on := map[*Node]int{}
	movedTo := func(p *Placement, were []*Node, space dag.ID) (n int) {
		for _, x := range p.Of(space) {
			n++
			for _, w := range were {
				if w.Key == x.Key {
					n--
					break
				}
			}
		}
		return n
	}
	joined, left := 0, 0
	for i := range spaces {
		s := id(i)
		were := before.Of(s)
		if len(were) != DefaultReplication {
			t.Fatalf("space %d is on %d nodes", i, len(were))
		}
		for _, n := range were {
			on[n]++
		}
		joined += movedTo(grown, were, s)
		left += movedTo(drained, were, s)
	}
	mean := float64(spaces*DefaultReplication) / float64(nodes)
	within, least, most := 0, math.MaxInt, 0
	for _, n := range on {
		if math.Abs(float64(n)-mean) <= mean/10 {
			within++
		}
		least, most = min(least, n), max(most, n)
	}
	t.Logf("%d nodes, %d partitions, %d spaces on %d each: mean %.0f, least %d, most %d, %.1f%% of the nodes within 10%% of the mean",
		nodes, partitions, spaces, DefaultReplication, mean, least, most, 100*float64(within)/float64(nodes))
	if within*100 < nodes*99 || len(on) != nodes {
		t.Errorf("%d of %d nodes are within 10%% of the mean", within, nodes)
	}

	// What the table itself says of its partitions is what spaces do.
	implied := func(p *Placement) float64 {
		moved := 0
		for i := range int(partitions) {
			a, err := before.table.GetPartitionMembers(i)
			if err != nil {
				t.Fatal(err)
			}
			b, err := p.table.GetPartitionMembers(i)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range b {
				moved++
				for _, y := range a {
					if x.Id() == y.Id() {
						moved--
						break
					}
				}
			}
		}
		return float64(moved) / float64(partitions)
	}
	for what, m := range map[string]struct {
		moved int
		p     *Placement
	}{"a node joins": {joined, grown}, "a node is drained": {left, drained}} {
		got, want := float64(m.moved)/float64(spaces), implied(m.p)
		fair := float64(DefaultReplication) / float64(nodes)
		t.Logf("%s: %.3f%% of all replicas move; by the partitions %.3f%%; one node's share is %.3f%%",
			what, 100*got/DefaultReplication, 100*want/DefaultReplication, 100*fair/DefaultReplication)
		if math.Abs(got-want) > want/10 {
			t.Errorf("%s: %.4f replicas of a space move; the partitions imply %.4f", what, got, want)
		}
	}
}
